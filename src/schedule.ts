/** The schedule: jobs that are added by the clock, once for each tick, over any number of processes. */
import type { AppendRequest } from './engine/contract.ts'
import { RESERVED_NAMES } from './engine/options.ts'
import { MAX_SCHEDULED_JOB_BYTES, type ScheduleView } from './engine/schedules.ts'
import { SluiceError } from './errors.ts'
import type { OutputFeed } from './feed.ts'
import type { OutputOptions } from './handler-context.ts'
import type { NounContext } from './noun-context.ts'
import { checkName, checkOptions, createRules, invalidOption, oneOf, text, whole } from './options-check.ts'
import { reservedError } from './outcomes.ts'
import { buildOutputs } from './outputs.ts'
import { encodeJson } from './payload.ts'
import { ScheduleRunner } from './schedule-runner.ts'
import { createTicks, type Missed, type Ticks, type Timing } from './schedule-ticks.ts'
import { OUTPUT_JOB_RULES } from './setting-rules.ts'

/** Headers of a job that a schedule added: whose it is, and its tick in ms since 1970. */
export const SCHEDULE_HEADER = 'sluice-schedule'
export const TICK_HEADER = 'sluice-tick-ms'

const MIN_EVERY_MS = 1_000
const MAX_EVERY_MS = 31_536_000_000

/** When, what becomes of missed ticks, and the options of the jobs. */
export interface ScheduleOptions extends Omit<OutputOptions, 'idempotencyKey' | 'delayMs'> {
  /**
   * Five fields: minute, hour, day of the month, month, day of the week, such as `0 8 * * MON-FRI`; or `@hourly`, `@daily`,
   * `@weekly`, `@monthly`, `@yearly`. One of `cron` and `everyMs` is given.
   */
  readonly cron?: string | undefined
  /** Milliseconds from tick to tick, 1,000 to a year, counted from 1970: 3,600,000 is every full hour of UTC. */
  readonly everyMs?: number | undefined
  /** The time zone of `cron`, such as `Europe/Zurich`. @default 'UTC' */
  readonly timeZone?: string | undefined
  /**
   * What becomes of ticks that nobody could fire within a minute: `skip` drops them, `one` fires once for all of them, as
   * the last one, `all` fires each, oldest first, at most the last 100. @default 'one'
   */
  readonly missed?: Missed | undefined
}

/** What a payload is made for. */
export interface Tick {
  readonly schedule: string
  /** When it is due by the schedule, ms since 1970; it may be made later. */
  readonly atMs: number
}

/** A schedule as it is now. */
export interface ScheduleInfo extends ScheduleOptions {
  readonly queue: string
  readonly name: string
  /** Undefined where processes make it. */
  readonly payload?: unknown
  /** Whether the processes that declared it make its payloads, rather than any that runs schedules. */
  readonly isFromCode: boolean
  readonly createdAtMs: number
  /** The next tick, ms since 1970; null: there is none. */
  readonly nextAtMs: number | null
  /** The last tick that has a job, and the job. */
  readonly firedAtMs: number | null
  readonly jobId: string | null
}

const { idempotencyKey: _key, delayMs: _delay, ...JOB } = OUTPUT_JOB_RULES
export const SCHEDULE_RULES = createRules({
  cron: text(200),
  everyMs: whole(MIN_EVERY_MS, MAX_EVERY_MS),
  timeZone: text(64),
  missed: oneOf(['skip', 'one', 'all']),
  ...(JOB as Parameters<typeof createRules>[0]),
})

/** What is stored of a schedule beside its timing. */
interface StoredJob {
  readonly missed?: Missed
  readonly options: OutputOptions
  readonly isFromCode?: true
  readonly payload?: unknown
}

export class Schedule {
  readonly queue: string
  readonly name: string
  /** Resolves when it is kept; rejects where it cannot be. Need not be awaited: `onError` hears of it, too. */
  readonly ready: Promise<void>
  readonly #context: NounContext
  readonly #ticks: Ticks
  #runner: ScheduleRunner | null = null
  #isClosed = false

  /** Made by `queue.schedule()`. */
  constructor(
    context: NounContext,
    feed: OutputFeed & { readonly name: string },
    name: string,
    options: ScheduleOptions,
    payload: unknown,
  ) {
    checkName(name, 'schedule')
    this.queue = feed.name
    this.name = name
    this.#context = context
    if (context.isClosed()) throw new SluiceError('CLOSED')
    if (feed.name.startsWith(RESERVED_NAMES)) throw reservedError(feed.name)
    const { timing, ticks, job } = readSchedule(options, payload)
    this.#ticks = ticks
    const missed = options.missed ?? 'one'
    const make = typeof payload === 'function' ? (payload as (tick: Tick) => unknown) : (): unknown => payload
    const makeAppend = makeAppends(feed, name, jobOptions(options), make)
    this.ready = this.#declare(timing, job).then((view) => {
      if (this.#isClosed || context.isClosed()) return
      this.#runner = new ScheduleRunner(context, { queue: feed.name, name, ticks, missed, timing, makeAppend }, view)
    })
    this.ready.catch((error: unknown) => context.report(error))
  }

  /** The next tick after now, ms since 1970; null: there is none. */
  get nextAtMs(): number | null {
    return this.#ticks.after(this.#context.engineNow())
  }

  /** Fires no more from this process. The schedule stays, and others go on. */
  async close(): Promise<void> {
    this.#isClosed = true
    await this.ready.catch(() => {})
    await this.#runner?.close()
  }

  /** Removes the schedule, for all processes. Jobs that it has added go on. */
  async remove(): Promise<void> {
    await this.close()
    await removeSchedule(this.#context, this.queue, this.name)
  }

  async #declare(timing: string, job: string): Promise<ScheduleView> {
    return keepSchedule(this.#context, { queue: this.queue, name: this.name, timing, job })
  }
}

