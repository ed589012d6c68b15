import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import { type Held, openDriver } from '../support/ledger-driver.ts'

describe('discard (P7)', () => {
  test('a discarded dead letter is gone for good, makes room for another, and its job stays failed', async () => {
    const driver = await openDriver()
    await driver.queue('q', { attempts: 1, deadLetters: 1 })
    await driver.add('q', {}, {})
    for (let i = 0; i < 2; i++) {
      const held = (await driver.lease('q', { max: 1 })) as Held
      await driver.settle(held, { kind: 'dead', error: 'no' })
    }
    const stats = async () => (await driver.stats('q')).groups[0]
    assert.deepEqual([(await stats())?.dead, (await stats())?.blocked], [1, 1])
    assert.deepEqual(await driver.command({ kind: 'discard', topic: 'q', group: '', max: 100 }), {
      status: 'done',
      count: 1,
    })
    await driver.restart()
    assert.equal((await stats())?.dead, 0)
    assert.equal((await driver.job(driver.id('q', 0))).status, 'failed')
    assert.deepEqual(await driver.command({ kind: 'redrive', topic: 'q', group: '', max: 100 }), {
      status: 'done',
      count: 1,
      ids: [],
    })
  })

  test('only those of the ids are discarded', async () => {
    const driver = await openDriver()
    await driver.queue('q', { attempts: 1 })
    await driver.add('q', {}, {})
    await driver.settle((await driver.lease('q', { max: 2 })) as Held, { kind: 'dead', error: 'no' })
    const ids = [driver.id('q', 1), 'q:xxxxxx:0']
    assert.deepEqual(await driver.command({ kind: 'discard', topic: 'q', group: '', max: 100, ids }), {
      status: 'done',
      count: 1,
    })
    assert.equal((await driver.stats('q')).groups[0]?.dead, 1)
  })
})

describe('forget (P2)', () => {
  test('a refusal names the group that is behind, and without it publishing goes on', async () => {
    const driver = await openDriver()
    await driver.topic('t', { limit: { messages: 2 } })
    await driver.group('t', 'old')
    await driver.group('t', 'new')
    await driver.add('t', {}, {})
    await driver.settle((await driver.lease('t', { group: 'new', max: 2 })) as Held)
    const [refusal] = await driver.add('t', {})
    assert.deepEqual([refusal?.status, refusal?.status === 'full' && refusal.group], ['full', 'old'])
    assert.deepEqual(await driver.command({ kind: 'forget', topic: 't', group: 'old' }), { status: 'done' })
    assert.equal((await driver.add('t', {}))[0]?.status, 'stored')
  })

  test('a forgotten group is gone over a restart; what it held is lost to it, and who waits on it is told', async () => {
    const driver = await openDriver()
    await driver.topic('t')
    await driver.group('t', 'g')
    await driver.add('t', {}, {})
    const held = (await driver.lease('t', { group: 'g', max: 1 })) as Held
    assert.deepEqual(await driver.command({ kind: 'forget', topic: 't', group: 'g' }), { status: 'done' })
    const outcome = await driver.settle(held)
    assert.equal(outcome.status, 'not-found')
    await driver.restart()
    assert.deepEqual((await driver.stats('t')).groups, [])
    assert.equal((await driver.group('t', 'g', 'earliest')).status, 'declared')
    assert.deepEqual(((await driver.lease('t', { group: 'g', max: 9 })) as Held).attempts, [1, 1])
  })

  test('the fences of a group that comes again go on rising, so that an old hold has no effect (P5)', async () => {
    const driver = await openDriver()
    await driver.topic('t')
    await driver.group('t', 'g')
    await driver.add('t', {})
    const old = (await driver.lease('t', { group: 'g' })) as Held
    await driver.command({ kind: 'forget', topic: 't', group: 'g' })
    await driver.restart()
    await driver.group('t', 'g')
    const held = (await driver.lease('t', { group: 'g' })) as Held
    assert.ok(held.fence > old.fence)
    assert.deepEqual(await driver.settle(old), { status: 'settled', lost: [0], outputs: [] })
  })

  test('the one group of a queue cannot be forgotten', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await assert.rejects(driver.command({ kind: 'forget', topic: 'q', group: '' }), /cannot be removed/)
  })
})
