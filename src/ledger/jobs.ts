/**
 * Jobs: what an id stands for, how it is now, and what an operator may do to it. A status is not stored where it
 * follows from what is: below the floor without an outcome row is "completed at the first attempt" (P10).
 */
import type { FindOutcome, JobStatus, JobView } from '../engine/contract.ts'
import { formatJobId, type JobId, parseJobId } from '../job-id.ts'
import { BatchView } from '../message-batch.ts'
import { announceEnd } from './callbacks.ts'
import type { Core } from './core.ts'
import { acceptedAtMs, type MovedRow, scheduledKey, scheduledPlace } from './delaying.ts'
import type { Group } from './group.ts'
import { offsetPlace, takePromise } from './promises.ts'
import type { WatchWaiter } from './requests.ts'
import { type OutcomeRow, revoke, settleAs } from './settling.ts'
import { hex } from './state.ts'
import type { Topic } from './topic.ts'

/** The header under which a redriven message names the job that it was. */
export const REDRIVE_HEADER = 'sluice-redrive-of'

const TERMINAL: ReadonlySet<JobStatus> = new Set(['completed', 'failed', 'cancelled', 'expired'])

/** Steps within one attempt, rising (P10). */
const RANKS: Record<JobStatus, number> = {
  scheduled: 0,
  queued: 1,
  active: 2,
  blocked: 3,
  retrying: 4,
  completed: 5,
  failed: 5,
  cancelled: 5,
  expired: 5,
}
const MAX_PROGRESS_COUNT = 65_535

export function isTerminal(job: JobView): boolean {
  return TERMINAL.has(job.status)
}

/** The queue's topic and the id, where both fit together. */
export function locate(
  topics: ReadonlyMap<string, Topic>,
  id: string,
): { readonly topic: Topic; readonly job: JobId } | null {
  const job = parseJobId(id)
  if (job === null) return null
  const topic = topics.get(job.queue)
  if (topic === undefined || topic.row.kind !== 'queue' || !topic.knows(job)) return null
  if (job.place.kind === 'offset' && job.place.partition !== 0) return null
  return { topic, job }
}

/** The offset of a job, or that it is still delayed, cancelled while it was, or unknown. */
export function offsetOf(core: Core, topic: Topic, job: JobId): number | 'scheduled' | 'cancelled' | null {
  const { place } = job
  if (place.kind === 'offset') return place.offset < topic.head && place.offset >= topic.earliest ? place.offset : null
  const end = `${hex(topic.row.id)}/${scheduledKey(place.dueMs, place.serial)}`
  if (core.state.get(`d/${end}`) !== undefined) return 'scheduled'
  const moved = movedRow(core, topic, place)
  if (moved === undefined) return null
  if (moved.offset === null) return 'cancelled'
  return moved.offset >= topic.earliest ? moved.offset : null
}

type ScheduledPlace = Extract<JobId['place'], { kind: 'scheduled' }>

function movedRow(core: Core, topic: Topic, { dueMs, serial }: ScheduledPlace): MovedRow | undefined {
  return core.state.getJson<MovedRow>(`m/${hex(topic.row.id)}/${scheduledKey(dueMs, serial)}`)
}

/** When the job was accepted; one that was delayed has its place from later on. */
function createdAtMs(core: Core, topic: Topic, id: string, storedAtMs: number): number {
  const place = parseJobId(id)?.place
  return place?.kind === 'scheduled' ? (movedRow(core, topic, place)?.acceptedAtMs ?? storedAtMs) : storedAtMs
}

export function findJob(core: Core, topics: ReadonlyMap<string, Topic>, id: string): FindOutcome {
  const found = locate(topics, id)
  if (found === null) return { status: 'not-found' }
  const { topic, job } = found
  const offset = offsetOf(core, topic, job)
  if (offset === null) return { status: 'not-found' }
  if (offset === 'scheduled' || offset === 'cancelled')
    return { status: 'found', job: viewDelayed(core, topic, job, id, offset) }
  expireIfDue(core, topic, offset)
  return { status: 'found', job: viewJob(core, topic.jobs, offset, id) }
}

function viewDelayed(core: Core, topic: Topic, job: JobId, id: string, status: 'scheduled' | 'cancelled'): JobView {
  const place = job.place as ScheduledPlace
  const end = `${hex(topic.row.id)}/${scheduledKey(place.dueMs, place.serial)}`
  const row = core.state.get(`d/${end}`)
  const createdAtMs = row === undefined ? (movedRow(core, topic, place)?.acceptedAtMs ?? 0) : acceptedAtMs(row)
  return {
    id,
    queue: topic.row.name,
    status,
    attempts: 0,
    version: versionOf(0, status, 0),
    createdAtMs,
    dueAtMs: place.dueMs,
  }
}

