/**
 * Writes entries, and knows of each whether it counts. One writer lives as long as one grant.
 *
 * The first record of a grant is its **grant record**; the offset of that, plus one, is the epoch of the grant. So epochs
 * rise, whoever takes the journal, and nothing has to be counted or kept. Every later record carries the epoch in its key.
 *
 * Kafka tells where each batch stands, and only owners write: so as long as batches follow each other without a gap, nobody
 * else has written, and in particular no grant record of a later owner stands before them. After a gap the records within
 * it are read. A later grant among them: `lost`. None: they are those of an owner that was fenced off, and do not count.
 * Everybody who replays the journal draws the same line (`Fence`).
 *
 *     offset   100     101    102    103     104    105
 *              grant   entry  entry  grant   entry  entry
 *     epoch    101     101    101    104     101    104
 *                                            └ told `lost`, and overlooked
 *
 * That costs one round trip an append, all replicas in sync, and nothing of Kafka's transactions: no coordinator, no markers,
 * no epoch of 16 bits. (Measured and rejected: docs/decisions.)
 *
 * Attempts are repeated with the sequence number of an idempotent producer, so the broker stores each batch once, and answers
 * the place of the first one: that is how an outcome that was lost with a connection is found out.
 *
 * Invariants
 *  1. One batch is under way at a time; a sequence number belongs to one batch for good, unless nothing of it can be there.
 *  2. `durable` is answered only for batches with no later grant between the grant record and themselves.
 */
import { strict as assert } from 'node:assert'
import { SluiceError } from '../../errors.ts'
import type { Answer, Failure } from './answer.ts'
import { listOffset } from './check.ts'
import { backOffMs, type Cluster, type Line, pause } from './cluster.ts'
import { asBuffer, decodeKey, encodeKey, fetchRecords, type Produced, produce, type RecordHead } from './records.ts'
import { MAX_MESSAGE_BYTES } from './topics.ts'

/** How long an outcome is looked for: longer than Kafka waits for a replica that lags (replica.lag.time.max.ms). */
export const PATIENCE_MS = 60_000
/** How long fewer replicas than needed are waited for, before that is `full`. */
const FULL_MS = 3_000
const REQUEST_MS = 5_000
const MAX_BATCH_BYTES = MAX_MESSAGE_BYTES - 1024 ** 2
const RECORD_OVERHEAD_BYTES = 64
const GAP_BYTES = 4 * 1024 ** 2
const SEQUENCES = 2 ** 31

/** Nothing of the attempt was kept. */
const REFUSED = new Set([
  'TOPIC_AUTHORIZATION_FAILED',
  'CLUSTER_AUTHORIZATION_FAILED',
  'MESSAGE_TOO_LARGE',
  'RECORD_LIST_TOO_LARGE',
  'INVALID_RECORD',
  'POLICY_VIOLATION',
  'INVALID_REQUIRED_ACKS',
  'UNSUPPORTED_VERSION',
])
/** The broker does not know of batches that it had acknowledged. */
const FORGOTTEN = new Set(['OUT_OF_ORDER_SEQUENCE_NUMBER', 'UNKNOWN_PRODUCER_ID', 'DUPLICATE_SEQUENCE_NUMBER'])

export type Written =
  | { readonly status: 'durable'; readonly places: readonly string[] }
  | { readonly status: 'full'; readonly reason: string }
  | { readonly status: 'lost' }

/** Tells, in order, which records count. */
export class Fence {
  /** The highest epoch that was met. */
  epoch = 0

  /** Whether it is an entry, and not one of an owner that was fenced off before it. */
  counts({ kind, epoch }: RecordHead, offset: bigint): boolean {
    const of = kind === 'grant' ? Number(offset) + 1 : epoch
    if (of > this.epoch) this.epoch = of
    return kind === 'entry' && epoch === this.epoch
  }
}

export class Writer {
  readonly epoch: number
  readonly #cluster: Cluster
  readonly #line: Line
  readonly #topic: string
  readonly #producerId: bigint
  readonly #producerEpoch: number
  readonly #closing: AbortSignal
  #sequence = 1
  #next: bigint
  appendedBytes = 0

