import type { BeginEvent, EndEvent } from '../history.ts'
import type { Check, Checker, Court } from './checker.ts'
import { getOrMake, groupOf, Resets, sentBy } from './tracking.ts'

/**
 * What is delayed is not handed out before it is due, what is retried not before its time, and what is past its deadline
 * not for the first time.
 *
 * A redrive lets a blocked message try again at once, and makes a new job of a dead letter, whose deadline is gone: after
 * one, attempts beyond what the group allows, and deadlines, are not looked at.
 *
 * Sound: a hand-out is taken to be as late as the clock was ever seen (due times), and as early as it was asked for
 * (deadlines; the clock of one process never falls, and a request dies with its process). Blind, after a clock was set
 * forward, to what is due in between.
 */
export const noEarlyDelivery: Checker = {
  name: 'no-early-delivery',
  promises: ['P4', 'P11'],
  holds: 'Nothing is handed out before it is due, nor for the first time after its deadline.',
  create: (court) => new NoEarlyDelivery(court),
}

interface Times {
  /** The least that any sender asked for. */
  dueAtMs: number
  /** The latest that any sender asked for. */
  deadlineMs: number
}

interface Retry {
  readonly fence: number
  readonly atMs: number
  readonly end: EndEvent
}

class NoEarlyDelivery implements Check {
  readonly #court: Court
  readonly #topics = new Map<string, Map<string, Times>>()
  readonly #retries = new Map<string, Map<number, Retry>>()
  readonly #attempts = new Map<string, number>()
  readonly #redriven = new Set<string>()
  readonly #resets = new Resets((group) => this.#retries.delete(group))

  constructor(court: Court) {
    this.#court = court
  }

  onBegin(begin: BeginEvent): void {
    this.#resets.onBegin(begin)
    const { call } = begin
    if (call.kind === 'declare' && call.attempts !== undefined) this.#attempts.set(groupOf(call), call.attempts)
    if (call.kind === 'redrive') this.#redriven.add(call.topic)
    for (const { topic, messages } of sentBy(call)) {
      for (const { id, dueAtMs = 0, deadlineMs = Number.POSITIVE_INFINITY } of messages) {
        if (dueAtMs === 0 && deadlineMs === Number.POSITIVE_INFINITY) continue
        const known = getOrMake(
          getOrMake(this.#topics, topic, () => new Map<string, Times>()),
          id,
          () => ({ dueAtMs, deadlineMs }),
        )
        known.dueAtMs = Math.min(known.dueAtMs, dueAtMs)
        known.deadlineMs = Math.max(known.deadlineMs, deadlineMs)
      }
    }
  }

  onEnd(begin: BeginEvent, end: EndEvent, beganAt: number): void {
    this.#resets.onEnd(begin, end, this.#court.now)
    const { call } = begin
    const { answer } = end
    const isRetry = call.kind === 'settle' && call.outcome === 'retry' && call.atMs !== undefined
    // One that was under way when the group began anew may have been before that.
    if (isRetry && answer.status === 'settled' && this.#resets.isClear(groupOf(call), beganAt)) {
      const retries = getOrMake(this.#retries, groupOf(call), () => new Map())
      for (const offset of call.offsets)
        if (!answer.lost.includes(offset)) retries.set(offset, { fence: call.fence, atMs: call.atMs as number, end })
    }
    if (call.kind !== 'lease' || answer.status !== 'leased') return
    const { latestMs, skewMs } = this.#court
    const isRedriven = this.#redriven.has(call.topic)
    const allowed = this.#attempts.get(groupOf(call)) ?? Number.POSITIVE_INFINITY
    const times = this.#topics.get(call.topic)
    const retries = this.#resets.isClear(groupOf(call), beganAt) ? this.#retries.get(groupOf(call)) : undefined
    for (const { offset, id, attempt } of answer.messages) {
      const asked = times?.get(id)
      const retry = retries?.get(offset)
      if (asked !== undefined) {
        this.#court.exercised()
        if (latestMs + skewMs < asked.dueAtMs)
          this.#court.violated(`'${id}' is due at ${asked.dueAtMs} and was handed out by ${latestMs}`, [begin, end])
        if (attempt === 1 && !isRedriven && begin.atMs - skewMs > asked.deadlineMs)
          this.#court.violated(
            `the deadline of '${id}' was ${asked.deadlineMs}, and it was handed out to who asked at ${begin.atMs}`,
            [begin, end],
          )
      }
      if (retry === undefined || retry.fence >= answer.fence || (isRedriven && attempt > allowed)) continue
      this.#court.exercised()
      if (latestMs + skewMs < retry.atMs)
        this.#court.violated(
          `${offset} of ${groupOf(call)} was to be retried at ${retry.atMs} and was handed out by ${latestMs}`,
          [retry.end, begin, end],
        )
    }
  }
}
