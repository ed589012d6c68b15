import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import type { FindOutcome } from '../../src/engine/contract.ts'
import { type Held, type LedgerDriver, openDriver, START_MS } from '../support/ledger-driver.ts'

const watch = (driver: LedgerDriver, id: string, version = -1, untilTerminal = true, waitMs = 30_000) =>
  driver.begin('watch', { id, version, untilTerminal, waitMs })

const jobOf = (driver: LedgerDriver, id: number) => {
  const found = driver.answerTo<FindOutcome>(id)
  return found?.status === 'found' ? found.job : found
}

describe('jobs (P10)', () => {
  test('a job goes through its states, and its version only rises', async () => {
    const driver = await openDriver()
    await driver.queue('q', { backoff: { baseMs: 0 } })
    const [later] = await driver.add('q', { dueAtMs: START_MS + 10 })
    const id = driver.scheduledId('q', later)
    const seen: string[] = []
    let version = -1
    const note = async () => {
      const job = await driver.job(id)
      assert.ok(job.version > version, `${job.status} after ${seen.at(-1)}`)
      version = job.version
      seen.push(`${job.status} ${job.attempts}`)
      return job
    }
    assert.equal((await note()).dueAtMs, START_MS + 10)
    await driver.advance(10)
    await note()
    const first = (await driver.lease('q')) as Held
    await note()
    await driver.extend(first, 0, '{"percent":50}')
    assert.equal((await note()).progress, '{"percent":50}')
    await driver.settle(first, { kind: 'retry', error: 'no' })
    assert.equal((await note()).error, 'no')
    const second = (await driver.lease('q')) as Held
    await note()
    await driver.settle(second, { kind: 'done', result: '{"a":1}' })
    assert.equal((await note()).result, '{"a":1}')
    assert.deepEqual(seen, ['scheduled 0', 'queued 0', 'active 1', 'active 1', 'retrying 1', 'active 2', 'completed 2'])
    await driver.restart()
    const job = await driver.job(id)
    assert.deepEqual([job.status, job.result, job.version], ['completed', '{"a":1}', version])
  })

  test('the time at which a job was accepted stays the same through all its states', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    const [first] = await driver.add('q', { dueAtMs: START_MS + 5_000 })
    const [second] = await driver.add('q', { dueAtMs: START_MS + 50_000 })
    const ids = [driver.scheduledId('q', first), driver.scheduledId('q', second)] as const
    await driver.advance(10_000)
    await driver.cancel(ids[1])
    for (const id of ids) assert.equal((await driver.job(id)).createdAtMs, START_MS)
  })

  test('a result without a value is completed all the same', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', {})
    await driver.settle((await driver.lease('q')) as Held)
    await driver.restart()
    const job = await driver.job(driver.id('q', 0))
    assert.deepEqual([job.status, job.attempts, job.result], ['completed', 1, undefined])
  })
})

describe('deadlines (P11)', () => {
  test('past its deadline a job is skipped, and its key goes on', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', { key: 'a', deadlineMs: START_MS + 100 }, { key: 'a' })
    await driver.advance(100)
    assert.deepEqual((await driver.lease('q', { max: 10 }))?.offsets, [1])
    assert.equal((await driver.job(driver.id('q', 0))).status, 'expired')
    assert.equal((await driver.stats('q')).depth.messages, 1)
  })

  test('just before its deadline it is handed out, and once started it goes on after it', async () => {
    const driver = await openDriver()
    await driver.queue('q', { backoff: { baseMs: 0 } })
    await driver.add('q', { deadlineMs: START_MS + 100 })
    await driver.advance(99)
    const held = (await driver.lease('q')) as Held
    await driver.advance(1_000)
    assert.equal((await driver.job(driver.id('q', 0))).status, 'active')
    await driver.settle(held, { kind: 'retry', error: 'no' })
    assert.equal((await driver.job(driver.id('q', 0))).status, 'retrying')
    await driver.settle((await driver.lease('q')) as Held, { kind: 'done', result: '1' })
    assert.equal((await driver.job(driver.id('q', 0))).status, 'completed')
  })

  test('who asks for it after its deadline hears expired, for good', async () => {
    for (const priority of [0, 1, 2]) {
      const driver = await openDriver()
      await driver.queue('q')
      await driver.add(
        'q',
        { key: 'a', priority, deadlineMs: START_MS + 100 },
        { key: 'a', priority: 0, deadlineMs: START_MS + 100 },
        { key: 'a' },
        {},
      )
      assert.ok(await driver.lease('q', { token: 't', leaseMs: 50 }))
      await driver.advance(200)
      for (const offset of [1, 0]) {
        const { status } = await driver.job(driver.id('q', offset))
        if (offset === 1 || priority === 2) assert.equal(status, 'expired')
      }
      await driver.restart()
      assert.equal((await driver.job(driver.id('q', 1))).status, 'expired')
      const offsets: number[] = []
      for (let held = await driver.lease('q', { max: 10 }); held; held = await driver.lease('q', { max: 10 })) {
        offsets.push(...held.offsets)
        await driver.settle(held)
      }
      assert.ok(offsets.includes(2) && offsets.includes(3) && !offsets.includes(1), `${offsets}`)
      assert.equal((await driver.stats('q')).depth.messages, 0)
    }
  })
})

