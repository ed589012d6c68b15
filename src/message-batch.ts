/**
 * A batch: the unit in which messages are encoded, moved between threads, stored and handed out.
 *
 * It is encoded once, where the caller is, and its bytes are stored as they are. What the ledger must know of a message
 * (lane, priority, deadline, size) stands in an index of fixed-size entries, so that nothing is parsed to order, admit
 * or hand out; what only people and handlers read (key, headers, payload) stands behind it. Little endian:
 *
 *     at  size  what
 *      0     4  0x01424C53 ("SLB", version 1)
 *      4     4  CRC-32 (zlib) of all bytes from 8 on
 *      8     4  count of messages, 1 to 65,536
 *     12     4  0
 *     16   24n  entries
 *                 0  4  end of this body, counted from the first byte after the entries
 *                 4  4  lane, low 32 bits    lane 0: no key, no order
 *                 8  4  lane, high 21 bits   otherwise a hash of the key (two keys may share a lane: more order, not less)
 *                12  1  priority: 0 high, 1 normal, 2 low
 *                13  1  flags: bit 0 the payload is bytes, not JSON text
 *                14  2  length of the head
 *                16  8  deadline, ms since 1970 as a double; 0: none
 *          ...  bodies: head, then payload
 *                 head (0 bytes without key and headers): u16 length of the key, key in UTF-8, headers as JSON in UTF-8
 */
import { crc32 } from 'node:zlib'
import { SluiceError } from './errors.ts'

const MAGIC = 0x01424c53
const HEADER_BYTES = 16
const ENTRY_BYTES = 24
const FLAG_BYTES = 1

/** The most messages in one batch. */
export const MAX_BATCH_MESSAGES = 65_536
/**
 * The most bytes of one payload, result or kept value, whatever is configured. A log keeps such a thing as one value of at
 * most 16 MiB (a delayed job, a dead letter); this leaves room for key, headers and what stands beside it.
 */
export const MAX_PAYLOAD_BYTES = 15 * 1024 ** 2
/** The longest key in bytes of UTF-8. */
export const MAX_KEY_BYTES = 1_024
/** The most bytes of headers (as JSON) of one message. */
export const MAX_HEADER_BYTES = 32_768

/** `high` goes before `normal` goes before `low`, among the heads of lanes. */
export type Priority = 'high' | 'normal' | 'low'
export const PRIORITIES: readonly Priority[] = ['high', 'normal', 'low']
export const PRIORITY_NORMAL = 1

/** Names to text values that travel with a message. */
export type Headers = Readonly<Record<string, string>>

/** What a batch keeps of one message. */
export interface MessageFields {
  /** JSON text, or bytes that are kept as they are. */
  readonly payload: string | Uint8Array
  /** Whether the payload is bytes rather than JSON text. Default: whether it is given as bytes. */
  readonly isBytes?: boolean
  readonly key?: string | undefined
  readonly headers?: Headers | undefined
  /** An index into {@link PRIORITIES}. Default 1. */
  readonly priority?: number
  /** Milliseconds since 1970; 0: none. */
  readonly deadlineMs?: number
}

/**
 * The lane of a key: 53 bits, never 0. Two FNV-1a hashes with unlike bases, since one of 32 bits would put every pair of
 * 100,000 keys in one lane with a chance of 70 %. Stored, so it never changes within a format version.
 */
export function laneOfKey(key: string): number {
  let low = 0x811c9dc5
  let high = 0x1b873593
  for (let i = 0; i < key.length; i++) {
    const unit = key.charCodeAt(i)
    low = Math.imul(low ^ unit, 0x01000193)
    high = Math.imul(high ^ unit, 0x85ebca6b)
    high ^= high >>> 13
  }
  const lane = (high & 0x1fffff) * 0x1_0000_0000 + (low >>> 0)
  return lane === 0 ? 1 : lane
}

/** Collects messages into a batch. Reused: `finish` hands out the bytes and leaves it empty. */
export class BatchBuilder {
  count = 0
  #bodyBytes = 0
  #bodies = Buffer.allocUnsafeSlow(16_384)
  #entries = new DataView(new ArrayBuffer(ENTRY_BYTES * 256))

  /** Bytes that `finish` would give now. */
  get byteLength(): number {
    return HEADER_BYTES + this.count * ENTRY_BYTES + this.#bodyBytes
  }

