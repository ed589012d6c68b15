/** How a topic and its groups are now, for people and metrics. */
import type { GroupStats, TopicStats } from '../engine/contract.ts'
import type { Core } from './core.ts'
import type { Group } from './group.ts'
import type { Topic } from './topic.ts'

/** Messages that are looked up for their age in one step: each may take a read. */
const MAX_LOOKED_UP = 100

export function viewTopics(core: Core, topics: Iterable<Topic>): TopicStats[] {
  const budget = { left: MAX_LOOKED_UP }
  return [...topics].map((topic) => viewTopic(core, topic, budget))
}

function viewTopic(core: Core, topic: Topic, budget: { left: number }): TopicStats {
  const { row, earliest, head, depth, scheduled, appended, refused } = topic
  const { limit } = row.settings
  const groups = [...topic.groups.values()].map((group) => viewGroup(core, group, budget))
  return {
    kind: row.kind,
    name: row.name,
    earliest,
    head,
    depth,
    limit: { ...limit },
    scheduled,
    appended,
    refused,
    refusedBy: { ...topic.refusedBy },
    groups,
  }
}

/** Looked up once for each floor, however often it is asked for. */
function findOldest(group: Group, budget: { left: number }): number | null {
  const { floor } = group.settled
  if (group.depth === 0 || floor >= group.topic.head) return null
  if (group.oldest.floor !== floor) {
    if (budget.left === 0) return null
    budget.left--
    const batch = group.topic.window.at(floor)
    if (batch === null) return null
    group.oldest = { floor, atMs: batch.timestampMs }
  }
  return group.oldest.atMs
}

function viewGroup(core: Core, group: Group, budget: { left: number }): GroupStats {
  const leasedRetries = [...group.leases.values()].reduce(
    (sum, lease) =>
      sum +
      lease.attempts.filter((attempt, index) => attempt > 1 && lease.holds(lease.offsets[index] as number)).length,
    0,
  )
  return {
    name: group.row.name,
    floor: group.settled.floor,
    depth: group.depth,
    leased: group.leasedCount,
    retrying: group.troubles.size - group.blockedCount - leasedRetries,
    blocked: group.blockedCount,
    dead: group.deadCount,
    paused: group.row.paused,
    drainPerSecond: group.drain.perSecond(core.nowMs),
    oldestAtMs: findOldest(group, budget),
    asking: group.waiters.waiting().length,
    work: group.figures.view(),
  }
}