describe('waits (P10)', () => {
  test('a watch hears of a completion, however early it came', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', {}, {})
    const early = await watch(driver, driver.id('q', 0))
    const held = (await driver.lease('q', { max: 2 })) as Held
    await driver.settle(held, { kind: 'done', result: '5' })
    const late = await watch(driver, driver.id('q', 1))
    for (const id of [early, late]) assert.ok((jobOf(driver, id) as { result: string }).result === '5')
  })

  test('a watch in the very step of the settle hears of it', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', {})
    const held = (await driver.lease('q')) as Held
    const { topic, group, fence, offsets } = held
    const watching = { id: driver.id('q', 0), version: -1, untilTerminal: true, waitMs: 30_000 }
    const before = driver.request('watch', watching)
    const settle = driver.request('settle', [{ topic, group, fence, offsets, outcome: { kind: 'done' } }])
    const after = driver.request('watch', watching)
    await driver.step([before, settle, after])
    for (const { id } of [before, after]) assert.equal((jobOf(driver, id) as { status: string }).status, 'completed')
  })

  test('a watch by version hears of each change', async () => {
    const driver = await openDriver()
    await driver.queue('q', { backoff: { baseMs: 0 }, attempts: 2 })
    const [later] = await driver.add('q', { dueAtMs: START_MS + 10 })
    const id = driver.scheduledId('q', later)
    const seen: string[] = []
    let version = -1
    const next = async (change: () => Promise<unknown>) => {
      const watching = await watch(driver, id, version, false)
      if (!driver.answered.has(watching)) await change()
      const job = jobOf(driver, watching) as { status: string; version: number }
      assert.ok(job !== undefined, `a change after ${seen.at(-1)} is heard of`)
      version = job.version
      seen.push(job.status)
    }
    let held: Held | undefined
    const take = async () => (held = await driver.lease('q'))
    await next(async () => {})
    await next(() => driver.advance(10))
    await next(take)
    await next(() => driver.extend(held as Held, 0, '1'))
    await next(() => driver.extend(held as Held, 0, '2'))
    await next(() => driver.settle(held as Held, { kind: 'retry', error: 'x' }))
    await next(take)
    await next(() => driver.settle(held as Held, { kind: 'retry', error: 'y' }))
    assert.deepEqual(seen, ['scheduled', 'queued', 'active', 'active', 'active', 'retrying', 'active', 'failed'])
  })

  test('a watch of a delayed job hears of its cancelling, before and after it took its place', async () => {
    for (const ms of [0, 20]) {
      const driver = await openDriver()
      await driver.queue('q')
      const [later] = await driver.add('q', { dueAtMs: START_MS + 10 })
      const id = driver.scheduledId('q', later)
      const watching = await watch(driver, id)
      await driver.advance(ms)
      await driver.cancel(id)
      assert.equal((jobOf(driver, watching) as { status: string }).status, 'cancelled')
    }
  })

  test('every wait ends: with what is there, at its time', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', { dueAtMs: START_MS + 100_000 }, { payload: '"w"' })
    await driver.command({ kind: 'pause', topic: 'q', group: '' })
    const ids = [
      await watch(driver, driver.id('q', 0), -1, true, 500),
      await driver.beginLease('q', { waitMs: 500 }),
      await driver.begin('read', { topic: 'q', from: 'latest', max: 1, waitMs: 500 }),
      await watch(
        driver,
        driver.scheduledId('q', { status: 'scheduled', dueAtMs: START_MS + 100_000, serial: 0 }),
        0,
        false,
        500,
      ),
    ]
    await driver.advance(499)
    assert.ok(ids.every((id) => !driver.answered.has(id)))
    await driver.advance(1)
    assert.ok(ids.every((id) => driver.answered.has(id)))
    assert.equal((jobOf(driver, ids[0] as number) as { status: string }).status, 'queued')
    assert.equal(driver.waiting.size, 0)
  })

  test('an aborted wait answers as one that timed out, and takes nothing', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    const lease = await driver.beginLease('q')
    const other = await driver.beginLease('q')
    await driver.ask('abort', lease)
    assert.deepEqual(driver.answerTo(lease), { status: 'empty' })
    await driver.add('q', {})
    assert.ok(driver.answered.has(other))
    await driver.ask('abort', lease)
    await driver.ask('abort', 999_999)
  })

  test('a watch of what is not there answers at once', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    assert.deepEqual(driver.answerTo(await watch(driver, driver.id('q', 0))), { status: 'not-found' })
  })
})

