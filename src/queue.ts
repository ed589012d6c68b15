/** The queue: work that is done now (`call`) or later (`add`), each job by one worker. */
import { createDeadline } from './deadline.ts'
import { Declared, type DeclaredAs } from './declared.ts'
import type { QueueSettings } from './engine/options.ts'
import { SluiceError } from './errors.ts'
import { asRefusal, Feed, type FeedOptions, type MessageOptions, registerFeed } from './feed.ts'
import {
  checkId,
  type DeadOptions,
  type Discarded,
  type DiscardOptions,
  GroupControl,
  type Redriven,
  type RedriveOptions,
} from './group-control.ts'
import type { HandlerContext } from './handler-context.ts'
import {
  AddedJob,
  cancelJob,
  findEnd,
  findJob,
  isTerminal,
  Job,
  takeResult,
  unansweredError,
  waitForEnd,
} from './job.ts'
import { JobMessage } from './message.ts'
import { BatchView, type Priority } from './message-batch.ts'
import type { NounContext } from './noun-context.ts'
import { checkOptions } from './options-check.ts'
import { notFoundError } from './outcomes.ts'
import { removeSchedule, Schedule, type ScheduleOptions, type Tick } from './schedule.ts'
import type { Schema } from './schema.ts'
import {
  CALL_RULES,
  DEAD_RULES,
  JOB_ITEM_RULES,
  JOB_RULES,
  OUTPUT_JOB_RULES,
  QUEUE_RULES,
  REDRIVE_RULES,
  WORK_RULES,
} from './setting-rules.ts'
import { chooseSettings, type Given } from './settings.ts'
import type { OnSettled } from './settled-watches.ts'
import { Worker } from './worker.ts'
import type { WorkOptions } from './worker-options.ts'

const NOT_SETTINGS = ['schema', 'pace', 'fullWaitMs']
const DEFAULT_CALL_TIMEOUT_MS = 30_000
/** What an engine may take to say how things stand at the end of a call. */
const CALL_GRACE_MS = 1_000

/** Settings of the queue, shared by all who use it, and how this process feeds it. */
export interface QueueOptions extends Given<QueueSettings>, FeedOptions {}

export interface AddOptions<R = unknown> extends MessageOptions {
  /**
   * Milliseconds until the job takes its place in the queue, 0 to ten years (P4). It counts in the depth from the start.
   * @default 0: now
   */
  readonly delayMs?: number | undefined
  /** `high` goes before `normal` goes before `low`, among the heads of lanes; never within a key. @default 'normal' */
  readonly priority?: Priority | undefined
  /**
   * Milliseconds from now within which it must be started, 1 to ten years; then it is `expired` and never started. A job
   * that was started goes on. @default none: it waits for as long as it takes
   */
  readonly deadlineMs?: number | undefined
  /**
   * Who is told when the job has ended, however it ends: an `http(s)` URL of at most 2,048 bytes without credentials, to
   * which a signed webhook is sent, after its end is durable and until it is taken (docs/callbacks.md). Sent by `sluice
   * serve`, or by a Sluice opened with `callbacks`. Room for it is taken now: `QUEUE_FULL` where the queue of callbacks
   * has none. @default none
   */
  readonly callbackUrl?: string | undefined
  /**
   * Called once when the job has ended, with how it ended. It lives and dies with this process and with this Sluice; at
   * most 10,000 wait at a time, and `add` rejects with `OVERLOADED` beyond that. What it throws goes to `onError`. For
   * the truth after a restart, ask for the status. @default none
   */
  readonly onSettled?: OnSettled<R> | undefined
}

export interface CallOptions extends Omit<MessageOptions, 'fullWaitMs'> {
  /** See {@link AddOptions}. @default 'normal' */
  readonly priority?: Priority | undefined
  /**
   * Milliseconds for all of it, 1 to ten years: waiting, handling, retries. Past it the job is skipped if it was not
   * started, else its outcome is kept (P11). @default 30_000
   */
  readonly timeoutMs?: number | undefined
  /** Ends the wait; the call rejects with the signal's reason and the job goes on. */
  readonly signal?: AbortSignal | undefined
}

/** One of many jobs: its payload and the options of `add`. */
export interface AddItem<P = unknown, R = unknown> extends AddOptions<R> {
  readonly payload: P
}

/** A job that is out of attempts. */
export interface DeadJob<P = unknown> {
  readonly id: string
  readonly attempts: number
  /** Of the last attempt. */
  readonly error: string
  /** ms since 1970. */
  readonly diedAtMs: number
  /** What it was: payload, key, headers. Its `timestampMs` is when it died. */
  readonly message: JobMessage<P>
}

export interface DeadPage<P = unknown> {
  readonly jobs: readonly DeadJob<P>[]
  /** To go on with; null at the end. */
  readonly next: string | null
}

/** What works on a job. What it returns is the job's result, as JSON; undefined: none. */
export type JobHandler<P, R> = (job: JobMessage<P>, context: HandlerContext) => R | PromiseLike<R>

/**
 * A queue. `P` is what handlers get, `R` what they return, `In` what is added (with a schema that transforms, its
 * input).
 */
