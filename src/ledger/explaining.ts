/**
 * Explaining: why a job has not begun, said from what the ledger knows.
 *
 * Where the walk of the group has not come to the job yet, jobs of its key before it are looked for among the LOOK_BACK
 * messages that come first; further on only its place in the line is told. So an answer costs the same on a deep queue.
 */
import type { CommandOutcome, WaitReason } from '../engine/contract.ts'
import type { Core } from './core.ts'
import type { Group } from './group.ts'
import { findJob, idOf, isTerminal, locate, offsetOf, viewJob } from './jobs.ts'
import type { Topic } from './topic.ts'

/** Messages that are looked at for one of the same key. */
const LOOK_BACK = 16_384

/** Why a job waits; nothing for one that runs or has ended. */
export function explainJob(core: Core, topics: ReadonlyMap<string, Topic>, id: string): CommandOutcome {
  const found = findJob(core, topics, id)
  if (found.status === 'not-found') return found
  const { job } = found
  if (isTerminal(job) || job.status === 'active') return { status: 'explained', job, waits: [] }
  const { topic, job: parsed } = locate(topics, id) as NonNullable<ReturnType<typeof locate>>
  const group = topic.jobs
  const paused: WaitReason[] = group.row.paused ? [{ kind: 'paused' }] : []
  if (job.status === 'scheduled')
    return { status: 'explained', job, waits: [{ kind: 'delayed', untilMs: job.dueAtMs as number }, ...paused] }
  const offset = offsetOf(core, topic, parsed) as number
  if (job.status === 'blocked') return { status: 'explained', job, waits: [{ kind: 'exhausted' }, ...paused] }
  if (job.status === 'retrying' && (job.dueAtMs as number) > core.nowMs)
    return { status: 'explained', job, waits: [{ kind: 'retrying', untilMs: job.dueAtMs as number }, ...paused] }
  const key = behindKey(core, group, offset)
  const suspect = behindSuspect(group, offset)
  // What holds the whole queue is no reason for a job that waits for another one to end.
  const isNext = key === null || (key.kind === 'key' && key.behindStatus === 'queued')
  const rest = isNext ? [...behindQueue(core, group), ...(key === null ? [placeInLine(group, offset)] : [])] : []
  return { status: 'explained', job, waits: [...present(key), ...present(suspect), ...paused, ...rest] }
}

function present(reason: WaitReason | null): readonly WaitReason[] {
  return reason === null ? [] : [reason]
}

/** P4: the job of the same lane that must be settled first. */
function behindKey(core: Core, group: Group, offset: number): WaitReason | null {
  const lane = laneAt(group, offset)
  if (lane === 0) return null
  const head = group.lanes.headOf(lane)
  if (head === offset) return null
  if (head >= 0 && head < offset) {
    const followers = group.row.settings.strict
      ? offset - head - 1 - group.settled.countBetween(head + 1, offset)
      : group.lanes.followersBefore(lane, offset) + countUnmet(group, lane, offset).count
    return behind(core, group, head, followers + 1)
  }
  const { first, count } = countUnmet(group, lane, offset)
  return first < 0 ? null : behind(core, group, first, count)
}

/** Jobs of a lane that the walk has not come to and that stand before `offset`: the first (or -1), and how many. */
function countUnmet(group: Group, lane: number, offset: number): { readonly first: number; readonly count: number } {
  let first = -1
  let count = 0
  const end = Math.min(offset, group.cursor + LOOK_BACK)
  for (let at = group.settled.nextOpen(group.cursor); at < end; at = group.settled.nextOpen(at + 1)) {
    if (group.troubles.has(at) || laneAt(group, at) !== lane) continue
    if (first < 0) first = at
    count++
  }
  return { first, count }
}

function laneAt(group: Group, offset: number): number {
  const batch = group.topic.window.at(offset)
  return batch === null ? 0 : group.laneOf(batch.view.lane(offset - batch.baseOffset))
}

function behind(core: Core, group: Group, offset: number, ahead: number): WaitReason {
  const id = idOf(group.topic, offset)
  return { kind: 'key', behind: id, behindStatus: viewJob(core, group, offset, id).status, ahead }
}

/** P3: a job that may have killed its process is out alone, or is the next to go, alone. */
function behindSuspect(group: Group, offset: number): WaitReason | null {
  const { topic } = group
  const out = group.leases.get(group.suspectFence)
  if (out !== undefined) return { kind: 'suspect', behind: idOf(topic, out.offsets[out.open()[0] ?? 0] as number) }
  const next = group.suspects.peek()
  if (next === offset) return group.leasedCount > 0 ? { kind: 'suspect' } : null
  return next < 0 || group.settled.has(next) ? null : { kind: 'suspect', behind: idOf(topic, next) }
}

/** What keeps the queue as a whole from handing out. */
function behindQueue(core: Core, group: Group): readonly WaitReason[] {
  const reasons: WaitReason[] = []
  const isAsked = group.waiters.first() !== undefined
  if (!isAsked && group.leasedCount === 0) reasons.push({ kind: 'no-worker' })
  else if (!isAsked) reasons.push({ kind: 'workers-busy', active: group.leasedCount })
  if (group.rate !== null && group.rate.available(core.nowMs) === 0)
    reasons.push({ kind: 'rate', untilMs: core.nowMs + group.rate.nextMs(core.nowMs) })
  return reasons
}

/** How many jobs may be handed out before it: those ready in its class and above, and those that the walk meets first. */
function placeInLine(group: Group, offset: number): WaitReason {
  const { cursor, topic, settled } = group
  const unmetBefore = (end: number) => Math.max(0, end - cursor - settled.countBetween(cursor, end))
  let ahead = 0
  for (const [priority, ready] of group.ready.entries()) {
    const index = ready.indexOf(offset)
    // Low ones go when nothing else is left, be it met or not.
    if (index >= 0) return { kind: 'line', ahead: ahead + index + (priority === 2 ? unmetBefore(topic.head) : 0) }
    if (priority < 2) ahead += ready.length
  }
  return { kind: 'line', ahead: ahead + unmetBefore(offset) }
}
