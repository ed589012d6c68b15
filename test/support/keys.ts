/** API keys for the tests, made as `sluice keys create` makes them. */
import { drawApiKey, hashSecret } from '../../src/server/access/api-key.ts'
import { changeKeyFile } from '../../src/server/access/key-file.ts'
import { type Grant, parseGrant } from '../../src/server/access/scopes.ts'

export interface TestKey {
  readonly id: string
  readonly text: string
  /** The headers of a call with it. */
  readonly headers: { readonly authorization: string }
}

/** Adds a key to the file at `path`, which is made where there is none. */
export async function makeKey(
  path: string,
  scopes: readonly string[],
  { expiresAtMs = null }: { expiresAtMs?: number | null } = {},
): Promise<TestKey> {
  const grants = scopes.map((scope) => parseGrant(scope) as Grant)
  const { id, secret, text } = drawApiKey()
  const record = { id, name: 'test', grants, hash: hashSecret(secret), createdAtMs: 1, expiresAtMs, revokedAtMs: null }
  await changeKeyFile(path, (keys) => [...keys, record])
  return { id, text, headers: { authorization: `Bearer ${text}` } }
}

export async function revokeKey(path: string, id: string): Promise<void> {
  await changeKeyFile(path, (keys) => keys.map((key) => (key.id === id ? { ...key, revokedAtMs: 2 } : key)))
}
