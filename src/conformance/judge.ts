/**
 * Shows a history to all checkers and collects what they found. A checker that found a violation is shown no more.
 */
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { CHECKERS } from './checkers/all.ts'
import type { Check, Checker, Court, Verdict, Violation } from './checkers/checker.ts'
import type { BeginEvent, HistoryEvent } from './history.ts'

export interface Judgement {
  readonly checker: string
  readonly promises: readonly string[]
  readonly verdict: Verdict
}

export interface JudgeOptions {
  /** @default all of them */
  readonly checkers?: readonly Checker[]
  /** How far the clock of the recorder may be from that of the engine, ms. @default 0 */
  readonly skewMs?: number
}

/** The clock of an engine is not the recorder's to the millisecond; below this nothing was set back. */
const MOMENT_MS = 50

export class Judge implements Omit<Court, 'exercised' | 'violated'> {
  readonly skewMs: number
  now = 0
  latestMs = 0
  clockFell = false
  readonly #seats: Seat[]
  readonly #open = new Map<number, { readonly begin: BeginEvent; readonly beganAt: number }>()

  constructor({ checkers = CHECKERS, skewMs = 0 }: JudgeOptions = {}) {
    this.skewMs = skewMs
    this.#seats = checkers.map((checker) => new Seat(checker, this))
  }

  observe(event: HistoryEvent): void {
    this.now++
    if (event.atMs > this.latestMs) this.latestMs = event.atMs
    else if (event.atMs < this.latestMs - MOMENT_MS - this.skewMs) this.clockFell = true
    if (event.kind === 'begin') {
      this.#open.set(event.op, { begin: event, beganAt: this.now })
      for (const seat of this.#seats) if (seat.violation === null) seat.check.onBegin?.(event)
    } else if (event.kind === 'end') {
      const open = this.#open.get(event.op)
      if (open === undefined) return
      this.#open.delete(event.op)
      for (const seat of this.#seats) if (seat.violation === null) seat.check.onEnd?.(open.begin, event, open.beganAt)
    } else {
      for (const seat of this.#seats) if (seat.violation === null) seat.check.onMark?.(event)
    }
  }

  /** After the last event: what each checker says. */
  finish(): readonly Judgement[] {
    return this.#seats.map((seat) => {
      if (seat.violation === null) seat.check.onFinish?.()
      return { checker: seat.checker.name, promises: seat.checker.promises, verdict: seat.verdict() }
    })
  }
}

/** One checker before the judge. */
class Seat implements Court {
  readonly checker: Checker
  readonly check: Check
  violation: Violation | null = null
  readonly #judge: Judge
  #exercised = 0

  constructor(checker: Checker, judge: Judge) {
    this.checker = checker
    this.#judge = judge
    this.check = checker.create(this)
  }

  get now(): number {
    return this.#judge.now
  }

  get latestMs(): number {
    return this.#judge.latestMs
  }

  get clockFell(): boolean {
    return this.#judge.clockFell
  }

  get skewMs(): number {
    return this.#judge.skewMs
  }

  exercised(): void {
    this.#exercised++
  }

  violated(message: string, witness: readonly HistoryEvent[]): void {
    this.violation ??= { message, witness }
  }

  verdict(): Verdict {
    if (this.violation !== null) return { status: 'violated', violation: this.violation }
    return this.#exercised > 0 ? { status: 'held', exercised: this.#exercised } : { status: 'unknown' }
  }
}

/** Judges a history that was written as a line of JSON for each event. A last line that a kill cut off is not one. */
export async function judgeLines(lines: Readable, options?: JudgeOptions): Promise<readonly Judgement[]> {
  const judge = new Judge(options)
  let cut: unknown = null
  for await (const line of createInterface({ input: lines })) {
    if (cut !== null) throw cut
    try {
      if (line !== '') judge.observe(JSON.parse(line) as HistoryEvent)
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error
      cut = error
    }
  }
  return judge.finish()
}

/** A line for each checker, and under each violation what it follows from. */
export function formatJudgements(judgements: readonly Judgement[]): string {
  const lines = judgements.flatMap(({ checker, promises, verdict }) => {
    const head = `${checker} (${promises.join(', ')}): ${verdict.status}`
    if (verdict.status === 'held') return [`${head}, put to the test ${verdict.exercised} times`]
    if (verdict.status === 'unknown') return [head]
    const { message, witness } = verdict.violation
    return [`${head}: ${message}`, ...witness.map((event) => `    ${JSON.stringify(event)}`)]
  })
  return lines.join('\n')
}
