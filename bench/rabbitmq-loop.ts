/**
 * What a good engineer writes by hand over the same client on the same RabbitMQ: the opponent of Sluice on RabbitMQ.
 *
 *   stream   a message is published to a stream and confirmed; a worker reads on, handles, and publishes how far it came to a
 *            second stream, which is confirmed, too. Kept by the operating system on a majority of the members, as Sluice
 *            keeps its journal. One worker, in the order of the stream, and no attempts counted.
 *   quorum   a message is published to a quorum queue and confirmed; a worker consumes with a prefetch and acknowledges.
 *            Synced to the disk of a majority, so more than Sluice promises there; but an acknowledgement is not
 *            confirmed, so what was handled may come again, and attempts are counted only when a message comes back.
 *
 * Neither has order per key with more than one worker, retries, delays, limits, results, idempotency keys or dead letters.
 * The client puts what is published in one turn of the event loop into few writes.
 */
import { type ConfirmChannel, type ConsumeMessage, connect } from 'amqplib'
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
  type StartedWorker,
  type SteadyFigures,
  type SteadyOptions,
} from './load.ts'

export interface RabbitmqLoopOptions {
  readonly url: string
  readonly kind: 'stream' | 'quorum'
  /** CPU seconds of the server so far; @default it is not told */
  readonly serverCpuSeconds?: () => Promise<number>
}

const QUEUE = 'bench'
const MARKS = 'bench.processed'
/** How many are handed out at once. */
const PREFETCH = 512

async function open(url: string): Promise<{ channel: ConfirmChannel; close: () => Promise<void> }> {
  const model = await connect(url, { noDelay: true })
  return { channel: await model.createConfirmChannel(), close: () => model.close() }
}

async function declare({ url, kind }: RabbitmqLoopOptions): Promise<void> {
  const { channel, close } = await open(url)
  for (const name of [QUEUE, MARKS]) {
    await channel.deleteQueue(name)
    await channel.assertQueue(name, { durable: true, arguments: { 'x-queue-type': kind } })
  }
  await close()
}

function publish(channel: ConfirmChannel, queue: string, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    channel.sendToQueue(queue, Buffer.from(text), { persistent: true }, (error) => (error ? reject(error) : resolve()))
  })
}

export async function publishToRabbitmqLoop(options: PublishOptions & RabbitmqLoopOptions): Promise<PublishFigures> {
  await declare(options)
  const { channel, close } = await open(options.url)
  try {
    return await measurePublish(options, (id) => publish(channel, QUEUE, JSON.stringify(createPayload(id))))
  } finally {
    await close()
  }
}

/** Latency at a steady rate, from the call of `sendToQueue` to the handler. */
export async function steadyToRabbitmqLoop(options: SteadyOptions & RabbitmqLoopOptions): Promise<SteadyFigures> {
  await declare(options)
  const { channel, close } = await open(options.url)
  const sent: Promise<void>[] = []
  let arrived = (_payload: Payload): void => {}
  const worker = await startWorker(options, (payload) => arrived(payload), 0)
  try {
    return await measureSteady(options, (tell) => {
      arrived = ({ id }) => tell(id)
      return (id) => {
        sent.push(publish(channel, QUEUE, JSON.stringify(createPayload(id))))
      }
    })
  } finally {
    await Promise.all(sent)
    await worker.close()
    await close()
  }
}

/** Publish, hand out, handle, mark as processed. */
export async function endToEndOnRabbitmqLoop(options: EndToEndOptions & RabbitmqLoopOptions): Promise<EndToEndFigures> {
  await declare(options)
  const { channel, close } = await open(options.url)
  let from = 0
  try {
    return await measureEndToEnd(options, {
      start: (handled) => startWorker(options, handled, from),
      async publish(range: DriveOptions) {
        from = range.from + range.messages
        await drive(range, (id) => publish(channel, QUEUE, JSON.stringify(createPayload(id))))
      },
      serverCpuSeconds: options.serverCpuSeconds ?? (async () => 0),
    })
  } finally {
    await close()
  }
}

async function startWorker(
  { url, kind }: RabbitmqLoopOptions,
  handle: (payload: Payload) => void,
  from: number,
): Promise<StartedWorker> {
  const reading = await open(url)
  const marking = await open(url)
  let last: ConsumeMessage | null = null
  let marked = Promise.resolve()
  let isDue = false
  /** One mark for all that was handled while the one before was under way. */
  const mark = async (): Promise<void> => {
    isDue = false
    if (last === null) return
    const message = last
    last = null
    if (kind === 'stream')
      await publish(marking.channel, MARKS, String(message.properties.headers?.['x-stream-offset']))
    reading.channel.ack(message, true)
  }
  await reading.channel.prefetch(PREFETCH)
  await reading.channel.consume(
    QUEUE,
    (message) => {
      if (message === null) return
      const payload = JSON.parse(message.content.toString()) as Payload
      // What was handled before, and comes again: a chunk of a stream from its beginning, or an acknowledgement that was lost.
      if (payload.id >= from) handle(payload)
      last = message
      if (isDue) return
      isDue = true
      marked = marked.then(mark)
    },
    kind === 'stream' ? { arguments: { 'x-stream-offset': from } } : {},
  )
  return {
    settled: () => marked,
    async close() {
      await marked
      await reading.close()
      await marking.close()
    },
  }
}
