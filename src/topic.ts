/** The topic: messages in order, for every group that subscribes and every reader that replays. */
import { Declared, type DeclaredAs } from './declared.ts'
import type { ReadFrom, ReadRequest } from './engine/contract.ts'
import type { GroupSettings, TopicSettings } from './engine/options.ts'
import { SluiceError } from './errors.ts'
import { Feed, type FeedOptions, type MessageOptions, registerFeed } from './feed.ts'
import {
  type DeadOptions,
  type Discarded,
  type DiscardOptions,
  GroupControl,
  type Redriven,
  type RedriveOptions,
} from './group-control.ts'
import type { HandlerContext } from './handler-context.ts'
import { makeReceipt, type Receipt } from './job.ts'
import { Message } from './message.ts'
import { BatchView } from './message-batch.ts'
import type { NounContext } from './noun-context.ts'
import { checkName, checkOptions } from './options-check.ts'
import { notFoundError, offsetError } from './outcomes.ts'
import type { Schema } from './schema.ts'
import {
  DEAD_RULES,
  MESSAGE_ITEM_RULES,
  MESSAGE_RULES,
  OUTPUT_MESSAGE_RULES,
  READ_RULES,
  REDRIVE_RULES,
  SUBSCRIBE_RULES,
  TOPIC_RULES,
} from './setting-rules.ts'
import { chooseSettings, type Given } from './settings.ts'
import { Worker } from './worker.ts'
import type { WorkOptions } from './worker-options.ts'

const NOT_TOPIC_SETTINGS = ['schema', 'pace', 'fullWaitMs']
const NOT_GROUP_SETTINGS = ['from', 'concurrency', 'timeoutMs', 'leaseMs']
const READ_WAIT_MS = 30_000
const READ_COUNT = 1_000

/** Settings of the topic, shared by all who use it, and how this process feeds it. */
export interface TopicOptions extends Given<TopicSettings>, FeedOptions {}

/** One of many messages: its payload and the options of `publish`. */
export interface PublishItem<P = unknown> extends MessageOptions {
  readonly payload: P
}

/** Settings of the group, shared by all its members, and how this process works for it. */
export interface SubscribeOptions extends Given<GroupSettings>, WorkOptions {
  /**
   * Where a new group starts: `'earliest'` kept, `'latest'` (what is published from now on), an offset, or `{ timeMs }`
   * for what was stored at or after a time. A group that exists goes on where it is. @default 'latest'
   */
  readonly from?: ReadFrom | undefined
}

export interface ReadOptions {
  /** Where to start: see {@link SubscribeOptions}. An offset that is not kept any more is `OFFSET_TRUNCATED`. @default 'earliest' */
  readonly from?: ReadFrom | undefined
  /** Whether to wait for more at the end, until `break` or `signal`. False ends at the head as it was at the first look. @default true */
  readonly follow?: boolean | undefined
  /** Ends the loop quietly. */
  readonly signal?: AbortSignal | undefined
  /** Ends after so many messages, 1 or more. @default no limit */
  readonly limit?: number | undefined
}

/** What works on a message for a group. */
export type MessageHandler<P> = (message: Message<P>, context: HandlerContext) => unknown

/** A message that is out of attempts in one group. */
export interface DeadMessage<P = unknown> {
  /** For `redrive` and `discard`. */
  readonly id: string
  readonly attempts: number
  /** Of the last attempt. */
  readonly error: string
  /** ms since 1970. */
  readonly diedAtMs: number
  /** What it was: payload, key, headers. Its `timestampMs` is when it died. */
  readonly message: Message<P>
}

export interface DeadMessagePage<P = unknown> {
  readonly messages: readonly DeadMessage<P>[]
  /** To go on with; null at the end. */
  readonly next: string | null
}

/** A topic. `P` is what subscribers and readers get, `In` what is published (with a schema that transforms, its input). */
export class Topic<P = unknown, In = P> {
  readonly name: string
  readonly #context: NounContext
  readonly #declared: Declared
  readonly #feed: Feed<Receipt>

