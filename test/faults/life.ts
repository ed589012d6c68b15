/**
 * A life in a world that goes wrong: publishers, workers, group members and a reader, each with an engine of its own, while
 * faults are caused. Then the world is mended, everything is worked off and asked for, and the history is judged.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { History } from '../../src/conformance/history.ts'
import { Judge, type Judgement } from '../../src/conformance/judge.ts'
import { recordEngine } from '../../src/conformance/recorder.ts'
import { createRandom } from '../../src/host/host.ts'
import { createSluice, type Engine, formatJobId, isSluiceError, type Sluice } from '../../src/index.ts'

/** Where the life takes place. */
export interface World {
  /** An engine for one more client. */
  connect(name: string): Promise<Engine>
  /** Something goes wrong, or right again. `random` is the only chance in it. */
  cause(random: () => number): void | Promise<void>
  /** How long to wait between two faults, in milliseconds: from, to. */
  readonly pauseMs: readonly [from: number, to: number]
  /** Everything is well from here on. */
  mend(): void | Promise<void>
  /** Whether there may be no room: a queue then forgets what is settled before its time, and what it forgot is not asked for. */
  readonly mayBeFull?: boolean
}

export interface LifeOptions {
  readonly seed: number
  readonly seconds: number
  readonly signal?: AbortSignal | undefined
}

export interface Life {
  readonly judgements: readonly Judgement[]
  readonly operations: number
  readonly faults: number
  /** Acknowledged messages. */
  readonly stored: number
}

const KEYS = 12
/** Within which everything must be worked off once the world is mended. */
const HEALING_MS = 120_000
/** The clock of the recorder is the machine's, that of the engine is carried on from its start. */
const SKEW_MS = 1_000

export async function live(world: World, { seed, seconds, signal }: LifeOptions): Promise<Life> {
  const random = createRandom(seed)
  const history = new History()
  const judge = new Judge({ skewMs: SKEW_MS })
  let operations = 0
  history.listen((event) => {
    if (event.kind === 'begin') operations++
    judge.observe(event)
  })
  const clients: Sluice[] = []
  const connect = async (name: string) => {
    const engine = recordEngine(await world.connect(name), history, name, Date.now)
    const sluice = createSluice(engine, { onError: () => {} }, { holder: 'token' })
    clients.push(sluice)
    return sluice
  }
  try {
    history.mark(Date.now(), 'open')
    const home = await connect('home')
    const settings = { attempts: 50, backoff: { baseMs: 5, maxMs: 50 }, limit: { messages: 2_000 } }
    // Others may be at it already, and the world not well.
    await persist(() => home.queue('work', settings).declare())
    await persist(() => home.topic('events').declare())
    await persist(
      () =>
        home.topic('events').subscribe('billing', () => {}, { from: 'earliest', leaseMs: 2_000, attempts: 50 }).ready,
    )
    for (const name of ['worker-1', 'worker-2']) work(await connect(name), random)
    const jobs: string[] = []
    const names = ['publisher-1', 'publisher-2', 'publisher-3']
    const publishing = await Promise.all(names.map(connect))
    const following = await connect('reader')
    const untilMs = Date.now() + seconds * 1_000
    const isOn = () => Date.now() < untilMs && signal?.aborted !== true
    const publishers = publishing.map((one, index) => publish(one, index, isOn, jobs, random))
    const reading = follow(following, isOn)
    let faults = 0
    const [from, to] = world.pauseMs
    while (isOn()) {
      await delay(from + random() * (to - from))
      faults++
      await world.cause(random)
    }
    await world.mend()
    history.mark(Date.now(), 'healed')
    await Promise.all([...publishers, reading])
    await workOff(home)
    await Promise.all(clients.filter((one) => one !== home).map((one) => one.close()))
    history.loseOpen(Date.now())
    history.mark(Date.now(), 'quiet')
    await ask(home, world.mayBeFull === true)
    await home.close()
    return { judgements: judge.finish(), operations, faults, stored: jobs.length }
  } finally {
    await Promise.all(clients.map((one) => one.close()))
  }
}

function work(sluice: Sluice, random: () => number): void {
  const events = sluice.topic<{ of: string; fence: number }>('events')
  sluice.queue<string, string>('work').work(
    async (job, { publish, fence }) => {
      if (random() < 0.1) throw new Error('planned')
      if (random() < 0.2) await delay(random() * 30)
      // No two messages of a run are the same: another attempt publishes another one.
      publish(events, { of: job.id, fence }, { key: job.key ?? '' })
      return job.payload
    },
    { concurrency: 8, leaseMs: 2_000 },
  )
  sluice.topic('events').subscribe('billing', () => {}, { leaseMs: 2_000 })
}

/** Sends each message under an idempotency key, again and again until it is known to be stored. */
async function publish(
  sluice: Sluice,
  index: number,
  isOn: () => boolean,
  jobs: string[],
  random: () => number,
): Promise<void> {
  const queue = sluice.queue<string>('work')
  for (let n = 0; isOn(); n++) {
    const payload = `${index}.${n}`
    for (;;) {
      try {
        const job = await queue.add(payload, { key: `${index}.${n % KEYS}`, idempotencyKey: payload })
        jobs.push(job.id)
        break
      } catch (error) {
        if (!isSluiceError(error) || error.code === 'ENGINE_FAILED') throw error
      }
    }
    if (random() < 0.5) await delay(random() * 10)
  }
}

async function follow(sluice: Sluice, isOn: () => boolean): Promise<void> {
  let from = 0
  while (isOn()) {
    try {
      for await (const { offset } of sluice.topic('events').read({ from, follow: false })) from = (offset as number) + 1
    } catch (error) {
      if (!isSluiceError(error)) throw error
    }
    await delay(50)
  }
}

async function workOff(sluice: Sluice): Promise<void> {
  const untilMs = Date.now() + HEALING_MS
  for (;;) {
    const { topics } = await persist(() => sluice.stats())
    const left = topics.reduce((sum, { depth }) => sum + depth.messages, 0)
    if (left === 0) return
    if (Date.now() > untilMs) throw new Error(`${left} messages were not worked off after the world was mended`)
    await delay(100)
  }
}

/** What may pass is tried again, for as long as healing may take. */
async function persist<T>(call: () => Promise<T>): Promise<T> {
  const untilMs = Date.now() + HEALING_MS
  for (;;) {
    try {
      return await call()
    } catch (error) {
      if (!isSluiceError(error) || !error.retryable || Date.now() > untilMs) throw error
      await delay(100)
    }
  }
}

/** Everything that was stored, one by one. */
async function ask(sluice: Sluice, mayForget: boolean): Promise<void> {
  const { topics } = await persist(() => sluice.stats())
  const { head = 0, earliest = 0 } = topics.find(({ name }) => name === 'work') ?? {}
  const [declared] = await persist(() => sluice.engine.declare([{ kind: 'queue', name: 'work', settings: {} }]))
  const tag = declared?.status === 'declared' ? declared.tag : ''
  for (let from = mayForget ? earliest : 0; from < head; from += 500)
    await persist(() =>
      sluice.engine.find(
        Array.from({ length: Math.min(500, head - from) }, (_, i) => formatJobId('work', tag, from + i)),
      ),
    )
  for (let from = 0; ; ) {
    const read = await persist(() => sluice.engine.read({ topic: 'events', from, max: 1_000, waitMs: 0 }))
    if (read.status !== 'read' || read.messages.length === 0) return
    from = read.next
  }
}
