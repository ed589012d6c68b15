/**
 * The secrets that sign callbacks, and where they are kept: a file with one secret a line, the newest first, which only
 * its owner can read. Each is `whsec_` and 24 to 64 bytes in base64 (Standard Webhooks 1.0). A callback carries a
 * signature of every secret, so that receivers can change theirs at any time while both are there.
 *
 * A file is looked at again when it has changed, so a rotation needs no restart. No message shows a secret.
 */
import { createHmac, randomBytes } from 'node:crypto'
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, statSync, writeSync } from 'node:fs'
import { SluiceError } from '../errors.ts'
import { invalidOption } from '../options-check.ts'

/** The file in a data folder, made by the first use. */
export const SECRET_FILE = 'webhook-secret'
const PREFIX = 'whsec_'
const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/
const MIN_BYTES = 24
const MAX_BYTES = 64
const NEW_BYTES = 32
const MAX_SECRETS = 10

/** Gives the secrets in force, at least one. */
export type SecretSource = () => readonly Buffer[]

/** The bytes of a secret. Throws `INVALID_OPTION`. */
export function parseSecret(text: string, name = 'a webhook secret'): Buffer {
  const encoded = text.startsWith(PREFIX) ? text.slice(PREFIX.length) : ''
  const bytes = Buffer.from(encoded, 'base64')
  if (BASE64.test(encoded) && bytes.byteLength >= MIN_BYTES && bytes.byteLength <= MAX_BYTES) return bytes
  throw invalidOption(name, '(not shown)', `${PREFIX} and ${MIN_BYTES} to ${MAX_BYTES} bytes in base64`)
}

export function generateSecret(): string {
  return `${PREFIX}${randomBytes(NEW_BYTES).toString('base64')}`
}

/** The value of `webhook-signature`: one signature for each secret. */
export function sign(
  secrets: readonly Buffer[],
  { id, timestamp, body }: { readonly id: string; readonly timestamp: number; readonly body: Uint8Array },
): string {
  return secrets
    .map((secret) => {
      const mac = createHmac('sha256', secret).update(`${id}.${timestamp}.`).update(body).digest('base64')
      return `v1,${mac}`
    })
    .join(' ')
}

/** Secrets that are given as they are. */
export function fixedSecrets(texts: readonly string[]): SecretSource {
  if (texts.length === 0 || texts.length > MAX_SECRETS)
    throw invalidOption('secrets', texts, `1 to ${MAX_SECRETS} secrets`)
  const secrets = texts.map((text, i) => parseSecret(text, `secrets[${i}]`))
  return () => secrets
}

/** Secrets of a file, which is read again when it has changed. One that is broken by then leaves the last in force. */
export function fileSecrets(path: string, onError: (error: unknown) => void): SecretSource {
  let secrets = readSecretFile(path).map((text) => parseSecret(text))
  let stamp = stampOf(path)
  return () => {
    const now = stampOf(path)
    if (now === stamp) return secrets
    stamp = now
    try {
      secrets = readSecretFile(path).map((text) => parseSecret(text))
    } catch (error) {
      onError(error)
    }
    return secrets
  }
}

/** The secrets of a file as texts, the newest first. Throws `INVALID_OPTION`. */
export function readSecretFile(path: string): string[] {
  let content: string
  try {
    content = readFileSync(path, 'utf8')
  } catch (error) {
    throw fileError(path, 'cannot be read', error)
  }
  const texts = content
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
  if (texts.length === 0 || texts.length > MAX_SECRETS)
    throw fileError(path, `has ${texts.length} secrets, and must have 1 to ${MAX_SECRETS}, one a line`)
  for (const [i, text] of texts.entries()) parseSecret(text, `secret ${i + 1} of ${path}`)
  return texts
}

/** Makes the file with a new secret where there is none. */
export function ensureSecretFile(path: string): void {
  if (statSync(path, { throwIfNoEntry: false }) !== undefined) return
  writeSecretFile(path, [generateSecret()])
}

/** Replaces the file as a whole: whoever reads it sees the old one or the new one. */
export function writeSecretFile(path: string, texts: readonly string[]): void {
  const next = `${path}.${process.pid}.new`
  try {
    const fd = openSync(next, 'wx', 0o600)
    try {
      writeSync(fd, `${texts.join('\n')}\n`)
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    renameSync(next, path)
  } catch (error) {
    rmSync(next, { force: true })
    throw fileError(path, 'cannot be written', error)
  }
}

function stampOf(path: string): string {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false })
  return stat === undefined ? '' : `${stat.ino} ${stat.size} ${stat.mtimeNs}`
}

function fileError(path: string, what: string, error?: unknown): SluiceError {
  const code = error === undefined ? '' : `: the system says ${(error as NodeJS.ErrnoException).code}`
  return new SluiceError('INVALID_OPTION', `The file of webhook secrets, ${path}, ${what}${code}.`, {
    option: 'secretFile',
  })
}
