/**
 * The load that every side of every comparison gets: the same payloads, the same keys, the same driver. Whatever this
 * file costs, both sides pay.
 */
import { setTimeout as sleep } from 'node:timers/promises'

export interface Payload {
  id: number
  to: string
  subject: string
  total: number
  at: number
  ok: boolean
}

/** About 110 bytes of JSON. */
export function createPayload(id: number): Payload {
  return {
    id,
    to: `customer-${id % 1000}@example.com`,
    subject: 'order shipped',
    total: 1234,
    at: 1_750_000_000_000 + id,
    ok: true,
  }
}

export function meanPayloadBytes(messages: number): number {
  let bytes = 0
  for (let id = 0; id < 1000; id++) {
    bytes += Buffer.byteLength(JSON.stringify(createPayload(Math.floor((id * messages) / 1000))))
  }
  return bytes / 1000
}

/**
 * The key of message `id`. Scattered rather than in turn, so that neighbours sometimes share a key, as real ones do;
 * the same for every run.
 */
export function createKey(id: number, keys: number): string {
  let hash = Math.imul(id ^ (id >>> 16), 0x45d9f3b)
  hash = Math.imul(hash ^ (hash >>> 16), 0x45d9f3b)
  return `customer-${((hash ^ (hash >>> 16)) >>> 0) % keys}`
}

/** Resolves once message `id` is as durable as the side makes it. */
export type Publish = (id: number) => Promise<unknown>

export interface DriveOptions {
  readonly from: number
  readonly messages: number
  readonly inFlight: number
}

/** Keeps `inFlight` messages in flight: that many loops, each awaiting its own publish. */
export async function drive(options: DriveOptions, publish: Publish): Promise<void> {
  let next = options.from
  const end = options.from + options.messages
  const loop = async (): Promise<void> => {
    while (next < end) await publish(next++)
  }
  await Promise.all(Array.from({ length: options.inFlight }, loop))
}

export interface PublishOptions {
  readonly folder: string
  readonly messages: number
  readonly inFlight: number
  /** 0: no keys. */
  readonly keys: number
}

export interface PublishFigures {
  perSecond: number
  cpuSecondsPer100k: number
  /** Of one publish, call to durable. Only where one message is in flight: the clock would cost the others. */
  p50Ms: number | null
  p99Ms: number | null
}

const warmUpShare = 0.25

/** Warms up, then times `messages` publishes. */
export async function measurePublish(options: PublishOptions, publish: Publish): Promise<PublishFigures> {
  const warmUp = Math.ceil(options.messages * warmUpShare)
  await drive({ from: 0, messages: warmUp, inFlight: options.inFlight }, publish)
  const latencies = options.inFlight === 1 ? new Float64Array(options.messages) : null
  const timed: Publish = latencies
    ? async (id) => {
        const startedAt = performance.now()
        await publish(id)
        latencies[id - warmUp] = performance.now() - startedAt
      }
    : publish
  const clock = startClock()
  await drive({ from: warmUp, messages: options.messages, inFlight: options.inFlight }, timed)
  const { seconds, cpuSeconds } = clock()
  latencies?.sort()
  return {
    perSecond: options.messages / seconds,
    cpuSecondsPer100k: (cpuSeconds / options.messages) * 100_000,
    p50Ms: latencies?.[Math.floor(latencies.length * 0.5)] ?? null,
    p99Ms: latencies?.[Math.floor(latencies.length * 0.99)] ?? null,
  }
}

/** Starts a clock; the returned function reads the wall time and this process's CPU time since then. */
export function startClock(): () => { seconds: number; cpuSeconds: number } {
  const startedAt = performance.now()
  const cpuAtStart = process.cpuUsage()
  return () => {
    const seconds = (performance.now() - startedAt) / 1000
    const { user, system } = process.cpuUsage(cpuAtStart)
    return { seconds, cpuSeconds: (user + system) / 1e6 }
  }
}

