import type { BeginEvent, EndEvent, HistoryEvent } from '../history.ts'
import type { Check, Checker, Court } from './checker.ts'
import { forEachSent, getOrMake, sentBy } from './tracking.ts'

/** What is known of a message that was sent. */
interface Known {
  /** Calls that send it and are under way. */
  open: number
  /** It was stored, or may have been. */
  isPossible: boolean
  /** The last refusal. */
  refusal: HistoryEvent | null
}

/**
 * A message that is seen was sent before, by a call that was not refused. Sound: a refusal is an answer ("not stored"), so
 * the one thing that could still show it is another call, which would be open or possible. Blind to: a refused message
 * that was stored and is never looked at.
 */
export const noPhantom: Checker = {
  name: 'no-phantom',
  promises: ['P2', 'P9'],
  holds: 'Nothing is handed out or read that was never sent, or that was only ever refused.',
  create: (court) => new NoPhantom(court),
}

class NoPhantom implements Check {
  readonly #court: Court
  readonly #topics = new Map<string, Map<string, Known>>()

  constructor(court: Court) {
    this.#court = court
  }

  onBegin({ call }: BeginEvent): void {
    for (const { topic, messages } of sentBy(call)) for (const { id } of messages) this.#known(topic, id).open++
  }

  onEnd(begin: BeginEvent, end: EndEvent): void {
    const { call } = begin
    const { answer } = end
    forEachSent(call, answer, (topic, { id }, outcome) => {
      const known = this.#known(topic, id)
      known.open--
      const status = outcome?.status
      if (status === undefined || status === 'stored' || status === 'scheduled' || status === 'duplicate')
        known.isPossible = true
      else known.refusal = end
    })
    if (call.kind !== 'lease' && call.kind !== 'read') return
    if (answer.status !== 'leased' && answer.status !== 'read') return
    const sent = this.#topics.get(call.topic)
    for (const { offset, id } of answer.messages) {
      this.#court.exercised()
      const known = sent?.get(id)
      if (known === undefined)
        return this.#court.violated(`${call.topic} shows '${id}' at ${offset}, which nobody sent`, [begin, end])
      if (known.open === 0 && !known.isPossible) {
        const witness = known.refusal === null ? [begin, end] : [known.refusal, begin, end]
        return this.#court.violated(`${call.topic} shows '${id}' at ${offset}, which was refused`, witness)
      }
    }
  }

  #known(topic: string, id: string): Known {
    const ids = getOrMake(this.#topics, topic, () => new Map<string, Known>())
    return getOrMake(ids, id, () => ({ open: 0, isPossible: false, refusal: null }))
  }
}
