/** What the ledger decided: keys and values, each with a checksum that is bound to its key and verified on every read. */
import { strict as assert } from 'node:assert'
import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { crc32 } from 'node:zlib'
import type { LogState } from '../contract.ts'
import { prepareRows } from './database.ts'

const MAX_KEY_LENGTH = 512
const MAX_VALUE_BYTES = 16 * 1024 ** 2
/** How many entries `entriesOf` reads at once. */
const PAGE_ENTRIES = 256
/** Above every key, since keys are ASCII. */
const KEYS_END = '\x7f'

type Row = [key: string, sum: number, value: Uint8Array]

export class StateTable implements LogState {
  readonly #get: StatementSync
  readonly #range: StatementSync
  readonly #put: StatementSync
  readonly #delete: StatementSync
  readonly #damaged: (what: string) => never

  constructor(database: DatabaseSync, damaged: (what: string) => never) {
    this.#damaged = damaged
    this.#get = prepareRows(database, 'SELECT key, sum, value FROM state WHERE key = ?')
    this.#range = prepareRows(
      database,
      'SELECT key, sum, value FROM state WHERE key >= ? AND key < ? ORDER BY key LIMIT ?',
    )
    this.#put = database.prepare(
      'INSERT INTO state VALUES(?, ?, ?) ON CONFLICT(key) DO UPDATE SET sum = excluded.sum, value = excluded.value',
    )
    this.#delete = database.prepare('DELETE FROM state WHERE key = ?')
  }

  get(key: string): Uint8Array | undefined {
    const row = this.#get.get(key) as unknown as Row | undefined
    return row === undefined ? undefined : this.#verify(row)
  }

  range(from: string, to: string, limit: number): readonly (readonly [string, Uint8Array])[] {
    const rows = this.#range.all(from, to, limit) as unknown as Row[]
    return rows.map((row) => [row[0], this.#verify(row)] as const)
  }

  /** Puts or deletes, within the transaction of the caller. Returns the bytes written. */
  write(key: string, value: Uint8Array | null): number {
    if (value === null) {
      this.#delete.run(key)
      return 0
    }
    assert(
      key.length <= MAX_KEY_LENGTH && value.byteLength <= MAX_VALUE_BYTES,
      `the change ${key} is within its bounds`,
    )
    this.#put.run(key, sumOf(key, value), value)
    return key.length + value.byteLength
  }

  #verify([key, sum, value]: Row): Uint8Array {
    if (sum !== sumOf(key, value)) this.#damaged(`the checksum of the state ${JSON.stringify(key)} does not match`)
    return value
  }
}

/** Every entry of a state, in order of its key. Between two steps of the reader no statement is open. */
export function* entriesOf(state: LogState): Iterable<readonly [string, Uint8Array]> {
  for (let from = ''; ; ) {
    const entries = state.range(from, KEYS_END, PAGE_ENTRIES)
    yield* entries
    if (entries.length < PAGE_ENTRIES) return
    from = `${entries.at(-1)?.[0]}\0`
  }
}

function sumOf(key: string, value: Uint8Array): number {
  return crc32(value, crc32(key))
}
