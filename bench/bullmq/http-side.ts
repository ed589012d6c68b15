/** A Fastify route that adds to BullMQ: the other side of the gateway's comparison. Not type-checked, as side.ts. */
import { Queue } from 'bullmq'
import Fastify from 'fastify'
import { Redis } from 'ioredis'
import { serveUntilKilled } from '../gateway-side.ts'
import type { BullmqServeOptions } from '../redis.ts'

export async function serveBullmq({ port, redisPort, autoPipelining }: BullmqServeOptions): Promise<never> {
  const connection = new Redis({
    host: '127.0.0.1',
    port: redisPort,
    maxRetriesPerRequest: null,
    enableAutoPipelining: autoPipelining,
  })
  const queue = new Queue('bench', { connection, defaultJobOptions: { removeOnComplete: true } })
  await queue.waitUntilReady()
  const app = Fastify()
  app.post('/v1/queues/:queue/jobs', async (request, reply) => {
    const job = await queue.add('order', request.body)
    reply.code(202).header('location', `/v1/jobs/${job.id}`)
    return { id: job.id, status: 'queued', queue: 'bench', createdAtMs: job.timestamp }
  })
  await app.listen({ host: '127.0.0.1', port })
  return await serveUntilKilled()
}
