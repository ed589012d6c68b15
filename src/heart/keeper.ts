/** The keeper of the heart (heart.ts says why), in a thread that no handler blocks: extends holds of which less than half is left. */
import type { ExtendOutcome, ExtendRequest } from '../engine/contract.ts'
import { type HeartSeat, nowUs, type ToKeeper } from './messages.ts'

type Keep = Extract<ToKeeper, { kind: 'keep' }>
type Kept = { -readonly [N in keyof Keep]: Keep[N] }

/** Looks within the time of the shortest lease. */
const LOOKS_PER_LEASE = 8
const MIN_LOOK_MS = 10
const MAX_LOOK_MS = 1_000
/** Of one call, in holds. */
const MAX_EXTENDS = 1_000

/** Asks the engine. An answer after `withinMs` is of little use. Null, or a rejection: there is none; it is asked again. */
export type Extend = (requests: readonly ExtendRequest[], withinMs: number) => Promise<readonly ExtendOutcome[] | null>

/** Keeps what comes through the seat, until its port is closed. */
export function startKeeper(seat: HeartSeat, extend: Extend): void {
  new Keeper(seat, extend)
}

class Keeper {
  readonly #heldUntilUs: HeartSeat['heldUntilUs']
  readonly #extend: Extend
  readonly #kept = new Map<number, Kept>()
  #timer: NodeJS.Timeout | null = null
  #isAsking = false

  constructor({ port, heldUntilUs }: HeartSeat, extend: Extend) {
    this.#heldUntilUs = heldUntilUs
    this.#extend = extend
    port.on('message', (message: ToKeeper) => this.#take(message))
    port.on('close', () => this.#stop())
  }

  #take(message: ToKeeper): void {
    const kept = this.#kept
    if (message.kind === 'keep') kept.set(message.slot, { ...message })
    else if (message.kind === 'until') {
      const one = kept.get(message.slot)
      if (one?.use === message.use) one.untilUs = message.untilUs
    } else for (const [slot, use] of message.slots) if (kept.get(slot)?.use === use) kept.delete(slot)
    this.#setLook()
  }

  #stop(): void {
    this.#kept.clear()
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
  }

  #setLook(): void {
    if (this.#timer !== null || this.#kept.size === 0) return
    let leaseMs = Number.POSITIVE_INFINITY
    for (const one of this.#kept.values()) leaseMs = Math.min(leaseMs, one.leaseMs)
    const inMs = Math.min(Math.max(leaseMs / LOOKS_PER_LEASE, MIN_LOOK_MS), MAX_LOOK_MS)
    this.#timer = setTimeout(() => this.#look(), inMs)
  }

  #look(): void {
    this.#timer = null
    if (!this.#isAsking) void this.#extendLate()
    this.#setLook()
  }

  /** One call at a time; one that fails is made again with the next look, for as long as the holds last. */
  async #extendLate(): Promise<void> {
    const now = nowUs()
    const late: Kept[] = []
    let leaseMs = Number.POSITIVE_INFINITY
    for (const [slot, one] of this.#kept) {
      if (one.untilUs <= now) this.#kept.delete(slot)
      else if (this.#leftOf(one, now) < one.leaseMs / 2 && late.length < MAX_EXTENDS) {
        late.push(one)
        leaseMs = Math.min(leaseMs, one.leaseMs)
      }
    }
    if (late.length === 0) return
    this.#isAsking = true
    try {
      const requests: ExtendRequest[] = late.map(({ hold, leaseMs }) => ({ ...hold, leaseMs }))
      const outcomes = await this.#extend(requests, Math.max(leaseMs / 4, MIN_LOOK_MS)).catch(() => null)
      if (outcomes !== null) for (const [i, one] of late.entries()) this.#note(one, outcomes[i], now)
    } finally {
      this.#isAsking = false
    }
  }

  #note(one: Kept, outcome: ExtendOutcome | undefined, askedUs: bigint): void {
    if (this.#kept.get(one.slot)?.use !== one.use) return
    const isHeld = outcome?.status === 'extended' && outcome.lost.length < one.hold.offsets.length
    // What is lost is found out by the worker itself, which asks before it does anything with it.
    if (!isHeld) this.#kept.delete(one.slot)
    else Atomics.store(this.#heldUntilUs, one.slot, askedUs + BigInt(Math.round(one.leaseMs * 1_000)))
  }

  #leftOf({ slot }: Kept, now: bigint): number {
    return Number(Atomics.load(this.#heldUntilUs, slot) - now) / 1_000
  }
}
