/**
 * What a checker is: it is shown a history event by event and says, at the end, whether its promise held. It knows
 * nothing but the history, never the engine, and its memory grows with what is not settled and with what it must compare
 * later, not with the square of anything.
 */
import type { BeginEvent, EndEvent, HistoryEvent, MarkEvent } from '../history.ts'

/** What a checker found. */
export type Verdict =
  /** It was exercised and nothing was wrong. */
  | { readonly status: 'held'; readonly exercised: number }
  /** The history never put it to the test. */
  | { readonly status: 'unknown' }
  | { readonly status: 'violated'; readonly violation: Violation }

export interface Violation {
  /** What was promised and what was seen instead, with names and numbers. */
  readonly message: string
  /** The fewest events from which it follows, in order: normally two to four. */
  readonly witness: readonly HistoryEvent[]
}

/** The state of one checker over one history. Events that do not concern it are ignored. */
export interface Check {
  /** A call whose answer is known (or `unknown`), at its end. `begin` is its first event, number `beganAt` of all. */
  onEnd?(begin: BeginEvent, end: EndEvent, beganAt: number): void
  /** A call that is about to be sent. */
  onBegin?(begin: BeginEvent): void
  onMark?(mark: MarkEvent): void
  /** After the last event. */
  onFinish?(): void
}

export interface Checker {
  /** Kebab-case, shown in verdicts: 'key-order'. */
  readonly name: string
  /** Such as 'P4'. */
  readonly promises: readonly string[]
  /** A sentence: what holds. */
  readonly holds: string
  create(court: Court): Check
}

/** To whom a check reports. Only the first violation of a checker is kept. */
export interface Court {
  /** The promise was put to the test once more. */
  exercised(): void
  violated(message: string, witness: readonly HistoryEvent[]): void
  /** The number of the event that is shown now; they rise. What was known at a lower number than a call began, it saw. */
  readonly now: number
  /** The highest time of any event so far, ms since 1970: the clock of the engine may be set back between processes. */
  readonly latestMs: number
  /** Whether that ever happened by more than a moment. */
  readonly clockFell: boolean
  /** How far the clock of the recorder may be from that of the engine, ms. */
  readonly skewMs: number
}
