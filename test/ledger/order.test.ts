import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import { openDriver, part, START_MS } from '../support/ledger-driver.ts'

const keyed = (...keys: readonly string[]) => keys.map((key, i) => ({ key, payload: `"${key}${i}"` }))

describe('lanes (P4)', () => {
  test('messages of one key are handed out one at a time, in order', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', ...keyed('a', 'a', 'b', 'a', 'b'))
    const first = await driver.lease('q', { max: 10 })
    assert.deepEqual(first?.offsets, [0, 2])
    assert.equal(await driver.lease('q', { max: 10 }), undefined)
    await driver.settle(part(first, 0))
    const second = await driver.lease('q', { max: 10 })
    assert.deepEqual(second?.offsets, [1])
    await driver.settle(second)
    await driver.settle(part(first, 1))
    assert.deepEqual((await driver.lease('q', { max: 10 }))?.offsets.toSorted(), [3, 4])
  })

  test('messages without a key have no order and go out together', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', {}, {}, {})
    assert.deepEqual((await driver.lease('q', { max: 2 }))?.offsets, [0, 1])
    assert.deepEqual((await driver.lease('q', { max: 2 }))?.offsets, [2])
  })

  test('a failing message parks its key while other keys go on', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', ...keyed('bad', 'bad', 'good', 'good'))
    const bad = await driver.lease('q')
    assert.ok(bad)
    await driver.settle(bad, { kind: 'retry', error: 'no', atMs: START_MS + 5_000 })
    for (const offset of [2, 3]) {
      const good = await driver.lease('q', { max: 10 })
      assert.deepEqual(good?.offsets, [offset])
      await driver.settle(good)
    }
    assert.equal(await driver.lease('q'), undefined)
    await driver.advance(4_999)
    assert.equal(await driver.lease('q'), undefined, 'not before its time')
    await driver.advance(1)
    const again = await driver.lease('q', { max: 10 })
    assert.deepEqual([again?.offsets, again?.attempts], [[0], [2]])
    assert.ok(again)
    await driver.settle(again)
    assert.deepEqual((await driver.lease('q', { max: 10 }))?.offsets, [1])
  })

  test('the order of a key holds over retries and restarts', async () => {
    const driver = await openDriver()
    await driver.queue('q', { attempts: 100, backoff: { baseMs: 0 } })
    await driver.add('q', ...keyed('a', 'a', 'a', 'a'))
    const done: number[] = []
    for (let round = 0; done.length < 4; round++) {
      const held = await driver.lease('q', { max: 10 })
      assert.equal(held?.offsets.length, 1)
      assert.equal(held.offsets[0], done.length)
      if (round % 3 === 0) await driver.settle(held, { kind: 'retry', error: 'no' })
      else if (round % 3 === 1) await driver.restart()
      else {
        await driver.settle(held)
        done.push(held.offsets[0] as number)
      }
    }
  })

  test('a strict queue is one lane, whatever the keys', async () => {
    const driver = await openDriver()
    await driver.queue('q', { strict: true })
    await driver.add('q', ...keyed('a', 'b'), {}, { priority: 0 })
    for (const offset of [0, 1, 2, 3]) {
      const held = await driver.lease('q', { max: 10 })
      assert.deepEqual(held?.offsets, [offset])
      assert.equal(await driver.lease('q', { max: 10 }), undefined)
      await driver.settle(held)
    }
  })

  test('a strict queue stays one lane over a restart', async () => {
    const driver = await openDriver()
    await driver.queue('q', { strict: true })
    await driver.add('q', {}, {}, {})
    const held = await driver.lease('q', { token: 't', max: 10, leaseMs: 60_000 })
    assert.ok(held)
    await driver.restart()
    assert.equal(await driver.lease('q', { max: 10 }), undefined)
    await driver.settle(held)
    assert.deepEqual((await driver.lease('q', { max: 10 }))?.offsets, [1])
  })

  test('whether a queue is strict does not change later', async () => {
    const driver = await openDriver()
    await driver.queue('q', { strict: true })
    assert.equal((await driver.queue('q', { strict: false })).status, 'conflict')
  })

  test('a strict queue reads no further than it hands out', async () => {
    const driver = await openDriver()
    await driver.queue('q', { strict: true })
    for (let i = 0; i < 50; i++)
      await driver.add('q', ...Array.from({ length: 100 }, () => ({ payload: `"${'x'.repeat(1_000)}"` })))
    await driver.restart()
    const before = driver.log.health().counters.rowsRead
    const waiting = [await driver.beginLease('q'), await driver.beginLease('q', { max: 10 })]
    assert.ok(driver.answered.has(waiting[0] as number))
    assert.ok(driver.log.health().counters.rowsRead - before < 40)
  })
})

