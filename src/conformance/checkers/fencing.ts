import type { BeginEvent, EndEvent } from '../history.ts'
import type { Check, Checker, Court } from './checker.ts'
import { getOrMake, groupOf, Rising } from './tracking.ts'

/**
 * Fences of a group rise: no two leases have the same, and one that was asked for after another was given has a higher
 * one, across crashes, restarts, owners, seeks and a group that was forgotten and made again.
 */
export const fencing: Checker = {
  name: 'fencing',
  promises: ['P5'],
  holds: 'Fences of a group only rise, across restarts.',
  create: (court) => new Fencing(court),
}

class Fencing implements Check {
  readonly #court: Court
  readonly #groups = new Map<string, { readonly latest: Rising; readonly given: Map<number, EndEvent> }>()

  constructor(court: Court) {
    this.#court = court
  }

  onEnd(begin: BeginEvent, end: EndEvent, beganAt: number): void {
    const { call } = begin
    const { answer } = end
    if (call.kind !== 'lease' || answer.status !== 'leased') return
    const { fence } = answer
    const group = getOrMake(this.#groups, groupOf(call), () => ({ latest: new Rising(), given: new Map() }))
    const same = group.given.get(fence)
    if (same !== undefined) return this.#court.violated(`${groupOf(call)} gave the fence ${fence} twice`, [same, end])
    const before = group.latest.before(beganAt)
    if (before !== undefined) this.#court.exercised()
    if (before !== undefined && fence <= before) {
      const earlier = group.given.get(before) as EndEvent
      return this.#court.violated(`${groupOf(call)} gave the fence ${fence} after ${before}`, [earlier, begin, end])
    }
    group.given.set(fence, end)
    group.latest.raise(this.#court.now, fence)
  }
}
