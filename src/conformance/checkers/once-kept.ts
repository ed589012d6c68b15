import type { BeginEvent, EndEvent } from '../history.ts'
import type { Check, Checker, Court } from './checker.ts'
import { getOrMake, groupOf, Resets } from './tracking.ts'

interface Kept {
  readonly values: Set<string>
  /** The first record that was acknowledged, and its event number. */
  acknowledged: { readonly at: number; readonly end: EndEvent } | null
}

/**
 * What `once` recorded is there for the next attempt: a recall by a holder gives a value that was recorded for this very
 * message under this name, and never nothing after a record was acknowledged. Sound but for a seek.
 */
export const onceKept: Checker = {
  name: 'once-kept',
  promises: ['P9'],
  holds: 'What `once` keeps is given back to every later attempt of the same message, and to no other.',
  create: (court) => new OnceKept(court),
}

class OnceKept implements Check {
  readonly #court: Court
  readonly #kept = new Map<string, Kept>()
  readonly #resets = new Resets()

  constructor(court: Court) {
    this.#court = court
  }

  onBegin(begin: BeginEvent): void {
    this.#resets.onBegin(begin)
    const { call } = begin
    if (call.kind === 'remember') this.#of(call).values.add(call.value)
  }

  onEnd(begin: BeginEvent, end: EndEvent, beganAt: number): void {
    this.#resets.onEnd(begin, end, this.#court.now)
    const { call } = begin
    const { answer } = end
    if ((call.kind !== 'remember' && call.kind !== 'recall') || answer.status !== 'done') return
    const kept = this.#of(call)
    if (call.kind === 'remember') {
      kept.acknowledged ??= { at: this.#court.now, end }
      return
    }
    this.#court.exercised()
    const what = `${call.offsets[0]} of ${groupOf(call)}`
    if (answer.value !== undefined && !kept.values.has(answer.value))
      return this.#court.violated(`'${call.name}' of ${what} is ${answer.value}, which nobody recorded`, [begin, end])
    const { acknowledged } = kept
    if (answer.value !== undefined || acknowledged === null || acknowledged.at >= beganAt) return
    if (this.#resets.isUntouched(groupOf(call)))
      this.#court.violated(`'${call.name}' of ${what} was recorded and is gone`, [acknowledged.end, begin, end])
  }

  #of(call: { topic: string; group: string; offsets: readonly number[]; name: string }): Kept {
    const name = `${groupOf(call)}/${call.offsets[0]}/${call.name}`
    return getOrMake(this.#kept, name, () => ({ values: new Set(), acknowledged: null }))
  }
}