describe('priorities (P4)', () => {
  test('high goes before normal goes before low', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add(
      'q',
      { priority: 2 },
      { priority: 1 },
      { priority: 0 },
      { priority: 2 },
      { priority: 1 },
      { priority: 0 },
    )
    assert.deepEqual((await driver.lease('q', { max: 10 }))?.offsets, [2, 5, 1, 4, 0, 3])
  })

  test('a message of high priority overtakes a backlog that was there before it', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    for (let i = 0; i < 20; i++) await driver.add('q', ...Array.from({ length: 500 }, () => ({})))
    assert.deepEqual((await driver.lease('q'))?.offsets, [0])
    await driver.add('q', { priority: 0 })
    assert.deepEqual((await driver.lease('q', { max: 2 }))?.offsets, [10_000, 1])
  })

  test('a message of low priority waits until nothing else is ready', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', { priority: 2 }, {})
    assert.deepEqual((await driver.lease('q'))?.offsets, [1])
    await driver.add('q', {})
    assert.deepEqual((await driver.lease('q'))?.offsets, [2])
    assert.deepEqual((await driver.lease('q'))?.offsets, [0])
  })

  test('priority never changes the order within a key', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', { key: 'a', priority: 2 }, { key: 'a', priority: 0 }, { key: 'b', priority: 1 })
    const held = await driver.lease('q', { max: 10 })
    assert.deepEqual(held?.offsets, [2, 0])
    await driver.settle(held)
    assert.deepEqual((await driver.lease('q', { max: 10 }))?.offsets, [1])
  })

  test('a retry of high priority goes before what waits', async () => {
    const driver = await openDriver()
    await driver.queue('q', { backoff: { baseMs: 0 } })
    await driver.add('q', { priority: 0 }, {}, {})
    const held = await driver.lease('q')
    assert.ok(held)
    await driver.settle(held, { kind: 'retry', error: 'no' })
    assert.deepEqual((await driver.lease('q', { max: 2 }))?.offsets, [0, 1])
  })

  test('priorities hold over a restart', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', { priority: 2 }, {}, { priority: 0 })
    await driver.restart()
    assert.deepEqual((await driver.lease('q', { max: 3 }))?.offsets, [2, 1, 0])
  })

  test('without other classes nothing is walked ahead of the hand-out', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    for (let i = 0; i < 100; i++)
      await driver.add('q', ...Array.from({ length: 100 }, () => ({ payload: `"${'x'.repeat(100)}"` })))
    await driver.restart()
    const before = driver.log.health().counters.rowsRead
    await driver.lease('q', { max: 10 })
    assert.ok(driver.log.health().counters.rowsRead - before < 40)
  })
})

