/** A lease that a worker holds: the messages of one answer of the engine, under one fence. */
import type { Hold, LeaseOutcome } from './engine/contract.ts'
import type { LeaseBeat } from './lease-heart.ts'
import { BatchView } from './message-batch.ts'

type Leased = Extract<LeaseOutcome, { status: 'leased' }>

export class HeldLease {
  readonly fence: number
  /** How long it lasts without being extended; of no account where the process is the holder. */
  readonly leaseMs: number
  readonly view: BatchView
  readonly offsets: readonly number[]
  readonly attempts: readonly number[]
  readonly timestampsMs: readonly number[]
  /** When the hold ends by this process's clock, if it is not extended; of no account where the process is the holder. */
  heldUntilMs: number
  /** Index of the first message that was not started. */
  next = 0
  /** Keeps it while this thread stands still, where there is something that does. */
  beat: LeaseBeat | null = null
  /** Until when `beat` was told to keep it. */
  keptUntilMs = 0
  /** Messages of which the engine has been told the end. */
  #told = 0
  /** Offsets that are done without a result and not yet sent to be settled. */
  done: number[] = []
  readonly #topic: string
  readonly #group: string
  readonly #token: string | undefined
  #lost: Set<number> | null = null

  constructor(topic: string, group: string, token: string | undefined, leaseMs: number, nowMs: number, leased: Leased) {
    this.#topic = topic
    this.#group = group
    this.#token = token
    this.leaseMs = leaseMs
    this.heldUntilMs = nowMs + leaseMs
    this.fence = leased.fence
    this.view = new BatchView(leased.batch)
    this.offsets = leased.offsets
    this.attempts = leased.attempts
    this.timestampsMs = leased.timestampsMs
  }

  /** Whether the hold is over by this process's clock, whoever extended it last. */
  isOver(nowMs: number): boolean {
    return this.heldUntilMs <= nowMs && (this.beat === null || this.beat.heldForMs() <= 0)
  }

  /** The engine was told how so many of its messages ended: of the last one, nothing is held any more. */
  noteTold(count: number): void {
    this.#told += count
    if (this.#told < this.offsets.length) return
    this.beat?.drop()
    this.beat = null
  }

  /** What the holder shows for some of its messages. */
  holdOf(offsets: readonly number[]): Hold {
    return { topic: this.#topic, group: this.#group, fence: this.fence, offsets, token: this.#token }
  }

  /** Offsets of messages that were not started and are held as far as is known. */
  unstarted(): number[] {
    const rest = this.offsets.slice(this.next)
    return this.#lost === null ? rest : rest.filter((offset) => !this.isLost(offset))
  }

  isLost(offset: number): boolean {
    return this.#lost?.has(offset) === true
  }

  markLost(offset: number): void {
    this.#lost ??= new Set()
    this.#lost.add(offset)
  }
}
