import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import type { LeaseOutcome } from '../../src/engine/contract.ts'
import { openDriver, toAppend } from '../support/ledger-driver.ts'

const MEGABYTE = JSON.stringify('x'.repeat(1024 ** 2))

describe('the window over steps (P6, P7)', () => {
  test('what is appended is handed out in the very step that stores it, however much that is', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    const requests = [
      ...Array.from({ length: 70 }, () => driver.request('append', [toAppend('q', [{ payload: MEGABYTE }])])),
      driver.request('lease', {
        topic: 'q',
        group: '',
        max: 70,
        leaseMs: 1_000,
        waitMs: 0,
        holder: { kind: 'process' },
      }),
    ]
    const answers = await driver.step(requests)
    const last = answers.find(({ id }) => id === requests.at(-1)?.id)
    assert.ok(last !== undefined && 'value' in last)
    // As many as one answer may hold, from the first, which a bound on memory within the step would have dropped.
    const { offsets } = last.value as Extract<LeaseOutcome, { status: 'leased' }>
    assert.deepEqual(offsets, [...offsets.keys()])
    assert.ok(offsets.length > 10)
  })

  test('what is no longer in memory is read again', async () => {
    const driver = await openDriver()
    const held = []
    for (let i = 0; i < 100; i++) {
      await driver.queue(`q${i}`)
      await driver.add(`q${i}`, { payload: MEGABYTE })
    }
    for (let i = 0; i < 100; i++) held.push(await driver.lease(`q${i}`, { max: 1 }))
    assert.ok(held.every((one) => one?.offsets[0] === 0))
  })
})
