/** Looks at a Kafka before it is trusted. Nothing is made or changed by that. */
import type { Durability } from '../../logs/contract.ts'
import type { Finding } from '../contract.ts'
import { type Answer, readFailure } from './answer.ts'
import type { Cluster, ClusterView, Line, TopicView } from './cluster.ts'
import { decodeKey, fetchRecords } from './records.ts'
import {
  DEMANDS,
  MAX_MESSAGE_BYTES,
  planCopies,
  readSettings,
  type Settings,
  type Topics,
  type Wishes,
} from './topics.ts'

/** The first level of `metadata.version` that Kafka 4.0 has. */
const METADATA_OF_4_0 = 22
/** Kafka's numbers of operations. */
const OPERATIONS = { read: 3, write: 4, delete: 6, 'describe configs': 10 } as const
/** A request to write a letter of the greatest length. */
const MAX_REQUEST_BYTES = MAX_MESSAGE_BYTES + 1024 ** 2
const SAFE_EXPIRATION_MS = 300_000

export interface Checked {
  readonly findings: readonly Finding[]
  /** Whether something of our names is not ours. */
  readonly isForeign: boolean
  readonly missing: readonly (keyof Topics)[]
  readonly view: ClusterView
  readonly durability: Durability
  readonly copies: number
  /** The highest level of `metadata.version` that the broker knows. */
  readonly metadataLevel: number
}

/** What is, or, where topics are still to be made, what will be. */
export async function inspect(cluster: Cluster, topics: Topics, wishes: Wishes): Promise<Answer<Checked>> {
  const findings: Finding[] = []
  const version = await readMetadataLevel(cluster)
  if (!version.ok) return version
  const metadataLevel = version.value
  findings.push(checkVersion(metadataLevel))
  const looked = await cluster.look(Object.values(topics))
  if (!looked.ok) return looked
  const view = looked.value
  if (cluster.address.isAdvertisedIgnored && view.brokers.length > 1)
    findings.push(
      refuse(
        'advertised=ignore',
        `The cluster has ${view.brokers.length} brokers, and one address for all of them is not enough.`,
        'Leave it out of the URL, and let each broker be reached at its advertised address.',
      ),
    )
  const kinds = Object.keys(topics) as (keyof Topics)[]
  const missing = kinds.filter((kind) => !view.topics.has(topics[kind]))
  const present = kinds.filter((kind) => view.topics.has(topics[kind]))
  const [broker] = view.brokers
  const read = await readSettings(
    cluster,
    present.map((kind) => topics[kind]),
    broker?.nodeId,
  )
  if (!read.ok) return read
  const settings = read.value
  let isForeign = false
  for (const kind of present) {
    const topic = view.topics.get(topics[kind]) as TopicView
    const foreign = await findForeign(cluster, topics[kind], kind, topic)
    if (!foreign.ok) return foreign
    if (foreign.value !== null) {
      isForeign = true
      findings.push(foreign.value)
    }
    findings.push(...checkRights(topics[kind], topic), ...checkTopic(kind, topics[kind], settings.get(topics[kind])))
  }
  if (broker !== undefined) findings.push(...checkBroker(settings.get(`${broker.nodeId}`)))
  const journal = view.topics.get(topics.journal)
  const ofJournal = settings.get(topics.journal) ?? {}
  const plan = planCopies(view.brokers.length, wishes.copies)
  const replicas = journal === undefined ? plan.replicas : journal.replicas.length
  const copies =
    journal === undefined ? plan.copies : Math.min(replicas, Number(ofJournal['min.insync.replicas'] ?? '1'))
  findings.push(...checkCopies(topics.journal, view.brokers.length, replicas, copies, wishes.copies))
  const flushed = journal === undefined ? wishes.durability === 'disk' : ofJournal['flush.messages'] === '1'
  const durability = flushed ? 'disk' : 'os'
  findings.push(checkDurability(topics.journal, durability, wishes.durability))
  return { ok: true, value: { findings, isForeign, missing, view, durability, copies, metadataLevel } }
}

/** 0 where it says nothing of that. */
async function readMetadataLevel(cluster: Cluster): Promise<Answer<number>> {
  const answer = await cluster.ask((connection) => cluster.library.apiVersionsV4.api.async(connection, 'sluice', '1'))
  // One that does not know the newest way to ask says so: it is older than 4.0.
  if (!answer.ok) return answer.code === 'UNSUPPORTED_VERSION' ? { ok: true, value: 0 } : answer
  return {
    ok: true,
    value: (answer.value.supportedFeatures ?? []).find(({ name }) => name === 'metadata.version')?.maxVersion ?? 0,
  }
}

