/**
 * What the ledger stores, key by key, and the view through which it reads what it is about to store.
 *
 *     n                         JSON {topic, group}: the next ids
 *     e                         JSON RestoreRow: the data was restored from a backup, and nobody took it up yet
 *     t/NAME                    JSON TopicRow: a queue or topic, its id, tag and settings
 *     T/TOPIC                   JSON TopicCounters
 *     R/TOPIC                   JSON: the marks of retention.ts
 *     g/GROUP                   JSON GroupRow: a group, its topic, start and settings
 *     c/GROUP                   5 doubles: floor, fence, settled messages, settled bytes, dead letters
 *     f/TOPIC/NAME              JSON number: the last fence of a group that was removed
 *     s/GROUP/CHUNK             settled.ts: 1,024 bytes of bitmap, or one byte: all
 *     l/GROUP/FENCE             JSON LeaseRow
 *     r/GROUP/OFFSET            JSON Trouble: a message that was tried and is not settled
 *     o/GROUP/OFFSET            JSON OutcomeRow: how a job ended, where it is more than "done at the first attempt"
 *     x/GROUP/OFFSET            a dead letter: u32 length of JSON, JSON DeadRow, a batch of one message
 *     k/GROUP/OFFSET/NAME       JSON text: what `once` keeps
 *     d/TOPIC/DUE-SERIAL        a delayed job: a double (accepted at), a batch of one message
 *     m/TOPIC/DUE-SERIAL        JSON MovedRow: where a delayed job went
 *     b/TOPIC/PLACE             JSON PromiseRow: the callback that a job will get; PLACE is its OFFSET, or `s` DUE-SERIAL
 *     z/QUEUE/NAME              JSON: a schedule (schedules.ts)
 *     y                         JSON number: rises with each change of a schedule
 *     i/TOPIC/BUCKET/HASH       JSON IdempotencyRow; a bucket is named by the time at which it begins
 *
 * Numbers in keys are in hexadecimal, 14 digits, so that their order is the order of the keys.
 */
import type { LogState } from '../logs/contract.ts'

export class StateView {
  readonly #base: LogState
  #changes = new Map<string, Uint8Array | null>()

  constructor(base: LogState) {
    this.#base = base
  }

  /** What `take` would give. */
  get pending(): number {
    return this.#changes.size
  }

  get(key: string): Uint8Array | undefined {
    const changed = this.#changes.get(key)
    return changed === undefined ? this.#base.get(key) : (changed ?? undefined)
  }

  getJson<T>(key: string): T | undefined {
    const bytes = this.get(key)
    return bytes === undefined ? undefined : decodeJson<T>(bytes)
  }

  put(key: string, value: Uint8Array): void {
    this.#changes.set(key, value)
  }

  putJson(key: string, value: unknown): void {
    this.#changes.set(key, encodeText(JSON.stringify(value)))
  }

  delete(key: string): void {
    this.#changes.set(key, null)
  }

  /** Entries with `from <= key < to`, ascending, at most `limit`, as they will be after the commit. */
  range(from: string, to: string, limit: number): readonly (readonly [string, Uint8Array])[] {
    const changed = []
    for (const entry of this.#changes) if (entry[0] >= from && entry[0] < to) changed.push(entry)
    const stored = this.#base.range(from, to, limit + changed.length)
    if (changed.length === 0) return stored
    const merged = new Map<string, Uint8Array | null>(stored)
    for (const [key, value] of changed) merged.set(key, value)
    const found: (readonly [string, Uint8Array])[] = []
    for (const [key, value] of [...merged].sort(([a], [b]) => (a < b ? -1 : 1))) {
      if (value !== null && found.length < limit) found.push([key, value])
    }
    return found
  }

  /** Entries whose key begins with `prefix`. */
  under(prefix: string, limit: number): readonly (readonly [string, Uint8Array])[] {
    return this.range(prefix, `${prefix}\x7f`, limit)
  }

  /** The changes since the last time, which the caller commits. */
  take(): ReadonlyMap<string, Uint8Array | null> {
    const taken = this.#changes
    this.#changes = new Map()
    return taken
  }
}

export function hex(value: number): string {
  return value.toString(16).padStart(14, '0')
}

/** The number that `hex` wrote at the end of a key. */
export function unhex(text: string): number {
  return Number.parseInt(text, 16)
}

export function encodeText(text: string): Uint8Array {
  return Buffer.from(text, 'utf8')
}

export function decodeJson<T>(bytes: Uint8Array): T {
  return JSON.parse(decodeText(bytes)) as T
}

export function decodeText(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8')
}
