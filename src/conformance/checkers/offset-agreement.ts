import type { BeginEvent, EndEvent } from '../history.ts'
import type { Check, Checker, Court } from './checker.ts'
import { forEachSent, getOrMake } from './tracking.ts'

/**
 * An offset stands for one message: receipts, readers and all groups agree, for as long as the run lasts. Sound without
 * any order of events, since an offset is never given twice.
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

  constructor(court: Court) {
    this.#court = court
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
      return
    }
    this.#court.exercised()
    if (first.id !== id)
      this.#court.violated(`${topic} at ${offset} is '${first.id}' to one and '${id}' to another`, [first.end, end])
  }
}
