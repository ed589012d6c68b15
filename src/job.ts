/** Jobs as whoever added them, or has their id, sees them: status, result, cancel. */
import { pause } from './deadline.ts'
import type { FindOutcome, JobStatus, JobView, StoredPlace, StoreReceipt, WaitReason } from './engine/contract.ts'
import { isSluiceError, isTransient, SluiceError } from './errors.ts'
import { describeWaits } from './explaining.ts'
import { INSPECT, type Inspect, inspectAs } from './inspecting.ts'
import { formatJobId, formatScheduledJobId } from './job-id.ts'
import type { NounContext } from './noun-context.ts'
import { abortSignal, checkOptions, createRules, duration } from './options-check.ts'
import { backoffMs } from './policy/retry.ts'

/** What an engine keeps of a job at most in one wait; longer waits ask again. */
const LONG_POLL_MS = 20_000
const DEFAULT_RESULT_TIMEOUT_MS = 30_000
const WATCH_BACKOFF = { baseMs: 50, factor: 2, maxMs: 2_000 }
const MIN_PAUSE_MS = 20
const RESULT_RULES = createRules({ timeoutMs: duration(0), signal: abortSignal })

/** A job as it is now. `result` and `progress` are values; the engine's own view has them as JSON text. */
export interface JobInfo<R = unknown> {
  readonly id: string
  readonly queue: string
  readonly status: JobStatus
  /** Attempts begun. */
  readonly attempts: number
  /** Rises with each change of the attempt, the status or the progress (P10). */
  readonly version: number
  /** When it was stored, or accepted for later; ms since 1970. */
  readonly createdAtMs: number
  /** When a scheduled or retrying job is due. */
  readonly dueAtMs?: number | undefined
  /** What the handler returned; undefined: nothing, or not yet. */
  readonly result?: R | undefined
  /** Of the last attempt that failed. */
  readonly error?: string | undefined
  /** What the handler reported last, while it runs. */
  readonly progress?: unknown
  /** The job that this one was made of by `redrive`. */
  readonly redriveOf?: string | undefined
}

export interface ResultOptions {
  /**
   * The longest wait in milliseconds; then `DEADLINE`. 0 asks once. @default 30_000
   */
  readonly timeoutMs?: number | undefined
  /** Ends the wait; the call rejects with the signal's reason and the job goes on. */
  readonly signal?: AbortSignal | undefined
}

/** What an acknowledgement says (P1). */
export interface Receipt {
  readonly partition: number
  /** The message's place; null for a job that has none before it is due. */
  readonly offset: number | null
  /** Survives: nothing (`memory`), a killed process (`os`), a power cut (`disk`). */
  readonly durability: StoreReceipt['durability']
  /** On how many machines. */
  readonly copies: number
  /** When it was stored, ms since 1970. */
  readonly timestampMs: number
  /** P8: whether an earlier message of the same idempotency key is meant, and nothing was stored now. */
  readonly duplicate: boolean
}

/** A job as it is now, and why it waits. */
export interface Explained<R = unknown> {
  readonly job: JobInfo<R>
  /** Why it has not begun, the reason that tells most first; empty for a job that runs or has ended. */
  readonly waits: readonly WaitReason[]
  /** The same as a sentence, for people. */
  readonly why: string
}

/** One job, by its id. */
export class Job<R = unknown> {
  readonly #context: NounContext
  readonly #id: string

  constructor(context: NounContext, id: string) {
    this.#context = context
    this.#id = id
  }

  /** The only name of a job that leaves Sluice, the same in every process. */
  get id(): string {
    return this.#id
  }

  get queue(): string {
    const { id } = this
    return id.slice(0, id.indexOf(':'))
  }

