import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import type { CommandOutcome, WaitReason } from '../../src/engine/contract.ts'
import { describeWaits } from '../../src/explaining.ts'
import { type Held, type LedgerDriver, openDriver, part, START_MS } from '../support/ledger-driver.ts'

async function waits(driver: LedgerDriver, id: string): Promise<readonly WaitReason[]> {
  const outcome: CommandOutcome = await driver.command({ kind: 'explain', id })
  assert.ok(outcome.status === 'explained', outcome.status)
  return outcome.waits
}

const at = (driver: LedgerDriver, offset: number) => waits(driver, driver.id('q', offset))

describe('why a job waits', () => {
  test('a delayed job says until when, in a queue that may be paused besides', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    const [later] = await driver.add('q', { dueAtMs: START_MS + 5_000 })
    const id = driver.scheduledId('q', later)
    assert.deepEqual(await waits(driver, id), [{ kind: 'delayed', untilMs: START_MS + 5_000 }])
    await driver.command({ kind: 'pause', topic: 'q', group: '' })
    assert.deepEqual((await waits(driver, id)).at(-1), { kind: 'paused' })
    await driver.command({ kind: 'resume', topic: 'q', group: '' })
    await driver.advance(5_000)
    assert.deepEqual(await waits(driver, id), [{ kind: 'no-worker' }, { kind: 'line', ahead: 0 }])
  })

  test('without a worker a job says so, with its place in line, and in a paused queue that, too', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', {}, {}, {})
    assert.deepEqual(await at(driver, 2), [{ kind: 'no-worker' }, { kind: 'line', ahead: 2 }])
    await driver.cancel(driver.id('q', 1))
    assert.deepEqual(await at(driver, 2), [{ kind: 'no-worker' }, { kind: 'line', ahead: 1 }])
    await driver.command({ kind: 'pause', topic: 'q', group: '' })
    assert.deepEqual(await at(driver, 0), [{ kind: 'paused' }, { kind: 'no-worker' }, { kind: 'line', ahead: 0 }])
  })

  test('where the workers are busy it says with how many jobs, and a job that runs or has ended does not wait', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', {}, {}, {})
    const held = (await driver.lease('q', { max: 2 })) as Held
    assert.deepEqual(await at(driver, 2), [
      { kind: 'workers-busy', active: 2 },
      { kind: 'line', ahead: 0 },
    ])
    assert.deepEqual(await at(driver, 0), [])
    await driver.settle(held)
    assert.deepEqual(await at(driver, 0), [])
  })

  test('higher classes are counted before it, and everything before a low one', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', { priority: 2 }, { priority: 1 }, { priority: 0 }, { priority: 1 })
    // The walk has met all of them once something was handed out.
    assert.deepEqual(((await driver.lease('q')) as Held).offsets, [2])
    const ahead = async (offset: number) => (await at(driver, offset)).find(({ kind }) => kind === 'line')
    assert.deepEqual(await ahead(1), { kind: 'line', ahead: 0 })
    assert.deepEqual(await ahead(3), { kind: 'line', ahead: 1 })
    assert.deepEqual(await ahead(0), { kind: 'line', ahead: 2 })
  })

  test('a job of a busy key names the one it waits for, how that one is, and how many go before it', async () => {
    const driver = await openDriver()
    await driver.queue('q', { backoff: { baseMs: 1_000, maxMs: 1_000 } })
    await driver.add('q', { key: 'a' }, { key: 'b' }, { key: 'a' }, { key: 'a' })
    const behind = (status: string, ahead: number) => ({
      kind: 'key',
      behind: driver.id('q', 0),
      behindStatus: status,
      ahead,
    })
    const all = await at(driver, 3)
    assert.deepEqual(all, [behind('queued', 2), { kind: 'no-worker' }])
    const held = (await driver.lease('q', { max: 10 })) as Held
    assert.deepEqual(held.offsets, [0, 1])
    assert.deepEqual(await at(driver, 2), [behind('active', 1)])
    assert.deepEqual(await at(driver, 3), [behind('active', 2)])
    await driver.settle(part(held, 0), { kind: 'retry', error: 'no' })
    assert.deepEqual(await at(driver, 2), [behind('retrying', 1)])
    const [retrying] = await at(driver, 0)
    assert.equal(retrying?.kind, 'retrying')
    assert.ok(retrying?.kind === 'retrying' && retrying.untilMs > START_MS)
  })

  test('behind a job that is out of attempts and blocks, it names that one', async () => {
    const driver = await openDriver()
    await driver.queue('q', { attempts: 1, onExhausted: 'block' })
    await driver.add('q', { key: 'a' }, { key: 'a' })
    await driver.settle((await driver.lease('q')) as Held, { kind: 'dead', error: 'no' })
    assert.deepEqual(await at(driver, 0), [{ kind: 'exhausted' }])
    const waiting = await at(driver, 1)
    assert.deepEqual(waiting, [{ kind: 'key', behind: driver.id('q', 0), behindStatus: 'blocked', ahead: 1 }])
    assert.match(describeWaits('queued', waiting, driver.nowMs), /behind job q:\w+:0 .*redrive or cancel/)
    await driver.command({ kind: 'redrive', topic: 'q', group: '', max: 10 })
    assert.deepEqual(await at(driver, 0), [{ kind: 'no-worker' }, { kind: 'line', ahead: 0 }])
  })

  test('in a strict queue every job waits for the one before', async () => {
    const driver = await openDriver()
    await driver.queue('q', { strict: true })
    await driver.add('q', {}, {}, {}, {})
    await driver.cancel(driver.id('q', 1))
    const held = (await driver.lease('q', { max: 10 })) as Held
    assert.deepEqual(held.offsets, [0])
    assert.deepEqual(await at(driver, 3), [
      { kind: 'key', behind: driver.id('q', 0), behindStatus: 'active', ahead: 2 },
    ])
    await driver.settle(held)
    assert.deepEqual(await at(driver, 3), [
      { kind: 'key', behind: driver.id('q', 2), behindStatus: 'queued', ahead: 1 },
      { kind: 'no-worker' },
    ])
  })

  test('a rate says when the next may go', async () => {
    const driver = await openDriver()
    await driver.queue('q', { rate: { messages: 1, perMs: 1_000 } })
    await driver.add('q', {}, {})
    await driver.settle((await driver.lease('q')) as Held)
    await driver.beginLease('q')
    assert.deepEqual(await at(driver, 1), [
      { kind: 'rate', untilMs: START_MS + 1_000 },
      { kind: 'line', ahead: 0 },
    ])
  })

  test('after a crash it names the suspect that goes first and alone (P3)', async () => {
    const driver = await openDriver()
    await driver.queue('q', { backoff: { baseMs: 0 } })
    await driver.add('q', {}, {})
    await driver.lease('q')
    await driver.restart()
    assert.deepEqual((await at(driver, 1))[0], { kind: 'suspect', behind: driver.id('q', 0) })
    await driver.lease('q')
    assert.deepEqual((await at(driver, 1))[0], { kind: 'suspect', behind: driver.id('q', 0) })
  })

  test('a place in line that is far away costs no look at each message before it', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    for (let i = 0; i < 20; i++) await driver.add('q', ...Array.from({ length: 2_000 }, () => ({ key: `${i}` })))
    // 2,000 of each key: the first is too far from the walk for a look at those before it.
    assert.deepEqual(await at(driver, 39_999), [{ kind: 'no-worker' }, { kind: 'line', ahead: 39_999 }])
    assert.deepEqual((await at(driver, 10_100))[0], {
      kind: 'key',
      behind: driver.id('q', 10_000),
      behindStatus: 'queued',
      ahead: 100,
    })
  })

  test('an id that is not there is not found', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    assert.deepEqual(await driver.command({ kind: 'explain', id: 'nonsense' }), { status: 'not-found' })
    assert.deepEqual(await driver.command({ kind: 'explain', id: driver.id('q', 0) }), { status: 'not-found' })
  })

  test('each reason is a sentence of its own', () => {
    const reasons: WaitReason[] = [
      { kind: 'delayed', untilMs: 90_000 },
      { kind: 'retrying', untilMs: 400 },
      { kind: 'exhausted' },
      { kind: 'key', behind: 'q:a:1', behindStatus: 'active', ahead: 3 },
      { kind: 'suspect' },
      { kind: 'suspect', behind: 'q:a:2' },
      { kind: 'paused' },
      { kind: 'no-worker' },
      { kind: 'workers-busy', active: 4 },
      { kind: 'rate', untilMs: 10_000_000 },
      { kind: 'line', ahead: 5 },
    ]
    const said = reasons.map((reason) => describeWaits('queued', [reason], 0))
    assert.equal(new Set(said).size, reasons.length)
    assert.match(said.join(' '), /due in 90\.0 s\. .*400 ms\. .*3 of its key.*with 4 jobs.*3 h\. 5 may go before it\./)
    assert.equal(describeWaits('active', [], 0), 'It runs.')
  })
})
