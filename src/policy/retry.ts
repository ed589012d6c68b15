/** How long a retry waits. */

/** See `Backoff` in engine/options.ts. */
interface BackoffSettings {
  readonly baseMs: number
  readonly factor: number
  readonly maxMs: number
}

/**
 * Milliseconds before the attempt after `attempt` (from 1): a random time up to an exponential bound, "full jitter"
 * (Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015), so that retries of one outage spread out.
 */
export function backoffMs(settings: BackoffSettings, attempt: number, random: number): number {
  // Bounded, since 0 times infinity is no number.
  const growth = Math.min(settings.factor ** (attempt - 1), Number.MAX_VALUE)
  const bound = Math.min(settings.maxMs, settings.baseMs * growth)
  return Math.floor(random * bound)
}
