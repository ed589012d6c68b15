import type { BeginEvent, EndEvent } from '../history.ts'
import type { Check, Checker, Court } from './checker.ts'
import { getOrMake, groupOf, Resets } from './tracking.ts'

/** A hand-out of one message, by rising fence. */
interface HandOut {
  readonly fence: number
  readonly offset: number
  readonly end: EndEvent
}

/**
 * Within a group the messages of a key are handed out in the order of their offsets, however the answers travelled: fences
 * of a group rise, so they are the order in which it handed out. A later message of a key never goes before an earlier
 * one that is handed out again afterwards, and no lease holds two of a key. Sound but for a seek or a forgotten group,
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
  readonly #lanes = new Map<string, Map<string, HandOut[]>>()
  readonly #resets = new Resets((group) => this.#lanes.delete(group))

  constructor(court: Court) {
    this.#court = court
  }

  onBegin(begin: BeginEvent): void {
    this.#resets.onBegin(begin)
    const { call } = begin
    if (call.kind === 'declare' && call.strict === true) this.#strict.add(groupOf(call))
  }

  onEnd(begin: BeginEvent, end: EndEvent, beganAt: number): void {
    this.#resets.onEnd(begin, end, this.#court.now)
    const { call } = begin
    const { answer } = end
    if (call.kind !== 'lease' || answer.status !== 'leased') return
    const group = groupOf(call)
    if (!this.#resets.isClear(group, beganAt)) return
    const lanes = getOrMake(this.#lanes, group, () => new Map<string, HandOut[]>())
    const isStrict = this.#strict.has(group)
    for (const { offset, key } of answer.messages) {
      if (key === undefined && !isStrict) continue
      const lane = getOrMake(lanes, isStrict ? THE_ONE_LANE : `k${key}`, () => [])
      this.#insert(group, key, lane, { fence: answer.fence, offset, end })
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
    lane.splice(at, 0, handOut)
  }

  #report(group: string, key: string | undefined, first: HandOut, second: HandOut): void {
    const lane = key === undefined ? 'its one lane' : `the key '${key}'`
    const message = `${group} handed out ${first.offset} of ${lane} (fence ${first.fence}) before ${second.offset} (fence ${second.fence})`
    this.#court.violated(message, first.end === second.end ? [first.end] : [first.end, second.end])
  }
}

function isInOrder(first: HandOut, second: HandOut): boolean {
  return first.fence < second.fence && first.offset <= second.offset
}