/** A job of a queue that has an offset. */
export function viewJob(core: Core, group: Group, offset: number, id: string): JobView {
  const { topic } = group
  const batch = topic.window.at(offset)
  const headers = batch?.view.headers(offset - batch.baseOffset)
  const base = {
    id,
    queue: topic.row.name,
    createdAtMs: createdAtMs(core, topic, id, batch?.timestampMs ?? 0),
    redriveOf: headers?.[REDRIVE_HEADER],
  }
  const make = (status: JobStatus, attempts: number, more: Partial<JobView> = {}, progressCount = 0): JobView => ({
    ...base,
    status,
    attempts,
    version: versionOf(attempts, status, progressCount),
    ...more,
  })
  if (group.settled.has(offset)) {
    const row = core.state.getJson<OutcomeRow>(`o/${hex(group.row.id)}/${hex(offset)}`)
    if (row === undefined) return make('completed', 1)
    return make(row.status, row.attempts, { result: row.result, error: row.error })
  }
  const lease = group.leasedCount > 0 ? group.leaseOf(offset) : undefined
  if (lease !== undefined) {
    const attempts = lease.attempts[lease.indexOf(offset)] as number
    return make(
      'active',
      attempts,
      { progress: lease.progressOf(offset), error: group.troubles.get(offset)?.error },
      lease.progressRank(offset),
    )
  }
  const trouble = group.troubles.get(offset)
  if (trouble === undefined) return make('queued', 0)
  if (trouble.blocked) return make('blocked', trouble.attempts, { error: trouble.error })
  return make('retrying', trouble.attempts, { error: trouble.error, dueAtMs: trouble.dueAtMs })
}

function versionOf(attempts: number, status: JobStatus, progressCount: number): number {
  return (attempts * 8 + RANKS[status]) * (MAX_PROGRESS_COUNT + 1) + Math.min(progressCount, MAX_PROGRESS_COUNT)
}

/** Settles a job as expired when it is asked for after its deadline, so that the answer is the same for good (P10, P11). */
function expireIfDue(core: Core, topic: Topic, offset: number): void {
  const group = topic.jobs
  const batch = topic.window.at(offset)
  if (batch === null) return
  const deadlineMs = batch.view.deadlineMs(offset - batch.baseOffset)
  if (deadlineMs === 0 || deadlineMs > core.nowMs) return
  if (group.settled.has(offset) || group.troubles.has(offset) || group.leaseOf(offset) !== undefined) return
  group.figures.expired++
  settleWaiting(core, group, offset, { status: 'expired', attempts: 0, atMs: core.nowMs })
}

/** Settles a message that is not leased. */
function settleWaiting(core: Core, group: Group, offset: number, row: OutcomeRow): void {
  const batch = group.topic.window.at(offset)
  if (batch === null) return
  const index = offset - batch.baseOffset
  settleAs(core, group, offset, group.laneOf(batch.view.lane(index)), batch.view.size(index), row)
}

/** Ends a job that is not terminal (P10). Null: it is not there. The view of a job that was terminal already. */
/** `isMoved`: nobody is told of an end by a callback, as the job goes on elsewhere. */
export function cancelJob(
  core: Core,
  topics: ReadonlyMap<string, Topic>,
  id: string,
  isMoved: boolean,
): 'cancelled' | JobView | null {
  const found = findJob(core, topics, id)
  if (found.status === 'not-found') return null
  if (isTerminal(found.job)) return found.job
  const { topic, job } = locate(topics, id) as { topic: Topic; job: JobId }
  const offset = offsetOf(core, topic, job)
  if (isMoved) {
    const place = offset === 'scheduled' ? scheduledPlace(job.place as ScheduledPlace) : offsetPlace(offset as number)
    takePromise(core, topic, place)
  }
  if (offset === 'scheduled') cancelDelayed(core, topic, job)
  else cancelPlaced(core, topic.jobs, offset as number, found.job.attempts)
  return 'cancelled'
}

