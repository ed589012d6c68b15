import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import type { FullOutcome } from '../../src/engine/contract.ts'
import { type Draft, type Held, type LedgerDriver, openDriver } from '../support/ledger-driver.ts'

const many = (count: number, draft: Draft = {}): Draft[] => Array.from({ length: count }, () => draft)

/** Settles one message after the other, each after so long. */
async function drain(driver: LedgerDriver, count: number, everyMs: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const held = await driver.lease('q', { max: 1 })
    await driver.advance(everyMs)
    await driver.settle(held as Held)
  }
}

/** What a call with so much time is told. */
async function call(driver: LedgerDriver, forMs: number, draft: Draft = {}): Promise<FullOutcome | 'stored'> {
  const [outcome] = await driver.add('q', { ...draft, deadlineMs: driver.nowMs + forMs, inTime: true })
  assert.ok(outcome?.status === 'stored' || outcome?.status === 'full')
  return outcome.status === 'stored' ? 'stored' : outcome
}

describe('the measured wait (P11)', () => {
  test('refuses a call whose deadline it is past, with when to come again, and lets in one that has the time', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', ...many(120))
    await drain(driver, 20, 100)
    const refused = await call(driver, 5_000)
    assert.ok(refused !== 'stored')
    assert.equal(refused.reason, 'wait')
    assert.ok(Math.abs(refused.depth - 10_000) <= 1_000, `a hundred wait, ten a second: ${refused.depth} ms`)
    assert.ok(Math.abs(refused.limit - 5_000) <= 1)
    assert.ok(refused.retryAfterMs >= 4_000 && refused.retryAfterMs <= 6_600, `${refused.retryAfterMs}`)
    assert.equal((await driver.stats('q')).depth.messages, 100, 'nothing was stored')
    assert.equal(await call(driver, 12_000), 'stored')
  })

  test('is not known before three were drained with a line behind them, so a call is let in', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', ...many(1_000))
    assert.equal(await call(driver, 1), 'stored')
    await drain(driver, 2, 2_000)
    assert.equal(await call(driver, 1), 'stored')
    await drain(driver, 1, 2_000)
    assert.notEqual(await call(driver, 1), 'stored')
  })

  test('is that of a queue at work: what little came while it was mostly empty says nothing', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    for (let i = 0; i < 5; i++) {
      await driver.add('q', {})
      await drain(driver, 1, 1)
      await driver.advance(1_000)
    }
    await driver.add('q', ...many(50))
    assert.equal(await call(driver, 1_000), 'stored')
  })

  test('is known where a job takes longer than the seconds that a rate is made of', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', ...many(10))
    await drain(driver, 4, 20_000)
    const refused = await call(driver, 60_000)
    assert.ok(refused !== 'stored' && Math.abs(refused.depth - 120_000) <= 5_000, JSON.stringify(refused))
  })

  test('of a key is that of its lane: one that crawls is told apart from the queue, which flies', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', ...many(20, { key: 'slow' }))
    // The walk meets all of them; one at a time is handed out.
    for (let i = 0; i < 5; i++) {
      const held = await driver.lease('q', { max: 100 })
      assert.equal(held?.offsets.length, 1)
      await driver.advance(1_000)
      await driver.settle(held as Held)
    }
    const refused = await call(driver, 5_000, { key: 'slow' })
    assert.ok(refused !== 'stored' && refused.reason === 'wait', JSON.stringify(refused))
    assert.ok(refused.depth >= 14_000 && refused.depth <= 20_000, `${refused.depth}`)
    assert.equal(await call(driver, 5_000, { key: 'other', priority: 0 }), 'stored', 'the lane of another key is free')
  })

  test('lets a job of high priority in, which does not stand behind the others', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', ...many(100))
    await drain(driver, 20, 100)
    assert.notEqual(await call(driver, 1_000), 'stored')
    assert.equal(await call(driver, 1_000, { priority: 0 }), 'stored')
  })

  test('is of no account for whoever does not ask for it, nor for a key that is known', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', { idempotencyKey: 'k', deadlineMs: driver.nowMs + 100_000, inTime: true })
    await driver.add('q', ...many(100))
    await drain(driver, 20, 100)
    const [plain] = await driver.add('q', { deadlineMs: driver.nowMs + 1_000 })
    assert.equal(plain?.status, 'stored')
    const [again] = await driver.add('q', { idempotencyKey: 'k', deadlineMs: driver.nowMs + 1, inTime: true })
    assert.equal(again?.status, 'duplicate')
  })
})