export interface PaceOptions {
  readonly messages: number
  readonly perSecond: number
}

/** Calls `send` for 0, 1, 2 … at a steady rate, whether or not earlier ones have been answered. */
export async function pace(options: PaceOptions, send: (id: number) => void): Promise<void> {
  const intervalMs = 1000 / options.perSecond
  const startedAt = performance.now()
  for (let id = 0; id < options.messages; ) {
    const untilDueMs = startedAt + id * intervalMs - performance.now()
    if (untilDueMs > 0) await sleep(untilDueMs)
    else send(id++)
  }
}

export interface SteadyOptions {
  readonly folder: string
  readonly perSecond: number
  /** Timed; a further second's worth goes first, untimed. */
  readonly messages: number
}

export interface SteadyFigures {
  latenciesMs: number[]
}

/** Times each of a steady stream of messages, from the call of `send` to the call of its `arrived`. */
export async function measureSteady(
  options: SteadyOptions,
  start: (arrived: (id: number) => void) => (id: number) => void,
): Promise<SteadyFigures> {
  const warmUp = options.perSecond
  const total = warmUp + options.messages
  const sentAt = new Float64Array(total)
  const latencies = new Float64Array(total)
  let missing = total
  const { promise: allArrived, resolve } = Promise.withResolvers<void>()
  const send = start((id) => {
    latencies[id] = performance.now() - (sentAt[id] ?? Number.NaN)
    if (--missing === 0) resolve()
  })
  await pace({ messages: total, perSecond: options.perSecond }, (id) => {
    sentAt[id] = performance.now()
    send(id)
  })
  await allArrived
  return { latenciesMs: [...latencies.subarray(warmUp)] }
}

export interface EndToEndOptions {
  readonly folder: string
  readonly messages: number
  readonly inFlight: number
  /** Of the worker. */
  readonly concurrency: number
}

export interface EndToEndFigures {
  perSecond: number
  cpuSecondsPer100k: number
  /** Of the server that the side needs; 0 where there is none. */
  serverCpuSecondsPer100k: number
}

/** A worker that has been started, and waits for messages. */
export interface StartedWorker {
  /** Call it once every message was handled: resolves once every settle is durable. */
  settled(): Promise<void>
  close(): Promise<void>
}

export interface EndToEndSide {
  /** Starts a worker that calls `handled` for each message. */
  start(handled: () => void): Promise<StartedWorker>
  /** Publishes messages, and resolves once all of them are durable. */
  publish(options: DriveOptions): Promise<void>
  /** CPU seconds of the server since it started. */
  serverCpuSeconds(): Promise<number>
}

/** Warms up, then times from the first publish to the last settle, publisher and worker at the same time. */
export async function measureEndToEnd(options: EndToEndOptions, side: EndToEndSide): Promise<EndToEndFigures> {
  const { messages, inFlight } = options
  const warmUp = Math.ceil(messages * warmUpShare)
  await passThrough(side, { from: 0, messages: warmUp, inFlight })
  const figures = await passThrough(side, { from: warmUp, messages, inFlight })
  const per100k = 100_000 / messages
  return {
    perSecond: messages / figures.seconds,
    cpuSecondsPer100k: figures.cpuSeconds * per100k,
    serverCpuSecondsPer100k: figures.serverCpuSeconds * per100k,
  }
}

async function passThrough(side: EndToEndSide, options: DriveOptions) {
  const { promise: allHandled, resolve } = Promise.withResolvers<void>()
  let missing = options.messages
  const worker = await side.start(() => {
    if (--missing === 0) resolve()
  })
  const serverCpuAtStart = await side.serverCpuSeconds()
  const clock = startClock()
  await side.publish(options)
  await allHandled
  await worker.settled()
  const figures = clock()
  const serverCpuSeconds = (await side.serverCpuSeconds()) - serverCpuAtStart
  await worker.close()
  if (missing !== 0) throw new Error(`${-missing} messages were handled more than once`)
  return { ...figures, serverCpuSeconds }
}
