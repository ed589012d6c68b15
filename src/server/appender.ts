/**
 * Joins the messages of many requests into few batches. Those that come in while the event loop goes once round the
 * sockets travel together: one batch a queue, one call to the engine. There is no timer, so a lone request does not wait.
 */

import { RESERVED_NAMES } from '../engine/options.ts'
import { SluiceError } from '../errors.ts'
import {
  type AppendOutcome,
  type AppendWish,
  BatchBuilder,
  type Engine,
  MAX_BATCH_MESSAGES,
  type MessageOutcome,
  type StoreReceipt,
} from '../index.ts'
import { reservedError } from '../outcomes.ts'
import type { Incoming } from './incoming.ts'

export interface Appended {
  readonly outcome: MessageOutcome
  readonly receipt: StoreReceipt
  readonly idempotencyKey: string | undefined
}

/** Whoever hears what became of messages, of each once, by the number that was given with it. */
export interface Sink {
  /** Whose the idempotency keys of its messages are: the id of the caller's key, '' where nobody has one. */
  readonly scope: string
  /** It was stored, as nearly all are. */
  stored(number: number, offset: number, receipt: StoreReceipt): void
  /** Anything else that the engine says. */
  other(number: number, appended: Appended): void
  /** Nobody can tell, or the engine failed. */
  failed(number: number, error: unknown): void
}

/** A batch that grows, and for each of its messages who hears of it. Lists rather than an object for each message. */
interface Pending {
  readonly builder: BatchBuilder
  readonly wishes: AppendWish[]
  readonly sinks: Sink[]
  readonly numbers: number[]
}

/** A batch is closed at this size, so that what the ledger applies in one step stays short. */
const MAX_BATCH_BYTES = 4_194_304
const MAX_MESSAGES = Math.min(4_096, MAX_BATCH_MESSAGES)
/** Builders are kept for the next round: their buffers are larger than most messages. */
const MAX_IDLE_BUILDERS = 16

export class Appender {
  readonly #engine: Engine
  #open = new Map<string, Pending>()
  readonly #idleBuilders: BatchBuilder[] = []
  #full: { topic: string; pending: Pending }[] = []
  #isScheduled = false

  constructor(engine: Engine) {
    this.#engine = engine
  }

  /** Stores one message. The outcome comes once it is durable. */
  append(topic: string, incoming: Incoming, scope: string): Promise<Appended> {
    return new Promise((resolve, reject) => {
      this.push(topic, incoming, new OneAnswer(resolve, reject, scope, incoming.wish?.idempotencyKey), 0)
    })
  }

  /** The same, for many: without a promise for each. */
  push(topic: string, { fields, wish }: Incoming, sink: Sink, number: number): void {
    let pending = this.#open.get(topic)
    if (pending === undefined) {
      pending = { builder: this.#idleBuilders.pop() ?? new BatchBuilder(), wishes: [], sinks: [], numbers: [] }
      this.#open.set(topic, pending)
    }
    const { builder } = pending
    if (wish !== null) pending.wishes.push({ ...wish, scope: sink.scope, index: builder.count })
    builder.add(fields)
    pending.sinks.push(sink)
    pending.numbers.push(number)
    if (builder.count >= MAX_MESSAGES || builder.byteLength >= MAX_BATCH_BYTES) {
      this.#open.delete(topic)
      this.#full.push({ topic, pending })
    }
    if (!this.#isScheduled) {
      this.#isScheduled = true
      setImmediate(() => this.#flush())
    }
  }

  #flush(): void {
    this.#isScheduled = false
    const batches = this.#full
    this.#full = []
    for (const [topic, pending] of this.#open) batches.push({ topic, pending })
    // Not `clear`: an old table points to the next one, and so one that has outlived the young generation kept all that
    // came after it, and every request in it, until the next full collection. That was a fifth of the throughput.
    this.#open = new Map()
    const requests = batches.map(({ topic, pending: { builder, wishes } }) => {
      const batch = builder.finish()
      if (this.#idleBuilders.length < MAX_IDLE_BUILDERS) this.#idleBuilders.push(builder)
      return { topic, batch, wishes: wishes.length === 0 ? undefined : wishes }
    })
    this.#engine.append(requests).then(
      (outcomes) => {
        for (const [i, { topic, pending }] of batches.entries()) deliver(topic, pending, outcomes[i])
      },
      (error) => {
        for (const { pending } of batches) fail(pending, error)
      },
    )
  }
}

/** The answer to one message. */
class OneAnswer implements Sink {
  readonly scope: string
  readonly #resolve: (appended: Appended) => void
  readonly #reject: (error: unknown) => void
  readonly #idempotencyKey: string | undefined

  constructor(
    resolve: (appended: Appended) => void,
    reject: (error: unknown) => void,
    scope: string,
    idempotencyKey: string | undefined,
  ) {
    this.#resolve = resolve
    this.#reject = reject
    this.scope = scope
    this.#idempotencyKey = idempotencyKey
  }

  stored(_number: number, offset: number, receipt: StoreReceipt): void {
    this.#resolve({ outcome: { status: 'stored', offset }, receipt, idempotencyKey: this.#idempotencyKey })
  }

  other(_number: number, appended: Appended): void {
    this.#resolve(appended)
  }

  failed(_number: number, error: unknown): void {
    this.#reject(error)
  }
}

function fail({ sinks, numbers }: Pending, error: unknown): void {
  for (let i = 0; i < sinks.length; i++) (sinks[i] as Sink).failed(numbers[i] as number, error)
}

function deliver(topic: string, pending: Pending, outcome: AppendOutcome | undefined): void {
  if (outcome === undefined || outcome.status === 'not-found') {
    const gone = new SluiceError('TOPIC_NOT_FOUND', `There is no queue or topic '${topic}' any more.`)
    fail(pending, topic.startsWith(RESERVED_NAMES) ? reservedError(topic) : gone)
    return
  }
  const { sinks, numbers, wishes } = pending
  const { receipt } = outcome
  if (outcome.status === 'stored') {
    for (let i = 0; i < sinks.length; i++) {
      ;(sinks[i] as Sink).stored(numbers[i] as number, outcome.offset + i, receipt)
    }
    return
  }
  let wish = 0
  for (let i = 0; i < sinks.length; i++) {
    while (wish < wishes.length && (wishes[wish] as AppendWish).index < i) wish++
    const own = outcome.outcomes[i] as MessageOutcome
    const sink = sinks[i] as Sink
    if (own.status === 'stored') sink.stored(numbers[i] as number, own.offset, receipt)
    else {
      const idempotencyKey = wishes[wish]?.index === i ? wishes[wish]?.idempotencyKey : undefined
      sink.other(numbers[i] as number, { outcome: own, receipt, idempotencyKey })
    }
  }
}
