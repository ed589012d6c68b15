/** How a topic and its groups are now, for people and metrics. */
import type { GroupStats, TopicStats } from '../engine/contract.ts'
import type { Core } from './core.ts'
import type { Group } from './group.ts'
import type { Topic } from './topic.ts'

export function viewTopic(core: Core, topic: Topic): TopicStats {
  const { row, earliest, head, depth, scheduled, appended, refused } = topic
  const { limit } = row.settings
  const groups = [...topic.groups.values()].map((group) => viewGroup(core, group))
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
    groups,
  }
}

function viewGroup(core: Core, group: Group): GroupStats {
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
  }
}