  /** Made by `sluice.topic()`. */
  constructor(context: NounContext, name: string) {
    this.name = name
    this.#context = context
    this.#declared = new Declared(context.engine, { kind: 'topic', name, settings: {} })
    const rules = { rules: MESSAGE_RULES, itemRules: MESSAGE_ITEM_RULES, outputRules: OUTPUT_MESSAGE_RULES }
    this.#feed = new Feed(context, 'topic', name, this.#declared, rules, makeReceipt)
    registerFeed(this, this.#feed)
  }

  /** What payloads are validated with, if anything. */
  get schema(): Schema | undefined {
    return this.#feed.schema
  }

  /** Takes options that came with a later `sluice.topic()`: what is given replaces, what is not stays. */
  use(options: TopicOptions): void {
    checkOptions(options, TOPIC_RULES, `topic '${this.name}'`)
    this.#feed.use(options)
    const settings = chooseSettings(options, NOT_TOPIC_SETTINGS)
    if (Object.keys(settings).length > 0) this.#declared.change(settings)
  }

  /** Declares the topic now rather than at its first use: see `queue.declare()`. */
  declare(): Promise<DeclaredAs> {
    return this.#declared.declare()
  }

  /**
   * Publishes a message. Resolves once it is durable (P1), with its place. Rejects like `queue.add()`; `QUEUE_FULL` means
   * that a group is so far behind that the topic is at its limit, unless it was declared with `onSlowGroup: 'detach'`.
   */
  publish(payload: In, options?: MessageOptions): Promise<Receipt> {
    return this.#feed.add(payload, options)
  }

  /** Publishes many messages in their order. Each has its outcome at its index: the receipt or the error. */
  publishMany(items: readonly PublishItem<In>[]): Promise<(Receipt | SluiceError)[]> {
    return this.#feed.addMany(items)
  }

  /**
   * Takes this process's share of a group's messages, until `close()` of the worker it gives: every group gets every
   * message, each once among its members unless it is retried (P3, P6). What the handler returns is not kept. A group
   * is registered for good: what it has not settled is kept for it (P2).
   */
  subscribe(group: string, handler: MessageHandler<P>, options: SubscribeOptions = {}): Worker {
    checkName(group, 'group')
    checkOptions(options, SUBSCRIBE_RULES, 'topic.subscribe()')
    const { name } = this
    const { from = 'latest' } = options
    const settings = chooseSettings(options, NOT_GROUP_SETTINGS)
    const declared = new Declared(this.#context.engine, { kind: 'group', topic: name, name: group, settings, from })
    return Worker.start(
      this.#context,
      {
        topic: name,
        group,
        keepsResults: false,
        prepare: async () => {
          await this.#declared.ensure()
          await declared.ensure()
        },
        forget: () => {
          this.#declared.forget()
          declared.forget()
        },
        makeMessage: ({ view, offsets, timestampsMs }, index) =>
          new Message<P>(name, 0, offsets[index] as number, timestampsMs[index] as number, view, index),
      },
      handler,
      options,
    )
  }

  /** Moves a group to another place, from which it goes on; what its members hold is lost to them (P6). */
  async seek(group: string, from: ReadFrom): Promise<void> {
    checkName(group, 'group')
    checkOptions({ from }, READ_RULES, 'topic.seek()')
    const outcome = await this.#context.engine.command({ kind: 'seek', topic: this.name, group, from })
    if (outcome.status === 'truncated' || outcome.status === 'out-of-range') throw offsetError(this.name, outcome)
    if (outcome.status === 'not-found') throw groupNotFoundError(this.name, group)
    this.#control(group).checkHolds()
  }

  /** Dead letters of a group, oldest first, a page at a time. */
  async dead(group: string, options: DeadOptions = {}): Promise<DeadMessagePage<P>> {
    const control = this.#control(group)
    checkOptions(options, DEAD_RULES, 'topic.dead()')
    const { letters, next } = await control.listDead(options)
    const messages = letters.map(({ id, offset, attempts, error, diedAtMs, batch }) => {
      const message = new Message<P>(this.name, 0, offset, diedAtMs, new BatchView(batch), 0)
      return { id, attempts, error, diedAtMs, message }
    })
    return { messages, next }
  }

  /**
   * Gives what is blocked in a group as many attempts again, in its place. Dead letters of a group stay: published anew
   * they would reach the other groups a second time. Where there is nothing else, it rejects with `UNSUPPORTED`.
   */
  async redrive(group: string, options: RedriveOptions = {}): Promise<Redriven> {
    const control = this.#control(group)
    checkOptions(options, REDRIVE_RULES, 'topic.redrive()')
    await this.#declared.ensure()
    return control.redrive(options, this.#declared.tag)
  }

  /** Removes dead letters of a group for good. The topic keeps the messages for its readers and other groups. */
  async discard(group: string, options: DiscardOptions = {}): Promise<Discarded> {
    const control = this.#control(group)
    checkOptions(options, REDRIVE_RULES, 'topic.discard()')
    await this.#declared.ensure()
    return control.discard(options, this.#declared.tag)
  }

  /** Hands nothing out to a group until `resume(group)`, in any process and over restarts. Running handlers finish. */
  async pause(group: string): Promise<void> {
    await this.#control(group).setPaused(true)
  }

  async resume(group: string): Promise<void> {
    await this.#control(group).setPaused(false)
  }

  /**
   * Removes a group for good: its place, its dead letters, and what it kept from being let go. What its members hold is
   * lost to them. Close its workers first, in every process: one that still runs declares the group again, at its `from`.
   */
  async forget(group: string): Promise<void> {
    await this.#control(group).forget()
  }

  /**
   * Reads the topic, apart from any group: `for await (const message of orders.read({ from: 0 })) { … }`. Rejects with
   * `OFFSET_TRUNCATED` or `OFFSET_OUT_OF_RANGE` (the details have `earliest` and `head`), or `CLOSED`.
   */
  async *read(options: ReadOptions = {}): AsyncGenerator<Message<P>, void, void> {
    checkOptions(options, READ_RULES, 'topic.read()')
    const { follow = true, signal, limit = Number.POSITIVE_INFINITY } = options
    let { from = 'earliest' }: { from?: ReadFrom | undefined } = options
    let left = limit
    let end = Number.POSITIVE_INFINITY
    await this.#declared.ensure()
    while (left > 0 && !isAborted(signal)) {
      const request: ReadRequest = {
        topic: this.name,
        from,
        max: Math.min(left, READ_COUNT),
        waitMs: follow ? READ_WAIT_MS : 0,
      }
      const outcome = await this.#context.engine.read(request, signal)
      if (outcome.status === 'not-found') throw notFoundError('topic', this.name)
      if (outcome.status !== 'read') throw offsetError(this.name, outcome)
      if (!follow) end = Math.min(end, outcome.head)
      for (const slice of outcome.messages) {
        const view = new BatchView(slice.bytes)
        for (let i = slice.from; i < slice.to; i++) {
          const offset = slice.baseOffset + i
          if (left === 0 || offset >= end || isAborted(signal)) return
          left--
          yield new Message<P>(this.name, slice.partition, offset, slice.timestampMs, view, i)
        }
      }
      if (outcome.next >= end) return
      from = outcome.next
    }
  }

  #control(group: string): GroupControl {
    checkName(group, 'group')
    const { name } = this
    return new GroupControl(this.#context, {
      kind: 'topic',
      topic: name,
      group,
      notFound: () => groupNotFoundError(name, group),
    })
  }

  /** For `sluice.close()`: refuses what waits in this process and waits for what is under way. */
  flush(): Promise<void> {
    return this.#feed.close()
  }
}

function groupNotFoundError(topic: string, group: string): SluiceError {
  return new SluiceError(
    'GROUP_NOT_FOUND',
    `There is no group '${group}' on topic '${topic}'. Subscribe declares it.`,
    {
      topic,
      group,
    },
  )
}

function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true
}
