/** What the nouns of one open Sluice share. */
import type { Engine } from './engine/contract.ts'
import type { Host } from './host/host.ts'
import type { LeaseHeart } from './lease-heart.ts'
import type { ScheduleRunner } from './schedule-runner.ts'
import type { SettledWatches } from './settled-watches.ts'
import type { Worker } from './worker.ts'

export interface NounContext {
  readonly engine: Engine
  /** What lasts is measured by its clock, which never jumps. */
  readonly host: Host
  /** Now by the clock that the engine goes by: for times that travel, such as deadlines and due times. Never goes back. */
  engineNow(): number
  /** The largest payload or result in bytes. */
  readonly maxPayloadBytes: number
  /** How workers hold messages: as this process, or by a token that anybody with it may show (over HTTP). */
  readonly holder: 'process' | 'token'
  /** Keeps leases while this thread stands still; null: nothing does, or need. */
  readonly heart: LeaseHeart | null
  readonly settledWatches: SettledWatches
  /** Whether the Sluice is closed or closing. */
  isClosed(): boolean
  /** Workers that are not closed. */
  readonly workers: Set<Worker>
  /** Schedules that this process fires. */
  readonly schedules: Set<ScheduleRunner>
  /** Takes what no caller waits for. Never throws. */
  report(error: unknown): void
  /** The queue or topic that was declared here under this name, if any. */
  findNoun(name: string): object | undefined
}
