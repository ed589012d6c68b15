import { parseJobId } from '../../job-id.ts'
import type { BeginEvent, EndEvent } from '../history.ts'
import type { Check, Checker, Court } from './checker.ts'
import { getOrMake, groupOf, Resets } from './tracking.ts'

/** A hand-out of one message, by rising fence. */
interface HandOut {
  readonly fence: number
  readonly offset: number
  readonly attempt: number
  readonly end: EndEvent
}

/** Two of a key, of which the first seems not to have ended. */
interface Suspected {
  readonly group: string
  readonly key: string | undefined
  readonly first: HandOut
  readonly second: HandOut
}

/** What is known of a group that may end a message. */
interface Group {
  readonly lanes: Map<string, HandOut[]>
  /** Messages that somebody settled as done or dead, or cancelled, whatever the answer. */
  readonly ended: Set<number>
}

/**
 * Within a group the messages of a key are handed out in the order of their offsets, however the answers travelled: fences
 * of a group rise, so they are the order in which it handed out. A later message of a key never goes before an earlier
 * one that is handed out again afterwards, no lease holds two of a key, and the earlier one may have ended: somebody sent a
 * settle or a cancel for it, or it may have been out of attempts. Sound but for a seek or a forgotten group,
 * which begin anew. On a strict queue all messages are one lane.
 */
export const keyOrder: Checker = {
  name: 'key-order',
  promises: ['P4', 'P11'],
  holds: 'Messages of a key are handed out one at a time, in the order of their offsets.',
  create: (court) => new KeyOrder(court),
}

const THE_ONE_LANE = ''

class KeyOrder implements Check {
  readonly #court: Court
  readonly #strict = new Set<string>()
  readonly #groups = new Map<string, Group>()
  readonly #resets = new Resets((group) => this.#groups.delete(group))
  /** The most attempts, by group. */
  readonly #attempts = new Map<string, number>()
  /** Groups with hand-outs that nobody saw, or that may have been detached: of these it is not known what ended. */
  readonly #blind = new Set<string>()
  readonly #detaching = new Set<string>()
  readonly #suspected: Suspected[] = []

  constructor(court: Court) {
    this.#court = court
  }

  onBegin(begin: BeginEvent): void {
    this.#resets.onBegin(begin)
    const { call } = begin
    if (call.kind === 'declare') {
      if (call.strict === true) this.#strict.add(groupOf(call))
      if (call.onSlowGroup === 'detach') this.#detaching.add(call.topic)
      if (call.attempts !== undefined) this.#attempts.set(groupOf(call), call.attempts)
    }
    if (call.kind === 'settle' && (call.outcome === 'done' || call.outcome === 'dead'))
      for (const offset of call.offsets) this.#group(groupOf(call)).ended.add(offset)
    if (call.kind === 'cancel') {
      const job = parseJobId(call.job)
      if (job === null) return
      const group = groupOf({ topic: job.queue, group: '' })
      if (job.place.kind === 'offset') this.#group(group).ended.add(job.place.offset)
      else this.#blind.add(group)
    }
  }

  #group(name: string): Group {
    return getOrMake(this.#groups, name, () => ({ lanes: new Map(), ended: new Set() }))
  }

  onEnd(begin: BeginEvent, end: EndEvent, beganAt: number): void {
    this.#resets.onEnd(begin, end, this.#court.now)
    const { call } = begin
    const { answer } = end
    if (call.kind !== 'lease') return
    const group = groupOf(call)
    if (answer.status === 'unknown' || this.#detaching.has(call.topic)) this.#blind.add(group)
    if (answer.status !== 'leased') return
    if (!this.#resets.isClear(group, beganAt)) return
    const { lanes } = this.#group(group)
    const isStrict = this.#strict.has(group)
    for (const { offset, key, attempt } of answer.messages) {
      if (key === undefined && !isStrict) continue
      const lane = getOrMake(lanes, isStrict ? THE_ONE_LANE : `k${key}`, () => [])
      this.#insert(group, key, lane, { fence: answer.fence, offset, attempt, end })
    }
  }

  #insert(group: string, key: string | undefined, lane: HandOut[], handOut: HandOut): void {
    let at = lane.length
    while (at > 0 && (lane[at - 1] as HandOut).fence > handOut.fence) at--
    const before = lane[at - 1]
    const after = lane[at]
    if (before !== undefined || after !== undefined) this.#court.exercised()
    if (before !== undefined && !isInOrder(before, handOut)) return this.#report(group, key, before, handOut)
    if (after !== undefined && !isInOrder(handOut, after)) return this.#report(group, key, handOut, after)
    // A lease whose answer is still on its way may have had it: whether there was one is known at the end.
    if (before !== undefined && after === undefined && !this.#mayHaveEnded(group, before, handOut))
      this.#suspected.push({ group, key, first: before, second: handOut })
    lane.splice(at, 0, handOut)
  }

  /** Whether the first of two can have ended before the second was handed out. */
  #mayHaveEnded(name: string, first: HandOut, second: HandOut): boolean {
    if (first.offset === second.offset || this.#blind.has(name)) return true
    if (this.#groups.get(name)?.ended.has(first.offset) === true) return true
    return first.attempt >= (this.#attempts.get(name) ?? 1)
  }

  onFinish(): void {
    for (const { group, key, first, second } of this.#suspected)
      if (!this.#blind.has(group)) this.#report(group, key, first, second, ', which had not ended,')
  }

  #report(group: string, key: string | undefined, first: HandOut, second: HandOut, what = ''): void {
    const lane = key === undefined ? 'its one lane' : `the key '${key}'`
    const message = `${group} handed out ${first.offset} of ${lane} (fence ${first.fence})${what} before ${second.offset} (fence ${second.fence})`
    this.#court.violated(message, first.end === second.end ? [first.end] : [first.end, second.end])
  }
}

function isInOrder(first: HandOut, second: HandOut): boolean {
  return first.fence < second.fence && first.offset <= second.offset
}
