import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import { openMemoryLog } from '../../src/logs/memory.ts'
import { type Held, type LedgerDriver, openDriver, part, START_MS, toAppend } from '../support/ledger-driver.ts'

/** Takes everything that is there, one lease at a time, and settles it. */
async function drain(driver: LedgerDriver, queue: string): Promise<number[]> {
  const offsets: number[] = []
  for (let held = await driver.lease(queue); held; held = await driver.lease(queue)) {
    offsets.push(...held.offsets)
    await driver.settle(held)
  }
  return offsets
}

describe('fences (P5)', () => {
  test('fences rise, over leases of all kinds, crashes and restarts', async () => {
    const driver = await openDriver()
    await driver.queue('q', { attempts: 1_000, backoff: { baseMs: 0 } })
    await driver.add('q', {}, {}, {})
    let last = 0
    for (const how of ['none', 'lost', 'kept', 'torn', 'restart', 'none', 'kept'] as const) {
      for (const token of [undefined, 't'] as const) {
        const held = await driver.lease('q', token === undefined ? {} : { token, leaseMs: 1 })
        assert.ok(held, how)
        assert.ok(held.fence > last)
        last = held.fence
        if (token === undefined) await driver.settle(held, { kind: 'release' })
      }
      if (how === 'restart') await driver.restart()
      else if (how !== 'none') await driver.crashAndReopen(how, [driver.request('append', [])])
      await driver.advance(10)
    }
  })

  test('a settle with an old fence has no effect', async () => {
    const driver = await openDriver()
    await driver.queue('q', { backoff: { baseMs: 0 } })
    await driver.add('q', {})
    const old = (await driver.lease('q', { token: 't', leaseMs: 100 })) as Held
    await driver.advance(100)
    const now = (await driver.lease('q', { token: 't', leaseMs: 100_000 })) as Held
    for (const outcome of [
      { kind: 'done' },
      { kind: 'release' },
      { kind: 'dead', error: 'x' },
      { kind: 'retry', error: 'x' },
    ] as const) {
      assert.deepEqual(await driver.settle(old, outcome), { status: 'settled', lost: [0], outputs: [] })
    }
    assert.deepEqual(await driver.extend(old, 999_999, '"p"'), { status: 'extended', expiresAtMs: 0, lost: [0] })
    assert.deepEqual(await driver.command({ kind: 'remember', hold: old, name: 'n', value: '1' }), { status: 'lost' })
    assert.deepEqual(await driver.command({ kind: 'recall', hold: old, name: 'n' }), { status: 'lost' })
    const job = await driver.job(driver.id('q', 0))
    assert.deepEqual([job.status, job.attempts, job.progress], ['active', 2, undefined])
    assert.deepEqual(await driver.settle(now), { status: 'settled', lost: [], outputs: [] })
    assert.deepEqual(
      await driver.settle(now),
      { status: 'settled', lost: [0], outputs: [] },
      'a second time it is lost',
    )
  })

  test('a settle with the token of another has no effect', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', {})
    const held = (await driver.lease('q', { token: 'mine' })) as Held
    for (const token of ['yours', '', undefined]) {
      assert.deepEqual((await driver.settle({ ...held, token }, { kind: 'done' })).status, 'settled')
      assert.equal((await driver.job(driver.id('q', 0))).status, 'active')
    }
    const { token: _, ...without } = held
    assert.deepEqual(await driver.extend(without, 1_000), { status: 'extended', expiresAtMs: 0, lost: [0] })
  })

  test('a settle of an old fence stores none of its outputs', async () => {
    const driver = await openDriver()
    await driver.queue('q', { backoff: { baseMs: 0 } })
    await driver.topic('out')
    await driver.add('q', {})
    const old = (await driver.lease('q', { token: 't', leaseMs: 100 })) as Held
    await driver.advance(100)
    assert.deepEqual(await driver.settle(old, { kind: 'done' }, { outputs: [toAppend('out', [{}])] }), {
      status: 'settled',
      lost: [0],
      outputs: [],
    })
    assert.equal((await driver.stats('out')).head, 0)
  })
})

