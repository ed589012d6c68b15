/**
 * The file of API keys, `keys.json` in the data folder unless another is named. The command line writes it and the server
 * reads it, whether or not the other runs.
 *
 *     {"version": 1, "keys": [{"id", "name", "scopes": ["publish:orders.*"], "sha256": "…hex…",
 *                              "createdAtMs", "expiresAtMs": null, "revokedAtMs": null}, …]}
 *
 * It is written whole: to `keys.json.new`, synced, then renamed. That file is made exclusively and so is the lock between
 * two writers, as in git. Both have mode 0600; a file that others may write is refused, since they could add keys.
 */
import {
  closeSync,
  existsSync,
  fchmodSync,
  fsyncSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { SluiceError } from '../../errors.ts'
import { formatGrant, type Grant, parseGrant } from './scopes.ts'

export interface KeyRecord {
  readonly id: string
  /** For people. */
  readonly name: string
  readonly grants: readonly Grant[]
  /** SHA-256 of the secret. */
  readonly hash: Buffer
  readonly createdAtMs: number
  readonly expiresAtMs: number | null
  readonly revokedAtMs: number | null
}

export const KEY_FILE = 'keys.json'
export const MAX_KEYS = 1_000
export const MAX_GRANTS = 64
const VERSION = 1
const OTHERS_MAY_WRITE = 0o022
/** How long another writer is waited for: it needs milliseconds. */
const WRITER_WAIT_MS = 3_000
const WRITER_POLL_MS = 20

/** Printable, so that it does nothing to a terminal or a log. */
export const KEY_NAME = /^[\p{L}\p{N}\p{P}\p{S} ]{1,100}$/u

/** Whether the key is good at that time. */
export function isLive({ expiresAtMs, revokedAtMs }: KeyRecord, nowMs: number): boolean {
  return revokedAtMs === null && (expiresAtMs === null || nowMs < expiresAtMs)
}

/** The keys in the file; none where there is no file. Throws `CORRUPT`, and `INVALID_OPTION` where others may write it. */
export function readKeyFile(path: string): readonly KeyRecord[] {
  if (!existsSync(path)) return []
  if ((statSync(path).mode & OTHERS_MAY_WRITE) !== 0)
    throw new SluiceError(
      'INVALID_OPTION',
      `Other users may write the key file ${path}, and so make keys. Say: chmod 600 ${path}`,
      { path },
    )
  let parsed: unknown
  try {
    parsed = JSON.parse(readFileSync(path, 'utf8'))
  } catch (error) {
    throw damaged(path, (error as Error).message)
  }
  const { version, keys } = Object(parsed) as { version?: unknown; keys?: unknown }
  if (version !== VERSION || !Array.isArray(keys)) throw damaged(path, `it is not a key file of version ${VERSION}`)
  return keys.map((key: unknown, i) => readRecord(path, key, i))
}

/** Writes what `change` makes of the keys, while no other writer does. */
export async function changeKeyFile(
  path: string,
  change: (keys: readonly KeyRecord[]) => readonly KeyRecord[],
): Promise<void> {
  // A link keeps being one.
  const target = existsSync(path) ? realpathSync(path) : path
  const draft = `${target}.new`
  const file = await openDraft(draft)
  try {
    try {
      const keys = change(readKeyFile(target)).map(showRecord)
      fchmodSync(file, 0o600)
      writeFileSync(file, `${JSON.stringify({ version: VERSION, keys }, null, 2)}\n`)
      fsyncSync(file)
    } finally {
      closeSync(file)
    }
    renameSync(draft, target)
  } catch (error) {
    rmSync(draft, { force: true })
    throw error
  }
  const folder = openSync(dirname(target), 'r')
  fsyncSync(folder)
  closeSync(folder)
}

async function openDraft(draft: string): Promise<number> {
  const untilMs = performance.now() + WRITER_WAIT_MS
  for (;;) {
    try {
      return openSync(draft, 'wx', 0o600)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code !== 'EEXIST')
        throw new SluiceError('READ_ONLY', `Cannot write ${draft}: the system says ${code}.`, { path: draft }, error)
    }
    if (performance.now() > untilMs)
      throw new SluiceError(
        'LOCKED',
        `Another process changes the keys, or was killed as it did: ${draft} is there. If no \`sluice keys\` runs, remove it.`,
        { path: draft },
      )
    await delay(WRITER_POLL_MS)
  }
}

function showRecord({ id, name, grants, hash, createdAtMs, expiresAtMs, revokedAtMs }: KeyRecord): object {
  const scopes = grants.map(formatGrant)
  return { id, name, scopes, sha256: hash.toString('hex'), createdAtMs, expiresAtMs, revokedAtMs }
}

function readRecord(path: string, value: unknown, i: number): KeyRecord {
  const key = Object(value) as Record<string, unknown>
  const { id, name, scopes, sha256, createdAtMs, expiresAtMs, revokedAtMs } = key
  const grants = Array.isArray(scopes) ? scopes.map((scope) => parseGrant(String(scope))) : [null]
  const isGood =
    typeof id === 'string' &&
    /^[a-z0-9]{12}$/.test(id) &&
    typeof name === 'string' &&
    typeof sha256 === 'string' &&
    /^[0-9a-f]{64}$/.test(sha256) &&
    !grants.includes(null) &&
    isTime(createdAtMs) &&
    (expiresAtMs === null || isTime(expiresAtMs)) &&
    (revokedAtMs === null || isTime(revokedAtMs))
  if (!isGood) throw damaged(path, `key ${i + 1} is not one`)
  return {
    id,
    name,
    grants: grants as Grant[],
    hash: Buffer.from(sha256, 'hex'),
    createdAtMs: createdAtMs as number,
    expiresAtMs: expiresAtMs as number | null,
    revokedAtMs: revokedAtMs as number | null,
  }
}

function isTime(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

function damaged(path: string, why: string): SluiceError {
  return new SluiceError(
    'CORRUPT',
    `The key file ${path} cannot be read: ${why}. Until it can, no key is good. Restore it, or remove it and make new keys.`,
    { path },
  )
}
