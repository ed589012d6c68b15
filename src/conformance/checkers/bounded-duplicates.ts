import type { BeginEvent, EndEvent, MarkEvent } from '../history.ts'
import type { Check, Checker, Court } from './checker.ts'
import { getOrMake, groupOf, Resets } from './tracking.ts'

/** A hand-out of one message. */
interface HandOut {
  readonly fence: number
  readonly attempt: number
  readonly end: EndEvent
  /** Since when it may be handed out again because its time is over; Infinity: never by time. */
  expiresAtMs: number
  /** Crashes and stops of the engine that were seen when it began. */
  readonly crashes: number
}

interface Group {
  attempts: number
  readonly handOuts: Map<number, HandOut[]>
  /** Fences under which a settle that gives the message back was sent, by offset. */
  readonly returned: Map<number, Set<number>>
  /** Settles that forgive an attempt, by offset. */
  readonly forgiven: Map<number, number>
  /** Leases whose answer nobody saw, or has seen yet. */
  unseenLeases: number
  /** Blocked messages may have been let go, which counts their attempts anew. */
  redriven: boolean
}

/**
 * A message is handed out again only for a reason: a settle that gave it back, the end of its time, or the end of the
 * process that held it. Attempts rise with fences, a number is missing only where an answer was, and there are never more
 * than the group allows, but for those that were given back unstarted.
 *
 * Sound: each reason is looked for as widely as it can have happened: a settle counts from when it was sent, the time of
 * a lease from the earliest that was promised, measured by the highest clock that was ever seen.
 */
export const boundedDuplicates: Checker = {
  name: 'bounded-duplicates',
  promises: ['P3', 'P4'],
  holds: 'A message is handed out again only after a retry, an expiry or a crash, and never more often than allowed.',
  create: (court) => new BoundedDuplicates(court),
}

class BoundedDuplicates implements Check {
  readonly #court: Court
  readonly #groups = new Map<string, Group>()
  readonly #resets = new Resets((group) => this.#forget(group))
  #crashes = 0

  constructor(court: Court) {
    this.#court = court
  }

  onMark({ mark }: MarkEvent): void {
    if (mark === 'crash' || mark === 'stop' || mark === 'power-loss') this.#crashes++
  }

  onBegin(begin: BeginEvent): void {
    this.#resets.onBegin(begin)
    const { call } = begin
    if (call.kind === 'declare' && call.attempts !== undefined) this.#group(groupOf(call)).attempts = call.attempts
    if (call.kind === 'lease') this.#group(groupOf(call)).unseenLeases++
    if (call.kind === 'redrive') this.#group(groupOf(call)).redriven = true
    if (call.kind === 'settle' && call.outcome !== 'done') {
      const group = this.#group(groupOf(call))
      for (const offset of call.offsets) {
        getOrMake(group.returned, offset, () => new Set()).add(call.fence)
        if (call.outcome === 'release') group.forgiven.set(offset, (group.forgiven.get(offset) ?? 0) + 1)
      }
    }
  }

  onEnd(begin: BeginEvent, end: EndEvent, beganAt: number): void {
    this.#resets.onEnd(begin, end, this.#court.now)
    const { call } = begin
    const { answer } = end
    if (call.kind === 'extend' && answer.status === 'extended') {
      const handOuts = this.#groups.get(groupOf(call))?.handOuts
      for (const offset of call.offsets)
        if (!answer.lost.includes(offset)) extend(handOuts?.get(offset), call.fence, answer.expiresAtMs)
    }
    if (call.kind !== 'lease') return
    const name = groupOf(call)
    const group = this.#group(name)
    const isClear = this.#resets.isClear(name, beganAt)
    if (answer.status !== 'unknown' && (answer.status !== 'leased' || isClear)) group.unseenLeases--
    if (answer.status !== 'leased' || !isClear) return
    const expiresAtMs = call.holder === 'process' ? Number.POSITIVE_INFINITY : answer.expiresAtMs
    for (const { offset, attempt } of answer.messages) {
      const handOut = { fence: answer.fence, attempt, end, expiresAtMs, crashes: this.#crashes }
      this.#insert(name, group, offset, handOut)
    }
  }

  #insert(name: string, group: Group, offset: number, handOut: HandOut): void {
    const handOuts = getOrMake(group.handOuts, offset, () => [])
    let at = handOuts.length
    while (at > 0 && (handOuts[at - 1] as HandOut).fence > handOut.fence) at--
    const before = handOuts[at - 1]
    const after = handOuts[at]
    handOuts.splice(at, 0, handOut)
    // What nobody saw may have been given back by who serves the engine, which does not count.
    const allowed = group.attempts + (group.forgiven.get(offset) ?? 0) + group.unseenLeases
    if (!group.redriven && handOut.attempt > allowed)
      return this.#court.violated(
        `${name} handed out ${offset} for the attempt ${handOut.attempt}, and ${allowed} are allowed`,
        [handOut.end],
      )
    if (before === undefined && after === undefined && handOut.attempt - 1 > group.unseenLeases)
      return this.#court.violated(
        `${name} handed out ${offset} as attempt ${handOut.attempt}: nobody can have had the ones before`,
        [handOut.end],
      )
    if (before !== undefined) this.#compare(name, group, offset, before, handOut)
    // The later one was seen first: whatever happened until now may be its reason.
    if (after !== undefined) this.#compare(name, group, offset, handOut, after)
  }

  #compare(name: string, group: Group, offset: number, first: HandOut, second: HandOut): void {
    this.#court.exercised()
    const what = `${offset} of ${name}, attempt ${first.attempt} (fence ${first.fence}), was handed out again as attempt ${second.attempt} (fence ${second.fence})`
    if (second.attempt <= first.attempt) return this.#court.violated(`${what}: attempts rise`, [first.end, second.end])
    if (second.attempt - first.attempt - 1 > group.unseenLeases)
      return this.#court.violated(`${what}: nobody can have had the attempts between`, [first.end, second.end])
    const wasReturned = group.returned.get(offset)?.has(first.fence) === true
    const hasExpired = first.expiresAtMs <= this.#court.latestMs + this.#court.skewMs
    const lostItsProcess = first.expiresAtMs === Number.POSITIVE_INFINITY && this.#crashes > first.crashes
    if (!wasReturned && !hasExpired && !lostItsProcess && !group.redriven)
      this.#court.violated(`${what}, without a reason`, [first.end, second.end])
  }

  #forget(name: string): void {
    const group = this.#groups.get(name)
    if (group === undefined) return
    group.handOuts.clear()
    group.returned.clear()
    group.forgiven.clear()
  }

  #group(name: string): Group {
    return getOrMake(this.#groups, name, () => ({
      attempts: Number.POSITIVE_INFINITY,
      handOuts: new Map(),
      returned: new Map(),
      forgiven: new Map(),
      unseenLeases: 0,
      redriven: false,
    }))
  }
}

/** It was held at that moment, so whoever got it next did so after the new end. */
function extend(handOuts: readonly HandOut[] | undefined, fence: number, expiresAtMs: number): void {
  const handOut = handOuts?.find((one) => one.fence === fence)
  if (handOut !== undefined) handOut.expiresAtMs = Math.max(handOut.expiresAtMs, expiresAtMs)
}
