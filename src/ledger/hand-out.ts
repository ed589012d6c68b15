/**
 * Hand-out: which messages of a group go to a worker now.
 *
 * First what is known to be ready (heads whose lane came free, retries that fell due, higher classes), then the walk:
 * the cursor moves over messages never met, in order, and each is handed out, made a follower of its busy lane, or kept
 * for its class. The walk reads each batch of the topic once, however deep the backlog is.
 *
 * Priorities (P4) need to see ahead: while messages of another class than `normal` lie before the cursor, the walk goes
 * up to LOOK_AHEAD messages further than what is handed out, and the ready lists are served by class. So a message of
 * high priority overtakes what waits, once it is within the look-ahead of the cursor.
 *
 * Suspects (P3): a message that was leased when its process died may be what killed it. It goes out alone: when nothing
 * of its group is held, and nothing else of the group is handed out until it is settled.
 */
import type { LeaseOutcome } from '../engine/contract.ts'
import { gatherBatch, PRIORITY_NORMAL } from '../message-batch.ts'
import type { OffsetQueue } from '../policy/offset-queue.ts'
import type { Core } from './core.ts'
import type { Group } from './group.ts'
import { Lease, type Picks } from './lease.ts'
import type { LeaseWaiter } from './requests.ts'
import { settleAs } from './settling.ts'
import { hex } from './state.ts'
import type { PlacedBatch } from './window.ts'

/** Messages that the walk may be ahead of the hand-out for the sake of priorities. */
const LOOK_AHEAD = 65_536
/** A lease takes no more messages once it has this many bytes, so that what is under way is bounded (P7). */
const MAX_LEASE_BYTES = 16 * 1024 ** 2
/** Messages that the walk passes in one hand-out, so that a backlog of few keys does not make everybody else wait. */
const MAX_WALK = 65_536
/** Messages of a group that are known one by one; past it the walk rests until some are settled (P7). */
const MAX_KNOWN = 1_000_000

/** Answers as many of the group's waiting lease requests as there are messages for. */
export function serveWaiters(core: Core, group: Group): void {
  for (let waiter = group.waiters.first(); waiter !== undefined; waiter = group.waiters.first()) {
    const outcome = lease(core, group, waiter)
    if (outcome === null) return
    waiter.done = true
    core.answer(waiter.id, outcome)
  }
}

function lease(core: Core, group: Group, waiter: LeaseWaiter): LeaseOutcome | null {
  const { request } = waiter
  if (group.row.lost !== null) {
    const { lost } = group.row
    group.row = { ...group.row, lost: null }
    group.saveRow(core)
    return lost
  }
  if (group.row.paused || group.suspectFence !== 0) return null
  let max = request.max
  if (group.rate !== null) max = Math.min(max, group.rate.available(core.nowMs))
  const picks = max === 0 ? null : pick(core, group, max)
  if (max === 0) setRateTimer(core, group)
  if (picks === null || picks.offsets.length === 0) return null
  group.rate?.take(core.nowMs, picks.offsets.length)
  const token = request.holder.kind === 'token' ? request.holder.token : null
  const expiresAtMs = token === null ? 0 : core.nowMs + request.leaseMs
  const held = new Lease(++group.fence, token, expiresAtMs, picks)
  held.sinceMs = core.nowMs
  addLease(core, group, held)
  group.countersChanged = true
  core.state.putJson(`l/${hex(group.row.id)}/${hex(held.fence)}`, held.toRow())
  const { offsets, attempts, timestampsMs } = picks
  for (const offset of offsets) group.noteChange(offset)
  const { waited } = group.figures
  for (let i = 0; i < attempts.length; i++)
    if (attempts[i] === 1) waited.add(Math.max(0, core.nowMs - (timestampsMs[i] as number)))
  return {
    status: 'leased',
    fence: held.fence,
    expiresAtMs,
    batch: gatherBatch(picks.runs, false),
    offsets,
    attempts,
    timestampsMs,
  }
}

/** Serves the group again when its rate lets the next one go. */
function setRateTimer(core: Core, group: Group): void {
  if (group.rate === null || group.rateTimerMs > core.nowMs) return
  group.rateTimerMs = core.nowMs + Math.max(group.rate.nextMs(core.nowMs), 1)
  core.timers.add(group.rateTimerMs, { kind: 'serve', group })
}

/** Registers a lease, new or loaded. */
export function addLease(core: Core, group: Group, held: Lease): void {
  group.leases.set(held.fence, held)
  group.leasedCount += held.openCount
  if (held.token !== null) core.timers.add(held.expiresAtMs, { kind: 'lease', group, fence: held.fence })
}

