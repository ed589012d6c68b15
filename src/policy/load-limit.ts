/**
 * How many requests a server lets in at once, found out rather than guessed.
 *
 * What a request waits for on a busy server is the event loop, and how late that is can be measured. While it is later
 * than the target, the limit falls in proportion to how much later, from what is in flight and not from a ceiling that
 * nobody reaches; while it is not, it rises by a tenth. That takes 39 samples from the floor back to
 * 10,000, which is four seconds; adding a constant each time would take a minute.
 *
 * Why not on or off, as the well-known plugins for Fastify do it: for the length of a sample they refuse everything,
 * then nothing, so goodput swings between both. Why not by utilisation: a loop that is busy all the time is what a
 * server at its peak looks like, and says nothing of how long a request waits.
 */
export interface LoadSample {
  /** How late the event loop was since the last sample, on average, in milliseconds. */
  readonly delayMs: number
  /** The most requests that were in flight since the last sample. */
  readonly peak: number
}

export interface LoadLimits {
  /** The event loop may be so late; 0: no bound. */
  readonly maxDelayMs: number
  readonly max: number
}

/**
 * With less in flight a group commit has little to share, and the server does less rather than more. It is also what a
 * server lets in that is starved of its processor by other programs, which refusing cannot help: with 64 a mere 64 clients
 * were refused there.
 */
const FLOOR = 256
/** The most that one sample takes away. */
const LEAST_SHARE = 0.5
const RISE = 1.1

/** The limit after a sample. */
export function nextLimit(limit: number, { delayMs, peak }: LoadSample, { maxDelayMs, max }: LoadLimits): number {
  if (maxDelayMs === 0) return max
  const floor = Math.min(FLOOR, max)
  if (delayMs <= maxDelayMs) return Math.min(max, Math.ceil(limit * RISE))
  const share = Math.max(LEAST_SHARE, maxDelayMs / delayMs)
  return Math.max(floor, Math.floor(Math.min(limit, Math.max(peak, floor)) * share))
}

const MIN_RETRY_MS = 250
const MAX_RETRY_MS = 5_000

/**
 * When a refused caller should come back, in milliseconds. Of `offered` requests a second `served` are let in: were all
 * that are refused to come back after as many seconds as the one is of the other, they would ask for just what there is.
 * At most 5 s, so that no caller stays away long after the rush, and up to a quarter longer by `random`, so that those
 * who were refused together do not come back together.
 */
export function overloadRetryMs(offered: number, served: number, random: number): number {
  const seconds = served > 0 ? offered / served : Number.POSITIVE_INFINITY
  return Math.ceil(Math.min(Math.max(seconds * 1_000, MIN_RETRY_MS), MAX_RETRY_MS) * (1 + random / 4))
}
