/** Sluice's side of the comparisons, through its public face and with its defaults, but for the limits. */
import { join } from 'node:path'
import { open } from '../src/index.ts'
import {
  createKey,
  createPayload,
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

/** No run comes near: what is measured is not the refusal. */
export const AMPLE_LIMIT = { messages: 1_000_000_000, bytes: 1024 ** 4 }

const queueName = 'bench'

export async function publishToSluice(options: PublishOptions): Promise<PublishFigures> {
  await using sluice = await open(join(options.folder, 'sluice'))
  const queue = sluice.queue<Payload>(queueName, { limit: AMPLE_LIMIT })
  const { keys } = options
  return await measurePublish(
    options,
    keys === 0
      ? (id) => queue.add(createPayload(id))
      : (id) => queue.add(createPayload(id), { key: createKey(id, keys) }),
  )
}

/** Latency at a steady rate, from the call of `add` to the call of the handler. */
export async function steadyToSluice(options: SteadyOptions): Promise<SteadyFigures> {
  await using sluice = await open(join(options.folder, 'sluice'))
  const queue = sluice.queue<Payload>(queueName, { limit: AMPLE_LIMIT })
  return await measureSteady(options, (arrived) => {
    queue.work(async (job) => arrived(job.payload.id), { concurrency: 8 })
    return (id) => {
      queue.add(createPayload(id))
    }
  })
}

/** Publish, commit, lease, handle, settle. When `worker.close()` resolves, every settle is durable (P12). */
export async function endToEndOnSluice(options: EndToEndOptions): Promise<EndToEndFigures> {
  await using sluice = await open(join(options.folder, 'sluice'))
  const queue = sluice.queue<Payload>(queueName, { limit: AMPLE_LIMIT })
  const figures = await measureEndToEnd(options, {
    async start(handled) {
      const worker = queue.work(async () => handled(), { concurrency: options.concurrency })
      return { settled: () => worker.close(), close: async () => {} }
    },
    publish: (range) => drive(range, (id) => queue.add(createPayload(id))),
    serverCpuSeconds: async () => 0,
  })
  const { topics } = await sluice.stats()
  const depth = topics.find(({ name }) => name === queueName)?.depth.messages
  if (depth !== 0) throw new Error(`${depth} messages were left unsettled`)
  return figures
}
