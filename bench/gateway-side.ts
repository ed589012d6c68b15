/** Servers of the gateway's benchmarks, each in a process of its own until it is killed. */
import { once } from 'node:events'
import { join } from 'node:path'
import Fastify from 'fastify'
import { open } from '../src/index.ts'
import { createServer } from '../src/server/server.ts'
import { tellReady } from './child.ts'
import { drive, startClock } from './load.ts'
import { AMPLE_LIMIT } from './sluice-side.ts'

export interface ServeOptions {
  readonly folder: string
  readonly port: number
}

export const QUEUE = 'bench'
export const JOBS_PATH = `/v1/queues/${QUEUE}/jobs`
/** 100 bytes of JSON. */
export const BODY_100 = JSON.stringify({
  id: 1_234_567,
  to: 'customer-123@example.com',
  subject: 'order shipped',
  total: 123,
}).padEnd(100)

export const BATCH_LINES = 500
/** That many jobs of 100 bytes as lines. */
export const BATCH_500 = `{"payload":${BODY_100}}\n`.repeat(BATCH_LINES)

/** Sluice, durable, with its defaults, but for the limit. */
export async function serveSluice({ folder, port }: ServeOptions): Promise<never> {
  const sluice = await open(join(folder, 'sluice'))
  await sluice.queue(QUEUE, { limit: AMPLE_LIMIT }).declare()
  await createServer(sluice, { port }).listen()
  return await serveUntilKilled()
}

/** The same framework, with nothing but the route: it parses the body, stores nothing, and answers as much. */
export async function serveBare({ port }: ServeOptions): Promise<never> {
  const app = Fastify()
  let offset = 0
  app.post('/v1/queues/:queue/jobs', async (request, reply) => {
    const { queue } = request.params as { queue: string }
    const id = `${queue}:abcdef:${offset++}`
    reply.code(202).header('location', `/v1/jobs/${id}`)
    return { id, status: 'queued', queue, duplicate: false, createdAtMs: Date.now(), durability: 'none', copies: 0 }
  })
  await app.listen({ host: '127.0.0.1', port })
  return await serveUntilKilled()
}

export interface DrainingOptions extends ServeOptions {
  readonly limit: number
  readonly perSecond: number
}

/** Sluice with a limit, drained at a steady rate. */
export async function serveDraining({ folder, port, limit, perSecond }: DrainingOptions): Promise<never> {
  const sluice = await open(join(folder, 'sluice'))
  const queue = sluice.queue(QUEUE, { limit: { messages: limit }, rate: { messages: perSecond } })
  await queue.declare()
  queue.work(() => {}, { concurrency: 4 })
  await createServer(sluice, { port }).listen()
  return await serveUntilKilled()
}

export async function serveUntilKilled(): Promise<never> {
  tellReady()
  await once(process, 'never')
  throw new Error('the server is to be killed')
}

export interface AddManyOptions {
  readonly folder: string
  /** Calls of `addMany` at once, each with `BATCH_LINES` jobs. */
  readonly calls: number
  /** Timed; a quarter as many go first. */
  readonly batches: number
}

/** The same jobs in process. */
export async function addMany({ folder, calls, batches }: AddManyOptions): Promise<{ perSecond: number }> {
  await using sluice = await open(join(folder, 'sluice'))
  const queue = sluice.queue(QUEUE, { limit: AMPLE_LIMIT })
  const items = Array.from({ length: BATCH_LINES }, () => ({ payload: JSON.parse(BODY_100) as unknown }))
  const run = (count: number) =>
    drive({ from: 0, messages: count, inFlight: calls }, async () => {
      for (const outcome of await queue.addMany(items)) if (outcome instanceof Error) throw outcome
    })
  await run(Math.ceil(batches / 4))
  const clock = startClock()
  await run(batches)
  return { perSecond: (batches * BATCH_LINES) / clock().seconds }
}
