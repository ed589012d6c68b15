import { parseJobId } from '../../job-id.ts'
import type { BeginEvent, EndEvent } from '../history.ts'
import type { Check, Checker, Court } from './checker.ts'
import { getOrMake, groupOf, Resets } from './tracking.ts'

interface Group {
  /** Messages that were settled as done, and under which fence. */
  readonly done: Map<number, { readonly fence: number; readonly end: EndEvent }>
  readonly highest: Map<number, { readonly fence: number; readonly end: EndEvent }>
}

/**
 * What was settled as done is never handed out again in its group: no hand-out of it has a higher fence, whichever of the
 * two was seen first. Nor is it settled twice. Sound but for a seek or a forgotten group. A dead letter may be a blocked
 * message that is tried again, so only `done` counts here, and a cancelled job.
 */
export const settleFinality: Checker = {
  name: 'settle-finality',
  promises: ['P3', 'P10'],
  holds: 'What was acknowledged as done or cancelled is never handed out again.',
  create: (court) => new SettleFinality(court),
}

class SettleFinality implements Check {
  readonly #court: Court
  readonly #groups = new Map<string, Group>()
  readonly #resets = new Resets((group) => this.#groups.delete(group))
  readonly #cancelled = new Map<string, { readonly at: number; readonly end: EndEvent }>()

  constructor(court: Court) {
    this.#court = court
  }

  onBegin(begin: BeginEvent): void {
    this.#resets.onBegin(begin)
  }

  onEnd(begin: BeginEvent, end: EndEvent, beganAt: number): void {
    this.#resets.onEnd(begin, end, this.#court.now)
    const { call } = begin
    const { answer } = end
    if (call.kind === 'cancel' && answer.status === 'done') {
      const place = parseJobId(call.job)
      if (place?.place.kind === 'offset')
        this.#cancelled.set(`${place.queue}/${place.place.offset}`, { at: this.#court.now, end })
      return
    }
    if (call.kind !== 'lease' && call.kind !== 'settle') return
    const name = groupOf(call)
    if (!this.#resets.isClear(name, beganAt)) return
    const group = getOrMake(this.#groups, name, () => ({ done: new Map(), highest: new Map() }))
    if (call.kind === 'lease' && answer.status === 'leased') {
      for (const { offset } of answer.messages) this.#handOut(call, group, offset, answer.fence, end, beganAt)
    } else if (call.kind === 'settle' && call.outcome === 'done' && answer.status === 'settled') {
      for (const offset of call.offsets)
        if (!answer.lost.includes(offset)) this.#settle(name, group, offset, call.fence, end)
    }
  }

  #handOut(
    call: { readonly topic: string; readonly group: string },
    group: Group,
    offset: number,
    fence: number,
    end: EndEvent,
    beganAt: number,
  ): void {
    const name = groupOf(call)
    const done = group.done.get(offset)
    if (done !== undefined && fence > done.fence)
      return this.#court.violated(`${name} handed out ${offset} (fence ${fence}) after it was done`, [done.end, end])
    const cancelled = call.group === '' ? this.#cancelled.get(`${call.topic}/${offset}`) : undefined
    if (cancelled !== undefined && cancelled.at < beganAt)
      return this.#court.violated(`${name} handed out ${offset} after it was cancelled`, [cancelled.end, end])
    const highest = group.highest.get(offset)
    if (highest === undefined || highest.fence < fence) group.highest.set(offset, { fence, end })
  }

  #settle(name: string, group: Group, offset: number, fence: number, end: EndEvent): void {
    this.#court.exercised()
    const twice = group.done.get(offset)
    if (twice !== undefined) return this.#court.violated(`${offset} of ${name} was done twice`, [twice.end, end])
    group.done.set(offset, { fence, end })
    const later = group.highest.get(offset)
    if (later !== undefined && later.fence > fence)
      this.#court.violated(
        `${offset} of ${name} was done under fence ${fence}, though handed out under ${later.fence}`,
        [later.end, end],
      )
  }
}
