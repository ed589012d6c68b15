/**
 * Runs scenarios on an engine. A claimed ability is proved; where one that a scenario needs is refused, its cell says no and
 * why; what hangs is a failure with its name.
 */
import { strict as assert } from 'node:assert'
import type { EngineAbilities } from '../engine/abilities.ts'
import type { Queue, QueueOptions, Sluice, Topic, TopicOptions } from '../index.ts'
import type { EngineUnderTest, StoreUnderTest } from './registry.ts'
import type { Scenario, Stage } from './scenario.ts'
import { SCENARIOS } from './scenarios/all.ts'

export type ScenarioResult =
  | { readonly status: 'passed'; readonly tookMs: number /** What an emulation costs. */; readonly cost?: string }
  | { readonly status: 'no'; readonly reason: string }
  | { readonly status: 'failed'; readonly error: unknown }

export interface ConformanceResult {
  readonly engine: string
  readonly scenario: Scenario
  readonly result: ScenarioResult
}

export interface ConformanceOptions {
  /** @default all of them */
  readonly scenarios?: readonly Scenario[]
  /** How often each is run; the first failure ends it. @default 1 */
  readonly repeat?: number
  /** How many at a time, each on a store of its own. @default 4 */
  readonly atOnce?: number
  /** Put before the names of queues and topics, where a store is not the scenario's alone. @default '' */
  readonly prefix?: string
  readonly onResult?: (result: ConformanceResult) => void
}

/** No scenario takes longer. */
const LIMIT_MS = 60_000

/** What is lost where an ability is refused. */
const REASONS: Readonly<Partial<Record<keyof EngineAbilities, string>>> = {
  persistence: 'nothing survives the process',
  partitions: 'one partition',
}

export async function runConformance(
  engine: EngineUnderTest,
  { scenarios = SCENARIOS, repeat = 1, atOnce = 4, prefix = '', onResult = () => {} }: ConformanceOptions = {},
): Promise<readonly ConformanceResult[]> {
  const results = new Map<Scenario, ConformanceResult>()
  const left = [...scenarios]
  const work = async () => {
    for (let scenario = left.shift(); scenario !== undefined; scenario = left.shift()) {
      let result: ScenarioResult = { status: 'failed', error: new Error('never run') }
      for (let round = 0; round < repeat; round++) {
        result = await runScenario(engine, scenario, prefix)
        if (result.status !== 'passed') break
      }
      const whole = { engine: engine.name, scenario, result }
      results.set(scenario, whole)
      onResult(whole)
    }
  }
  await Promise.all(Array.from({ length: atOnce }, work))
  return scenarios.map((scenario) => results.get(scenario) as ConformanceResult)
}

/** One scenario, on a store of its own that is cleared away. */
export async function runScenario(engine: EngineUnderTest, scenario: Scenario, prefix = ''): Promise<ScenarioResult> {
  const store = await engine.prepare()
  let timer: NodeJS.Timeout | undefined
  try {
    const stage = await LiveStage.open(store, `${prefix}${scenario.id}`)
    const refused = (scenario.needs ?? []).find((need) => stage.abilities[need] === 'refused')
    if (refused !== undefined) return { status: 'no', reason: REASONS[refused] ?? `${refused} is refused` }
    const startedAt = performance.now()
    const limit = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(new Error(`'${scenario.title}' did not end within ${LIMIT_MS} ms`)), LIMIT_MS)
    })
    const cost = await Promise.race([scenario.run(stage), limit])
    const tookMs = Math.round(performance.now() - startedAt)
    return typeof cost === 'string' ? { status: 'passed', tookMs, cost } : { status: 'passed', tookMs }
  } catch (error) {
    return { status: 'failed', error }
  } finally {
    clearTimeout(timer)
    await store.dispose()
  }
}

class LiveStage implements Stage {
  sluice: Sluice
  readonly #store: StoreUnderTest
  readonly #id: string

  private constructor(store: StoreUnderTest, sluice: Sluice, id: string) {
    this.#store = store
    this.sluice = sluice
    this.#id = id
  }

  static async open(store: StoreUnderTest, id: string): Promise<LiveStage> {
    return new LiveStage(store, await store.open(), id)
  }

  get abilities(): EngineAbilities {
    return this.sluice.engine.abilities
  }

  queue<P, R>(options: QueueOptions = {}, name = 'q'): Queue<P, R> {
    return this.sluice.queue<P, R>(`${this.#id}.${name}`, options)
  }

  topic<P>(options: TopicOptions = {}, name = 't'): Topic<P> {
    return this.sluice.topic<P>(`${this.#id}.${name}`, options)
  }

  async other(): Promise<Sluice> {
    return this.#store.isShared ? this.#store.open() : this.sluice
  }

  async restart(): Promise<void> {
    assert.notEqual(this.abilities.persistence, 'refused', 'a scenario that restarts needs persistence')
    await this.#store.stop('close')
    this.sluice = await this.#store.open()
  }

  async crash(): Promise<void> {
    assert.notEqual(this.abilities.persistence, 'refused', 'a scenario that crashes needs persistence')
    await this.#store.stop('crash')
    if (!this.#store.isShared) this.sluice = await this.#store.open()
  }
}
