/**
 * How far each member was heard, as the journal says: what a member asked in later turns has not taken effect, so that the
 * next owner can tell it to ask again, and only what was committed without an answer is `UNKNOWN`.
 *
 * A turn is noted before its requests reach the ledger, and the note goes with the next commit, so no effect of a turn is in
 * the journal without its note. Kept are the sessions of the last epochs, as many as MAX_SESSIONS, and not those of members
 * that said good-bye; whoever slept through more is told nothing. Where one had to go for others, that is noted as well, as
 * the session '': of its epoch and those before, not all are known.
 */
import type { Heard } from './entry.ts'

const EPOCHS_KEPT = 8
/** The letter in which an owner introduces itself has them all. */
const MAX_SESSIONS = 2_048
/** The turn of a session that asks nothing any more. */
const GONE = -1

export class HeardTurns {
  /** The one that was heard last is last. */
  readonly #turns = new Map<string, { readonly epoch: number; readonly turn: number }>()
  #noted = new Map<string, Heard>()
  /** The last epoch of which a session had to go. */
  #lostEpoch = -1

  /** Before the requests of a turn are applied. */
  note(heard: Heard): void {
    this.#noted.set(heard[0], heard)
  }

  /** Its member has stopped. */
  forget(session: string, epoch: number): void {
    this.note([session, epoch, GONE])
  }

  /** What the next commit says. `all`: everything, as what stands before it will be cut off. */
  take(all: boolean): readonly Heard[] {
    const noted = [...this.#noted.values()]
    for (const one of noted) this.learn(one)
    this.#noted = new Map()
    if (!all) return noted
    return this.#lostEpoch < 0 ? this.list() : [['', this.#lostEpoch, 0], ...this.list()]
  }

  /** The commit was not kept: what it said is said with the next one. */
  giveBack(taken: readonly Heard[]): void {
    for (const one of taken) if (!this.#noted.has(one[0])) this.#noted.set(one[0], one)
  }

  learn([session, epoch, turn]: Heard): void {
    if (session === '') {
      this.#lostEpoch = Math.max(this.#lostEpoch, epoch)
      return
    }
    this.#turns.delete(session)
    if (turn === GONE) return
    this.#turns.set(session, { epoch, turn })
    if (this.#turns.size <= MAX_SESSIONS) return
    const [oldest, lost] = this.#turns.entries().next().value as [string, { readonly epoch: number }]
    this.#turns.delete(oldest)
    this.#lostEpoch = Math.max(this.#lostEpoch, lost.epoch)
  }

  list(): readonly Heard[] {
    return [...this.#turns].map(([session, { epoch, turn }]): Heard => [session, epoch, turn])
  }

  /** Drops sessions of owners long gone; returns the first epoch of which all are known. */
  forgetBefore(ownEpoch: number): number {
    const since = Math.max(ownEpoch - EPOCHS_KEPT, this.#lostEpoch + 1)
    for (const [session, { epoch }] of this.#turns) if (epoch < ownEpoch - EPOCHS_KEPT) this.#turns.delete(session)
    return since
  }
}
