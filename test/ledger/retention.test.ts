import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import { openMemoryLog } from '../../src/logs/memory.ts'
import { type Draft, type Held, type LedgerDriver, openDriver, START_MS } from '../support/ledger-driver.ts'

const many = (count: number, draft: Draft = {}): Draft[] => Array.from({ length: count }, () => draft)

async function drain(driver: LedgerDriver, topic: string, group = ''): Promise<number[]> {
  const offsets: number[] = []
  for (;;) {
    const held = await driver.lease(topic, { group, max: 10 })
    if (held === undefined) return offsets
    offsets.push(...held.offsets)
    await driver.settle(held)
  }
}

describe('retention (P2)', () => {
  test('what is settled is kept for its time, then trimmed', async () => {
    const driver = await openDriver()
    await driver.queue('q', { retention: { ms: 10_000 } })
    await driver.add('q', {}, {})
    await drain(driver, 'q')
    await driver.add('q', {})
    await driver.advance(9_000)
    assert.equal((await driver.stats('q')).earliest, 0)
    assert.equal((await driver.job(driver.id('q', 0))).status, 'completed')
    await driver.advance(5_000)
    assert.equal((await driver.stats('q')).earliest, 2)
    assert.deepEqual(await driver.find(driver.id('q', 0)), { status: 'not-found' })
    assert.deepEqual(await drain(driver, 'q'), [2])
  })

  test('what is not settled is never trimmed, whatever the time and the bytes', async () => {
    const driver = await openDriver()
    await driver.queue('q', { retention: { ms: 0, bytes: 0 } })
    await driver.add('q', ...many(5))
    const held = (await driver.lease('q', { max: 5 })) as Held
    await driver.settle({ ...held, offsets: [0, 2, 3, 4] })
    await driver.add('q', ...many(5))
    await driver.advance(100_000)
    assert.equal((await driver.stats('q')).earliest, 1)
    await driver.restart()
    await driver.advance(100_000)
    assert.equal((await driver.job(driver.id('q', 1))).status, 'retrying')
    assert.deepEqual((await drain(driver, 'q')).toSorted(), [1, 5, 6, 7, 8, 9])
  })

  test('retention of 0 drops what is settled as soon as possible', async () => {
    for (const retention of [{ ms: 0 }, { bytes: 0 }]) {
      const driver = await openDriver()
      await driver.queue('q', { retention })
      await driver.add('q', ...many(5))
      await drain(driver, 'q')
      await driver.advance(100_000)
      assert.equal((await driver.stats('q')).earliest, 5, JSON.stringify(retention))
    }
  })

  test('settled bytes stay within their bound', async () => {
    const driver = await openDriver()
    const draft = { payload: '1'.repeat(76) }
    await driver.queue('q', { retention: { bytes: 10_000 } })
    for (let i = 0; i < 100; i++) {
      await driver.add('q', ...many(10, draft))
      await drain(driver, 'q')
      await driver.advance(60_000)
      const { head, earliest } = await driver.stats('q')
      assert.ok((head - earliest) * 100 <= 10_000 + 1_000, `${head - earliest} messages of 100 bytes`)
      assert.ok(head < 101 || (head - earliest) * 100 >= 8_000, 'and no less than can be kept')
    }
  })

  test('on a topic only what every group has settled goes', async () => {
    const driver = await openDriver()
    await driver.topic('t', { retention: { ms: 0 } })
    await driver.group('t', 'fast')
    await driver.group('t', 'slow')
    await driver.add('t', ...many(5))
    await drain(driver, 't', 'fast')
    await driver.advance(100_000)
    assert.equal((await driver.stats('t')).earliest, 0)
    assert.deepEqual(await drain(driver, 't', 'slow'), [0, 1, 2, 3, 4])
    await driver.advance(100_000)
    assert.equal((await driver.stats('t')).earliest, 5)
    assert.equal((await driver.read('t', 0)).status, 'truncated')
    assert.equal((await driver.group('t', 'late', 0)).status, 'truncated')
  })

  test('a group that comes late, or is moved back, keeps what it has before it', async () => {
    for (const how of ['late', 'seek'] as const) {
      const driver = await openDriver()
      await driver.topic('t', { retention: { ms: 50_000 } })
      if (how === 'seek') await driver.group('t', 'g')
      await driver.add('t', ...many(5))
      if (how === 'seek') await drain(driver, 't', 'g')
      await driver.advance(40_000)
      if (how === 'late') await driver.group('t', 'g')
      else await driver.command({ kind: 'seek', topic: 't', group: 'g', from: 0 })
      await driver.advance(100_000)
      assert.equal((await driver.stats('t')).earliest, 0)
      assert.deepEqual(await drain(driver, 't', 'g'), [0, 1, 2, 3, 4], how)
    }
  })

  test('a reader that is behind what was trimmed is told so', async () => {
    const driver = await openDriver()
    await driver.topic('t', { retention: { ms: 0 } })
    await driver.add('t', ...many(5))
    await driver.advance(10_000)
    const outcome = await driver.read('t', 2)
    assert.deepEqual(outcome, { status: 'truncated', offset: 2, earliest: 5, head: 5 })
    assert.deepEqual(await driver.read('t', 'earliest'), {
      status: 'read',
      messages: [],
      next: 5,
      earliest: 5,
      head: 5,
    })
  })

  test('earliest never falls, over restarts too', async () => {
    const driver = await openDriver()
    await driver.queue('q', { retention: { ms: 0 } })
    for (let i = 0; i < 10; i++) await driver.add('q', {}, {})
    await drain(driver, 'q')
    await driver.advance(10_000)
    const { earliest } = await driver.stats('q')
    assert.equal(earliest, 20)
    await driver.restart()
    assert.equal((await driver.stats('q')).earliest, 20)
    assert.deepEqual(await driver.add('q', {}), [{ status: 'stored', offset: 20 }])
  })

  test('rows of jobs that are trimmed go with them', async () => {
    const driver = await openDriver()
    await driver.queue('q', { retention: { ms: 1_000 } })
    for (let i = 0; i < 10; i++) await driver.add('q', {}, { dueAtMs: START_MS + 10 + i })
    await driver.advance(1_000)
    for (let held = await driver.lease('q'); held; held = await driver.lease('q'))
      await driver.settle(held, { kind: 'done', result: '1' })
    await driver.advance(200_000)
    const { state } = openMemoryLog(driver.medium).own()
    for (const prefix of ['o/', 'm/', 'd/', 'l/'])
      assert.deepEqual(state.range(prefix, `${prefix}\x7f`, 10), [], prefix)
  })

  test('a process that is started more often than the period trims by time all the same', async () => {
    const driver = await openDriver()
    await driver.queue('q', { retention: { ms: 60_000 } })
    await driver.add('q', ...many(5))
    await drain(driver, 'q')
    for (let i = 0; i < 10; i++) {
      await driver.advance(10_000)
      await driver.restart()
    }
    assert.equal((await driver.stats('q')).earliest, 5)
  })

  test('a folder that is opened often is trimmed all the same', async () => {
    const driver = await openDriver()
    const draft = { payload: '1'.repeat(76) }
    await driver.queue('q', { retention: { bytes: 10_000 } })
    for (let i = 0; i < 50; i++) {
      await driver.add('q', ...many(50, draft))
      await drain(driver, 'q')
      await driver.advance(100_000)
      await driver.restart()
    }
    const { head, earliest } = await driver.stats('q')
    assert.ok((head - earliest) * 100 <= 25_000, `${head - earliest} messages of 100 bytes`)
  })
})
