/** What has happened so far, and waits for it: nothing here sleeps until something has probably happened. */
export type Counter = 'accepted' | 'done' | 'audit' | 'notify' | 'search'

interface Waiter {
  readonly isReached: () => boolean
  readonly resolve: () => void
}

/** With no progress at all for this long, something hangs. */
const STALL_MS = 120_000

export class Counters {
  readonly counts: Record<Counter, number> = { accepted: 0, done: 0, audit: 0, notify: 0, search: 0 }
  readonly #signal: AbortSignal
  #waiters: Waiter[] = []
  #movedAtMs = Date.now()

  /** `signal` ends every wait with its reason. */
  constructor(signal: AbortSignal) {
    this.#signal = signal
  }

  add(counter: Counter, count = 1): void {
    this.counts[counter] += count
    this.#movedAtMs = Date.now()
    const reached = this.#waiters.filter(({ isReached }) => isReached())
    if (reached.length === 0) return
    this.#waiters = this.#waiters.filter((waiter) => !reached.includes(waiter))
    for (const { resolve } of reached) resolve()
  }

  /** Resolves once the condition holds; rejects where nothing moves any more. */
  async until(isReached: () => boolean, what: string): Promise<void> {
    if (await this.reaches(isReached, STALL_MS)) return
    throw new Error(`Nothing moved for ${STALL_MS} ms while waiting for ${what}: ${this.describe()}`)
  }

  /** True once the condition holds; false where nothing has moved for `stallMs`. */
  async reaches(isReached: () => boolean, stallMs: number): Promise<boolean> {
    this.#signal.throwIfAborted()
    if (isReached()) return true
    const { promise, resolve, reject } = Promise.withResolvers<boolean>()
    this.#waiters.push({ isReached, resolve: () => resolve(true) })
    const onAbort = () => reject(this.#signal.reason)
    this.#signal.addEventListener('abort', onAbort)
    const watch = setInterval(() => {
      if (Date.now() - this.#movedAtMs > stallMs) resolve(false)
    }, stallMs / 10)
    try {
      return await promise
    } finally {
      clearInterval(watch)
      this.#signal.removeEventListener('abort', onAbort)
    }
  }

  describe(): string {
    return Object.entries(this.counts)
      .map(([counter, count]) => `${counter} ${count}`)
      .join(', ')
  }
}
