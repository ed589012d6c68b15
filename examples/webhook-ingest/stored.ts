/** What the server has at the end: every message of the topic, and the job of every delivery. */
import type { Client } from './client.ts'
import type { RepositoryEvent, Result } from './deliveries.ts'
import type { Accepted } from './sender.ts'

export interface Message {
  readonly offset: number
  readonly key: string | null
  readonly payload: RepositoryEvent
}

export interface JobSeen {
  readonly delivery: string
  readonly id: string
  /** 'lost' where there is no such job, or it is that of another delivery. */
  readonly status: string
  readonly attempts: number
}

export interface Stored {
  readonly topic: readonly Message[]
  /** In the order of what was accepted. */
  readonly jobs: readonly JobSeen[]
  /** Events that a group has not settled, over all groups. */
  readonly unsettled: number
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
  const unsettled = await drain(client)
  const { head: queueHead } = await read<TopicStats>(client, '/v1/queues/webhooks')
  return { topic: await readTopic(client), jobs: await readJobs(client, accepted, lanes), unsettled, queueHead }
}

/** Waits until the groups have settled everything, also what a lost answer left leased; the answer is what is left. */
async function drain(client: Client): Promise<number> {
  const untilMs = Date.now() + DRAIN_MS
  for (let tries = 0; ; tries++) {
    const { groups } = await read<TopicStats>(client, '/v1/topics/events')
    const left = groups.reduce((sum, { depth }) => sum + depth, 0)
    if (left === 0 || Date.now() > untilMs) return left
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
      const answer = await client.askUntilAnswered(`/v1/jobs/${job}`, { method: 'GET' })
      const { status, attempts, result } = answer.body as { status: string; attempts: number; result?: Result }
      const isFound = answer.status === 200 && (result === undefined || result.delivery === delivery)
      jobs[i] = { delivery, id: job, status: isFound ? status : 'lost', attempts: isFound ? attempts : 0 }
    }
  }
  await Promise.all(Array.from({ length: lanes }, run))
  return jobs
}

function read<T>(client: Client, path: string): Promise<T> {
  return client.expect<T>([200], path, { method: 'GET' })
}