describe('leases by token (P5)', () => {
  test('they survive a restart and can be extended and settled after it', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', {}, {})
    const held = (await driver.lease('q', { token: 't', max: 2, leaseMs: 1_000 })) as Held
    await driver.restart()
    assert.equal(await driver.lease('q', { max: 2 }), undefined)
    assert.deepEqual(await driver.extend(held, 5_000), { status: 'extended', expiresAtMs: START_MS + 5_000, lost: [] })
    await driver.restart()
    await driver.advance(4_999)
    assert.deepEqual(await driver.settle(part(held, 1)), { status: 'settled', lost: [], outputs: [] })
    await driver.restart()
    assert.deepEqual(await driver.settle(held), { status: 'settled', lost: [1], outputs: [] })
    assert.equal((await driver.stats('q')).depth.messages, 0)
  })

  test('they expire by time, then the message is delivered again', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', {})
    await driver.lease('q', { token: 't', leaseMs: 1_000 })
    const waiting = await driver.beginLease('q')
    await driver.advance(999)
    assert.equal(driver.answered.has(waiting), false)
    await driver.advance(1)
    assert.deepEqual(driver.answerTo<Held>(waiting)?.attempts, [2])
  })

  test('one that expired while the process was down is delivered again after it', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', {})
    const old = (await driver.lease('q', { token: 't', leaseMs: 1_000 })) as Held
    driver.nowMs += 2_000
    await driver.restart()
    assert.deepEqual((await driver.lease('q', { token: 't' }))?.attempts, [2])
    assert.deepEqual((await driver.settle(old)).status === 'settled' && (await driver.settle(old)), {
      status: 'settled',
      lost: [0],
      outputs: [],
    })
  })

  test('an extension never makes a hold shorter', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', {})
    const held = (await driver.lease('q', { token: 't', leaseMs: 10_000 })) as Held
    assert.deepEqual(await driver.extend(held, 1), { status: 'extended', expiresAtMs: START_MS + 10_000, lost: [] })
  })

  test('extending often costs no more than extending seldom', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', {})
    const held = (await driver.lease('q', { token: 't', leaseMs: 1_000 })) as Held
    for (let i = 0; i < 500; i++) {
      await driver.advance(10)
      await driver.extend(held, 1_000)
    }
    const before = driver.steps
    for (let i = 0; i < 50; i++) {
      await driver.advance(100)
      await driver.extend(held, 1_000)
    }
    assert.ok(driver.steps - before < 50 + 20, `${driver.steps - before} steps in 5 seconds`)
  })

  test('a lease that expires at the last attempt ends as a dead letter', async () => {
    const driver = await openDriver()
    await driver.queue('q', { attempts: 2 })
    await driver.add('q', {})
    for (let i = 0; i < 2; i++) {
      assert.ok(await driver.lease('q', { token: 't', leaseMs: 10 }))
      await driver.advance(10)
    }
    const job = await driver.job(driver.id('q', 0))
    assert.deepEqual([job.status, job.attempts, job.error], ['failed', 2, 'The lease of attempt 2 expired'])
  })
})

