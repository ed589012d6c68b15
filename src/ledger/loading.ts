/**
 * Loading: the ledger as it was committed. Reads what is unsettled and tried, never what merely waits, so that opening
 * takes the same time whatever the depth.
 */
import { CALLBACKS_QUEUE } from '../engine/options.ts'
import type { LogExtent } from '../logs/contract.ts'
import { newestBucketMs } from './appending.ts'
import type { Core } from './core.ts'
import { setDueTimer } from './delaying.ts'
import { Group, type GroupRow, type Trouble } from './group.ts'
import { addLease } from './hand-out.ts'
import { Lease, type LeaseRow, offsetsOfRow } from './lease.ts'
import { suspectLease } from './settling.ts'
import { decodeJson, hex, unhex } from './state.ts'
import { Topic, type TopicCounters, type TopicRow } from './topic.ts'

const EVERYTHING = Number.MAX_SAFE_INTEGER

/** Which holds of the process are still good: those of this very process, or none, as another one made them. */
export type LoadMode = 'same-process' | 'new-process'

export function loadTopics(core: Core): Map<string, Topic> {
  const topics = new Map<string, Topic>()
  for (const [, value] of core.state.under('t/', EVERYTHING)) {
    const row = decodeJson<TopicRow>(value)
    topics.set(row.name, new Topic(row, core))
  }
  return topics
}

/** Fills in what the log says of each topic, then the groups. */
export function loadGroups(
  core: Core,
  topics: ReadonlyMap<string, Topic>,
  extents: readonly LogExtent[],
  mode: LoadMode,
): void {
  const byId = new Map([...topics.values()].map((topic) => [topic.row.id, topic]))
  for (const extent of extents) {
    const topic = byId.get(extent.topic)
    if (topic !== undefined) loadTopic(core, topic, extent)
  }
  const callbacks = topics.get(CALLBACKS_QUEUE)
  if (callbacks !== undefined) for (const topic of topics.values()) callbacks.promised += topic.promises
  const rows = core.state.under('g/', EVERYTHING).map(([, value]) => decodeJson<GroupRow>(value))
  // First the queue of callbacks: what died with its process may be out of attempts, and then has its callback there.
  for (const row of rows.sort(
    (a, b) => Number(b.topic === callbacks?.row.id) - Number(a.topic === callbacks?.row.id),
  )) {
    const topic = byId.get(row.topic) as Topic
    const group = new Group(row, topic, core)
    topic.groups.set(row.name, group)
    loadGroup(core, group, mode)
  }
}

function loadTopic(core: Core, topic: Topic, extent: LogExtent): void {
  const counters = core.state.getJson<TopicCounters>(`T/${hex(topic.row.id)}`)
  topic.head = extent.head
  topic.headBytes = extent.headBytes
  topic.earliest = Math.max(extent.earliest, counters?.earliest ?? 0)
  if (topic.head > topic.earliest) topic.lastTimestampMs = topic.window.at(topic.head - 1)?.timestampMs ?? 0
  topic.keysSinceMs = newestBucketMs(core, topic)
  if (counters === undefined) return
  topic.lastSpecial = counters.lastSpecial
  topic.scheduled = counters.scheduled
  topic.scheduledBytes = counters.scheduledBytes
  topic.serial = counters.serial
  topic.promises = counters.promises ?? 0
  const prefix = `d/${hex(topic.row.id)}/`
  const next = core.state.under(prefix, 1)[0]
  if (next !== undefined) setDueTimer(core, topic, unhex(next[0].slice(prefix.length, prefix.length + 14)))
}

function loadGroup(core: Core, group: Group, mode: LoadMode): void {
  const id = hex(group.row.id)
  const counters = core.state.get(`c/${id}`)
  if (counters !== undefined) {
    const view = new DataView(counters.buffer, counters.byteOffset, counters.byteLength)
    const [floor, fence, settledCount, settledBytes, deadCount] = [0, 8, 16, 24, 32].map((at) =>
      view.getFloat64(at, true),
    )
    group.settled.startAt(floor as number)
    group.cursor = floor as number
    group.fence = fence as number
    group.settledCount = settledCount as number
    group.settledBytes = settledBytes as number
    group.deadCount = deadCount as number
  }
  for (const [key, value] of core.state.under(`s/${id}/`, EVERYTHING)) group.settled.load(unhex(key.slice(-14)), value)
  for (const [key] of core.state.under(`k/${id}/`, EVERYTHING)) {
    const [, , offset, name] = key.split('/') as [string, string, string, string]
    group.remember(unhex(offset), name)
  }
  loadHeld(core, group, mode)
}

/** Messages in trouble and in leases, in order of offset, so that lanes are entered in order (lanes.ts, invariant 2). */
function loadHeld(core: Core, group: Group, mode: LoadMode): void {
  const id = hex(group.row.id)
  for (const [, value] of core.state.under(`r/${id}/`, EVERYTHING)) {
    const trouble = decodeJson<Trouble>(value)
    group.troubles.set(trouble.offset, trouble)
    if (trouble.blocked) group.blockedCount++
    group.lanes.enter(trouble.lane, trouble.offset, core.nowMs)
  }
  const leased = new Set<number>()
  for (const [, value] of core.state.under(`l/${id}/`, EVERYTHING)) {
    const lease = loadLease(group, decodeJson<LeaseRow>(value))
    if (mode === 'new-process' && lease.token !== null && lease.openCount > 0) {
      lease.lives++
      core.state.putJson(`l/${id}/${hex(lease.fence)}`, lease.toRow())
    }
    for (const index of lease.open()) {
      const offset = lease.offsets[index] as number
      leased.add(offset)
      group.heldAtLoad.add(offset)
      if (!group.troubles.has(offset)) group.lanes.enter(lease.lanes[index] as number, offset, core.nowMs)
    }
    if (lease.openCount === 0) continue
    addLease(core, group, lease)
  }
  for (const trouble of group.troubles.values()) if (!leased.has(trouble.offset)) group.park(core, trouble)
  for (const lease of [...group.leases.values()]) {
    if (lease.token === null && mode === 'new-process') suspectLease(core, group, lease)
    else if (lease.open().some((index) => group.troubles.get(lease.offsets[index] as number)?.suspect))
      group.suspectFence = lease.fence
  }
  core.touched.add(group)
}

/** A stored lease, with those messages closed whose hold has ended since. */
function loadLease(group: Group, row: LeaseRow): Lease {
  const offsets = offsetsOfRow(row)
  const lanes: number[] = []
  const sizes: number[] = []
  for (const offset of offsets) {
    const batch = group.settled.has(offset) ? null : group.topic.window.at(offset)
    lanes.push(batch === null ? 0 : group.laneOf(batch.view.lane(offset - batch.baseOffset)))
    sizes.push(batch === null ? 0 : batch.view.size(offset - batch.baseOffset))
  }
  const attempts = row.attempts ?? offsets.map(() => 1)
  const lease = new Lease(row.fence, row.token, row.expiresAtMs, { offsets, lanes, sizes, attempts })
  lease.lives = row.lives ?? 0
  for (let i = 0; i < offsets.length; i++) {
    const offset = offsets[i] as number
    const endedUnder = group.troubles.get(offset)?.fence ?? 0
    if (group.settled.has(offset) || endedUnder >= row.fence) lease.close(i)
  }
  return lease
}
