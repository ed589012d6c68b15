/** The part of the engine contract that is about schedules: rows that are kept, and a firing that happens once. */
import type { AppendRequest, FullOutcome } from './contract.ts'

/** The most schedules of one engine, and the most bytes of what one says. */
export const MAX_SCHEDULES = 1_000
export const MAX_TIMING_BYTES = 1_024
export const MAX_SCHEDULED_JOB_BYTES = 16_384

export type ScheduleCommand =
  /** Keeps a schedule of a queue, or changes it. Where its timing changes, it begins anew: nothing before now is due. */
  | {
      readonly kind: 'schedule'
      readonly queue: string
      readonly name: string
      /** JSON texts, which the engine keeps and compares and does not read. */
      readonly timing: string
      readonly job: string
    }
  | { readonly kind: 'unschedule'; readonly queue: string; readonly name: string }
  /** All there are; of one queue where it is given. `done` where nothing has changed since `knownVersion`. */
  | { readonly kind: 'schedules'; readonly queue?: string | undefined; readonly knownVersion?: number | undefined }
  /**
   * P8: moves a schedule on from `fromMs` to the tick at `toMs`, and stores the job of that tick in the same step; null:
   * the tick is passed over. It takes effect only if nobody moved it on before, so any number of processes may try.
   */
  | {
      readonly kind: 'fire'
      readonly queue: string
      readonly name: string
      readonly revision: number
      readonly fromMs: number
      readonly toMs: number
      /** One message, to that queue. */
      readonly append: AppendRequest | null
    }

export type ScheduleOutcome =
  /** As it is now. To `fire`: it was moved on, or changed, by somebody else, and nothing was done. */
  | { readonly status: 'schedule'; readonly schedule: ScheduleView; readonly created: boolean }
  | { readonly status: 'schedules'; readonly schedules: readonly ScheduleView[]; readonly version: number }
  | FullOutcome

export interface ScheduleView {
  readonly queue: string
  readonly name: string
  readonly timing: string
  readonly job: string
  /** Rises with each change of the timing or the job. */
  readonly revision: number
  readonly createdAtMs: number
  /** Ticks up to here are dealt with. */
  readonly doneMs: number
  /** The last tick whose job was stored, and that job. */
  readonly firedMs: number | null
  readonly jobId: string | null
}
