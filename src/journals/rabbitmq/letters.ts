/**
 * Letters: a direct exchange, and for each mailbox a queue that lives with its connection, bound under the mailbox's address,
 * under `all`, and under `owner` while it serves the owner. Nothing of it is kept on disk or on other nodes, and a letter that
 * nobody waits for is dropped: who sends letters numbers them and sends them again (rule 9).
 */
import { randomUUID } from 'node:crypto'
import type { Channel, ChannelModel, ConfirmChannel } from 'amqplib'
import type { Mailbox } from '../contract.ts'
import { closeChannel, openChannel } from './link.ts'
import { asDeclareError } from './streams.ts'

/** Of a letter that waits for its reader. Older ones are sent again by then. */
const LETTER_MS = 60_000
/** Of all that wait for one reader; beyond it the oldest are dropped. */
const BOX_BYTES = 134_217_728

export function lettersOf(namespace: string): string {
  return `${namespace}.letters`
}

export interface LettersEvents {
  /** The channel to publish on; null while there is none, or while the broker holds publishers back. */
  channel(): ConfirmChannel | null
  onTrouble(reason: Error): void
  onClose(): void
}

export class Letters implements Mailbox {
  readonly address = randomUUID()
  readonly #namespace: string
  readonly #events: LettersEvents
  readonly #onLetter: (letter: Uint8Array) => void
  #channel: Channel | null = null
  #queue = ''
  #boxes = 0
  #isOwner = false
  #isClosed = false
  readonly #sending = new Set<() => void>()

  constructor(namespace: string, onLetter: (letter: Uint8Array) => void, events: LettersEvents) {
    this.#namespace = namespace
    this.#onLetter = onLetter
    this.#events = events
  }

  async attach(model: ChannelModel): Promise<void> {
    if (this.#isClosed) return
    const channel = await openChannel(model, (reason) => {
      if (this.#channel !== channel) return
      this.#channel = null
      this.#events.onTrouble(reason)
    })
    // A name for each connection: the broker may not know yet that the one before is gone, and its queue with it.
    const queue = `${this.#namespace}.box.${this.address}.${++this.#boxes}`
    try {
      await channel.assertQueue(queue, {
        exclusive: true,
        durable: false,
        arguments: { 'x-queue-type': 'classic', 'x-message-ttl': LETTER_MS, 'x-max-length-bytes': BOX_BYTES },
      })
    } catch (error) {
      throw asDeclareError(error, `queue '${queue}'`)
    }
    const exchange = lettersOf(this.#namespace)
    const isOwner = this.#isOwner
    const keys = [this.address, 'all', ...(isOwner ? ['owner'] : [])]
    for (const key of keys) await channel.bindQueue(queue, exchange, key)
    await channel.consume(queue, (message) => message !== null && this.#onLetter(message.content), { noAck: true })
    if (this.#isClosed) return void channel.close().catch(() => {})
    this.#queue = queue
    this.#channel = channel
    // It may have changed meanwhile, with no channel to say it on.
    if (this.#isOwner !== isOwner) await this.#bindOwner(channel, this.#isOwner)
  }

  send(to: string, letter: Uint8Array): Promise<void> {
    const channel = this.#isClosed ? null : this.#events.channel()
    if (channel === null) return Promise.resolve()
    const content = Buffer.from(letter.buffer, letter.byteOffset, letter.byteLength)
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#sending.add(resolve)
    const done = () => {
      this.#sending.delete(resolve)
      resolve()
    }
    try {
      channel.publish(lettersOf(this.#namespace), to, content, { deliveryMode: 1 }, done)
    } catch {
      // The channel has just ended.
      done()
    }
    return promise
  }

  /** The broker holds back what is published: nobody waits for that. */
  giveUp(): void {
    for (const resolve of this.#sending) resolve()
    this.#sending.clear()
  }

  async serveOwner(isOwner: boolean): Promise<void> {
    if (this.#isOwner === isOwner || this.#isClosed) return
    this.#isOwner = isOwner
    const channel = this.#channel
    if (channel === null) return
    // If it fails, the connection is gone: the next one is set up as it should be.
    await this.#bindOwner(channel, isOwner).catch(() => {})
  }

  async #bindOwner(channel: Channel, isOwner: boolean): Promise<void> {
    const exchange = lettersOf(this.#namespace)
    if (isOwner) await channel.bindQueue(this.#queue, exchange, 'owner')
    else await channel.unbindQueue(this.#queue, exchange, 'owner')
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    const channel = this.#channel
    this.#channel = null
    this.#events.onClose()
    // The queue goes with its connection, or now.
    await channel?.deleteQueue(this.#queue).catch(() => {})
    if (channel !== null) await closeChannel(channel).catch(() => {})
  }
}
