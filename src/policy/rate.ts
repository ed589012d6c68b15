/**
 * A rate that is kept evenly: the generic cell rate algorithm (ITU-T I.371), whose state is one number, the time at
 * which the next message would be due in an ideal, evenly spaced stream.
 *
 * What was not used is not saved up, but for `CATCH_UP_MS`: timers come late, and without it each lateness would lower
 * the rate. In any `perMs` at most `messages`, one more, and what `CATCH_UP_MS` allows, are let through.
 */
export interface Rate {
  /** How many may go now. */
  available(nowMs: number): number
  /** Lets up to `max` go and says how many. */
  take(nowMs: number, max: number): number
  /** Milliseconds until one may go; 0: now. */
  nextMs(nowMs: number): number
}

const CATCH_UP_MS = 10

export function createRate(settings: { readonly messages: number; readonly perMs: number }, nowMs: number): Rate {
  const spacingMs = settings.perMs / settings.messages
  const toleranceMs = Math.max(CATCH_UP_MS - spacingMs, 0)
  let dueMs = nowMs
  const available = (now: number): number => {
    const earliest = Math.max(dueMs, now - toleranceMs)
    return earliest > now ? 0 : Math.floor((now - earliest) / spacingMs) + 1
  }
  return {
    available,
    take(now, max) {
      const granted = Math.min(max, available(now))
      if (granted > 0) dueMs = Math.max(dueMs, now - toleranceMs) + granted * spacingMs
      return granted
    },
    nextMs: (now) => Math.max(0, Math.ceil(dueMs - now)),
  }
}
