/**
 * Whether a RabbitMQ can keep what is asked of it: looked at before a journal is opened, and by `sluice verify`.
 */
import type { ChannelModel } from 'amqplib'
import { SluiceError } from '../../errors.ts'
import type { Finding, JournalOptions } from '../contract.ts'
import { readTarget, type Target } from './address.ts'
import { checkCatalog } from './catalog.ts'
import { ELECTION_ARGUMENTS, electionOf } from './election.ts'
import { lettersOf } from './letters.ts'
import { type AmqpLibrary, closeChannel, Link, loadAmqp, openChannel } from './link.ts'
import { describeManagementError, Management, type PolicyFacts } from './management.ts'
import { asDeclareError, catalogOf, declareQueue, entriesOf, STREAM_ARGUMENTS, segmentOf } from './streams.ts'

const OLDEST = [3, 10] as const
/** A node of the cluster may be away; two may not. */
const SAFE_COPIES = 2

export interface Inspection {
  readonly findings: readonly Finding[]
  /** On how many machines a message is before it is durable. */
  readonly copies: number
  readonly version: string
}

/** What `sluice verify` shows. Rejects like opening does where there is no broker to look at, or something that is not ours. */
export async function checkRabbitmq(options: JournalOptions): Promise<readonly Finding[]> {
  const { findings } = await inspect(await loadAmqp(), readTarget(options.url), options)
  return findings
}

/** Declares what the namespace needs, if it is not there, and looks at it. */
export async function inspect(amqp: AmqpLibrary, target: Target, options: JournalOptions): Promise<Inspection> {
  const { namespace, connectMs = 10_000 } = options
  let properties: Record<string, unknown> = {}
  const link = new Link(amqp, target, `${namespace} check`, {
    async onUp(model) {
      properties = { ...model.connection.serverProperties }
      if (findVersion(properties).severity === 'refuse') return
      await declareTopology(model, namespace)
      await checkCatalog(model, catalogOf(namespace))
    },
    onDown() {},
  })
  try {
    await link.connect(connectMs)
    const version = findVersion(properties)
    const findings = [version, findDurability(options)]
    if (version.severity === 'refuse') return { findings, copies: 0, version: String(properties['version']) }
    const seen = await look(target, namespace)
    findings.push(...judge(seen, options))
    return { findings, copies: typeof seen === 'string' ? 1 : seen.copies, version: String(properties['version']) }
  } finally {
    await link.close()
  }
}

export async function declareTopology(model: ChannelModel, namespace: string): Promise<void> {
  await declareQueue(model, catalogOf(namespace), { arguments: STREAM_ARGUMENTS })
  await declareQueue(model, electionOf(namespace), { arguments: ELECTION_ARGUMENTS })
  await declareExchange(model, entriesOf(namespace))
  await declareExchange(model, lettersOf(namespace))
}

async function declareExchange(model: ChannelModel, name: string): Promise<void> {
  const channel = await openChannel(model)
  try {
    await channel.assertExchange(name, 'direct', { durable: true })
  } catch (error) {
    throw asDeclareError(error, `exchange '${name}'`)
  }
  await closeChannel(channel)
}

/** Throws UNSUPPORTED with all that speaks against opening. */
export function refuseIfNeeded(findings: readonly Finding[]): void {
  const refused = findings.filter(({ severity }) => severity === 'refuse')
  if (refused.length === 0) return
  throw new SluiceError(
    'UNSUPPORTED',
    refused.map(({ title, reason, remedy }) => `${title}: ${reason} ${remedy}`).join(' '),
    { findings: refused },
  )
}

function findVersion(properties: Record<string, unknown>): Finding {
  const product = String(properties['product'] ?? 'an unknown broker')
  const version = String(properties['version'] ?? '')
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const isNewEnough = major > OLDEST[0] || (major === OLDEST[0] && minor >= OLDEST[1])
  if (product === 'RabbitMQ' && isNewEnough) return ok('Version', `RabbitMQ ${version}.`)
  return {
    severity: 'refuse',
    title: 'Version',
    reason: `This is ${product} ${version}; streams that can be read by offset, with quorum queues beside them, need RabbitMQ ${OLDEST.join('.')}.`,
    remedy: 'Upgrade RabbitMQ.',
  }
}

function findDurability({ durability }: JournalOptions): Finding {
  if (durability !== 'disk')
    return ok('Durability', 'os: a stream is written to files on a majority of its members, which are not synced.')
  return {
    severity: 'refuse',
    title: 'Durability',
    reason: "'disk' was asked for, and RabbitMQ does not sync streams before it confirms.",
    remedy: "Ask for durability 'os' and, on a cluster, for copies; or use another engine.",
  }
}

/** What the management API shows of a namespace. */
export interface Seen {
  /** On how many machines a message of the catalog is before it is handed out; segments are made alike. */
  readonly copies: number
  readonly members: readonly string[]
  readonly offline: readonly string[]
  readonly alarms: readonly string[]
  readonly partitioned: readonly string[]
  readonly policies: readonly PolicyFacts[]
  readonly nodes: readonly string[]
}

