/**
 * The heart of an engine where holds end by time (over HTTP, over a broker): something in another thread, the keeper, extends
 * leases while the thread of the handlers is blocked.
 *
 * Why. A worker extends such a hold by a timer. A handler that computes for longer than the lease without letting the event
 * loop turn would lose its lease in the middle of its work, and the message would be done twice. What a lease is to notice is
 * a process that is gone or stands still as a whole; that stops the keeper, too.
 *
 *     worker: takes a lease -> keep (before its handlers start) -> extends by itself at a third of the lease
 *     keeper: looks at what is left of each; below a half the worker has missed its turn -> extends
 *
 * So the keeper sends nothing for a process that is well. Until when a hold lasts is in memory that both threads share,
 * since a worker that wakes up runs its timers before it reads any message: it must not find leases over that were kept.
 *
 * A hold is kept for no longer than its handlers may take (`timeoutMs`): a handler that never lets go loses it then, as
 * one that lets the event loop turn would.
 *
 * Over a broker the keeper is in the broker thread; over HTTP in one of its own, which starts with the first hold. Where
 * that thread is gone, or there are more than MAX_HOLDS, leases are what they were without it.
 */
import { MessageChannel, type MessagePort } from 'node:worker_threads'
import type { Hold } from '../engine/contract.ts'
import type { LeaseBeat, LeaseHeart } from '../lease-heart.ts'
import { type HeartSeat, nowUs, type ToKeeper } from './messages.ts'

const MAX_HOLDS = 4_096
/** Dropped holds that are told in one message. */
const MAX_DROPS = 64
const US_PER_MS = 1_000

export class Heart implements LeaseHeart {
  /** For the thread of the keeper. */
  readonly seat: HeartSeat
  readonly #port: MessagePort
  readonly #onFirst: (seat: HeartSeat) => void
  readonly #free: number[] = []
  #slots = 0
  #uses = 0
  #isOver = false
  #dropped: (readonly [slot: number, use: number])[] = []

  /** `onFirst` is called with the first hold: where there is no keeper yet, it starts one. */
  constructor(onFirst: (seat: HeartSeat) => void = () => {}) {
    const { port1, port2 } = new MessageChannel()
    this.#port = port1
    this.seat = {
      port: port2,
      heldUntilUs: new BigInt64Array(new SharedArrayBuffer(MAX_HOLDS * BigInt64Array.BYTES_PER_ELEMENT)),
    }
    this.#onFirst = onFirst
    // The thread of the keeper has ended.
    port1.on('close', () => {
      this.#isOver = true
    })
  }

  keep(hold: Hold, leaseMs: number, keepMs: number): LeaseBeat | null {
    if (this.#isOver) return null
    const slot = this.#free.pop() ?? (this.#slots < MAX_HOLDS ? this.#slots++ : null)
    if (slot === null) return null
    const use = ++this.#uses
    if (use === 1) this.#onFirst(this.seat)
    const beat = new Beat(this, this.seat.heldUntilUs, slot, use)
    beat.noteHeld(leaseMs)
    this.send({ kind: 'keep', slot, use, hold, leaseMs, untilUs: after(keepMs) })
    return beat
  }

  /** For beats only. */
  send(message: ToKeeper): void {
    this.#tellDrops()
    this.#port.postMessage(message)
  }

  /** For beats only. A slot may be used again at once: its next use has another number. */
  drop(slot: number, use: number): void {
    this.#free.push(slot)
    this.#dropped.push([slot, use])
    if (this.#dropped.length >= MAX_DROPS) this.#tellDrops()
  }

  /** The keeper stops. */
  close(): void {
    this.#isOver = true
    this.#port.close()
  }

  #tellDrops(): void {
    if (this.#dropped.length === 0) return
    this.#port.postMessage({ kind: 'drop', slots: this.#dropped } satisfies ToKeeper)
    this.#dropped = []
  }
}

class Beat implements LeaseBeat {
  readonly #heart: Heart
  readonly #heldUntilUs: BigInt64Array
  readonly #slot: number
  readonly #use: number
  #isDropped = false

  constructor(heart: Heart, heldUntilUs: BigInt64Array, slot: number, use: number) {
    this.#heart = heart
    this.#heldUntilUs = heldUntilUs
    this.#slot = slot
    this.#use = use
  }

  heldForMs(): number {
    if (this.#isDropped) return 0
    return Number(Atomics.load(this.#heldUntilUs, this.#slot) - nowUs()) / US_PER_MS
  }

  noteHeld(forMs: number): void {
    if (!this.#isDropped) Atomics.store(this.#heldUntilUs, this.#slot, after(forMs))
  }

  keepFor(keepMs: number): void {
    if (this.#isDropped) return
    this.#heart.send({ kind: 'until', slot: this.#slot, use: this.#use, untilUs: after(keepMs) })
  }

  drop(): void {
    if (this.#isDropped) return
    this.#isDropped = true
    this.#heart.drop(this.#slot, this.#use)
  }
}

function after(ms: number): bigint {
  return nowUs() + BigInt(Math.round(ms * US_PER_MS))
}
