/**
 * The messages of one topic that are in memory: those appended lately, handed out before anybody reads a disk, and the
 * last pieces that were read. Bounded in bytes; what it does not have is read from the log again.
 */
import { strict as assert } from 'node:assert'
import type { StoredBatch } from '../logs/contract.ts'
import { BatchView } from '../message-batch.ts'

export interface PlacedBatch {
  readonly baseOffset: number
  readonly count: number
  readonly timestampMs: number
  readonly startBytes: number
  readonly view: BatchView
}

/** Reads from the log: the batch that holds `offset` and some behind it, or null where they are not here yet. */
export type Fetch = (topic: number, offset: number) => readonly StoredBatch[] | null

/** Bytes of fresh messages a topic may keep, and all topics together. */
const FRESH_BYTES = 16 * 1024 ** 2
const ALL_FRESH_BYTES = 48 * 1024 ** 2
/** Pieces read from the log that are kept, for groups at different places and retries. */
const PIECES = 8

/**
 * What all windows of a ledger share. Trimmed between steps, never within one: what a step appends is not in the log
 * before its commit, and may be handed out in that very step.
 */
export class WindowBudget {
  bytes = 0
  /** Windows with fresh batches, the one appended to longest ago first. */
  readonly windows = new Set<Window>()

  trim(): void {
    if (this.bytes <= FRESH_BYTES) return
    for (const window of this.windows) window.trimTo(FRESH_BYTES)
    for (const window of this.windows) {
      if (this.bytes <= ALL_FRESH_BYTES) return
      window.trimTo(Math.max(0, window.freshBytes - (this.bytes - ALL_FRESH_BYTES)))
    }
  }
}

export class Window {
  readonly #topic: number
  readonly #fetch: Fetch
  readonly #budget: WindowBudget
  #fresh: PlacedBatch[] = []
  #start = 0
  /** Bytes of batches that were appended and are still here. */
  freshBytes = 0
  readonly #pieces: PlacedBatch[][] = []
  #last: PlacedBatch | undefined

  constructor(topic: number, fetch: Fetch, budget: WindowBudget) {
    this.#topic = topic
    this.#fetch = fetch
    this.#budget = budget
  }

  /** Takes in what is being appended. */
  push(stored: StoredBatch): void {
    const placed = place(stored)
    this.#fresh.push(placed)
    this.#count(stored.bytes.byteLength)
    this.#budget.windows.delete(this)
    this.#budget.windows.add(this)
  }

  /** Forgets the oldest fresh batches until those left have at most `bytes`. */
  trimTo(bytes: number): void {
    while (this.freshBytes > bytes) this.#dropFirst()
    if (this.freshBytes === 0) this.#budget.windows.delete(this)
  }

  /** Forgets fresh batches that nobody needs any more below `offset`. */
  release(offset: number): void {
    for (;;) {
      const first = this.#fresh[this.#start]
      if (first === undefined || first.baseOffset + first.count > offset) return
      this.#dropFirst()
    }
  }

  /** The batch that holds `offset`, which is in the topic; null: not here yet. */
  at(offset: number): PlacedBatch | null {
    const last = this.#last
    if (last !== undefined && offset >= last.baseOffset && offset < last.baseOffset + last.count) return last
    const found = this.#findFresh(offset) ?? this.#findPiece(offset) ?? this.#readPiece(offset)
    this.#last = found ?? undefined
    return found
  }

  /** Forgets everything, as after a failed commit. */
  clear(): void {
    this.#budget.bytes -= this.freshBytes
    this.#budget.windows.delete(this)
    this.#fresh = []
    this.#start = 0
    this.freshBytes = 0
    this.#pieces.length = 0
    this.#last = undefined
  }

  #findFresh(offset: number): PlacedBatch | undefined {
    return findIn(this.#fresh, this.#start, offset)
  }

  #findPiece(offset: number): PlacedBatch | undefined {
    for (let i = this.#pieces.length - 1; i >= 0; i--) {
      const piece = this.#pieces[i] as PlacedBatch[]
      const first = piece[0] as PlacedBatch
      const end = piece.at(-1) as PlacedBatch
      if (offset < first.baseOffset || offset >= end.baseOffset + end.count) continue
      return findIn(piece, 0, offset)
    }
    return undefined
  }

  #readPiece(offset: number): PlacedBatch | null {
    const stored = this.#fetch(this.#topic, offset)
    if (stored === null) return null
    const piece = stored.map(place)
    const first = piece[0]
    assert(
      first !== undefined && offset >= first.baseOffset && offset < first.baseOffset + first.count,
      'a log holds what lies below its head',
    )
    this.#pieces.push(piece)
    if (this.#pieces.length > PIECES) this.#pieces.shift()
    return first
  }

  #dropFirst(): void {
    const first = this.#fresh[this.#start++] as PlacedBatch
    this.#count(-first.view.bytes.byteLength)
    if (this.#start > 256 && this.#start * 2 > this.#fresh.length) {
      this.#fresh = this.#fresh.slice(this.#start)
      this.#start = 0
    }
  }

  #count(bytes: number): void {
    this.freshBytes += bytes
    this.#budget.bytes += bytes
  }
}

/** The batch of an ascending list, from index `low` on, that holds `offset`. */
function findIn(list: readonly PlacedBatch[], low: number, offset: number): PlacedBatch | undefined {
  let high = list.length
  while (low < high) {
    const middle = (low + high) >>> 1
    const batch = list[middle] as PlacedBatch
    if (batch.baseOffset + batch.count <= offset) low = middle + 1
    else high = middle
  }
  const found = list[low]
  return found !== undefined && found.baseOffset <= offset ? found : undefined
}

function place(stored: StoredBatch): PlacedBatch {
  const { baseOffset, count, timestampMs, startBytes, bytes } = stored
  return { baseOffset, count, timestampMs, startBytes, view: new BatchView(bytes) }
}
