/** What operators want to know of the cluster, and what of it is wrong. */
import type { JournalHealth } from '../contract.ts'
import type { Cluster, ClusterView } from './cluster.ts'
import type { Topics } from './topics.ts'

export interface HealthInput {
  /** That are promised. */
  readonly copies: number
  /** What the journal itself met. */
  readonly problems: readonly string[]
  readonly metadataLevel: number
  readonly appendedBytes: number
}

export async function describeHealth(
  cluster: Cluster,
  topics: Topics,
  { copies, problems, metadataLevel, appendedBytes }: HealthInput,
): Promise<JournalHealth> {
  const looked = await cluster.look(Object.values(topics))
  if (!looked.ok) {
    const reason = `Kafka at ${cluster.address.text} does not answer: ${looked.text}. Start it, or mend the network.`
    return { status: 'failed', reasons: [reason, ...problems], facts: {}, storedBytes: appendedBytes }
  }
  const view = looked.value
  const failures: string[] = []
  const worries: string[] = [...problems]
  for (const name of Object.values(topics) as string[]) {
    const topic = view.topics.get(name)
    if (topic === undefined) {
      failures.push(`The topic ${name} is gone. Sluice makes it anew when it is opened; what was in it is lost.`)
      continue
    }
    const away = topic.replicas.filter((id) => !topic.inSync.includes(id))
    if (topic.leaderId < 0) failures.push(`No broker leads ${name}. Start the brokers ${topic.replicas.join(', ')}.`)
    else if (name === topics.journal && topic.inSync.length < copies)
      failures.push(
        `${topic.inSync.length} of ${topic.replicas.length} replicas of ${name} are in sync, and ${copies} are needed: nothing can be stored. Start the brokers ${away.join(', ')}.`,
      )
    else if (away.length > 0)
      worries.push(
        `Of ${name} the replicas on the brokers ${away.join(', ')} lag or are away. Start them, or mend their disks.`,
      )
  }
  const stored = await readStoredBytes(cluster, topics.journal)
  const status = failures.length > 0 ? 'failed' : worries.length > 0 ? 'degraded' : 'ok'
  return {
    status,
    reasons: [...failures, ...worries].slice(0, 20),
    facts: listFacts(view, topics, copies, metadataLevel),
    storedBytes: stored ?? appendedBytes,
  }
}

function listFacts(view: ClusterView, topics: Topics, copies: number, level: number): Record<string, string> {
  const journal = view.topics.get(topics.journal)
  return {
    'metadata.version': `up to ${level}`,
    cluster: view.clusterId,
    brokers: view.brokers.map(({ nodeId, host, port }) => `${nodeId} (${host}:${port})`).join(', '),
    controller: `${view.controllerId}`,
    journal: topics.journal,
    leader: `${journal?.leaderId ?? 'none'}`,
    replicas: journal?.replicas.join(', ') ?? '',
    'in sync': journal?.inSync.join(', ') ?? '',
    copies: `${copies}`,
  }
}

/** null where the user may not ask, or the leader cannot be asked. */
async function readStoredBytes(cluster: Cluster, name: string): Promise<number | null> {
  const line = cluster.openLine(name)
  try {
    const answer = await line.call(async (connection) => {
      const value = await cluster.library.describeLogDirsV4.api
        .async(connection, [{ name, partitions: [0] }])
        .catch(() => null)
      return { ok: true, value }
    })
    if (!answer.ok || answer.value === null) return null
    const sizes = answer.value.results.flatMap(({ topics }) =>
      topics.flatMap(({ partitions }) => partitions.filter((one) => !one.isFutureKey).map((one) => one.partitionSize)),
    )
    return sizes.length === 0 ? null : Number(sizes.reduce((sum, size) => sum + size, 0n))
  } finally {
    line.end()
  }
}
