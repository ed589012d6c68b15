/**
 * A group: the consumers that share a topic, and what is known of each message for them.
 *
 * Why it looks like this. A message costs the group nothing until it is met: no row, no object. The group walks the
 * topic with a **cursor**; what it meets is handed out at once, or waits in memory as the follower of a busy lane or the
 * head of a class that is not yet wanted. What must outlive the process is a floor, bitmaps above it, one row for a
 * leased batch, and a row for a message that was tried and is not settled. After a restart the cursor stands at the
 * floor again and the walk is repeated as far as it is needed; so waiting messages are never stored twice.
 *
 *     not met --walk--> waiting --hand out--> leased --done, dead, cancelled, expired--> settled
 *        |                 ^                    |
 *        |                 +------- due --------+--retry, release, expiry, crash--> trouble (parked or blocked)
 *        +---------------- cancelled ------------------------------------------> settled
 *
 * Invariants
 *  1. Below the cursor each offset is settled, leased, in trouble, ready, or a follower; at and above it, settled
 *     (cancelled) or not met, but for what was in trouble or leased when the group was loaded: that has entered its
 *     lane already and the walk passes over it.
 *  2. An offset is in at most one lease. Its fence is above that of every earlier lease of the group (P5).
 *  3. settled messages + depth = messages of the topic from the base on (conservation).
 *  4. A message leaves a lane only when it is settled (P4): a head at once, a follower when its turn comes. In a ready
 *     list it stays until it is met there, and is passed over without a look at its bytes, which may be trimmed.
 */
import type { OffsetProblem } from '../engine/contract.ts'
import type { GroupSettings } from '../engine/options.ts'
import { DrainRate } from '../policy/admission.ts'
import { Lanes } from '../policy/lanes.ts'
import { OffsetQueue } from '../policy/offset-queue.ts'
import { createRate, type Rate } from '../policy/rate.ts'
import type { Core } from './core.ts'
import { Figures } from './figures.ts'
import type { Lease } from './lease.ts'
import type { LeaseWaiter, WatchWaiter } from './requests.ts'
import { SettledSet } from './settled.ts'
import { hex } from './state.ts'
import type { Topic } from './topic.ts'
import { WaitLine } from './wait-line.ts'

/** How a group is stored. */
export interface GroupRow {
  readonly id: number
  readonly topic: number
  readonly name: string
  readonly settings: GroupSettings
  /** Where it started: messages below are none of its business. */
  readonly base: number
  /** Bytes of the topic before `base`. */
  readonly baseBytes: number
  readonly paused: boolean
  /** P2: what it lost when it was detached, until it is told. */
  readonly lost: OffsetProblem | null
}

/** A message that was tried and is not settled. */
export interface Trouble {
  readonly offset: number
  readonly lane: number
  /** Attempts begun, and how many of them do not count against the limit. */
  readonly attempts: number
  readonly forgiven: number
  /** When it may be tried again. */
  readonly dueAtMs: number
  readonly error: string
  /** It was leased when its process died, so it is handed out alone (P3). */
  readonly suspect: boolean
  /** Out of attempts in a group that blocks. */
  readonly blocked: boolean
  /** The fence of the lease that ended so. */
  readonly fence: number
}

/** The one lane of a strict group. */
const STRICT_LANE = 1

export class Group {
  row: GroupRow
  readonly topic: Topic
  settled: SettledSet
  /** The next offset to be met. */
  cursor: number
  fence = 0
  settledCount = 0
  settledBytes = 0
  deadCount = 0
  lanes = new Lanes()
  /** Heads that may be handed out, by priority. */
  ready: readonly OffsetQueue[] = [new OffsetQueue(), new OffsetQueue(), new OffsetQueue()]
  suspects = new OffsetQueue()
  /** The fence under which a suspect is out, or 0. */
  suspectFence = 0
  readonly leases = new Map<number, Lease>()
  leasedCount = 0
  readonly troubles = new Map<number, Trouble>()
  blockedCount = 0
  /** Offsets of leases that were loaded: the walk passes over them once. */
  readonly heldAtLoad = new Set<number>()
  /** The names under which `once` has kept something, as they stand in keys, by offset. */
  readonly remembered = new Map<number, Set<string>>()
  readonly waiters = new WaitLine<LeaseWaiter>()
  /** Who wants to know of a job, by its offset. */
  readonly watchers = new Map<number, Set<WatchWaiter>>()
  /** Offsets with a watcher that changed in this step. */
  readonly changed = new Set<number>()
  drain = new DrainRate()
  figures = new Figures()
  /** The floor whose message was looked up for its age, and when it was stored. */
  oldest = { floor: -1, atMs: 0 }
  /** Since when something has been waiting, and how much had been drained by then. */
  backlog = { sinceMs: 0, drained: 0 }
  rate: Rate | null = null
  /** When the group is served again for the sake of its rate. */
  rateTimerMs = 0
  countersChanged = false

  constructor(row: GroupRow, topic: Topic, core: Core) {
    this.row = row
    this.topic = topic
    this.settled = new SettledSet(row.base)
    this.cursor = row.base
    this.useSettings(row.settings, core)
  }

