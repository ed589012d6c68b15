import type { BeginEvent, EndEvent } from '../history.ts'
import type { Check, Checker, Court } from './checker.ts'
import { forEachSent, getOrMake, Rising } from './tracking.ts'

interface Seen {
  /** Offsets with a receipt, and it. */
  readonly stored: Map<number, EndEvent>
  readonly head: Rising
}

/**
 * A read gives ascending offsets from where it was asked to, and steps over no message that has a receipt. The head of a
 * topic never falls. Sound: a message with a receipt is durable at its offset, and what a read goes past it has looked at,
 * be the receipt known before or after. Blind to messages without a receipt.
 */
export const risingReads: Checker = {
  name: 'rising-reads',
  promises: ['P6', 'P2'],
  holds: 'Reads ascend, miss no stored message, and the head never falls.',
  create: (court) => new RisingReads(court),
}

class RisingReads implements Check {
  readonly #court: Court
  readonly #topics = new Map<string, Seen>()

  constructor(court: Court) {
    this.#court = court
  }

  onEnd(begin: BeginEvent, end: EndEvent, beganAt: number): void {
    const { call } = begin
    const { answer } = end
    const { now } = this.#court
    forEachSent(call, answer, (topic, _message, outcome) => {
      if (outcome?.status !== 'stored') return
      const seen = this.#seen(topic)
      seen.stored.set(outcome.offset, end)
      seen.head.raise(now, outcome.offset + 1)
    })
    if (call.kind === 'read' && answer.status === 'read') {
      this.#checkRead(call.topic, call.from, answer, begin, end)
      this.#checkHead(call.topic, answer.head, begin, end, beganAt)
    } else if (answer.status === 'stats') {
      for (const { name, head } of answer.topics) this.#checkHead(name, head, begin, end, beganAt)
    }
  }

  #checkRead(
    topic: string,
    from: number,
    { messages, next }: Extract<EndEvent['answer'], { status: 'read' }>,
    begin: BeginEvent,
    end: EndEvent,
  ): void {
    const { stored } = this.#seen(topic)
    let at = from
    this.#court.exercised()
    for (const { offset } of messages) {
      if (offset < at)
        return this.#court.violated(`a read of ${topic} from ${from} goes back to ${offset}`, [begin, end])
      if (!this.#checkGap(topic, stored, at, offset, begin, end)) return
      at = offset + 1
    }
    if (next < at) return this.#court.violated(`a read of ${topic} up to ${at} goes on at ${next}`, [begin, end])
    this.#checkGap(topic, stored, at, next, begin, end)
  }

  #checkGap(
    topic: string,
    stored: ReadonlyMap<number, EndEvent>,
    from: number,
    to: number,
    begin: BeginEvent,
    end: EndEvent,
  ): boolean {
    for (let offset = from; offset < to; offset++) {
      const receipt = stored.get(offset)
      if (receipt === undefined) continue
      this.#court.violated(`a read of ${topic} steps over ${offset}, which is stored`, [receipt, begin, end])
      return false
    }
    return true
  }

  #checkHead(topic: string, head: number, begin: BeginEvent, end: EndEvent, beganAt: number): void {
    const seen = this.#seen(topic)
    const before = seen.head.before(beganAt)
    if (before !== undefined && head < before)
      this.#court.violated(`the head of ${topic} was ${before} and is ${head}`, [begin, end])
    seen.head.raise(this.#court.now, head)
  }

  #seen(topic: string): Seen {
    return getOrMake(this.#topics, topic, () => ({ stored: new Map(), head: new Rising() }))
  }
}
