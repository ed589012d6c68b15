/** What goes between the caller's thread and the broker's. */
import type { EngineAbilities } from '../engine/abilities.ts'
import type { HeartSeat } from '../heart/messages.ts'
import type { AnswerError, LedgerAnswer, LedgerRequest } from '../ledger/requests.ts'
import type { Durability, LogHealth } from '../logs/contract.ts'

/** Over a folder, which is this process's alone. */
export interface FolderOptions {
  readonly folder: string
  readonly durability: Durability
}

/** Over a broker (Redis, RabbitMQ, Kafka), which is shared with other processes. */
export interface SharedOptions {
  readonly url: string
  readonly namespace: string
  readonly durability: Durability | undefined
  readonly copies: number | undefined
  readonly connectMs: number | undefined
  readonly stateDir: string | null
}

/** What the thread over a broker is told. */
export interface SharedData extends SharedOptions {
  /** Of the keeper of this process's heart, whose port is transferred. Null: the process has no workers. */
  readonly seat: HeartSeat | null
}

/** Which file the thread runs, and what it is told. */
export type ThreadEntry =
  | { readonly entry: 'thread'; readonly options: FolderOptions }
  | { readonly entry: 'shared/thread'; readonly options: SharedData }

export type ToBroker =
  | { readonly kind: 'requests'; readonly requests: readonly LedgerRequest[] }
  | { readonly kind: 'health'; readonly id: number }
  /** Copy the data into a new file. */
  | { readonly kind: 'copy'; readonly id: number; readonly file: string }
  | { readonly kind: 'close' }

export type FromBroker =
  | { readonly kind: 'open'; readonly abilities: EngineAbilities }
  /** See `Link.clockAheadMs`; before `open`, if it is not 0 then. */
  | { readonly kind: 'clock'; readonly aheadMs: number }
  | { readonly kind: 'refused'; readonly error: AnswerError }
  /** Answers, and how many messages of requests were taken in since the last time. */
  | { readonly kind: 'answers'; readonly answers: readonly LedgerAnswer[]; readonly messages: number }
  | { readonly kind: 'health'; readonly id: number; readonly health: LogHealth }
  | { readonly kind: 'copied'; readonly id: number; readonly error: AnswerError | null }
  | { readonly kind: 'closed' }
