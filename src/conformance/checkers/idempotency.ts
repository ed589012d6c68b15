import type { BeginEvent, EndEvent, SentOutcome } from '../history.ts'
import type { Check, Checker, Court } from './checker.ts'
import { forEachSent } from './tracking.ts'

/** The first time that a key was acknowledged. */
interface First {
  readonly id: string
  readonly outcome: SentOutcome
  readonly begin: BeginEvent
  readonly end: EndEvent
}

/**
 * Under one idempotency key a message is stored once within the window; who sends it again is told the place of the
 * first time. Sound: two receipts can only be a window apart if the first call began that long before the second ended;
 * where a clock was set back, nothing is said of short windows.
 */
export const idempotency: Checker = {
  name: 'idempotency',
  promises: ['P8'],
  holds: 'One key stores one message within its window, and a repetition gets the receipt of the first.',
  create: (court) => new Idempotency(court),
}

/** A clock that is set back by hours does not matter to a window of a day. */
const LONG_WINDOW_MS = 43_200_000

class Idempotency implements Check {
  readonly #court: Court
  readonly #windows = new Map<string, number>()
  readonly #firsts = new Map<string, First>()

  constructor(court: Court) {
    this.#court = court
  }

  onBegin({ call }: BeginEvent): void {
    if (call.kind === 'declare' && call.idempotencyMs !== undefined) this.#windows.set(call.topic, call.idempotencyMs)
  }

  onEnd(begin: BeginEvent, end: EndEvent): void {
    forEachSent(begin.call, end.answer, (topic, { id, idempotencyKey }, outcome) => {
      if (idempotencyKey === undefined || outcome === undefined) return
      const { status } = outcome
      if (status !== 'stored' && status !== 'scheduled' && status !== 'duplicate') return
      const name = `${topic}/${idempotencyKey}`
      const first = this.#firsts.get(name)
      if (first === undefined || !this.#isWithin(topic, first, begin, end)) {
        // When the first of a duplicate was stored is not known, which matters where the window is short.
        if (status === 'duplicate' && this.#windowMs(topic) < LONG_WINDOW_MS) this.#firsts.delete(name)
        else this.#firsts.set(name, { id, outcome, begin, end })
        return
      }
      this.#court.exercised()
      this.#compare(name, first, { id, outcome, begin, end })
    })
  }

  #isWithin(topic: string, first: First, begin: BeginEvent, end: EndEvent): boolean {
    const windowMs = this.#windowMs(topic)
    if (this.#court.clockFell && windowMs < LONG_WINDOW_MS) return false
    const apartMs = Math.max(end.atMs - first.begin.atMs, first.end.atMs - begin.atMs)
    return apartMs + this.#court.skewMs < windowMs
  }

  #windowMs(topic: string): number {
    return this.#windows.get(topic) ?? 0
  }

  #compare(name: string, first: First, second: First): void {
    const witness = [first.begin, first.end, second.begin, second.end]
    if (first.id !== second.id)
      return this.#court.violated(`${name} stands for '${first.id}' and for '${second.id}'`, witness)
    const isNew = ({ outcome }: First) => outcome.status === 'stored' || outcome.status === 'scheduled'
    if (isNew(first) && isNew(second)) return this.#court.violated(`${name} was stored twice`, witness)
    const places = [placeOf(first.outcome), placeOf(second.outcome)]
    // A delayed job is known by its id, and later also by its offset.
    if (places[0]?.[0] === places[1]?.[0] && places[0] !== places[1])
      this.#court.violated(`${name} was told to be at ${places[0]} and at ${places[1]}`, witness)
  }
}

function placeOf(outcome: SentOutcome): string {
  if (outcome.status === 'stored') return `offset ${outcome.offset}`
  if (outcome.status === 'scheduled') return `job ${outcome.job}`
  if (outcome.status !== 'duplicate') return ''
  return outcome.offset === undefined ? `job ${outcome.job}` : `offset ${outcome.offset}`
}
