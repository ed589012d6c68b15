/**
 * The end of the journal, as its owner writes it and reads it back: one for each grant.
 *
 * The owner consumes the segment that it writes to. A message of its own that comes back and counts (order.ts) is durable:
 * RabbitMQ hands out of a stream only what a majority of its members has. A claim of a later epoch that comes back ends the grant.
 * Reading back costs a round trip more than a confirm and the bytes once more; nothing less tells an owner from one that was
 * replaced while it did not look.
 *
 * `store` has its messages under way until all came back. Whatever happens to a connection meanwhile (gone, silent, a message
 * refused), what has not come back is published again under the same numbers on the next one: the first copy counts.
 *
 * When RabbitMQ is short of memory or disk, it stops reading from a connection with the message that it then does not take, and
 * takes it once there is room. So that `full` can be said of such a message, entries go by an exchange under a key of this
 * grant and segment: the binding is removed (on the connection that is still read from), and the message finds no queue.
 *
 * Segments: the tail begins at the first segment that may be the last one, and follows each seal that counts to the next,
 * with what is under way, until its claim has come back.
 */
import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import type { ChannelModel, ConfirmChannel } from 'amqplib'
import { SluiceError } from '../../errors.ts'
import type { JournalOutcome } from '../contract.ts'
import { closeChannel, openChannel } from './link.ts'
import { type Kind, Order, readMark, writeMark } from './order.ts'
import {
  asGone,
  type Consumption,
  consumeStream,
  entriesOf,
  foreignMessageError,
  type StreamMessage,
  segmentOf,
} from './streams.ts'

/** Without anything coming back for so long, the connections are made again. */
const STALL_MS = 6_000
/** And for so long, the outcome stays unknown. */
const PATIENCE_MS = 20_000
/** What a message takes from the broker's channel to the stream and back, at most. */
const SETTLE_MS = 300
const REBIND_MS = 100

export interface TailEvents {
  /** The channel to publish on, null while there is none. */
  channel(): ConfirmChannel | null
  /** Connections seem to be dead, or refuse: make them again. */
  reset(reason: Error): void
  /** No more will be durable under this grant. */
  onEnd(reason: SluiceError): void
}

interface Outgoing {
  readonly kind: Kind
  readonly id: string
  readonly bytes: Buffer
}

interface Waiting {
  readonly messages: readonly Outgoing[]
  readonly places: string[]
  resolve(outcome: JournalOutcome): void
  reject(error: SluiceError): void
}

export interface Place {
  readonly segment: number
  readonly offset: number
}

export class Tail {
  readonly epoch: number
  readonly #namespace: string
  readonly #events: TailEvents
  readonly #order = new Order()
  #segment: number
  #offset = 0
  #segmentBytes = 0
  #last: Place | null = null
  #number = 0
  /** Of the message that will be the first one in a segment that this owner rolled to. */
  #isAtBeginning = false
  #waiting: Waiting | null = null
  #consumption: Consumption | null = null
  /** Changes when messages under way were made to find no queue. */
  #generation = 0
  /** Under which the segment is bound; null: not yet. */
  #key: string | null = null
  #model: ChannelModel | null = null
  #stallTimer: NodeJS.Timeout | null = null
  #progressMs = 0
  #resetMs = 0
  #ended: SluiceError | null = null

  constructor(namespace: string, epoch: number, segment: number, events: TailEvents) {
    this.#namespace = namespace
    this.epoch = epoch
    this.#segment = segment
    this.#events = events
  }

  /** Of the last message that counts, among those that came back. */
  get last(): Place | null {
    return this.#last
  }

  get segment(): number {
    return this.#segment
  }

  get segmentBytes(): number {
    return this.#segmentBytes
  }

  get isClaimed(): boolean {
    return this.#order.epoch === this.epoch
  }

