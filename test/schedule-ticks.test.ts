import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { isSluiceError } from '../src/errors.ts'
import { createTicks, MAX_MISSED, ON_TIME_MS, planTick, type Timing } from '../src/schedule-ticks.ts'

const ZURICH = 'Europe/Zurich'

function ticksFrom(timing: Timing, from: string, count: number): string[] {
  const ticks = createTicks(timing)
  const found: string[] = []
  for (let ms: number | null = Date.parse(from); found.length < count; ) {
    ms = ticks.after(ms)
    if (ms === null) break
    found.push(new Date(ms).toISOString())
  }
  return found
}

describe('the ticks of a schedule', () => {
  test('a time of day is that of its time zone, in summer and in winter', () => {
    assert.deepEqual(ticksFrom({ cron: '0 8 * * *', timeZone: ZURICH }, '2026-03-28T00:00:00Z', 2), [
      '2026-03-28T07:00:00.000Z',
      '2026-03-29T06:00:00.000Z',
    ])
    assert.deepEqual(ticksFrom({ cron: '0 8 * * *' }, '2026-03-28T00:00:00Z', 2), [
      '2026-03-28T08:00:00.000Z',
      '2026-03-29T08:00:00.000Z',
    ])
    assert.deepEqual(ticksFrom({ cron: '30 9 * * MON-FRI', timeZone: 'America/New_York' }, '2026-07-03T00:00:00Z', 2), [
      '2026-07-03T13:30:00.000Z',
      '2026-07-06T13:30:00.000Z',
    ])
  })

  test('a time of day that the clock leaps over fires once, at the end of the gap', () => {
    assert.deepEqual(ticksFrom({ cron: '30 2 * * *', timeZone: ZURICH }, '2026-03-28T12:00:00Z', 2), [
      '2026-03-29T01:00:00.000Z',
      '2026-03-30T00:30:00.000Z',
    ])
  })

  test('a time of day that comes twice fires once, at the first', () => {
    assert.deepEqual(ticksFrom({ cron: '30 2 * * *', timeZone: ZURICH }, '2026-10-24T12:00:00Z', 2), [
      '2026-10-25T00:30:00.000Z',
      '2026-10-26T01:30:00.000Z',
    ])
  })

  test('a cron of intervals goes by real time through a gap and through an hour that comes twice', () => {
    for (const from of ['2026-03-29T00:00:00Z', '2026-10-25T00:00:00Z']) {
      const times = ticksFrom({ cron: '*/30 * * * *', timeZone: ZURICH }, from, 8).map((text) => Date.parse(text))
      assert.deepEqual(
        times,
        times.map((_, i) => Date.parse(from) + (i + 1) * 1_800_000),
      )
    }
  })

  test('an interval counts from 1970, so that all processes have the same ticks', () => {
    assert.deepEqual(ticksFrom({ everyMs: 3_600_000 }, '2026-01-01T00:20:00Z', 2), [
      '2026-01-01T01:00:00.000Z',
      '2026-01-01T02:00:00.000Z',
    ])
  })

  test('the last ticks are those that come one after the other, in any time zone', () => {
    const crons = ['* * * * *', '*/7 * * * *', '30 2 * * *', '0 0 1 * *', '15 3 * * SUN', '0 */5 * * *', '@hourly']
    const zones = ['UTC', ZURICH, 'America/New_York', 'Australia/Lord_Howe', 'Asia/Kathmandu', 'Africa/Cairo']
    fc.assert(
      fc.property(
        fc.oneof(
          fc.record({ cron: fc.constantFrom(...crons), timeZone: fc.constantFrom(...zones) }),
          fc.record({ everyMs: fc.integer({ min: 1_000, max: 100_000_000 }) }),
        ),
        fc.integer({ min: 1_740_000_000_000, max: 1_800_000_000_000 }),
        fc.integer({ min: 1, max: 12 }),
        (timing: Timing, startMs, count) => {
          const ticks = createTicks(timing)
          const walked: number[] = []
          for (let ms: number | null = startMs; walked.length < 12; walked.push(ms)) {
            ms = ticks.after(ms)
            assert.ok(ms !== null)
          }
          assert.ok(walked.every((ms, i) => ms > (walked[i - 1] ?? startMs)))
          const nowMs = walked.at(-1) as number
          assert.deepEqual(ticks.last(count, nowMs, startMs), walked.slice(-count))
          assert.deepEqual(ticks.last(count, nowMs - 1, startMs), walked.slice(0, -1).slice(-count))
          assert.deepEqual(ticks.last(100, nowMs, walked[5] as number), walked.slice(6))
        },
      ),
      { numRuns: 150 },
    )
  })

  test('there is none at the end of time, rather than a failure', () => {
    for (const ms of [8.64e15, 8.63e15, Number.MAX_VALUE])
      assert.equal(createTicks({ cron: '* * * * *', timeZone: 'Europe/Zurich' }).after(ms), null)
  })

  test('what is no schedule is refused, with why', () => {
    const bad: [Timing, RegExp][] = [
      [{}, /everyMs/],
      [{ cron: '* * * * *', everyMs: 1_000 }, /not both/],
      [{ cron: '* * * * * *' }, /five fields/],
      [{ cron: '61 * * * *' }, /minute/],
      [{ cron: 'whenever' }, /five fields/],
      [{ cron: '0 8 * * *', timeZone: 'Mars/Olympus' }, /time zone/],
      [{ everyMs: 1_000, timeZone: ZURICH }, /UTC/],
    ]
    for (const [timing, why] of bad)
      assert.throws(
        () => createTicks(timing),
        (error) => isSluiceError(error, 'INVALID_OPTION') && why.test(error.message),
        JSON.stringify(timing),
      )
    assert.equal(createTicks({ cron: '0 0 30 2 *' }).after(0), null)
  })
})

