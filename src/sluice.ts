/**
 * An open Sluice: the nouns over one engine. It keeps one queue or topic for each name, so that the settings, the
 * schema and the pace that were given once hold wherever the name is used in this process.
 */

import { createAwakeHost } from './awake-host.ts'
import type { Engine, EngineStats } from './engine/contract.ts'
import { SluiceError } from './errors.ts'
import { type Host, realHost } from './host/host.ts'
import type { LeaseHeart } from './lease-heart.ts'
import { MAX_PAYLOAD_BYTES } from './message-batch.ts'
import type { NounContext } from './noun-context.ts'
import { callback, checkName, checkOptions, createRules, whole } from './options-check.ts'
import { Queue, type QueueOptions } from './queue.ts'
import { listSchedules, type ScheduleInfo } from './schedule.ts'
import type { ScheduleRunner } from './schedule-runner.ts'
import type { Schema } from './schema.ts'
import { SettledWatches } from './settled-watches.ts'
import { StoredSchedules } from './stored-schedules.ts'
import { Topic, type TopicOptions } from './topic.ts'
import type { Worker } from './worker.ts'
import { CLOSE_RULES, type CloseOptions } from './worker-options.ts'

const DEFAULT_MAX_PAYLOAD_BYTES = 1_048_576

/** Options of a Sluice, whatever its engine. */
export interface SluiceOptions {
  /**
   * The largest payload and the largest result in bytes, 1 to 15,728,640 (15 MiB). Beyond it `PAYLOAD_TOO_LARGE`.
   * @default 1_048_576 (1 MiB)
   */
  readonly maxPayloadBytes?: number | undefined
  /**
   * Hears of failures that no caller waits for: an engine that a worker cannot reach, an `onSettled` that throws, a group
   * that was detached. @default a warning of the process
   */
  readonly onError?: ((error: unknown) => void) | undefined
}

/** What a backup holds. */
export interface BackupInfo {
  readonly file: string
  readonly fileBytes: number
  readonly finishedAtMs: number
  readonly topics: number
  readonly messages: number
  /** The number of the last commit in it. */
  readonly commit: number
}

/** For engines and tests. */
export interface SluiceParts {
  /** @default the real clock and chance, whose timers keep the process alive while something waits for them */
  readonly host?: Host | undefined
  /** How workers hold messages: as this process, or by tokens where the engine is on another machine. @default 'process' */
  readonly holder?: 'process' | 'token' | undefined
  /** Keeps leases by token while the thread of the handlers is blocked. @default nothing does */
  readonly heart?: LeaseHeart | undefined
  /** How far the clock that the engine goes by is ahead of `host`'s, which may change. @default 0: it is the same */
  readonly clockAheadMs?: (() => number) | undefined
}

export const SLUICE_RULES = { maxPayloadBytes: whole(1, MAX_PAYLOAD_BYTES), onError: callback }

/** A Sluice over an engine. `open()` makes one; so does whoever brings an engine of their own. */
export function createSluice(engine: Engine, options: SluiceOptions = {}, parts: SluiceParts = {}): Sluice {
  checkOptions(options, createRules(SLUICE_RULES), 'createSluice()')
  return new Sluice(engine, options, parts)
}

export class Sluice {
  /** What the nouns speak to. For servers; what it does past the nouns, it does. */
  readonly engine: Engine
  readonly #context: NounContext
  readonly #queues = new Map<string, Queue<unknown, unknown, unknown>>()
  readonly #topics = new Map<string, Topic<unknown, unknown>>()
  readonly #stored = new Set<StoredSchedules>()
  #closing: Promise<void> | null = null
  #isClosed = false