  private constructor(
    { cluster, line, topic, closing }: WriterOptions,
    producer: { producerId: bigint; producerEpoch: number },
    granted: bigint,
  ) {
    this.#cluster = cluster
    this.#line = line
    this.#topic = topic
    this.#closing = closing
    this.#producerId = producer.producerId
    this.#producerEpoch = producer.producerEpoch
    this.#next = granted + 1n
    this.epoch = Number(granted) + 1
  }

  /** Fences off whoever wrote before. One attempt; a second one is another grant. */
  static async open(options: WriterOptions): Promise<Answer<Writer>> {
    const { cluster, line, topic, address } = options
    const { library } = cluster
    // No transactional id: the identity of a producer is only for telling its attempts apart.
    const begun = await cluster.ask((connection) => library.initProducerIdV5.api.async(connection, null, 0, -1n, -1))
    if (!begun.ok) return begun
    const { producerId: id, producerEpoch: epoch } = begun.value
    const record = { key: encodeKey('grant', 0), value: Buffer.from(address) }
    const producer = { id, epoch, sequence: 0 }
    const granted = await line.call((connection) =>
      produce(library, connection, [record], { topic, acks: -1, timeoutMs: REQUEST_MS, producer }),
    )
    return granted.ok ? { ok: true, value: new Writer(options, begun.value, granted.value.baseOffset) } : granted
  }

  /** Where the journal ends, as far as this writer knows. */
  get next(): bigint {
    return this.#next
  }

  /** Rejects with a SluiceError when the outcome, or the journal, is not what it was; the grant ends with that. */
  async write(entries: readonly Uint8Array[]): Promise<Written> {
    const places: string[] = []
    for (const batch of splitEntries(entries)) {
      const written = await this.#writeBatch(batch, places.length > 0)
      if (written.status !== 'durable') return written
      places.push(...written.places)
    }
    return { status: 'durable', places }
  }

  async #writeBatch(entries: readonly Uint8Array[], isContinued: boolean): Promise<Written> {
    const key = encodeKey('entry', this.epoch)
    const records = entries.map((bytes) => ({ key, value: asBuffer(bytes) }))
    const began = performance.now()
    /** Why it may be kept, in spite of what later attempts say; null: nothing of it is there. */
    let doubt: string | null = isContinued ? 'a part before it is stored' : null
    for (let attempt = 0; ; attempt++) {
      const written = await this.#attempt(records)
      if (written.ok) return this.#judge(written.value, entries, began)
      const { code, text, wasSent } = written
      if (FORGOTTEN.has(code)) throw await this.#explainForgotten(written)
      if (REFUSED.has(code)) throw refuse(this.#topic, written)
      const isShort = code === 'NOT_ENOUGH_REPLICAS'
      if (wasSent && !isShort) doubt ??= `${code}: ${text}`
      const passed = performance.now() - began
      if (isShort && doubt === null && passed > FULL_MS) {
        const reason = `Fewer replicas of ${this.#topic} are in sync than min.insync.replicas asks for. Start the brokers that are away.`
        return { status: 'full', reason }
      }
      if (passed > PATIENCE_MS || this.#closing.aborted)
        throw new SluiceError(
          'UNKNOWN',
          `Whether Kafka stored the entries could not be found out: ${doubt ?? code}, then ${text}`,
        )
      await pause(backOffMs(attempt), this.#closing)
    }
  }

  #attempt(records: readonly { readonly key: Buffer; readonly value: Buffer }[]): Promise<Answer<Produced>> {
    const producer = { id: this.#producerId, epoch: this.#producerEpoch, sequence: this.#sequence }
    return this.#line.call((connection) =>
      produce(this.#cluster.library, connection, records, {
        topic: this.#topic,
        acks: -1,
        timeoutMs: REQUEST_MS,
        producer,
      }),
    )
  }

