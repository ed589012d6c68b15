/**
 * What processes that share a broker write to each other. Letters are in the form of engine/wire.ts.
 *
 *     member -> owner    hello   I am here; who are you, and what time is it?        turn   requests
 *     member -> owner    bye     I stop
 *     owner  -> member   owner   I am, in this epoch            turn   answers
 *     owner  -> member   forgotten   you were silent for too long
 *     owner  -> all      owner   I am, from now on              leaving   I give it up
 */
import type { EngineAbilities } from '../../engine/abilities.ts'
import { decodeWire, encodeWire } from '../../engine/wire.ts'
import type { LedgerAnswer, LedgerRequest } from '../../ledger/requests.ts'
import type { Turn } from './conversation.ts'

/** Rises with every change of a letter, of a request or of an answer. */
export const LETTER_VERSION = 2

export type Letter =
  | {
      readonly kind: 'hello'
      readonly version: number
      readonly from: string
      /** By the clock of the member. */
      readonly sentAtMs: number
    }
  | {
      readonly kind: 'owner'
      readonly version: number
      readonly address: string
      readonly epoch: number
      readonly engineId: string
      readonly abilities: EngineAbilities
      /** By the clock of the owner (owner-clock.ts). */
      readonly nowMs: number
      /** The hello that it answers, by when that was sent; null: it was not asked. */
      readonly helloAtMs: number | null
      /** How many turns of sessions with earlier owners may have taken effect, of all epochs from `since` on. */
      readonly before: { readonly since: number; readonly turns: Readonly<Record<string, number>> }
    }
  /** `heard`: up to which turn of each session something may have taken effect that its member does not know of. */
  | {
      readonly kind: 'leaving'
      readonly version: number
      readonly epoch: number
      readonly heard: Readonly<Record<string, number>>
    }
  /** The member was silent for so long that it was taken for dead. `heard`: its turns until then; null: nobody knows any more. */
  | {
      readonly kind: 'forgotten'
      readonly version: number
      readonly epoch: number
      readonly session: string
      readonly heard: number | null
    }
  /** `session` is new with every epoch that a member hears of, so that what belongs to an old one is overlooked. */
  | {
      readonly kind: 'asks'
      readonly version: number
      readonly epoch: number
      readonly from: string
      readonly session: string
      readonly turn: Turn<readonly LedgerRequest[]>
    }
  /** The member stops, and waits for nothing any more. */
  | { readonly kind: 'bye'; readonly version: number; readonly epoch: number; readonly session: string }
  | {
      readonly kind: 'tells'
      readonly version: number
      readonly epoch: number
      readonly session: string
      readonly turn: Turn<readonly LedgerAnswer[]>
    }

export type OwnerLetter = Extract<Letter, { kind: 'owner' }>
export type AskLetter = Extract<Letter, { kind: 'asks' }>

export function encodeLetter(letter: Letter): Uint8Array {
  return encodeWire(letter)
}

/** null: it is none that this version understands. */
export function decodeLetter(bytes: Uint8Array): Letter | null {
  try {
    const letter = decodeWire(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)) as Letter
    if (typeof letter !== 'object' || letter === null || typeof letter.kind !== 'string') return null
    // Of one of another version only its kind and version are looked at.
    return letter.version !== LETTER_VERSION || isWhole(letter) ? letter : null
  } catch {
    return null
  }
}

/** Whether it has what whoever hears it relies on: one that somebody else wrote must not end a process. */
function isWhole(letter: Letter): boolean {
  switch (letter.kind) {
    case 'hello':
      return typeof letter.from === 'string'
    case 'owner':
      return (
        typeof letter.address === 'string' &&
        typeof letter.epoch === 'number' &&
        isObject(letter.abilities) &&
        isObject(letter.before) &&
        isObject(letter.before.turns)
      )
    case 'leaving':
      return typeof letter.epoch === 'number' && isObject(letter.heard)
    case 'asks':
      return typeof letter.from === 'string' && typeof letter.session === 'string' && isTurn(letter.turn)
    case 'tells':
      return typeof letter.session === 'string' && isTurn(letter.turn)
    default:
      return true
  }
}

function isTurn(turn: Turn<readonly unknown[]>): boolean {
  if (!isObject(turn) || !Number.isSafeInteger(turn.number) || !Number.isSafeInteger(turn.confirms)) return false
  return turn.number === 0 || (Array.isArray(turn.payload) && turn.payload.every(isObject))
}

function isObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null
}
