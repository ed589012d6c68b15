/**
 * Publishers, workers, group members and a reader on one side of a bad network, a server on the other: delays, cuts before,
 * within and after requests, connections that swallow what is sent. Then the network is mended, everything is worked off
 * and asked for, and the history is judged.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { History } from '../../src/conformance/history.ts'
import { Judge, type Judgement } from '../../src/conformance/judge.ts'
import { recordEngine } from '../../src/conformance/recorder.ts'
import { createRandom } from '../../src/host/host.ts'
import { createSluice, formatJobId, isSluiceError, open, type Sluice } from '../../src/index.ts'
import { openRemoteEngine } from '../../src/remote/remote-engine.ts'
import { createServer } from '../../src/server/server.ts'
import { type Fault, openProxy } from '../support/tcp-proxy.ts'

export interface NetworkRunOptions {
  readonly seed: number
  readonly seconds: number
  readonly signal?: AbortSignal
}

export interface NetworkRun {
  readonly judgements: readonly Judgement[]
  readonly operations: number
  readonly faults: number
  /** Acknowledged messages. */
  readonly stored: number
}

const FAULTS: readonly Fault[] = ['cut-request', 'cut-answer', 'cut-within-answer', 'swallow', 'swallow-answer']
const KEYS = 12
/** Within which everything must be worked off once the network is mended. */
const HEALING_MS = 120_000
/** The clock of the recorder is the machine's, that of the engine is carried on from its start. */
const SKEW_MS = 1_000

export async function runNetwork({ seed, seconds, signal }: NetworkRunOptions): Promise<NetworkRun> {
  const random = createRandom(seed)
  const folder = await mkdtemp(join(tmpdir(), 'sluice-network-'))
  const served = await open(join(folder, 'data'), { durability: 'os' })
  const server = createServer(served, { port: 0 })
  const proxy = await openProxy(new URL(await server.listen()))
  const history = new History()
  const judge = new Judge({ skewMs: SKEW_MS })
  let operations = 0
  history.listen((event) => {
    if (event.kind === 'begin') operations++
    judge.observe(event)
  })
  const clients: Sluice[] = []
  const connect = async (name: string) => {
    const engine = recordEngine(await openRemoteEngine(new URL(proxy.url)), history, name, Date.now)
    const sluice = createSluice(engine, { onError: () => {} }, { holder: 'token' })
    clients.push(sluice)
    return sluice
  }
  try {
    history.mark(Date.now(), 'open')
    const untilMs = Date.now() + seconds * 1_000
    const isOn = () => Date.now() < untilMs && signal?.aborted !== true
    const home = await connect('home')
    const settings = { attempts: 50, backoff: { baseMs: 5, maxMs: 50 }, limit: { messages: 2_000 } }
    await home.queue('work', settings).declare()
    await home.topic('events').declare()
    await home.topic('events').subscribe('billing', () => {}, { from: 'earliest', leaseMs: 2_000, attempts: 50 }).ready
    for (const name of ['worker-1', 'worker-2']) work(await connect(name), random)
    const jobs: string[] = []
    const publishers = ['publisher-1', 'publisher-2', 'publisher-3'].map(async (name, index) =>
      publish(await connect(name), index, isOn, jobs, random),
    )
    const reading = follow(await connect('reader'), isOn)
    let faults = 0
    while (isOn()) {
      await delay(20 + random() * 200)
      faults++
      const dice = random()
      if (dice < 0.1) proxy.cutAll()
      else if (dice < 0.3) proxy.delay(random() * 80)
      else proxy.next(FAULTS[Math.floor(random() * FAULTS.length)] as Fault)
    }
    proxy.next('none')
    proxy.delay(0)
    proxy.cutAll()
    history.mark(Date.now(), 'healed')
    await Promise.all([...publishers, reading])
    await workOff(home)
    await Promise.all(clients.filter((one) => one !== home).map((one) => one.close()))
    history.loseOpen(Date.now())
    history.mark(Date.now(), 'quiet')
    await ask(home)
    await home.close()
    return { judgements: judge.finish(), operations, faults, stored: jobs.length }
  } finally {
    await Promise.all(clients.map((one) => one.close()))
    await proxy.close()
    await server.close()
    await served.close()
    await rm(folder, { recursive: true, force: true })
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
    const { topics } = await sluice.stats()
    const left = topics.reduce((sum, { depth }) => sum + depth.messages, 0)
    if (left === 0) return
    if (Date.now() > untilMs) throw new Error(`${left} messages were not worked off after the network was mended`)
    await delay(100)
  }
}

/** Everything that was stored, one by one. */
async function ask(sluice: Sluice): Promise<void> {
  const { topics } = await sluice.stats()
  const head = topics.find(({ name }) => name === 'work')?.head ?? 0
  const [declared] = await sluice.engine.declare([{ kind: 'queue', name: 'work', settings: {} }])
  const tag = declared?.status === 'declared' ? declared.tag : ''
  for (let from = 0; from < head; from += 500)
    await sluice.engine.find(
      Array.from({ length: Math.min(500, head - from) }, (_, i) => formatJobId('work', tag, from + i)),
    )
  for (let from = 0; ; ) {
    const read = await sluice.engine.read({ topic: 'events', from, max: 1_000, waitMs: 0 })
    if (read.status !== 'read' || read.messages.length === 0) return
    from = read.next
  }
}
