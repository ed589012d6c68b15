import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { AppendOutcome } from '../src/engine/contract.ts'
import { isSluiceError } from '../src/errors.ts'
import { BatchView } from '../src/message-batch.ts'
import { createSluice } from '../src/sluice.ts'
import { FakeEngine, FULL, RECEIPT } from './support/fake-engine.ts'
import { FakeHost, settled } from './support/fake-host.ts'

function openFake() {
  const engine = new FakeEngine()
  const host = new FakeHost()
  return { engine, host, sluice: createSluice(engine, {}, { host }) }
}

/** Stores at most `room` messages; the rest is full. */
function limitTo(engine: FakeEngine, room: { left: number }): void {
  engine.onAppend = (requests) =>
    requests.map(({ batch }): AppendOutcome => {
      const { count } = new BatchView(batch)
      const outcomes = Array.from({ length: count }, () => {
        if (room.left === 0) return FULL
        room.left--
        return { status: 'stored' as const, offset: engine.head++ }
      })
      return { status: 'mixed', outcomes, receipt: RECEIPT }
    })
}

describe('a paced producer', () => {
  test('has its messages accepted at its rate and in their order, however fast they come', async () => {
    const { engine, host, sluice } = openFake()
    const queue = sluice.queue<number>('q', { pace: { messages: 50, perMs: 1_000 } })
    const accepted: [number, number][] = []
    const startMs = host.nowMs
    for (let i = 0; i < 100; i++)
      void queue.add(i).then(({ receipt }) => accepted.push([receipt.offset as number, host.nowMs - startMs]))
    await host.advance(1_000)
    ok(accepted.length >= 50 && accepted.length <= 52, `${accepted.length} in the first second`)
    await host.advance(1_000)
    equal(accepted.length, 100)
    deepEqual(
      accepted.map(([offset]) => offset),
      Array.from({ length: 100 }, (_, i) => i),
    )
    const gaps = accepted.map(([, atMs], i) => atMs - (accepted[i - 1]?.[1] ?? 0))
    ok(
      gaps.slice(1).every((gap) => gap <= 40),
      'evenly',
    )
    deepEqual(
      engine.appended
        .flat()
        .map(({ batch }) => new BatchView(batch).payloadText(0))
        .slice(0, 5),
      ['0', '1', '2', '3', '4'],
    )
    await sluice.close()
  })

  test('refuses what waits for its turn when it is closed, as not stored', async () => {
    const { host, sluice } = openFake()
    const queue = sluice.queue<number>('q', { pace: { messages: 1, perMs: 60_000 } })
    const first = queue.add(1)
    const second = queue.add(2)
    const refused = rejects(second, (error) => isSluiceError(error, 'CLOSED'))
    await first
    await sluice.close()
    await refused
    equal(host.timers, 0)
  })
})

