/**
 * Callbacks for jobs that end (`onSettled`): one wait of the engine for each job, in this process only. Bounded, since
 * each costs memory here and a waiter there (P7): past the bound, `add` refuses before anything is stored.
 */
import { isSluiceError, SluiceError } from './errors.ts'
import { type JobInfo, readInfo, waitForEnd } from './job.ts'
import type { NounContext } from './noun-context.ts'

export const MAX_SETTLED_WATCHES = 10_000

export type OnSettled<R> = (job: JobInfo<R>) => void | Promise<void>

export class SettledWatches {
  #count = 0
  readonly #stop = new AbortController()

  /** Takes one of the places. Each `reserve` is followed by one `watch` or `release`. */
  reserve(): void {
    if (this.#count >= MAX_SETTLED_WATCHES) {
      throw new SluiceError(
        'OVERLOADED',
        `${MAX_SETTLED_WATCHES} jobs of this process wait with onSettled, the most there may be; nothing was stored. Add without it and ask for the status.`,
        { limit: MAX_SETTLED_WATCHES },
      )
    }
    this.#count++
  }

  release(): void {
    this.#count--
  }

  /** Calls `onSettled` once when the job has ended. */
  async watch<R>(context: NounContext, id: string, onSettled: OnSettled<R>): Promise<void> {
    try {
      const view = await waitForEnd(context, id, Number.POSITIVE_INFINITY, this.#stop.signal)
      await onSettled(readInfo<R>(view))
    } catch (error) {
      if (!this.#stop.signal.aborted && !isSluiceError(error, 'CLOSED')) context.report(error)
    } finally {
      this.#count--
    }
  }

  /** Ends the waits without a call. */
  close(): void {
    this.#stop.abort()
  }
}
