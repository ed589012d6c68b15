/**
 * How many retries a client may make: a share of what it asks for the first time. Without it every client that is
 * refused asks again, and the load on a server that has too much is multiplied by the very refusals.
 *
 * A bucket of tokens. A first attempt puts a tenth of a token in, a retry takes one out, so over time retries are at most
 * a tenth of the requests; a token a second trickles in besides, so that a client that asks rarely may retry at all.
 *
 * Sources: Beyer et al., "Site Reliability Engineering" (2016), chapter 21, "Handling Overload": a budget of 10 % for each
 * client keeps the growth by retries at 1.1; the trickle for quiet clients is that of Finagle's RetryBudget.
 */
const SHARE = 0.1
const TRICKLE_PER_MS = 1 / 1_000
/** What a new client may retry, and the most that trickles in. */
const RESERVE = 10
/** The most that is saved up. */
const MAX = 100

export class RetryBudget {
  #tokens = RESERVE
  #atMs: number

  constructor(nowMs: number) {
    this.#atMs = nowMs
  }

  /** A request is made for the first time. */
  deposit(): void {
    this.#tokens = Math.min(MAX, this.#tokens + SHARE)
  }

  /** Whether it may be made again, which uses up a token. */
  withdraw(nowMs: number): boolean {
    if (this.#tokens < RESERVE)
      this.#tokens = Math.min(RESERVE, this.#tokens + Math.max(0, nowMs - this.#atMs) * TRICKLE_PER_MS)
    this.#atMs = nowMs
    if (this.#tokens < 1) return false
    this.#tokens--
    return true
  }
}
