/**
 * Admission (P7): when a queue or topic is full, when it accepts again, and how long a refused publisher should wait.
 */

interface Amount {
  readonly messages: number
  readonly bytes: number
}

/** Share of the limit that must be free again before a full queue accepts, so that it does not flicker. */
const LOW_WATER = 0.9
/** What handlers publish may go this much past the limit, so that a full queue can still be worked off. */
export const RESERVE = 1.1
const MIN_RETRY_MS = 50
const MAX_RETRY_MS = 60_000
/** The answer where nothing has been drained yet. */
const BLIND_RETRY_MS = 2_000

export function lowWater(limit: number): number {
  return Math.floor(limit * LOW_WATER)
}

/** Whether a queue that was full accepts again. */
export function isBelowLowWater(depth: Amount, limit: Amount): boolean {
  return depth.messages <= lowWater(limit.messages) && depth.bytes <= lowWater(limit.bytes)
}

/**
 * Milliseconds until `excess` messages are drained at `perSecond`, within bounds, and up to a tenth longer by `random`,
 * so that refused publishers do not come back together. Defined for a rate of zero.
 */
export function retryAfterMs(excess: number, perSecond: number, random: number): number {
  const wait = perSecond > 0 ? (Math.max(excess, 1) / perSecond) * 1_000 : BLIND_RETRY_MS
  return Math.ceil(Math.min(Math.max(wait, MIN_RETRY_MS), MAX_RETRY_MS) * (1 + random / 10))
}

/**
 * How many messages a second are settled: counts in slots of `SLOT_MS` over the last `SLOTS` slots, so that the answer
 * follows a change within seconds and forgets a burst.
 */
export class DrainRate {
  /** Since it was made. */
  total = 0
  readonly #slots = new Float64Array(SLOTS)
  #slot = 0
  #firstSlot = -1

  add(nowMs: number, count: number): void {
    this.total += count
    this.#moveTo(nowMs)
    this.#slots[this.#slot % SLOTS] = (this.#slots[this.#slot % SLOTS] ?? 0) + count
  }

  perSecond(nowMs: number): number {
    if (this.#firstSlot < 0) return 0
    this.#moveTo(nowMs)
    let sum = 0
    for (const count of this.#slots) sum += count
    const firstMs = Math.max(this.#firstSlot, this.#slot - SLOTS + 1) * SLOT_MS
    return (sum / Math.max(nowMs - firstMs, SLOT_MS)) * 1_000
  }

  /** The count of the last seconds, but not of those before `sinceMs`, and over how many milliseconds it is. */
  since(sinceMs: number, nowMs: number): { readonly count: number; readonly ms: number } {
    if (this.#firstSlot < 0) return { count: 0, ms: Math.max(0, nowMs - sinceMs) }
    this.#moveTo(nowMs)
    const first = Math.max(Math.floor(sinceMs / SLOT_MS), this.#slot - SLOTS + 1)
    let count = 0
    for (let slot = first; slot <= this.#slot; slot++) count += this.#slots[slot % SLOTS] ?? 0
    return { count, ms: Math.max(0, nowMs - Math.max(sinceMs, first * SLOT_MS)) }
  }

  #moveTo(nowMs: number): void {
    const slot = Math.floor(nowMs / SLOT_MS)
    if (this.#firstSlot < 0) {
      this.#firstSlot = slot
      this.#slot = slot
    }
    if (slot - this.#slot >= SLOTS) {
      this.#slots.fill(0)
      this.#slot = slot
    }
    while (this.#slot < slot) this.#slots[++this.#slot % SLOTS] = 0
  }
}

const SLOT_MS = 250
const SLOTS = 20
