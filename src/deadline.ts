/** Waits that end: by their time, or when the caller does not want them any more. */
import type { Host } from './host/host.ts'

export interface Deadline {
  /** What `promise` comes to, or `late()` once the time is over, or the reason of the signal. */
  orLater<T>(promise: Promise<T>, late: () => unknown): Promise<T>
  /** The timer is not needed any more. */
  clear(): void
}

/** Starts now. */
export function createDeadline(host: Host, ms: number, signal: AbortSignal | undefined): Deadline {
  const over = Promise.withResolvers<void>()
  const stop = host.setTimer(ms, over.resolve)
  const onAbort = (): void => over.resolve()
  signal?.addEventListener('abort', onAbort)
  const clear = (): void => {
    stop()
    signal?.removeEventListener('abort', onAbort)
  }
  return {
    async orLater(promise, late) {
      const isLate = Symbol('late')
      const first = await Promise.race([promise, over.promise.then(() => isLate)])
      if (first !== isLate) return first as Awaited<typeof promise>
      // Nobody hears of it any more.
      promise.catch(() => {})
      signal?.throwIfAborted()
      throw late()
    },
    clear,
  }
}

/** Resolves after `ms`, or as soon as the signal aborts. */
export function pause(host: Host, ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      stop()
      signal?.removeEventListener('abort', end)
      resolve()
    }
    const stop = host.setTimer(ms, end)
    signal?.addEventListener('abort', end)
  })
}
