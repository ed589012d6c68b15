/**
 * Letters, in the topic NAMESPACE.letters: everybody reads all of them, from when the mailbox was opened on, and picks what
 * is for it by the key (an address, `owner` or `all`). What waits while a batch is under way leaves with the next one.
 */
import type { Mailbox } from '../contract.ts'
import { listOffset } from './check.ts'
import { backOffMs, type Cluster, type Line, pause } from './cluster.ts'
import { asBuffer, fetchRecords, produce } from './records.ts'
import { MAX_MESSAGE_BYTES } from './topics.ts'

/** Marks a key as ours. */
const MARK = 'SL1:'
const WAIT_MS = 5_000
const REQUEST_MS = 5_000
const MAX_BATCH_BYTES = 1024 ** 2
/** Of letters that wait while Kafka is away; beyond it the oldest are lost. Who sent them sends them again. */
const MAX_WAITING_BYTES = 64 * 1024 ** 2
/** Batches under way, and attempts of each before its letters are lost. */
const AT_ONCE = 2
const ATTEMPTS = 3

interface Waiting {
  readonly key: Buffer
  readonly value: Buffer
  readonly sent: () => void
}

export async function openMailbox(
  cluster: Cluster,
  topic: string,
  address: string,
  onLetter: (letter: Uint8Array) => void,
): Promise<KafkaMailbox> {
  const box = new KafkaMailbox(cluster, topic, address, onLetter)
  await box.begin()
  return box
}

class KafkaMailbox implements Mailbox {
  readonly address: string
  readonly #cluster: Cluster
  readonly #topic: string
  readonly #onLetter: (letter: Uint8Array) => void
  readonly #inLine: Line
  readonly #outLine: Line
  readonly #closing = new AbortController()
  readonly #waiting: Waiting[] = []
  #waitingBytes = 0
  #underWay = 0
  #isOwner = false
  #reading: Promise<void> = Promise.resolve()
  /** Why letters are not read now; null: they are. */
  problem: string | null = null

  constructor(cluster: Cluster, topic: string, address: string, onLetter: (letter: Uint8Array) => void) {
    this.address = address
    this.#cluster = cluster
    this.#topic = topic
    this.#onLetter = onLetter
    this.#inLine = cluster.openLine(topic)
    this.#outLine = cluster.openLine(topic)
  }

  /** From now on letters arrive; where Kafka does not answer, as soon as it does. */
  async begin(): Promise<void> {
    const end = await listOffset(this.#cluster, this.#inLine, this.#topic, -1n)
    this.#reading = this.#read(end.ok ? end.value : null)
  }

  send(to: string, letter: Uint8Array): Promise<void> {
    if (this.#closing.signal.aborted) return Promise.resolve()
    return new Promise((sent) => {
      this.#waiting.push({ key: Buffer.from(`${MARK}${to}`), value: asBuffer(letter), sent })
      this.#waitingBytes += letter.byteLength
      while (this.#waitingBytes > MAX_WAITING_BYTES && this.#waiting.length > 1)
        for (const one of this.#take(1)) one.sent()
      if (this.#underWay < AT_ONCE) void this.#sendWaiting()
    })
  }

  async serveOwner(isOwner: boolean): Promise<void> {
    this.#isOwner = isOwner
  }

  async close(): Promise<void> {
    this.#closing.abort()
    this.#inLine.close()
    this.#outLine.close()
    for (const { sent } of this.#take(this.#waiting.length)) sent()
    await this.#reading
  }

  async #sendWaiting(): Promise<void> {
    this.#underWay++
    // What is said in the same turn of the event loop goes together.
    await Promise.resolve()
    while (this.#waiting.length > 0) {
      let [count, bytes] = [0, 0]
      while (count < this.#waiting.length && (count === 0 || bytes < MAX_BATCH_BYTES)) {
        const size = this.#waiting[count]?.value.byteLength ?? 0
        if (count > 0 && bytes + size > MAX_BATCH_BYTES) break
        bytes += size
        count++
      }
      await this.#sendBatch(this.#take(count))
    }
    this.#underWay--
  }

  #take(count: number): Waiting[] {
    const taken = this.#waiting.splice(0, count)
    for (const { value } of taken) this.#waitingBytes -= value.byteLength
    return taken
  }

  async #sendBatch(letters: readonly Waiting[]): Promise<void> {
    const { library } = this.#cluster
    for (let attempt = 0; attempt < ATTEMPTS && !this.#closing.signal.aborted; attempt++) {
      const answer = await this.#outLine.call((connection) =>
        produce(library, connection, letters, { topic: this.#topic, acks: 1, timeoutMs: REQUEST_MS }),
      )
      if (answer.ok) break
      await pause(backOffMs(attempt), this.#closing.signal)
    }
    for (const { sent } of letters) sent()
  }

  async #read(from: bigint | null): Promise<void> {
    const { signal } = this.#closing
    const { library } = this.#cluster
    for (let next = from, failures = 0; !signal.aborted; ) {
      if (next === null) {
        const end = await listOffset(this.#cluster, this.#inLine, this.#topic, -1n)
        if (end.ok) next = end.value
        else await this.#fail(end.text, failures++)
        continue
      }
      const offset = next
      const piece = await this.#inLine
        .call((connection, { topicId }) =>
          fetchRecords(library, connection, { topicId, offset, waitMs: WAIT_MS, maxBytes: MAX_MESSAGE_BYTES }),
        )
        // Damage: what it hits is lost, as letters may be.
        .catch(() => ({ ok: false, code: 'OFFSET_OUT_OF_RANGE', wasSent: true, text: 'a letter is damaged' }) as const)
      if (!piece.ok) {
        // Too slow: what was removed is lost. Where the topic is another one, its offsets are others, too.
        if (piece.code === 'OFFSET_OUT_OF_RANGE') next = null
        await this.#fail(piece.text, failures++)
        continue
      }
      failures = 0
      this.problem = null
      next = piece.value.next
      for (const { key, value } of piece.value.records) if (!signal.aborted && this.#isForUs(key)) this.#deliver(value)
    }
  }

  async #fail(text: string, attempt: number): Promise<void> {
    this.problem = `Letters cannot be read: ${text}. Processes do not hear from each other until they can.`
    await pause(backOffMs(attempt), this.#closing.signal)
  }

  #isForUs(key: Buffer | null): boolean {
    const to = key?.toString() ?? ''
    if (!to.startsWith(MARK)) return false
    const name = to.slice(MARK.length)
    return name === 'all' || name === this.address || (name === 'owner' && this.#isOwner)
  }

  /** A copy: a small letter must not keep the megabytes that came with it. */
  #deliver(value: Buffer): void {
    this.#onLetter(new Uint8Array(value))
  }
}

export type { KafkaMailbox }
