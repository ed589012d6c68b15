/**
 * Reads every row of a database and checks it: the checksum of each batch and each key, that batches follow one another
 * without a gap, and that there is nothing besides. Used on copies and on folders that nobody has open; changes nothing.
 */
import { DatabaseSync } from 'node:sqlite'
import { pathToFileURL } from 'node:url'
import { BatchTable } from './batch-table.ts'
import { prepareRows } from './database.ts'
import { sortFailure } from './failure.ts'
import { decodeStamp, type Stamp } from './stamp.ts'
import { StateTable } from './state-table.ts'

/** How much is read between two steps of the walk. */
const STEP_BYTES = 1_048_576
const STEP_ENTRIES = 1_000
/** Above every key, since keys are ASCII. */
const KEYS_END = '\x7f'
/** See message-batch.ts: what a batch has besides what `startBytes` counts. */
const BATCH_HEADER_BYTES = 16

export interface RowFacts {
  readonly stamp: Stamp
  readonly topics: number
  readonly batches: number
  readonly messages: number
  /** Keys of the ledger's state. */
  readonly keys: number
  readonly bytes: number
}

/** Opens a database file whose write-ahead log is empty, such that nothing is written, locked or made beside it. */
export function openUntouched(path: string): DatabaseSync {
  const url = pathToFileURL(path)
  url.search = 'immutable=1'
  return new DatabaseSync(url, { readOnly: true })
}

/** Walks in steps, each of which gives the bytes it read. `damaged` throws. */
export function* walkRows(database: DatabaseSync, damaged: (what: string) => never): Generator<number, RowFacts> {
  try {
    const [stampBytes] = (prepareRows(database, 'SELECT data FROM stamp WHERE id = 1').get() ?? []) as [Uint8Array?]
    const stamp = stampBytes === undefined ? null : decodeStamp(stampBytes)
    if (stamp === null) return damaged('the stamp of the last commit is not whole')
    const [check] = prepareRows(database, 'PRAGMA quick_check(1)').get() as unknown as [string]
    if (check !== 'ok') return damaged(`SQLite reports: ${check}`)
    const batches = yield* walkBatches(database, damaged)
    const keys = yield* walkKeys(database, damaged)
    return { stamp, ...batches, keys: keys.keys, bytes: batches.bytes + keys.bytes }
  } catch (error) {
    if (sortFailure(error) !== 'corrupt') throw error
    return damaged(`SQLite reports: ${(error as Error).message}`)
  }
}

function* walkBatches(database: DatabaseSync, damaged: (what: string) => never) {
  const table = new BatchTable(database, damaged)
  const topics = prepareRows(database, 'SELECT id, name FROM topic ORDER BY id').all() as unknown as [number, string][]
  const facts = { topics: topics.length, batches: 0, messages: 0, bytes: 0 }
  for (const [id, name] of topics) {
    const { earliest, head } = table.declare({ id, name, partitions: 1 })
    let startBytes = -1
    for (let offset = earliest; offset < head; ) {
      const found = table.read(id, offset, STEP_BYTES)
      let bytes = 0
      for (const batch of found) {
        if (startBytes >= 0 && batch.startBytes !== startBytes)
          damaged(`topic ${name} does not go on at offset ${batch.baseOffset} with the bytes that it had`)
        startBytes = batch.startBytes + batch.bytes.byteLength - BATCH_HEADER_BYTES
        offset = batch.baseOffset + batch.count
        facts.messages += batch.count
        bytes += batch.bytes.byteLength
      }
      facts.batches += found.length
      facts.bytes += bytes
      yield bytes
    }
  }
  const [rows] = prepareRows(database, 'SELECT count(*) FROM batch').get() as unknown as [number]
  if (rows !== facts.batches) damaged(`there are ${rows} batches where the topics have ${facts.batches}`)
  return facts
}

function* walkKeys(database: DatabaseSync, damaged: (what: string) => never) {
  const table = new StateTable(database, damaged)
  const facts = { keys: 0, bytes: 0 }
  for (let from = ''; ; ) {
    const entries = table.range(from, KEYS_END, STEP_ENTRIES)
    let bytes = 0
    for (const [key, value] of entries) bytes += key.length + value.byteLength
    facts.keys += entries.length
    facts.bytes += bytes
    yield bytes
    if (entries.length < STEP_ENTRIES) return facts
    from = `${entries.at(-1)?.[0]}\0`
  }
}
