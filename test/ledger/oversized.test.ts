/** What a log cannot keep as one value (16 MiB) is refused before anything is stored. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { MAX_PAYLOAD_BYTES } from '../../src/message-batch.ts'
import { type Held, type LedgerDriver, openDriver, toAppend } from '../support/ledger-driver.ts'

const LARGEST = '1'.repeat(MAX_PAYLOAD_BYTES)
const TOO_LARGE = '1'.repeat(MAX_PAYLOAD_BYTES + 200_000)
const LIMIT = { limit: { messages: 100, bytes: 1e9 } }

async function codeOf(driver: LedgerDriver, ask: Parameters<LedgerDriver['begin']>): Promise<string | undefined> {
  const id = await driver.begin(...ask)
  const answer = driver.answered.get(id)
  return answer !== undefined && 'error' in answer ? answer.error.code : undefined
}

describe('the size of one message', () => {
  test('at most is kept whatever becomes of it: delayed, settled with as large a result, dead', async () => {
    const driver = await openDriver()
    await driver.queue('q', { ...LIMIT, attempts: 1 })
    const [later] = await driver.add('q', { payload: LARGEST, dueAtMs: driver.nowMs + 10 })
    assert.equal(later?.status, 'scheduled')
    await driver.restart()
    await driver.advance(10)
    const held = (await driver.lease('q')) as Held
    await driver.settle(held, { kind: 'retry', error: LARGEST })
    assert.equal((await driver.stats('q')).groups[0]?.dead, 1)
    await driver.add('q', {})
    await driver.settle((await driver.lease('q')) as Held, { kind: 'done', result: LARGEST })
    await driver.restart()
    assert.equal((await driver.job(driver.id('q', 1))).result?.length, MAX_PAYLOAD_BYTES)
  })

  test('beyond it a message, an output, a result and a kept value are refused, with nothing done', async () => {
    const driver = await openDriver()
    await driver.queue('q', LIMIT)
    const tooLarge = () => toAppend('q', [{}, { payload: TOO_LARGE }])
    assert.equal(await codeOf(driver, ['append', [toAppend('q', [{}]), tooLarge()]]), 'PAYLOAD_TOO_LARGE')
    assert.equal((await driver.stats('q')).head, 0)
    await driver.add('q', {}, {})
    const held = (await driver.lease('q', { max: 2 })) as Held
    const done = { kind: 'done' } as const
    const whole = { ...held, outcome: done }
    const large = { ...held, outcome: { ...done, result: TOO_LARGE } }
    assert.equal(await codeOf(driver, ['settle', [whole, large]]), 'PAYLOAD_TOO_LARGE')
    assert.equal(await codeOf(driver, ['settle', [{ ...whole, outputs: [tooLarge()] }]]), 'PAYLOAD_TOO_LARGE')
    const remember = { kind: 'remember', hold: held, name: 'a', value: TOO_LARGE } as const
    assert.equal(await codeOf(driver, ['command', remember]), 'PAYLOAD_TOO_LARGE')
    assert.deepEqual(await driver.settle(held), { status: 'settled', lost: [], outputs: [] }, 'all of it is still held')
  })
})
