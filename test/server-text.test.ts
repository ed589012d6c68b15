import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { createGuard, hostName } from '../src/server/guard.ts'
import { cutElements, cutMember, jsonTextOf } from '../src/server/json-text.ts'
import { formatLeaseToken, parseLeaseToken } from '../src/server/lease-token.ts'
import { SCRIPT } from '../src/server/ui/page.ts'

/** JSON text of a value with random spacing between its tokens, and names written with escapes now and then. */
function spell(value: unknown, space: () => string, escapes: () => boolean): string {
  const s = space
  if (Array.isArray(value))
    return `[${s()}${value.map((item) => spell(item, space, escapes)).join(`${s()},${s()}`)}${s()}]`
  if (typeof value === 'string' && escapes())
    return `"${[...Buffer.from(value, 'utf16le')].map((_, i, all) => (i % 2 ? '' : `\\u${((all[i + 1] ?? 0) * 256 + (all[i] ?? 0)).toString(16).padStart(4, '0')}`)).join('')}"`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  const members = Object.entries(value).map(
    ([name, item]) => `${spell(name, space, escapes)}${s()}:${s()}${spell(item, space, escapes)}`,
  )
  return `{${s()}${members.join(`${s()},${s()}`)}${s()}}`
}

test('a part that is cut out of JSON text is the text of that part, whatever its spelling', () => {
  const property = fc.property(
    fc.dictionary(fc.string(), fc.jsonValue()),
    fc.infiniteStream(fc.constantFrom('', ' ', '\n\t', '\r\n ')),
    fc.infiniteStream(fc.boolean()),
    (object, spaces, flags) => {
      const text = spell(
        object,
        () => spaces.next().value,
        () => flags.next().value,
      )
      const parsed = JSON.parse(text) as Record<string, unknown>
      for (const name of Object.keys(parsed)) {
        const part = cutMember(text, name)
        assert.ok(part !== undefined && text.includes(part))
        assert.deepEqual(JSON.parse(part), parsed[name])
        assert.equal(part, part.trim())
      }
      assert.equal(cutMember(text, 'no such name at all'), undefined)
    },
  )
  fc.assert(property, { numRuns: 2_000 })
  const list = fc.property(
    fc.array(fc.jsonValue()),
    fc.infiniteStream(fc.constantFrom('', ' ', '\n')),
    (array, spaces) => {
      const text = spell(
        array,
        () => spaces.next().value,
        () => false,
      )
      assert.deepEqual(
        cutElements(text).map((part) => JSON.parse(part)),
        JSON.parse(text),
      )
    },
  )
  fc.assert(list, { numRuns: 1_000 })
})

test('of members of one name the last counts, as JSON.parse has it', () => {
  assert.equal(cutMember('{"a": 1, "b": {"a": 3}, "\\u0061": 2.0}', 'a'), '2.0')
  assert.equal(cutMember('{"a\\\\": "\\\\", "a": "}\\"{"}', 'a'), '"}\\"{"')
})

test('bytes are JSON text only where they are one value in UTF-8', () => {
  assert.equal(jsonTextOf(Buffer.from(' {"a": "é"} ')), ' {"a": "é"} ')
  for (const bytes of [
    Buffer.from('{'),
    Buffer.from(''),
    Buffer.from('1 2'),
    Buffer.from([0x22, 0xc3, 0x22]),
    Buffer.from('\ufeff1'),
  ])
    assert.equal(jsonTextOf(bytes), null)
})

test('a lease token gives back what it was made of, and any other text is no token', () => {
  const name = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/)
  const fields = fc.record({
    topic: name,
    group: fc.oneof(fc.constant(''), name),
    fence: fc.maxSafeNat(),
    offset: fc.maxSafeNat(),
    holder: fc.stringMatching(/^[A-Za-z0-9_-]{22}$/),
  })
  fc.assert(fc.property(fields, (token) => assert.deepEqual(parseLeaseToken(formatLeaseToken(token)), { ...token })))
  fc.assert(fc.property(fc.string(), (text) => assert.equal(parseLeaseToken(text), null)))
  fc.assert(
    fc.property(
      fc.array(fc.oneof(fc.string(), fc.constantFrom('1', '', '-1', '99999999999999999999')), { maxLength: 8 }),
      (parts) => {
        const token = parseLeaseToken(Buffer.from(['1', ...parts].join('|')).toString('base64url'))
        if (token !== null)
          assert.ok(Number.isSafeInteger(token.fence) && Number.isSafeInteger(token.offset) && token.holder !== '')
      },
    ),
  )
})

test('a host is taken apart as browsers do, and what is no host is none', () => {
  for (const [authority, name] of [
    ['LocalHost:80', 'localhost'],
    ['[::1]:8787', '::1'],
    ['a.b.', 'a.b'],
    ['127.0.0.1', '127.0.0.1'],
  ] as const)
    assert.equal(hostName(authority), name)
  for (const authority of ['', 'a@b', 'a b', 'a/b', 'a:b:c', '[::1', 'a:999999'])
    assert.equal(hostName(authority), null)
  assert.throws(() => createGuard('127.0.0.1', ['https://example.com']), { code: 'INVALID_OPTION' })
})

test('the script of the dashboard is JavaScript', () => {
  assert.doesNotThrow(() => new Function(SCRIPT))
})
