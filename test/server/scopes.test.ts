import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Caller, formatGrant, type Grant, matchesPattern, parseGrant } from '../../src/server/access/scopes.ts'

test('a scope is one of four, on every name or on those of a pattern, and anything else is none', () => {
  assert.deepEqual(parseGrant('read'), { scope: 'read', pattern: '*' })
  assert.deepEqual(parseGrant('publish:orders.*'), { scope: 'publish', pattern: 'orders.*' })
  for (const text of [
    '',
    'write',
    'read:',
    'read:a/b',
    'read:a b',
    'Read:a',
    'read:a:b',
    'read:..',
    `read:${'a'.repeat(129)}`,
    'read:a\n',
  ])
    assert.equal(parseGrant(text), null, text)
  assert.equal(formatGrant({ scope: 'consume', pattern: 'a*' }), 'consume:a*')
})

test('a pattern matches as the regular expression that it stands for, and takes no time for it', () => {
  const part = fc.string({ unit: fc.constantFrom('a', 'b', '.', '*'), minLength: 1, maxLength: 12 })
  const name = fc.string({ unit: fc.constantFrom('a', 'b', '.'), minLength: 1, maxLength: 16 })
  fc.assert(
    fc.property(part, name, (pattern, text) => {
      const expected = new RegExp(`^${pattern.replaceAll('.', '\\.').replaceAll('*', '.*')}$`).test(text)
      assert.equal(matchesPattern(pattern, text), expected, `${pattern} ${text}`)
    }),
    { numRuns: 2_000 },
  )
  // With back-tracking this would take longer than the universe has.
  assert.equal(matchesPattern('*a'.repeat(60), `${'a'.repeat(127)}b`), false)
})

test('a caller may what its grants say and nothing else; admin is every scope on its names', () => {
  const caller = new Caller(
    'k',
    ['publish:orders.*', 'admin:mine', 'consume:*-jobs'].map((text) => parseGrant(text) as Grant),
  )
  assert.ok(caller.may('publish', 'orders.eu'))
  assert.ok(!caller.may('read', 'orders.eu'))
  assert.ok(!caller.may('publish', 'orders'))
  for (const scope of ['publish', 'consume', 'read', 'admin'] as const) assert.ok(caller.may(scope, 'mine'))
  assert.ok(!caller.may('admin', 'mine2'))
  assert.deepEqual([caller.sees('orders.eu'), caller.sees('x-jobs'), caller.sees('x')], [true, true, false])
  const all = new Caller('k', [parseGrant('read') as Grant])
  assert.deepEqual([all.sees('x'), all.sees('sluice.callbacks')], [true, false])
  for (const scope of ['admin', 'read:sluice.*'])
    assert.ok(new Caller('k', [parseGrant(scope) as Grant]).may('read', 'sluice.callbacks'))
  assert.ok(!caller.mayEverywhere('publish'))
  assert.throws(() => caller.require('read', 'orders.eu'), { code: 'FORBIDDEN', message: /read:orders\.eu/ })
  assert.throws(() => caller.requireAny('x'), { code: 'FORBIDDEN' })
})