function pick(core: Core, group: Group, max: number): Picks | null {
  const picks: Picks = { offsets: [], lanes: [], sizes: [], attempts: [], timestampsMs: [], runs: [], bytes: 0 }
  while (group.suspects.length > 0) {
    if (group.leasedCount > 0 && !group.settled.has(group.suspects.peek())) return null
    if (!takeReady(core, group, group.suspects, picks)) return null
    if (picks.offsets.length === 0) continue
    group.suspectFence = group.fence + 1
    return picks
  }
  const [high, normal, low] = group.ready as [OffsetQueue, OffsetQueue, OffsetQueue]
  const { topic } = group
  const walked = { count: 0 }
  let isHere = true
  while (isHere && picks.offsets.length < max && picks.bytes < MAX_LEASE_BYTES) {
    if (group.cursor <= topic.lastSpecial && !group.isWalkIdle) lookAhead(core, group, walked)
    if (high.length > 0) isHere = takeReady(core, group, high, picks)
    else if (normal.length > 0) isHere = takeReady(core, group, normal, picks)
    else if (group.cursor < topic.head && !group.isWalkIdle && knownCount(group) < MAX_KNOWN) {
      isHere = walked.count < MAX_WALK && walk(core, group, picks, walked)
    } else if (low.length > 0) isHere = takeReady(core, group, low, picks)
    else break
  }
  if (picks.offsets.length === 0 && walked.count >= MAX_WALK) core.timers.add(core.nowMs + 1, { kind: 'serve', group })
  return picks
}

/** Moves the cursor over one message and picks it if it may go now. False: the message is not here yet. */
function walk(core: Core, group: Group, picks: Picks, walked: { count: number }): boolean {
  walked.count++
  const offset = group.cursor
  if (group.settled.has(offset)) {
    group.cursor = group.settled.nextOpen(offset)
    return true
  }
  const batch = group.topic.window.at(offset)
  if (batch === null) return false
  group.cursor++
  if (group.troubles.size > 0 && group.troubles.has(offset)) return true
  if (group.heldAtLoad.size > 0 && group.heldAtLoad.delete(offset)) return true
  const index = offset - batch.baseOffset
  const lane = group.laneOf(batch.view.lane(index))
  if (!group.lanes.enter(lane, offset, core.nowMs)) return true
  const priority = batch.view.priority(index)
  if (priority === PRIORITY_NORMAL) pickOne(core, group, batch, offset, lane, picks)
  else (group.ready[priority] as OffsetQueue).push(offset)
  return true
}

/** Walks without handing out, so that priorities among what waits are known. */
function lookAhead(core: Core, group: Group, walked: { count: number }): void {
  const { topic } = group
  const waiting = group.ready as readonly OffsetQueue[]
  while (
    group.cursor <= topic.lastSpecial &&
    walked.count < MAX_WALK &&
    waiting.reduce((sum, queue) => sum + queue.length, 0) < LOOK_AHEAD
  ) {
    walked.count++
    const offset = group.cursor
    if (group.settled.has(offset)) {
      group.cursor = group.settled.nextOpen(offset)
      continue
    }
    const batch = topic.window.at(offset)
    if (batch === null || knownCount(group) >= MAX_KNOWN) return
    group.cursor++
    if (group.troubles.has(offset) || group.heldAtLoad.delete(offset)) continue
    const index = offset - batch.baseOffset
    if (group.lanes.enter(group.laneOf(batch.view.lane(index)), offset, core.nowMs)) {
      ;(waiting[batch.view.priority(index)] as OffsetQueue).push(offset)
    }
  }
}

/** Picks the first of a ready list. False: the message is not here yet. */
function takeReady(core: Core, group: Group, ready: OffsetQueue, picks: Picks): boolean {
  const offset = ready.peek()
  if (group.settled.has(offset)) {
    ready.shift()
    return true
  }
  const batch = group.topic.window.at(offset)
  if (batch === null) return false
  ready.shift()
  const lane = group.laneOf(batch.view.lane(offset - batch.baseOffset))
  pickOne(core, group, batch, offset, lane, picks)
  return true
}

/** Picks the head of a lane, unless its deadline has passed (P11). */
function pickOne(core: Core, group: Group, batch: PlacedBatch, offset: number, lane: number, picks: Picks): void {
  const index = offset - batch.baseOffset
  const { view } = batch
  const size = view.size(index)
  const deadlineMs = view.deadlineMs(index)
  if (deadlineMs !== 0 && deadlineMs <= core.nowMs && !group.troubles.has(offset)) {
    group.figures.expired++
    settleAs(core, group, offset, lane, size, { status: 'expired', attempts: 0, atMs: core.nowMs })
    return
  }
  const trouble = group.troubles.size === 0 ? undefined : group.troubles.get(offset)
  picks.offsets.push(offset)
  picks.lanes.push(lane)
  picks.sizes.push(size)
  picks.bytes += size
  picks.attempts.push((trouble?.attempts ?? 0) + 1)
  picks.timestampsMs.push(batch.timestampMs)
  const run = picks.runs.at(-1)
  if (run !== undefined && run.batch === view && run.to === index) run.to = index + 1
  else picks.runs.push({ batch: view, from: index, to: index + 1 })
}

function knownCount(group: Group): number {
  return group.lanes.followers + group.troubles.size + group.leasedCount + (group.ready[2] as OffsetQueue).length
}
