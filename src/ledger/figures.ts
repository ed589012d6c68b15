/**
 * What is measured of a group while it works: how often attempts end in which way, how long messages wait and are held.
 * Of the process, not stored: it begins anew when the engine is opened.
 */
import { DURATION_BOUNDS_MS, type DurationHistogram, type GroupWork } from '../engine/contract.ts'

/** Counts durations by the first bound that they are not above. */
export class Durations {
  readonly #counts = new Array<number>(DURATION_BOUNDS_MS.length + 1).fill(0)
  #sumMs = 0
  #lastMs = -1
  #lastSlot = 0

  /** On the path of every message: those of one batch mostly have the same duration, which is looked up once. */
  add(ms: number): void {
    if (ms !== this.#lastMs) {
      this.#lastMs = ms
      let slot = 0
      while (slot < DURATION_BOUNDS_MS.length && ms > (DURATION_BOUNDS_MS[slot] as number)) slot++
      this.#lastSlot = slot
    }
    ;(this.#counts[this.#lastSlot] as number)++
    this.#sumMs += ms
  }

  view(): DurationHistogram {
    return { counts: [...this.#counts], sumMs: this.#sumMs }
  }
}

export class Figures {
  readonly waited = new Durations()
  readonly held = new Durations()
  done = 0
  failed = 0
  died = 0
  expired = 0

  view(): GroupWork {
    const { done, failed, died, expired } = this
    return { done, failed, died, expired, waited: this.waited.view(), held: this.held.view() }
  }
}
