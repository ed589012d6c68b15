/**
 * Joins the messages of many requests into few batches. Those that come in while the event loop goes once round the
 * sockets travel together: one batch a queue, one call to the engine. There is no timer, so a lone request does not wait.
 */

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
import type { Incoming } from './incoming.ts'

export interface Appended {
  readonly outcome: MessageOutcome
  readonly receipt: StoreReceipt
  readonly idempotencyKey: string | undefined
}

/** Told once: what became of the message, or why nobody can tell. */
export type Done = (appended: Appended | null, error: unknown) => void

interface Waiter {
  readonly idempotencyKey: string | undefined
  readonly done: Done
}

interface Pending {
  readonly builder: BatchBuilder
  readonly wishes: AppendWish[]
  readonly waiters: Waiter[]
}

/** A batch is closed at this size, so that what the ledger applies in one step stays short. */
const MAX_BATCH_BYTES = 4_194_304
const MAX_MESSAGES = Math.min(4_096, MAX_BATCH_MESSAGES)
/** Builders are kept for the next round: their buffers are larger than most messages. */
const MAX_IDLE_BUILDERS = 16

export class Appender {
  readonly #engine: Engine
  readonly #open = new Map<string, Pending>()
  readonly #idleBuilders: BatchBuilder[] = []
  #full: { topic: string; pending: Pending }[] = []
  #isScheduled = false

  constructor(engine: Engine) {
    this.#engine = engine
  }

  /** Stores one message. The outcome comes once it is durable. */
  append(topic: string, incoming: Incoming): Promise<Appended> {
    return new Promise((resolve, reject) => {
      this.push(topic, incoming, (appended, error) => (appended === null ? reject(error) : resolve(appended)))
    })
  }

  /** The same, for many: without a promise for each. */
  push(topic: string, { fields, wish }: Incoming, done: Done): void {
    let pending = this.#open.get(topic)
    if (pending === undefined) {
      pending = { builder: this.#idleBuilders.pop() ?? new BatchBuilder(), wishes: [], waiters: [] }
      this.#open.set(topic, pending)
    }
    if (wish !== null) pending.wishes.push({ ...wish, index: pending.builder.count })
    pending.builder.add(fields)
    pending.waiters.push({ idempotencyKey: wish?.idempotencyKey, done })
    if (pending.builder.count >= MAX_MESSAGES || pending.builder.byteLength >= MAX_BATCH_BYTES) {
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
    this.#open.clear()
    const requests = batches.map(({ topic, pending: { builder, wishes } }) => {
      const batch = builder.finish()
      if (this.#idleBuilders.length < MAX_IDLE_BUILDERS) this.#idleBuilders.push(builder)
      return { topic, batch, wishes: wishes.length === 0 ? undefined : wishes }
    })
    this.#engine.append(requests).then(
      (outcomes) => {
        for (const [i, { topic, pending }] of batches.entries()) deliver(topic, pending.waiters, outcomes[i])
      },
      (error) => {
        for (const { pending } of batches) for (const { done } of pending.waiters) done(null, error)
      },
    )
  }
}

function deliver(topic: string, waiters: readonly Waiter[], outcome: AppendOutcome | undefined): void {
  if (outcome === undefined || outcome.status === 'not-found') {
    const error = new SluiceError('TOPIC_NOT_FOUND', `There is no queue or topic '${topic}' any more.`)
    for (const { done } of waiters) done(null, error)
    return
  }
  const { receipt } = outcome
  for (const [i, { idempotencyKey, done }] of waiters.entries()) {
    const own: MessageOutcome =
      outcome.status === 'mixed'
        ? (outcome.outcomes[i] as MessageOutcome)
        : { status: 'stored', offset: outcome.offset + i }
    done({ outcome: own, receipt, idempotencyKey }, null)
  }
}
