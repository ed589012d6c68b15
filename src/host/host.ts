/**
 * Time and chance, passed in through the door, so that a run can be simulated and replayed from a seed.
 */
export interface Host {
  /** Whole milliseconds since 1970. Never goes back while the process runs. */
  now(): number
  /** From 0 (included) to 1 (excluded). */
  random(): number
  /** Calls `fire` once after `ms`; the answer takes it back. Does not keep the process alive. */
  setTimer(ms: number, fire: () => void): () => void
}

/** Longer than this a timer of the platform fires at once (its milliseconds are a signed 32-bit number). */
const MAX_TIMER_MS = 2_147_483_647

/**
 * The machine's clock as it was at the start, carried on by the monotonic clock: setting the wall clock while the
 * process runs neither ends a lease early nor keeps it for long.
 */
export const realHost: Host = {
  now: () => Math.floor(performance.timeOrigin + performance.now()),
  random: Math.random,
  setTimer(ms, fire) {
    const timer = setTimeout(fire, Math.min(Math.max(ms, 0), MAX_TIMER_MS))
    timer.unref()
    return () => clearTimeout(timer)
  },
}

/**
 * How far another machine's clock is ahead of this one's, if it said `theirsMs` in an answer. What the answer took is how
 * wrong the difference may be: one from what is known already that is no larger says nothing.
 */
export function measureAheadMs(theirsMs: number, sentAtMs: number, answeredAtMs: number, knownMs = 0): number {
  const aheadMs = Math.round(theirsMs - (sentAtMs + answeredAtMs) / 2)
  return Math.abs(aheadMs - knownMs) > answeredAtMs - sentAtMs ? aheadMs : knownMs
}

/** A small generator of chance from a seed (mulberry32), for simulations and tests. */
export function createRandom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000
  }
}
