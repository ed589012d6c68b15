/** What several checkers keep. */
import type { Answer, BeginEvent, Call, EndEvent, Sent, SentMessage, SentOutcome } from '../history.ts'

/** The value of `key`, made where there is none. */
export function getOrMake<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key)
  if (value === undefined) {
    value = make()
    map.set(key, value)
  }
  return value
}

export function groupOf({ topic, group }: { readonly topic: string; readonly group: string }): string {
  return `${topic}/${group}`
}

/** A number that only rises, and what it was when a call began. */
export class Rising {
  readonly #at: number[] = []
  readonly #values: number[] = []

  raise(now: number, value: number): void {
    const last = this.#values.at(-1)
    if (last !== undefined && value <= last) return
    this.#at.push(now)
    this.#values.push(value)
  }

  /** The value that was known before event `at`, or undefined. */
  before(at: number): number | undefined {
    for (let i = this.#at.length - 1; i >= 0; i--) if ((this.#at[i] as number) < at) return this.#values[i]
    return undefined
  }
}

/**
 * When a group began anew: a seek, or that it was forgotten. While such a call is under way, or where nobody knows what
 * became of it, nothing can be said of the group.
 */
export class Resets {
  readonly #groups = new Map<string, { open: number; at: number }>()
  readonly #onReset: (group: string) => void

  constructor(onReset: (group: string) => void = () => {}) {
    this.#onReset = onReset
  }

  onBegin({ call }: BeginEvent): void {
    if (!isReset(call)) return
    getOrMake(this.#groups, groupOf(call), () => ({ open: 0, at: 0 })).open++
  }

  onEnd({ call }: BeginEvent, { answer }: EndEvent, now: number): void {
    if (!isReset(call) || answer.status === 'unknown') return
    const group = this.#groups.get(groupOf(call))
    if (group === undefined) return
    group.open--
    if (answer.status !== 'done') return
    group.at = now
    this.#onReset(groupOf(call))
  }

  /** Whether a call that began at `beganAt` saw the group as it is since its last new start. */
  isClear(group: string, beganAt: number): boolean {
    const reset = this.#groups.get(group)
    return reset === undefined || (reset.open === 0 && reset.at < beganAt)
  }

  /** Whether it never began anew. */
  isUntouched(group: string): boolean {
    return !this.#groups.has(group)
  }
}

function isReset(call: Call): call is Extract<Call, { kind: 'seek' | 'forget' }> {
  return call.kind === 'seek' || call.kind === 'forget'
}

/** Each message that a call sends, with what was answered to it; `undefined`: nobody knows. */
export function forEachSent(
  call: Call,
  answer: Answer,
  visit: (topic: string, message: SentMessage, outcome: SentOutcome | undefined) => void,
): void {
  if (call.kind === 'append') {
    visitSent(
      call,
      answer.status === 'sent' ? answer.outcomes : answer.status === 'unknown' ? undefined : NOTHING,
      visit,
    )
  } else if (call.kind === 'settle') {
    for (const [i, sent] of call.outputs.entries()) {
      if (answer.status === 'settled' && answer.lost.length === 0) visitSent(sent, answer.outputs[i] ?? NOTHING, visit)
      else visitSent(sent, answer.status === 'unknown' ? undefined : NOTHING, visit)
    }
  }
}

const NOTHING: readonly SentOutcome[] = []
const NOT_SENT: SentOutcome = { status: 'not-found' }

function visitSent(
  { topic, messages }: Sent,
  outcomes: readonly SentOutcome[] | undefined,
  visit: (topic: string, message: SentMessage, outcome: SentOutcome | undefined) => void,
): void {
  for (const [i, message] of messages.entries())
    visit(topic, message, outcomes === undefined ? undefined : (outcomes[i] ?? NOT_SENT))
}

/** Every message that a call sends. */
export function sentBy(call: Call): readonly Sent[] {
  if (call.kind === 'append') return [call]
  return call.kind === 'settle' ? call.outputs : []
}
