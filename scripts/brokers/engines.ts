/**
 * The engines over real brokers, for the conformance suite: one server of each kind for all scenarios, a namespace of its own
 * for each. The owner of the data is a thread that no scenario sees. A crash ends that thread as a kill ends a process: its
 * connections are closed by the system, in the middle of whatever it did, and another process takes over.
 */
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import type { FromBroker, SharedData, ToBroker } from '../../src/broker/messages.ts'
import type { EngineUnderTest, StoreUnderTest } from '../../src/conformance/registry.ts'
import { open, type Sluice } from '../../src/index.ts'
import type { Broker } from './broker.ts'

export interface BrokerKind {
  readonly name: 'Redis' | 'RabbitMQ' | 'Kafka'
  /** Its version; null where it is missing and cannot be installed, which was then said loudly. */
  find(): Promise<string | null>
  start(): Promise<Broker>
}

export const BROKER_KINDS: readonly BrokerKind[] = [
  {
    name: 'Redis',
    find: async () => (await import('./redis.ts')).findRedis(),
    start: async () => (await import('./redis.ts')).startRedis(),
  },
  {
    name: 'RabbitMQ',
    find: async () => (await import('./rabbitmq.ts')).findRabbitmq(),
    start: async () => (await import('./rabbitmq.ts')).startRabbitmq(),
  },
  {
    name: 'Kafka',
    find: async () => (await import('./kafka.ts')).findKafka(),
    start: async () => (await import('./kafka.ts')).startKafka(),
  },
]

/** An engine over a broker that runs. */
export function brokerEngine(name: string, url: string): EngineUnderTest {
  return {
    name,
    async prepare(): Promise<StoreUnderTest> {
      const namespace = `suite-${randomUUID()}`
      const opened = new Set<Sluice>()
      let owner: Worker | null = null
      const end = async () => {
        await Promise.all([...opened].map((sluice) => sluice.close({ drainMs: 0 })))
        opened.clear()
        if (owner !== null) await endOwner(owner)
        owner = null
      }
      return {
        isShared: true,
        async open() {
          if (opened.size === 0 && owner === null) owner = await startOwner(url, namespace)
          const sluice = await open(url, { namespace })
          opened.add(sluice)
          return sluice
        },
        async stop(how) {
          if (how === 'close') return end()
          await owner?.terminate()
          owner = null
        },
        dispose: end,
      }
    },
  }
}

/** The broker thread of a process, without the process. Terminated, it is a process that was killed. */
export async function startOwner(url: string, namespace: string): Promise<Worker> {
  const options: SharedData = {
    url,
    namespace,
    durability: undefined,
    copies: undefined,
    connectMs: undefined,
    stateDir: null,
    seat: null,
  }
  const thread = new Worker(new URL('../../src/broker/shared/thread.ts', import.meta.url), {
    workerData: options,
    execArgv: [],
  })
  const ended = once(thread, 'exit').then(() => {
    throw new Error('The owner ended before it had opened.')
  })
  const [message] = (await Promise.race([once(thread, 'message'), ended])) as [FromBroker]
  // It ends some day.
  ended.catch(() => {})
  if (message.kind === 'refused') throw new Error(`The owner was refused: ${message.error.message}`)
  return thread
}

/** In good order. */
export async function endOwner(thread: Worker): Promise<void> {
  const ended = once(thread, 'exit')
  thread.postMessage({ kind: 'close' } satisfies ToBroker)
  await ended
}