  /** Reads on from where it was, on a new connection. */
  async attach(model: ChannelModel): Promise<void> {
    if (this.#ended !== null) return
    this.#consumption?.stop()
    this.#model = model
    const segment = this.#segment
    try {
      await this.#bind(model)
      const consumption = await consumeStream(
        model,
        segmentOf(this.#namespace, segment),
        this.#offset,
        (message) => this.#receive(segment, message),
        (reason) => this.#lostStream(model, reason),
      )
      if (this.#segment === segment && this.#model === model && this.#ended === null) this.#consumption = consumption
      else consumption.stop()
    } catch (error) {
      if (!(error instanceof SluiceError)) throw error
      this.end(error)
    }
  }

  /** Publishes what has not come back. Called with each new channel, too. */
  publish(): void {
    const waiting = this.#waiting
    const key = this.#key
    if (waiting === null || key === null) return
    const channel = this.#events.channel()
    if (channel === null) return
    const options = { deliveryMode: 2, mandatory: true }
    try {
      for (const { id, bytes } of waiting.messages.slice(waiting.places.length)) {
        channel.publish(entriesOf(this.#namespace), key, bytes, { ...options, messageId: id }, (error) => {
          if (error && this.#events.channel() === channel)
            this.#events.reset(new Error(`RabbitMQ did not keep a message: ${error.message}`))
        })
      }
    } catch (error) {
      // The channel is about to be known as closed: it is published on the next one.
      this.#events.reset(error as Error)
    }
  }

  /** The first call's first message is the claim. */
  store(entries: readonly Uint8Array[]): Promise<JournalOutcome> {
    let kind: Kind = this.#isAtBeginning ? 'begin' : 'entry'
    if (this.#number === 0) kind = 'claim'
    this.#isAtBeginning = false
    return this.#store(entries.map((bytes, at) => ({ kind: at === 0 ? kind : 'entry', bytes })))
  }

  /** Ends the segment, in which there must be something; the next one must have been declared. */
  seal(): Promise<JournalOutcome> {
    assert(!this.#isAtBeginning && this.#number > 0, 'a claim or a beginning comes first in each segment')
    return this.#store([{ kind: 'seal', bytes: new Uint8Array(0) }])
  }

  /**
   * A message found no queue. If it should have, the stream was deleted, or a broker that just started does not know the
   * binding yet: binding again tells which.
   */
  async returned(key: string): Promise<void> {
    if (key !== this.#key) return
    this.#key = null
    await delay(REBIND_MS)
    const model = this.#model
    if (model === null || this.#ended !== null) return
    try {
      await this.#bind(model)
    } catch (error) {
      if (error instanceof SluiceError) this.end(error)
      else this.#events.reset(error as Error)
    }
  }

  /**
   * The broker holds back what is published: makes what is under way find no queue, and answers `full`. Where some of it has
   * come back already, or the binding cannot be removed, the rest is waited for as ever.
   */
  async giveUp(reason: string): Promise<void> {
    const waiting = this.#waiting
    const model = this.#model
    const key = this.#key
    if (waiting === null || model === null || key === null || waiting.places.length > 0) return
    this.#key = null
    const segment = this.#segment
    try {
      const channel = await openChannel(model)
      await channel.unbindQueue(segmentOf(this.#namespace, segment), entriesOf(this.#namespace), key)
      // What went through before that is on its way back, and is given the time.
      await closeChannel(channel)
      await delay(SETTLE_MS)
      this.#generation++
      if (this.#waiting === waiting && this.#segment === segment && waiting.places.length === 0) {
        this.#finish()
        this.#takeBack(waiting.messages)
        waiting.resolve({ status: 'full', reason })
      }
      await this.#bind(model)
      this.publish()
    } catch (error) {
      this.#events.reset(error as Error)
    }
  }

  /** Ends everything: what is under way is lost if another took over, else unknown. */
  end(reason: SluiceError): void {
    if (this.#ended !== null) return
    this.#ended = reason
    this.#consumption?.stop()
    const waiting = this.#finish()
    if (reason.details['isTakenOver'] === true) waiting?.resolve({ status: 'lost' })
    else waiting?.reject(reason.code === 'UNREACHABLE' || reason.code === 'CLOSED' ? asUnknown(reason) : reason)
    this.#events.onEnd(reason)
  }

  /** Their numbers are free again. */
  #takeBack(messages: readonly Outgoing[]): void {
    this.#number -= messages.length
    if (messages[0]?.kind === 'begin') this.#isAtBeginning = true
  }

  async #bind(model: ChannelModel): Promise<void> {
    const segment = this.#segment
    const queue = segmentOf(this.#namespace, segment)
    const key = `${this.epoch}.${this.#generation}.${segment}`
    try {
      const channel = await openChannel(model)
      await channel.bindQueue(queue, entriesOf(this.#namespace), key)
      await closeChannel(channel)
    } catch (error) {
      throw asGone(error, queue)
    }
    if (this.#segment !== segment || this.#ended !== null || this.#key === key) return
    this.#key = key
    this.publish()
  }

  async #store(items: readonly { kind: Kind; bytes: Uint8Array }[]): Promise<JournalOutcome> {
    if (this.#ended !== null) return { status: 'lost' }
    if (items.length === 0) return { status: 'durable', places: [] }
    const messages = items.map(({ kind, bytes }) => ({
      kind,
      id: writeMark({ kind, epoch: this.epoch, number: this.#number++ }),
      bytes: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
    }))
    const { promise, resolve, reject } = Promise.withResolvers<JournalOutcome>()
    this.#waiting = { messages, places: [], resolve, reject }
    this.#progressMs = performance.now()
    this.#resetMs = this.#progressMs
    this.#stallTimer ??= setInterval(() => this.#watch(), 500)
    this.publish()
    return promise
  }

  #receive(segment: number, message: StreamMessage): void {
    message.done()
    if (segment !== this.#segment || this.#ended !== null) return
    this.#offset = message.offset + 1
    this.#segmentBytes += message.bytes.byteLength
    this.#progressMs = performance.now()
    const mark = readMark(message.id)
    if (mark === null) return this.end(foreignMessageError(segmentOf(this.#namespace, segment), message.offset))
    if (!this.#order.take(mark)) return
    if (mark.epoch > this.epoch) return this.end(takenOverError(mark.epoch))
    this.#last = { segment, offset: message.offset }
    if (mark.kind === 'seal') this.#turn(mark.epoch === this.epoch)
    if (mark.epoch === this.epoch) this.#cameBack(message, `${segment}:${message.offset}`)
  }

  /**
   * What comes back must be what was published: a message that was taken back, and came late all the same, has the number of
   * another one and stands in its place.
   */
  #cameBack({ id, bytes }: StreamMessage, place: string): void {
    const waiting = this.#waiting
    const expected = waiting?.messages[waiting.places.length]
    if (waiting === null || expected === undefined || expected.id !== id || !expected.bytes.equals(bytes))
      return this.end(
        new SluiceError('UNREACHABLE', 'RabbitMQ kept a message that had been taken back: the journal is read anew.'),
      )
    waiting.places.push(place)
    if (waiting.places.length < waiting.messages.length) return
    this.#finish()
    waiting.resolve({ status: 'durable', places: waiting.places })
  }

  /** Goes on in the next segment, with what is under way if that is not the seal itself. */
  #turn(isOwn: boolean): void {
    this.#consumption?.stop()
    this.#consumption = null
    this.#order.turn()
    this.#segment++
    this.#key = null
    this.#offset = 0
    this.#segmentBytes = 0
    this.#isAtBeginning = isOwn
    const model = this.#model
    // What is under way is published again once the segment is bound.
    if (model !== null) this.attach(model).catch((error) => this.#events.reset(error))
  }

  #lostStream(model: ChannelModel, reason: Error): void {
    if (reason instanceof SluiceError) this.end(reason)
    else if (this.#model === model) this.#events.reset(reason)
  }

  #watch(): void {
    const nowMs = performance.now()
    if (nowMs - this.#progressMs > PATIENCE_MS)
      return this.end(new SluiceError('UNREACHABLE', `RabbitMQ kept nothing for ${PATIENCE_MS} ms.`))
    if (nowMs - Math.max(this.#progressMs, this.#resetMs) < STALL_MS) return
    this.#resetMs = nowMs
    this.#events.reset(new Error(`Nothing came back from RabbitMQ for ${STALL_MS} ms`))
  }

  #finish(): Waiting | null {
    const waiting = this.#waiting
    this.#waiting = null
    if (this.#stallTimer !== null) clearInterval(this.#stallTimer)
    this.#stallTimer = null
    return waiting
  }
}

function takenOverError(epoch: number): SluiceError {
  return new SluiceError('UNREACHABLE', `Another process has taken the journal over, in epoch ${epoch}.`, {
    isTakenOver: true,
    epoch,
  })
}

function asUnknown(reason: SluiceError): SluiceError {
  return new SluiceError('UNKNOWN', `Whether RabbitMQ kept it is not known: ${reason.message}`, {}, reason)
}
