import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { test } from 'node:test'
import { isSluiceError, open, type Schema } from '../src/index.ts'

const BROKEN = new Error('broken')
const fail = (): never => {
  throw BROKEN
}
const failing = (validate: () => never | Promise<never>): Schema => ({
  '~standard': { version: 1, vendor: 'test', validate },
})

test('headers that are not a plain object are refused, never stored as something else', async () => {
  await using sluice = await open(':memory:')
  const queue = sluice.queue('q')
  class Tags {
    a = 'b'
    toJSON(): unknown {
      return { c: 'd' }
    }
  }
  for (const headers of [new Headers({ a: 'b' }), new Map([['a', 'b']]), new Tags(), Object.create({ a: 'b' })]) {
    await rejects(queue.add(1, { headers: headers as never }), (error) => isSluiceError(error, 'INVALID_OPTION'))
  }
  await queue.add(1, { headers: Object.assign(Object.create(null), { a: 'b' }) })
  const { topics } = await sluice.engine.stats()
  equal(topics[0]?.appended, 1)
})

test('one item that cannot be read has its error at its own index, and the others are stored', async () => {
  await using sluice = await open(':memory:')
  const queue = sluice.queue<unknown>('q')
  const outcomes = await queue.addMany([
    { payload: 1 },
    Object.defineProperty({ payload: 0 }, 'payload', { get: fail, enumerable: true }),
    {
      payload: {
        toJSON: () => {
          throw Object.create(null)
        },
      },
    },
    Object.defineProperty({ payload: 2 }, 'onSettled', { get: fail, enumerable: true }),
    { payload: 3 },
  ])
  deepEqual(
    outcomes.map((one) => (isSluiceError(one) ? one.code : 'stored')),
    ['stored', 'INVALID_OPTION', 'INVALID_PAYLOAD', 'INVALID_OPTION', 'stored'],
  )
})

test('a schema that throws or rejects is SCHEMA_MISMATCH with the cause, for its own message alone', async () => {
  await using sluice = await open(':memory:')
  for (const [name, validate] of [
    ['throws', fail],
    ['rejects', () => Promise.reject(BROKEN)],
  ] as const) {
    const queue = sluice.queue(name, { schema: failing(validate) })
    const [outcome] = await queue.addMany([{ payload: 1 }])
    ok(isSluiceError(outcome, 'SCHEMA_MISMATCH'))
    equal(outcome.cause, BROKEN)
  }
})

test('add rejects where its options throw when they are read, and does not throw', async () => {
  await using sluice = await open(':memory:')
  const options = Object.defineProperty({}, 'onSettled', { get: fail, enumerable: true })
  await rejects(sluice.queue('q').add(1, options), (error) => isSluiceError(error, 'INVALID_OPTION'))
})
