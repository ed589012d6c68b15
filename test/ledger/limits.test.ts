import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import type { FullOutcome, MessageOutcome } from '../../src/engine/contract.ts'
import { type Draft, type Held, type LedgerDriver, openDriver, START_MS, toAppend } from '../support/ledger-driver.ts'

const many = (count: number, draft: Draft = {}): Draft[] => Array.from({ length: count }, () => draft)
const statuses = (outcomes: readonly MessageOutcome[]) => outcomes.map(({ status }) => status)

async function settleSome(driver: LedgerDriver, queue: string, count: number): Promise<void> {
  const held = await driver.lease(queue, { max: count })
  assert.equal(held?.offsets.length, count)
  await driver.settle(held as Held)
}

describe('limits (P7)', () => {
  test('a queue takes exactly as many messages as its limit says', async () => {
    const driver = await openDriver()
    await driver.queue('q', { limit: { messages: 3 } })
    await driver.add('q', {})
    assert.deepEqual(statuses(await driver.add('q', {}, {})), ['stored', 'stored'])
    const [refused] = await driver.add('q', {})
    assert.ok(refused?.status === 'full')
    assert.deepEqual([refused.reason, refused.depth, refused.limit], ['messages', 3, 3])
    assert.equal((await driver.stats('q')).depth.messages, 3)
  })

  test('of a batch that does not fit as a whole, what fits is stored, in order, and each message has its outcome', async () => {
    const driver = await openDriver()
    await driver.queue('q', { limit: { messages: 5 } })
    await driver.add('q', {}, {})
    const outcomes = await driver.add('q', ...many(6))
    assert.deepEqual(statuses(outcomes), ['stored', 'stored', 'stored', 'full', 'full', 'full'])
    assert.deepEqual((outcomes[0] as { offset: number }).offset, 2)
    for (const outcome of outcomes.slice(3) as FullOutcome[])
      assert.deepEqual([outcome.reason, outcome.depth, outcome.limit], ['messages', 5, 5])
    const { depth, refused, appended } = await driver.stats('q')
    assert.deepEqual([depth.messages, refused, appended], [5, 3, 5])
  })

  test('bytes are counted exactly: payload, key, headers and 24 for each message', async () => {
    const driver = await openDriver()
    const draft = { payload: '"12345678"', key: 'abc', headers: { h: 'v' } }
    const size = 10 + (2 + 3 + '{"h":"v"}'.length) + 24
    await driver.queue('q', { limit: { bytes: 3 * size } })
    assert.deepEqual(statuses(await driver.add('q', draft, draft)), ['stored', 'stored'])
    assert.equal((await driver.stats('q')).depth.bytes, 2 * size)
    assert.deepEqual(statuses(await driver.add('q', draft, draft)), ['stored', 'full'])
    const [refused] = await driver.add('q', { payload: '1' })
    assert.ok(refused?.status === 'full')
    assert.deepEqual([refused.reason, refused.depth, refused.limit], ['bytes', 3 * size, 3 * size])
  })

  test('a message larger than what is left does not keep smaller ones out', async () => {
    const driver = await openDriver()
    await driver.queue('q', { limit: { bytes: 1_000 } })
    assert.deepEqual(statuses(await driver.add('q', { payload: `"${'x'.repeat(2_000)}"` })), ['full'])
    assert.deepEqual(statuses(await driver.add('q', {})), ['stored'])
  })

  test('once full it accepts again below low water, not before', async () => {
    const driver = await openDriver()
    await driver.queue('q', { limit: { messages: 20 } })
    await driver.add('q', ...many(20))
    assert.deepEqual(statuses(await driver.add('q', {})), ['full'])
    await settleSome(driver, 'q', 1)
    const [still] = await driver.add('q', {})
    assert.ok(still?.status === 'full')
    assert.deepEqual([still.reason, still.depth], ['messages', 19])
    await settleSome(driver, 'q', 1)
    assert.deepEqual(statuses(await driver.add('q', {}, {})), ['stored', 'stored'])
    assert.deepEqual(statuses(await driver.add('q', {})), ['full'])
  })

  test('a refusal above low water in bytes says that bytes are the reason', async () => {
    const driver = await openDriver()
    await driver.queue('q', { limit: { bytes: 1_000 } })
    const draft = { payload: '1'.repeat(76) }
    await driver.add('q', ...many(10, draft))
    assert.deepEqual(statuses(await driver.add('q', draft)), ['full'])
    await settleSome(driver, 'q', 1)
    await driver.add('q', { payload: '1'.repeat(26) })
    assert.deepEqual(statuses(await driver.add('q', draft)), ['full'])
    const [refused] = await driver.add('q', {})
    assert.ok(refused?.status === 'full')
    assert.equal(refused.reason, 'bytes')
  })

  test('a limit of 0 refuses everything', async () => {
    const driver = await openDriver()
    await driver.queue('q', { limit: { messages: 0 } })
    assert.deepEqual(statuses(await driver.add('q', {}, { dueAtMs: START_MS + 5 })), ['full', 'full'])
  })

  test('leased, parked, blocked and scheduled messages count, settled ones do not', async () => {
    const driver = await openDriver()
    await driver.queue('q', { limit: { messages: 6 }, attempts: 1, onExhausted: 'block' })
    await driver.add('q', {}, {}, {}, {})
    assert.deepEqual(statuses(await driver.add('q', { dueAtMs: START_MS + 100_000 })), ['scheduled'])
    await driver.settle((await driver.lease('q')) as Held, { kind: 'release' })
    await driver.settle((await driver.lease('q')) as Held, { kind: 'dead', error: 'x' })
    await driver.lease('q')
    assert.equal((await driver.stats('q')).depth.messages, 5)
    await driver.settle((await driver.lease('q')) as Held)
    assert.equal((await driver.stats('q')).depth.messages, 4)
    assert.deepEqual(statuses(await driver.add('q', ...many(3, { dueAtMs: START_MS + 1_000 }))), [
      'scheduled',
      'scheduled',
      'full',
    ])
  })

  test('the depth is the same after a restart', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', ...many(5), { dueAtMs: START_MS + 100_000, payload: '"later"' })
    const held = (await driver.lease('q', { max: 3, token: 't', leaseMs: 100_000 })) as Held
    await driver.settle({ ...held, offsets: [1] })
    await driver.cancel(driver.id('q', 4))
    const before = await driver.stats('q')
    await driver.restart()
    const after = await driver.stats('q')
    assert.deepEqual([after.depth, after.scheduled, after.head], [before.depth, before.scheduled, before.head])
    await driver.settle({ ...held, offsets: [0, 2] })
    await settleSome(driver, 'q', 1)
    await driver.cancel(driver.scheduledId('q', { status: 'scheduled', dueAtMs: START_MS + 100_000, serial: 0 }))
    assert.deepEqual((await driver.stats('q')).depth, { messages: 0, bytes: 0 })
  })

  test('a refusal says when to come back: by the measured rate, within bounds, and defined for a rate of zero', async () => {
    const driver = await openDriver()
    await driver.queue('q', { limit: { messages: 100 } })
    await driver.add('q', ...many(100))
    const [blind] = await driver.add('q', {})
    assert.ok(blind?.status === 'full' && blind.retryAfterMs >= 2_000 && blind.retryAfterMs <= 2_200)
    for (let i = 0; i < 5; i++) {
      await settleSome(driver, 'q', 1)
      await driver.advance(1_000)
    }
    const [known] = await driver.add('q', {})
    assert.ok(known?.status === 'full')
    assert.ok(known.retryAfterMs >= 4_000 && known.retryAfterMs <= 7_000, `${known.retryAfterMs}`)
  })

  test('a lease is bounded in bytes, and has at least one message', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    const big = { payload: `"${'x'.repeat(6 * 1024 ** 2)}"` }
    await driver.add('q', big, big, big, big)
    assert.equal((await driver.lease('q', { max: 100 }))?.offsets.length, 3)
    assert.equal((await driver.lease('q', { max: 100 }))?.offsets.length, 1)
  })

  test('a limit may be lowered and raised while messages wait', async () => {
    const driver = await openDriver()
    await driver.queue('q', { limit: { messages: 10 } })
    await driver.add('q', ...many(10))
    await driver.queue('q', { limit: { messages: 5 } })
    assert.deepEqual(statuses(await driver.add('q', {})), ['full'])
    await driver.queue('q', { limit: { messages: 12 } })
    assert.deepEqual(statuses(await driver.add('q', {}, {}, {})), ['stored', 'stored', 'full'])
  })
})