  /** Invariant 2. */
  async #judge({ baseOffset }: Produced, entries: readonly Uint8Array[], began: number): Promise<Written> {
    if (baseOffset < this.#next)
      throw changed(`it stored an entry at offset ${baseOffset}, where ${this.#next} comes next`)
    if (baseOffset > this.#next && (await this.#isFenced(baseOffset, began))) return { status: 'lost' }
    this.#next = baseOffset + BigInt(entries.length)
    this.#sequence = (this.#sequence + entries.length) % SEQUENCES
    for (const { byteLength } of entries) this.appendedBytes += byteLength
    return { status: 'durable', places: entries.map((_, at) => `${baseOffset + BigInt(at)}`) }
  }

  /** Whether a later grant stands between what was known and the batch at `end`. */
  async #isFenced(end: bigint, began: number): Promise<boolean> {
    const fence = new Fence()
    let foreign: bigint | null = null
    for (let attempt = 0, offset = this.#next; offset < end; ) {
      const from = offset
      const piece = await this.#line.call((connection, { topicId }) =>
        fetchRecords(this.#cluster.library, connection, { topicId, offset: from, waitMs: 1_000, maxBytes: GAP_BYTES }),
      )
      if (!piece.ok) {
        if (performance.now() - began > PATIENCE_MS || this.#closing.aborted)
          throw new SluiceError(
            'UNKNOWN',
            `Whether another process took the journal could not be found out: ${piece.text}.`,
          )
        await pause(backOffMs(attempt++), this.#closing)
        continue
      }
      for (const { key, offset: at } of piece.value.records) {
        if (at >= end) continue
        const head = decodeKey(key)
        if (head === null) foreign ??= at
        else fence.counts(head, at)
      }
      offset = piece.value.next
    }
    if (fence.epoch > this.epoch) return true
    // Nobody can read the journal past it: to acknowledge what stands behind it would be to lose that.
    if (foreign !== null) throw foreignRecord(this.#topic, foreign)
    return false
  }

  async #explainForgotten(failure: Failure): Promise<SluiceError> {
    const end = await listOffset(this.#cluster, this.#line, this.#topic, -1n)
    if (end.ok && end.value < this.#next)
      return changed(`it ends at offset ${end.value}, where ${this.#next} comes next`)
    return new SluiceError('UNKNOWN', `Whether Kafka stored the entries could not be found out: ${failure.text}.`)
  }
}

export interface WriterOptions {
  readonly cluster: Cluster
  readonly line: Line
  readonly topic: string
  readonly address: string
  readonly closing: AbortSignal
}

function* splitEntries(entries: readonly Uint8Array[]): Generator<readonly Uint8Array[]> {
  let batch: Uint8Array[] = []
  let bytes = 0
  for (const entry of entries) {
    assert(entry.byteLength < MAX_BATCH_BYTES)
    if (batch.length > 0 && bytes + entry.byteLength > MAX_BATCH_BYTES) {
      yield batch
      batch = []
      bytes = 0
    }
    batch.push(entry)
    bytes += entry.byteLength + RECORD_OVERHEAD_BYTES
  }
  if (batch.length > 0) yield batch
}

function changed(what: string): SluiceError {
  return new SluiceError(
    'ENGINE_CHANGED',
    `Kafka lost entries of the journal that it had acknowledged: ${what}. It lost the end of its log (a power cut before a sync, an unclean election), or the topic was made anew.`,
  )
}

function foreignRecord(topic: string, offset: bigint): SluiceError {
  return new SluiceError(
    'FOREIGN_DATA',
    `The topic ${topic} has a record at offset ${offset} that Sluice did not write. Give another \`namespace\`, and keep others from writing to this one.`,
    { topic, offset: `${offset}` },
  )
}

function refuse(topic: string, { code, text }: Failure): SluiceError {
  if (code.endsWith('AUTHORIZATION_FAILED'))
    return new SluiceError(
      'UNAUTHENTICATED',
      `Kafka does not allow the user of the URL to write the topic ${topic} any more.`,
    )
  return new SluiceError('UNSUPPORTED', `Kafka refuses what Sluice writes to the topic ${topic} (${code}): ${text}`)
}