describe('leases of the process (P3, P5)', () => {
  test('they do not expire while it lives', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', {})
    const held = (await driver.lease('q', { leaseMs: 1 })) as Held
    await driver.advance(10_000_000)
    assert.equal(await driver.lease('q'), undefined)
    assert.deepEqual((await driver.settle(held)).status, 'settled')
    assert.equal((await driver.job(driver.id('q', 0))).status, 'completed')
  })

  test('after a crash their messages are handed out alone, after a back-off, while neighbours go on', async () => {
    const driver = await openDriver()
    await driver.queue('q', { backoff: { baseMs: 1_000, factor: 1, maxMs: 1_000 } })
    await driver.add('q', {}, {}, {}, {}, {})
    const held = (await driver.lease('q', { max: 3 })) as Held
    assert.deepEqual(held.offsets, [0, 1, 2])
    await driver.restart()
    assert.deepEqual(await driver.settle(held), { status: 'settled', lost: [0, 1, 2], outputs: [] })
    assert.deepEqual(await drain(driver, 'q'), [3, 4])
    await driver.add('q', {})
    await driver.advance(1_000)
    for (let i = 0; i < 3; i++) {
      const suspect = (await driver.lease('q', { max: 10 })) as Held
      assert.equal(suspect.offsets.length, 1)
      assert.ok((suspect.offsets[0] as number) < 3)
      assert.deepEqual(suspect.attempts, [2])
      assert.equal(await driver.lease('q', { max: 10 }), undefined, 'nothing beside a suspect')
      await driver.settle(suspect)
    }
    assert.deepEqual(await drain(driver, 'q'), [5])
  })

  test('a parked suspect holds nobody up, nor does a lease that it was in before', async () => {
    const driver = await openDriver()
    await driver.queue('q', { backoff: { baseMs: 60_000, factor: 1, maxMs: 60_000 } })
    await driver.add('q', {}, {}, {})
    const both = (await driver.lease('q', { token: 't', max: 2, leaseMs: 600_000 })) as Held
    await driver.settle(part(both, 0), { kind: 'retry', error: 'no', atMs: START_MS })
    assert.deepEqual((await driver.lease('q'))?.offsets, [0])
    await driver.restart()
    await driver.restart()
    assert.deepEqual((await driver.lease('q'))?.offsets, [2])
  })

  test('a message that kills its process every time ends as a dead letter, and its neighbours do not', async () => {
    const driver = await openDriver()
    await driver.queue('q', { attempts: 3, backoff: { baseMs: 10 } })
    await driver.add('q', { payload: '"ok"' }, { payload: '"killer"' }, { payload: '"ok"' })
    const attempts: number[] = []
    for (let round = 0; round < 50; round++) {
      await driver.advance(100)
      const held = await driver.lease('q', { max: 10 })
      if (held === undefined) break
      const at = held.payloads.indexOf('"killer"')
      if (at < 0) await driver.settle(held)
      else {
        attempts.push(held.attempts[at] as number)
        await driver.restart()
      }
    }
    assert.deepEqual(attempts, [1, 2, 3])
    assert.equal((await driver.job(driver.id('q', 1))).status, 'failed')
    for (const offset of [0, 2]) assert.equal((await driver.job(driver.id('q', offset))).status, 'completed')
  })

  test('a crash in the very commit of the hand-out counts as an attempt only if it was kept', async () => {
    for (const kind of ['lost', 'torn', 'kept'] as const) {
      const driver = await openDriver()
      await driver.queue('q', { backoff: { baseMs: 0 } })
      await driver.add('q', {})
      const request = driver.request('lease', {
        topic: 'q',
        group: '',
        max: 1,
        leaseMs: 1,
        waitMs: 0,
        holder: { kind: 'process' },
      })
      await driver.crashAndReopen(kind, [request])
      assert.deepEqual((await driver.lease('q'))?.attempts, [kind === 'kept' ? 2 : 1])
    }
  })

  test('a message stored and handed out in one step has its attempt in that very commit', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    const waiting = await driver.beginLease('q')
    await driver.add('q', {})
    assert.ok(driver.answered.has(waiting))
    const keys = [...(driver.lastCommit?.changes.keys() ?? [])]
    assert.equal(driver.lastCommit?.outputs.length, 1)
    assert.ok(keys.some((key) => key.startsWith('l/')))
  })

  test('a graceful stop gives them back: they count as an attempt, and nobody is a suspect', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', {}, {})
    const held = (await driver.lease('q', { max: 2 })) as Held
    const byToken = driver.request('lease', {
      topic: 'q',
      group: '',
      max: 1,
      leaseMs: 1_000,
      waitMs: 9_999,
      holder: { kind: 'process' },
    })
    await driver.step([byToken, driver.request('stop', null)])
    assert.deepEqual(driver.answerTo(byToken.id), { status: 'empty' })
    await driver.restart()
    const again = (await driver.lease('q', { max: 2 })) as Held
    assert.deepEqual(
      [again.offsets.toSorted(), again.attempts],
      [
        [0, 1],
        [2, 2],
      ],
    )
    assert.ok(again.fence > held.fence)
  })

  test('a release does not count as an attempt against the limit', async () => {
    const driver = await openDriver()
    await driver.queue('q', { attempts: 2, backoff: { baseMs: 0 } })
    await driver.add('q', {})
    for (let i = 1; i <= 5; i++) {
      const held = (await driver.lease('q')) as Held
      assert.deepEqual(held.attempts, [i])
      await driver.settle(held, { kind: 'release' })
    }
    await driver.settle((await driver.lease('q')) as Held, { kind: 'retry', error: 'first' })
    await driver.settle((await driver.lease('q')) as Held, { kind: 'retry', error: 'second' })
    assert.equal((await driver.job(driver.id('q', 0))).status, 'failed')
  })

  test('a crash of a process that left suspects behind in a step that met a full disk does not lose them', async () => {
    const driver = await openDriver()
    await driver.queue('q', { backoff: { baseMs: 10 } })
    await driver.add('q', { payload: '"held"' }, { dueAtMs: START_MS + 5_000 })
    assert.ok(await driver.lease('q'))
    driver.nowMs += 5_000
    driver.medium.full = true
    await driver.restart()
    assert.ok(driver.restores > 0)
    driver.medium.full = false
    await driver.advance(5_000)
    const again = (await driver.lease('q')) as Held
    assert.deepEqual([again.payloads, again.attempts], [['"held"'], [2]])
  })
})

