/** What operators do to a group: dead letters, redrive, pause, seek, detach. */
import type { CommandOutcome, DeadLetter, FullOutcome, OffsetProblem } from '../engine/contract.ts'
import { SluiceError } from '../errors.ts'
import { parseJobId } from '../job-id.ts'
import { BatchBuilder, BatchView, type MessageFields } from '../message-batch.ts'
import { Lanes } from '../policy/lanes.ts'
import { OffsetQueue } from '../policy/offset-queue.ts'
import type { Core } from './core.ts'
import { type MovedRow, scheduledKey } from './delaying.ts'
import { fenceKey, type Group } from './group.ts'
import { idOf, REDRIVE_HEADER } from './jobs.ts'
import type { Lease } from './lease.ts'
import { offsetPlace, promise, promiseFits, refusePromise } from './promises.ts'
import { SettledSet } from './settled.ts'
import { revoke, splitDeadLetter } from './settling.ts'
import { hex, unhex } from './state.ts'
import { sizeOfAll, type Topic } from './topic.ts'

/** The most dead letters in one answer or one redrive. */
const MAX_LETTERS = 1_000
const OFFSET_DIGITS = 14

export function listDead(core: Core, group: Group, after: string | undefined, max: number): CommandOutcome {
  const prefix = `x/${hex(group.row.id)}/`
  const from = after === undefined ? prefix : `${prefix}${after}\x01`
  const limit = Math.min(max, MAX_LETTERS)
  const entries = core.state.range(from, `${prefix}\x7f`, limit)
  const letters = entries.map(([key, value]): DeadLetter => {
    const offset = unhex(key.slice(prefix.length))
    const { row, batch } = splitDeadLetter(value)
    const { attempts, error, diedAtMs } = row
    return { id: idOf(group.topic, offset), offset, attempts, error, diedAtMs, batch: new Uint8Array(batch) }
  })
  const last = entries.at(-1)
  return {
    status: 'dead-letters',
    letters,
    next: last !== undefined && entries.length === limit ? last[0].slice(prefix.length) : null,
  }
}

/**
 * Tries again: a dead letter of a queue becomes a new job at the end; a blocked message gets as many attempts again in
 * place. A dead letter of a topic's group is refused: appended anew, it would reach every other group a second time (P6).
 */
export function redrive(core: Core, group: Group, ids: readonly string[] | undefined, max: number): CommandOutcome {
  const offsets = ids === undefined ? null : offsetsOf(core, group.topic, ids)
  const made: string[] = []
  let count = 0
  for (const trouble of [...group.troubles.values()]) {
    if (!trouble.blocked || (offsets !== null && !offsets.has(trouble.offset)) || count >= max) continue
    group.setTrouble(core, { ...trouble, blocked: false, dueAtMs: core.nowMs, forgiven: trouble.attempts })
    group.noteChange(trouble.offset)
    core.touched.add(group)
    count++
  }
  if (group.topic.row.kind === 'topic') {
    if (count > 0 || group.deadCount === 0) return { status: 'done', count, ids: [] }
    throw new SluiceError(
      'UNSUPPORTED',
      `Dead letters of group "${group.row.name}" cannot be redriven: published again, every group of topic "${group.topic.row.name}" would see them twice. List them and handle them, or seek the group back`,
    )
  }
  const refusal = redriveDead(core, group, offsets, Math.min(max, MAX_LETTERS) - count, made)
  if (refusal !== null && count + made.length === 0) return refusal
  return { status: 'done', count: count + made.length, ids: made }
}

/** The offsets of those ids that are of this topic. A dead letter may be older than what the topic keeps. */
function offsetsOf(core: Core, topic: Topic, ids: readonly string[]): ReadonlySet<number> {
  const offsets = new Set<number>()
  for (const id of ids) {
    const job = parseJobId(id)
    if (job === null || !topic.knows(job)) continue
    const { place } = job
    if (place.kind === 'offset') {
      if (place.partition === 0) offsets.add(place.offset)
    } else {
      const moved = core.state.getJson<MovedRow>(`m/${hex(topic.row.id)}/${scheduledKey(place.dueMs, place.serial)}`)
      if (typeof moved?.offset === 'number') offsets.add(moved.offset)
    }
  }
  return offsets
}