export class Queue<P = unknown, R = unknown, In = P> {
  readonly name: string
  readonly #context: NounContext
  readonly #declared: Declared
  readonly #feed: Feed<AddedJob<R>>
  readonly #control: GroupControl

  /** Made by `sluice.queue()`. */
  constructor(context: NounContext, name: string) {
    this.name = name
    this.#context = context
    this.#declared = new Declared(context.engine, { kind: 'queue', name, settings: {} })
    this.#control = new GroupControl(context, {
      kind: 'queue',
      topic: name,
      group: '',
      notFound: () => {
        this.#declared.forget()
        return notFoundError('queue', name)
      },
    })
    const source = { name, tag: '' }
    const declared = this.#declared
    const rules = { rules: JOB_RULES, itemRules: JOB_ITEM_RULES, outputRules: OUTPUT_JOB_RULES }
    this.#feed = new Feed(context, 'queue', name, declared, rules, (place, receipt, isDuplicate) => {
      source.tag = declared.tag
      return new AddedJob<R>(context, source, place, receipt, isDuplicate)
    })
    registerFeed(this, this.#feed)
  }

  /** What payloads are validated with, if anything. */
  get schema(): Schema | undefined {
    return this.#feed.schema
  }

  /** Takes options that came with a later `sluice.queue()`: what is given replaces, what is not stays. */
  use(options: QueueOptions): void {
    checkOptions(options, QUEUE_RULES, `queue '${this.name}'`)
    this.#feed.use(options)
    const settings = chooseSettings(options, NOT_SETTINGS)
    if (Object.keys(settings).length > 0) this.#declared.change(settings)
  }

  /**
   * Declares the queue now rather than at its first use. Says whether it was new, and the settings in force. Rejects
   * with `DECLARED_DIFFERENTLY` where a setting may not change.
   */
  declare(): Promise<DeclaredAs> {
    return this.#declared.declare()
  }

  /**
   * Adds a job. Resolves once it is durable (P1), which the receipt states. Rejects with `QUEUE_FULL` or `DISK_FULL`
   * (nothing was stored; `details.retryAfterMs`), `INVALID_PAYLOAD`, `PAYLOAD_TOO_LARGE`, `SCHEMA_MISMATCH`,
   * `INVALID_OPTION`, `IDEMPOTENCY_MISMATCH`, `OVERLOADED`, `CLOSED`, or `UNKNOWN` (nobody can tell; adding it again
   * under its idempotency key is safe).
   */
  add(payload: In, options?: AddOptions<R>): Promise<AddedJob<R>> {
    try {
      const onSettled = options?.onSettled
      if (onSettled === undefined) return this.#feed.add(payload, options)
      return this.#watch(onSettled, () => this.#feed.add(payload, options))
    } catch (error) {
      return Promise.reject(asRefusal(error))
    }
  }

  /**
   * Adds many jobs at once, stored in their order. Each has its own outcome at its index: the job, or the error with
   * which `add` would have rejected. An array of any length: it is stored by portions.
   */
  async addMany(items: readonly AddItem<In, R>[]): Promise<(AddedJob<R> | SluiceError)[]> {
    return this.#feed.addMany(items, (item) => {
      const { onSettled } = item
      return onSettled === undefined ? this.#feed.addItem(item) : this.#watch(onSettled, () => this.#feed.addItem(item))
    })
  }

  /**
   * Adds a job and waits for its result: served in arrival order within its lane (P11). Rejects like `add` and like
   * `job.result()`. `WAIT_TOO_LONG`: by what was measured it would not be started within `timeoutMs`; nothing was stored.
   * `JOB_EXPIRED`: it was not started in time, and never will be. `DEADLINE`: it was, and is not done; its id is in the
   * details, and its outcome can be fetched with it. It ends at `timeoutMs`, or a second later where an engine on another
   * machine does not answer.
   */
  async call(payload: In, options: CallOptions = {}): Promise<R> {
    checkOptions(options, CALL_RULES, 'queue.call()')
    const { timeoutMs = DEFAULT_CALL_TIMEOUT_MS, signal, ...rest } = options
    signal?.throwIfAborted()
    const { host, holder } = this.#context
    const untilMs = host.now() + timeoutMs
    const ended = createDeadline(host, timeoutMs + CALL_GRACE_MS, signal)
    try {
      // On another machine an answer may be lost with the connection, and even with the server: with a key it is safe to
      // ask again, and nobody else has this one.
      const key = holder === 'token' ? { idempotencyKey: crypto.randomUUID() } : {}
      const options = { ...key, ...rest, deadlineMs: timeoutMs, fullWaitMs: 0 }
      const added = await ended.orLater(this.#feed.addInTime(payload, options), () => unknownCall(this.name, timeoutMs))
      const { id } = added
      const waiting = waitForEnd(this.#context, id, untilMs, signal).then((view) =>
        // Asking once more settles as expired what was not started in time.
        isTerminal(view) ? view : findEnd(this.#context, id),
      )
      return takeResult<R>(await ended.orLater(waiting, () => unansweredError(id, timeoutMs)), timeoutMs)
    } finally {
      ended.clear()
    }
  }

  /**
   * Works on the queue's jobs in this process, until `close()`. The handler may run more than once for a job (P3): what
   * it does should bear that, or use `once` and `publish`. Throwing retries after the queue's back-off, `RetryLater`
   * after a time of its own, `Unrecoverable` never.
   */
  work(handler: JobHandler<P, R>, options: WorkOptions = {}): Worker {
    checkOptions(options, WORK_RULES, 'queue.work()')
    const declared = this.#declared
    const { name } = this
    return Worker.start(
      this.#context,
      {
        topic: name,
        group: '',
        keepsResults: true,
        prepare: () => declared.ensure(),
        forget: () => declared.forget(),
        makeMessage: ({ view, offsets, timestampsMs }, index) =>
          new JobMessage<P>(
            name,
            declared.tag,
            0,
            offsets[index] as number,
            timestampsMs[index] as number,
            view,
            index,
          ),
      },
      handler,
      options,
    )
  }

  /**
   * Adds a job at each tick of a cron or an interval. `payload` is the payload, which is stored, so that every process that
   * runs schedules fires it; or a function that makes it, and then the processes that call this do. Each tick has one job,
   * however many processes there are. Given again under its name it is changed. Throws `INVALID_OPTION`.
   */
  schedule(name: string, options: ScheduleOptions, payload: In | ((tick: Tick) => In | PromiseLike<In>)): Schedule {
    return new Schedule(this.#context, this.#feed, name, options, payload)
  }

  /** Removes a schedule; false where there is none of that name. Jobs that it has added go on. */
  unschedule(name: string): Promise<boolean> {
    return removeSchedule(this.#context, this.name, name)
  }

  /** A job of this queue by its id. Rejects with `JOB_NOT_FOUND`. */
  async get(id: string): Promise<Job<R>> {
    checkId(id, this.name)
    await findJob(this.#context, id)
    return new Job<R>(this.#context, id)
  }

  /** Ends a job that has not ended: see `job.cancel()`. */
  async cancel(id: string): Promise<void> {
    checkId(id, this.name)
    await cancelJob(this.#context, id)
  }

  /** Hands no jobs out until `resume()`, in any process and over restarts. Adding goes on; running handlers finish. */
  async pause(): Promise<void> {
    await this.#declared.ensure()
    await this.#control.setPaused(true)
  }

  async resume(): Promise<void> {
    await this.#declared.ensure()
    await this.#control.setPaused(false)
  }

  /** Dead letters, oldest first, a page at a time. */
  async dead(options: DeadOptions = {}): Promise<DeadPage<P>> {
    checkOptions(options, DEAD_RULES, 'queue.dead()')
    await this.#declared.ensure()
    const { letters, next } = await this.#control.listDead(options)
    const jobs = letters.map(({ id, offset, attempts, error, diedAtMs, batch }) => {
      const message = new JobMessage<P>(this.name, this.#declared.tag, 0, offset, diedAtMs, new BatchView(batch), 0)
      return { id, attempts, error, diedAtMs, message }
    })
    return { jobs, next }
  }

  /**
   * Tries again what is out of attempts: dead letters become new jobs (`redriveOf` names the old one, whose status does
   * not change: P10), blocked jobs get as many attempts again. Rejects with `JOB_NOT_FOUND` for an id that is not of
   * this queue, and with `QUEUE_FULL` where not even one found room.
   */
  async redrive(options: RedriveOptions = {}): Promise<Redriven> {
    checkOptions(options, REDRIVE_RULES, 'queue.redrive()')
    await this.#declared.ensure()
    return this.#control.redrive(options, this.#declared.tag)
  }

  /**
   * Removes dead letters for good: they cannot be redriven any more. Their jobs stay `failed` for as long as `retention`
   * keeps them. Rejects with `JOB_NOT_FOUND` for an id that is not of this queue; one that is no dead letter is skipped.
   */
  async discard(options: DiscardOptions = {}): Promise<Discarded> {
    checkOptions(options, REDRIVE_RULES, 'queue.discard()')
    await this.#declared.ensure()
    return this.#control.discard(options, this.#declared.tag)
  }

  /** For `sluice.close()`: refuses what waits in this process and waits for what is under way. */
  flush(): Promise<void> {
    return this.#feed.close()
  }

  async #watch(onSettled: OnSettled<R>, add: () => Promise<AddedJob<R>>): Promise<AddedJob<R>> {
    const { settledWatches } = this.#context
    settledWatches.reserve()
    let job: AddedJob<R>
    try {
      job = await add()
    } catch (error) {
      settledWatches.release()
      throw error
    }
    void settledWatches.watch(this.#context, job.id, onSettled)
    return job
  }
}

/** P2: a call that nobody answered in time. */
function unknownCall(queue: string, timeoutMs: number): SluiceError {
  return new SluiceError(
    'UNKNOWN',
    `The engine of queue '${queue}' did not answer within ${timeoutMs} ms, so whether the job was stored is not known. If it was, it is not started any more.`,
    { queue, timeoutMs },
  )
}