describe('outputs and the reserve (P7, P9)', () => {
  const outputs = (topic: string, count: number) => ({ outputs: [toAppend(topic, many(count))] })

  test('outputs and settle take effect together', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.topic('out')
    await driver.add('q', {})
    const held = (await driver.lease('q')) as Held
    const settled = await driver.settle(held, { kind: 'done', result: '1' }, outputs('out', 2))
    assert.ok(settled.status === 'settled' && settled.outputs[0]?.status === 'stored')
    assert.equal((await driver.stats('out')).head, 2)
  })

  test('a crash leaves the settle and its outputs, or neither', async () => {
    for (const kind of ['lost', 'torn', 'kept'] as const) {
      const driver = await openDriver()
      await driver.queue('q')
      await driver.topic('out')
      await driver.add('q', {})
      const held = (await driver.lease('q', { token: 't', leaseMs: 60_000 })) as Held
      const { topic, group, fence, offsets, token } = held
      const body = [
        { topic, group, fence, offsets, token, outcome: { kind: 'done' as const, result: '1' }, ...outputs('out', 2) },
      ]
      await driver.crashAndReopen(kind, [driver.request('settle', body)])
      const done = kind === 'kept'
      assert.equal((await driver.job(driver.id('q', 0))).status, done ? 'completed' : 'active')
      assert.equal((await driver.stats('out')).head, done ? 2 : 0)
    }
  })

  test('outputs may use the reserve, beyond it the settle answers full and has no effect', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.queue('out', { limit: { messages: 20 } })
    await driver.add('out', ...many(20))
    await driver.add('q', {}, {}, {})
    const held = (await driver.lease('q', { max: 3 })) as Held
    assert.equal(
      (await driver.settle({ ...held, offsets: [0] }, { kind: 'done' }, outputs('out', 2))).status,
      'settled',
    )
    const full = await driver.settle({ ...held, offsets: [1, 2] }, { kind: 'done' }, outputs('out', 1))
    assert.ok(full.status === 'full')
    assert.deepEqual([full.reason, full.depth, full.limit], ['messages', 22, 20])
    assert.equal((await driver.job(driver.id('q', 1))).status, 'active')
    assert.equal((await driver.stats('out')).depth.messages, 22)
    await settleSome(driver, 'out', 1)
    assert.equal(
      (await driver.settle({ ...held, offsets: [1, 2] }, { kind: 'done' }, outputs('out', 1))).status,
      'settled',
    )
  })

  test('of several outputs, one that is full refuses all of them', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.queue('tight', { limit: { messages: 1 } })
    await driver.topic('wide')
    await driver.add('tight', {})
    await driver.add('q', {})
    const held = (await driver.lease('q')) as Held
    const both = { outputs: [toAppend('wide', [{}]), toAppend('tight', [{}])] }
    assert.equal((await driver.settle(held, { kind: 'done' }, both)).status, 'full')
    assert.equal((await driver.stats('wide')).head, 0)
    assert.equal((await driver.job(driver.id('q', 0))).status, 'active')
  })

  test('a settle frees its own place first, so that a full queue can feed itself', async () => {
    for (const limit of [{ messages: 1 }, { messages: 7 }, { bytes: 25 }, { bytes: 175 }]) {
      const driver = await openDriver()
      await driver.queue('q', { limit })
      await driver.add('q', ...many(7))
      for (let round = 0; round < 5; round++) {
        const held = (await driver.lease('q')) as Held
        assert.equal(
          (await driver.settle(held, { kind: 'done' }, outputs('q', 1))).status,
          'settled',
          JSON.stringify(limit),
        )
        assert.equal((await driver.settle(held, { kind: 'done' }, outputs('q', 1))).status, 'settled')
      }
    }
  })

  test('plain settles, extends and cancels are never refused', async () => {
    const driver = await openDriver()
    await driver.queue('q', { limit: { messages: 3 } })
    await driver.add('q', ...many(3))
    const held = (await driver.lease('q', { max: 2 })) as Held
    assert.deepEqual(statuses(await driver.add('q', {})), ['full'])
    assert.equal((await driver.extend(held, 10)).status, 'extended')
    assert.deepEqual(await driver.cancel(driver.id('q', 2)), { status: 'done' })
    assert.equal((await driver.settle(held)).status, 'settled')
  })

  test('a settle with outputs that lost one of its messages has no effect', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.topic('out')
    await driver.add('q', {}, {})
    const held = (await driver.lease('q', { max: 2 })) as Held
    await driver.cancel(driver.id('q', 0))
    const settled = await driver.settle(held, { kind: 'done' }, outputs('out', 1))
    assert.ok(settled.status === 'settled' && settled.lost.includes(0))
    assert.deepEqual(settled.outputs, [])
    assert.equal((await driver.stats('out')).head, 0)
    assert.equal((await driver.job(driver.id('q', 1))).status, 'active')
  })
})