describe('missed ticks', () => {
  const ticks = createTicks({ everyMs: 60_000 })
  const start = 1_800_000_000_000

  test('nothing is due before the next tick, and a tick is due at its time', () => {
    assert.deepEqual(planTick(ticks, 'one', start, start + 59_999), { kind: 'wait', untilMs: start + 60_000 })
    for (const missed of ['skip', 'one', 'all'] as const)
      assert.deepEqual(planTick(ticks, missed, start, start + 60_000), {
        kind: 'fire',
        atMs: start + 60_000,
        hasJob: true,
      })
  })

  test('one fires once, as the last; all fires each; skip passes over what is late and keeps what is not', () => {
    const nowMs = start + 10 * 60_000 + 500
    assert.deepEqual(planTick(ticks, 'one', start, nowMs), { kind: 'fire', atMs: start + 600_000, hasJob: true })
    assert.deepEqual(planTick(ticks, 'skip', start, nowMs), { kind: 'fire', atMs: start + 600_000, hasJob: true })
    let doneMs = start
    const fired: number[] = []
    for (
      let plan = planTick(ticks, 'all', doneMs, nowMs);
      plan.kind === 'fire';
      plan = planTick(ticks, 'all', doneMs, nowMs)
    ) {
      fired.push(plan.atMs)
      doneMs = plan.atMs
    }
    assert.deepEqual(
      fired,
      Array.from({ length: 10 }, (_, i) => start + (i + 1) * 60_000),
    )
    const hourly = createTicks({ everyMs: 3_600_000 })
    const lateMs = start + 3_600_000 + ON_TIME_MS + 1
    assert.deepEqual(planTick(hourly, 'skip', start, lateMs), { kind: 'fire', atMs: start + 3_600_000, hasJob: false })
    assert.deepEqual(planTick(hourly, 'skip', start, lateMs - 1), {
      kind: 'fire',
      atMs: start + 3_600_000,
      hasJob: true,
    })
  })

  test('all gives up the oldest beyond its bound', () => {
    const nowMs = start + 1_000 * 60_000
    assert.deepEqual(planTick(ticks, 'all', start, nowMs), {
      kind: 'fire',
      atMs: nowMs - (MAX_MISSED - 1) * 60_000,
      hasJob: true,
    })
  })
})
