/** Ctrl-C and SIGTERM: the first asks a command to stop, the second not to wait for anything. */

/** The exit code of what was interrupted, as shells have it. */
export const INTERRUPTED = 130

export interface Stop {
  /** Aborted by the first signal. */
  readonly signal: AbortSignal
  /** Which it was. */
  readonly by: NodeJS.Signals | null
  /** Takes the signals back: the next ends the process as usual. */
  release(): void
}

/** `again` hears of each further signal; without it the process exits at once. */
export function stopOnSignal(again: () => void = () => process.exit(INTERRUPTED)): Stop {
  const stopping = new AbortController()
  let by: NodeJS.Signals | null = null
  const take = (signal: NodeJS.Signals): void => {
    if (by !== null) return again()
    by = signal
    stopping.abort()
  }
  process.on('SIGINT', take).on('SIGTERM', take)
  return {
    signal: stopping.signal,
    get by() {
      return by
    },
    release: () => void process.off('SIGINT', take).off('SIGTERM', take),
  }
}
