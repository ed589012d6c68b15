import type { BeginEvent, EndEvent, HistoryEvent, MarkEvent } from '../history.ts'
import type { Check, Checker, Court } from './checker.ts'
import { getOrMake, groupOf, Resets } from './tracking.ts'

/** What ended a hold: a later hand-out (of `offset`, which may be another of its lane), a settle, or a crash. */
interface Hold {
  readonly fence: number
  readonly offset: number
  readonly end: HistoryEvent
}

interface Group {
  readonly byOffset: Map<number, Hold>
  readonly byLane: Map<string, Hold>
  /** The highest fence under which a settle of the message was acknowledged. */
  readonly ended: Map<number, Hold>
  /** Fences that the process holds which lives now. */
  readonly byProcess: Set<number>
  /** Fences that a process held which has died. */
  readonly lostFences: Map<number, MarkEvent>
  /** The lane of each message that was handed out. */
  readonly lanes: Map<number, string>
}

/**
 * Once somebody was given a message, or a later one of its key, whoever had it before can do nothing to it; nor can anybody
 * under a fence whose hold has ended: by a settle that was acknowledged, or with the process that held it. A settle, an
 * extension or a record of `once` that began after that and yet had an effect is a second holder. Sound: fences say which
 * hand-out was later, and what ended the hold was seen before the act began.
 */
export const exclusive: Checker = {
  name: 'exclusive',
  promises: ['P5'],
  holds: 'A message and its lane have one holder; what an earlier one does has no effect.',
  create: (court) => new Exclusive(court),
}

class Exclusive implements Check {
  readonly #court: Court
  readonly #strict = new Set<string>()
  readonly #groups = new Map<string, Group>()
  readonly #resets = new Resets((group) => this.#groups.delete(group))
  /** Acts under way whose hold somebody else has: by number of the call, then offset. */
  readonly #stale = new Map<number, Map<number, Hold>>()

  constructor(court: Court) {
    this.#court = court
  }

  onMark(mark: MarkEvent): void {
    if (mark.mark !== 'crash' && mark.mark !== 'stop' && mark.mark !== 'power-loss') return
    for (const group of this.#groups.values()) {
      if (group.byProcess.size === 0) continue
      for (const fence of group.byProcess) group.lostFences.set(fence, mark)
      group.byProcess.clear()
    }
  }

  onBegin(begin: BeginEvent): void {
    this.#resets.onBegin(begin)
    const { call } = begin
    if (call.kind === 'declare' && call.strict === true) this.#strict.add(groupOf(call))
    if (call.kind !== 'settle' && call.kind !== 'extend' && call.kind !== 'remember') return
    const group = this.#groups.get(groupOf(call))
    if (group === undefined) return
    for (const offset of call.offsets) {
      const lane = group.lanes.get(offset)
      const ended = group.ended.get(offset)
      const mark = group.lostFences.get(call.fence)
      const later =
        laterThan(call.fence, group.byOffset.get(offset), lane === undefined ? undefined : group.byLane.get(lane)) ??
        (ended !== undefined && ended.fence >= call.fence ? ended : undefined) ??
        (mark === undefined ? undefined : { fence: call.fence, offset, end: mark })
      if (later !== undefined) getOrMake(this.#stale, begin.op, () => new Map()).set(offset, later)
    }
  }

  onEnd(begin: BeginEvent, end: EndEvent, beganAt: number): void {
    this.#resets.onEnd(begin, end, this.#court.now)
    const { call } = begin
    const { answer } = end
    if (call.kind === 'lease' && answer.status === 'leased') {
      const name = groupOf(call)
      if (!this.#resets.isClear(name, beganAt)) return
      const group = getOrMake(this.#groups, name, createGroup)
      if (call.holder === 'process') group.byProcess.add(answer.fence)
      for (const { offset, key } of answer.messages) {
        const hold: Hold = { fence: answer.fence, offset, end }
        raise(group.byOffset, offset, hold)
        const lane = this.#strict.has(name) ? '' : key === undefined ? undefined : `k${key}`
        if (lane === undefined) continue
        group.lanes.set(offset, lane)
        raise(group.byLane, lane, hold)
      }
      return
    }
    if (call.kind !== 'settle' && call.kind !== 'extend' && call.kind !== 'remember') return
    if (answer.status === 'settled' || answer.status === 'extended' || answer.status === 'done') this.#court.exercised()
    if (call.kind === 'settle' && answer.status === 'settled' && this.#resets.isClear(groupOf(call), beganAt)) {
      const group = getOrMake(this.#groups, groupOf(call), createGroup)
      for (const offset of call.offsets)
        if (!answer.lost.includes(offset)) raise(group.ended, offset, { fence: call.fence, offset, end })
    }
    const stale = this.#stale.get(begin.op)
    if (stale === undefined) return
    this.#stale.delete(begin.op)
    if (!this.#resets.isClear(groupOf(call), beganAt)) return
    for (const [offset, later] of stale) {
      const hadEffect =
        answer.status === 'settled' || answer.status === 'extended'
          ? !answer.lost.includes(offset)
          : call.kind === 'remember' && answer.status === 'done'
      if (!hadEffect) continue
      this.#court.violated(
        `a ${call.kind} of ${offset} of ${groupOf(call)} under fence ${call.fence} had effect, after ${later.end.kind === 'mark' ? 'its process died' : `${later.offset} was handed out or settled under ${later.fence}`}`,
        [later.end, begin, end],
      )
    }
  }
}

function createGroup(): Group {
  return {
    byOffset: new Map(),
    byLane: new Map(),
    ended: new Map(),
    byProcess: new Set(),
    lostFences: new Map(),
    lanes: new Map(),
  }
}

function laterThan(fence: number, ...holds: readonly (Hold | undefined)[]): Hold | undefined {
  return holds.find((hold) => hold !== undefined && hold.fence > fence)
}

function raise<K>(holds: Map<K, Hold>, key: K, hold: Hold): void {
  const known = holds.get(key)
  if (known === undefined || known.fence < hold.fence) holds.set(key, hold)
}
