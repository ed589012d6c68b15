/**
 * Reads what counts of the journal's streams, from the first segment that is kept to a place that was the end. A connection that
 * breaks is gone on from where it was. In memory is what the broker sends ahead, a bounded number of messages.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { ChannelModel } from 'amqplib'
import { SluiceError } from '../../errors.ts'
import type { JournalEntry } from '../contract.ts'
import { Order, readMark } from './order.ts'
import { consumeStream, foreignMessageError, type StreamMessage, segmentOf } from './streams.ts'
import type { Place } from './tail.ts'

export interface ReplayOptions {
  readonly namespace: string
  readonly first: number
  readonly last: Place
  /** The connection to read on; waits until there is one. */
  model(): Promise<ChannelModel>
}

export async function* replaySegments({ namespace, first, last, model }: ReplayOptions): AsyncGenerator<JournalEntry> {
  const order = new Order()
  for (let segment = first; segment <= last.segment; segment++) {
    const name = segmentOf(namespace, segment)
    for await (const { offset, id, bytes } of readStream(name, model)) {
      const mark = readMark(id)
      if (mark === null) throw foreignMessageError(name, offset)
      const counts = order.take(mark)
      if (counts && mark.kind !== 'seal') yield { place: `${segment}:${offset}`, bytes }
      if (order.isSealed || (segment === last.segment && offset >= last.offset)) break
    }
    order.turn()
  }
}

async function* readStream(name: string, model: () => Promise<ChannelModel>): AsyncGenerator<StreamMessage> {
  let next = 0
  for (;;) {
    const arrived: StreamMessage[] = []
    let ended: Error | null = null
    let wake = () => {}
    const onEnd = (reason: Error) => {
      ended = reason
      wake()
    }
    const connection = await model()
    const consumption = await consumeStream(
      connection,
      name,
      next,
      (message) => {
        arrived.push(message)
        wake()
      },
      onEnd,
    ).catch((error) => {
      onEnd(error)
      return null
    })
    try {
      while (ended === null || arrived.length > 0) {
        const message = arrived.shift()
        if (message === undefined) {
          await new Promise<void>((resolve) => {
            wake = resolve
            if (arrived.length > 0 || ended !== null) resolve()
          })
          continue
        }
        next = message.offset + 1
        yield message
        message.done()
      }
    } finally {
      consumption?.stop()
    }
    const reason: unknown = ended
    if (reason instanceof SluiceError) throw asCorrupt(reason)
    await delay(100)
  }
}

function asCorrupt(reason: SluiceError): SluiceError {
  if (reason.code !== 'ENGINE_CHANGED') return reason
  return new SluiceError('CORRUPT', `A part of the journal is missing. ${reason.message}`, reason.details, reason)
}
