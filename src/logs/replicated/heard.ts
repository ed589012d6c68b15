/**
 * How far each member was heard, as the journal says: what a member asked in later turns has not taken effect, so that the
 * next owner can tell it to ask again, and only what was committed without an answer is `UNKNOWN`.
 *
 * A turn is noted before its requests reach the ledger, and the note goes with the next commit, so no effect of a turn is in
 * the journal without its note. Kept are the sessions of the last epochs; whoever slept through more is told nothing.
 */
import type { Heard } from './entry.ts'

const EPOCHS_KEPT = 8

export class HeardTurns {
  readonly #turns = new Map<string, { readonly epoch: number; readonly turn: number }>()
  #noted = new Map<string, Heard>()

  /** Before the requests of a turn are applied. */
  note(heard: Heard): void {
    this.#noted.set(heard[0], heard)
  }

  /** What the next commit says. `all`: everything, as what stands before it will be cut off. */
  take(all: boolean): readonly Heard[] {
    const noted = [...this.#noted.values()]
    for (const one of noted) this.learn(one)
    this.#noted = new Map()
    return all ? this.list() : noted
  }

  /** The commit was not kept: what it said is said with the next one. */
  giveBack(taken: readonly Heard[]): void {
    for (const one of taken) if (!this.#noted.has(one[0])) this.#noted.set(one[0], one)
  }

  learn([session, epoch, turn]: Heard): void {
    this.#turns.set(session, { epoch, turn })
  }

  list(): readonly Heard[] {
    return [...this.#turns].map(([session, { epoch, turn }]): Heard => [session, epoch, turn])
  }

  /** Drops sessions of owners long gone; returns the first epoch of which all are known. */
  forgetBefore(ownEpoch: number): number {
    const since = ownEpoch - EPOCHS_KEPT
    for (const [session, { epoch }] of this.#turns) if (epoch < since) this.#turns.delete(session)
    return since
  }
}
