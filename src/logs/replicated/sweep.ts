/**
 * A sweep: everything that is alive, a piece at a time. Keys in their order, then the batches of each topic that was there
 * when it began; what came later stands in the journal behind its start anyway.
 */
import type { StoredBatch } from '../contract.ts'
import type { Cache } from './cache.ts'
import type { Place } from './entry.ts'

/** With each commit of n bytes, 2 n are copied, and this much at least. */
const LEAST_BYTES = 65_536
const KEYS_AT_ONCE = 256
const KEYS_END = '\x7f'

export interface Copies {
  readonly batches: readonly StoredBatch[]
  readonly state: readonly (readonly [key: string, value: Uint8Array])[]
}

export class Sweep {
  /** The entry with its first copies. */
  readonly start: Place
  /** Where the broker has it. */
  startPlace: string | null = null
  copiedBytes = 0
  readonly #cache: Cache
  /** The next key; null: all are done. */
  #key: string | null = ''
  readonly #topics: { readonly id: number; next: number; readonly head: number }[]

  constructor(cache: Cache, start: Place) {
    this.#cache = cache
    this.start = start
    this.#topics = [...cache.topics].map(({ id, name }) => {
      const { earliest, head } = cache.declare({ id, name, partitions: 1 })
      return { id, next: earliest, head }
    })
  }

  get isDone(): boolean {
    return this.#key === null && this.#topics.length === 0
  }

  /** The next copies, for a commit of so many bytes. */
  next(bytes: number): Copies {
    const limit = this.copiedBytes + Math.max(LEAST_BYTES, 2 * bytes)
    const state = this.#copyState(limit)
    const batches = this.#copyBatches(limit)
    return { state, batches }
  }

  #copyState(limit: number): (readonly [string, Uint8Array])[] {
    const state: (readonly [string, Uint8Array])[] = []
    while (this.#key !== null && this.copiedBytes < limit) {
      const found = this.#cache.state.range(this.#key, KEYS_END, KEYS_AT_ONCE)
      for (const entry of found) {
        state.push(entry)
        this.copiedBytes += entry[0].length + entry[1].byteLength
        this.#key = `${entry[0]}\0`
        if (this.copiedBytes >= limit) return state
      }
      if (found.length < KEYS_AT_ONCE) this.#key = null
    }
    return state
  }

  #copyBatches(limit: number): StoredBatch[] {
    const batches: StoredBatch[] = []
    while (this.#key === null && this.copiedBytes < limit) {
      const topic = this.#topics[0]
      if (topic === undefined) return batches
      const found = topic.next < topic.head ? this.#cache.read(topic.id, topic.next, limit - this.copiedBytes) : []
      for (const batch of found) {
        if (batch.baseOffset >= topic.head) break
        batches.push(batch)
        this.copiedBytes += batch.bytes.byteLength
      }
      const last = found.at(-1)
      topic.next = last === undefined ? topic.head : last.baseOffset + last.count
      if (topic.next >= topic.head) this.#topics.shift()
    }
    return batches
  }
}
