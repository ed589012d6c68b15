import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Declared } from '../src/declared.ts'
import type { AppendOutcome, AppendRequest } from '../src/engine/contract.ts'
import { isSluiceError, SluiceError } from '../src/errors.ts'
import { BatchView } from '../src/message-batch.ts'
import { Publisher } from '../src/publisher.ts'
import { FakeEngine, FULL, RECEIPT } from './support/fake-engine.ts'
import { settled } from './support/fake-host.ts'

type Stored = { readonly place: unknown; readonly isDuplicate: boolean }

function openPublisher() {
  const engine = new FakeEngine()
  const declared = new Declared(engine, { kind: 'queue', name: 'q', settings: {} })
  const publisher = new Publisher<Stored>(engine, 'queue', 'q', declared, (place, _receipt, isDuplicate) => ({
    place,
    isDuplicate,
  }))
  const push = (payload: string | Uint8Array, idempotencyKey?: string, dueAtMs = 0): Promise<Stored> =>
    publisher.push(payload, undefined, undefined, 1, 0, idempotencyKey, dueAtMs)
  return { engine, declared, publisher, push }
}

/** Answers appends when told to. */
function holdAppends(engine: FakeEngine): (() => void)[] {
  const release: (() => void)[] = []
  engine.onAppend = (requests) =>
    new Promise((resolve) => release.push(() => resolve(requests.map((request) => engine.store(request)))))
  return release
}

const countOf = (requests: readonly AppendRequest[]): number =>
  requests.reduce((sum, { batch }) => sum + new BatchView(batch).count, 0)

