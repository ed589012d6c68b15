/** Sends messages, waits where it is told to, and sends again what may not have arrived where that is safe (P8). */
import type { Answer } from '../../src/conformance/history.ts'
import { formatJobId } from '../../src/job-id.ts'
import { toAppended } from './answers.ts'
import type { Client, Scene } from './client.ts'
import { type Draft, type Drafts, toRequest } from './sending.ts'

export interface Target {
  readonly topic: string
  readonly isQueue: boolean
  readonly tag: string
  readonly drafts: Drafts
}

const MAX_TRIES = 6

export class Publisher {
  readonly #client: Client
  readonly #scene: Scene
  readonly #targets: readonly Target[]
  /** Told of each job that was accepted. */
  readonly #onJob: (id: string) => void
  readonly #thinkMs: number

  constructor(client: Client, targets: readonly Target[], onJob: (id: string) => void) {
    this.#client = client
    this.#scene = client.scene
    this.#targets = targets
    this.#onJob = onJob
    this.#thinkMs = client.scene.world.pick([1, 5, 40])
    this.#later(0)
  }

  #later(ms: number): void {
    const { world } = this.#scene
    world.schedule(ms + world.random() * this.#thinkMs, () => this.#next())
  }

  #next(): void {
    const { world, swarm, isHealed } = this.#scene
    if (isHealed) return
    const target = world.pick(this.#targets)
    const count = world.chance(swarm.share('batches', 0.5)) ? world.between(2, 8) : 1
    const drafts = Array.from({ length: count }, () => target.drafts.draft(target.isQueue))
    this.#send(target, drafts, 1)
  }

  #send(target: Target, drafts: readonly Draft[], tries: number): void {
    const { request, sent } = toRequest(target.topic, drafts)
    const isSafe = drafts.every(({ idempotencyKey }) => idempotencyKey !== undefined)
    this.#client.call(
      { kind: 'append', ...sent },
      'append',
      [request],
      (value) => toAppended(value, drafts.length, target.topic, target.tag),
      (answer) => this.#take(target, drafts, tries, isSafe, answer),
    )
  }

  #take(target: Target, drafts: readonly Draft[], tries: number, isSafe: boolean, answer: Answer): void {
    const { situations, world } = this.#scene
    if (answer.status === 'unknown' || answer.status === 'refused') {
      if (!isSafe || tries === MAX_TRIES) return this.#later(200)
      if (answer.status === 'unknown') situations.saw('unknown publish tried again')
      world.schedule(world.random() * 500, () => this.#send(target, drafts, tries + 1))
      return
    }
    let retryAfterMs = 0
    if (answer.status === 'sent') {
      for (const outcome of answer.outcomes) {
        if (outcome.status === 'stored' && target.isQueue)
          this.#onJob(formatJobId(target.topic, target.tag, outcome.offset))
        if (outcome.status === 'scheduled') this.#onJob(outcome.job)
        if (outcome.status === 'scheduled' || outcome.status === 'duplicate' || outcome.status === 'mismatch')
          situations.saw(outcome.status)
        if (outcome.status === 'duplicate' && tries > 1) situations.saw('unknown publish was stored')
        if (outcome.status !== 'full') continue
        situations.saw(outcome.reason === 'disk' ? 'disk full answered' : 'queue full')
        retryAfterMs = Math.min(outcome.retryAfterMs, 200)
      }
    }
    this.#later(retryAfterMs)
  }
}
