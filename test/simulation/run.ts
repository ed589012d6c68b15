/**
 * One simulated life from a seed: ledger, broker, clients, workers, clock and network in one process, under virtual time.
 *
 * First a phase in which everything may go wrong, until the seed has had its operations and crashes. Then it heals: no
 * more faults, nobody publishes, workers do what is left; within a bounded virtual time all must be worked off, or that
 * is a violation too (liveness). Then everything is asked for, and the history is judged.
 */
import { type Declared, History, type HistoryEvent } from '../../src/conformance/history.ts'
import { Judge, type Judgement } from '../../src/conformance/judge.ts'
import type { Declaration, DeclareOutcome } from '../../src/engine/contract.ts'
import { formatJobId } from '../../src/job-id.ts'
import { Client, type Scene } from './client.ts'
import { askStats, command, findJob, Operator, Reader, readTopic } from './others.ts'
import { Publisher, type Target } from './publisher.ts'
import { Drafts } from './sending.ts'
import { SimulatedServer } from './server.ts'
import { Situations } from './situations.ts'
import { MemoryStore, type Store } from './store.ts'
import { createSwarm, type SwarmOptions } from './swarm.ts'
import { Trace } from './trace.ts'
import { Worker } from './worker.ts'
import { World } from './world.ts'

/** Virtual time within which all must be worked off once nothing goes wrong any more. */
const HEALING_MS = 600_000
/** Longer than any message travels. */
const CALM_MS = 6_000
const GROUPS: readonly (readonly [topic: string, group: string])[] = [
  ['q', ''],
  ['s', ''],
  ['t', 'early'],
  ['t', 'latest'],
]

export interface RunResult {
  readonly seed: number
  readonly operations: number
  readonly crashes: number
  /** Of everything that was asked and answered, in order: the same for the same seed. */
  readonly hash: string
  readonly situations: ReadonlyMap<string, number>
  readonly judgements: readonly Judgement[]
  /** A broken promise, an assertion in the product, or null. */
  readonly failure: {
    readonly check: string
    readonly message: string
    readonly witness: readonly HistoryEvent[]
  } | null
}

export interface RunOptions extends SwarmOptions {
  readonly store?: Store
  /** Gets every event, to print a life. */
  readonly onEvent?: (event: HistoryEvent) => void
}

export async function runSeed(options: RunOptions): Promise<RunResult> {
  const store = options.store ?? new MemoryStore()
  const life = new Life(options, store)
  let failure: RunResult['failure'] = null
  try {
    await life.run()
  } catch (error) {
    const { message, stack = '' } = error as Error
    failure = {
      check: error instanceof Stalled ? 'liveness' : 'assertion',
      message: `${message}\n${stack}`,
      witness: [],
    }
  } finally {
    store.dispose()
  }
  const judgements = life.judge.finish()
  // What a checker says is more exact than that something did not go on.
  const broken = judgements.find(({ verdict }) => verdict.status === 'violated')
  if (broken?.verdict.status === 'violated') failure = { check: broken.checker, ...broken.verdict.violation }
  return {
    seed: options.seed,
    operations: life.scene.operations,
    crashes: life.scene.server.crashes,
    hash: life.trace.digest(),
    situations: life.situations.counts,
    judgements,
    failure,
  }
}

class Stalled extends Error {}

class Life {
  readonly trace = new Trace()
  readonly situations = new Situations()
  readonly judge = new Judge()
  readonly scene: Scene
  readonly #history = new History()
  readonly #world: World
  readonly #jobs: string[] = []
  readonly #targets: Target[] = []
  readonly #inProcess: Worker[] = []
  #operator!: Client
  /** As last told. */
  readonly #heads = new Map<string, number>()

