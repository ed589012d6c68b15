/**
 * What was answered to calls that must not be carried out twice, for as long as their clients may ask again.
 *
 * A connection that breaks before the answer leaves its client in doubt. The engine over HTTP numbers such calls; one that
 * comes again is answered with what was answered before, or joins the one that is still under way. This is in memory:
 * after a restart nobody knows, and the client is told `UNKNOWN`. It could have been an idempotency key for every
 * message that has none; that would be a stored row for each, for a day, to mend what happens once in a million.
 *
 *     not seen --take--> under way --answered--> remembered --KEPT_MS--> forgotten
 *        ^                   |
 *        +------failed-------+
 *
 * Invariants
 *  1. A call is carried out at most once while its number is known.
 *  2. What was forgotten before its time, for want of room, makes every repeat that is not known `UNKNOWN` for KEPT_MS.
 */
import { randomUUID } from 'node:crypto'
import { SluiceError } from '../errors.ts'

/** Longer than a client goes on asking. */
const KEPT_MS = 60_000
const MAX_ANSWERS = 65_536
const MAX_BYTES = 33_554_432
const ID = /^[A-Za-z0-9-]{1,64}$/

export interface NumberedCall {
  /** Drawn by the client, the same each time it sends the call. */
  readonly id: string
  /** Where it was sent before, by the id of that process; null: this is the first time, or a second does no harm. */
  readonly sentTo: string | null
}

interface Remembered {
  readonly answer: Promise<Buffer>
  bytes: number
  /** Infinity while it is under way. */
  untilMs: number
}

export class AnswerMemory {
  /** Of this process. */
  readonly processId = randomUUID()
  readonly #now: () => number
  readonly #answers = new Map<string, Remembered>()
  #bytes = 0
  #forgotAtMs = Number.NEGATIVE_INFINITY

  constructor(now: () => number) {
    this.#now = now
  }

  /** Carries a call out, or answers as before. */
  async take({ id, sentTo }: NumberedCall, carryOut: () => Promise<Buffer>): Promise<Buffer> {
    if (!ID.test(id)) throw new SluiceError('BAD_REQUEST', 'The number of the call is not one.')
    const known = this.#answers.get(id)
    if (known !== undefined) return known.answer
    if (sentTo !== null && (sentTo !== this.processId || this.#now() - this.#forgotAtMs < KEPT_MS))
      throw new SluiceError(
        'UNKNOWN',
        'The answer was lost, and the server that could tell was restarted: whether it took effect is not known.',
      )
    const entry: Remembered = { answer: carryOut(), bytes: 0, untilMs: Number.POSITIVE_INFINITY }
    this.#answers.set(id, entry)
    try {
      const answer = await entry.answer
      entry.bytes = answer.byteLength
      entry.untilMs = this.#now() + KEPT_MS
      this.#bytes += entry.bytes
      this.#forget()
      return answer
    } catch (error) {
      // Nothing was done, or the error says that nobody knows: either way there is nothing to repeat.
      this.#answers.delete(id)
      throw error
    }
  }

  /** Oldest first, which is nearly the order in which their time ends. */
  #forget(): void {
    const now = this.#now()
    for (const [id, { bytes, untilMs }] of this.#answers) {
      const isEarly = untilMs > now
      if (isEarly && this.#answers.size <= MAX_ANSWERS && this.#bytes <= MAX_BYTES) return
      if (untilMs === Number.POSITIVE_INFINITY) continue
      if (isEarly) this.#forgotAtMs = now
      this.#answers.delete(id)
      this.#bytes -= bytes
    }
  }
}