function checkVersion(level: number): Finding {
  if (level >= METADATA_OF_4_0) return ok('Kafka 4.0 or newer', `It knows metadata.version up to ${level}.`)
  return refuse(
    'Kafka older than 4.0, or another server that speaks its protocol',
    'Sluice is proved on Apache Kafka 4 only; what an older one does in the cases that matter is not known.',
    'Update it to Apache Kafka 4.0 or newer.',
  )
}

/** Partitions or records that Sluice did not make. */
async function findForeign(
  cluster: Cluster,
  name: string,
  kind: keyof Topics,
  topic: TopicView,
): Promise<Answer<Finding | null>> {
  const remedy = `Give another namespace, or remove the topic ${name} if nobody needs it.`
  if (topic.partitions !== 1) {
    const reason = `The topic ${name} has ${topic.partitions} partitions. Those of Sluice have one.`
    return { ok: true, value: refuse(`${name} was made by someone else`, reason, remedy) }
  }
  if (kind === 'letters') return { ok: true, value: null }
  const line = cluster.openLine(name)
  try {
    for (const end of ['first', 'last'] as const) {
      const key = await readKeyAt(cluster, line, name, end)
      if (!key.ok) {
        // Who may not read hears of that among the rights.
        if (key.code === 'TOPIC_AUTHORIZATION_FAILED') return { ok: true, value: null }
        return key
      }
      if (key.value === 'none' || decodeKey(key.value) !== null) continue
      const reason = `The ${end} record of the topic ${name} is not one that Sluice wrote.`
      return { ok: true, value: refuse(`${name} has records of someone else`, reason, remedy) }
    }
  } finally {
    line.end()
  }
  return { ok: true, value: null }
}

async function readKeyAt(
  cluster: Cluster,
  line: Line,
  topic: string,
  end: 'first' | 'last',
): Promise<Answer<Buffer | null | 'none'>> {
  const { library } = cluster
  const [earliest, latest] = [await listOffset(cluster, line, topic, -2n), await listOffset(cluster, line, topic, -1n)]
  if (!earliest.ok) return earliest
  if (!latest.ok) return latest
  if (latest.value <= earliest.value) return { ok: true, value: 'none' }
  const offset = end === 'first' ? earliest.value : latest.value - 1n
  return line.call(async (connection, { topicId }) => {
    const piece = await fetchRecords(library, connection, { topicId, offset, waitMs: 0, maxBytes: 1 })
    if (!piece.ok) return piece
    const [record] = piece.value.records
    return { ok: true, value: record === undefined ? 'none' : record.key }
  })
}

/** -2: the first that is kept; -1: behind the last. */
export async function listOffset(
  { library }: Cluster,
  line: Line,
  topic: string,
  which: -1n | -2n,
): Promise<Answer<bigint>> {
  return line.call(async (connection) => {
    const partitions = [{ partitionIndex: 0, currentLeaderEpoch: -1, timestamp: which }]
    try {
      const answer = await library.listOffsetsV9.api.async(connection, -1, 0, [{ name: topic, partitions }])
      const offset = answer.topics[0]?.partitions[0]?.offset
      return offset === undefined
        ? { ok: false, code: 'OTHER', wasSent: true, text: 'the answer has no partition' }
        : { ok: true, value: offset }
    } catch (error) {
      return readFailure(error, true)
    }
  })
}

function checkRights(name: string, { allowed }: TopicView): Finding[] {
  // Without an authorizer everything is allowed; the lowest number means that Kafka did not say.
  if (allowed === -2_147_483_648) return []
  return Object.entries(OPERATIONS)
    .filter(([, bit]) => (allowed & (1 << bit)) === 0)
    .map(([operation]) =>
      refuse(
        `no right to ${operation} ${name}`,
        `The user of the URL may not ${operation} the topic ${name}.`,
        `Allow it, such as with kafka-acls --add --allow-principal User:NAME --operation ${operation.replace(' ', '')} --topic ${name}.`,
      ),
    )
}