describe('delay (P4)', () => {
  test('a delayed job takes its place when it falls due, and not before', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    const [late] = await driver.add('q', { payload: '"late"', key: 'a', dueAtMs: START_MS + 1_000 })
    assert.equal(late?.status, 'scheduled')
    await driver.add('q', { payload: '"now"', key: 'a' })
    const now = await driver.lease('q', { max: 10 })
    assert.deepEqual(now?.payloads, ['"now"'])
    assert.ok(now)
    await driver.settle(now)
    await driver.advance(999)
    assert.equal(await driver.lease('q'), undefined)
    assert.equal((await driver.job(driver.scheduledId('q', late))).status, 'scheduled')
    await driver.advance(1)
    const due = await driver.lease('q', { max: 10 })
    assert.deepEqual([due?.payloads, due?.offsets], [['"late"'], [1]])
    assert.equal((await driver.job(driver.scheduledId('q', late))).status, 'active')
  })

  test('delayed jobs take their places in order of their times, then of acceptance', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    const times = [300, 100, 200, 100, 300]
    for (const [i, ms] of times.entries()) await driver.add('q', { payload: `${i}`, dueAtMs: START_MS + ms })
    await driver.advance(1_000)
    assert.deepEqual((await driver.lease('q', { max: 10 }))?.payloads, ['1', '3', '2', '0', '4'])
  })

  test('a worker that waits gets a delayed job in the moment it falls due', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', { dueAtMs: START_MS + 700 })
    const waiting = await driver.beginLease('q')
    await driver.advance(699)
    assert.equal(driver.answered.has(waiting), false)
    await driver.advance(1)
    assert.equal(driver.answered.has(waiting), true)
  })

  test('each delayed job takes its place at its own time, in whatever order they were accepted', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    for (const ms of [500, 100, 900, 300]) await driver.add('q', { payload: `${ms}`, dueAtMs: START_MS + ms })
    const seen: string[] = []
    for (let ms = 0; ms <= 1_000; ms += 50) {
      driver.nowMs = START_MS + ms
      await driver.step([])
      for (const payload of (await driver.lease('q', { max: 10 }))?.payloads ?? []) seen.push(`${payload} at ${ms}`)
    }
    assert.deepEqual(seen, ['100 at 100', '300 at 300', '500 at 500', '900 at 900'])
  })

  test('a time that is past is no delay', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    assert.equal((await driver.add('q', { dueAtMs: START_MS }))[0]?.status, 'stored')
  })

  test('delayed jobs survive a restart, each under its own id', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    const dueAtMs = START_MS + 1_000
    const [first] = await driver.add('q', { payload: '1', dueAtMs })
    await driver.restart()
    const [second] = await driver.add('q', { payload: '2', dueAtMs })
    assert.notEqual(driver.scheduledId('q', first), driver.scheduledId('q', second))
    await driver.restart()
    assert.equal((await driver.stats('q')).scheduled, 2)
    await driver.advance(2_000)
    assert.deepEqual((await driver.lease('q', { max: 10 }))?.payloads, ['1', '2'])
    assert.equal((await driver.stats('q')).depth.messages, 2)
  })

  test('many delayed jobs that fall due together take their places over several steps', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    const drafts = Array.from({ length: 5_000 }, (_, i) => ({ payload: `${i}`, dueAtMs: START_MS + 1_000 }))
    await driver.add('q', ...drafts)
    driver.nowMs += 1_000
    await driver.step([])
    const outputs = driver.lastCommit?.outputs ?? []
    assert.equal(
      outputs.reduce((sum, { count }) => sum + count, 0),
      1_000,
    )
    await driver.advance(100)
    const payloads = []
    for (let held = await driver.lease('q', { max: 10_000 }); held; held = await driver.lease('q', { max: 10_000 }))
      payloads.push(...held.payloads)
    assert.deepEqual(
      payloads,
      drafts.map(({ payload }) => payload),
    )
  })

  test('delayed jobs cost the same, however many were there before', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    for (let i = 0; i < 300; i++) await driver.add('q', { dueAtMs: START_MS + 10_000 + i * 10 })
    await driver.advance(9_999)
    const before = driver.stateReads
    await driver.advance(3_000)
    assert.ok(driver.stateReads - before < 2_000, `${driver.stateReads - before} reads for 300 due times`)
    assert.equal((await driver.stats('q')).scheduled, 0)
  })
})
