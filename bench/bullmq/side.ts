/**
 * BullMQ's side of the end-to-end comparison. Not type-checked with the rest: its packages are installed on demand,
 * apart from sluice's own.
 */
import { Queue, Worker } from 'bullmq'
import { Redis } from 'ioredis'
import {
  createPayload,
  type DriveOptions,
  drive,
  type EndToEndFigures,
  measureEndToEnd,
  type Payload,
} from '../load.ts'
import type { BullmqOptions } from '../redis.ts'

const queueName = 'bench'

export async function endToEndOnBullmq(options: BullmqOptions): Promise<EndToEndFigures> {
  const address = { host: '127.0.0.1', port: options.port, maxRetriesPerRequest: null }
  const producer = new Redis({ ...address, enableAutoPipelining: options.autoPipelining })
  const queue = new Queue<Payload>(queueName, {
    connection: producer,
    // Without this every finished job is kept in Redis, which only costs BullMQ time.
    defaultJobOptions: { removeOnComplete: true },
  })
  await queue.waitUntilReady()
  try {
    return await measureEndToEnd(options, {
      async start(handled) {
        const workers = Array.from({ length: options.workers }, () => {
          const worker = new Worker<Payload>(queueName, async () => {}, {
            connection: address,
            concurrency: Math.ceil(options.concurrency / options.workers),
          })
          // `completed` comes once Redis has answered, and it answers after its fsync.
          worker.on('completed', handled)
          worker.on('error', (error) => {
            throw error
          })
          return worker
        })
        await Promise.all(workers.map((worker) => worker.waitUntilReady()))
        return {
          settled: async () => {},
          close: async () => {
            await Promise.all(workers.map((worker) => worker.close()))
          },
        }
      },
      publish: (range) => publish(queue, options, range),
      serverCpuSeconds: async () => readCpuSeconds(await producer.info('cpu')),
    })
  } finally {
    await queue.close()
    producer.disconnect()
  }
}

/** One at a time, or in bulk with as many messages in flight. */
async function publish(queue: Queue<Payload>, { bulk }: BullmqOptions, range: DriveOptions): Promise<void> {
  if (bulk === 0) {
    await drive(range, (id) => queue.add('order', createPayload(id)))
    return
  }
  const end = range.from + range.messages
  const batches = { from: 0, messages: Math.ceil(range.messages / bulk), inFlight: Math.max(1, range.inFlight / bulk) }
  await drive(batches, (batch) => {
    const first = range.from + batch * bulk
    const count = Math.min(bulk, end - first)
    return queue.addBulk(Array.from({ length: count }, (_, i) => ({ name: 'order', data: createPayload(first + i) })))
  })
}

function readCpuSeconds(info: string): number {
  const read = (name: string): number => Number(info.match(new RegExp(`^${name}:([\\d.]+)`, 'm'))?.[1] ?? Number.NaN)
  return read('used_cpu_sys') + read('used_cpu_user') + read('used_cpu_sys_children') + read('used_cpu_user_children')
}
