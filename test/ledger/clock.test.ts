/** The wall clock, set between two processes. While one runs, its clock only rises (src/host/host.ts). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openDriver } from '../support/ledger-driver.ts'

const HOUR_MS = 3_600_000

test('an idempotency key holds though the clock was set back between two processes (P8)', async () => {
  for (const backMs of [1, 7 * HOUR_MS, 30 * HOUR_MS]) {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', { payload: '1', idempotencyKey: 'k' })
    await driver.add('q', { payload: '2', idempotencyKey: 'later', dueAtMs: driver.nowMs + 1_000 })
    driver.nowMs -= backMs
    await driver.restart()
    const again = await driver.add(
      'q',
      { payload: '1', idempotencyKey: 'k' },
      { payload: '2', idempotencyKey: 'later' },
    )
    assert.deepEqual(
      again.map(({ status }) => status),
      ['duplicate', 'duplicate'],
      `set back by ${backMs} ms`,
    )
    await driver.add('q', { payload: '3', idempotencyKey: 'new' })
    await driver.restart()
    assert.equal((await driver.add('q', { payload: '3', idempotencyKey: 'new' }))[0]?.status, 'duplicate')
  }
})

test('an idempotency key is let go of once its window is over, though the clock was set back and came again (P8)', async () => {
  const driver = await openDriver()
  await driver.queue('q', { idempotencyMs: 4 * HOUR_MS })
  await driver.add('q', { payload: '1', idempotencyKey: 'k' })
  driver.nowMs -= 3 * HOUR_MS
  await driver.restart()
  await driver.advance(9 * HOUR_MS)
  assert.equal((await driver.add('q', { payload: '1', idempotencyKey: 'k' }))[0]?.status, 'stored')
})
