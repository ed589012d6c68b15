import { deepEqual, equal, ok, rejects, throws } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { z } from 'zod'
import { isSluiceError, type SluiceError } from '../src/errors.ts'
import { checkPayloadBytes, encodeJson, encodePayload, parseJsonPayload } from '../src/payload.ts'
import { type Schema, validatePayload } from '../src/schema.ts'

const isInvalid = (error: unknown): boolean => isSluiceError(error, 'INVALID_PAYLOAD')

describe('a payload', () => {
  test('of JSON is kept as JSON text', () => {
    equal(encodePayload({ a: [1, 'é', null, true] }), '{"a":[1,"é",null,true]}')
    for (const value of [0, '', false, null, [], {}]) equal(encodePayload(value), JSON.stringify(value))
  })

  test('of bytes is kept as it is', () => {
    const bytes = new Uint8Array([0, 255])
    equal(encodePayload(bytes), bytes)
    ok(encodePayload(Buffer.from('x')) instanceof Uint8Array)
  })

  const cycle: { self?: unknown } = {}
  cycle.self = cycle
  const refused: readonly (readonly [string, unknown])[] = [
    ['undefined', undefined],
    ['a function', () => 1],
    ['a symbol', Symbol('x')],
    ['a BigInt', 5n],
    ['a BigInt inside', { a: 5n }],
    ['a cycle', cycle],
    ['a Map', new Map([[1, 2]])],
    ['a Set', new Set([1])],
    ['an ArrayBuffer', new ArrayBuffer(8)],
    ['a Float64Array', new Float64Array(2)],
    ['a DataView', new DataView(new ArrayBuffer(8))],
    [
      'a toJSON that throws',
      {
        toJSON: () => {
          throw new Error('no')
        },
      },
    ],
  ]
  for (const [what, value] of refused) {
    test(`that is ${what} is refused with INVALID_PAYLOAD`, () => throws(() => encodePayload(value), isInvalid))
  }

  test('nested deeper than the stack is refused, not a crash', () => {
    let deep: unknown = 0
    for (let i = 0; i < 200_000; i++) deep = [deep]
    throws(() => encodePayload(deep), isInvalid)
  })

  test('over the limit is refused with its size, at the limit it is not', () => {
    checkPayloadBytes('é'.repeat(5), 10)
    checkPayloadBytes(new Uint8Array(10), 10)
    for (const payload of [`${'é'.repeat(5)}x`, new Uint8Array(11)]) {
      throws(
        () => checkPayloadBytes(payload, 10),
        (error) => isSluiceError(error, 'PAYLOAD_TOO_LARGE') && error.details.bytes === 11,
      )
    }
  })

  test('is not bytes where only JSON is possible', () =>
    throws(() => encodeJson(new Uint8Array(2), 'The result'), isInvalid))
})

describe('JSON text from outside', () => {
  test('is read, with brackets in its strings', () => {
    deepEqual(parseJsonPayload('{"a":"[[[{{{\\"[\\\\","b":[1]}', 2), { a: '[[[{{{"[\\', b: [1] })
  })

  test('that is broken is refused with INVALID_PAYLOAD', () => {
    for (const text of ['', '{', '{"a":}', '[1,]', '"open', 'nul', '{"a":1}x', "{'a':1}"])
      throws(() => parseJsonPayload(text), isInvalid)
  })

  test('of 100 levels is read, of 101 refused', () => {
    parseJsonPayload('['.repeat(100) + ']'.repeat(100))
    throws(() => parseJsonPayload('['.repeat(101) + ']'.repeat(101)), isInvalid)
  })

  test('of 10,000 and of a million levels is refused without overflow', () => {
    for (const levels of [10_000, 1_000_000]) {
      throws(() => parseJsonPayload(`${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`), isInvalid)
    }
  })

  test('with a __proto__ key changes no prototype', () => {
    const value = parseJsonPayload('{"__proto__":{"polluted":true}}') as object
    equal(Object.getPrototypeOf(value), Object.prototype)
    equal(({} as { polluted?: boolean }).polluted, undefined)
  })
})

describe('a schema', () => {
  const schema = z.object({ to: z.email(), tags: z.array(z.string()).default([]) })

  test('gives its output, defaults filled in', () => {
    deepEqual(validatePayload(schema as Schema, { to: 'a@b.co' }), { to: 'a@b.co', tags: [] })
  })

  test('that does not match answers SCHEMA_MISMATCH with each path', () => {
    throws(
      () => validatePayload(schema as Schema, { to: 'x', tags: ['a', 5] }),
      (error) => {
        ok(isSluiceError(error, 'SCHEMA_MISMATCH'))
        deepEqual(
          (error.details.issues as { path: unknown }[]).map(({ path }) => path),
          [['to'], ['tags', 1]],
        )
        return error.message.includes("'to'")
      },
    )
  })

  test('that answers later is waited for', async () => {
    const slow = z.string().refine(async (text) => text !== 'bad')
    equal(await validatePayload(slow as Schema, 'good'), 'good')
    await rejects(validatePayload(slow as Schema, 'bad') as Promise<unknown>, (error) =>
      isSluiceError(error, 'SCHEMA_MISMATCH'),
    )
  })

  test('of another library is used by the same contract, with path segments as objects', () => {
    const other: Schema = {
      '~standard': {
        version: 1,
        vendor: 'test',
        validate: () => ({
          issues: [{ message: 'no', path: [{ key: 'a' }, { key: Symbol('b') }] }, { message: 'all' }],
        }),
      },
    }
    throws(
      () => validatePayload(other, 1),
      (error) => {
        deepEqual((error as SluiceError).details.issues, [
          { path: ['a', 'Symbol(b)'], message: 'no' },
          { path: [], message: 'all' },
        ])
        return true
      },
    )
  })
})
