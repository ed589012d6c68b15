import type { BeginEvent, EndEvent, HistoryEvent } from '../history.ts'
import type { Check, Checker, Court } from './checker.ts'
import { getOrMake, groupOf, Resets } from './tracking.ts'

/** A settle whose answer nobody saw, and what it was to publish. */
interface Doubt {
  readonly group: string
  readonly fence: number
  readonly offset: number
  readonly begin: BeginEvent
  /** Where one of its outputs was seen. */
  seen: HistoryEvent | null
}

/**
 * What a handler publishes and its settle take effect together. Where the answer was seen, `no-phantom` and
 * `no-acknowledged-loss` look after the outputs. Here are those whose answer was not seen: if an output of a settle as
 * done appears, the settle took effect, and its message is not handed out under a higher fence, before or after.
 */
export const atomicOutputs: Checker = {
  name: 'atomic-outputs',
  promises: ['P9'],
  holds: 'Outputs appear if and only if the settle that they belong to took effect.',
  create: (court) => new AtomicOutputs(court),
}

class AtomicOutputs implements Check {
  readonly #court: Court
  readonly #doubts = new Map<string, Doubt>()
  readonly #byMessage = new Map<string, Doubt[]>()
  readonly #highest = new Map<string, { readonly fence: number; readonly end: EndEvent }>()
  readonly #resets = new Resets()

  constructor(court: Court) {
    this.#court = court
  }

  onBegin(begin: BeginEvent): void {
    this.#resets.onBegin(begin)
  }

  onEnd(begin: BeginEvent, end: EndEvent): void {
    this.#resets.onEnd(begin, end, this.#court.now)
    const { call } = begin
    const { answer } = end
    if (call.kind === 'settle') {
      if (call.outputs.length === 0 || call.outcome !== 'done' || call.offsets.length !== 1) return
      if (answer.status === 'settled') this.#court.exercised()
      if (answer.status !== 'unknown') return
      const offset = call.offsets[0] as number
      const doubt: Doubt = { group: groupOf(call), fence: call.fence, offset, begin, seen: null }
      for (const { topic, messages } of call.outputs)
        for (const { id } of messages) {
          const name = `${topic}/${id}`
          // Tried again after an unknown answer: either may be the one that took effect, and the fence is the same.
          if (!this.#doubts.has(name)) this.#doubts.set(name, doubt)
        }
      getOrMake(this.#byMessage, `${doubt.group}/${offset}`, () => []).push(doubt)
      return
    }
    if (answer.status !== 'leased' && answer.status !== 'read') return
    if (call.kind !== 'lease' && call.kind !== 'read') return
    for (const { id, offset } of answer.messages) {
      const doubt = this.#doubts.get(`${call.topic}/${id}`)
      if (doubt !== undefined && doubt.seen === null) this.#show(doubt, end)
      if (call.kind !== 'lease' || answer.status !== 'leased') continue
      this.#handOut(`${groupOf(call)}/${offset}`, answer.fence, end)
    }
  }

  #show(doubt: Doubt, end: EndEvent): void {
    doubt.seen = end
    this.#court.exercised()
    const later = this.#highest.get(`${doubt.group}/${doubt.offset}`)
    if (later !== undefined && later.fence > doubt.fence) this.#report(doubt, later.end)
  }

  #handOut(message: string, fence: number, end: EndEvent): void {
    const known = this.#highest.get(message)
    if (known === undefined || known.fence < fence) this.#highest.set(message, { fence, end })
    for (const doubt of this.#byMessage.get(message) ?? [])
      if (doubt.seen !== null && fence > doubt.fence) this.#report(doubt, end)
  }

  #report(doubt: Doubt, handedOut: EndEvent): void {
    if (!this.#resets.isUntouched(doubt.group)) return
    this.#court.violated(
      `outputs of the settle of ${doubt.offset} of ${doubt.group} (fence ${doubt.fence}) appeared, and the message was handed out again`,
      [doubt.begin, doubt.seen as HistoryEvent, handedOut],
    )
  }
}
