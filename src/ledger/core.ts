/**
 * What the parts of a ledger share while it applies requests: the time, chance, the state that will be stored, the
 * batches that will be appended, and the answers that go out once both are durable.
 */
import type { Durability, StoredBatch } from '../logs/contract.ts'
import type { Timers } from '../policy/timers.ts'
import type { Group, Trouble } from './group.ts'
import type { Lease } from './lease.ts'
import type { AnswerValue, LeaseWaiter, ReadWaiter, WatchWaiter } from './requests.ts'
import type { StateView } from './state.ts'
import type { Topic } from './topic.ts'
import type { Fetch, WindowBudget } from './window.ts'

/** Something that falls due. Who is called asks whether it still holds (see timers.ts). */
export type Due =
  | { readonly kind: 'lease'; readonly group: Group; readonly fence: number }
  | { readonly kind: 'retry'; readonly group: Group; readonly trouble: Trouble }
  /** The group may have something to hand out: its rate allows it, or its walk goes on. */
  | { readonly kind: 'serve'; readonly group: Group }
  | { readonly kind: 'scheduled'; readonly topic: Topic; readonly atMs: number }
  | { readonly kind: 'wait'; readonly waiter: LeaseWaiter | ReadWaiter | WatchWaiter }
  | { readonly kind: 'sweep'; readonly topic: Topic }

export interface Core {
  nowMs: number
  readonly random: () => number
  readonly state: StateView
  readonly timers: Timers<Due>
  readonly fetch: Fetch
  readonly budget: WindowBudget
  readonly durability: Durability
  readonly copies: number
  /** Set while the disk is full: nothing is appended (P13). */
  refuseAppends: boolean
  outputs: StoredBatch[]
  /** The queue of callbacks, declared where it is not yet there. */
  callbacks(): Topic
  /** Topics that were appended to, and groups that may have something to hand out or to store. */
  readonly grown: Set<Topic>
  readonly touched: Set<Group>
  /** Leases with progress that ended in this step, by group and fence: where it is not kept, they are held again. */
  readonly ended: Map<string, Lease>
  answer(id: number, value: AnswerValue): void
}
