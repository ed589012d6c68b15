import type { Host } from '../../src/host/host.ts'

/** A clock that stands still until it is told to go on. */
export class FakeHost implements Host {
  nowMs = 1_700_000_000_000
  chance = 0.5
  #timers: { readonly atMs: number; readonly fire: () => void }[] = []

  now(): number {
    return this.nowMs
  }

  random(): number {
    return this.chance
  }

  setTimer(ms: number, fire: () => void): () => void {
    const timer = { atMs: this.nowMs + ms, fire }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter((one) => one !== timer)
    }
  }

  get timers(): number {
    return this.#timers.length
  }

  /** Goes on by `ms`, firing what falls due in order; what that sets in motion runs before the next. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.nowMs + ms
    await settled()
    for (;;) {
      const due = this.#timers.filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)[0]
      if (due === undefined) break
      this.#timers = this.#timers.filter((one) => one !== due)
      this.nowMs = Math.max(this.nowMs, due.atMs)
      due.fire()
      await settled()
    }
    this.nowMs = untilMs
  }
}

/** Once every promise that can be settled now is, and what follows from it has happened. */
export async function settled(): Promise<void> {
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve))
}
