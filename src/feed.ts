/**
 * Where messages go into a queue or topic: checks the options, validates, encodes, and stores now, in turn, or with the
 * settle of a handler. `Queue` and `Topic` each have one; they differ in the options of a message and in what the
 * caller gets.
 *
 * On the path of every message: nothing here makes an object for a message that is stored now.
 */
import { normalizeCallbackUrl } from './callback-url.ts'
import type { Declared } from './declared.ts'
import { RESERVED_NAMES } from './engine/options.ts'
import { isSluiceError, SluiceError } from './errors.ts'
import { Line, type LineMessage, type Pace } from './line.ts'
import { type Headers, PRIORITIES, PRIORITY_NORMAL, type Priority } from './message-batch.ts'
import type { NounContext } from './noun-context.ts'
import { checkOptions, invalidOption, type Rules } from './options-check.ts'
import { type NounKind, reservedError } from './outcomes.ts'
import type { Output } from './outputs.ts'
import { checkPayloadBytes, encodePayload, firstLine } from './payload.ts'
import { type MakeStored, Publisher } from './publisher.ts'
import { type Schema, validatePayload } from './schema.ts'
import { traceOutput, tracePublish } from './tracing.ts'

/** What every message may have with it. */
export interface MessageOptions {
  /**
   * Orders messages: those of one key are handed out one at a time, in the order in which they were stored (P4). 1 to
   * 1,024 bytes of UTF-8. @default none: no order
   */
  readonly key?: string | undefined
  /**
   * Texts by name that travel with the message, at most 32 KiB as JSON. Names that begin with `sluice-` are reserved.
   * @default none
   */
  readonly headers?: Headers | undefined
  /**
   * The same key within `idempotencyMs` of the queue or topic stores once: later calls get the first receipt, with
   * `duplicate` true, or `IDEMPOTENCY_MISMATCH` if the payload is another (P8). 1 to 1,024 bytes of UTF-8. Makes a retry
   * after `UNKNOWN` safe. @default none
   */
  readonly idempotencyKey?: string | undefined
  /**
   * How long to wait for room where the queue is full, in milliseconds, up to ten years: tried again when the engine says, and
   * rejected with `QUEUE_FULL` at the end. 0 rejects at once. @default the noun's `fullWaitMs`
   */
  readonly fullWaitMs?: number | undefined
}

/** What is fed to one noun and how. */
export interface FeedOptions {
  /**
   * A Standard Schema (zod, valibot, arktype). Payloads are validated before they are stored, and its output is what is
   * stored; a mismatch is `SCHEMA_MISMATCH` with the paths. @default none: any payload
   */
  readonly schema?: Schema | undefined
  /**
   * Messages of this process wait for their turn: at most `messages` in any `perMs` (1,000 unless given), evenly. For a
   * rate of acceptance that equals the rate of creation. @default as fast as they come
   */
  readonly pace?: Pace | undefined
  /**
   * How long to wait for room where it is full, in milliseconds, 0 to ten years, unless the message says otherwise.
   * @default 0: reject at once
   */
  readonly fullWaitMs?: number | undefined
}

/** All options of single messages, of queues and topics. */
interface AnyOptions extends MessageOptions {
  readonly priority?: Priority | undefined
  readonly delayMs?: number | undefined
  readonly deadlineMs?: number | undefined
  readonly callbackUrl?: string | undefined
  /** Set by `call` alone. */
  readonly inTime?: boolean
}

const NO_OPTIONS: AnyOptions = {}
/** Messages of `addMany` that are under way at once. */
const MANY_AT_ONCE = 16_384

export interface FeedRules {
  readonly rules: Rules
  /** With the payload beside the options. */
  readonly itemRules: Rules
  readonly outputRules: Rules
}

export class Feed<T> {
  readonly name: string
  readonly kind: NounKind
  readonly declared: Declared
  readonly #context: NounContext
  readonly #rules: FeedRules
  readonly #where: string
  readonly #publisher: Publisher<T>
  readonly #line: Line<T>
  #schema: Schema | undefined
  #fullWaitMs = 0

