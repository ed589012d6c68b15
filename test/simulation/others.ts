/** Those who look and those who meddle: readers of the topic, and an operator. */
import type { Answer, Call } from '../../src/conformance/history.ts'
import type { Command } from '../../src/engine/contract.ts'
import { toDone, toFound, toRead, toStats } from './answers.ts'
import type { Client, Scene } from './client.ts'

/** Reads the topic from its start, follows it, and now and then looks back. */
export class Reader {
  readonly #client: Client
  readonly #scene: Scene
  readonly #topic: string
  #from = 0

  constructor(client: Client, topic: string) {
    this.#client = client
    this.#scene = client.scene
    this.#topic = topic
    this.#later()
  }

  #later(): void {
    this.#scene.world.schedule(this.#scene.world.random() * 150, () => this.#read())
  }

  #read(): void {
    const { world, isHealed } = this.#scene
    if (isHealed) return
    const max = world.pick([1, 10, 50])
    const waitMs = world.pick([0, 100])
    readTopic(this.#client, this.#topic, this.#from, max, waitMs, (answer) => {
      if (answer.status === 'read') this.#from = world.chance(0.05) ? world.below(answer.next + 1) : answer.next
      if (answer.status === 'truncated') this.#from = answer.earliest
      this.#later()
    })
  }
}

export function readTopic(
  client: Client,
  topic: string,
  from: number,
  max: number,
  waitMs: number,
  then: (answer: Answer) => void,
): void {
  client.call({ kind: 'read', topic, from, max }, 'read', { topic, from, max, waitMs }, toRead, then, {
    waitMs,
    isRepeatable: true,
  })
}

export function askStats(client: Client, then: (answer: Answer) => void): void {
  client.call({ kind: 'stats' }, 'stats', null, toStats, then, { isRepeatable: true })
}

export function findJob(client: Client, job: string, waitMs: number, then: (answer: Answer) => void): void {
  const call = { kind: 'find', job, waitMs } as const
  if (waitMs === 0) client.call(call, 'find', [job], toFound, then, { isRepeatable: true })
  else client.call(call, 'watch', { id: job, version: 0, untilTerminal: true, waitMs }, toFound, then, { waitMs })
}

/** A command that needs nothing but its group. */
export function command(
  client: Client,
  call: Extract<Call, { kind: 'pause' | 'resume' | 'forget' | 'redrive' | 'discard' }>,
  then: (answer: Answer) => void = () => {},
): void {
  client.call(call, 'command', call satisfies Command, toDone, then)
}

/** Cancels, pauses, seeks, redrives, and asks for jobs and figures. */
export class Operator {
  readonly #client: Client
  readonly #scene: Scene
  readonly #groups: readonly (readonly [topic: string, group: string])[]
  readonly #jobs: readonly string[]
  readonly #declareLate: () => void
  /** Groups that were told to pause: each is resumed some time. */
  readonly paused = new Map<string, readonly [topic: string, group: string]>()

  constructor(
    client: Client,
    groups: readonly (readonly [topic: string, group: string])[],
    jobs: readonly string[],
    declareLate: () => void,
  ) {
    this.#client = client
    this.#scene = client.scene
    this.#groups = groups
    this.#jobs = jobs
    this.#declareLate = declareLate
    this.#later()
  }

  #later(): void {
    this.#scene.world.schedule(this.#scene.world.random() * 60, () => this.#act())
  }

  #act(): void {
    const { world, swarm, isHealed } = this.#scene
    if (isHealed) return
    this.#later()
    const share = (feature: Parameters<typeof swarm.share>[0], most: number) => world.chance(swarm.share(feature, most))
    const job = this.#job()
    if (job !== undefined && share('cancels', 0.15)) return this.#cancel(job)
    if (job !== undefined && share('watches', 0.3)) return findJob(this.#client, job, world.pick([50, 2_000]), () => {})
    const [topic, group] = world.pick(this.#groups)
    if (share('pauses', 0.08)) return this.#pause(topic, group)
    if (share('redrives', 0.2)) return this.#redrive(topic, group)
    if (share('discards', 0.05)) return this.#discard(topic, group)
    if (share('seeks', 0.05)) return this.#seek()
    if (share('late-groups', 0.05)) return this.#late()
    if (job === undefined || world.chance(0.3)) return askStats(this.#client, () => {})
    findJob(this.#client, job, 0, () => {})
  }

  /** One of late, most of the time. */
  #job(): string | undefined {
    const { world } = this.#scene
    const count = this.#jobs.length
    return this.#jobs[world.chance(0.7) ? Math.max(0, count - 1 - world.below(30)) : world.below(count)]
  }

  #cancel(job: string): void {
    const { situations } = this.#scene
    this.#client.call({ kind: 'cancel', job }, 'command', { kind: 'cancel', id: job }, toDone, (answer) => {
      if (answer.status === 'done') situations.saw('cancelled')
      if (answer.status === 'terminal') situations.saw('cancel came too late')
    })
  }

  #pause(topic: string, group: string): void {
    const { world, situations } = this.#scene
    const name = `${topic}/${group}`
    if (this.paused.has(name)) return
    this.paused.set(name, [topic, group])
    command(this.#client, { kind: 'pause', topic, group }, () => situations.saw('group paused'))
    world.schedule(world.between(50, 1_500), () => {
      this.paused.delete(name)
      command(this.#client, { kind: 'resume', topic, group })
    })
  }

  #redrive(topic: string, group: string): void {
    command(this.#client, { kind: 'redrive', topic, group, max: 3 }, (answer) => {
      if (answer.status === 'done' && (answer.count ?? 0) > 0) this.#scene.situations.saw('redriven')
    })
  }

  #discard(topic: string, group: string): void {
    command(this.#client, { kind: 'discard', topic, group, max: 2 }, (answer) => {
      if (answer.status === 'done' && (answer.count ?? 0) > 0) this.#scene.situations.saw('discarded')
    })
  }

  #seek(): void {
    const { world, situations } = this.#scene
    const from = world.below(200)
    const call = { kind: 'seek', topic: 't', group: 'early', from } as const
    this.#client.call(call, 'command', call, toDone, (answer) => {
      if (answer.status === 'done') situations.saw('group sought')
    })
  }

  #late(): void {
    if (this.#scene.world.chance(0.6)) return this.#declareLate()
    command(this.#client, { kind: 'forget', topic: 't', group: 'late' }, (answer) => {
      if (answer.status === 'done') this.#scene.situations.saw('group forgotten')
    })
  }
}
