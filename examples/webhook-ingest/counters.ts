/** What has happened so far, and waits for it: nothing here sleeps until something has probably happened. */
export type Counter = 'accepted' | 'done' | 'audit' | 'notify' | 'search'

interface Waiter {
  readonly isReached: () => boolean
  readonly resolve: () => void
}

/** With no progress at all for this long, something hangs. */
const STALL_MS = 60_000

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
    this.#signal.throwIfAborted()
    if (isReached()) return
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.#waiters.push({ isReached, resolve })
    const onAbort = () => reject(this.#signal.reason)
    this.#signal.addEventListener('abort', onAbort)
    const watch = setInterval(() => {
      if (Date.now() - this.#movedAtMs > STALL_MS)
        reject(new Error(`Nothing moved for ${STALL_MS} ms while waiting for ${what}: ${this.describe()}`))
    }, STALL_MS / 10)
    try {
      await promise
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
