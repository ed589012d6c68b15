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
    subject: 'order sent',
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
  from: number
  messages: number
  inFlight: number
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
  folder: string
  messages: number
  inFlight: number
  /** 0: no keys. */
  keys: number
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
  messages: number
  perSecond: number
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
  folder: string
  perSecond: number
  /** Timed; a further second's worth goes first, untimed. */
  messages: number
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
