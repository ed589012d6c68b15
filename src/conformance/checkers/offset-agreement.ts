import type { BeginEvent, EndEvent } from '../history.ts'
import type { Check, Checker, Court } from './checker.ts'
import { forEachSent, getOrMake, sentBy } from './tracking.ts'

/**
 * An offset stands for one message: receipts, readers and all groups agree, for as long as the run lasts; and a message
 * stands at no more offsets than it was sent. Sound without any order of events, since an offset is never given twice.
 * A redrive stores the payload of a dead letter again, so after one the second half is not looked at.
 */
export const offsetAgreement: Checker = {
  name: 'offset-agreement',
  promises: ['P6'],
  holds: 'An offset shows the same message to every reader and group, and is the one that its receipt named.',
  create: (court) => new OffsetAgreement(court),
}

class OffsetAgreement implements Check {
  readonly #court: Court
  readonly #topics = new Map<string, Map<number, { readonly id: string; readonly end: EndEvent }>>()

  /** How often each message was sent, and where it was seen. */
  readonly #copies = new Map<string, { sent: number; readonly offsets: number[] }>()
  readonly #redriven = new Set<string>()

  constructor(court: Court) {
    this.#court = court
  }

  onBegin({ call }: BeginEvent): void {
    if (call.kind === 'redrive') this.#redriven.add(call.topic)
    for (const { topic, messages } of sentBy(call)) for (const { id } of messages) this.#copy(topic, id).sent++
  }

  #copy(topic: string, id: string) {
    return getOrMake(this.#copies, `${topic}/${id}`, () => ({ sent: 0, offsets: [] }))
  }

  onEnd({ call }: BeginEvent, end: EndEvent): void {
    const { answer } = end
    forEachSent(call, answer, (topic, { id }, outcome) => {
      if (outcome?.status === 'stored') this.#see(topic, outcome.offset, id, end)
    })
    if (call.kind !== 'lease' && call.kind !== 'read') return
    if (answer.status === 'leased' || answer.status === 'read')
      for (const { offset, id } of answer.messages) this.#see(call.topic, offset, id, end)
  }

  #see(topic: string, offset: number, id: string, end: EndEvent): void {
    const offsets = getOrMake(this.#topics, topic, () => new Map())
    const first = offsets.get(offset)
    if (first === undefined) {
      offsets.set(offset, { id, end })
      const copy = this.#copy(topic, id)
      copy.offsets.push(offset)
      if (copy.sent === 0 || copy.offsets.length <= copy.sent || this.#redriven.has(topic)) return
      const others = copy.offsets.slice(0, -1).map((other) => offsets.get(other)?.end as EndEvent)
      this.#court.violated(`'${id}' was sent to ${topic} ${copy.sent} times and stands at ${copy.offsets}`, [
        ...others.slice(0, 2),
        end,
      ])
      return
    }
    this.#court.exercised()
    if (first.id !== id)
      this.#court.violated(`${topic} at ${offset} is '${first.id}' to one and '${id}' to another`, [first.end, end])
  }
}