/** Checks a schedule and gives what is stored of it. Throws `INVALID_OPTION`, `INVALID_PAYLOAD`, `PAYLOAD_TOO_LARGE`. */
export function readSchedule(
  options: ScheduleOptions,
  payload: unknown,
): { readonly timing: string; readonly ticks: Ticks; readonly job: string } {
  checkOptions(options ?? {}, SCHEDULE_RULES, 'queue.schedule()')
  const { cron, everyMs, timeZone, missed } = options ?? {}
  const timing: Timing = { cron, everyMs, timeZone }
  const ticks = createTicks(timing)
  const isFromCode = typeof payload === 'function'
  if (payload instanceof Uint8Array)
    throw invalidOption('the payload', payload, 'JSON, or a function that makes bytes at each tick')
  const stored: StoredJob = {
    ...(missed === undefined ? {} : { missed }),
    options: jobOptions(options),
    ...(isFromCode ? { isFromCode } : { payload }),
  }
  const job = encodeJson(stored, 'The payload of a schedule')
  if (!isFromCode && payload === undefined) throw invalidOption('the payload', undefined, 'given')
  const bytes = Buffer.byteLength(job)
  if (bytes > MAX_SCHEDULED_JOB_BYTES)
    throw new SluiceError(
      'PAYLOAD_TOO_LARGE',
      `What is stored of a schedule has ${bytes} bytes; it may have ${MAX_SCHEDULED_JOB_BYTES}. Make the payload by a function, or send the address of what is large.`,
      { bytes, limit: MAX_SCHEDULED_JOB_BYTES },
    )
  return { timing: JSON.stringify(timing), ticks, job }
}

/**
 * Checks what a Sluice on another machine wants to have stored: exactly what `readSchedule` makes there. Anything else would
 * be met by every process that lists or fires schedules. Throws as that does.
 */
export function checkStoredSchedule({ timing, job }: Pick<ScheduleView, 'timing' | 'job'>): void {
  const { missed, options, isFromCode, payload } = parseObject<StoredJob>(job)
  const made = readSchedule(
    { ...parseObject<Timing>(timing), ...(options ?? {}), missed },
    isFromCode === true ? (): unknown => undefined : payload,
  )
  if (made.timing !== timing || made.job !== job)
    throw invalidOption('schedule', '(not shown)', 'as queue.schedule() writes it')
}

function jobOptions({ cron: _c, everyMs: _e, timeZone: _t, missed: _m, ...rest }: ScheduleOptions): OutputOptions {
  return rest
}

/** The job of a tick, as the queue takes it: validated, with whose it is. */
export function makeAppends(
  feed: OutputFeed & { readonly name: string },
  schedule: string,
  options: OutputOptions,
  make: (tick: Tick) => unknown,
): (tickMs: number) => Promise<AppendRequest> {
  return async (atMs) => {
    const { topic, message } = await feed.makeOutput(await make({ schedule, atMs }), options)
    const headers = { ...message.headers, [SCHEDULE_HEADER]: schedule, [TICK_HEADER]: String(atMs) }
    const [append] = buildOutputs([{ topic, message: { ...message, headers } }])
    return append as AppendRequest
  }
}

export async function keepSchedule(
  { engine }: Pick<NounContext, 'engine'>,
  schedule: Pick<ScheduleView, 'queue' | 'name' | 'timing' | 'job'>,
): Promise<ScheduleView> {
  const outcome = await engine.command({ kind: 'schedule', ...schedule })
  if (outcome.status === 'schedule') return outcome.schedule
  throw new SluiceError('UNKNOWN')
}

export async function removeSchedule(
  { engine }: Pick<NounContext, 'engine'>,
  queue: string,
  name: string,
): Promise<boolean> {
  checkName(name, 'schedule')
  return (await engine.command({ kind: 'unschedule', queue, name })).status === 'done'
}

export async function listSchedules(
  { engine, engineNow }: Pick<NounContext, 'engine' | 'engineNow'>,
  queue?: string,
): Promise<readonly ScheduleInfo[]> {
  const outcome = await engine.command({ kind: 'schedules', queue })
  return outcome.status === 'schedules' ? outcome.schedules.map((view) => readView(view, engineNow())) : []
}

export function readView(view: ScheduleView, nowMs: number): ScheduleInfo {
  const { queue, name, createdAtMs, doneMs, firedMs, jobId } = view
  const timing = parseObject<Timing>(view.timing)
  const { missed = 'one', options, isFromCode = false, payload } = readStoredJob(view)
  return {
    queue,
    name,
    ...timing,
    missed,
    ...options,
    ...(isFromCode ? {} : { payload }),
    isFromCode,
    createdAtMs,
    nextAtMs: nextOf(timing, Math.max(doneMs, nowMs)),
    firedAtMs: firedMs,
    jobId,
  }
}

export function readStoredJob({ job }: ScheduleView): StoredJob {
  const { options = {}, ...rest } = parseObject<StoredJob>(job)
  return { ...rest, options }
}

/** What is no object is one without members: a row that nobody can read must not keep the others from being read. */
function parseObject<T extends object>(json: string): Partial<T> {
  const value: unknown = JSON.parse(json)
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : {}
}

/** What another release stored may be more than this one reads; then nobody here knows when it fires. */
function nextOf(timing: Timing, afterMs: number): number | null {
  try {
    return createTicks(timing).after(afterMs)
  } catch {
    return null
  }
}