/** A text says why nothing can be seen. */
export async function look({ management: url, vhost }: Target, namespace: string): Promise<Seen | string> {
  if (url === null) return 'The URL names no management API.'
  const management = new Management(url, vhost)
  try {
    const [nodes, policies] = await Promise.all([management.nodes(), management.droppingPolicies(namesOf(namespace))])
    const members = await management.membersOf(catalogOf(namespace), nodes)
    return {
      copies: majorityOf(members.length),
      members,
      offline: members.filter((member) => !nodes.some(({ name, isRunning }) => name === member && isRunning)),
      alarms: nodes.flatMap(({ name, alarms }) => alarms.map((alarm) => `${alarm} on ${name}`)),
      partitioned: nodes.filter(({ partitions }) => partitions.length > 0).map(({ name }) => name),
      policies,
      nodes: nodes.map(({ name, isRunning }) => (isRunning ? name : `${name} (down)`)),
    }
  } catch (error) {
    return `The management API cannot be asked: ${describeManagementError(error)}.`
  }
}

function judge(seen: Seen | string, { copies = 1 }: JournalOptions): Finding[] {
  if (typeof seen === 'string') {
    const remedy = 'Add `?management=http://host:15672` to the URL (the plugin rabbitmq_management serves it).'
    return [
      {
        severity: copies > 1 ? 'refuse' : 'warn',
        title: 'Copies',
        reason: `On how many nodes a message is kept is unknown. ${seen}`,
        remedy,
      },
      {
        severity: 'warn',
        title: 'Policies',
        reason: `Whether a policy drops what Sluice keeps is unknown. ${seen}`,
        remedy,
      },
    ]
  }
  return [findCopies(seen, copies), ...findPolicies(seen), ...findTrouble(seen)]
}

function findCopies(seen: Seen, asked: number): Finding {
  const title = 'Copies'
  const has = `Streams have ${seen.members.length} members, so that a message is on ${seen.copies} before it is durable`
  if (seen.copies < asked)
    return {
      severity: 'refuse',
      title,
      reason: `${has}; ${asked} copies were asked for.`,
      remedy:
        'Use a cluster of three nodes, and a new namespace: the members of a stream are chosen when it is declared (rabbitmq-streams add_replica adds one).',
    }
  if (seen.copies >= SAFE_COPIES) return ok(title, `${has}.`)
  return {
    severity: 'warn',
    title,
    reason: `${has}: what is acknowledged is lost with the disk of that node.`,
    remedy: 'Where that is too little, use a cluster of three nodes and ask for `copies: 2`.',
  }
}

function findPolicies({ policies }: Seen): Finding[] {
  if (policies.length === 0) return [ok('Policies', 'No policy drops from the queues of this namespace.')]
  return policies.map(({ name, isOperator, pattern, settings }) => ({
    severity: 'refuse',
    title: 'Policies',
    reason: `The ${isOperator ? 'operator policy' : 'policy'} '${name}' (pattern '${pattern}') sets ${describeSettings(settings)}: RabbitMQ would drop what Sluice has acknowledged.`,
    remedy: `Remove it (rabbitmqctl ${isOperator ? 'clear_operator_policy' : 'clear_policy'} ${name}), or narrow its pattern so that it does not match this namespace.`,
  }))
}

function findTrouble({ alarms, offline, partitioned }: Seen): Finding[] {
  const found: Finding[] = []
  if (alarms.length > 0)
    found.push({
      severity: 'warn',
      title: 'Alarms',
      reason: `RabbitMQ is short of ${alarms.join(', ')} and holds all publishers back: nothing is stored meanwhile.`,
      remedy: 'Free disk or memory on that node, or raise disk_free_limit or vm_memory_high_watermark.',
    })
  if (offline.length > 0)
    found.push({
      severity: 'warn',
      title: 'Members',
      reason: `Members of our streams are down: ${offline.join(', ')}.`,
      remedy: 'Start those nodes again: with a majority down, nothing is stored.',
    })
  if (partitioned.length > 0)
    found.push({
      severity: 'warn',
      title: 'Partition',
      reason: `The cluster was split, and these nodes have not joined it again: ${partitioned.join(', ')}.`,
      remedy: 'Restart the nodes of the smaller side, and set cluster_partition_handling = pause_minority.',
    })
  return found
}

/** One of each kind, as policies match names: the number of a segment is not known to them. */
function namesOf(namespace: string): readonly string[] {
  return [catalogOf(namespace), electionOf(namespace), segmentOf(namespace, 0), segmentOf(namespace, 1)]
}

export function majorityOf(members: number): number {
  return members === 0 ? 1 : Math.floor(members / 2) + 1
}

function describeSettings(settings: Readonly<Record<string, unknown>>): string {
  return Object.entries(settings)
    .map(([key, value]) => `${key} = ${String(value)}`)
    .join(', ')
}

function ok(title: string, reason: string): Finding {
  return { severity: 'ok', title, reason, remedy: '' }
}

/** What is wrong, for the health of a journal. */
export function troubleOf(seen: Seen): readonly Finding[] {
  return [...findPolicies(seen), ...findTrouble(seen)].filter(({ severity }) => severity !== 'ok')
}
