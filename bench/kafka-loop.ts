/**
 * What a good engineer writes by hand over the same client on the same Kafka: the opponent of Sluice on Kafka.
 *
 * A message is a record of a topic with one partition, as order over all messages asks for. What waits while a `send` is
 * under way leaves with the next one, at most two under way; idempotent, acknowledged by all replicas in sync. A worker is
 * the member of a consumer group; what it handled is committed as an offset while it goes on, one commit at a time, and
 * the last one before it stops.
 *
 * The same guarantees as Sluice on Kafka in this: acknowledged messages and processed marks survive a killed process and
 * a killed broker (`os`), on as many copies as min.insync.replicas, in order. It counts no attempts, so a message that kills its
 * worker does so for ever; a crash hands out again all that was handled since the last commit; it has no retries, delays,
 * limits, results, idempotency keys, dead letters, nor more than one worker that makes progress.
 */
import { Admin, type Consumer, Consumer as KafkaConsumer, Producer } from '@platformatic/kafka'
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

export interface KafkaLoopOptions {
  readonly url: string
  /** Of the topic, and of the group that reads it: what nobody had before. @default 'bench' */
  readonly name?: string
}

const NAME = 'bench'
const AT_ONCE = 2
const BATCH = 1_024

async function createTopic({ url, name = NAME }: KafkaLoopOptions): Promise<void> {
  const admin = new Admin({ clientId: 'loop', bootstrapBrokers: [new URL(url).host] })
  await admin.createTopics({ topics: [name], partitions: 1, replicas: 1 })
  await admin.close()
}

/** Sends what waits. */
class Publisher {
  readonly #producer: Producer
  readonly #topic: string
  #waiting: { readonly value: Buffer; readonly resolve: () => void; readonly reject: (error: unknown) => void }[] = []
  #underWay = 0

  constructor({ url, name = NAME }: KafkaLoopOptions) {
    this.#topic = name
    this.#producer = new Producer({
      clientId: 'loop',
      bootstrapBrokers: [new URL(url).host],
      acks: -1,
      idempotent: true,
      // What overtakes is refused, as the sequence numbers tell it.
      maxInflights: 1,
    })
  }

  publish(id: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ value: Buffer.from(JSON.stringify(createPayload(id))), resolve, reject })
      if (this.#underWay < AT_ONCE) this.#send()
    })
  }

  close(): Promise<void> {
    return this.#producer.close()
  }

  async #send(): Promise<void> {
    this.#underWay++
    // What is published in the same turn of the event loop goes together.
    await Promise.resolve()
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, BATCH)
      try {
        await this.#producer.send({ messages: batch.map(({ value }) => ({ topic: this.#topic, partition: 0, value })) })
        for (const { resolve } of batch) resolve()
      } catch (error) {
        for (const { reject } of batch) reject(error)
      }
    }
    this.#underWay--
  }
}

export async function publishToKafkaLoop(options: PublishOptions & KafkaLoopOptions): Promise<PublishFigures> {
  await createTopic(options)
  const publisher = new Publisher(options)
  try {
    return await measurePublish(options, (id) => publisher.publish(id))
  } finally {
    await publisher.close()
  }
}

/** Latency at a steady rate, from the call of `publish` to the handler. */
export async function steadyToKafkaLoop(options: SteadyOptions & KafkaLoopOptions): Promise<SteadyFigures> {
  await createTopic(options)
  const publisher = new Publisher(options)
  const workers: Worker[] = []
  let handle = (_payload: Payload): void => {}
  // The group is joined before the clock runs.
  workers.push(await Worker.start(options, (payload) => handle(payload)))
  try {
    return await measureSteady(options, (arrived) => {
      handle = ({ id }) => arrived(id)
      return (id) => {
        publisher.publish(id)
      }
    })
  } finally {
    for (const worker of workers) await worker.stop()
    await publisher.close()
  }
}

/** Publish, hand out, handle, mark as processed. `serverCpuSeconds` reads that of the broker. */
export async function endToEndOnKafkaLoop(
  options: EndToEndOptions & KafkaLoopOptions,
  serverCpuSeconds: () => Promise<number> = async () => 0,
): Promise<EndToEndFigures> {
  await createTopic(options)
  const publisher = new Publisher(options)
  let handle = (_payload: Payload): void => {}
  const worker = await Worker.start(options, (payload) => handle(payload))
  try {
    return await measureEndToEnd(options, {
      async start(handled) {
        handle = handled
        return { settled: () => worker.settled(), close: async () => {} }
      },
      publish: (range: DriveOptions) => drive(range, (id) => publisher.publish(id)),
      serverCpuSeconds,
    })
  } finally {
    await worker.stop()
    await publisher.close()
  }
}

/** The one member of the group. */
class Worker {
  readonly #consumer: Consumer
  readonly #topic: string
  readonly #handle: (payload: Payload) => void
  /** Behind the last message that was handled, and behind the last that is committed. */
  #handled = 0n
  #committed = 0n
  #committing: Promise<void> | null = null
  #ended: Promise<void> = Promise.resolve()
  #close: () => Promise<void> = async () => {}

  static async start({ url, name = NAME }: KafkaLoopOptions, handle: (payload: Payload) => void): Promise<Worker> {
    const consumer = new KafkaConsumer({ clientId: 'loop', groupId: name, bootstrapBrokers: [new URL(url).host] })
    const worker = new Worker(consumer, name, handle)
    const stream = await consumer.consume({
      topics: [name],
      autocommit: false,
      mode: 'committed',
      fallbackMode: 'earliest',
      minBytes: 1,
      maxWaitTime: 500,
      highWaterMark: BATCH,
    })
    worker.#close = async () => {
      await stream.close()
      await worker.#ended
    }
    worker.#ended = (async () => {
      for await (const { value, offset } of stream) worker.#take(value, offset)
    })()
    return worker
  }

  private constructor(consumer: Consumer, topic: string, handle: (payload: Payload) => void) {
    this.#consumer = consumer
    this.#topic = topic
    this.#handle = handle
  }

  /** Everything that was handled is marked. */
  async settled(): Promise<void> {
    await this.#committing
    if (this.#committed < this.#handled) await this.#commit()
  }

  async stop(): Promise<void> {
    await this.settled()
    await this.#close()
    this.#close = async () => {}
    await this.#consumer.close()
  }

  #take(value: Buffer, offset: bigint): void {
    this.#handle(JSON.parse(value.toString()) as Payload)
    this.#handled = offset + 1n
    this.#committing ??= this.#commitAll()
  }

  async #commitAll(): Promise<void> {
    // Everything that is handled in this turn, and what came during a commit, is one commit.
    await new Promise((resolve) => setImmediate(resolve))
    while (this.#committed < this.#handled) await this.#commit()
    this.#committing = null
  }

  async #commit(): Promise<void> {
    const offset = this.#handled
    await this.#consumer.commit({ offsets: [{ topic: this.#topic, partition: 0, offset, leaderEpoch: -1 }] })
    this.#committed = offset
  }
}