  /** Adds a message; its index in the batch is the count before. The caller has checked key, headers and sizes. */
  add(message: MessageFields): void {
    const start = this.#bodyBytes
    const { payload, key, headers } = message
    const isText = typeof payload === 'string'
    let headBytes = 0
    if (key !== undefined || headers !== undefined) {
      const json = headers === undefined ? '' : JSON.stringify(headers)
      if (typeof json !== 'string' || json.length > MAX_HEADER_BYTES) {
        throw new SluiceError(
          'INVALID_OPTION',
          `headers are an object of texts, at most ${MAX_HEADER_BYTES} bytes as JSON`,
        )
      }
      this.#reserve(2 + (key === undefined ? 0 : key.length * 3) + json.length * 3)
      const keyBytes = key === undefined ? 0 : this.#bodies.write(key, start + 2, 'utf8')
      this.#bodies.writeUInt16LE(keyBytes, start)
      headBytes = 2 + keyBytes + (json === '' ? 0 : this.#bodies.write(json, start + 2 + keyBytes, 'utf8'))
      this.#bodyBytes = start + headBytes
    }
    if (isText) {
      this.#reserve(payload.length * 3)
      this.#bodyBytes += this.#bodies.write(payload, this.#bodyBytes, 'utf8')
    } else {
      this.#reserve(payload.byteLength)
      this.#bodies.set(payload, this.#bodyBytes)
      this.#bodyBytes += payload.byteLength
    }
    const lane = key === undefined ? 0 : laneOfKey(key)
    const at = this.count * ENTRY_BYTES
    if (at === this.#entries.byteLength) this.#growEntries()
    const entries = this.#entries
    entries.setUint32(at, this.#bodyBytes, true)
    entries.setUint32(at + 4, lane % 0x1_0000_0000, true)
    entries.setUint32(at + 8, Math.floor(lane / 0x1_0000_0000), true)
    entries.setUint8(at + 12, message.priority ?? PRIORITY_NORMAL)
    entries.setUint8(at + 13, (message.isBytes ?? !isText) ? FLAG_BYTES : 0)
    entries.setUint16(at + 14, headBytes, true)
    entries.setFloat64(at + 16, message.deadlineMs ?? 0, true)
    this.count++
  }

  /** The batch, in an ArrayBuffer of its own so that it can be moved to another thread. */
  finish(): Uint8Array<ArrayBuffer> {
    const bytes = allocate(this.byteLength)
    const entryBytes = this.count * ENTRY_BYTES
    bytes.set(new Uint8Array(this.#entries.buffer, 0, entryBytes), HEADER_BYTES)
    bytes.set(this.#bodies.subarray(0, this.#bodyBytes), HEADER_BYTES + entryBytes)
    seal(bytes, this.count)
    this.count = 0
    this.#bodyBytes = 0
    if (this.#bodies.byteLength > 1_048_576) this.#bodies = Buffer.allocUnsafeSlow(16_384)
    return bytes
  }

  #reserve(bytes: number): void {
    const needed = this.#bodyBytes + bytes
    if (needed <= this.#bodies.byteLength) return
    const grown = Buffer.allocUnsafeSlow(Math.max(needed, this.#bodies.byteLength * 2))
    grown.set(this.#bodies.subarray(0, this.#bodyBytes))
    this.#bodies = grown
  }

  #growEntries(): void {
    const grown = new DataView(new ArrayBuffer(this.#entries.byteLength * 4))
    new Uint8Array(grown.buffer).set(new Uint8Array(this.#entries.buffer))
    this.#entries = grown
  }
}

/** Reads a batch without copying it. Indexes run from 0 to `count - 1` and are not checked. */
export class BatchView {
  readonly bytes: Uint8Array
  readonly count: number
  readonly #view: DataView
  readonly #bodies: number
  #text: Buffer | undefined

  constructor(bytes: Uint8Array) {
    this.bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.count = this.#view.getUint32(8, true)
    this.#bodies = HEADER_BYTES + this.count * ENTRY_BYTES
  }

  /** The lane of a message; 0: none. */
  lane(index: number): number {
    const at = HEADER_BYTES + index * ENTRY_BYTES
    return this.#view.getUint32(at + 8, true) * 0x1_0000_0000 + this.#view.getUint32(at + 4, true)
  }

  priority(index: number): number {
    return this.#view.getUint8(HEADER_BYTES + index * ENTRY_BYTES + 12)
  }

  deadlineMs(index: number): number {
    return this.#view.getFloat64(HEADER_BYTES + index * ENTRY_BYTES + 16, true)
  }

  /** What a message counts against a limit in bytes: its body and its entry. */
  size(index: number): number {
    return this.#end(index) - this.#start(index) + ENTRY_BYTES
  }

  isBytes(index: number): boolean {
    return (this.#view.getUint8(HEADER_BYTES + index * ENTRY_BYTES + 13) & FLAG_BYTES) !== 0
  }

  key(index: number): string | undefined {
    if (this.lane(index) === 0) return undefined
    const start = this.#bodies + this.#start(index)
    return this.#buffer().toString('utf8', start + 2, start + 2 + this.#view.getUint16(start, true))
  }

  headers(index: number): Headers | undefined {
    const headBytes = this.#headBytes(index)
    if (headBytes === 0) return undefined
    const start = this.#bodies + this.#start(index)
    const json = start + 2 + this.#view.getUint16(start, true)
    if (json === start + headBytes) return undefined
    return JSON.parse(this.#buffer().toString('utf8', json, start + headBytes)) as Headers
  }

  /** The payload, without a copy: the bytes are the batch's. */
  payload(index: number): Uint8Array {
    const start = this.#bodies + this.#start(index) + this.#headBytes(index)
    return this.bytes.subarray(start, this.#bodies + this.#end(index))
  }

  payloadText(index: number): string {
    const start = this.#bodies + this.#start(index) + this.#headBytes(index)
    return this.#buffer().toString('utf8', start, this.#bodies + this.#end(index))
  }

  /** Copies the bodies and entries of `from` to `to` (exclusive) into `target`; used by {@link gatherBatch}. */
  copyRun(from: number, to: number, target: Uint8Array, entryAt: number, bodyAt: number, bodyStart: number): number {
    const first = this.#start(from)
    const last = this.#end(to - 1)
    target.set(this.bytes.subarray(HEADER_BYTES + from * ENTRY_BYTES, HEADER_BYTES + to * ENTRY_BYTES), entryAt)
    target.set(this.bytes.subarray(this.#bodies + first, this.#bodies + last), bodyStart + bodyAt)
    const shift = bodyAt - first
    if (shift !== 0) {
      const view = new DataView(target.buffer, target.byteOffset, target.byteLength)
      for (let i = from, at = entryAt; i < to; i++, at += ENTRY_BYTES) {
        view.setUint32(at, this.#end(i) + shift, true)
      }
    }
    return bodyAt + last - first
  }

  #start(index: number): number {
    return index === 0 ? 0 : this.#end(index - 1)
  }

  #end(index: number): number {
    return this.#view.getUint32(HEADER_BYTES + index * ENTRY_BYTES, true)
  }

  #headBytes(index: number): number {
    return this.#view.getUint16(HEADER_BYTES + index * ENTRY_BYTES + 14, true)
  }

  #buffer(): Buffer {
    this.#text ??= Buffer.from(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength)
    return this.#text
  }
}

/** A run of neighbours in one batch: `from` to `to`, exclusive. */
export interface BatchRun {
  readonly batch: BatchView
  readonly from: number
  readonly to: number
}

/** A new batch of the messages in `runs`, in that order. `sealed` false leaves out the checksum, where nothing is stored. */
export function gatherBatch(runs: readonly BatchRun[], sealed = true): Uint8Array<ArrayBuffer> {
  let count = 0
  let bodyBytes = 0
  for (const { batch, from, to } of runs) {
    count += to - from
    for (let i = from; i < to; i++) bodyBytes += batch.size(i) - ENTRY_BYTES
  }
  const bodyStart = HEADER_BYTES + count * ENTRY_BYTES
  const bytes = allocate(bodyStart + bodyBytes)
  let entryAt = HEADER_BYTES
  let bodyAt = 0
  for (const { batch, from, to } of runs) {
    bodyAt = batch.copyRun(from, to, bytes, entryAt, bodyAt, bodyStart)
    entryAt += (to - from) * ENTRY_BYTES
  }
  seal(bytes, count, sealed)
  return bytes
}

/** What is wrong with the bytes of a batch, or null. Checks the checksum and every place that a reader follows (P13). */
export function findBatchDamage(bytes: Uint8Array): string | null {
  if (bytes.byteLength < HEADER_BYTES + ENTRY_BYTES) return `a batch of ${bytes.byteLength} bytes is too short`
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (view.getUint32(0, true) !== MAGIC) return 'a batch does not begin with its mark'
  if (view.getUint32(4, true) !== crc32(bytes.subarray(8))) return 'the checksum of a batch does not match'
  const count = view.getUint32(8, true)
  const bodies = HEADER_BYTES + count * ENTRY_BYTES
  if (count === 0 || count > MAX_BATCH_MESSAGES || bodies > bytes.byteLength) return `a batch counts ${count} messages`
  let end = 0
  for (let i = 0; i < count; i++) {
    const at = HEADER_BYTES + i * ENTRY_BYTES
    const next = view.getUint32(at, true)
    const head = view.getUint16(at + 14, true)
    if (next < end + head || view.getUint8(at + 12) >= PRIORITIES.length) return `entry ${i} of a batch is malformed`
    if (bodies + next > bytes.byteLength) return `entry ${i} of a batch points past its end`
    const hasLane = view.getUint32(at + 4, true) !== 0 || view.getUint32(at + 8, true) !== 0
    if (hasLane && head < 2) return `entry ${i} of a batch has a lane and no key`
    if (head > 0 && (head < 2 || 2 + view.getUint16(bodies + end, true) > head))
      return `the head of entry ${i} is malformed`
    end = next
  }
  return bodies + end === bytes.byteLength ? null : 'a batch has bytes behind its last message'
}

function seal(bytes: Uint8Array, count: number, sealed = true): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  view.setUint32(0, MAGIC, true)
  view.setUint32(8, count, true)
  view.setUint32(12, 0, true)
  view.setUint32(4, sealed ? crc32(bytes.subarray(8)) : 0, true)
}

function allocate(bytes: number): Uint8Array<ArrayBuffer> {
  const buffer = Buffer.allocUnsafeSlow(bytes)
  return new Uint8Array(buffer.buffer as ArrayBuffer, 0, bytes)
}
