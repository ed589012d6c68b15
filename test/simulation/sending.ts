/** The messages of a simulation: each with a payload of its own, known again wherever it appears. */
import type { Sent, SentMessage } from '../../src/conformance/history.ts'
import { idOf } from '../../src/conformance/history.ts'
import type { AppendRequest, AppendWish } from '../../src/engine/contract.ts'
import { BatchBuilder, BatchView } from '../../src/message-batch.ts'
import type { Scene } from './client.ts'

/** What is sent; the same draft can be sent again. */
export interface Draft {
  readonly payload: string
  readonly key: string | undefined
  readonly priority: number
  readonly deadlineMs: number
  readonly dueAtMs: number | undefined
  readonly idempotencyKey: string | undefined
}

const KEYS = ['a', 'b', 'c', 'd', 'e', 'f']

export class Drafts {
  readonly #scene: Scene
  #serial: number
  /** Some that were sent under an idempotency key. */
  readonly #known: Draft[] = []

  /** Payloads begin with a number above `base`, so that those of two topics differ. */
  constructor(scene: Scene, base: number) {
    this.#scene = scene
    this.#serial = base
  }

  /** `isOutput`: what a handler publishes, which nobody sends twice. */
  draft(isJob: boolean, isOutput = false): Draft {
    const { world, swarm, server } = this.#scene
    const serial = ++this.#serial
    const isBig = world.chance(swarm.share('big-messages', 0.1))
    const has = (feature: Parameters<typeof swarm.share>[0], most: number) =>
      isJob && world.chance(swarm.share(feature, most))
    const draft: Draft = {
      payload: isBig ? `${serial}${'0'.repeat(world.between(100, 4_000))}` : `${serial}`,
      key: world.chance(swarm.share('keys', 0.9)) ? world.pick(KEYS) : undefined,
      priority: has('priorities', 0.6) ? world.below(3) : 1,
      deadlineMs: has('deadlines', 0.2) ? server.nowMs + world.between(-5, 3_000) : 0,
      dueAtMs: has('delays', 0.3) ? server.nowMs + world.between(-5, 3_000) : undefined,
      idempotencyKey: undefined,
    }
    if (isOutput || !world.chance(swarm.share('idempotency', 0.6))) return draft
    // Now and then a key is used again: by somebody who sends the same once more, or who should not.
    const earlier = this.#known[world.below(this.#known.length)]
    if (earlier !== undefined && world.chance(0.1))
      return world.chance(0.7) ? earlier : { ...draft, idempotencyKey: earlier.idempotencyKey }
    const keyed = { ...draft, idempotencyKey: `i${serial}` }
    if (this.#known.length < 20) this.#known.push(keyed)
    else this.#known[world.below(20)] = keyed
    return keyed
  }
}

/** The drafts as a request of the engine, and as a history says it. */
export function toRequest(topic: string, drafts: readonly Draft[]): { request: AppendRequest; sent: Sent } {
  const builder = new BatchBuilder()
  const wishes: AppendWish[] = []
  for (const [index, { payload, key, priority, deadlineMs, dueAtMs, idempotencyKey }] of drafts.entries()) {
    builder.add({ payload, key, priority, deadlineMs })
    if (dueAtMs !== undefined || idempotencyKey !== undefined) wishes.push({ index, dueAtMs, idempotencyKey })
  }
  const batch = builder.finish()
  const view = new BatchView(batch)
  const messages = drafts.map(
    ({ payload, key, priority, deadlineMs, dueAtMs, idempotencyKey }, i): SentMessage => ({
      id: idOf(payload),
      key,
      priority,
      size: view.size(i),
      deadlineMs: deadlineMs === 0 ? undefined : deadlineMs,
      dueAtMs,
      idempotencyKey,
    }),
  )
  return { request: wishes.length === 0 ? { topic, batch } : { topic, batch, wishes }, sent: { topic, messages } }
}