  constructor(options: RunOptions, store: Store) {
    const world = new World(options.seed)
    const swarm = createSwarm(options)
    this.#world = world
    this.#history.listen((event) => {
      this.trace.add(event)
      this.judge.observe(event)
      this.situations.observe(event)
      options.onEvent?.(event)
    })
    const server = new SimulatedServer(world, store, this.#history, swarm, this.situations)
    this.scene = {
      world,
      swarm,
      server,
      history: this.#history,
      situations: this.situations,
      operations: 0,
      isHealed: false,
    }
  }

  async run(): Promise<void> {
    const { scene } = this
    const { server, swarm } = scene
    server.start()
    this.#operator = new Client(scene, 'operator', true)
    const home = new Client(scene, 'home', false)
    this.#world.schedule(0, () => this.#declareAll(home, () => this.#populate(home)))
    this.#world.schedule(5, () => this.#makeTrouble())
    await this.#world.run(() => scene.operations >= swarm.operations && server.crashes >= swarm.crashes)
    await this.#heal()
    await this.#ask()
  }

  #makeTrouble(): void {
    const { server, world } = this.scene
    if (this.scene.isHealed) return
    server.trouble()
    world.schedule(world.random() * 200, () => this.#makeTrouble())
  }

  // ---- who is there

  #declareAll(client: Client, then: () => void): void {
    const { queue, second, topic, group } = this.scene.swarm
    // On a full disk a queue lets settled jobs go at once, to take new work (P10, docs/promises.md).
    const forgets = this.scene.swarm.has('short-retention') || this.scene.swarm.has('full-disk')
    const declarations: readonly (readonly [Declaration, Omit<Declared, 'tag'>])[] = [
      [
        { kind: 'queue', name: 'q', settings: queue },
        { ...queue, group: '', type: 'queue', forgets },
      ],
      [
        { kind: 'queue', name: 's', settings: second },
        { ...second, group: '', type: 'queue', forgets },
      ],
      [
        { kind: 'topic', name: 't', settings: topic },
        { ...topic, group: '', type: 'topic', forgets },
      ],
      [
        { kind: 'group', topic: 't', name: 'early', settings: group, from: 'earliest' },
        { ...group, group: 'early', type: 'group', from: 0 },
      ],
      [
        { kind: 'group', topic: 't', name: 'latest', settings: group, from: 'latest' },
        { ...group, group: 'latest', type: 'group', from: 0 },
      ],
    ]
    const next = (i: number) => {
      const pair = declarations[i]
      if (pair === undefined) return then()
      const [declaration, declared] = pair
      this.#declare(client, declaration, declared, (tag, isDeclared) => {
        // The process may have died over it: once more, when there is one.
        if (!isDeclared) return this.#world.schedule(50, () => next(i))
        if (declaration.kind !== 'group') {
          const isQueue = declaration.kind === 'queue'
          this.#targets.push({
            topic: declaration.name,
            isQueue,
            tag,
            drafts: new Drafts(this.scene, 10_000_000 * (i + 1)),
          })
        }
        next(i + 1)
      })
    }
    next(0)
  }

  #declare(
    client: Client,
    declaration: Declaration,
    declared: Omit<Declared, 'tag'>,
    then: (tag: string, isDeclared: boolean) => void,
  ): void {
    let tag = ''
    const topic = declaration.kind === 'group' ? declaration.topic : declaration.name
    client.call(
      { kind: 'declare', topic, ...declared },
      'declare',
      [declaration],
      (value) => {
        const [outcome] = value as readonly DeclareOutcome[]
        if (outcome?.status === 'declared') tag = outcome.tag
        return outcome?.status === 'declared' ? { status: 'done', value: tag } : { status: 'refused', code: 'CONFLICT' }
      },
      (answer) => then(tag, answer.status === 'done'),
    )
  }

  #populate(home: Client): void {
    const { scene } = this
    const { swarm, world, server } = scene
    const onJob = (id: string) => this.#jobs.push(id)
    for (let i = 0; i < 3; i++) new Publisher(new Client(scene, `publisher-${i}`, i > 0), this.#targets, onJob)
    for (let i = 0; i < 2; i++) new Reader(new Client(scene, `reader-${i}`, i > 0), 't')
    new Operator(this.#operator, GROUPS, this.#jobs, () => this.#declareLate())
    if (swarm.has('token-workers'))
      for (const [topic, group] of [...GROUPS, GROUPS[0] as (typeof GROUPS)[0]])
        new Worker(
          new Client(scene, `worker-${world.below(1e6)}-${topic}${group}`, true),
          topic,
          group,
          this.#outputsOf(topic),
        )
    if (!swarm.has('process-workers')) return
    const start = () => {
      if (scene.isHealed) return
      for (const [topic, group] of GROUPS) this.#inProcess.push(new Worker(home, topic, group, this.#outputsOf(topic)))
    }
    server.onCrash.push(() => {
      for (const worker of this.#inProcess) worker.die()
      if (this.#inProcess.length > 0) this.situations.saw('message lost its process')
      this.#inProcess.length = 0
    })
    server.onOpen.push(start)
    start()
  }

  /** Work flows one way, so that it ends: from `s` to `q` to `t`. */
  #outputsOf(topic: string): readonly Target[] {
    if (topic === 't') return []
    return this.#targets.filter(({ topic: name }) => name === 't' || (topic === 's' && name === 'q'))
  }

  #declareLate(): void {
    const { group } = this.scene.swarm
    const declared = { ...group, group: 'late', type: 'group', from: 0 } as const
    this.#declare(
      this.#operator,
      { kind: 'group', topic: 't', name: 'late', settings: group, from: 'earliest' },
      declared,
      (_tag, isDeclared) => {
        if (isDeclared) this.situations.saw('late group')
      },
    )
  }

  // ---- the end

  async #heal(): Promise<void> {
    const { scene } = this
    const world = this.#world
    scene.isHealed = true
    scene.server.heal()
    const startedMs = world.nowMs
    await world.run(() => scene.server.isUp, startedMs + CALM_MS)
    await world.run(() => false, world.nowMs + CALM_MS)
    this.#history.mark(scene.server.nowMs, 'healed')
    const groups = [...GROUPS, ['t', 'late'] as const]
    for (const [topic, group] of groups) command(this.#operator, { kind: 'resume', topic, group })
    for (const [i, [topic, group]] of groups.entries())
      new Worker(new Client(scene, `helper-${i}`, true), topic, group, [], true)
    let isDone = false
    const look = () => {
      askStats(this.#operator, (answer) => {
        if (answer.status !== 'stats') return world.schedule(200, look)
        for (const { name, head } of answer.topics) this.#heads.set(name, head)
        isDone = answer.topics.every(
          ({ scheduled, groups: seen }) => scheduled === 0 && seen.every(({ depth }) => depth === 0),
        )
        for (const { name, groups: seen } of answer.topics)
          for (const { name: group, blocked } of seen)
            if (blocked > 0) command(this.#operator, { kind: 'redrive', topic: name, group, max: 1_000 })
        if (!isDone) world.schedule(500, look)
      })
    }
    look()
    await world.run(() => isDone, world.nowMs + HEALING_MS)
    if (!isDone) throw new Stalled('Not everything was worked off after nothing went wrong any more')
  }

  async #ask(): Promise<void> {
    const { scene } = this
    const world = this.#world
    await world.run(() => false, world.nowMs + CALM_MS)
    this.#history.mark(scene.server.nowMs, 'quiet')
    const client = new Client(scene, 'auditor', false)
    let open = 0
    const asked = (ask: (then: () => void) => void) => {
      open++
      ask(() => open--)
    }
    asked((then) => askStats(client, then))
    const jobs = new Set(this.#jobs)
    for (const { topic, tag, isQueue } of this.#targets)
      for (let offset = 0; isQueue && offset < (this.#heads.get(topic) ?? 0); offset++)
        jobs.add(formatJobId(topic, tag, offset))
    for (const job of jobs) asked((then) => findJob(client, job, 0, then))
    const readAll = (from: number, then: () => void) =>
      readTopic(client, 't', from, 1_000, 0, (answer) => {
        if (answer.status === 'truncated') return readAll(answer.earliest, then)
        if (answer.status !== 'read' || answer.messages.length === 0) return then()
        readAll(answer.next, then)
      })
    asked((then) => readAll(0, then))
    await world.run(() => open === 0)
  }
}
