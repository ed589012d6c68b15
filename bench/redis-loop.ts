/**
 * What a good engineer writes by hand over the same client on the same Redis: the opponent of Sluice on Redis.
 *
 * A message is an entry of a stream. Published by XADD, whose answer comes after the sync (`appendfsync always`). A worker
 * is a consumer of a group: XREADGROUP hands out and counts the attempt, XACK says that it is processed; Redis writes both
 * to its append-only file and syncs before it answers, so a message that was acknowledged does not come again. The client
 * puts what is called in one turn of the event loop into one write.
 *
 * The same guarantees as Sluice in this: acknowledged messages and processed marks survive a power cut, attempts are
 * counted durably before the hand-out, each message is handed out to one consumer at a time. It has no order per key with more than
 * one worker, no retries, delays, limits, results, idempotency keys or dead letters; a dead consumer's messages wait for
 * whoever would claim them; and nothing tells when Redis lost something.
 */
import { createClient } from '@redis/client'
import {
  createPayload,
  type DriveOptions,
  drive,
  type EndToEndFigures,
  type EndToEndOptions,
  measureEndToEnd,
  measurePublish,
  measureSteady,
  type Payload,
  type PublishFigures,
  type PublishOptions,
  type SteadyFigures,
  type SteadyOptions,
} from './load.ts'

export interface RedisLoopOptions {
  /** Of a server that is empty, and configured as docs/redis.md asks. */
  readonly url: string
}

const STREAM = 'bench'
const GROUP = 'workers'
/** How many are handed out at once. */
const BATCH = 256

type Client = Awaited<ReturnType<typeof connect>>

async function connect(url: string) {
  const client = createClient({ url, RESP: 3 })
  client.on('error', (error) => {
    throw error
  })
  await client.connect()
  return client
}

function publish(client: Client, id: number): Promise<unknown> {
  return client.sendCommand(['XADD', STREAM, '*', 'm', JSON.stringify(createPayload(id))])
}

export async function publishToRedisLoop(options: PublishOptions & RedisLoopOptions): Promise<PublishFigures> {
  const client = await connect(options.url)
  try {
    return await measurePublish(options, (id) => publish(client, id))
  } finally {
    client.destroy()
  }
}

/** Latency at a steady rate, from the call of XADD to the handler. */
export async function steadyToRedisLoop(options: SteadyOptions & RedisLoopOptions): Promise<SteadyFigures> {
  const client = await connect(options.url)
  await createGroup(client)
  const workers: Worker[] = []
  try {
    return await measureSteady(options, (arrived) => {
      workers.push(new Worker(options.url, ({ id }) => arrived(id)))
      return (id) => {
        publish(client, id)
      }
    })
  } finally {
    for (const worker of workers) await worker.stop()
    client.destroy()
  }
}

/** Publish, hand out, handle, mark as processed. */
export async function endToEndOnRedisLoop(options: EndToEndOptions & RedisLoopOptions): Promise<EndToEndFigures> {
  const client = await connect(options.url)
  await createGroup(client)
  try {
    const figures = await measureEndToEnd(options, {
      async start(handled) {
        const worker = new Worker(options.url, handled)
        return { settled: () => worker.stop(), close: async () => {} }
      },
      publish: (range: DriveOptions) => drive(range, (id) => publish(client, id)),
      serverCpuSeconds: async () => readCpuSeconds(String(await client.sendCommand(['INFO', 'cpu']))),
    })
    const pending = (await client.sendCommand(['XPENDING', STREAM, GROUP])) as unknown as [number]
    if (pending[0] !== 0) throw new Error(`${pending[0]} messages were left unprocessed`)
    return figures
  } finally {
    client.destroy()
  }
}

async function createGroup(client: Client): Promise<void> {
  await client.sendCommand(['XGROUP', 'CREATE', STREAM, GROUP, '0', 'MKSTREAM'])
}

/** One consumer with a connection to wait on; marks go over another, so that they do not stand behind the wait. */
class Worker {
  readonly #handle: (payload: Payload) => void
  readonly #marks = new Set<Promise<unknown>>()
  readonly #done: Promise<void>
  #isStopping = false

  constructor(url: string, handle: (payload: Payload) => void) {
    this.#handle = handle
    this.#done = this.#run(url)
  }

  async stop(): Promise<void> {
    this.#isStopping = true
    await this.#done
  }

  async #run(url: string): Promise<void> {
    const [reader, marker] = await Promise.all([connect(url), connect(url)])
    while (!this.#isStopping) {
      // Short, so that it stops soon; it costs a round trip in each pause.
      const found = (await reader.sendCommand([
        ...['XREADGROUP', 'GROUP', GROUP, 'one', 'COUNT', String(BATCH), 'BLOCK', '20', 'STREAMS', STREAM, '>'],
      ])) as unknown as Record<string, [string, [string, string]][]> | [string, [string, [string, string]][]][] | null
      const entries = found === null ? [] : Array.isArray(found) ? (found[0]?.[1] ?? []) : (found[STREAM] ?? [])
      if (entries.length === 0) continue
      for (const [, [, text]] of entries) this.#handle(JSON.parse(text) as Payload)
      const mark = marker.sendCommand(['XACK', STREAM, GROUP, ...entries.map(([id]) => id)])
      this.#marks.add(mark)
      mark.finally(() => this.#marks.delete(mark))
    }
    await Promise.all(this.#marks)
    reader.destroy()
    marker.destroy()
  }
}

function readCpuSeconds(info: string): number {
  const read = (name: string): number => Number(info.match(new RegExp(`^${name}:([\\d.]+)`, 'm'))?.[1] ?? Number.NaN)
  return read('used_cpu_sys') + read('used_cpu_user') + read('used_cpu_sys_children') + read('used_cpu_user_children')
}
