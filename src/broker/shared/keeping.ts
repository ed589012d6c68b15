/**
 * The keeper of this process's heart, in the broker thread: it asks the ledger as the caller does, wherever its owner is, and
 * so an extend that meets a change of owner is asked again of the next one. What it asks has numbers below zero, where the
 * caller's are above.
 */
import type { ExtendOutcome } from '../../engine/contract.ts'
import { startKeeper } from '../../heart/keeper.ts'
import type { HeartSeat } from '../../heart/messages.ts'
import type { LedgerAnswer, LedgerRequest } from '../../ledger/requests.ts'

export class Keeping {
  readonly #seat: HeartSeat
  readonly #asked = new Map<number, (outcomes: readonly ExtendOutcome[] | null) => void>()
  #lastId = 0

  /** `submit`: to the router. Its answers go through `take`. */
  constructor(seat: HeartSeat, submit: (requests: readonly LedgerRequest[]) => void) {
    this.#seat = seat
    // The router ends each call by itself, so the time for it is of no account.
    startKeeper(
      seat,
      (body) =>
        new Promise((resolve) => {
          const id = --this.#lastId
          this.#asked.set(id, resolve)
          submit([{ id, kind: 'extend', body }])
        }),
    )
  }

  /** Keeps the answers that are its own, and gives the rest. */
  take(answers: readonly LedgerAnswer[]): readonly LedgerAnswer[] {
    if (this.#asked.size === 0 || answers.every(({ id }) => id > 0)) return answers
    return answers.filter((answer) => {
      if (answer.id > 0) return true
      this.#asked.get(answer.id)?.('value' in answer ? (answer.value as readonly ExtendOutcome[]) : null)
      this.#asked.delete(answer.id)
      return false
    })
  }

  close(): void {
    this.#seat.port.close()
  }
}
