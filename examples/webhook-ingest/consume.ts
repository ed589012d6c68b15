/**
 * The loop of a consumer over HTTP, for the worker of a queue and for a member of a group alike: lease, handle, settle.
 *
 * It keeps a record of all that it was given and of what became of it, for the checks at the end:
 *
 *     settled   the settle was answered
 *     unsure    the answer to the settle was lost, and when asked again the lease was gone: either the first settle took
 *               effect, or the lease had run out before
 *     lost      the lease had run out; the message is handed out again, and what was done here had no effect
 */
import type { Client } from './client.ts'

export interface Lease {
  readonly lease: string
  /** Of a job. */
  readonly id?: string
  readonly offset: number
  readonly attempt: number
  readonly fence: number
  readonly key: string
  readonly payload: unknown
}

export interface HandOut {
  readonly offset: number
  readonly attempt: number
  readonly fence: number
  readonly key: string
  readonly delivery: string
  /** The id of the job; none on a topic. */
  readonly job: string | undefined
  /** When the lease was asked for and when it came. */
  readonly askedAtMs: number
  readonly cameAtMs: number
  end: 'settled' | 'unsure' | 'lost'
}

export interface Evidence {
  readonly handOuts: HandOut[]
  /** When leases were asked for whose answer was lost: what they were granted nobody knows until it runs out. */
  readonly lostAnswers: number[]
  /** Settles that were repeated since the answer was lost. */
  settlesRepeated: number
}

/** What the handler makes of a lease: the rest of its settle. */
export interface Handled {
  readonly delivery: string
  readonly result?: unknown
  readonly outputs?: readonly object[]
}

export interface Consumer {
  readonly client: Client
  /** Where leases are asked for. */
  readonly path: string
  readonly leaseMs: number
  readonly handle: (lease: Lease) => Handled
  /** Called after each settle. */
  readonly onSettled: (handOuts: readonly HandOut[]) => Promise<void> | void
  /** Ends the loop between two rounds. */
  readonly isStopped: () => boolean
}

/** At most this many messages in one round. */
export const MAX_LEASED = 50
const WAIT_MS = 500

export async function consume(consumer: Consumer): Promise<Evidence> {
  const { client, path, leaseMs, handle, isStopped } = consumer
  const evidence: Evidence = { handOuts: [], lostAnswers: [], settlesRepeated: 0 }
  for (let failures = 0; !isStopped(); ) {
    const askedAtMs = Date.now()
    const reply = await client.ask(path, { body: { max: MAX_LEASED, leaseMs, waitMs: WAIT_MS } })
    if (reply.end !== 'answered') {
      if (reply.end === 'unknown') evidence.lostAnswers.push(askedAtMs)
      await (reply.end === 'busy' ? client.pause(reply.retryAfterMs) : client.backOff(failures++))
      continue
    }
    failures = 0
    if (reply.status !== 200) throw new Error(`POST ${path} answered ${reply.status}: ${JSON.stringify(reply.body)}`)
    const { leases } = reply.body as { leases: readonly Lease[] }
    if (leases.length === 0) continue
    const cameAtMs = Date.now()
    const stopKeeping = keep(client, leases, leaseMs)
    try {
      const handled = leases.map(handle)
      const handOuts = leases.map(({ id, offset, attempt, fence, key }, i): HandOut => {
        const delivery = handled[i]?.delivery ?? ''
        return { offset, attempt, fence, key, delivery, job: id, askedAtMs, cameAtMs, end: 'lost' }
      })
      await settle(client, leases, handled, handOuts, evidence)
      evidence.handOuts.push(...handOuts)
      await consumer.onSettled(handOuts)
    } finally {
      stopKeeping()
    }
  }
  return evidence
}

interface Item {
  readonly place: number
  readonly body: object
}

/** Settles each lease, again and again until every one has an outcome. */
async function settle(
  client: Client,
  leases: readonly Lease[],
  handled: readonly Handled[],
  handOuts: readonly HandOut[],
  evidence: Evidence,
): Promise<void> {
  let left = leases.map(({ lease }, place): Item => {
    const { result, outputs } = handled[place] as Handled
    return { place, body: { lease, outcome: 'done', result, outputs } }
  })
  let isUnsure = false
  while (left.length > 0) {
    const { status, body, unknown } = await client.askUntilAnswered('/v1/leases:settle', {
      body: { items: left.map((item) => item.body) },
    })
    if (status !== 200) throw new Error(`A settle was answered ${status}: ${JSON.stringify(body)}`)
    evidence.settlesRepeated += unknown
    isUnsure ||= unknown > 0
    const { outcomes } = body as {
      outcomes: readonly { outcome: string; problem?: { code: string; retryAfterMs?: number } }[]
    }
    const again: Item[] = []
    let pauseMs = 0
    left.forEach((item, i) => {
      const { outcome, problem } = outcomes[i] as (typeof outcomes)[number]
      const handOut = handOuts[item.place] as HandOut
      if (outcome === 'settled') handOut.end = 'settled'
      else if (problem?.code === 'LEASE_LOST') handOut.end = isUnsure ? 'unsure' : 'lost'
      else if (problem?.retryAfterMs !== undefined) {
        // P7: an output found no room. Nothing was done; the lease is still held.
        pauseMs = Math.max(pauseMs, problem.retryAfterMs)
        again.push(item)
      } else throw new Error(`A lease could not be settled: ${JSON.stringify(problem)}`)
    })
    left = again
    if (pauseMs > 0) await client.pause(pauseMs)
  }
}

/** Extends the leases at half their time, for as long as they are worked on. */
function keep(client: Client, leases: readonly Lease[], leaseMs: number): () => void {
  const items = leases.map(({ lease }) => ({ lease, leaseMs }))
  const timer = setInterval(() => {
    // Whether it came through or not shows in the settle.
    client.ask('/v1/leases:extend', { body: { items } }).catch(() => {})
  }, leaseMs / 2)
  return () => clearInterval(timer)
}
