import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import { openMemoryLog } from '../../src/logs/memory.ts'
import { BatchView } from '../../src/message-batch.ts'
import {
  type Draft,
  type Held,
  type LeaseOptions,
  type LedgerDriver,
  openDriver,
  START_MS,
  toAppend,
} from '../support/ledger-driver.ts'

const many = (count: number, draft: Draft = {}): Draft[] => Array.from({ length: count }, () => draft)

/** Takes and settles everything that the group gets now. */
async function drain(driver: LedgerDriver, group: string, options: LeaseOptions = {}): Promise<number[]> {
  const offsets: number[] = []
  for (;;) {
    const held = await driver.lease('t', { group, max: 10, ...options })
    if (held === undefined) return offsets
    offsets.push(...held.offsets)
    await driver.settle(held)
  }
}

describe('groups (P6)', () => {
  test('each group sees every message, each message goes to one member', async () => {
    const driver = await openDriver()
    await driver.topic('t')
    await driver.group('t', 'a')
    await driver.group('t', 'b')
    await driver.add('t', {}, {}, {})
    assert.deepEqual((await driver.lease('t', { group: 'a', max: 2 }))?.offsets, [0, 1])
    assert.deepEqual((await driver.lease('t', { group: 'a', max: 2 }))?.offsets, [2])
    assert.deepEqual(await drain(driver, 'b'), [0, 1, 2])
  })

  test('a group that comes late starts where it says: earliest, latest, an offset, a time', async () => {
    const driver = await openDriver()
    await driver.topic('t')
    for (let i = 0; i < 5; i++) {
      await driver.add('t', {}, {})
      await driver.advance(1_000)
    }
    await driver.restart()
    const starts = [
      ['earliest', 0],
      ['latest', 10],
      [7, 7],
      [10, 10],
      [{ timeMs: START_MS }, 0],
      [{ timeMs: START_MS + 2_000 }, 4],
      [{ timeMs: START_MS + 2_001 }, 6],
      [{ timeMs: START_MS + 999_999 }, 10],
    ] as const
    for (const [i, [from, first]] of starts.entries()) {
      assert.equal((await driver.group('t', `g${i}`, from)).status, 'declared')
      assert.deepEqual(
        await drain(driver, `g${i}`),
        Array.from({ length: 10 - first }, (_, n) => first + n),
        JSON.stringify(from),
      )
    }
    await driver.add('t', {})
    assert.deepEqual(await drain(driver, 'g1'), [10])
  })

  test('a start outside of what is kept is a clear error', async () => {
    const driver = await openDriver()
    await driver.topic('t')
    await driver.add('t', {})
    assert.deepEqual(await driver.group('t', 'g', 2), { status: 'out-of-range', offset: 2, earliest: 0, head: 1 })
    assert.equal((await driver.group('nowhere', 'g')).status, 'not-found')
    assert.equal((await driver.leaseOutcome('t', { group: 'g' })).status, 'not-found')
  })

  test('declaring a group again does not move it', async () => {
    const driver = await openDriver()
    await driver.topic('t')
    await driver.add('t', {}, {})
    await driver.group('t', 'g')
    await driver.settle((await driver.lease('t', { group: 'g' })) as Held)
    const again = await driver.group('t', 'g', 'earliest', { attempts: 9 })
    assert.ok(again.status === 'declared' && !again.created)
    assert.deepEqual(await drain(driver, 'g'), [1])
  })

  test('seek moves a group back and forth, and what it held is lost to it', async () => {
    const driver = await openDriver()
    await driver.topic('t')
    await driver.group('t', 'g', 'earliest', { backoff: { baseMs: 0 } })
    await driver.add('t', ...many(6, { key: 'k' }))
    assert.deepEqual(await drain(driver, 'g'), [0, 1, 2, 3, 4, 5])
    const seek = (from: 'earliest' | 'latest' | number) =>
      driver.command({ kind: 'seek', topic: 't', group: 'g', from })
    assert.deepEqual(await seek(2), { status: 'done' })
    const held = (await driver.lease('t', { group: 'g', token: 'x', leaseMs: 100 })) as Held
    assert.deepEqual([held.offsets, held.attempts], [[2], [1]])
    assert.deepEqual(await seek('earliest'), { status: 'done' })
    assert.deepEqual(await driver.settle(held), { status: 'settled', lost: [2], outputs: [] })
    await driver.restart()
    assert.deepEqual(await drain(driver, 'g'), [0, 1, 2, 3, 4, 5])
    assert.deepEqual(await seek('latest'), { status: 'done' })
    assert.equal((await driver.stats('t')).depth.messages, 0)
    assert.deepEqual(await seek(7), { status: 'out-of-range', offset: 7, earliest: 0, head: 6 })
  })

  test('what was tried before a seek is handed out once after it', async () => {
    const driver = await openDriver()
    await driver.topic('t')
    await driver.group('t', 'g', 'earliest', { attempts: 100 })
    await driver.add('t', {}, {})
    const retryAt = async (atMs: number) =>
      driver.settle((await driver.lease('t', { group: 'g' })) as Held, { kind: 'retry', error: 'no', atMs })
    await retryAt(START_MS + 100)
    await driver.command({ kind: 'seek', topic: 't', group: 'g', from: 0 })
    await retryAt(START_MS + 50)
    await driver.advance(200)
    const offsets = []
    for (let held = await driver.lease('t', { group: 'g' }); held; held = await driver.lease('t', { group: 'g' }))
      offsets.push(...held.offsets)
    assert.deepEqual(offsets.toSorted(), [0, 1])
  })

  test('a message that dies again after a seek is one dead letter', async () => {
    const driver = await openDriver()
    await driver.topic('t')
    await driver.group('t', 'g')
    await driver.add('t', {})
    for (let i = 0; i < 3; i++) {
      await driver.settle((await driver.lease('t', { group: 'g' })) as Held, { kind: 'dead', error: `${i}` })
      await driver.command({ kind: 'seek', topic: 't', group: 'g', from: 0 })
    }
    assert.equal((await driver.stats('t')).groups[0]?.dead, 1)
    const outcome = await driver.command({ kind: 'dead', topic: 't', group: 'g', max: 10 })
    assert.ok(outcome.status === 'dead-letters')
    assert.deepEqual(
      outcome.letters.map(({ error }) => error),
      ['2'],
    )
  })

  test('a queue cannot be moved', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    const id = await driver.begin('command', { kind: 'seek', topic: 'q', group: '', from: 0 })
    const answer = driver.answered.get(id)
    assert.ok(answer !== undefined && 'error' in answer)
    assert.equal(answer.error.code, 'UNSUPPORTED')
  })

  test('what a group has settled leaves no rows behind', async () => {
    const driver = await openDriver()
    await driver.topic('t')
    await driver.group('t', 'g', 'earliest', { attempts: 2, backoff: { baseMs: 0 }, deadLetters: 0 })
    await driver.add('t', ...many(20))
    await driver.settle((await driver.lease('t', { group: 'g', max: 20 })) as Held, { kind: 'retry', error: 'once' })
    assert.equal((await drain(driver, 'g')).length, 20)
    const { state } = openMemoryLog(driver.medium).own()
    for (const prefix of ['o/', 'r/', 'l/', 's/', 'k/'])
      assert.deepEqual(state.range(prefix, `${prefix}\x7f`, 10), [], prefix)
  })
})

