import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import { type Held, type LedgerDriver, openDriver, part, START_MS } from '../support/ledger-driver.ts'

/** Everything that can still be handed out, settled in turn. */
async function drain(driver: LedgerDriver): Promise<number[]> {
  const offsets: number[] = []
  for (;;) {
    await driver.advance(1_000)
    const held = await driver.lease('q', { max: 100 })
    if (held === undefined) return offsets.toSorted((a, b) => a - b)
    offsets.push(...held.offsets)
    await driver.settle(held)
  }
}

/** Cancels a job in the state that `prepare` brings about and checks that it is gone for good, with and without a restart. */
function cancels(title: string, prepare: (driver: LedgerDriver) => Promise<{ id: string; left: number[] }>): void {
  for (const restarts of [false, true]) {
    test(`${title}${restarts ? ', over a restart' : ''}`, async () => {
      const driver = await openDriver()
      const { id, left } = await prepare(driver)
      const before = (await driver.stats('q')).depth.messages
      assert.deepEqual(await driver.cancel(id), { status: 'done' })
      assert.equal((await driver.stats('q')).depth.messages, before - 1, 'its place is free at once')
      if (restarts) await driver.restart()
      assert.equal((await driver.job(id)).status, 'cancelled')
      const again = await driver.cancel(id)
      assert.ok(again.status === 'terminal' && again.job.status === 'cancelled')
      assert.deepEqual(await drain(driver), left)
      assert.equal((await driver.stats('q')).depth.messages, 0)
      assert.equal((await driver.job(id)).status, 'cancelled')
    })
  }
}

