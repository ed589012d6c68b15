import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import { openMemoryLog } from '../../src/logs/memory.ts'
import { type Held, openDriver, START_MS, toAppend } from '../support/ledger-driver.ts'

const place = (offset: number) => ({ kind: 'offset', partition: 0, offset })

describe('idempotent publish (P8)', () => {
  test('the same key gives the place of the first time, and stores nothing', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    assert.deepEqual(await driver.add('q', { idempotencyKey: 'k' }), [{ status: 'stored', offset: 0 }])
    assert.deepEqual(await driver.add('q', { idempotencyKey: 'k' }), [
      { status: 'duplicate', place: place(0), timestampMs: START_MS },
    ])
    assert.equal((await driver.stats('q')).head, 1)
  })

  test('another payload under the key is a mismatch', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', { idempotencyKey: 'k', payload: '1' })
    assert.deepEqual(await driver.add('q', { idempotencyKey: 'k', payload: '2' }), [{ status: 'mismatch' }])
    assert.equal((await driver.stats('q')).head, 1)
  })

  test('within one batch a key counts once', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    const outcomes = await driver.add(
      'q',
      { payload: '1' },
      { idempotencyKey: 'k' },
      { idempotencyKey: 'k' },
      { idempotencyKey: 'k', payload: '9' },
    )
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      ['stored', 'stored', 'duplicate', 'mismatch'],
    )
    assert.deepEqual(outcomes[2], { status: 'duplicate', place: place(1), timestampMs: START_MS })
  })

  test('keys are apart by queue and by credential', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.queue('r')
    const statuses = []
    for (const [topic, scope] of [
      ['q', undefined],
      ['r', undefined],
      ['q', 'alice'],
      ['q', 'bob'],
      ['q', 'alice'],
      ['q', ''],
    ] as const) {
      statuses.push(
        (await driver.add(topic, { idempotencyKey: 'k', ...(scope === undefined ? {} : { scope }) }))[0]?.status,
      )
    }
    assert.deepEqual(statuses, ['stored', 'stored', 'stored', 'stored', 'duplicate', 'duplicate'])
  })

  test('it holds over restarts, and after the job is done', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', { idempotencyKey: 'k' })
    await driver.restart()
    await driver.settle((await driver.lease('q')) as Held)
    await driver.restart()
    assert.deepEqual(await driver.add('q', { idempotencyKey: 'k' }), [
      { status: 'duplicate', place: place(0), timestampMs: START_MS },
    ])
  })

  test('the key is kept if and only if its message is', async () => {
    for (const kind of ['lost', 'torn', 'kept'] as const) {
      const driver = await openDriver()
      await driver.queue('q')
      await driver.crashAndReopen(kind, [driver.request('append', [toAppend('q', [{ idempotencyKey: 'k' }])])])
      assert.equal(
        (await driver.add('q', { idempotencyKey: 'k' }))[0]?.status,
        kind === 'kept' ? 'duplicate' : 'stored',
      )
      assert.equal((await driver.stats('q')).head, 1)
    }
  })

  test('it holds for the whole window, and is forgotten within a quarter more', async () => {
    for (const phase of [0, 1, 137, 249, 250, 999]) {
      const driver = await openDriver()
      driver.nowMs += phase
      await driver.queue('q', { idempotencyMs: 1_000 })
      await driver.add('q', { idempotencyKey: 'k' })
      await driver.advance(1_000)
      assert.equal((await driver.add('q', { idempotencyKey: 'k' }))[0]?.status, 'duplicate', `phase ${phase}`)
      await driver.advance(251)
      assert.equal((await driver.add('q', { idempotencyKey: 'k' }))[0]?.status, 'stored', `phase ${phase}`)
    }
  })

  test('keys that are out of the window are deleted', async () => {
    const driver = await openDriver()
    await driver.queue('q', { idempotencyMs: 1_000 })
    for (let i = 0; i < 50; i++) await driver.add('q', { idempotencyKey: `k${i}` })
    await driver.advance(200_000)
    assert.equal(openMemoryLog(driver.medium).own().state.range('i/', 'i/\x7f', 100).length, 0)
  })

  test('a delayed job is stored once, and its duplicate has its place', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    const draft = { idempotencyKey: 'k', dueAtMs: START_MS + 1_000 }
    assert.deepEqual(await driver.add('q', draft), [{ status: 'scheduled', dueAtMs: START_MS + 1_000, serial: 0 }])
    const duplicate = {
      status: 'duplicate',
      place: { kind: 'scheduled', dueMs: START_MS + 1_000, serial: 0 },
      timestampMs: START_MS,
    }
    assert.deepEqual(await driver.add('q', draft), [duplicate])
    await driver.advance(2_000)
    assert.deepEqual(await driver.add('q', draft), [duplicate])
    assert.equal((await driver.stats('q')).depth.messages, 1)
  })

  test('a refused message leaves no key behind, and a known key is answered even where the queue is full', async () => {
    const driver = await openDriver()
    await driver.queue('q', { limit: { messages: 1 } })
    await driver.add('q', { idempotencyKey: 'first' })
    assert.equal((await driver.add('q', { idempotencyKey: 'second' }))[0]?.status, 'full')
    assert.equal((await driver.add('q', { idempotencyKey: 'first' }))[0]?.status, 'duplicate')
    await driver.settle((await driver.lease('q')) as Held)
    assert.equal((await driver.add('q', { idempotencyKey: 'second' }))[0]?.status, 'stored')
  })

  test('a window of 0 remembers nothing', async () => {
    const driver = await openDriver()
    await driver.queue('q', { idempotencyMs: 0 })
    for (let i = 0; i < 2; i++) assert.equal((await driver.add('q', { idempotencyKey: 'k' }))[0]?.status, 'stored')
  })

  test('a key still holds when the window is made longer or shorter', async () => {
    for (const idempotencyMs of [1_000_000, 7_000]) {
      const driver = await openDriver()
      await driver.queue('q', { idempotencyMs: 60_000 })
      await driver.add('q', { idempotencyKey: 'k' })
      await driver.advance(5_000)
      await driver.queue('q', { idempotencyMs })
      assert.equal((await driver.add('q', { idempotencyKey: 'k' }))[0]?.status, 'duplicate', `${idempotencyMs}`)
    }
  })
})
