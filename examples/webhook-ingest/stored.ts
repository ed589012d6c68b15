/** What the server has at the end: every message of the topic, and the job of every delivery. */
import type { Client } from './client.ts'
import type { RepositoryEvent } from './deliveries.ts'
import type { Accepted } from './sender.ts'

export interface Message {
  readonly offset: number
  readonly key: string | null
  readonly payload: RepositoryEvent
}

export interface JobSeen {
  readonly delivery: string
  readonly id: string
  readonly status: string
  readonly attempts: number
}

export interface Stored {
  readonly topic: readonly Message[]
  /** In the order of what was accepted. */
  readonly jobs: readonly JobSeen[]
  /** Places that were given out on the queue: how many jobs were ever stored. */
  readonly queueHead: number
}

interface TopicStats {
  readonly head: number
  readonly groups: readonly { readonly depth: number }[]
}

const PAGE = 1_000
/** Longer than a lease: what nobody settled is handed out again within this time. */
const DRAIN_MS = 15_000

export async function readStored(client: Client, accepted: readonly Accepted[], lanes: number): Promise<Stored> {
  await drain(client)
  const { head } = await read<TopicStats>(client, '/v1/queues/webhooks')
  return { topic: await readTopic(client), jobs: await readJobs(client, accepted, lanes), queueHead: head }
}

/** Waits until the groups have settled everything, also what a lost answer left leased. */
async function drain(client: Client): Promise<void> {
  const untilMs = Date.now() + DRAIN_MS
  for (let tries = 0; ; tries++) {
    const { groups } = await read<TopicStats>(client, '/v1/topics/events')
    if (groups.every(({ depth }) => depth === 0)) return
    if (Date.now() > untilMs)
      throw new Error(`The groups still have messages after ${DRAIN_MS} ms: ${JSON.stringify(groups)}`)
    await client.backOff(tries)
  }
}

/** Every message from the start to the head. */
async function readTopic(client: Client): Promise<Message[]> {
  const messages: Message[] = []
  for (let from: string | number = 'earliest'; ; ) {
    const page: { messages: Message[]; next: number; head: number } = await read(
      client,
      `/v1/topics/events/messages?from=${from}&limit=${PAGE}`,
    )
    messages.push(...page.messages)
    if (page.next >= page.head) return messages
    from = page.next
  }
}

/** The status of the job of each delivery, `lanes` at a time. */
async function readJobs(client: Client, accepted: readonly Accepted[], lanes: number): Promise<JobSeen[]> {
  const jobs: JobSeen[] = new Array(accepted.length)
  let next = 0
  async function run(): Promise<void> {
    for (let i = next++; i < accepted.length; i = next++) {
      const { delivery, job } = accepted[i] as Accepted
      const { id, status, attempts } = await read<JobSeen>(client, `/v1/jobs/${job}`)
      jobs[i] = { delivery, id, status, attempts }
    }
  }
  await Promise.all(Array.from({ length: lanes }, run))
  return jobs
}

function read<T>(client: Client, path: string): Promise<T> {
  return client.expect<T>([200], path, { method: 'GET' })
}
