/**
 * Virtual time and chance: everything that happens in a simulation happens at an instant of this world, in an order that
 * follows from the seed alone. Nothing here waits for the machine's clock.
 */
import { createRandom } from '../../src/host/host.ts'

/** The start of every run, ms since 1970. */
export const START_MS = 1_700_000_000_000

interface Due {
  readonly atMs: number
  readonly order: number
  readonly fire: () => void
}

export class World {
  nowMs = START_MS
  readonly random: () => number
  readonly #heap: Due[] = []
  #order = 0
  /** What the last event set in motion and has not ended: opening an engine. */
  #settling: Promise<unknown> | null = null
  /** Whether promises of the engine were settled, so that what follows from them must run before the next event. */
  #isStirred = false

  constructor(seed: number) {
    this.random = createRandom(seed)
  }

  schedule(inMs: number, fire: () => void): void {
    this.#push({ atMs: this.nowMs + inMs, order: this.#order++, fire })
  }

  /** Time stands still until `promise` is settled. */
  holdFor(promise: Promise<unknown>): void {
    this.#settling = promise
  }

  /** A promise that the engine waits for was settled. */
  stir(): void {
    this.#isStirred = true
  }

  /** Lets everything happen, in order, until `isOver` or nothing is left or `untilMs`. */
  async run(isOver: () => boolean, untilMs = Number.POSITIVE_INFINITY): Promise<void> {
    while (!isOver()) {
      const due = this.#heap[0]
      if (due === undefined || due.atMs > untilMs) return
      this.#pop()
      this.nowMs = due.atMs
      due.fire()
      if (this.#isStirred) {
        this.#isStirred = false
        // As many turns as the longest chain of promises in the broker takes: a commit, and a restore after a full disk.
        for (let turn = 0; turn < TURNS; turn++) await null
      }
      while (this.#settling !== null) {
        const settling = this.#settling
        this.#settling = null
        await settling
      }
    }
  }

  // ---- chance

  /** A whole number from 0 to `count` - 1. */
  below(count: number): number {
    return Math.floor(this.random() * count)
  }

  /** From `low` to `high`, both included. */
  between(low: number, high: number): number {
    return low + Math.floor(this.random() * (high - low + 1))
  }

  chance(share: number): boolean {
    return share > 0 && this.random() < share
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)] as T
  }

  // ---- the heap: by time, then by the order in which things were planned

  #push(due: Due): void {
    const heap = this.#heap
    let at = heap.length
    heap.push(due)
    while (at > 0) {
      const parent = (at - 1) >>> 1
      const above = heap[parent] as Due
      if (!isBefore(due, above)) break
      heap[at] = above
      at = parent
    }
    heap[at] = due
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop() as Due
    if (heap.length === 0) return
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && isBefore(heap[child + 1] as Due, heap[child] as Due)) child++
      const below = heap[child] as Due
      if (!isBefore(below, last)) break
      heap[at] = below
      at = child
    }
    heap[at] = last
  }
}

const TURNS = 24

function isBefore(a: Due, b: Due): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order)
}
