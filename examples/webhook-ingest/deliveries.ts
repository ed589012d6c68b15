/** The deliveries: every example payload of `@octokit/webhooks-examples`, which are real ones of GitHub, many times over. */
import { createHash } from 'node:crypto'
import { createRequire } from 'node:module'

export interface Delivery {
  /** What GitHub sends as `X-GitHub-Delivery`: here `<round>-<event>-<number>`. */
  readonly id: string
  /** What GitHub sends as `X-GitHub-Event`. */
  readonly event: string
  /** Deliveries of one key stay in order: the repository, or whoever it is about where there is none. */
  readonly key: string
  /** The payload, as JSON text. */
  readonly payload: string
  /** Of the payload, to tell at the other end whether it is the same. */
  readonly digest: string
}

export interface Examples {
  readonly version: string
  /** The deliveries of one round. */
  readonly deliveries: readonly Delivery[]
}

/** The parts of a payload that this example looks at. */
export interface Payload {
  readonly action?: string
  readonly repository?: { readonly full_name?: string }
  readonly organization?: { readonly login?: string }
  readonly sender?: { readonly login?: string }
  readonly [part: string]: unknown
}

interface Definition {
  readonly name: string
  readonly examples: readonly Payload[]
}

/** What a worker finds in a job. */
export interface Job {
  readonly delivery: string
  readonly event: string
  readonly payload: Payload
}

/** What a worker leaves with the job. */
export interface Result {
  readonly delivery: string
  readonly summary: string
  readonly attempt: number
}

/** What a group finds on the topic. */
export interface RepositoryEvent {
  readonly delivery: string
  readonly summary: string
  readonly digest: string
}

export function readExamples(): Examples {
  const require = createRequire(import.meta.url)
  const { version } = require('@octokit/webhooks-examples/package.json') as { version: string }
  const definitions = require('@octokit/webhooks-examples') as readonly Definition[]
  const deliveries = definitions.flatMap(({ name, examples }) =>
    examples.map((example, i) => {
      const payload = JSON.stringify(example)
      return { id: `${name}-${i + 1}`, event: name, key: keyOf(name, example), payload, digest: digestOf(payload) }
    }),
  )
  return { version, deliveries }
}

/** The same deliveries `rounds` times, each with an id of its own. */
export function repeat(deliveries: readonly Delivery[], rounds: number): Delivery[] {
  return Array.from({ length: rounds }, (_, round) =>
    deliveries.map((delivery) => ({ ...delivery, id: `${round + 1}-${delivery.id}` })),
  ).flat()
}

/** The body of a job: the payload as it is, beside what GitHub sends in headers. */
export function bodyOf({ id, event, payload }: Delivery): string {
  return `{"delivery":${JSON.stringify(id)},"event":${JSON.stringify(event)},"payload":${payload}}`
}

export function digestOf(payload: string): string {
  return createHash('sha256').update(payload).digest('base64url')
}

/** One line about a delivery: the work that this example does. */
export function summarise(event: string, key: string, payload: Payload): string {
  const what = payload.action === undefined ? event : `${event} ${payload.action}`
  const subject = Object.values(payload).find(
    (part): part is { title: string } => typeof (part as { title?: unknown } | null)?.title === 'string',
  )
  return `${key}: ${what} by ${payload.sender?.login ?? 'nobody'}${subject === undefined ? '' : `, "${subject.title}"`}`
}

function keyOf(event: string, { repository, organization, sender }: Payload): string {
  return repository?.full_name ?? organization?.login ?? sender?.login ?? event
}
