/**
 * Keeps a receiver that does not answer from holding up the others: each attempt to it takes a place of the sender for the
 * whole time-out, and a backlog for it would take them all.
 *
 *     closed --OPEN_AFTER attempts in a row without an answer--> open --any answer--> closed
 *
 * Of an open one PROBES attempts at a time are made; whatever else is for it fails at once, as it would have after its
 * time-out, and comes back after its back-off. An answer counts, whatever it says: 500 takes no time.
 */
const OPEN_AFTER = 5
const PROBES = 2
/** Receivers without an answer that are remembered; the one that was tried longest ago is forgotten. */
const MAX_SILENT = 1_000

interface Circuit {
  underWay: number
  silent: number
}

export class Circuits {
  readonly #circuits = new Map<string, Circuit>()

  /** Receivers that are known: those with an attempt under way, or without an answer to the last. */
  get size(): number {
    return this.#circuits.size
  }

  /** Whether an attempt may be made now; each that may is followed by one `leave`. */
  enter(receiver: string): boolean {
    const circuit = this.#circuits.get(receiver) ?? { underWay: 0, silent: 0 }
    if (circuit.silent >= OPEN_AFTER && circuit.underWay >= PROBES) return false
    circuit.underWay++
    this.#circuits.delete(receiver)
    this.#circuits.set(receiver, circuit)
    return true
  }

  /** The attempt is over. `isAnswered` null: it was not made. */
  leave(receiver: string, isAnswered: boolean | null): void {
    const circuit = this.#circuits.get(receiver)
    if (circuit === undefined) return
    circuit.underWay--
    if (isAnswered !== null) circuit.silent = isAnswered ? 0 : circuit.silent + 1
    if (circuit.underWay === 0 && circuit.silent === 0) this.#circuits.delete(receiver)
    else if (this.#circuits.size > MAX_SILENT) this.#forgetOldest()
  }

  #forgetOldest(): void {
    for (const [receiver, { underWay }] of this.#circuits) {
      if (underWay > 0) continue
      this.#circuits.delete(receiver)
      return
    }
  }
}
