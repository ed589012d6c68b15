/**
 * API keys: `sluice_` + id + `_` + secret, such as `sluice_k3x9ab41q0zz_Qm…`. The prefix is for scanners of leaked secrets.
 *
 * The secret is 256 random bits, and what is stored is its SHA-256. A slow hash is for passwords, which can be guessed
 * from a list; nobody can guess 256 random bits however fast the hash is, and a slow one would let strangers spend the
 * processor of the server with calls that have a wrong key.
 */
import { hash, randomBytes, randomInt, timingSafeEqual } from 'node:crypto'

const ID_CHARS = 12
const ALPHABET = 'abcdefghijklmnopqrstuvwxyz0123456789'
const SECRET_BYTES = 32
const PATTERN = /^sluice_([a-z0-9]{12})_([A-Za-z0-9_-]{43})$/

export interface ApiKey {
  readonly id: string
  readonly secret: string
}

export function drawApiKey(): ApiKey & { readonly text: string } {
  let id = ''
  for (let i = 0; i < ID_CHARS; i++) id += ALPHABET[randomInt(ALPHABET.length)]
  const secret = drawSecret()
  return { id, secret, text: `sluice_${id}_${secret}` }
}

/** 256 random bits as 43 characters. */
export function drawSecret(): string {
  return randomBytes(SECRET_BYTES).toString('base64url')
}

/** The parts of a key, or null where the text is not of the form of one. */
export function parseApiKey(text: string): ApiKey | null {
  const match = PATTERN.exec(text)
  return match === null ? null : { id: match[1] as string, secret: match[2] as string }
}

/** What is stored of a secret. */
export function hashSecret(secret: string): Buffer {
  return hash('sha256', secret, 'buffer')
}

const NO_HASH = Buffer.alloc(32)

/** Whether the secret is the one of that hash, in a time that does not tell how nearly; without a hash, in the same time. */
export function isSecretOf(secret: string, stored: Buffer | undefined): boolean {
  const isEqual = timingSafeEqual(hashSecret(secret), stored ?? NO_HASH)
  return isEqual && stored !== undefined
}
