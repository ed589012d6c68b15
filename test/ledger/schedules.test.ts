import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import type { CommandOutcome } from '../../src/engine/contract.ts'
import { MAX_SCHEDULES, type ScheduleView } from '../../src/engine/schedules.ts'
import { type LedgerDriver, openDriver, START_MS, toAppend } from '../support/ledger-driver.ts'

const TIMING = '{"everyMs":1000}'

async function keep(driver: LedgerDriver, name = 's', timing = TIMING, job = '{}'): Promise<ScheduleView> {
  const outcome = await driver.command({ kind: 'schedule', queue: 'q', name, timing, job })
  assert.ok(outcome.status === 'schedule')
  return outcome.schedule
}

function fireCommand(view: ScheduleView, toMs: number, hasJob = true) {
  const { queue, name, revision, doneMs: fromMs } = view
  const append = hasJob ? toAppend('q', [{}]) : null
  return { kind: 'fire', queue, name, revision, fromMs, toMs, append } as const
}

async function only(driver: LedgerDriver): Promise<ScheduleView> {
  const outcome = await driver.command({ kind: 'schedules' })
  assert.ok(outcome.status === 'schedules' && outcome.schedules.length === 1)
  return outcome.schedules[0] as ScheduleView
}

describe('schedules in the ledger (P8)', () => {
  test('of many who fire a tick one stores its job, and the others learn where it stands', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    const view = await keep(driver)
    const commands = Array.from({ length: 5 }, () => driver.request('command', fireCommand(view, START_MS + 1_000)))
    await driver.step(commands)
    const outcomes = commands.map(({ id }) => driver.answerTo<CommandOutcome>(id) as CommandOutcome)
    assert.deepEqual(outcomes[0], { status: 'done', ids: [driver.id('q', 0)] })
    for (const outcome of outcomes.slice(1)) {
      assert.ok(outcome.status === 'schedule')
      assert.equal(outcome.schedule.doneMs, START_MS + 1_000)
      assert.equal(outcome.schedule.jobId, driver.id('q', 0))
    }
    assert.equal((await driver.stats('q')).head, 1)
    assert.equal((await driver.command(fireCommand(view, START_MS + 1_000))).status, 'schedule', 'and for good')
  })

  for (const kind of ['lost', 'torn', 'kept'] as const) {
    test(`a process that dies in the commit of a firing (${kind}) has moved the schedule and stored its job, or neither`, async () => {
      const driver = await openDriver()
      await driver.queue('q')
      const view = await keep(driver)
      await driver.crashAndReopen(kind, [driver.request('command', fireCommand(view, START_MS + 1_000))])
      const after = await only(driver)
      const isKept = kind === 'kept'
      assert.equal(after.doneMs, isKept ? START_MS + 1_000 : START_MS)
      assert.equal(after.firedMs, isKept ? START_MS + 1_000 : null)
      assert.equal((await driver.stats('q')).head, isKept ? 1 : 0)
      assert.equal((await driver.command(fireCommand(view, START_MS + 1_000))).status, isKept ? 'schedule' : 'done')
      assert.equal((await driver.stats('q')).head, 1)
    })
  }

  test('a full queue refuses a firing, which has no effect and can be tried again', async () => {
    const driver = await openDriver()
    await driver.queue('q', { limit: { messages: 0 } })
    const view = await keep(driver)
    assert.equal((await driver.command(fireCommand(view, START_MS + 1_000))).status, 'full')
    assert.equal((await only(driver)).doneMs, START_MS)
    await driver.queue('q', { limit: { messages: 5 } })
    assert.equal((await driver.command(fireCommand(view, START_MS + 1_000))).status, 'done')
  })

  test('a tick that is passed over moves the schedule without a job', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    const view = await keep(driver)
    assert.deepEqual(await driver.command(fireCommand(view, START_MS + 1_000, false)), { status: 'done' })
    const { doneMs, firedMs, jobId } = await only(driver)
    assert.deepEqual([doneMs, firedMs, jobId], [START_MS + 1_000, null, null])
    assert.equal((await driver.stats('q')).head, 0)
  })

  test('kept again it stays as it is; another job keeps its place, another timing begins anew', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    const first = await keep(driver)
    await driver.command(fireCommand(first, START_MS + 1_000))
    await driver.advance(5_000)
    assert.deepEqual([(await keep(driver)).revision, (await only(driver)).doneMs], [1, START_MS + 1_000])
    const other = await keep(driver, 's', TIMING, '{"n":1}')
    assert.deepEqual([other.revision, other.doneMs], [2, START_MS + 1_000])
    assert.equal(
      (await driver.command(fireCommand(first, START_MS + 2_000))).status,
      'schedule',
      'an old one fires no more',
    )
    const moved = await keep(driver, 's', '{"everyMs":2000}', '{"n":1}')
    assert.deepEqual([moved.revision, moved.doneMs, moved.firedMs], [3, START_MS + 5_000, START_MS + 1_000])
    await driver.restart()
    assert.deepEqual(await only(driver), moved)
  })

  test('whoever asks with the version that they know hears only of changes', async () => {
    const driver = await openDriver()
    const none = await driver.command({ kind: 'schedules' })
    assert.ok(none.status === 'schedules' && none.version === 0)
    await keep(driver)
    const one = await driver.command({ kind: 'schedules', knownVersion: 0 })
    assert.ok(one.status === 'schedules' && one.schedules.length === 1)
    await keep(driver)
    assert.equal((await driver.command({ kind: 'schedules', knownVersion: one.version })).status, 'done')
    assert.equal((await driver.command({ kind: 'unschedule', queue: 'q', name: 's' })).status, 'done')
    assert.equal((await driver.command({ kind: 'unschedule', queue: 'q', name: 's' })).status, 'not-found')
    const after = await driver.command({ kind: 'schedules', knownVersion: one.version })
    assert.ok(after.status === 'schedules' && after.schedules.length === 0)
  })

  test('schedules are bounded, and none is kept for a queue of Sluice', async () => {
    const driver = await openDriver()
    for (let i = 0; i < MAX_SCHEDULES; i++) await keep(driver, `s${i}`)
    const more = await driver.begin('command', { kind: 'schedule', queue: 'q', name: 'x', timing: TIMING, job: '{}' })
    assert.throws(() => driver.answerTo(more), /UNSUPPORTED/)
    await keep(driver, 's7', '{"everyMs":5000}')
    const own = await driver.begin('command', {
      kind: 'schedule',
      queue: 'sluice.callbacks',
      name: 'x',
      timing: TIMING,
      job: '{}',
    })
    assert.throws(() => driver.answerTo(own), /UNSUPPORTED/)
  })

  test('nothing is fired into another queue, or one that is not there', async () => {
    const driver = await openDriver()
    const view = await keep(driver)
    await driver.queue('other')
    for (const append of [toAppend('q', [{}]), toAppend('other', [{}])]) {
      const id = await driver.begin('command', { ...fireCommand(view, START_MS + 1_000), append })
      assert.throws(() => driver.answerTo(id), /QUEUE_NOT_FOUND/)
    }
    assert.equal((await driver.stats('other')).head, 0)
    assert.equal((await only(driver)).doneMs, START_MS)
  })
})