  /** Messages not settled, and their bytes; those delayed are the topic's to count. */
  get depth(): number {
    return this.topic.head - this.row.base - this.settledCount
  }

  get depthBytes(): number {
    return this.topic.headBytes - this.row.baseBytes - this.settledBytes
  }

  /** Messages that could be handed out to one more worker, as near as can be told without a walk. */
  get waiting(): number {
    return this.depth - this.leasedCount - this.troubles.size
  }

  /** Something is about to be stored: where nothing waits, a new line begins. */
  noteArrival(nowMs: number): void {
    if (this.waiting <= 0) this.backlog = { sinceMs: nowMs, drained: this.drain.total }
  }

  get maxAttempts(): number {
    return this.row.settings.attempts
  }

  laneOf(lane: number): number {
    return this.row.settings.strict ? STRICT_LANE : lane
  }

  /** Whether walking on can find nothing: all that comes would wait behind the head of the one lane. */
  get isWalkIdle(): boolean {
    return this.row.settings.strict && this.lanes.isBusy(STRICT_LANE)
  }

  useSettings(settings: GroupSettings, core: Core): void {
    this.row = { ...this.row, settings }
    this.rate = settings.rate === null ? null : createRate(settings.rate, core.nowMs)
    this.rateTimerMs = 0
  }

  saveRow(core: Core): void {
    core.state.putJson(`g/${hex(this.row.id)}`, this.row)
  }

  /** Puts what changed in this step into the state. */
  save(core: Core): void {
    if (!this.countersChanged) return
    this.countersChanged = false
    this.settled.raiseFloor()
    const id = hex(this.row.id)
    this.settled.takeChanges((chunk, bytes) => {
      const key = `s/${id}/${hex(chunk)}`
      if (bytes === null) core.state.delete(key)
      else core.state.put(key, bytes)
    })
    const counters = Float64Array.of(
      this.settled.floor,
      this.fence,
      this.settledCount,
      this.settledBytes,
      this.deadCount,
    )
    core.state.put(`c/${id}`, new Uint8Array(counters.buffer))
  }

  setTrouble(core: Core, trouble: Trouble): void {
    const before = this.troubles.get(trouble.offset)
    if (before?.blocked === true) this.blockedCount--
    if (trouble.blocked) this.blockedCount++
    this.troubles.set(trouble.offset, trouble)
    core.state.putJson(`r/${hex(this.row.id)}/${hex(trouble.offset)}`, trouble)
    this.park(core, trouble)
  }

  /** Makes a message in trouble ready when it is due. */
  park(core: Core, trouble: Trouble): void {
    if (trouble.blocked) return
    if (trouble.dueAtMs <= core.nowMs) this.makeReady(trouble.offset)
    else core.timers.add(trouble.dueAtMs, { kind: 'retry', group: this, trouble })
  }

  endTrouble(core: Core, offset: number): void {
    const trouble = this.troubles.get(offset)
    if (trouble === undefined) return
    if (trouble.blocked) this.blockedCount--
    this.troubles.delete(offset)
    core.state.delete(`r/${hex(this.row.id)}/${hex(offset)}`)
  }

  /** Puts the head of a lane, or a message without one, where the hand-out finds it. */
  makeReady(offset: number): void {
    if (this.troubles.get(offset)?.suspect === true) this.suspects.push(offset)
    else (this.ready[this.topic.priorityOf(offset)] as OffsetQueue).push(offset)
  }

  /** Books an offset as settled. The caller has ended its lease and stored its outcome. */
  markSettled(core: Core, offset: number, lane: number, size: number): void {
    if (!this.settled.add(offset)) return
    this.settledCount++
    this.settledBytes += size
    this.countersChanged = true
    if (this.troubles.size > 0) this.endTrouble(core, offset)
    if (this.remembered.size > 0) this.forget(core, offset)
    this.noteChange(offset)
    if (!this.lanes.isHead(lane, offset)) return
    let next = this.lanes.leave(lane)
    while (next >= 0 && this.settled.has(next)) next = this.lanes.leave(lane)
    if (next >= 0) this.makeReady(next)
  }

  /** Notes that `once` has kept something under a name; gives its key. */
  remember(offset: number, name: string): string {
    const names = this.remembered.get(offset)
    if (names === undefined) this.remembered.set(offset, new Set([name]))
    else names.add(name)
    return this.onceKey(offset, name)
  }

  onceKey(offset: number, name: string): string {
    return `k/${hex(this.row.id)}/${hex(offset)}/${name}`
  }

  forget(core: Core, offset: number): void {
    const names = this.remembered.get(offset)
    if (names === undefined) return
    this.remembered.delete(offset)
    for (const name of names) core.state.delete(this.onceKey(offset, name))
  }

  noteChange(offset: number): void {
    if (this.watchers.size > 0 && this.watchers.has(offset)) this.changed.add(offset)
  }

  /** The lease that holds `offset`, or undefined. Walks the leases: for questions about one job, not for the hot path. */
  leaseOf(offset: number): Lease | undefined {
    for (const lease of this.leases.values()) if (lease.holds(offset)) return lease
    return undefined
  }
}

/** Where the last fence of a group stands that was removed. */
export function fenceKey(topic: Topic, name: string): string {
  return `f/${hex(topic.row.id)}/${name}`
}