  constructor(
    context: NounContext,
    kind: NounKind,
    name: string,
    declared: Declared,
    rules: FeedRules,
    make: MakeStored<T>,
  ) {
    this.#context = context
    this.kind = kind
    this.name = name
    this.declared = declared
    this.#rules = rules
    this.#where = kind === 'queue' ? 'queue.add()' : 'topic.publish()'
    this.#publisher = new Publisher(context.engine, kind, name, declared, make)
    this.#line = new Line(this.#publisher, context.host)
  }

  get schema(): Schema | undefined {
    return this.#schema
  }

  /** Whether it is a noun of this Sluice. */
  belongsTo(context: NounContext): boolean {
    return this.#context === context
  }

  /** Takes the options that are given; what is left out stays. */
  use({ schema, pace, fullWaitMs }: FeedOptions): void {
    if (schema !== undefined) this.#schema = schema
    if (pace !== undefined) this.#line.setPace(pace)
    if (fullWaitMs !== undefined) this.#fullWaitMs = fullWaitMs
  }

  /** Stores one message. */
  add(payload: unknown, options: AnyOptions = NO_OPTIONS): Promise<T> {
    return this.#add(payload, options, this.#rules.rules)
  }

  /**
   * The same for one that is waited for: refused with `WAIT_TOO_LONG` where the measured wait is past its deadline. Its
   * options have been checked.
   */
  addInTime(payload: unknown, options: AnyOptions): Promise<T> {
    return this.#add(payload, { ...options, inTime: true }, null)
  }

  /** The same for a payload that stands beside its options. */
  addItem(item: { readonly payload: unknown }): Promise<T> {
    try {
      return this.#add(item.payload, item as AnyOptions, this.#rules.itemRules)
    } catch (error) {
      return Promise.reject(asRefusal(error))
    }
  }

