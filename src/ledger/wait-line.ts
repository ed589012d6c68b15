/**
 * Those who wait for the same thing, first come, first served. One whose wait is over is marked `done` and stays in the
 * line until it is met, or until half of the line is of that kind: so the end of a wait costs the same, however many
 * wait.
 */
export class WaitLine<T extends { readonly done: boolean }> {
  #waiters: T[] = []
  #start = 0
  #over = 0
  #new: T[] = []

  push(waiter: T): void {
    this.#waiters.push(waiter)
    this.#new.push(waiter)
  }

  /** The first who still waits. */
  first(): T | undefined {
    for (;;) {
      const waiter = this.#waiters[this.#start]
      if (waiter === undefined || !waiter.done) return waiter
      this.#start++
      if (this.#over > 0) this.#over--
      if (this.#start === this.#waiters.length || (this.#start > 1_024 && this.#start * 2 > this.#waiters.length))
        this.#compact()
    }
  }

  /** All who still wait. */
  waiting(): readonly T[] {
    this.#compact()
    return this.#waiters
  }

  /** Those who came since the last time and still wait. */
  takeNew(): readonly T[] {
    const taken = this.#new.filter(({ done }) => !done)
    this.#new = []
    return taken
  }

  /** The wait of one of them ended before its turn. */
  noteEnd(): void {
    this.#over++
    if (this.#over > 64 && this.#over * 2 > this.#waiters.length - this.#start) this.#compact()
  }

  #compact(): void {
    this.#waiters = this.#waiters.slice(this.#start).filter(({ done }) => !done)
    this.#start = 0
    this.#over = 0
  }
}
