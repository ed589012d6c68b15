/** Sluice's side of the comparisons on a broker, through its public face and with its defaults, but for the limits. */
import { once } from 'node:events'
import { open, type Sluice } from '../src/index.ts'
import { tellReady } from './child.ts'
import {
  createPayload,
  drive,
  type EndToEndFigures,
  type EndToEndOptions,
  measureEndToEnd,
  measurePublish,
  type Payload,
  type PublishFigures,
  type PublishOptions,
} from './load.ts'
import { AMPLE_LIMIT } from './sluice-side.ts'

export interface BrokerSideOptions {
  readonly url: string
  /** Nobody had it before; or, for a member, that of the owner. */
  readonly name: string
}

const queueName = 'bench'

function openNamespace({ url, name }: BrokerSideOptions): Promise<Sluice> {
  return open(url, { namespace: name })
}

/** Owns the data of a namespace for others, until it is killed. */
export async function ownForOthers(options: BrokerSideOptions): Promise<void> {
  await using _sluice = await openNamespace(options)
  tellReady()
  await once(process, 'disconnect')
}

export async function publishToBroker(options: PublishOptions & BrokerSideOptions): Promise<PublishFigures> {
  await using sluice = await openNamespace(options)
  const queue = sluice.queue<Payload>(queueName, { limit: AMPLE_LIMIT })
  return await measurePublish(options, (id) => queue.add(createPayload(id)))
}

/** Publish, commit, lease, handle, settle. When `worker.close()` resolves, every settle is durable (P12). */
export async function endToEndOnBroker(options: EndToEndOptions & BrokerSideOptions): Promise<EndToEndFigures> {
  await using sluice = await openNamespace(options)
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
