/**
 * Takes messages and does something with them: settles in time or too late, keeps its lease or forgets to, vanishes, comes
 * back with an old fence. One in the server's process dies with it; one over the network lives on and tries again.
 */
import type { Answer, Call } from '../../src/conformance/history.ts'
import type { Settlement } from '../../src/engine/contract.ts'
import { toDone, toExtended, toLeased, toSettled } from './answers.ts'
import type { Client, Scene } from './client.ts'
import type { Target } from './publisher.ts'
import { type Draft, toRequest } from './sending.ts'

interface Held {
  readonly topic: string
  readonly group: string
  readonly fence: number
  readonly offsets: readonly number[]
  readonly token: string | undefined
  /** 0: held by the process. */
  readonly expiresAtMs: number
}

interface Output {
  readonly target: Target
  readonly drafts: readonly Draft[]
}

interface Settling {
  readonly hold: Held
  readonly outcome: Settlement
  readonly outputs: readonly Output[]
  /** How often it is still sent where no answer comes. */
  readonly tries: number
  /** Whether it is for the message that was handed out, and not a repetition. */
  readonly isOwn: boolean
}

/** Messages held at once, beyond which a worker asks for no more. */
const MOST_HELD = 12
const SETTLE_TRIES = 20
const FAILED = { outcome: { kind: 'retry', error: 'no room' }, outputs: [] } as const

export class Worker {
  readonly #client: Client
  readonly #scene: Scene
  readonly #topic: string
  readonly #group: string
  /** Where a handler publishes; empty: nowhere. */
  readonly #targets: readonly Target[]
  readonly #leaseMs: number
  readonly #token: string | undefined
  /** Whether it only works off what is left. */
  readonly #isHelper: boolean
  #held = 0
  #isGone = false
  /** Old holds, to be shown again. */
  readonly #old: Held[] = []

  constructor(client: Client, topic: string, group: string, targets: readonly Target[], isHelper = false) {
    const { world } = client.scene
    this.#client = client
    this.#scene = client.scene
    this.#topic = topic
    this.#group = group
    this.#targets = targets
    this.#isHelper = isHelper
    this.#leaseMs = world.pick([200, 1_000, 5_000])
    this.#token = client.isRemote ? client.name : undefined
    this.#later(0)
  }

  /** The process that it was in died. */
  die(): void {
    this.#isGone = true
  }