function redriveDead(
  core: Core,
  group: Group,
  offsets: ReadonlySet<number> | null,
  max: number,
  made: string[],
): FullOutcome | null {
  const { topic } = group
  for (const [key, value] of findDead(core, group, offsets, max)) {
    const offset = unhex(key.slice(-OFFSET_DIGITS))
    const letter = splitDeadLetter(value)
    const redriveOf = idOf(topic, offset)
    const batch = withRedriveHeader(letter.batch, redriveOf)
    const bytes = sizeOfAll(batch)
    if (core.refuseAppends || !topic.fits(1, bytes, false)) return topic.refuse(core, { messages: 1, bytes })
    const { callbackUrl } = letter.row
    if (callbackUrl !== undefined && !promiseFits(core, false)) return refusePromise(core, false)
    const place = topic.store(core, batch)
    if (callbackUrl !== undefined) promise(core, topic, offsetPlace(place), callbackUrl, redriveOf)
    made.push(idOf(topic, place))
    dropDead(core, group, key)
  }
  return null
}

/** Drops dead letters for good. The outcome of their jobs stays as long as the jobs do. */
export function discard(core: Core, group: Group, ids: readonly string[] | undefined, max: number): CommandOutcome {
  const offsets = ids === undefined ? null : offsetsOf(core, group.topic, ids)
  const entries = findDead(core, group, offsets, Math.min(max, MAX_LETTERS))
  for (const [key] of entries) dropDead(core, group, key)
  return { status: 'done', count: entries.length }
}

/** Stored dead letters, oldest first: of these offsets, or any. */
function findDead(core: Core, group: Group, offsets: ReadonlySet<number> | null, max: number) {
  const prefix = `x/${hex(group.row.id)}/`
  if (max <= 0) return []
  if (offsets === null) return core.state.range(prefix, `${prefix}\x7f`, max)
  const entries: (readonly [string, Uint8Array])[] = []
  for (const offset of offsets) {
    const key = `${prefix}${hex(offset)}`
    const value = core.state.get(key)
    if (value !== undefined && entries.length < max) entries.push([key, value])
  }
  return entries
}

function dropDead(core: Core, group: Group, key: string): void {
  core.state.delete(key)
  group.deadCount--
  group.countersChanged = true
  core.touched.add(group)
}

/** Removes a group of a topic with all that is stored of it; its holds are lost, and whoever waits on it is told. */
export function forgetGroup(core: Core, group: Group): void {
  const id = hex(group.row.id)
  for (const prefix of [`l/${id}/`, `r/${id}/`, `s/${id}/`, `k/${id}/`, `o/${id}/`, `x/${id}/`])
    deleteUnder(core, prefix)
  for (const key of [`g/${id}`, `c/${id}`]) core.state.delete(key)
  // Should a group of this name come again, its fences go on from here (P5).
  core.state.putJson(fenceKey(group.topic, group.row.name), group.fence)
  for (const waiter of group.waiters.waiting()) {
    if (waiter.done) continue
    waiter.done = true
    core.answer(waiter.id, { status: 'not-found' })
  }
  // What still points to it (a timer) finds nothing to do.
  group.leases.clear()
  group.troubles.clear()
  group.countersChanged = false
  group.topic.groups.delete(group.row.name)
  group.topic.isFull = false
  core.touched.delete(group)
}