describe('slow groups (P2)', () => {
  const full = { limit: { messages: 10 } }

  test('a topic whose slowest group is at the limit refuses, until that group has caught up', async () => {
    const driver = await openDriver()
    await driver.topic('t', full)
    await driver.group('t', 'fast')
    await driver.group('t', 'slow')
    await driver.add('t', ...many(10))
    await drain(driver, 'fast')
    assert.equal((await driver.add('t', {}))[0]?.status, 'full')
    await drain(driver, 'slow')
    assert.equal((await driver.add('t', {}))[0]?.status, 'stored')
  })

  test('without groups a topic is never full', async () => {
    const driver = await openDriver()
    await driver.topic('t', full)
    for (let i = 0; i < 5; i++)
      assert.ok((await driver.add('t', ...many(10))).every(({ status }) => status === 'stored'))
  })

  test('a topic that detaches lets go of the slow group, which is told once what it lost', async () => {
    const driver = await openDriver()
    await driver.topic('t', { ...full, onSlowGroup: 'detach' })
    await driver.group('t', 'fast')
    await driver.group('t', 'slow')
    await driver.add('t', ...many(10))
    await driver.settle((await driver.lease('t', { group: 'slow' })) as Held)
    await drain(driver, 'fast')
    assert.equal((await driver.add('t', {}, {}))[0]?.status, 'stored')
    await driver.restart()
    const told = await driver.leaseOutcome('t', { group: 'slow' })
    assert.ok(told.status === 'truncated')
    assert.equal(told.offset, 1)
    const rest = await drain(driver, 'slow')
    assert.equal(rest[0], told.earliest)
    assert.equal(rest.at(-1), 11)
    assert.deepEqual(await drain(driver, 'fast'), [10, 11], 'the fast group loses nothing')
  })

  test('a group that was let go of is not handed what it had settled, and keeps what it holds (P3, P5)', async () => {
    const driver = await openDriver()
    await driver.topic('t', { ...full, onSlowGroup: 'detach' })
    await driver.group('t', 'slow', 'earliest', { backoff: { baseMs: 0 } })
    await driver.add('t', ...many(10, { key: 'stuck' }).map((draft, i) => (i < 5 ? draft : {})))
    const held = (await driver.lease('t', { group: 'slow', max: 10 })) as Held
    assert.deepEqual(held.offsets, [0, 5, 6, 7, 8, 9])
    await driver.settle({ ...held, offsets: [6, 7] })
    await driver.add('t', ...many(3))
    const told = await driver.leaseOutcome('t', { group: 'slow' })
    assert.ok(told.status === 'truncated' && told.earliest === 5)
    assert.deepEqual(await drain(driver, 'slow'), [10, 11, 12], 'the rest is settled or held')
    const late = await driver.settle({ ...held, offsets: [0, 5, 8, 9] })
    assert.ok(late.status === 'settled')
    assert.deepEqual(late.lost, [0], 'only what was let go of is lost')
  })

  test('a group that is let go of twice is told of both ranges', async () => {
    const driver = await openDriver()
    await driver.topic('t', { ...full, onSlowGroup: 'detach' })
    await driver.group('t', 'slow')
    for (let i = 0; i < 4; i++) await driver.add('t', ...many(10))
    const told = await driver.leaseOutcome('t', { group: 'slow' })
    assert.ok(told.status === 'truncated')
    assert.equal(told.offset, 0)
    assert.equal((await drain(driver, 'slow'))[0], told.earliest)
  })

  test('a topic that detaches never refuses what could be stored at all', async () => {
    const draft = { payload: '1'.repeat(76) }
    for (const limit of [{ messages: 10 }, { bytes: 1_000 }, { messages: 10, bytes: 700 }]) {
      for (const count of [1, 4, 6, 7]) {
        const driver = await openDriver()
        await driver.topic('t', { limit, onSlowGroup: 'detach' })
        await driver.group('t', 'slow')
        for (let i = 0; i < 12; i++) {
          const outcomes = await driver.add('t', ...many(count, draft))
          assert.ok(
            outcomes.every(({ status }) => status === 'stored'),
            `${JSON.stringify(limit)} by ${count}`,
          )
        }
        const { depth } = await driver.stats('t')
        assert.ok(depth.messages <= (limit.messages ?? 1_000) && depth.bytes <= (limit.bytes ?? 1e9))
      }
    }
  })

  test('outputs let go of slow groups as publishers do', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.topic('t', { ...full, onSlowGroup: 'detach' })
    await driver.group('t', 'slow')
    await driver.add('t', ...many(10))
    await driver.add('q', {})
    const held = (await driver.lease('q')) as Held
    const settled = await driver.settle(held, { kind: 'done' }, { outputs: [toAppend('t', many(2))] })
    assert.equal(settled.status, 'settled')
  })

  test('a group is not let go of for what the full disk refuses anyway', async () => {
    const driver = await openDriver()
    await driver.topic('t', { ...full, onSlowGroup: 'detach' })
    await driver.group('t', 'slow')
    await driver.add('t', ...many(10))
    driver.medium.full = true
    assert.equal((await driver.add('t', {}))[0]?.status, 'full')
    assert.deepEqual((await driver.lease('t', { group: 'slow' }))?.offsets, [0])
  })
})

