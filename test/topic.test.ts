import { deepEqual, equal, ok, rejects, throws } from 'node:assert/strict'
import { test } from 'node:test'
import { z } from 'zod'
import { isSluiceError, type Message, type SluiceError, type Topic } from '../src/index.ts'
import { createSignal, onEachEngine } from './support/open-each.ts'

/** Collects payloads until there are `count`. */
function collect<P>(count: number) {
  const done = createSignal<P[]>()
  const payloads: P[] = []
  const take = ({ payload }: Message<P>): void => {
    payloads.push(payload)
    if (payloads.length === count) done.resolve(payloads)
  }
  return { take, payloads, done: done.promise }
}

async function readAll<P>(topic: Topic<P>, from?: number | 'earliest' | 'latest'): Promise<[number, P][]> {
  const seen: [number, P][] = []
  for await (const { offset, payload } of topic.read({ follow: false, ...(from === undefined ? {} : { from }) }))
    seen.push([offset, payload])
  return seen
}

onEachEngine('a topic', (openSluice) => {
  test('gives each message the next offset, and readers the same bytes at the same offsets (P6)', async () => {
    await using sluice = await openSluice()
    const orders = sluice.topic<number>('orders')
    const receipts = await Promise.all(Array.from({ length: 1_500 }, (_, i) => orders.publish(i)))
    deepEqual(
      receipts.map(({ offset }) => offset),
      Array.from({ length: 1_500 }, (_, i) => i),
    )
    const expected = Array.from({ length: 1_500 }, (_, i) => [i, i] as [number, number])
    deepEqual(await readAll(orders), expected)
    deepEqual(await readAll(orders, 1_490), expected.slice(1_490))
    deepEqual(await readAll(orders, 1_500), [])
    deepEqual(await readAll(orders, 'latest'), [])
  })

  test('shows a message with all that was published', async () => {
    await using sluice = await openSluice()
    const orders = sluice.topic('orders')
    const { timestampMs } = await orders.publish({ a: 1 }, { key: 'k', headers: { h: 'v' } })
    await orders.publish(new Uint8Array([7]))
    const [first, second] = await Array.fromAsync(orders.read({ follow: false }))
    ok(first !== undefined && second !== undefined)
    deepEqual(
      [
        first.topic,
        first.partition,
        first.offset,
        first.timestampMs,
        first.key,
        first.headers,
        first.payload,
        first.isBytes,
      ],
      ['orders', 0, 0, timestampMs, 'k', { h: 'v' }, { a: 1 }, false],
    )
    equal(Buffer.from(first.bytes).toString(), '{"a":1}')
    deepEqual(
      [second.key, second.headers, second.isBytes, [...(second.payload as Uint8Array)]],
      [undefined, {}, true, [7]],
    )
    equal(first.payload, first.payload)
  })

  test('gives every group every message, each once among its members (P6)', async () => {
    await using sluice = await openSluice()
    const orders = sluice.topic<number>('orders')
    const billing = collect<number>(20)
    const shipping = collect<number>(20)
    orders.subscribe('billing', billing.take, { from: 'earliest' })
    orders.subscribe('shipping', shipping.take, { from: 'earliest', concurrency: 3 })
    orders.subscribe('shipping', shipping.take, { from: 'earliest', concurrency: 3 })
    await orders.publishMany(Array.from({ length: 20 }, (_, i) => ({ payload: i })))
    const all = Array.from({ length: 20 }, (_, i) => i)
    deepEqual(
      (await billing.done).toSorted((a, b) => a - b),
      all,
    )
    deepEqual(
      (await shipping.done).toSorted((a, b) => a - b),
      all,
    )
  })

  test('lets a group start late and replay, or start now, and go on where it was', async () => {
    await using sluice = await openSluice()
    const orders = sluice.topic<string>('orders')
    await orders.publishMany([{ payload: 'a' }, { payload: 'b' }])
    const late = collect<string>(2)
    const lateWorker = orders.subscribe('late', late.take, { from: 'earliest' })
    deepEqual(await late.done, ['a', 'b'])
    await lateWorker.close()
    const now = collect<string>(1)
    await orders.subscribe('now', now.take).ready
    const again = collect<string>(1)
    await orders.subscribe('late', again.take, { from: 'earliest' }).ready
    await orders.publish('c')
    deepEqual([await now.done, await again.done], [['c'], ['c']])
    const replay = collect<string>(3)
    orders.subscribe('from-one', replay.take, { from: 1 })
    await orders.publish('d')
    deepEqual(await replay.done, ['b', 'c', 'd'])
  })

  test('moves a group, which goes on from there', async () => {
    await using sluice = await openSluice()
    const orders = sluice.topic<number>('orders')
    await orders.publishMany([0, 1, 2].map((payload) => ({ payload })))
    const first = collect<number>(3)
    const twice = collect<number>(5)
    const worker = orders.subscribe(
      'g',
      (message) => {
        first.take(message)
        twice.take(message)
      },
      { from: 'earliest' },
    )
    await first.done
    await orders.seek('g', 1)
    deepEqual(await twice.done, [0, 1, 2, 1, 2])
    await worker.close()
    await rejects(orders.seek('nobody', 0), (error) => isSluiceError(error, 'GROUP_NOT_FOUND'))
    await rejects(orders.seek('g', 99), (error) => isSluiceError(error, 'OFFSET_OUT_OF_RANGE'))
  })

  test('follows the end until the loop breaks', async () => {
    await using sluice = await openSluice()
    const orders = sluice.topic<number>('orders')
    await orders.publish(0)
    const seen: number[] = []
    for await (const { payload } of orders.read()) {
      seen.push(payload)
      if (payload === 5) break
      await orders.publish(payload + 1)
    }
    deepEqual(seen, [0, 1, 2, 3, 4, 5])
  })

  test('follows until the signal, which ends the loop quietly, and until the limit', async () => {
    await using sluice = await openSluice()
    const orders = sluice.topic<number>('orders')
    await orders.publishMany([0, 1, 2].map((payload) => ({ payload })))
    const stop = new AbortController()
    const seen: number[] = []
    for await (const { payload } of orders.read({ signal: stop.signal })) {
      seen.push(payload)
      if (payload === 2) setImmediate(() => stop.abort())
    }
    deepEqual(seen, [0, 1, 2])
    equal((await Array.fromAsync(orders.read({ limit: 2 }))).length, 2)
    deepEqual(await Array.fromAsync(orders.read({ signal: AbortSignal.abort() })), [])
  })

  test('answers an offset that cannot be read with what can (P6)', async () => {
    await using sluice = await openSluice()
    const orders = sluice.topic('orders')
    await orders.publish(1)
    await rejects(readAll(orders, 7), (error) => {
      ok(isSluiceError(error, 'OFFSET_OUT_OF_RANGE'))
      deepEqual([error.details.offset, error.details.earliest, error.details.head], [7, 0, 1])
      return true
    })
    await rejects(readAll(orders, -1), (error) => isSluiceError(error, 'INVALID_OPTION'))
    const worker = orders.subscribe('g', () => {}, { from: 7 })
    await rejects(worker.ready, (error) => isSluiceError(error, 'OFFSET_OUT_OF_RANGE'))
  })

  test('retries a message for its group alone, and keeps it as a dead letter after the last attempt', async () => {
    const errors: unknown[] = []
    await using sluice = await openSluice({ onError: (error) => errors.push(error) })
    const orders = sluice.topic<string>('orders')
    const attempts: number[] = []
    const last = createSignal()
    orders.subscribe(
      'bad',
      (_message, { attempt }) => {
        attempts.push(attempt)
        if (attempt === 3) last.resolve()
        throw new Error('no')
      },
      { from: 'earliest', attempts: 3, backoff: { baseMs: 0 } },
    )
    const good = collect<string>(1)
    orders.subscribe('good', good.take, { from: 'earliest' })
    await orders.publish('x')
    deepEqual(await good.done, ['x'])
    await last.promise
    deepEqual(attempts, [1, 2, 3])
    deepEqual(errors, [])
  })

  test('is fed by a handler in the step that settles its job, once (P9)', async () => {
    await using sluice = await openSluice()
    const out = sluice.topic<string>('out')
    const queue = sluice.queue<string, void>('in', { backoff: { baseMs: 0 } })
    queue.work(async ({ payload }, { attempt, publish }) => {
      await publish('out', `${payload} ${attempt}`)
      if (attempt === 1) throw new Error('after publish')
    })
    await queue.call('a')
    deepEqual(await readAll(out), [[0, 'a 2']])
  })

  test('stores an idempotency key once, and validates with its schema', async () => {
    await using sluice = await openSluice()
    const orders = sluice.topic('orders', { schema: z.string() })
    const first = await orders.publish('a', { idempotencyKey: 'x' })
    const again = await orders.publish('a', { idempotencyKey: 'x' })
    deepEqual([first.duplicate, again], [false, { ...first, duplicate: true, timestampMs: again.timestampMs }])
    const outcomes = await orders.publishMany([
      { payload: 'b' },
      { payload: 5 as never },
      { payload: 'c', delayMs: 5 } as never,
    ])
    deepEqual(
      outcomes.map((one) => (one instanceof Error ? (one as SluiceError).code : one.offset)),
      [1, 'SCHEMA_MISMATCH', 'INVALID_OPTION'],
    )
  })

  test('refuses to be named as a queue, or a group with a wrong name', async () => {
    await using sluice = await openSluice()
    const orders = sluice.topic('orders')
    await orders.publish(1)
    throws(
      () => sluice.queue('orders'),
      (error) => isSluiceError(error, 'DECLARED_DIFFERENTLY'),
    )
    throws(
      () => orders.subscribe('a b', () => {}),
      (error) => isSluiceError(error, 'INVALID_NAME'),
    )
    throws(
      () => orders.subscribe('', () => {}),
      (error) => isSluiceError(error, 'INVALID_NAME'),
    )
    throws(
      () => orders.subscribe('g', () => {}, { form: 'earliest' } as never),
      (error) => isSluiceError(error, 'INVALID_OPTION'),
    )
  })
})
