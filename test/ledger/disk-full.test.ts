import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import { type Held, openDriver, part, START_MS, toAppend } from '../support/ledger-driver.ts'

describe('a full disk (P13)', () => {
  test('appends answer full, everything else in the same step takes effect, each request is answered once', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.topic('t')
    await driver.add('q', {}, {}, {})
    const held = (await driver.lease('q', { max: 2 })) as Held
    const waiting = await driver.beginLease('q', { max: 5, token: 'w' })
    assert.ok(driver.answered.has(waiting))
    const worker = await driver.beginLease('q')
    const reader = await driver.begin('read', { topic: 'q', from: 'latest', max: 1, waitMs: 10_000 })
    const watcher = await driver.begin('watch', {
      id: driver.id('q', 0),
      version: -1,
      untilTerminal: true,
      waitMs: 10_000,
    })
    driver.medium.full = true
    const { topic, group, fence } = held
    const requests = [
      driver.request('append', [toAppend('q', [{}, {}]), toAppend('t', [{}])]),
      driver.request('settle', [{ topic, group, fence, offsets: [0], outcome: { kind: 'done', result: '1' } }]),
      driver.request('settle', [
        { topic, group, fence, offsets: [1], outcome: { kind: 'done' }, outputs: [toAppend('t', [{}])] },
      ]),
      driver.request('find', [driver.id('q', 0)]),
      driver.request('declare', [{ kind: 'queue', name: 'new', settings: {} }]),
    ]
    await driver.step(requests)
    assert.equal(driver.restores, 1)
    const [append, settle, withOutputs, , declare] = requests.map(({ id }) =>
      driver.answerTo<never[]>(id),
    ) as never as [
      { status: string; outcomes: { status: string; reason: string }[] }[],
      { status: string }[],
      { status: string; reason: string }[],
      unknown,
      { status: string }[],
    ]
    for (const { outcomes } of append)
      for (const one of outcomes) assert.deepEqual([one.status, one.reason], ['full', 'disk'])
    assert.equal(settle[0]?.status, 'settled')
    assert.deepEqual([withOutputs[0]?.status, withOutputs[0]?.reason], ['full', 'disk'])
    assert.equal(declare[0]?.status, 'declared')
    assert.deepEqual(
      [driver.answered.has(watcher), driver.answered.has(worker), driver.answered.has(reader)],
      [true, false, false],
    )
    assert.equal((await driver.job(driver.id('q', 1))).status, 'active', 'the settle with outputs had no effect')
    const { head, appended } = await driver.stats('q')
    assert.deepEqual([head, appended], [3, 3])
    driver.medium.full = false
    await driver.advance(1_000)
    assert.deepEqual(await driver.add('q', {}), [{ status: 'stored', offset: 3 }])
    assert.ok(driver.answered.has(worker) && driver.answered.has(reader), 'those who waited get what comes')
  })

  test('nobody is told of what was not kept', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    const worker = await driver.beginLease('q')
    const reader = await driver.begin('read', { topic: 'q', from: 0, max: 1, waitMs: 10_000 })
    driver.medium.full = true
    assert.equal((await driver.add('q', { idempotencyKey: 'k' }))[0]?.status, 'full')
    assert.equal(driver.answered.has(worker) || driver.answered.has(reader), false)
    driver.medium.full = false
    await driver.advance(1_000)
    assert.equal((await driver.add('q', { idempotencyKey: 'k' }))[0]?.status, 'stored')
    assert.deepEqual(driver.answerTo<Held>(worker)?.attempts, [1])
  })

  test('waits that began before a full disk end at their time', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', { dueAtMs: START_MS + 1_000_000 })
    const ids = [
      await driver.beginLease('q', { waitMs: 5_000 }),
      await driver.begin('read', { topic: 'q', from: 0, max: 1, waitMs: 5_000 }),
      await driver.begin('watch', {
        id: driver.scheduledId('q', { status: 'scheduled', dueAtMs: START_MS + 1_000_000, serial: 0 }),
        version: -1,
        untilTerminal: true,
        waitMs: 5_000,
      }),
    ]
    driver.medium.full = true
    await driver.add('q', {})
    await driver.advance(4_999)
    assert.ok(ids.every((id) => !driver.answered.has(id)))
    await driver.advance(1)
    assert.ok(ids.every((id) => driver.answered.has(id)))
  })

  test('leases, progress and timers are as before', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', {}, {}, {}, {})
    const byProcess = (await driver.lease('q')) as Held
    const byToken = (await driver.lease('q', { token: 't', leaseMs: 3_000 })) as Held
    const parked = (await driver.lease('q', { max: 2 })) as Held
    await driver.settle(part(parked, 0), { kind: 'retry', error: 'x', atMs: START_MS + 2_000 })
    await driver.extend(byProcess, 0, '"half"')
    const { version } = await driver.job(driver.id('q', 0))
    driver.medium.full = true
    assert.equal((await driver.add('q', {}))[0]?.status, 'full')
    const job = await driver.job(driver.id('q', 0))
    assert.deepEqual([job.status, job.progress, job.version], ['active', '"half"', version])
    assert.equal(await driver.lease('q'), undefined)
    await driver.advance(2_000)
    assert.deepEqual((await driver.lease('q'))?.offsets, [2])
    await driver.advance(1_000)
    assert.deepEqual((await driver.lease('q'))?.offsets, [1])
    assert.deepEqual(await driver.settle(byToken), { status: 'settled', lost: [1], outputs: [] })
    assert.deepEqual(await driver.settle(byProcess), { status: 'settled', lost: [], outputs: [] })
  })

  test('progress stays though the settle that found no room had already ended the lease (P10)', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', {})
    const held = (await driver.lease('q')) as Held
    await driver.extend(held, 0, '"half"')
    const before = await driver.job(driver.id('q', 0))
    driver.medium.full = true
    const refused = await driver.settle(held, { kind: 'done' }, { outputs: [toAppend('q', [{}])] })
    assert.equal(refused.status, 'full')
    const { progress, version } = await driver.job(driver.id('q', 0))
    assert.deepEqual([progress, version], ['"half"', before.version])
  })

  test('delayed jobs that fall due meanwhile take their places once there is room', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', { dueAtMs: START_MS + 100 }, { dueAtMs: START_MS + 200 })
    driver.medium.full = true
    await driver.advance(10_000)
    assert.equal((await driver.stats('q')).scheduled, 2)
    driver.medium.full = false
    await driver.advance(2_500)
    assert.deepEqual((await driver.lease('q', { max: 5 }))?.offsets, [0, 1])
  })

  test('redrive answers full and the dead letters stay', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', {})
    await driver.settle((await driver.lease('q')) as Held, { kind: 'dead', error: 'x' })
    driver.medium.full = true
    const outcome = await driver.command({ kind: 'redrive', topic: 'q', group: '', max: 10 })
    assert.ok(outcome.status === 'full' && outcome.reason === 'disk')
    assert.equal((await driver.stats('q')).groups[0]?.dead, 1)
  })

  test('what retention had noted is not forgotten', async () => {
    const driver = await openDriver()
    await driver.queue('q', { retention: { ms: 20_000 } })
    await driver.add('q', {})
    await driver.settle((await driver.lease('q')) as Held)
    for (let i = 0; i < 8; i++) {
      await driver.advance(5_000)
      driver.medium.full = true
      await driver.add('q', {})
      driver.medium.full = false
    }
    await driver.advance(5_000)
    assert.equal((await driver.stats('q')).earliest, 1)
  })
})