  /** How the job is now. Rejects with `JOB_NOT_FOUND` once retention has dropped it. */
  async status(): Promise<JobInfo<R>> {
    return readInfo(await findJob(this.#context, this.id))
  }

  /**
   * Why the job waits: until when it is delayed, behind which job of its key, its place in line, or that nobody works on
   * the queue. Said from what is known now, without a wait.
   */
  async explain(): Promise<Explained<R>> {
    const { engine, engineNow } = this.#context
    const outcome = await engine.command({ kind: 'explain', id: this.id })
    if (outcome.status !== 'explained') throw jobNotFoundError(this.id)
    const { job, waits } = outcome
    return { job: readInfo(job), waits, why: describeWaits(job.status, waits, engineNow()) }
  }

  /**
   * Waits for the result. Rejects with `JOB_FAILED`, `JOB_CANCELLED`, `JOB_EXPIRED`, `JOB_NOT_FOUND`, or `DEADLINE`
   * when the wait is over, and `CLOSED` when Sluice is; the job goes on then, and can be asked for again by its id, which
   * is in the details.
   */
  async result(options: ResultOptions = {}): Promise<R> {
    checkOptions(options, RESULT_RULES, 'job.result()')
    const { timeoutMs = DEFAULT_RESULT_TIMEOUT_MS, signal } = options
    const view = await waitForEnd(this.#context, this.id, this.#context.host.now() + timeoutMs, signal)
    return takeResult(view, timeoutMs)
  }

  /**
   * Ends the job. If it runs, its handler's signal aborts and nothing that it does has an effect any more. Cancelling
   * twice is the same as once; a job that ended otherwise rejects with `JOB_SETTLED`.
   */
  cancel(): Promise<void> {
    return cancelJob(this.#context, this.id)
  }

  /** What a log or an answer shows of it. */
  toJSON(): Record<string, unknown> {
    return { id: this.id, queue: this.queue }
  }

  [INSPECT](_depth: number, options: object, inspect: Inspect): string {
    return inspectAs('Job', this.toJSON(), options, inspect)
  }
}

/** A job just added: what `add` answers. Small, since there is one for each message: the id is written when asked for. */
export class AddedJob<R = unknown> extends Job<R> {
  readonly #source: JobSource
  readonly #place: number | StoredPlace
  readonly #receipt: StoreReceipt
  /** P8: whether the job is an earlier one of the same idempotency key. */
  readonly duplicate: boolean

  constructor(
    context: NounContext,
    source: JobSource,
    place: number | StoredPlace,
    receipt: StoreReceipt,
    isDuplicate: boolean,
  ) {
    super(context, '')
    this.#source = source
    this.#place = place
    this.#receipt = receipt
    this.duplicate = isDuplicate
  }

  override get id(): string {
    const place = this.#place
    const { name, tag } = this.#source
    if (typeof place === 'number') return formatJobId(name, tag, place, this.#receipt.partition)
    if (place.kind === 'offset') return formatJobId(name, tag, place.offset, place.partition)
    return formatScheduledJobId(name, tag, place.dueMs, place.serial)
  }

  /** What was reached when it was stored (P1). */
  get receipt(): Receipt {
    return makeReceipt(this.#place, this.#receipt, this.duplicate)
  }

  override toJSON(): Record<string, unknown> {
    return { id: this.id, queue: this.queue, duplicate: this.duplicate }
  }
}

/** What ids of a queue's jobs are made of. */
export interface JobSource {
  readonly name: string
  readonly tag: string
}

export function makeReceipt(place: number | StoredPlace, receipt: StoreReceipt, duplicate: boolean): Receipt {
  const { durability, copies, timestampMs } = receipt
  if (typeof place === 'number')
    return { partition: receipt.partition, offset: place, durability, copies, timestampMs, duplicate }
  if (place.kind === 'offset')
    return { partition: place.partition, offset: place.offset, durability, copies, timestampMs, duplicate }
  return { partition: receipt.partition, offset: null, durability, copies, timestampMs, duplicate }
}

export function isTerminal({ status }: { readonly status: JobStatus }): boolean {
  return status === 'completed' || status === 'failed' || status === 'cancelled' || status === 'expired'
}

export function readInfo<R>(view: JobView): JobInfo<R> {
  const { result, progress, ...rest } = view
  return {
    ...rest,
    ...(result === undefined ? {} : { result: JSON.parse(result) as R }),
    ...(progress === undefined ? {} : { progress: JSON.parse(progress) as unknown }),
  }
}

export async function findJob({ engine }: NounContext, id: string): Promise<JobView> {
  const [outcome] = await engine.find([id])
  if (outcome?.status !== 'found') throw jobNotFoundError(id)
  return outcome.job
}

/** The job as it is after a wait for its end. */
export function findEnd(context: NounContext, id: string): Promise<JobView> {
  return findJob(context, id).catch((error: unknown) => {
    throw namingJob(context, id, error)
  })
}

/** The job once it has ended, or as it is at `untilMs` (P10: every wait ends). */
export function waitForEnd(context: NounContext, id: string, untilMs: number, signal?: AbortSignal): Promise<JobView> {
  return watchUntilEnd(context, id, untilMs, signal).catch((error: unknown) => {
    throw namingJob(context, id, error)
  })
}

/** Whoever waited when Sluice was closed must know what to ask for later. */
function namingJob({ engine }: NounContext, id: string, error: unknown): unknown {
  if (!isSluiceError(error, 'CLOSED')) return error
  const fate =
    engine.abilities.durability === 'memory'
      ? 'Memory keeps it no longer.'
      : 'The job is stored and goes on when Sluice is opened again: ask for it by its id.'
  return new SluiceError('CLOSED', `Sluice was closed while job ${id} was waited for. ${fate}`, { id }, error)
}

async function watchUntilEnd(
  context: NounContext,
  id: string,
  untilMs: number,
  signal?: AbortSignal,
): Promise<JobView> {
  const { engine, host } = context
  for (let failures = 0; ; ) {
    signal?.throwIfAborted()
    const leftMs = Math.max(0, untilMs - host.now())
    const request = { id, version: 0, untilTerminal: true, waitMs: Math.min(leftMs, LONG_POLL_MS) }
    let outcome: FindOutcome
    try {
      outcome = await engine.watch(request, signal)
      failures = 0
    } catch (error) {
      // An engine that cannot be reached for a while may be there again before the wait is over.
      if (!isTransient(error) || host.now() >= untilMs) throw error
      await pause(
        host,
        Math.min(backoffMs(WATCH_BACKOFF, ++failures, host.random()) + MIN_PAUSE_MS, untilMs - host.now()),
        signal,
      )
      continue
    }
    if (outcome.status === 'not-found') throw jobNotFoundError(id)
    if (isTerminal(outcome.job)) return outcome.job
    signal?.throwIfAborted()
    if (host.now() >= untilMs) return outcome.job
  }
}

/** The result of a job that has ended well, else the error that says how it stands. */
export function takeResult<R>(view: JobView, timeoutMs: number): R {
  const { id, status, attempts, error } = view
  switch (status) {
    case 'completed':
      return (view.result === undefined ? undefined : JSON.parse(view.result)) as R
    case 'failed':
      throw new SluiceError('JOB_FAILED', `Job ${id} failed in attempt ${attempts}: ${error}`, {
        id,
        attempts,
        error,
      })
    case 'cancelled':
      throw new SluiceError('JOB_CANCELLED', `Job ${id} was cancelled.`, { id, attempts })
    case 'expired':
      throw new SluiceError('JOB_EXPIRED', `Job ${id} was not started before its deadline and will not be.`, { id })
    default:
      throw new SluiceError(
        'DEADLINE',
        `Job ${id} is ${status} after ${timeoutMs} ms. It goes on: ask for it by its id, or cancel it.`,
        { id, status, timeoutMs },
      )
  }
}

/** Of a job that was stored, by an engine that has not answered since. */
export function unansweredError(id: string, timeoutMs: number): SluiceError {
  return new SluiceError(
    'DEADLINE',
    `How job ${id} stands after ${timeoutMs} ms is not known: the engine does not answer. Ask for it by its id.`,
    { id, timeoutMs },
  )
}

export async function cancelJob(context: NounContext, id: string): Promise<void> {
  const outcome = await context.engine.command({ kind: 'cancel', id })
  if (outcome.status === 'not-found') throw jobNotFoundError(id)
  if (outcome.status === 'terminal' && outcome.job.status !== 'cancelled') {
    const { status } = outcome.job
    throw new SluiceError('JOB_SETTLED', `Job ${id} is ${status} already; it cannot be cancelled.`, { id, status })
  }
  const queue = id.slice(0, id.indexOf(':'))
  for (const worker of context.workers) if (worker.topic === queue) worker.checkHolds()
}

export function jobNotFoundError(id: string): SluiceError {
  return new SluiceError(
    'JOB_NOT_FOUND',
    `There is no job '${id.slice(0, 200)}' here: its id is of another data folder or queue, or it ended longer ago than \`retention\` keeps.`,
    { id: id.slice(0, 200) },
  )
}