  /** Outcomes by index: what `add` would have given, or the error with which it would have rejected. */
  async addMany<I extends { readonly payload: unknown }>(
    items: readonly I[],
    add: (item: I) => Promise<T> = (item) => this.addItem(item),
  ): Promise<(T | SluiceError)[]> {
    if (!Array.isArray(items)) throw invalidOption('items', items, 'an array of { payload, ...options }')
    const outcomes: (T | SluiceError)[] = []
    for (let at = 0; at < items.length; at += MANY_AT_ONCE) {
      const some = (items as readonly I[]).slice(at, at + MANY_AT_ONCE)
      for (const settled of await Promise.allSettled(some.map((item) => this.#addOne(item, add)))) {
        if (settled.status === 'fulfilled') outcomes.push(settled.value)
        else outcomes.push(isSluiceError(settled.reason) ? settled.reason : unknownError(settled.reason))
      }
    }
    return outcomes
  }

  #addOne<I extends { readonly payload: unknown }>(item: I, add: (item: I) => Promise<T>): Promise<T> {
    const isItem = typeof item === 'object' && item !== null
    if (!isItem) return Promise.reject(invalidOption('an item', item, 'an object { payload, ...options }'))
    try {
      return add(item)
    } catch (error) {
      return Promise.reject(asRefusal(error))
    }
  }

  #add(payload: unknown, options: AnyOptions, rules: Rules | null): Promise<T> {
    try {
      if (this.name.startsWith(RESERVED_NAMES)) throw reservedError(this.name)
      if (rules !== null && options !== NO_OPTIONS) checkOptions(options, rules, this.#where)
      return tracePublish(this.name, options.headers, (headers) => this.#check(payload, options, headers))
    } catch (error) {
      return Promise.reject(asRefusal(error))
    }
  }

  /** A message that a handler publishes: made ready to be stored with its settle, in the same step (P9). */
  async makeOutput(payload: unknown, options: AnyOptions = NO_OPTIONS): Promise<Output> {
    if (this.name.startsWith(RESERVED_NAMES)) throw reservedError(this.name)
    checkOptions(options, this.#rules.outputRules, 'publish()')
    const kept = { ...options }
    const headers = traceOutput(this.name, kept.headers)
    const value = this.#schema === undefined ? payload : await validatePayload(this.#schema, payload)
    const message = this.#keep(this.#encode(value), kept, headers, this.#context.engineNow(), 0)
    if (!this.declared.isCurrent) await this.declared.ensure()
    return { topic: this.name, message }
  }

  /** Refuses what waits in line, and waits for what is under way. */
  close(): Promise<void> {
    this.#line.close()
    return this.#publisher.flushed()
  }

  #check(payload: unknown, options: AnyOptions, headers: Headers | undefined): Promise<T> {
    if (this.#schema === undefined) return this.#store(payload, options, headers)
    const output = validatePayload(this.#schema, payload)
    return output instanceof Promise
      ? output.then((value) => this.#store(value, options, headers))
      : this.#store(output, options, headers)
  }

  /** `headers` are those of the options, and the trace. */
  #store(value: unknown, options: AnyOptions, headers: Headers | undefined): Promise<T> {
    const payload = this.#encode(value)
    if (options === NO_OPTIONS && headers === undefined && this.#fullWaitMs === 0 && !this.#line.isPaced) {
      return this.#publisher.push(payload, undefined, undefined, PRIORITY_NORMAL, 0, undefined, 0)
    }
    const { key, idempotencyKey, fullWaitMs = this.#fullWaitMs } = options
    const isTimed = options.delayMs !== undefined || options.deadlineMs !== undefined || fullWaitMs !== 0
    const now = isTimed ? this.#context.engineNow() : 0
    const deadlineAtMs = deadlineOf(options, now)
    const dueAtMs = dueOf(options, now)
    if (fullWaitMs === 0 && !this.#line.isPaced) {
      const priority = priorityOf(options)
      const callbackUrl = callbackOf(options)
      const { inTime } = options
      return this.#publisher.push(
        payload,
        key,
        headers,
        priority,
        deadlineAtMs,
        idempotencyKey,
        dueAtMs,
        callbackUrl,
        inTime,
      )
    }
    const giveUpAtMs = fullWaitMs === 0 ? 0 : this.#context.host.now() + fullWaitMs
    return this.#line.join(this.#keep(payload, options, headers, now, giveUpAtMs))
  }

  /** A message that waits, apart from what the caller passed and may write to. */
  #keep(
    payload: string | Uint8Array,
    options: AnyOptions,
    headers: Headers | undefined,
    nowMs: number,
    giveUpAtMs: number,
  ): LineMessage {
    const { key, idempotencyKey } = options
    return {
      payload: typeof payload === 'string' ? payload : payload.slice(),
      key,
      headers: headers === undefined ? undefined : { ...headers },
      priority: priorityOf(options),
      deadlineAtMs: deadlineOf(options, nowMs),
      idempotencyKey,
      dueAtMs: dueOf(options, nowMs),
      callbackUrl: callbackOf(options),
      ...(options.inTime === true ? { inTime: true } : {}),
      giveUpAtMs,
    }
  }

  #encode(value: unknown): string | Uint8Array {
    const payload = encodePayload(value)
    checkPayloadBytes(payload, this.#context.maxPayloadBytes)
    return payload
  }
}

/** The refusal of a message whose parts throw when they are read: a getter, a revoked Proxy. */
export function asRefusal(error: unknown): SluiceError {
  if (isSluiceError(error)) return error
  return new SluiceError('INVALID_OPTION', `The message cannot be read: ${firstLine(error)}.`, {}, error)
}

function unknownError(cause: unknown): SluiceError {
  return new SluiceError('UNKNOWN', undefined, {}, cause)
}

function priorityOf({ priority }: AnyOptions): number {
  return priority === undefined ? PRIORITY_NORMAL : PRIORITIES.indexOf(priority)
}

function deadlineOf({ deadlineMs }: AnyOptions, nowMs: number): number {
  return deadlineMs === undefined ? 0 : nowMs + deadlineMs
}

function callbackOf({ callbackUrl }: AnyOptions): string | undefined {
  return callbackUrl === undefined ? undefined : normalizeCallbackUrl(callbackUrl)
}

function dueOf({ delayMs }: AnyOptions, nowMs: number): number {
  return delayMs === undefined || delayMs === 0 ? 0 : nowMs + delayMs
}

/** What a handler's `publish` needs of a feed, whatever its caller gets. */
export type OutputFeed = Pick<Feed<unknown>, 'makeOutput' | 'belongsTo'>

const FEEDS = new WeakMap<object, OutputFeed>()

/** Makes a noun one that handlers can publish to. */
export function registerFeed(noun: object, feed: OutputFeed): void {
  FEEDS.set(noun, feed)
}

export function feedOf(noun: object): OutputFeed | undefined {
  return FEEDS.get(noun)
}
