import type { BeginEvent, EndEvent } from '../history.ts'
import type { Check, Checker, Court } from './checker.ts'

/** What a machine and a network may take beyond the wait that was asked for. */
const GRACE_MS = 60_000
/** Beyond this a clock was set rather than somebody slow. */
const SET_MS = 1_800_000

/**
 * A wait that finds nothing lasts as long as was asked for, and none lasts for ever: an answer comes within that time and
 * a minute, in which disks and networks may be slow. An answer that nobody saw is not judged, nor is anything by a clock
 * that was set meanwhile, which the simulation does by an hour.
 */
export const waitsEnd: Checker = {
  name: 'waits-end',
  promises: ['P10', 'P11'],
  holds: 'Every wait ends in its time.',
  create: (court) => new WaitsEnd(court),
}

class WaitsEnd implements Check {
  readonly #court: Court

  constructor(court: Court) {
    this.#court = court
  }

  onEnd(begin: BeginEvent, end: EndEvent): void {
    const { call } = begin
    if (end.answer.status === 'unknown' || !('waitMs' in call) || call.waitMs === 0) return
    this.#court.exercised()
    const { clockFell } = this.#court
    const tookMs = end.atMs - begin.atMs
    if (end.answer.status === 'empty' && !clockFell && tookMs < call.waitMs - this.#court.skewMs - 1)
      this.#court.violated(`a wait of ${call.waitMs} ms ended after ${tookMs} with nothing`, [begin, end])
    if (tookMs > call.waitMs + GRACE_MS && tookMs < SET_MS)
      this.#court.violated(`a wait of ${call.waitMs} ms ended after ${tookMs}`, [begin, end])
  }
}
