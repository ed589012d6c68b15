/** What goes between the caller's thread and the broker's. */
import type { EngineAbilities } from '../engine/abilities.ts'
import type { AnswerError, LedgerAnswer, LedgerRequest } from '../ledger/requests.ts'
import type { Durability, LogHealth } from '../logs/contract.ts'

export interface BrokerOptions {
  readonly folder: string
  readonly durability: Durability
}

export type ToBroker =
  | { readonly kind: 'requests'; readonly requests: readonly LedgerRequest[] }
  | { readonly kind: 'health'; readonly id: number }
  | { readonly kind: 'close' }

export type FromBroker =
  | { readonly kind: 'open'; readonly abilities: EngineAbilities }
  | { readonly kind: 'refused'; readonly error: AnswerError }
  /** Answers, and how many messages of requests were taken in since the last time. */
  | { readonly kind: 'answers'; readonly answers: readonly LedgerAnswer[]; readonly messages: number }
  | { readonly kind: 'health'; readonly id: number; readonly health: LogHealth }
  | { readonly kind: 'closed' }