describe('once (P9)', () => {
  const remember = (driver: LedgerDriver, held: Held, name: string, value: string) =>
    driver.command({ kind: 'remember', hold: held, name, value })
  const recall = (driver: LedgerDriver, held: Held, name: string) =>
    driver.command({ kind: 'recall', hold: held, name })

  test('what was kept under a lease is there in later attempts, after a restart too', async () => {
    const driver = await openDriver()
    await driver.queue('q', { backoff: { baseMs: 0 } })
    await driver.add('q', {})
    let held = (await driver.lease('q')) as Held
    assert.deepEqual(await recall(driver, held, 'pay'), { status: 'done' })
    assert.deepEqual(await remember(driver, held, 'pay', '{"id":1}'), { status: 'done' })
    await driver.settle(held, { kind: 'retry', error: 'later' })
    held = (await driver.lease('q')) as Held
    assert.deepEqual(await recall(driver, held, 'pay'), { status: 'done', value: '{"id":1}' })
    await driver.restart()
    held = (await driver.lease('q')) as Held
    assert.deepEqual(await recall(driver, held, 'pay'), { status: 'done', value: '{"id":1}' })
    assert.deepEqual(await recall(driver, held, 'other'), { status: 'done' })
  })

  test('it is forgotten when the job is settled', async () => {
    const driver = await openDriver()
    await driver.queue('q', { backoff: { baseMs: 0 } })
    await driver.add('q', {}, {})
    const held = (await driver.lease('q', { max: 2 })) as Held
    await remember(driver, part(held, 0) as Held, 'a', '1')
    await remember(driver, part(held, 0) as Held, 'b', '2')
    await remember(driver, part(held, 1) as Held, 'a', '3')
    await driver.settle(part(held, 0))
    const kept = driver.medium.journal.length
    assert.ok(kept > 0)
    const log = openMemoryLog(driver.medium)
    assert.equal(log.own().state.range('k/', 'k/\x7f', 10).length, 1)
  })
})
