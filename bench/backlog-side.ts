/** What the child processes of the backlog benchmark do: fill a folder, let messages pass through it, open it. */
import { setTimeout as sleep } from 'node:timers/promises'
import { open } from '../src/index.ts'
import { tellReady } from './child.ts'
import { createKey, createPayload, drive, type Payload, startClock } from './load.ts'
import { AMPLE_LIMIT } from './sluice-side.ts'

const queueName = 'bench'
const warmUpShare = 0.2

export interface BacklogOptions {
  /** The data folder itself. */
  readonly folder: string
  readonly keys: number
}

export interface FillOptions extends BacklogOptions {
  readonly messages: number
  readonly inFlight: number
}

export interface FillFigures {
  readonly perSecond: number
  readonly rssMiB: number
}

/** The most memory that this process ever had in RAM, both of its threads, V8 and SQLite. */
function readMaxRssMiB(): number {
  return process.resourceUsage().maxRSS / 1024
}

type Sluice = Awaited<ReturnType<typeof open>>

function openQueue(sluice: Sluice) {
  return sluice.queue<Payload>(queueName, { limit: AMPLE_LIMIT })
}

async function readRowsRead(sluice: Sluice): Promise<number> {
  return (await sluice.stats()).log.rowsRead
}

async function readDepth(sluice: Sluice): Promise<number> {
  const { topics } = await sluice.stats()
  return topics.find(({ name }) => name === queueName)?.depth.messages ?? 0
}

export async function fill({ folder, keys, messages, inFlight }: FillOptions): Promise<FillFigures> {
  await using sluice = await open(folder)
  const queue = openQueue(sluice)
  const clock = startClock()
  await drive({ from: 0, messages, inFlight }, (id) => queue.add(createPayload(id), { key: createKey(id, keys) }))
  const { seconds } = clock()
  return { perSecond: messages / seconds, rssMiB: readMaxRssMiB() }
}

export interface PublishOptions extends BacklogOptions {
  /** Timed; as many more as `warmUpShare` says go first. */
  readonly messages: number
  readonly inFlight: number
  /** A number that no other run over the folder has: other messages, other keys. */
  readonly run: number
}

export interface PublishFigures {
  /** Before the first publish. */
  readonly depth: number
  readonly publishPerSecond: number
  readonly publishCpuPer100k: number
  readonly rssMiB: number
}

/** Publishes with no worker. */
export async function publish(options: PublishOptions): Promise<PublishFigures> {
  await using sluice = await open(options.folder)
  return await publishTo(sluice, options)
}

async function publishTo(sluice: Sluice, options: PublishOptions): Promise<PublishFigures> {
  const { keys, messages, inFlight, run } = options
  const queue = openQueue(sluice)
  await queue.declare()
  const depth = await readDepth(sluice)
  const warmUp = Math.ceil(messages * warmUpShare)
  const first = run * 1_000_000_000
  const add = (id: number) => queue.add(createPayload(id), { key: createKey(id, keys) })
  await drive({ from: first, messages: warmUp, inFlight }, add)
  const clock = startClock()
  await drive({ from: first + warmUp, messages, inFlight }, add)
  const { seconds, cpuSeconds } = clock()
  return {
    depth,
    publishPerSecond: messages / seconds,
    publishCpuPer100k: (cpuSeconds / messages) * 100_000,
    rssMiB: readMaxRssMiB(),
  }
}

export interface DrainOptions extends BacklogOptions {
  /** Timed; as many more as `warmUpShare` says go first. */
  readonly messages: number
  readonly concurrency: number
}

export interface DrainFigures {
  readonly drainPerSecond: number
  readonly drainCpuPer100k: number
  readonly rowsPerHandOut: number
  readonly rssMiB: number
}

/** Drains with no publisher. */
export async function drain(options: DrainOptions): Promise<DrainFigures> {
  await using sluice = await open(options.folder)
  return await drainFrom(sluice, options)
}

async function drainFrom(sluice: Sluice, { messages, concurrency }: DrainOptions): Promise<DrainFigures> {
  const warmUp = Math.ceil(messages * warmUpShare)
  let handled = 0
  const warm = Promise.withResolvers<void>()
  const done = Promise.withResolvers<void>()
  const rowsAtStart = await readRowsRead(sluice)
  const worker = openQueue(sluice).work(
    async () => {
      handled++
      if (handled === warmUp) warm.resolve()
      if (handled === warmUp + messages) done.resolve()
    },
    { concurrency },
  )
  await warm.promise
  const handledWarm = handled
  const clock = startClock()
  await done.promise
  await worker.close()
  const { seconds, cpuSeconds } = clock()
  const rows = (await readRowsRead(sluice)) - rowsAtStart
  const drained = handled - handledWarm
  return {
    drainPerSecond: drained / seconds,
    drainCpuPer100k: (cpuSeconds / drained) * 100_000,
    rowsPerHandOut: rows / handled,
    rssMiB: readMaxRssMiB(),
  }
}

/** Publishes, and drains at once what is still in memory. */
export async function publishAndDrain(options: PublishOptions & DrainOptions): Promise<PublishFigures & DrainFigures> {
  await using sluice = await open(options.folder)
  const published = await publishTo(sluice, options)
  return { ...published, ...(await drainFrom(sluice, options)) }
}

/** Publishes and works until it is killed. */
export async function churn({ folder, keys }: BacklogOptions): Promise<never> {
  const sluice = await open(folder)
  const queue = openQueue(sluice)
  let handled = 0
  queue.work(
    async () => {
      if (++handled === 1000) tellReady()
      // Some are held at any time, so that the kill leaves leases behind.
      if (handled % 100 === 0) await sleep(20)
    },
    { concurrency: 256 },
  )
  const first = Date.now() * 1000
  await drive({ from: first, messages: Number.MAX_SAFE_INTEGER - first, inFlight: 256 }, (id) =>
    queue.add(createPayload(id), { key: createKey(id, keys) }),
  )
  throw new Error('churn is to be killed')
}

export interface OpenFigures {
  readonly openMs: number
  /** From the call of `open` to the first handler: opened, declared, leased. */
  readonly firstHandOutMs: number
  readonly depth: number
  readonly rssMiB: number
}

export async function openAndLease({ folder }: BacklogOptions): Promise<OpenFigures> {
  const startedAt = performance.now()
  await using sluice = await open(folder)
  const openMs = performance.now() - startedAt
  const { promise, resolve } = Promise.withResolvers<number>()
  const worker = openQueue(sluice).work(async () => resolve(performance.now() - startedAt), { concurrency: 8 })
  const firstHandOutMs = await promise
  await worker.close()
  return { openMs, firstHandOutMs, depth: await readDepth(sluice), rssMiB: readMaxRssMiB() }
}
