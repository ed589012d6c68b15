/**
 * The API keys as the running server knows them. The file is looked at again several times a second, so that a key that was
 * made or revoked by `sluice keys` counts without a restart.
 *
 *     open -> guarded      nobody needs a key while there is no key file; once there was one, everybody does for good
 *
 * Invariants
 *  1. `guarded` is never left: a key file that is removed, damaged or not readable means that no key is good.
 *  2. Whoever authenticated a moment ago may be gone now: who holds a `Caller` for long hears of it by `onChange`.
 */
import { statSync } from 'node:fs'
import { isSecretOf, parseApiKey } from './api-key.ts'
import { isLive, type KeyRecord, readKeyFile } from './key-file.ts'
import { Caller } from './scopes.ts'

interface Known {
  readonly record: KeyRecord
  readonly caller: Caller
}

export interface KeyRingOptions {
  readonly path: string
  now(): number
  /** Told when the file cannot be read, once for each change of it. */
  onDamage(error: unknown): void
}

export class KeyRing {
  readonly #path: string
  readonly #now: () => number
  readonly #onDamage: (error: unknown) => void
  readonly #listeners: (() => void)[] = []
  #keys = new Map<string, Known>()
  #stamp = ''
  #isGuarded = false

  /** Throws where the file is there and cannot be read. */
  constructor({ path, now, onDamage }: KeyRingOptions) {
    this.#path = path
    this.#now = now
    this.#onDamage = onDamage
    this.#stamp = this.#look()
    this.#load()
  }

  /** Whether calls need a key. */
  get isGuarded(): boolean {
    return this.#isGuarded
  }

  /** Whether any key is good now. */
  get hasLiveKey(): boolean {
    return [...this.#keys.values()].some(({ record }) => isLive(record, this.#now()))
  }

  /** Called when keys came or went. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener)
  }

  /** Whose key it is, or null. It takes as long for one that is nearly right as for one that is not known. */
  authenticate(text: string): Caller | null {
    const key = parseApiKey(text)
    if (key === null) return null
    const known = this.#keys.get(key.id)
    if (!isSecretOf(key.secret, known?.record.hash)) return null
    return this.find(key.id)
  }

  /** The caller of a key that is good now, or null. */
  find(id: string): Caller | null {
    const known = this.#keys.get(id)
    return known !== undefined && isLive(known.record, this.#now()) ? known.caller : null
  }

  /** When the key ends; null: it does not. */
  expiryOf(id: string): number | null {
    return this.#keys.get(id)?.record.expiresAtMs ?? null
  }

  nameOf(id: string): string {
    return this.#keys.get(id)?.record.name ?? ''
  }

  /** Reads the file again where it is another one than before. */
  refresh(): void {
    const stamp = this.#look()
    if (stamp === this.#stamp) return
    this.#stamp = stamp
    try {
      this.#load()
    } catch (error) {
      // Invariant 1.
      this.#keys = new Map()
      this.#isGuarded = true
      this.#onDamage(error)
    }
    for (const listener of this.#listeners) listener()
  }

  #load(): void {
    const keys = readKeyFile(this.#path)
    if (this.#stamp !== '') this.#isGuarded = true
    this.#keys = new Map(
      keys.map((record) => [record.id, { record, caller: new Caller(record.id, record.grants) }] as const),
    )
  }

  /** What tells one state of the file from another; '' where there is none. */
  #look(): string {
    try {
      const { ino, size, mtimeNs, ctimeNs } = statSync(this.#path, { bigint: true })
      return `${ino} ${size} ${mtimeNs} ${ctimeNs}`
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      return code === 'ENOENT' || code === 'ENOTDIR' ? '' : `${code}`
    }
  }
}
