/**
 * The ticks of a schedule: when it fires. Pure, over croner.
 *
 * Cron has five fields, minute to day of the week, and the names of croner (`MON`, `L`, `#2`, `@daily`). In a time zone
 * with summer time, a time of day that the clock leaps over fires once, at the end of the gap, and one that comes twice
 * fires at the first; a cron of intervals (`0,30 * * * *`) goes by real time and knows neither. `everyMs` counts from 1970,
 * so that every process has the same ticks: 3,600,000 is every full hour of UTC.
 */
import { Cron } from 'croner'
import { invalidOption } from './options-check.ts'

/** Behind it nothing is looked for: the year 255,000. */
const LAST_MS = 8e15

export interface Timing {
  readonly cron?: string | undefined
  readonly everyMs?: number | undefined
  readonly timeZone?: string | undefined
}

export interface Ticks {
  /** The first after `ms`; null: there is none. */
  after(ms: number): number | null
  /** The last ticks up to `nowMs` that are after `afterMs`, at most `count`, ascending. */
  last(count: number, nowMs: number, afterMs: number): number[]
}

/** Throws `INVALID_OPTION`. */
export function createTicks({ cron, everyMs, timeZone }: Timing): Ticks {
  if ((cron === undefined) === (everyMs === undefined))
    throw invalidOption('cron', cron, 'given, or everyMs, and not both')
  if (everyMs !== undefined) {
    if (timeZone !== undefined) throw invalidOption('timeZone', timeZone, 'left out beside everyMs: it goes by UTC')
    return intervalTicks(everyMs)
  }
  return cronTicks(cron as string, timeZone ?? 'UTC')
}

function intervalTicks(everyMs: number): Ticks {
  return {
    after: (ms) => (Math.floor(ms / everyMs) + 1) * everyMs,
    last(count, nowMs, afterMs) {
      const newest = Math.floor(nowMs / everyMs)
      const oldest = Math.max(newest - count + 1, Math.floor(afterMs / everyMs) + 1)
      return Array.from({ length: Math.max(0, newest - oldest + 1) }, (_, i) => (oldest + i) * everyMs)
    },
  }
}

function cronTicks(cron: string, timeZone: string): Ticks {
  try {
    new Intl.DateTimeFormat('en', { timeZone })
  } catch {
    throw invalidOption('timeZone', timeZone, 'a time zone by its name, such as Europe/Zurich or UTC')
  }
  let pattern: Cron
  try {
    pattern = new Cron(cron, { paused: true, mode: '5-part', timezone: timeZone })
  } catch (error) {
    const why = (error as Error).message.replace(/^CronPattern: /, '')
    throw invalidOption('cron', cron, `five fields, such as '0 8 * * MON-FRI': ${why}`)
  }
  return {
    // Near the end of what a `Date` can be the pattern would throw rather than say that there is none.
    after: (ms) => (ms > LAST_MS ? null : (pattern.nextRun(new Date(ms))?.getTime() ?? null)),
    last(count, nowMs, afterMs) {
      // Asked for from a second later, since the reference itself does not count.
      return pattern
        .previousRuns(count + 1, new Date(nowMs + 1_000))
        .map((tick) => tick.getTime())
        .filter((ms) => ms <= nowMs && ms > afterMs)
        .slice(0, count)
        .reverse()
    },
  }
}

/** What happens to ticks that nobody fired in time. */
export type Missed = 'skip' | 'one' | 'all'

/** The most missed ticks that `all` fires. The oldest are given up. */
export const MAX_MISSED = 100
/** A tick that is fired within this time is not late. */
export const ON_TIME_MS = 60_000

export type Plan =
  /** Nothing is due before `untilMs`; null: ever. */
  | { readonly kind: 'wait'; readonly untilMs: number | null }
  /** The next tick to deal with: by a job, or passed over with all before it. */
  | { readonly kind: 'fire'; readonly atMs: number; readonly hasJob: boolean }

/** What to do with a schedule whose ticks up to `doneMs` are dealt with. */
export function planTick(ticks: Ticks, missed: Missed, doneMs: number, nowMs: number): Plan {
  const next = ticks.after(doneMs)
  if (next === null || next > nowMs) return { kind: 'wait', untilMs: next }
  const due = ticks.last(missed === 'all' ? MAX_MISSED : 1, nowMs, doneMs)
  const atMs = due[0] ?? next
  return { kind: 'fire', atMs, hasJob: missed !== 'skip' || nowMs - atMs <= ON_TIME_MS }
}