describe('the publisher', () => {
  test('declares with its first message, once', async () => {
    const { engine, push } = openPublisher()
    await Promise.all([push('1'), push('2')])
    await push('3')
    deepEqual(engine.declared, [{ kind: 'queue', name: 'q', settings: {} }])
  })

  test('stores what was pushed together in one batch, in order, each at its own place', async () => {
    const { engine, push } = openPublisher()
    const places = await Promise.all(Array.from({ length: 100 }, (_, i) => push(String(i))))
    deepEqual(
      places.map(({ place }) => place),
      Array.from({ length: 100 }, (_, i) => i),
    )
    equal(engine.appended.length, 1)
    const [request] = engine.appended[0] ?? []
    ok(request !== undefined)
    const view = new BatchView(request.batch)
    deepEqual(
      Array.from({ length: view.count }, (_, i) => view.payloadText(i)),
      Array.from({ length: 100 }, (_, i) => String(i)),
    )
  })

  test('seals a batch at 512 messages and at 64 KiB, and sends them in one call', async () => {
    const { engine, push } = openPublisher()
    await Promise.all(Array.from({ length: 1_100 }, () => push('1')))
    deepEqual(
      engine.appended.map((requests) => requests.map(({ batch }) => new BatchView(batch).count)),
      [[512, 512, 76]],
    )
    await Promise.all(Array.from({ length: 5 }, () => push('x'.repeat(30_000))))
    deepEqual(
      engine.appended[1]?.map(({ batch }) => new BatchView(batch).count),
      [3, 2],
    )
  })

  test('has at most two calls under way; what comes meanwhile gathers', async () => {
    const { engine, push } = openPublisher()
    await push('first')
    const release = holdAppends(engine)
    const all: Promise<Stored>[] = []
    for (let i = 0; i < 10; i++) {
      all.push(push(String(i)))
      await settled()
    }
    deepEqual(engine.appended.map(countOf), [1, 1, 1])
    release.shift()?.()
    await settled()
    deepEqual(engine.appended.map(countOf), [1, 1, 1, 8])
    for (const one of release) one()
    await settled()
    deepEqual(
      (await Promise.all(all)).map(({ place }) => place),
      [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    )
  })

  test('lets the continuations of one answer into one batch', async () => {
    const { engine, push } = openPublisher()
    await push('first')
    await Promise.all(
      Array.from({ length: 300 }, async () => {
        await push('a')
        await push('b')
      }),
    )
    deepEqual(engine.appended.map(countOf), [1, 300, 300])
  })

  test('waits for continuations that take some turns more', async () => {
    const { engine, push } = openPublisher()
    await push('first')
    const passThrough = async (turns: number): Promise<void> => {
      for (let i = 0; i < turns; i++) await null
    }
    await Promise.all(
      Array.from({ length: 90 }, async (_, i) => {
        await push('a')
        await passThrough(i % 9)
        await push('b')
      }),
    )
    deepEqual(engine.appended.map(countOf), [1, 90, 90])
  })

  test('gives each message its own outcome: duplicate, scheduled, mismatch, full', async () => {
    const { engine, push } = openPublisher()
    const answer: AppendOutcome = {
      status: 'mixed',
      receipt: RECEIPT,
      outcomes: [
        { status: 'stored', offset: 7 },
        { status: 'duplicate', place: { kind: 'offset', partition: 0, offset: 3 }, timestampMs: 5 },
        { status: 'scheduled', dueAtMs: 99, serial: 4 },
        { status: 'mismatch' },
        FULL,
        { ...FULL, reason: 'disk', depth: 0, limit: 0 },
      ],
    }
    engine.onAppend = () => [answer]
    const [stored, duplicate, scheduled, mismatch, full, disk] = await Promise.allSettled([
      push('0'),
      push('1', 'key-1'),
      push('2', undefined, 99),
      push('3', 'key-3'),
      push('4'),
      push('5'),
    ])
    deepEqual(stored, { status: 'fulfilled', value: { place: 7, isDuplicate: false } })
    deepEqual(duplicate, {
      status: 'fulfilled',
      value: { place: { kind: 'offset', partition: 0, offset: 3 }, isDuplicate: true },
    })
    deepEqual(scheduled, {
      status: 'fulfilled',
      value: { place: { kind: 'scheduled', dueMs: 99, serial: 4 }, isDuplicate: false },
    })
    ok(mismatch?.status === 'rejected' && isSluiceError(mismatch.reason, 'IDEMPOTENCY_MISMATCH'))
    equal(mismatch.reason.details.idempotencyKey, 'key-3')
    ok(full?.status === 'rejected' && isSluiceError(full.reason, 'QUEUE_FULL'))
    deepEqual(full.reason.details, { queue: 'q', reason: 'messages', depth: 10, limit: 10, retryAfterMs: 1_000 })
    ok(disk?.status === 'rejected' && isSluiceError(disk.reason, 'DISK_FULL'))
    deepEqual(
      engine.appended[0]?.[0]?.wishes?.map(({ index, idempotencyKey, dueAtMs }) => [index, idempotencyKey, dueAtMs]),
      [
        [1, 'key-1', undefined],
        [2, undefined, 99],
        [3, 'key-3', undefined],
      ],
    )
  })

  test('rejects all of a failed call and goes on with the next', async () => {
    const { engine, push } = openPublisher()
    const failing = engine.onAppend
    engine.onAppend = () => Promise.reject(new SluiceError('UNKNOWN'))
    const outcomes = await Promise.allSettled([push('1'), push('2')])
    ok(outcomes.every((one) => one.status === 'rejected' && isSluiceError(one.reason, 'UNKNOWN')))
    engine.onAppend = failing
    deepEqual(await push('3'), { place: 0, isDuplicate: false })
  })

  test('tries a failed declaration again with the next message', async () => {
    const { engine, push } = openPublisher()
    const working = engine.onDeclare
    engine.onDeclare = () => ({ status: 'conflict', message: '"q" is a topic' })
    await rejects(
      push('1'),
      (error) => isSluiceError(error, 'DECLARED_DIFFERENTLY') && error.message.includes('"q" is a topic'),
    )
    engine.onDeclare = working
    deepEqual(await push('2'), { place: 0, isDuplicate: false })
    equal(engine.declared.length, 2)
  })

  test('declares again where the engine does not know the queue any more', async () => {
    const { engine, push } = openPublisher()
    const working = engine.onAppend
    engine.onAppend = (requests) => requests.map(() => ({ status: 'not-found' }))
    await rejects(push('1'), (error) => isSluiceError(error, 'QUEUE_NOT_FOUND'))
    engine.onAppend = working
    await push('2')
    equal(engine.declared.length, 2)
  })

  test('refuses with OVERLOADED beyond its bound, storing the others', async () => {
    const { engine, push } = openPublisher()
    await push('first')
    const release = holdAppends(engine)
    const all: Promise<Stored>[] = []
    for (let i = 0; i < 262_144; i++) all.push(push('1'))
    await rejects(push('too many'), (error) => isSluiceError(error, 'OVERLOADED'))
    while (release.length > 0) {
      for (const one of release.splice(0)) one()
      await settled()
    }
    deepEqual(await (all.at(-1) as Promise<Stored>), { place: 262_144, isDuplicate: false })
    const again = push('room again')
    await settled()
    release.shift()?.()
    deepEqual(await again, { place: 262_145, isDuplicate: false })
  })

  test('says when all that was pushed is stored', async () => {
    const { engine, publisher, push } = openPublisher()
    await push('first')
    const release = holdAppends(engine)
    let isFlushed = false
    const stored = push('1')
    const flushed = publisher.flushed().then(() => {
      isFlushed = true
    })
    await settled()
    equal(isFlushed, false)
    release[0]?.()
    await Promise.all([stored, flushed])
    await publisher.flushed()
  })
})
