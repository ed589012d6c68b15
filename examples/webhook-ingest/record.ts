/** What a run leaves behind: the evidence that checks.ts judges and report.ts prints. */
import type { Evidence } from './consume.ts'
import type { Delivery } from './deliveries.ts'
import type { Kill } from './kills.ts'
import type { Accepted } from './sender.ts'
import type { Stored } from './stored.ts'

export interface RunRecord {
  /** How many shared the data: two on a broker. */
  readonly servers: number
  /** The name of the broker, where it was one of ours, which was killed as well. */
  readonly broker: string | null
  readonly leaseMs: number
  readonly sent: readonly Delivery[]
  /** In the order in which each lane was answered. */
  readonly accepted: readonly Accepted[]
  readonly stored: Stored
  readonly workers: readonly Evidence[]
  readonly groups: Readonly<Record<Group, Evidence>>
  readonly kills: readonly Kill[]
  /** What was on the topic when the late group joined. */
  readonly lateAt: number
  readonly tookMs: number
}

export const GROUPS = ['audit', 'notify', 'search'] as const
export type Group = (typeof GROUPS)[number]
/** This one joins when half of the jobs are done. */
export const LATE: Group = 'search'
