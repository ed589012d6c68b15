import type { BeginEvent, EndEvent } from '../history.ts'
import type { Check, Checker, Court } from './checker.ts'
import { getOrMake, sentBy } from './tracking.ts'

/**
 * What comes out is what went in: a payload that was sent to that topic, under the key that it was sent with. Sound: no
 * two messages of a run have the same payload, so its key is known. A changed payload is also a phantom.
 */
export const integrity: Checker = {
  name: 'integrity',
  promises: ['P13'],
  holds: 'The same payload and key come out that went in.',
  create: (court) => new Integrity(court),
}

class Integrity implements Check {
  readonly #court: Court
  readonly #keys = new Map<string, Map<string, { readonly key: string | undefined; readonly begin: BeginEvent }>>()

  constructor(court: Court) {
    this.#court = court
  }

  onBegin(begin: BeginEvent): void {
    for (const { topic, messages } of sentBy(begin.call)) {
      const keys = getOrMake(this.#keys, topic, () => new Map())
      for (const { id, key } of messages) if (!keys.has(id)) keys.set(id, { key, begin })
    }
  }

  onEnd(begin: BeginEvent, end: EndEvent): void {
    const { call } = begin
    const { answer } = end
    if (call.kind !== 'lease' && call.kind !== 'read') return
    if (answer.status !== 'leased' && answer.status !== 'read') return
    const keys = this.#keys.get(call.topic)
    for (const { offset, id, key } of answer.messages) {
      const sent = keys?.get(id)
      this.#court.exercised()
      if (sent === undefined)
        return this.#court.violated(`what ${call.topic} shows at ${offset}, '${id}', is not what anybody sent`, [
          begin,
          end,
        ])
      if (sent.key !== key)
        return this.#court.violated(
          `'${id}' was sent to ${call.topic} under the key ${sent.key} and came out at ${offset} under ${key}`,
          [sent.begin, end],
        )
    }
  }
}