/** The same message as a new one: its deadline is over and done with, and it says which job it was. */
function withRedriveHeader(batch: Uint8Array, id: string): Uint8Array {
  const view = new BatchView(new Uint8Array(batch))
  const message: MessageFields = {
    payload: view.payload(0),
    isBytes: view.isBytes(0),
    key: view.key(0),
    headers: { ...view.headers(0), [REDRIVE_HEADER]: id },
    priority: view.priority(0),
  }
  const builder = new BatchBuilder()
  builder.add(message)
  return builder.finish()
}

export function setPaused(core: Core, group: Group, paused: boolean): void {
  if (group.row.paused === paused) return
  group.row = { ...group.row, paused }
  group.saveRow(core)
  core.touched.add(group)
}

/** An offset that a reader or group cannot go to, or null. */
export function findOffsetProblem(topic: Topic, offset: number): OffsetProblem | null {
  const { earliest, head } = topic
  if (offset < earliest) return { status: 'truncated', offset, earliest, head }
  return offset > head ? { status: 'out-of-range', offset, earliest, head } : null
}

/** Moves a group to a place, as if it had just started there; what it holds is lost to it (P5, P6). */
export function seekGroup(core: Core, group: Group, offset: number): void {
  const id = hex(group.row.id)
  for (const prefix of [`l/${id}/`, `r/${id}/`, `s/${id}/`, `k/${id}/`]) deleteUnder(core, prefix)
  group.row = { ...group.row, base: offset, baseBytes: group.topic.bytesBefore(offset) }
  group.settled = new SettledSet(offset)
  group.cursor = offset
  group.settledCount = 0
  group.settledBytes = 0
  group.lanes = new Lanes()
  group.ready = [new OffsetQueue(), new OffsetQueue(), new OffsetQueue()]
  group.suspects = new OffsetQueue()
  group.suspectFence = 0
  group.leases.clear()
  group.leasedCount = 0
  group.troubles.clear()
  group.blockedCount = 0
  group.remembered.clear()
  group.heldAtLoad.clear()
  group.countersChanged = true
  group.saveRow(core)
  core.touched.add(group)
}

/** P2: lets go of groups that keep a topic at its limit, so that `count` messages of `bytes` find room. */
export function detachSlowGroups(core: Core, topic: Topic, count: number, bytes: number): void {
  const { limit } = topic.row.settings
  for (const group of topic.groups.values()) {
    if (group.depth + count <= limit.messages && group.depthBytes + bytes <= limit.bytes) continue
    const from = group.row.lost?.offset ?? group.settled.floor
    // Half of the limit is left to it, where that leaves room for what comes.
    const half = Math.max(
      group.settled.floor,
      topic.head - Math.floor(Math.min(limit.messages / 2, limit.messages - count)),
    )
    const isRoom = half <= topic.head && topic.headBytes - topic.bytesBefore(half) + bytes <= limit.bytes
    const to = isRoom ? half : topic.head
    dropBelow(core, group, to)
    group.row = { ...group.row, lost: { status: 'truncated', offset: from, earliest: to, head: topic.head } }
    group.saveRow(core)
  }
  topic.isFull = false
}

/** Lets go of what a group has not settled below `to`. What it settled, tried or holds from there on stays as it is (P3). */
function dropBelow(core: Core, group: Group, to: number): void {
  const held = new Map<number, Lease>()
  for (const lease of group.leases.values())
    for (const index of lease.open()) held.set(lease.offsets[index] as number, lease)
  for (let offset = group.settled.floor; offset < to; offset++) {
    if (group.settled.has(offset)) continue
    const batch = group.topic.window.at(offset)
    if (batch === null) continue
    const lease = held.get(offset)
    if (lease !== undefined) revoke(core, group, lease, lease.indexOf(offset))
    const index = offset - batch.baseOffset
    group.markSettled(core, offset, group.laneOf(batch.view.lane(index)), batch.view.size(index))
  }
  core.touched.add(group)
}

function deleteUnder(core: Core, prefix: string): void {
  for (;;) {
    const entries = core.state.under(prefix, 10_000)
    for (const [key] of entries) core.state.delete(key)
    if (entries.length < 10_000) return
  }
}
