/**
 * Who may try to own the journal: the active one among the consumers of a quorum queue, which RabbitMQ chooses and, when its
 * connection or channel ends, replaces at once. It is for calm only: what is durable is decided by the stream (tail.ts).
 *
 * AMQP does not tell a consumer that it is the active one, so each that waits rings: it publishes a small message, of which the
 * queue keeps one. The active consumer gets it, and keeps it unacknowledged. RabbitMQ ends a channel that does so for
 * 30 minutes (consumer_timeout), so the owner rings and acknowledges from time to time.
 */
import type { Channel, ChannelModel, ConsumeMessage } from 'amqplib'
import { openChannel } from './link.ts'

const RENEW_MS = 300_000
/** Rings may get lost, with a connection or by a limit of deliveries. */
const RING_MS = 10_000

export const ELECTION_ARGUMENTS = {
  'x-queue-type': 'quorum',
  'x-quorum-initial-group-size': 3,
  'x-single-active-consumer': true,
  'x-max-length': 1,
}

export function electionOf(namespace: string): string {
  return `${namespace}.owner`
}

export class Election {
  readonly #queue: string
  readonly #ring: (queue: string) => void
  readonly #onTrouble: (reason: Error) => void
  #onChosen: (() => void) | null = null
  #isWanted = false
  #channel: Channel | null = null
  #attempt = 0
  #ringTimer: NodeJS.Timeout | undefined
  #renewTimer: NodeJS.Timeout | undefined

  /** `ring` publishes to the queue, or does nothing while that is not possible. */
  constructor(namespace: string, ring: (queue: string) => void, onTrouble: (reason: Error) => void) {
    this.#queue = electionOf(namespace)
    this.#ring = ring
    this.#onTrouble = onTrouble
  }

  /** Stands from now on, over connections that are attached, until `leave`. */
  stand(onChosen: () => void): void {
    this.#isWanted = true
    this.#onChosen = onChosen
  }

  /** One consumer at a time: another one of ours would be chosen in its place. Rejects if this one has to be attached again. */
  async attach(model: ChannelModel): Promise<void> {
    if (!this.#isWanted) return
    this.#drop()
    const attempt = ++this.#attempt
    const isCurrent = () => attempt === this.#attempt
    try {
      await this.#consume(model, isCurrent)
    } catch (error) {
      if (isCurrent()) throw error
    }
  }

  async #consume(model: ChannelModel, isCurrent: () => boolean): Promise<void> {
    let isConsuming = false
    const channel = await openChannel(model, (reason) => {
      if (isConsuming && isCurrent()) this.#onTrouble(reason)
    })
    if (!isCurrent()) return closeQuietly(channel)
    this.#channel = channel
    await channel.prefetch(1)
    await channel.consume(this.#queue, (message) => {
      if (isCurrent()) this.#rung(channel, message)
    })
    if (!isCurrent()) return
    isConsuming = true
    this.#ring(this.#queue)
    this.#ringTimer = setInterval(() => this.#ring(this.#queue), RING_MS).unref()
  }

  /** Lets the next one have it. */
  leave(): void {
    this.#isWanted = false
    this.#onChosen = null
    this.#drop()
  }

  #rung(channel: Channel, message: ConsumeMessage | null): void {
    if (message === null) return this.#onTrouble(new Error(`The queue '${this.#queue}' was deleted`))
    clearInterval(this.#ringTimer)
    clearInterval(this.#renewTimer)
    this.#renewTimer = setInterval(() => {
      this.#ring(this.#queue)
      if (this.#channel !== channel) return
      try {
        channel.ack(message)
      } catch {
        // The channel has ended with its connection, and the next one is not attached yet.
      }
    }, RENEW_MS).unref()
    this.#onChosen?.()
    this.#onChosen = null
  }

  #drop(): void {
    this.#attempt++
    clearInterval(this.#ringTimer)
    clearInterval(this.#renewTimer)
    const channel = this.#channel
    this.#channel = null
    if (channel !== null) closeQuietly(channel)
  }
}

function closeQuietly(channel: Channel): void {
  channel.close().catch(() => {})
}
