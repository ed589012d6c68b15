/**
 * A lease: a batch of messages that one worker holds under one fence, until each is settled or the hold ends.
 *
 * Stored as one row however many messages it has: runs of offsets, and attempts only where one is not the first (P3:
 * the row is committed before the messages are handed out). Rows are not rewritten as messages settle; a message of a
 * stored lease still counts as held only if it is neither settled nor in trouble under the same or a later fence.
 */
import type { BatchView } from '../message-batch.ts'

/** How a lease is stored. */
export interface LeaseRow {
  readonly fence: number
  readonly expiresAtMs: number
  /** null: held by the process that stored it. */
  readonly token: string | null
  /** Offset, count, offset, count, … ascending. */
  readonly runs: readonly number[]
  /** One an offset; absent: all 1. */
  readonly attempts?: readonly number[]
  /** How many processes have loaded it: what was reported to an earlier one is gone, and still counts in the version. */
  readonly lives?: number
}

/** Reports of progress that count in one process: beyond it the version of a job does not rise until the next phase. */
const MAX_REPORTS = 4_095

/** What was picked to be handed out: parallel arrays, by ascending position in the answer. */
export interface Picks {
  readonly offsets: number[]
  readonly lanes: number[]
  readonly sizes: number[]
  readonly attempts: number[]
  readonly timestampsMs: number[]
  readonly runs: { readonly batch: BatchView; readonly from: number; to: number }[]
  /** The sum of `sizes`. */
  bytes: number
}

export class Lease {
  readonly fence: number
  readonly token: string | null
  expiresAtMs: number
  readonly offsets: readonly number[]
  readonly lanes: readonly number[]
  readonly sizes: readonly number[]
  readonly attempts: readonly number[]
  /** How many are still held. */
  openCount: number
  readonly #closed: Uint8Array
  readonly #ascending: boolean
  #progress: Map<number, { text: string; count: number }> | undefined
  /** See {@link LeaseRow.lives}. */
  lives = 0
  /** When it was handed out; 0 where that was by an earlier process. */
  sinceMs = 0

  constructor(
    fence: number,
    token: string | null,
    expiresAtMs: number,
    picks: Pick<Lease, 'offsets' | 'lanes' | 'sizes' | 'attempts'>,
  ) {
    this.fence = fence
    this.token = token
    this.expiresAtMs = expiresAtMs
    this.offsets = picks.offsets
    this.lanes = picks.lanes
    this.sizes = picks.sizes
    this.attempts = picks.attempts
    this.openCount = picks.offsets.length
    this.#closed = new Uint8Array(picks.offsets.length)
    this.#ascending = isAscending(picks.offsets)
  }

  /** The index of an offset that is held, or -1. */
  indexOf(offset: number): number {
    const { offsets } = this
    let index = -1
    if (this.#ascending) {
      const guess = offset - (offsets[0] as number)
      if (offsets[guess] === offset) index = guess
      else index = search(offsets, offset)
    } else {
      index = offsets.indexOf(offset)
    }
    return index >= 0 && this.#closed[index] === 0 ? index : -1
  }

  holds(offset: number): boolean {
    return this.indexOf(offset) >= 0
  }

  /** Ends the hold on one message. */
  close(index: number): void {
    this.#closed[index] = 1
    this.openCount--
    // What was reported stays until the lease goes: the step that closes it may not be kept (disk full).
  }

  /** Indexes still held. */
  open(): number[] {
    const indexes = []
    for (let i = 0; i < this.offsets.length; i++) if (this.#closed[i] === 0) indexes.push(i)
    return indexes
  }

  setProgress(offset: number, text: string): void {
    this.#progress ??= new Map()
    const count = (this.#progress.get(offset)?.count ?? 0) + 1
    this.#progress.set(offset, { text, count })
  }

  get hasProgress(): boolean {
    return this.#progress !== undefined
  }

  /** Takes over what was reported to the same lease before it was loaded again. */
  keepProgress(before: Lease | undefined): void {
    if (before !== undefined) this.#progress = before.#progress
  }

  progressOf(offset: number): string | undefined {
    return this.#progress?.get(offset)?.text
  }

  /** Rises with each report of progress, and across processes though the reports themselves are not kept (P10). */
  progressRank(offset: number): number {
    const count = this.#progress?.get(offset)?.count ?? 0
    return this.lives * (MAX_REPORTS + 1) + Math.min(count, MAX_REPORTS)
  }

  toRow(): LeaseRow {
    const runs: number[] = []
    for (const offset of this.offsets) {
      const last = runs.length - 2
      if (last >= 0 && (runs[last] as number) + (runs[last + 1] as number) === offset)
        runs[last + 1] = (runs[last + 1] as number) + 1
      else runs.push(offset, 1)
    }
    const base = { fence: this.fence, expiresAtMs: this.expiresAtMs, token: this.token, runs }
    const row = this.lives === 0 ? base : { ...base, lives: this.lives }
    return this.attempts.every((attempt) => attempt === 1) ? row : { ...row, attempts: this.attempts }
  }
}

/** The offsets of a stored lease, in the order in which they were handed out. */
export function offsetsOfRow(row: LeaseRow): number[] {
  const offsets: number[] = []
  for (let i = 0; i < row.runs.length; i += 2) {
    const start = row.runs[i] as number
    for (let j = 0; j < (row.runs[i + 1] as number); j++) offsets.push(start + j)
  }
  return offsets
}

function isAscending(offsets: readonly number[]): boolean {
  for (let i = 1; i < offsets.length; i++) if ((offsets[i] as number) <= (offsets[i - 1] as number)) return false
  return true
}

function search(offsets: readonly number[], offset: number): number {
  let low = 0
  let high = offsets.length - 1
  while (low <= high) {
    const middle = (low + high) >>> 1
    const value = offsets[middle] as number
    if (value === offset) return middle
    if (value < offset) low = middle + 1
    else high = middle - 1
  }
  return -1
}