function cancelPlaced(core: Core, group: Group, offset: number, attempts: number): void {
  const row: OutcomeRow = { status: 'cancelled', attempts, atMs: core.nowMs }
  const lease = group.leaseOf(offset)
  if (lease === undefined) {
    settleWaiting(core, group, offset, row)
    return
  }
  const index = lease.indexOf(offset)
  revoke(core, group, lease, index)
  settleAs(core, group, offset, lease.lanes[index] as number, lease.sizes[index] as number, row)
}

function cancelDelayed(core: Core, topic: Topic, job: JobId): void {
  const place = job.place as ScheduledPlace
  const end = scheduledKey(place.dueMs, place.serial)
  const key = `d/${hex(topic.row.id)}/${end}`
  const row = core.state.get(key)
  if (row === undefined) return
  core.state.delete(key)
  const moved: MovedRow = { offset: null, atMs: core.nowMs, acceptedAtMs: acceptedAtMs(row) }
  core.state.putJson(`m/${hex(topic.row.id)}/${end}`, moved)
  topic.scheduled--
  topic.scheduledBytes -= new BatchView(row.subarray(8)).size(0)
  topic.countersChanged = true
  core.grown.add(topic)
  announceEnd(core, topic, scheduledPlace(place), { status: 'cancelled', attempts: 0 })
  answerDelayed(core, topic, end, job)
}

function answerDelayed(core: Core, topic: Topic, end: string, job: JobId): void {
  const watchers = topic.scheduledWatchers.get(end)
  if (watchers === undefined) return
  topic.scheduledWatchers.delete(end)
  for (const watcher of watchers) {
    if (watcher.done) continue
    watcher.done = true
    core.answer(watcher.id, { status: 'found', job: viewDelayed(core, topic, job, watcher.request.id, 'cancelled') })
  }
}

/** Puts a watch where changes of its job are noticed. Its job is there and not yet as wanted. */
export function addWatcher(core: Core, topics: ReadonlyMap<string, Topic>, waiter: WatchWaiter): void {
  const place = watchPlace(core, topics, waiter.request.id)
  if (place === null) return
  const list = place.watchers.get(place.key)
  if (list === undefined) place.watchers.set(place.key, new Set([waiter]))
  else list.add(waiter)
}

/** Takes a watch away whose wait is over. */
export function removeWatcher(core: Core, topics: ReadonlyMap<string, Topic>, waiter: WatchWaiter): void {
  const place = watchPlace(core, topics, waiter.request.id)
  if (place === null) return
  const left = place.watchers.get(place.key)
  left?.delete(waiter)
  if (left?.size === 0) place.watchers.delete(place.key)
}

interface WatchPlace {
  readonly watchers: Map<string | number, Set<WatchWaiter>>
  readonly key: string | number
}

/** Where changes of a job are noticed: by its due time while it is delayed, by its offset after that. */
function watchPlace(core: Core, topics: ReadonlyMap<string, Topic>, id: string): WatchPlace | null {
  const found = locate(topics, id)
  if (found === null) return null
  const { topic, job } = found
  const offset = offsetOf(core, topic, job)
  if (offset === 'scheduled' && job.place.kind === 'scheduled') {
    return {
      watchers: topic.scheduledWatchers as WatchPlace['watchers'],
      key: scheduledKey(job.place.dueMs, job.place.serial),
    }
  }
  return typeof offset === 'number' ? { watchers: topic.jobs.watchers as WatchPlace['watchers'], key: offset } : null
}

/** Answers the watches of jobs that changed in this step. */
export function answerWatchers(core: Core, group: Group): void {
  for (const offset of group.changed) {
    const watchers = group.watchers.get(offset)
    if (watchers === undefined) continue
    const isTerminalNow = group.settled.has(offset)
    for (const watcher of watchers) {
      if (!isTerminalNow && watcher.request.untilTerminal) continue
      const job = viewJob(core, group, offset, watcher.request.id)
      if (isWanted(watcher, job)) {
        watcher.done = true
        core.answer(watcher.id, { status: 'found', job })
        watchers.delete(watcher)
      }
    }
    if (watchers.size === 0) group.watchers.delete(offset)
  }
  group.changed.clear()
}

/** Whether the job is as the watch wants it. */
export function isWanted(watcher: Pick<WatchWaiter, 'request'>, job: JobView): boolean {
  return isTerminal(job) || (!watcher.request.untilTerminal && job.version > watcher.request.version)
}

/** The id of the job at `offset`. */
export function idOf(topic: Topic, offset: number): string {
  return formatJobId(topic.row.name, topic.row.tag, offset)
}
