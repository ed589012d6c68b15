/**
 * What goes into a ledger and what comes out. A request has a number that its answer bears; an answer may come with a
 * later step than its request, where the request waits.
 */
import type {
  AppendOutcome,
  AppendRequest,
  Command,
  CommandOutcome,
  Declaration,
  DeclareOutcome,
  ExtendOutcome,
  ExtendRequest,
  FindOutcome,
  LeaseOutcome,
  LeaseRequest,
  ReadOutcome,
  ReadRequest,
  SettleOutcome,
  SettleRequest,
  TopicStats,
  WatchRequest,
} from '../engine/contract.ts'
import type { ErrorCode } from '../errors.ts'

export type LedgerRequest =
  | { readonly id: number; readonly kind: 'declare'; readonly body: readonly Declaration[] }
  | { readonly id: number; readonly kind: 'append'; readonly body: readonly AppendRequest[] }
  | { readonly id: number; readonly kind: 'read'; readonly body: ReadRequest }
  | { readonly id: number; readonly kind: 'lease'; readonly body: LeaseRequest }
  | { readonly id: number; readonly kind: 'extend'; readonly body: readonly ExtendRequest[] }
  | { readonly id: number; readonly kind: 'settle'; readonly body: readonly SettleRequest[] }
  | { readonly id: number; readonly kind: 'find'; readonly body: readonly string[] }
  | { readonly id: number; readonly kind: 'watch'; readonly body: WatchRequest }
  | { readonly id: number; readonly kind: 'command'; readonly body: Command }
  | { readonly id: number; readonly kind: 'stats'; readonly body: null }
  /** Ends the wait of request `body` as if its time were over. */
  | { readonly id: number; readonly kind: 'abort'; readonly body: number }
  /** Ends all waits and gives back what is held in process. */
  | { readonly id: number; readonly kind: 'stop'; readonly body: null }

export type LedgerAnswer =
  | { readonly id: number; readonly value: AnswerValue }
  | { readonly id: number; readonly error: AnswerError }

export type AnswerValue =
  | readonly DeclareOutcome[]
  | readonly AppendOutcome[]
  | ReadOutcome
  | LeaseOutcome
  | readonly ExtendOutcome[]
  | readonly SettleOutcome[]
  | readonly FindOutcome[]
  | FindOutcome
  | CommandOutcome
  | readonly TopicStats[]
  | null

/** A SluiceError on its way between threads. */
export interface AnswerError {
  readonly code: ErrorCode
  readonly message: string
  readonly details: Readonly<Record<string, unknown>>
}

interface Waiter {
  readonly id: number
  /** When the wait ends. */
  readonly untilMs: number
  /** Whether it was answered, so that its timer means nothing any more. */
  done: boolean
}

export interface LeaseWaiter extends Waiter {
  readonly kind: 'lease'
  readonly request: LeaseRequest
}

export interface ReadWaiter extends Waiter {
  readonly kind: 'read'
  readonly request: ReadRequest
  /** The offset that `from` stood for when the request came. */
  readonly from: number
}

export interface WatchWaiter extends Waiter {
  readonly kind: 'watch'
  readonly request: WatchRequest
}