describe('reading (P6)', () => {
  async function payloads(driver: LedgerDriver, from: number | 'earliest', max?: number): Promise<string[]> {
    const outcome = await driver.read('t', from, max)
    assert.ok(outcome.status === 'read')
    return outcome.messages.flatMap(({ bytes, from: first, to }) => {
      const view = new BatchView(bytes)
      return Array.from({ length: to - first }, (_, i) => view.payloadText(first + i))
    })
  }

  test('two readers see the same bytes at the same, rising offsets, and page on by next', async () => {
    const driver = await openDriver()
    await driver.topic('t')
    for (let i = 0; i < 5; i++) await driver.add('t', { payload: `${i * 2}` }, { payload: `${i * 2 + 1}` })
    await driver.restart()
    assert.deepEqual(
      await payloads(driver, 'earliest'),
      Array.from({ length: 10 }, (_, i) => `${i}`),
    )
    const seen: string[] = []
    for (let next = 0; next < 10; ) {
      seen.push(...(await payloads(driver, next, 3)))
      const page = await driver.read('t', next, 3)
      assert.ok(page.status === 'read')
      next = page.next
    }
    assert.deepEqual(
      seen,
      Array.from({ length: 10 }, (_, i) => `${i}`),
    )
  })

  test('an offset beyond the end is out of range, the end itself is an empty page', async () => {
    const driver = await openDriver()
    await driver.topic('t')
    await driver.add('t', {})
    assert.deepEqual(await driver.read('t', 2), { status: 'out-of-range', offset: 2, earliest: 0, head: 1 })
    assert.deepEqual(await driver.read('t', 1), { status: 'read', messages: [], next: 1, earliest: 0, head: 1 })
    assert.deepEqual(await driver.read('nowhere', 0), { status: 'not-found' })
  })

  test('a reader at the end waits for what comes, and its wait ends', async () => {
    const driver = await openDriver()
    await driver.topic('t')
    const first = await driver.begin('read', { topic: 't', from: 'latest', max: 10, waitMs: 1_000 })
    await driver.add('t', {})
    assert.ok(driver.answered.has(first))
    const second = await driver.begin('read', { topic: 't', from: 'latest', max: 10, waitMs: 1_000 })
    await driver.advance(999)
    assert.equal(driver.answered.has(second), false)
    await driver.advance(1)
    assert.deepEqual(driver.answerTo(second), { status: 'read', messages: [], next: 1, earliest: 0, head: 1 })
  })

  test('what a crash took was read by nobody', async () => {
    const driver = await openDriver()
    await driver.topic('t')
    await driver.begin('read', { topic: 't', from: 0, max: 10, waitMs: 60_000 })
    const answers = driver.crash('lost', [driver.request('append', [toAppend('t', [{}])])])
    assert.ok(answers.length > 0, 'the answers were ready, and went to nobody')
    await driver.start()
    assert.equal((await driver.stats('t')).head, 0)
  })
})