describe('pause and rate', () => {
  test('a paused queue hands nothing out, takes messages in, and stays so over a restart', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.command({ kind: 'pause', topic: 'q', group: '' })
    await driver.add('q', {})
    const waiting = await driver.beginLease('q')
    await driver.advance(10_000)
    assert.equal(driver.answered.has(waiting), false)
    await driver.restart()
    assert.equal(await driver.lease('q'), undefined)
    const again = await driver.beginLease('q')
    await driver.command({ kind: 'resume', topic: 'q', group: '' })
    assert.ok(driver.answered.has(again))
  })

  test('what is held when a queue is paused can be settled', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', {})
    const held = (await driver.lease('q')) as Held
    await driver.command({ kind: 'pause', topic: 'q', group: '' })
    assert.deepEqual(await driver.settle(held), { status: 'settled', lost: [], outputs: [] })
  })

  test('a rate holds over all workers, whoever asks', async () => {
    const driver = await openDriver()
    await driver.queue('q', { rate: { messages: 10, perMs: 1_000 } })
    await driver.add('q', ...Array.from({ length: 200 }, () => ({})))
    const times: number[] = []
    for (let i = 0; i < 60; i++) {
      const waiting = await driver.beginLease('q', { max: 1 + (i % 3), waitMs: 60_000 })
      while (!driver.answered.has(waiting)) await driver.advance(10)
      const leased = driver.answerTo<Held>(waiting)
      for (const _ of leased?.offsets ?? []) times.push(driver.nowMs)
    }
    for (const [i, from] of times.entries()) {
      const within = times.slice(i).filter((at) => at < from + 1_000).length
      assert.ok(within <= 11, `${within} in a second`)
    }
    assert.ok((times.at(-1) as number) - START_MS <= (times.length / 10) * 1_000 + 200, 'and is reached')
  })

  test('a rate does not wake the ledger for what cannot go anyway', async () => {
    const driver = await openDriver()
    await driver.queue('q', { rate: { messages: 100, perMs: 1_000 }, attempts: 1, onExhausted: 'block' })
    await driver.add('q', { key: 'a' }, { key: 'a' })
    await driver.settle((await driver.lease('q')) as Held, { kind: 'dead', error: 'x' })
    await driver.beginLease('q', { waitMs: 60_000 })
    await driver.advance(5_000)
    const before = driver.steps
    await driver.advance(10_000)
    assert.ok(driver.steps - before < 30, `${driver.steps - before} steps in 10 seconds`)
  })
})

test('the version of a job never falls, though progress is forgotten by a restart (P10)', async () => {
  const driver = await openDriver()
  await driver.queue('q')
  await driver.add('q', {})
  const held = (await driver.lease('q', { token: 'w', leaseMs: 60_000 })) as Held
  const id = driver.id('q', 0)
  let version = (await driver.job(id)).version
  const seeNext = async (rises: boolean) => {
    const job = await driver.job(id)
    assert.ok(rises ? job.version > version : job.version >= version, `${job.version} after ${version}`)
    version = job.version
    return job
  }
  await driver.extend(held, 60_000, '1')
  await seeNext(true)
  for (let life = 0; life < 3; life++) {
    await driver.restart()
    assert.equal((await seeNext(false)).progress, undefined)
    await driver.extend(held, 60_000, '2')
    assert.equal((await seeNext(true)).progress, '2')
  }
  await driver.settle(held)
  assert.equal((await seeNext(true)).status, 'completed')
})
