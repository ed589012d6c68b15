/**
 * The streams of a journal: their names and arguments, declaring and deleting them, and reading one from its beginning.
 *
 *   NAMESPACE.catalog     which segments there are, and how many grants there were (catalog.ts)
 *   NAMESPACE.journal.N   the segments, from 0: the entries
 *   NAMESPACE.entries     an exchange: the way to the segments (tail.ts)
 */
import type { Channel, ChannelModel, ConsumeMessage, Options } from 'amqplib'
import { SluiceError } from '../../errors.ts'
import { closeChannel, codeOf, describe, openChannel } from './link.ts'

/** Members of a stream, where the cluster has as many nodes. */
const MEMBERS = 3
/** Messages under way to a reader that has not said that it is done with them. */
const READ_AHEAD = 64
/** What the broker keeps in one file; a segment of the journal is not much longer. */
const FILE_BYTES = 100_000_000

export const STREAM_ARGUMENTS = {
  'x-queue-type': 'stream',
  'x-initial-cluster-size': MEMBERS,
  'x-queue-leader-locator': 'client-local',
  'x-stream-max-segment-size-bytes': FILE_BYTES,
}

export function catalogOf(namespace: string): string {
  return `${namespace}.catalog`
}

export function entriesOf(namespace: string): string {
  return `${namespace}.entries`
}

export function segmentOf(namespace: string, segment: number): string {
  return `${namespace}.journal.${segment}`
}

/** Declares it, or finds it as we declare it. Rejects with FOREIGN_DATA where it is something else. */
export async function declareQueue(model: ChannelModel, name: string, options: Options.AssertQueue): Promise<void> {
  const channel = await openChannel(model)
  try {
    await channel.assertQueue(name, { durable: true, ...options })
  } catch (error) {
    throw asDeclareError(error, `queue '${name}'`)
  }
  await closeChannel(channel)
}

export function asDeclareError(error: unknown, what: string): unknown {
  const code = codeOf(error)
  if (code === 406 || code === 405)
    return new SluiceError(
      'FOREIGN_DATA',
      `There is a ${what} in RabbitMQ that Sluice did not make so: ${describe(error)}. Give another \`namespace\`, or delete it. Nothing was changed.`,
      { what },
      error,
    )
  if (code === 403)
    return new SluiceError(
      'UNAUTHENTICATED',
      `The user may not use the ${what}: ${describe(error)}. Give it permissions to configure, write and read names that begin with the namespace (rabbitmqctl set_permissions).`,
      { what },
      error,
    )
  return error
}

/** Whether there is a queue of this name. */
export async function hasQueue(model: ChannelModel, name: string): Promise<boolean> {
  const channel = await openChannel(model)
  try {
    await channel.checkQueue(name)
  } catch (error) {
    if (codeOf(error) === 404) return false
    throw error
  }
  await closeChannel(channel)
  return true
}

/** One that is not there is deleted already. */
export async function deleteQueue(model: ChannelModel, name: string): Promise<void> {
  const channel = await openChannel(model)
  await channel.deleteQueue(name)
  await closeChannel(channel)
}

export interface StreamMessage {
  readonly offset: number
  readonly id: unknown
  readonly bytes: Buffer
  /** To be called when it is done with: more come only then. */
  done(): void
}

export interface Consumption {
  stop(): void
}

/**
 * Hands each message over, in the order of the stream and without a gap, from `from` on, which is not checked against the end.
 * `onEnd` is called once, with why no more will come, unless it was stopped: the connection is gone, the stream was deleted
 * (ENGINE_CHANGED), or does not begin where it should, as something in the broker drops from it (CORRUPT).
 */
export async function consumeStream(
  model: ChannelModel,
  name: string,
  from: number,
  onMessage: (message: StreamMessage) => void,
  onEnd: (reason: Error) => void,
): Promise<Consumption> {
  let next = from
  let isOver = false
  const end = (reason: Error) => {
    if (isOver) return
    isOver = true
    onEnd(reason)
    channel.close().catch(() => {})
  }
  const channel = await openChannel(model, (reason) => {
    if (!isOver) end(asGone(reason, name))
  })
  await channel.prefetch(READ_AHEAD)
  const receive = (message: ConsumeMessage | null) => {
    if (isOver) return
    if (message === null) return end(goneError(name))
    const offset = Number(message.properties.headers?.['x-stream-offset'])
    // A chunk is handed out from its beginning.
    if (offset < next) return channel.ack(message)
    if (offset > next) return end(trimmedError(name, next, offset))
    next = offset + 1
    const { messageId } = message.properties
    onMessage({ offset, id: messageId, bytes: message.content, done: createDone(channel, message) })
  }
  try {
    await channel.consume(name, receive, { arguments: { 'x-stream-offset': from } })
  } catch (error) {
    isOver = true
    throw asGone(error, name)
  }
  return {
    stop() {
      if (isOver) return
      isOver = true
      channel.close().catch(() => {})
    },
  }
}

function createDone(channel: Channel, message: ConsumeMessage): () => void {
  return () => {
    try {
      channel.ack(message)
    } catch {
      // The channel has ended: nothing is owed to it.
    }
  }
}

export function asGone(error: unknown, name: string): Error {
  if (codeOf(error) === 404) return goneError(name)
  return error instanceof Error ? error : new Error(describe(error))
}

function goneError(name: string): SluiceError {
  return new SluiceError(
    'ENGINE_CHANGED',
    `The stream '${name}' is not in RabbitMQ any more: it was deleted, or the broker came back without its data. Open Sluice again to go on with what is there.`,
    { stream: name },
  )
}

function trimmedError(name: string, expected: number, found: number): SluiceError {
  return new SluiceError(
    'CORRUPT',
    `The stream '${name}' has no message at ${expected} and goes on at ${found}: RabbitMQ dropped from it. Look for a policy with max-age or max-length-bytes that matches this name (rabbitmqctl list_policies), and remove it.`,
    { stream: name, expected, found },
  )
}

export function foreignMessageError(name: string, offset: number): SluiceError {
  return new SluiceError(
    'FOREIGN_DATA',
    `The stream '${name}' has a message at ${offset} that Sluice did not write. Give another \`namespace\`, and keep others from publishing to this one.`,
    { stream: name, offset },
  )
}