function checkTopic(kind: keyof Topics, name: string, settings: Settings | undefined): Finding[] {
  if (settings === undefined)
    return [
      refuse(
        `the settings of ${name} cannot be read`,
        'Whether it keeps what is acknowledged is not known.',
        `Allow the user of the URL to describe the settings of the topic ${name}.`,
      ),
    ]
  const wrong = DEMANDS.filter(({ topic, name: setting, value }) => topic === kind && settings[setting] !== value)
  const findings = wrong.map(({ name: setting, value, reason }) =>
    refuse(
      `${setting}=${settings[setting]} on ${name}`,
      `With it ${reason}.`,
      `Set ${setting}=${value}, such as with kafka-configs --alter --topic ${name} --add-config ${setting}=${value}. Where Kafka made the topic by itself (auto.create.topics.enable), delete it while it is empty, and Sluice makes it as it should be.`,
    ),
  )
  const most = Number(settings['max.message.bytes'] ?? '0')
  if (kind !== 'owner' && most < MAX_MESSAGE_BYTES)
    findings.push(
      refuse(
        `max.message.bytes=${most} on ${name}`,
        `Sluice writes up to ${MAX_MESSAGE_BYTES} bytes at once.`,
        `Set it to ${MAX_MESSAGE_BYTES} on the topic.`,
      ),
    )
  if (findings.length === 0) findings.push(ok(`the settings of ${name}`, 'They keep what is acknowledged.'))
  return findings
}

function checkBroker(settings: Settings | undefined): Finding[] {
  if (settings === undefined)
    return [
      warn(
        'the settings of the broker cannot be read',
        'Whether requests of the greatest length are taken is not known.',
        'Allow the user of the URL to describe the settings of the cluster.',
      ),
    ]
  const findings: Finding[] = []
  const request = Number(settings['socket.request.max.bytes'] ?? '104857600')
  if (request < MAX_REQUEST_BYTES)
    findings.push(
      refuse(
        `socket.request.max.bytes=${request}`,
        `Sluice sends requests of up to ${MAX_REQUEST_BYTES} bytes, and the broker closes the connection of longer ones.`,
        `Set it to at least ${MAX_REQUEST_BYTES}.`,
      ),
    )
  const expiration = Number(settings['producer.id.expiration.ms'] ?? '86400000')
  if (expiration < SAFE_EXPIRATION_MS)
    findings.push(
      refuse(
        `producer.id.expiration.ms=${expiration}`,
        'After this time Kafka forgets which attempt it has stored already, and a repeated one would be stored twice.',
        `Set it to at least ${SAFE_EXPIRATION_MS}; the default is a day.`,
      ),
    )
  return findings
}

function checkCopies(
  name: string,
  brokers: number,
  replicas: number,
  copies: number,
  wished: number | undefined,
): Finding[] {
  const has = `${name}: ${replicas} replicas, min.insync.replicas=${copies}`
  const alter = `Give the topic replicas on more brokers (kafka-reassign-partitions), then set min.insync.replicas on it.`
  if (wished !== undefined && wished > brokers)
    return [
      refuse(
        has,
        `${wished} copies were asked for, and the cluster has ${brokers} brokers.`,
        'Add brokers, or ask for fewer copies.',
      ),
    ]
  if (wished !== undefined && copies < wished)
    return [refuse(has, `${wished} copies were asked for, and Kafka acknowledges with ${copies}.`, alter)]
  if (replicas === 1)
    return [
      warn(
        has,
        'There is one copy: with its broker everything is away, and with its disk everything is lost.',
        brokers > 1 ? alter : 'Run three brokers, where that is not enough.',
      ),
    ]
  if (copies === 1)
    return [
      warn(
        has,
        'While other replicas lag, an acknowledged entry is on one machine; lost with its disk.',
        replicas > 2 ? 'Set min.insync.replicas=2 on the topic.' : `With three replicas, set min.insync.replicas=2.`,
      ),
    ]
  if (copies === replicas)
    return [warn(has, 'As soon as one broker is away nothing can be stored.', 'Have one replica more than copies.')]
  return [ok(has, `An acknowledged entry is on ${copies} machines at least.`)]
}

function checkDurability(name: string, has: Durability, wished: Durability | undefined): Finding {
  if (wished === 'disk' && has !== 'disk')
    return refuse(
      `flush.messages is not 1 on ${name}`,
      "Kafka acknowledges before it syncs to the disk: 'disk' was asked for, and a power cut of all copies would lose entries.",
      `Set flush.messages=1 on the topic, or ask for 'os' and copies.`,
    )
  if (has === 'disk')
    return ok(`flush.messages=1 on ${name}`, 'Each entry is synced to the disk before it is acknowledged.')
  return ok(
    `flush.messages is not 1 on ${name}`,
    "Kafka's acknowledgement survives a killed process ('os'), and the power cut of fewer machines than there are copies.",
  )
}

function ok(title: string, reason: string): Finding {
  return { severity: 'ok', title, reason, remedy: '' }
}

function warn(title: string, reason: string, remedy: string): Finding {
  return { severity: 'warn', title, reason, remedy }
}

function refuse(title: string, reason: string, remedy: string): Finding {
  return { severity: 'refuse', title, reason, remedy }
}
