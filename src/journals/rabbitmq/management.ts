/**
 * What the management API says: nodes, alarms, members of streams, and the policies that would drop what the journal keeps.
 * It is asked with a short time-out, and without it all of this is unknown, which is said.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { describe } from './link.ts'

const ASK_MS = 5_000
/** Statistics come every 5 seconds, unless the broker is told otherwise. */
const MEMBERS_MS = 15_000
/** Settings of policies that remove messages, by the kind of queue that heeds them. */
const DROPPING = ['max-age', 'max-length', 'max-length-bytes', 'message-ttl', 'expires', 'delivery-limit']

export interface NodeFacts {
  readonly name: string
  readonly isRunning: boolean
  readonly alarms: readonly string[]
  readonly partitions: readonly string[]
}

export interface QueueFacts {
  readonly leader: string
  readonly members: readonly string[]
  readonly online: readonly string[]
  readonly bytes: number
}

export interface PolicyFacts {
  readonly name: string
  readonly isOperator: boolean
  readonly pattern: string
  readonly settings: Readonly<Record<string, unknown>>
}

interface ApiNode {
  name: string
  running?: boolean
  mem_alarm?: boolean
  disk_free_alarm?: boolean
  partitions?: string[]
}

interface ApiPolicy {
  name: string
  pattern: string
  'apply-to': string
  definition: Record<string, unknown>
}

interface ApiQueue {
  name: string
  leader?: string
  node?: string
  members?: string[]
  online?: string[]
  message_bytes?: number
}

export class Management {
  readonly #base: string
  readonly #headers: Readonly<Record<string, string>>
  readonly #vhost: string

  constructor(url: URL, vhost: string) {
    const user = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`
    this.#headers = { authorization: `Basic ${Buffer.from(user, 'utf8').toString('base64')}` }
    this.#base = `${url.origin}${url.pathname.replace(/\/+$/, '')}/api`
    this.#vhost = encodeURIComponent(vhost)
  }

  async nodes(): Promise<readonly NodeFacts[]> {
    const nodes = await this.#get<ApiNode[]>('/nodes')
    return nodes.map((node) => ({
      name: node.name,
      isRunning: node.running === true,
      alarms: [...(node.mem_alarm === true ? ['memory'] : []), ...(node.disk_free_alarm === true ? ['disk'] : [])],
      partitions: node.partitions ?? [],
    }))
  }

  /** Null where there is no such queue. */
  async queue(name: string): Promise<QueueFacts | null> {
    const queue = await this.#get<ApiQueue | null>(`/queues/${this.#vhost}/${encodeURIComponent(name)}`, true)
    if (queue === null) return null
    const members = queue.members ?? []
    return {
      leader: queue.leader ?? queue.node ?? '',
      members,
      online: queue.online ?? members,
      bytes: queue.message_bytes ?? 0,
    }
  }

  /**
   * The nodes that have a copy of a stream. They are among the statistics, which come seconds after it was declared; a
   * broker of one node has no others.
   */
  async membersOf(name: string, nodes: readonly NodeFacts[]): Promise<readonly string[]> {
    if (nodes.length === 1) return nodes.map((node) => node.name)
    const untilMs = performance.now() + MEMBERS_MS
    for (;;) {
      const members = (await this.queue(name))?.members ?? []
      if (members.length > 0 || performance.now() > untilMs) return members
      await delay(200)
    }
  }

  /** Policies of people and of operators that match one of the names and remove messages. */
  async droppingPolicies(names: readonly string[]): Promise<readonly PolicyFacts[]> {
    const read = async (path: string, isOperator: boolean) =>
      (await this.#get<ApiPolicy[]>(`${path}/${this.#vhost}`)).map((policy) => ({ ...policy, isOperator }))
    const policies = [...(await read('/policies', false)), ...(await read('/operator-policies', true))]
    return policies
      .filter(({ pattern, 'apply-to': to }) => to !== 'exchanges' && names.some((name) => matches(pattern, name)))
      .map(({ name, isOperator, pattern, definition }) => ({
        name,
        isOperator,
        pattern,
        settings: Object.fromEntries(Object.entries(definition).filter(([key]) => DROPPING.includes(key))),
      }))
      .filter(({ settings }) => Object.keys(settings).length > 0)
  }

  async #get<T>(path: string, mayBeMissing = false): Promise<T> {
    const answer = await fetch(this.#base + path, { headers: this.#headers, signal: AbortSignal.timeout(ASK_MS) })
    if (answer.status === 404 && mayBeMissing) return null as T
    if (!answer.ok) throw new Error(`the management API answers ${answer.status} to ${path}`)
    return (await answer.json()) as T
  }
}

/** For people. */
export function describeManagementError(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? `: ${describe(error.cause)}` : ''
  return `${describe(error)}${cause}`
}

/** The broker's patterns are Perl's; one that this machine cannot read is taken to match. */
function matches(pattern: string, name: string): boolean {
  try {
    return new RegExp(pattern).test(name)
  } catch {
    return true
  }
}
