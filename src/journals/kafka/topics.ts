/** The three topics of a namespace: how they are made, and what must be so of them for the promises to hold. */
import type { Durability } from '../../logs/contract.ts'
import type { Answer } from './answer.ts'
import { backOffMs, type Cluster, pause } from './cluster.ts'

/** The most that one batch of records takes, and so one letter: with its key and Kafka's own bytes. */
export const MAX_MESSAGE_BYTES = 20 * 1024 ** 2

export interface Topics {
  /** The entries. */
  readonly journal: string
  /** Whose turn it is to write them. */
  readonly owner: string
  /** Letters between processes. */
  readonly letters: string
}

export function nameTopics(namespace: string): Topics {
  return { journal: `${namespace}.journal`, owner: `${namespace}.owner`, letters: `${namespace}.letters` }
}

export interface Wishes {
  readonly durability: Durability | undefined
  readonly copies: number | undefined
}

export type Settings = Readonly<Record<string, string>>

/** Of which topic each setting is demanded, and what it is there for. */
export const DEMANDS: readonly {
  readonly topic: keyof Topics
  readonly name: string
  readonly value: string
  readonly reason: string
}[] = [
  { topic: 'journal', name: 'cleanup.policy', value: 'delete', reason: 'compaction removes entries that are needed' },
  { topic: 'journal', name: 'retention.ms', value: '-1', reason: 'Kafka removes acknowledged entries after this time' },
  { topic: 'journal', name: 'retention.bytes', value: '-1', reason: 'Kafka removes acknowledged entries beyond it' },
  {
    topic: 'journal',
    name: 'unclean.leader.election.enable',
    value: 'false',
    reason: 'a replica that lacks acknowledged entries may become the leader',
  },
  {
    topic: 'journal',
    name: 'message.timestamp.type',
    value: 'LogAppendTime',
    reason: 'with the clocks of clients Kafka may forget which attempt it has stored already, and store it twice',
  },
  {
    topic: 'owner',
    name: 'message.timestamp.type',
    value: 'LogAppendTime',
    reason: 'whose turn it is is told by the time of the broker',
  },
  { topic: 'owner', name: 'cleanup.policy', value: 'delete', reason: 'the last turns must be read in order' },
  { topic: 'letters', name: 'cleanup.policy', value: 'delete', reason: 'compaction removes letters that differ' },
]

function settingsOf(topic: keyof Topics, copies: number, durability: Durability | undefined): Settings {
  const common = {
    'cleanup.policy': 'delete',
    'compression.type': 'uncompressed',
    'message.timestamp.type': 'LogAppendTime',
  }
  switch (topic) {
    case 'journal':
      return {
        ...common,
        'retention.ms': '-1',
        'retention.bytes': '-1',
        'unclean.leader.election.enable': 'false',
        'min.insync.replicas': `${copies}`,
        'max.message.bytes': `${MAX_MESSAGE_BYTES}`,
        // What was truncated leaves the disk a segment at a time.
        'segment.bytes': `${64 * 1024 ** 2}`,
        ...(durability === 'disk' ? { 'flush.messages': '1' } : {}),
      }
    case 'owner':
      return {
        ...common,
        'retention.ms': '3600000',
        'segment.bytes': '1048576',
        'segment.index.bytes': '65536',
        'min.insync.replicas': `${copies}`,
        'unclean.leader.election.enable': 'false',
      }
    case 'letters':
      // Whoever reads them reads at the end: what is older than minutes is for nobody.
      return {
        ...common,
        'retention.ms': '300000',
        'retention.bytes': `${256 * 1024 ** 2}`,
        'segment.ms': '60000',
        'segment.bytes': `${64 * 1024 ** 2}`,
        'max.message.bytes': `${MAX_MESSAGE_BYTES}`,
        'min.insync.replicas': '1',
      }
  }
}

/** How many replicas topics get that Sluice makes, and how many of them must have what is acknowledged. */
export function planCopies(brokers: number, wished: number | undefined): { replicas: number; copies: number } {
  const replicas = Math.min(brokers, Math.max(3, wished ?? 1))
  return { replicas, copies: Math.max(wished ?? 1, replicas >= 3 ? 2 : 1) }
}

/** Makes those that are missing. Someone else may do the same at the same time. */
export async function createTopics(
  cluster: Cluster,
  topics: Topics,
  missing: readonly (keyof Topics)[],
  brokers: number,
  { copies: wished, durability }: Wishes,
): Promise<Answer<null>> {
  const { replicas, copies } = planCopies(brokers, wished)
  const made = missing.map((topic) => ({
    name: topics[topic],
    numPartitions: 1,
    replicationFactor: replicas,
    assignments: [],
    configs: Object.entries(settingsOf(topic, copies, durability)).map(([name, value]) => ({ name, value })),
  }))
  const answer = await cluster.ask((connection) =>
    cluster.library.createTopicsV7.api.async(connection, made, 4_000, false),
  )
  if (answer.ok || answer.code === 'TOPIC_ALREADY_EXISTS') return { ok: true, value: null }
  return answer
}

/** Until all three are there and have a leader, or for as long as `signal` allows. */
export async function waitForTopics(cluster: Cluster, topics: Topics, signal: AbortSignal): Promise<boolean> {
  const names = Object.values(topics) as string[]
  for (let attempt = 0; !signal.aborted; attempt++) {
    const view = await cluster.look(names)
    if (view.ok && names.every((name) => (view.value.topics.get(name)?.leaderId ?? -1) >= 0)) return true
    await pause(backOffMs(attempt), signal)
  }
  return false
}

/** The settings in force of topics, and of a broker where `brokerId` is given. Those that may not be read are left out. */
export async function readSettings(
  cluster: Cluster,
  names: readonly string[],
  brokerId?: number,
): Promise<Answer<ReadonlyMap<string, Settings>>> {
  const { ConfigResourceTypes } = cluster.library
  const resources = names.map((resourceName) => ({ resourceType: ConfigResourceTypes.TOPIC, resourceName }))
  const ofBroker =
    brokerId === undefined ? [] : [{ resourceType: ConfigResourceTypes.BROKER, resourceName: `${brokerId}` }]
  const answer = await cluster.ask((connection) =>
    cluster.library.describeConfigsV4.api
      .async(connection, [...resources, ...ofBroker] as never, false, false)
      .catch((error: { response?: unknown }) => {
        if (error.response === undefined || error.response === null) throw error
        return error.response as Awaited<ReturnType<typeof cluster.library.describeConfigsV4.api.async>>
      }),
  )
  if (!answer.ok) return answer
  const found = new Map<string, Settings>()
  for (const { errorCode, resourceName, configs } of answer.value.results)
    if (errorCode === 0)
      found.set(resourceName, Object.fromEntries(configs.map(({ name, value }) => [name, value ?? ''])))
  return { ok: true, value: found }
}
