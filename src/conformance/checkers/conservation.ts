import type { BeginEvent, EndEvent, MarkEvent, SeenTopic } from '../history.ts'
import type { Check, Checker, Court } from './checker.ts'
import { forEachSent, getOrMake } from './tracking.ts'

/** How many messages a topic can have got, from what its publishers know. */
interface Count {
  /** Receipts of an offset, the first time or again. */
  readonly stored: Set<number>
  /** Accepted for later; each takes a place of its own, or is cancelled. */
  readonly scheduled: Set<string>
  /** Nobody knows. */
  unknown: number
  /** New jobs made of dead letters; Infinity where nobody knows how many. */
  redriven: number
}

/**
 * Everything accepted is accounted for: in any answer of the engine, what is waiting, leased, retried and blocked adds up
 * to no more than what lies between floor and head; and once all is quiet, head is at least the receipts and at most all
 * that was accepted or may have been, and nothing is left open.
 */
export const conservation: Checker = {
  name: 'conservation',
  promises: ['P2', 'P7'],
  holds: 'What was accepted is settled, waiting, leased, parked, scheduled or dead: nothing vanishes or appears.',
  create: (court) => new Conservation(court),
}

class Conservation implements Check {
  readonly #court: Court
  readonly #counts = new Map<string, Count>()
  #isQuiet = false

  constructor(court: Court) {
    this.#court = court
  }

  onMark({ mark }: MarkEvent): void {
    if (mark === 'quiet') this.#isQuiet = true
  }

  onEnd({ call }: BeginEvent, end: EndEvent): void {
    const { answer } = end
    forEachSent(call, answer, (topic, _message, outcome) => {
      const count = this.#count(topic)
      if (outcome === undefined) count.unknown++
      else if (outcome.status === 'stored') count.stored.add(outcome.offset)
      else if (outcome.status === 'scheduled') count.scheduled.add(outcome.job)
      else if (outcome.status === 'duplicate' && outcome.offset !== undefined) count.stored.add(outcome.offset)
      else if (outcome.status === 'duplicate' && outcome.job !== undefined) count.scheduled.add(outcome.job)
    })
    if (call.kind === 'redrive' && answer.status === 'done') this.#count(call.topic).redriven += answer.count ?? 0
    if (call.kind === 'redrive' && answer.status === 'unknown')
      this.#count(call.topic).redriven = Number.POSITIVE_INFINITY
    if (answer.status !== 'stats') return
    for (const topic of answer.topics) {
      this.#court.exercised()
      this.#checkGroups(topic, end)
      if (this.#isQuiet) this.#checkQuiet(topic, end)
    }
  }

  #checkGroups({ name, head, earliest, groups }: SeenTopic, end: EndEvent): void {
    for (const group of groups) {
      const { floor, depth, leased, retrying, blocked } = group
      const isWhole = floor <= head && earliest <= head && depth <= head - floor && leased + retrying + blocked <= depth
      if (isWhole) continue
      const figures = `floor ${floor}, head ${head}, depth ${depth}, leased ${leased}, retrying ${retrying}, blocked ${blocked}`
      this.#court.violated(`the figures of ${name}/${group.name} do not add up: ${figures}`, [end])
    }
  }

  #checkQuiet({ name, head, groups, scheduled }: SeenTopic, end: EndEvent): void {
    const count = this.#count(name)
    const most = count.stored.size + count.scheduled.size + count.unknown + count.redriven
    if (head < count.stored.size || head > most)
      this.#court.violated(
        `${name} has ${head} messages; publishers have ${count.stored.size} receipts and may have sent ${most}`,
        [end],
      )
    for (const { name: group, floor, depth } of groups)
      if (depth > 0 || floor < head || scheduled > 0)
        this.#court.violated(
          `${name}/${group} still has ${depth} open and ${scheduled} scheduled (floor ${floor}, head ${head})`,
          [end],
        )
  }

  #count(topic: string): Count {
    return getOrMake(this.#counts, topic, () => ({ stored: new Set(), scheduled: new Set(), unknown: 0, redriven: 0 }))
  }
}