describe('cancel (P10)', () => {
  cancels('a queued job, the only one', async (driver) => {
    await driver.queue('q')
    await driver.add('q', {})
    return { id: driver.id('q', 0), left: [] }
  })

  cancels('a queued job among others', async (driver) => {
    await driver.queue('q')
    await driver.add('q', {}, {}, {})
    return { id: driver.id('q', 1), left: [0, 2] }
  })

  cancels('a job that waits for its class', async (driver) => {
    await driver.queue('q')
    await driver.add('q', { priority: 2 }, {}, { priority: 0 })
    assert.deepEqual((await driver.lease('q'))?.offsets, [2])
    await driver.settle({ topic: 'q', group: '', fence: 1, offsets: [2] })
    return { id: driver.id('q', 0), left: [1] }
  })

  cancels('a scheduled job', async (driver) => {
    await driver.queue('q')
    const [later] = await driver.add('q', { dueAtMs: START_MS + 500 })
    await driver.add('q', {})
    return { id: driver.scheduledId('q', later), left: [0] }
  })

  cancels('a delayed job that has taken its place', async (driver) => {
    await driver.queue('q')
    const [later] = await driver.add('q', { dueAtMs: START_MS + 500 })
    await driver.advance(500)
    await driver.add('q', {})
    return { id: driver.scheduledId('q', later), left: [1] }
  })

  cancels('a parked job, and its key goes on', async (driver) => {
    await driver.queue('q')
    await driver.add('q', { key: 'a' }, { key: 'a' }, { key: 'b' })
    const held = (await driver.lease('q')) as Held
    await driver.settle(held, { kind: 'retry', error: 'no', atMs: START_MS + 10_000_000 })
    return { id: driver.id('q', 0), left: [1, 2] }
  })

  cancels('a job that is due again', async (driver) => {
    await driver.queue('q')
    await driver.add('q', { key: 'a' }, { key: 'a' })
    const held = (await driver.lease('q')) as Held
    await driver.settle(held, { kind: 'retry', error: 'no', atMs: START_MS })
    return { id: driver.id('q', 0), left: [1] }
  })

  cancels('a suspect', async (driver) => {
    await driver.queue('q', { backoff: { baseMs: 0 } })
    await driver.add('q', { key: 'a' }, { key: 'a' }, {})
    assert.ok(await driver.lease('q'))
    await driver.restart()
    return { id: driver.id('q', 0), left: [1, 2] }
  })

  cancels('a follower', async (driver) => {
    await driver.queue('q')
    await driver.add('q', { key: 'a' }, { key: 'a' }, { key: 'a' })
    const held = (await driver.lease('q', { max: 10, token: 't', leaseMs: 1_000 })) as Held
    assert.equal(await driver.lease('q'), undefined)
    const id = driver.id('q', 1)
    assert.deepEqual(held.offsets, [0])
    return { id, left: [0, 2] }
  })

  cancels('a blocked job, and its key goes on', async (driver) => {
    await driver.queue('q', { attempts: 1, onExhausted: 'block' })
    await driver.add('q', { key: 'a' }, { key: 'a' })
    await driver.settle((await driver.lease('q')) as Held, { kind: 'retry', error: 'no' })
    assert.equal((await driver.job(driver.id('q', 0))).status, 'blocked')
    return { id: driver.id('q', 0), left: [1] }
  })

  cancels('a running job, and its key goes on', async (driver) => {
    await driver.queue('q')
    await driver.add('q', { key: 'a' }, { key: 'a' })
    assert.ok(await driver.lease('q', { token: 't' }))
    return { id: driver.id('q', 0), left: [1] }
  })

  test('a running job loses its fence', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', {}, {})
    const held = (await driver.lease('q', { max: 2 })) as Held
    await driver.cancel(driver.id('q', 0))
    assert.deepEqual(await driver.extend(held, 1), { status: 'extended', expiresAtMs: 0, lost: [0] })
    assert.deepEqual(await driver.settle(held, { kind: 'done', result: '1' }), {
      status: 'settled',
      lost: [0],
      outputs: [],
    })
    assert.deepEqual(
      [(await driver.job(driver.id('q', 0))).status, (await driver.job(driver.id('q', 1))).status],
      ['cancelled', 'completed'],
    )
  })

  test('cancelling a suspect that is out lets the others go on', async () => {
    const driver = await openDriver()
    await driver.queue('q', { backoff: { baseMs: 0 } })
    await driver.add('q', {}, {})
    assert.ok(await driver.lease('q'))
    await driver.restart()
    assert.deepEqual((await driver.lease('q', { max: 10 }))?.offsets, [0])
    await driver.cancel(driver.id('q', 0))
    assert.deepEqual((await driver.lease('q', { max: 10 }))?.offsets, [1])
  })

  test('a cancelled suspect that waits for its turn does not hold up the others', async () => {
    const driver = await openDriver()
    await driver.queue('q', { backoff: { baseMs: 0 } })
    await driver.add('q', {}, {}, {})
    const held = (await driver.lease('q', { token: 't', leaseMs: 100_000 })) as Held
    assert.ok(await driver.lease('q'))
    await driver.restart()
    assert.equal(await driver.lease('q'), undefined, 'the suspect waits until nothing is held')
    await driver.cancel(driver.id('q', 1))
    assert.deepEqual((await driver.lease('q'))?.offsets, [2])
    assert.equal((await driver.settle(held)).status, 'settled')
  })

  test('what was cancelled is never met again, however much is trimmed behind it', async () => {
    for (const priority of [0, 1, 2]) {
      const driver = await openDriver()
      await driver.queue('q', { retention: { ms: 0, bytes: 0 } })
      await driver.add('q', { priority: 0, key: 'first' })
      const first = (await driver.lease('q')) as Held
      await driver.add('q', { priority, key: 'a' }, { priority, key: 'a' })
      await driver.add('q', { priority, key: 'b' })
      await driver.add('q', { key: 'first' })
      assert.equal(await driver.lease('q', { max: 1 }).then((held) => held?.offsets.length), 1)
      for (const offset of [1, 2, 3]) await driver.cancel(driver.id('q', offset))
      await driver.settle(first)
      await driver.advance(10_000)
      assert.ok((await driver.stats('q')).earliest >= 3)
      assert.deepEqual((await driver.lease('q', { max: 10 }))?.offsets, [4])
    }
  })

  test('a terminal job stays as it is', async () => {
    const driver = await openDriver()
    await driver.queue('q', { attempts: 1 })
    await driver.add('q', {}, {}, { deadlineMs: START_MS })
    const held = (await driver.lease('q', { max: 2 })) as Held
    await driver.settle(part(held, 0), { kind: 'done', result: '7' })
    await driver.settle(part(held, 1), { kind: 'dead', error: 'no' })
    for (const [offset, status] of ['completed', 'failed', 'expired'].entries()) {
      const outcome = await driver.cancel(driver.id('q', offset))
      assert.ok(outcome.status === 'terminal')
      assert.equal(outcome.job.status, status)
      assert.equal((await driver.job(driver.id('q', offset))).status, status)
    }
  })

  test('ids of other queues, other folders and no queue at all are not found', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.topic('t')
    await driver.add('q', {})
    await driver.add('t', {})
    const tag = driver.id('q', 0).split(':')[1]
    for (const id of [
      'q:zzzzzz:0',
      `other:${tag}:0`,
      `q:${tag}:1`,
      `q:${tag}:1-0`,
      `q:${tag}:s1-1`,
      'q',
      '',
      driver.id('t', 0),
      `__proto__:${tag}:0`,
    ]) {
      assert.deepEqual(await driver.find(id), { status: 'not-found' }, id)
      assert.deepEqual(await driver.cancel(id), { status: 'not-found' }, id)
    }
  })
})
