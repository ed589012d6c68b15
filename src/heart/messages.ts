/** What goes from the heart to its keeper, and the clock that both threads read. */
import type { MessagePort } from 'node:worker_threads'
import type { Hold } from '../engine/contract.ts'

/** What the thread of the keeper is given; the port has to be in the list of what is transferred. */
export interface HeartSeat {
  /** Brings {@link ToKeeper}. Closed, there is nothing to keep any more. */
  readonly port: MessagePort
  /** Until when each hold lasts, by its slot: microseconds of {@link nowUs}. Written by both threads. */
  readonly heldUntilUs: BigInt64Array<SharedArrayBuffer>
}

export type ToKeeper =
  | {
      readonly kind: 'keep'
      readonly slot: number
      /** Which use of the slot this is: what is said of an earlier one is of no account. */
      readonly use: number
      readonly hold: Hold
      readonly leaseMs: number
      /** Beyond it the hold is not extended any more. */
      readonly untilUs: bigint
    }
  | { readonly kind: 'until'; readonly slot: number; readonly use: number; readonly untilUs: bigint }
  | { readonly kind: 'drop'; readonly slots: readonly (readonly [slot: number, use: number])[] }

/** The monotonic clock of the machine: all threads of a process read the same. */
export function nowUs(): bigint {
  return process.hrtime.bigint() / 1_000n
}
