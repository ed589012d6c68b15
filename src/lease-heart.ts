/**
 * What keeps the leases of workers while the thread of their handlers stands still. The nouns know it by this contract;
 * where holds end by time, over HTTP and over a broker, there is one (heart/heart.ts).
 */
import type { Hold } from './engine/contract.ts'

export interface LeaseHeart {
  /** Keeps a hold for `keepMs` from now on, at most. Null: it can keep no more, or not any longer. */
  keep(hold: Hold, leaseMs: number, keepMs: number): LeaseBeat | null
}

/** One hold that is kept. */
export interface LeaseBeat {
  /** How long the hold lasts as far as is known, in milliseconds from now, whoever extended it last; 0 or less: it is over. */
  heldForMs(): number
  /** The holder itself has extended it, and it lasts so much longer from now. */
  noteHeld(forMs: number): void
  /** Keeps it for `keepMs` from now on, instead. */
  keepFor(keepMs: number): void
  /** The hold is over or settled: it is kept no longer. */
  drop(): void
}
