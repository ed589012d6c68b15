/**
 * The senders: what stands between GitHub and the queue. Each lane sends the deliveries of its repositories one after
 * the other, since only what is sent in an order can be asked for in that order, and has one request in flight.
 */
import type { Client } from './client.ts'
import { bodyOf, type Delivery } from './deliveries.ts'

/** What the senders know of one delivery once it was answered 202. */
export interface Accepted {
  readonly delivery: string
  readonly key: string
  readonly digest: string
  readonly job: string
  /** Whether the 202 said that the job was there already. */
  readonly duplicate: boolean
  /** Tries whose answer was lost. */
  readonly unknown: number
  /** Tries that were told to come again. */
  readonly busy: number
  /** When the first try began, by the clock of `Kill`. */
  readonly sentAtMs: number
  /** From the first try to the 202. */
  readonly tookMs: number
}

/** Sends all of them, in at most `lanes` lanes; `onAccepted` hears of each. In the order of `deliveries` for each key. */
export async function sendAll(
  client: Client,
  deliveries: readonly Delivery[],
  lanes: number,
  onAccepted: (accepted: Accepted) => void,
): Promise<void> {
  await Promise.all(
    share(deliveries, lanes).map(async (lane) => {
      for (const delivery of lane) onAccepted(await send(client, delivery))
    }),
  )
}

async function send(client: Client, delivery: Delivery): Promise<Accepted> {
  const { id, key, digest } = delivery
  const sentAtMs = performance.now()
  const { status, body, unknown, busy } = await client.askUntilAnswered('/v1/queues/webhooks/jobs', {
    headers: { 'sluice-key': key, 'idempotency-key': id },
    body: bodyOf(delivery),
  })
  if (status !== 202) throw new Error(`Delivery ${id} was answered ${status}: ${JSON.stringify(body)}`)
  const { id: job, duplicate } = body as { id: string; duplicate: boolean }
  const tookMs = performance.now() - sentAtMs
  return { delivery: id, key, digest, job, duplicate, unknown, busy, sentAtMs, tookMs }
}

/** Deals the keys out to lanes, the largest first, each to the lane with the least to send. */
export function share(deliveries: readonly Delivery[], lanes: number): Delivery[][] {
  const byKey = Map.groupBy(deliveries, ({ key }) => key)
  const dealt: Delivery[][] = Array.from({ length: Math.min(lanes, byKey.size) }, () => [])
  const keysOf = dealt.map(() => new Set<string>())
  for (const [key, own] of [...byKey].sort(([, a], [, b]) => b.length - a.length)) {
    const sizes = dealt.map((lane) => lane.length)
    const least = sizes.indexOf(Math.min(...sizes))
    dealt[least]?.push(...own)
    keysOf[least]?.add(key)
  }
  // Within a lane the keys take turns, as they did when they happened.
  return keysOf.map((keys) => deliveries.filter(({ key }) => keys.has(key)))
}
