/**
 * The clock of a namespace: that of its owner, as this process knows it. Times that travel (deadlines, due times) are told
 * by it, and the ledger judges by it.
 *
 *     alone ──an owner tells its time──> following (its clock, as measured)
 *       └──────────── lead ─────────────────┴──> leading (from there towards this machine's own)
 *
 * An owner takes over with the clock of the one before, as far as it knows it, so that no lease ends and no job falls due
 * because two machines disagree. It then goes to its own machine's clock, by no more than one part in SLEW_PARTS of the time
 * that passes: what one owner's clock was wrong by is not handed on for ever, and no lease is much shorter for it.
 *
 * Invariant: `now` never goes back.
 */
import { type Host, measureAheadMs } from '../../host/host.ts'

const SLEW_PARTS = 20

export class OwnerClock {
  readonly #host: Host
  #aheadMs = 0
  /** When it began to lead, by this machine's clock; null: it follows. */
  #leadsSinceMs: number | null = null
  #lastMs = 0

  constructor(host: Host) {
    this.#host = host
  }

  /** How far it is ahead of this machine's. */
  get aheadMs(): number {
    if (this.#leadsSinceMs === null) return this.#aheadMs
    const slewedMs = Math.floor((this.#host.now() - this.#leadsSinceMs) / SLEW_PARTS)
    return Math.sign(this.#aheadMs) * Math.max(0, Math.abs(this.#aheadMs) - slewedMs)
  }

  /** The owner said that it was `theirsMs`, in an answer to what was sent at `sentAtMs`. */
  learn(theirsMs: number, sentAtMs: number): void {
    if (this.#leadsSinceMs !== null) return
    this.#aheadMs = measureAheadMs(theirsMs, sentAtMs, this.#host.now(), this.#aheadMs)
  }

  /** This process is the owner now. */
  lead(): void {
    this.#leadsSinceMs ??= this.#host.now()
  }

  /** It is the owner no more. */
  follow(): void {
    this.#aheadMs = this.aheadMs
    this.#leadsSinceMs = null
  }

  now(): number {
    this.#lastMs = Math.max(this.#lastMs, this.#host.now() + this.aheadMs)
    return this.#lastMs
  }

  /** The host of a ledger that goes by it. */
  asHost(): Host {
    const host = this.#host
    return {
      now: () => this.now(),
      random: () => host.random(),
      setTimer: (ms, fire) => host.setTimer(ms, fire),
    }
  }
}