  #later(ms: number): void {
    this.#after(ms + this.#scene.world.random() * 20, () => this.#lease())
  }

  #after(ms: number, then: () => void): void {
    this.#scene.world.schedule(ms, () => {
      if (!this.#isGone) then()
    })
  }

  #lease(): void {
    const { world, isHealed } = this.#scene
    if (isHealed && !this.#isHelper) return
    if (this.#held >= MOST_HELD) return this.#later(20)
    const max = world.pick([1, 1, 3, 8])
    const waitMs = world.pick([0, 20, 500])
    const holder = this.#token === undefined ? ('process' as const) : ('token' as const)
    const target = { topic: this.#topic, group: this.#group, max, leaseMs: this.#leaseMs, waitMs }
    this.#client.call(
      { kind: 'lease', ...target, holder },
      'lease',
      { ...target, holder: this.#token === undefined ? { kind: 'process' } : { kind: 'token', token: this.#token } },
      toLeased,
      (answer) => this.#take(answer),
      { waitMs },
    )
  }

  #take(answer: Answer): void {
    if (this.#isGone) return
    if (answer.status === 'truncated') this.#scene.situations.saw('group detached')
    if (answer.status !== 'leased') return this.#later(answer.status === 'empty' ? 5 : 100)
    const { fence, messages, expiresAtMs } = answer
    const whole = { topic: this.#topic, group: this.#group, fence, token: this.#token, expiresAtMs }
    if (messages.some(({ attempt }) => attempt > 1)) this.#scene.situations.saw('handed out again')
    const isTogether = this.#scene.world.chance(0.3)
    const holds = isTogether
      ? [{ ...whole, offsets: messages.map(({ offset }) => offset) }]
      : messages.map(({ offset }) => ({ ...whole, offsets: [offset] }))
    this.#held += holds.length
    for (const hold of holds) this.#handle(hold)
    this.#later(0)
  }

  #handle(hold: Held): void {
    const { world, swarm, situations, isHealed } = this.#scene
    const has = (feature: Parameters<typeof swarm.share>[0], most: number) =>
      !isHealed && world.chance(swarm.share(feature, most))
    if (hold.token !== undefined && has('vanishing-workers', 0.08)) {
      situations.saw('vanished')
      this.#held--
      return
    }
    const isStuck = has('stuck-workers', 0.1)
    const tookMs = isStuck ? this.#leaseMs * (0.8 + world.random()) : world.random() * world.pick([1, 20, 100])
    if (has('extends', 0.3)) this.#after(tookMs * world.random(), () => this.#extend(hold))
    if (has('once', 0.2)) this.#after(tookMs * world.random(), () => this.#remember(hold))
    if (has('stale-settles', 0.1)) this.#keepOld(hold)
    this.#after(tookMs, () =>
      this.#settle({ hold, outcome: this.#outcome(), outputs: this.#outputs(hold), tries: SETTLE_TRIES, isOwn: true }),
    )
  }

  #keepOld(hold: Held): void {
    if (this.#old.length < 8) this.#old.push(hold)
    const old = this.#scene.world.pick(this.#old)
    this.#after(this.#scene.world.random() * 2_000, () => {
      const { world, isHealed } = this.#scene
      if (isHealed) return
      if (world.chance(0.3)) this.#extend(old)
      else if (world.chance(0.2)) this.#remember(old)
      else this.#settle({ hold: old, outcome: this.#outcome(), outputs: this.#outputs(old), tries: 1, isOwn: false })
    })
  }

  #outcome(): Settlement {
    const { world, swarm, isHealed, server } = this.#scene
    if (isHealed) return { kind: 'done' }
    if (world.chance(swarm.share('retries', 0.3)))
      return world.chance(0.5)
        ? { kind: 'retry', error: 'no' }
        : { kind: 'retry', error: 'no', atMs: server.nowMs + world.pick([-5, 0, 60, 1_500]) }
    if (world.chance(swarm.share('deaths', 0.08))) return { kind: 'dead', error: 'never' }
    if (world.chance(swarm.share('releases', 0.1))) return { kind: 'release' }
    return world.chance(0.5) ? { kind: 'done' } : { kind: 'done', result: `${world.below(1_000)}` }
  }

  #outputs(hold: Held): Output[] {
    const { world, swarm, isHealed } = this.#scene
    if (isHealed || hold.offsets.length > 1 || this.#targets.length === 0 || !world.chance(swarm.share('outputs', 0.5)))
      return []
    return Array.from({ length: world.pick([1, 1, 2]) }, () => {
      const target = world.pick(this.#targets)
      return { target, drafts: [target.drafts.draft(false, true)] }
    })
  }

  #settle(settling: Settling): void {
    const { hold, outcome, outputs } = settling
    const { topic, group, fence, offsets } = hold
    const made = outputs.map(({ target, drafts }) => toRequest(target.topic, drafts))
    const call: Call = {
      kind: 'settle',
      topic,
      group,
      fence,
      offsets,
      outcome: outcome.kind,
      result: outcome.kind === 'done' ? outcome.result : undefined,
      atMs: outcome.kind === 'retry' ? outcome.atMs : undefined,
      outputs: made.map(({ sent }) => sent),
    }
    this.#client.call(
      call,
      'settle',
      [{ ...hold, outcome, outputs: made.length === 0 ? undefined : made.map(({ request }) => request) }],
      (value) =>
        toSettled(
          value,
          outputs.map(({ target, drafts }) => [drafts.length, target.topic, target.tag] as const),
        ),
      (answer) => this.#settled(settling, answer),
      // A copy of a settle whose outputs found no room could take effect after that answer.
      { isRepeatable: made.length === 0 },
    )
  }

  #settled(settling: Settling, answer: Answer): void {
    const { situations, world, server } = this.#scene
    if (this.#isGone) return
    const { hold, outcome, outputs, tries } = settling
    if (answer.status === 'settled') {
      if (answer.lost.length > 0) {
        situations.saw('stale settle refused')
        if (hold.expiresAtMs !== 0 && hold.expiresAtMs < server.nowMs) situations.saw('lease expired')
      } else {
        if (outcome.kind === 'retry') situations.saw('key parked')
        if (outcome.kind === 'release') situations.saw('released')
        if (outputs.length > 0) situations.saw('outputs stored')
      }
    } else if (answer.status === 'full') situations.saw('outputs refused')
    if (answer.status === 'settled' || answer.status === 'not-found') {
      if (settling.isOwn) this.#held--
      return
    }
    const left = tries - 1
    if (left > 0) this.#after(world.random() * 200, () => this.#settle({ ...settling, tries: left }))
    // Where its outputs never fit, the attempt has failed.
    else if (settling.isOwn) this.#settle({ ...settling, ...FAILED, tries: SETTLE_TRIES })
  }

  #extend(hold: Held): void {
    const { topic, group, fence, offsets } = hold
    const { world, situations } = this.#scene
    const leaseMs = world.pick([50, this.#leaseMs, 3_000])
    const progress = world.chance(0.3) ? `${world.below(100)}` : undefined
    this.#client.call(
      { kind: 'extend', topic, group, fence, offsets, leaseMs, progress },
      'extend',
      [{ ...hold, leaseMs, progress }],
      toExtended,
      (answer) => {
        if (answer.status === 'extended' && answer.lost.length > 0) situations.saw('stale extend refused')
      },
      { isRepeatable: true },
    )
  }

  #remember(hold: Held): void {
    const { topic, group, fence, offsets } = hold
    const { world, situations } = this.#scene
    const one = { topic, group, fence, offsets: offsets.slice(0, 1) }
    const command = { hold: { ...hold, offsets: one.offsets }, name: 'pay' }
    if (world.chance(0.5)) {
      const value = `${world.below(1_000_000)}`
      this.#client.call(
        { kind: 'remember', ...one, name: 'pay', value },
        'command',
        { kind: 'remember', ...command, value },
        toDone,
        (answer) => {
          if (answer.status === 'lost') situations.saw('stale remember refused')
        },
        { isRepeatable: true },
      )
    } else {
      this.#client.call(
        { kind: 'recall', ...one, name: 'pay' },
        'command',
        { kind: 'recall', ...command },
        toDone,
        (answer) => {
          if (answer.status === 'done' && answer.value !== undefined) situations.saw('once recalled')
        },
      )
    }
  }
}
