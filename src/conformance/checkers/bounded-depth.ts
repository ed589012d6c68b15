import type { BeginEvent, EndEvent } from '../history.ts'
import type { Check, Checker, Court } from './checker.ts'

/** What a handler publishes may use so much more than the limit (P7). */
const RESERVE = 0.1

/**
 * The depth that is told of a queue or topic is within its limit in messages and bytes, and the reserve for what handlers
 * publish. Sound where nothing brings settled messages back: a seek, and a group that starts behind, raise the depth of
 * what was admitted long ago, so a topic is not looked at after one.
 */
export const boundedDepth: Checker = {
  name: 'bounded-depth',
  promises: ['P7'],
  holds: 'Depth never passes the limit in messages and bytes, but for the reserve of handlers.',
  create: (court) => new BoundedDepth(court),
}

interface Bound {
  readonly messages: number
  readonly bytes: number
  readonly begin: BeginEvent
}

class BoundedDepth implements Check {
  readonly #court: Court
  readonly #bounds = new Map<string, Bound>()
  readonly #isFed = new Set<string>()
  readonly #isReopened = new Set<string>()

  constructor(court: Court) {
    this.#court = court
  }

  onBegin(begin: BeginEvent): void {
    const { call } = begin
    if (call.kind === 'declare' && call.limit !== undefined) this.#bounds.set(call.topic, { ...call.limit, begin })
    if (call.kind === 'declare' && call.type === 'group' && (this.#isFed.has(call.topic) || call.group !== ''))
      if (this.#grown.has(call.topic)) this.#isReopened.add(call.topic)
    if (call.kind === 'seek') this.#isReopened.add(call.topic)
    if (call.kind === 'append') this.#grown.add(call.topic)
    if (call.kind === 'settle')
      for (const { topic } of call.outputs) {
        this.#isFed.add(topic)
        this.#grown.add(topic)
      }
  }

  readonly #grown = new Set<string>()

  onEnd(_begin: BeginEvent, end: EndEvent): void {
    const { answer } = end
    if (answer.status !== 'stats') return
    for (const { name, depth } of answer.topics) {
      const bound = this.#bounds.get(name)
      if (bound === undefined || this.#isReopened.has(name)) continue
      this.#court.exercised()
      const share = this.#isFed.has(name) ? 1 + RESERVE : 1
      if (depth.messages > Math.ceil(bound.messages * share) || depth.bytes > Math.ceil(bound.bytes * share))
        this.#court.violated(
          `${name} holds ${depth.messages} messages and ${depth.bytes} bytes, and its limit is ${bound.messages} and ${bound.bytes}`,
          [bound.begin, end],
        )
    }
  }
}
