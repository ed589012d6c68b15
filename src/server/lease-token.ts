/**
 * The lease of one message as an opaque text: what an engine needs to find the hold, and the secret that proves it.
 *
 * The server keeps nothing of it, so a lease can be settled through a server that was restarted, or through another one
 * over the same engine. The holder token is 128 random bits for each call that leases; the engine stores it with the
 * hold and compares it, so that a guessed topic, fence or offset is worth nothing. Where callers have keys, the engine is
 * given the hash of that and of the key's id, so that a lease is of no use with another key. The text is the fields below,
 * joined by `|` (which no name may contain), in base64url:
 *
 *     1 | topic | group | fence | offset | holder token
 */
import { hash, randomBytes } from 'node:crypto'

export interface LeaseToken {
  readonly topic: string
  /** '' for the group of a queue. */
  readonly group: string
  readonly fence: number
  readonly offset: number
  /** What the engine calls the holder's token. */
  readonly holder: string
}

const VERSION = '1'
/** Two names of 128 characters, two numbers of 16 digits and a holder, in base64url. */
const MAX_TOKEN_CHARS = 600
const NUMBER = /^\d{1,16}$/

export function drawHolder(): string {
  return randomBytes(16).toString('base64url')
}

/** What the engine compares: the token that was given, of that caller. '' is everybody, where there are no keys. */
export function bindHolder(holder: string, callerId: string): string {
  return callerId === '' ? holder : hash('sha256', `${callerId}|${holder}`, 'base64url')
}

export function formatLeaseToken({ topic, group, fence, offset, holder }: LeaseToken): string {
  return Buffer.from(`${VERSION}|${topic}|${group}|${fence}|${offset}|${holder}`, 'latin1').toString('base64url')
}

/** The fields of a token, or null where the text is not one. */
export function parseLeaseToken(text: string): LeaseToken | null {
  if (text.length > MAX_TOKEN_CHARS) return null
  const [version, topic = '', group = '', fence = '', offset = '', holder = '', ...rest] = Buffer.from(
    text,
    'base64url',
  )
    .toString('latin1')
    .split('|')
  if (version !== VERSION || rest.length > 0 || topic === '' || holder === '') return null
  if (!NUMBER.test(fence) || !NUMBER.test(offset)) return null
  const token = { topic, group, fence: Number(fence), offset: Number(offset), holder }
  // One lease has one text: base64 and numbers can be written in more ways than one.
  return formatLeaseToken(token) === text ? token : null
}