  constructor(engine: Engine, options: SluiceOptions, parts: SluiceParts) {
    this.engine = engine
    const host = parts.host ?? createAwakeHost(realHost)
    this.#context = {
      engine,
      host,
      engineNow: createEngineClock(host, parts.clockAheadMs),
      maxPayloadBytes: options.maxPayloadBytes ?? DEFAULT_MAX_PAYLOAD_BYTES,
      holder: parts.holder ?? 'process',
      heart: parts.heart ?? null,
      settledWatches: new SettledWatches(),
      isClosed: () => this.#isClosed,
      workers: new Set<Worker>(),
      schedules: new Set<ScheduleRunner>(),
      report: createReport(options.onError),
      findNoun: (name) => this.#queues.get(name) ?? this.#topics.get(name),
    }
  }

  /** Now by the clock that the engine goes by, in whole milliseconds since 1970; never goes back. For servers. */
  engineNow(): number {
    return this.#context.engineNow()
  }

  /**
   * A queue by its name, made by the first use of it. Settings are shared with all who use the queue, and given again
   * they change it; what is left out stays as it is. Throws `INVALID_NAME` and `INVALID_OPTION`.
   */
  queue<S extends Schema, R = unknown>(
    name: string,
    options: QueueOptions & { readonly schema: S },
  ): Queue<OutputOf<S>, R, InputOf<S>>
  queue<P = unknown, R = unknown>(name: string, options?: QueueOptions): Queue<P, R>
  queue(name: string, options?: QueueOptions): Queue<unknown, unknown, unknown> {
    checkName(name, 'queue')
    this.#checkOther(name, this.#topics, 'topic')
    const queue = this.#queues.get(name) ?? new Queue<unknown, unknown, unknown>(this.#context, name)
    if (options !== undefined) queue.use(options)
    this.#queues.set(name, queue)
    return queue
  }

  /** A topic by its name: see {@link queue}. */
  topic<S extends Schema>(name: string, options: TopicOptions & { readonly schema: S }): Topic<OutputOf<S>, InputOf<S>>
  topic<P = unknown>(name: string, options?: TopicOptions): Topic<P>
  topic(name: string, options?: TopicOptions): Topic<unknown, unknown> {
    checkName(name, 'topic')
    this.#checkOther(name, this.#queues, 'queue')
    const topic = this.#topics.get(name) ?? new Topic<unknown, unknown>(this.#context, name)
    if (options !== undefined) topic.use(options)
    this.#topics.set(name, topic)
    return topic
  }

  /**
   * Fires, from this process, the schedules whose payload is stored, whoever declared them; `sluice serve` does so by
   * itself. Any number of processes may: each tick has one job. Until it or this Sluice is closed.
   */
  runSchedules(): StoredSchedules {
    if (this.#isClosed) throw new SluiceError('CLOSED')
    const stored: StoredSchedules = new StoredSchedules(
      this.#context,
      (name) => this.queue(name),
      () => this.#stored.delete(stored),
    )
    this.#stored.add(stored)
    return stored
  }

  /** All schedules, by queue and name. */
  schedules(): Promise<readonly ScheduleInfo[]> {
    return listSchedules(this.#context)
  }

  /** Depths, limits, groups, and what the log has done. */
  stats(): Promise<EngineStats> {
    return this.engine.stats()
  }

  /**
   * Copies everything, as it is at one moment, into a new file, while the work goes on; resolves once the copy was read
   * back and checked. `restore()` makes a folder of it. Nothing of it is left where it is rejected: with `DISK_FULL`,
   * `INVALID_OPTION` (the file is there already), `UNSUPPORTED` (nothing is in a file here), or `CLOSED`.
   */
  async backup(file: string): Promise<BackupInfo> {
    const outcome = await this.engine.command({ kind: 'backup', file })
    return JSON.parse((outcome as { readonly value: string }).value) as BackupInfo
  }

  /**
   * P12: workers take nothing new and finish, or give back what does not within `drainMs` (10,000 ms unless given); what
   * is being stored is stored; then the engine stops. Called again, it waits for the same end. What is used afterwards
   * rejects with `CLOSED`; `work` and `subscribe` throw it from the call on.
   */
  close(options: CloseOptions = {}): Promise<void> {
    checkOptions(options, CLOSE_RULES, 'sluice.close()')
    this.#isClosed = true
    this.#closing ??= this.#close(options)
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(options: CloseOptions): Promise<void> {
    const { workers, schedules, settledWatches } = this.#context
    await Promise.all([...this.#stored].map((stored) => stored.close()))
    await Promise.all([...schedules].map((runner) => runner.close()))
    await Promise.all([...workers].map((worker) => worker.close(options)))
    const nouns = [...this.#queues.values(), ...this.#topics.values()]
    await Promise.all(nouns.map((noun) => noun.flush()))
    settledWatches.close()
    await this.engine.close()
  }

  #checkOther(name: string, others: ReadonlyMap<string, unknown>, kind: string): void {
    if (!others.has(name)) return
    throw new SluiceError(
      'DECLARED_DIFFERENTLY',
      `'${name}' is a ${kind} here, and one name cannot be both. Use another name.`,
      { [kind]: name },
    )
  }
}

type OutputOf<S extends Schema> = NonNullable<S['~standard']['types']>['output']
type InputOf<S extends Schema> = NonNullable<S['~standard']['types']>['input']

/** Tells of what nobody waits for; a listener that throws is a warning too. */
function createReport(onError: ((error: unknown) => void) | undefined): (error: unknown) => void {
  return (error) => {
    try {
      if (onError === undefined) warn(error)
      else onError(error)
    } catch (thrown) {
      warn(thrown)
    }
  }
}

function warn(error: unknown): void {
  const code = error instanceof SluiceError ? error.code : undefined
  const message = error instanceof Error ? error.message : String(error)
  process.emitWarning(message, { type: 'SluiceWarning', ...(code === undefined ? {} : { code }) })
}

/** Where another owner's clock is behind that of the one before, it stands still until that has caught up. */
function createEngineClock(host: Host, aheadMs: (() => number) | undefined): () => number {
  if (aheadMs === undefined) return () => host.now()
  let lastMs = 0
  return () => {
    lastMs = Math.max(lastMs, host.now() + aheadMs())
    return lastMs
  }
}