describe('a full queue', () => {
  test('rejects at once by default, with what to do', async () => {
    const { engine, sluice } = openFake()
    limitTo(engine, { left: 0 })
    await rejects(sluice.queue('q').add(1), (error) => {
      ok(isSluiceError(error, 'QUEUE_FULL'))
      return error.retryable && error.details.retryAfterMs === 1_000 && error.message.includes("'q'")
    })
  })

  test('lets a message wait for room until its time is over, asking when the engine said', async () => {
    const { engine, host, sluice } = openFake()
    const room = { left: 0 }
    limitTo(engine, room)
    const queue = sluice.queue('q', { fullWaitMs: 2_500 })
    const stored = queue.add('waits')
    await host.advance(999)
    equal(engine.appended.length, 1)
    await host.advance(1)
    equal(engine.appended.length, 2)
    room.left = 1
    await host.advance(1_000)
    equal((await stored).receipt.offset, 0)
    equal(engine.appended.length, 3)

    const refused = rejects(queue.add('in vain'), (error) => isSluiceError(error, 'QUEUE_FULL'))
    await host.advance(2_500)
    await refused
    equal(host.timers, 0)
  })

  test('is tried for the last time when the wait ends, and is not stormed meanwhile', async () => {
    const { engine, host, sluice } = openFake()
    const room = { left: 0 }
    limitTo(engine, room)
    const queue = sluice.queue('q', { fullWaitMs: 500 })
    const first = queue.add(0)
    await settled()
    const others = Array.from({ length: 50 }, (_, i) => queue.add(i + 1))
    await host.advance(499)
    equal(engine.appended.length, 1)
    room.left = 51
    await host.advance(1)
    deepEqual(
      (await Promise.all([first, ...others])).map(({ receipt }) => receipt.offset),
      Array.from({ length: 51 }, (_, i) => i),
    )
  })

  test('rejects each message when its own time is over, though others wait longer', async () => {
    const { engine, host, sluice } = openFake()
    limitTo(engine, { left: 0 })
    const queue = sluice.queue<number>('q')
    const startMs = host.nowMs
    const refusals: [number, number][] = []
    for (const fullWaitMs of [900, 60, 300, 5_000]) {
      queue.add(1, { fullWaitMs }).catch((error) => {
        ok(isSluiceError(error, 'QUEUE_FULL'))
        refusals.push([fullWaitMs, host.nowMs - startMs])
      })
      await settled()
    }
    await host.advance(6_000)
    deepEqual(
      refusals,
      [60, 300, 900, 5_000].map((ms) => [ms, ms]),
    )
    equal(host.timers, 0)
  })

  test('puts what was refused back before what joined meanwhile, in its order', async () => {
    const { engine, host, sluice } = openFake()
    const queue = sluice.queue<number>('q', { fullWaitMs: 60_000 })
    await queue.declare()
    const room = { left: 0 }
    limitTo(engine, room)
    const refuse = engine.onAppend
    const gates: (() => void)[] = []
    engine.onAppend = (requests) => new Promise((resolve) => gates.push(() => resolve(refuse(requests))))
    const stored: Promise<{ receipt: { offset: number | null } }>[] = []
    const add = async (...payloads: number[]): Promise<void> => {
      for (const payload of payloads) stored.push(queue.add(payload))
      await settled()
    }
    await add(0, 1)
    await add(2, 3)
    gates.shift()?.()
    await settled()
    await add(4, 5)
    gates.shift()?.()
    await settled()
    engine.onAppend = refuse
    room.left = 6
    await host.advance(1_000)
    deepEqual(
      (await Promise.all(stored)).map(({ receipt }) => receipt.offset),
      [0, 1, 2, 3, 4, 5],
    )
  })

  test('tells a paced message that would not wait in its turn, though others wait for room', async () => {
    const { engine, host, sluice } = openFake()
    limitTo(engine, { left: 0 })
    const queue = sluice.queue<number>('q', { pace: { messages: 1_000, perMs: 1_000 } })
    const refusals: number[] = []
    for (const one of [1, 2]) queue.add(one, { fullWaitMs: 0 }).catch(() => refusals.push(one))
    const waits = queue.add(3, { fullWaitMs: 60_000 }).catch((error) => error)
    await host.advance(10)
    for (const one of [4, 5]) queue.add(one, { fullWaitMs: 0 }).catch(() => refusals.push(one))
    await host.advance(0)
    deepEqual(refusals, [1, 2, 4, 5])
    await sluice.close()
    ok(isSluiceError(await waits, 'CLOSED'))
  })

  test('tells a message that would not wait at once, though others wait', async () => {
    const { engine, host, sluice } = openFake()
    limitTo(engine, { left: 0 })
    const queue = sluice.queue('q', { fullWaitMs: 60_000 })
    const waits = queue.add(1).catch((error) => error)
    await settled()
    await rejects(queue.add(2, { fullWaitMs: 0 }), (error) => isSluiceError(error, 'QUEUE_FULL'))
    await sluice.close()
    ok(isSluiceError(await waits, 'CLOSED'))
    equal(host.timers, 0)
  })

  test('keeps a waiting message as it was, though its caller writes to what it passed', async () => {
    const { engine, host, sluice } = openFake()
    const room = { left: 0 }
    limitTo(engine, room)
    const bytes = new Uint8Array([1, 2])
    const headers = { h: 'before' }
    const stored = sluice.queue('q').add(bytes, { headers, fullWaitMs: 5_000 })
    await settled()
    bytes.fill(9)
    headers.h = 'after'
    room.left = 1
    await host.advance(1_000)
    await stored
    const [last] = engine.appended.at(-1) ?? []
    ok(last !== undefined)
    const view = new BatchView(last.batch)
    deepEqual([[...view.payload(0)], view.headers(0)], [[1, 2], { h: 'before' }])
  })

  test('never waits past the deadline that a message was given when it was added', async () => {
    const { engine, host, sluice } = openFake()
    const room = { left: 0 }
    limitTo(engine, room)
    const stored = sluice.queue('q').add(1, { fullWaitMs: 5_000, deadlineMs: 1_500 })
    const startMs = host.nowMs
    await host.advance(500)
    room.left = 1
    await host.advance(1_000)
    await stored
    const [last] = engine.appended.at(-1) ?? []
    ok(last !== undefined)
    equal(new BatchView(last.batch).deadlineMs(0), startMs + 1_500)
  })
})
