/**
 * The database of a data folder: its settings, its tables, and the statements that the log runs.
 *
 *     stamp  the page that every commit writes (see stamp.ts); made first, so that its page is page 2
 *     topic  id, name, the earliest offset that is kept, and how far batches may be deleted
 *     batch  id = topic * 2^45 + base offset; what stands in StoredBatch; the checksum of the row (see rows.ts)
 *     state  what the ledger decided: key, value, checksum of both
 *
 * `batch` is a plain rowid table, only ever appended to at the end of each topic and deleted from at its beginning.
 * Measured against PRIMARY KEY(topic, base) WITHOUT ROWID (p50 of a commit without sync, 4 KiB pages): 36 KB 0.039 ms
 * against 0.077, 64 KB 0.077 against 0.138, 64 KB over 8 topics 0.086 against 0.223; reading back 1,440 MB/s against
 * 1,040: the inner pages of a WITHOUT ROWID tree hold whole rows. 2^45 messages of a topic are three years at 400,000/s.
 */
import { DatabaseSync, type StatementSync } from 'node:sqlite'

/** "Slce" in ASCII: what `file` and SQLite's own tools see. */
export const APPLICATION_ID = 0x536c6365
/** What leads from format 1 to 2, from 2 to 3 and so on. There is none yet. */
const MIGRATIONS: readonly Migration[] = []
/** The version of everything in a data folder. A reader refuses a higher one, and brings a lower one to its own. */
export const FORMAT_VERSION = 1 + MIGRATIONS.length
export const PAGE_BYTES = 4_096
/** The most messages in a topic, and with it the first id of the next topic. */
export const TOPIC_SPAN = 2 ** 45
/** The highest topic id: SQLite's row ids have 63 bits. */
export const MAX_TOPIC_ID = 2 ** 18 - 1

const SCHEMA = `
  CREATE TABLE stamp(id INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
  CREATE TABLE topic(id INTEGER PRIMARY KEY, name TEXT NOT NULL, earliest INTEGER NOT NULL, trim_to INTEGER NOT NULL, sum INTEGER NOT NULL) STRICT;
  CREATE TABLE batch(id INTEGER PRIMARY KEY, count INTEGER NOT NULL, at REAL NOT NULL, start_bytes INTEGER NOT NULL, sum INTEGER NOT NULL, bytes BLOB NOT NULL) STRICT;
  CREATE TABLE state(key TEXT PRIMARY KEY, sum INTEGER NOT NULL, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
`

/** Changes the tables; returns about how many pages it wrote. */
export type Migration = (database: DatabaseSync) => number

/** Runs the steps that the database has not seen, each in a transaction of its own together with its number. */
export function migrate(database: DatabaseSync, transact: (write: () => number) => void, steps = MIGRATIONS): void {
  const [version] = prepareRows(database, 'PRAGMA user_version').get() as unknown as [number]
  for (const [index, step] of steps.entries()) {
    if (index + 1 < version) continue
    transact(() => {
      const pages = step(database)
      database.exec(`PRAGMA user_version=${index + 2}`)
      return pages
    })
  }
}

/** Makes the tables in an empty database. */
export function createTables(database: DatabaseSync): void {
  database.exec(SCHEMA)
}

export interface LogDatabase {
  readonly database: DatabaseSync
  readonly begin: StatementSync
  readonly commit: StatementSync
  readonly rollback: StatementSync
  readonly checkpoint: StatementSync
  readonly countFreePages: StatementSync
  readonly readStamp: StatementSync
  readonly writeStamp: StatementSync
}

/** Makes an empty database, whole in one file: the caller has given it a name that nobody opens yet. */
export function createDatabase(path: string, stamp: Uint8Array): void {
  const database = new DatabaseSync(path)
  try {
    database.exec(
      `PRAGMA page_size=${PAGE_BYTES}; PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL`,
    )
    database.exec('BEGIN IMMEDIATE')
    createTables(database)
    database.exec(`PRAGMA application_id=${APPLICATION_ID}; PRAGMA user_version=${FORMAT_VERSION}`)
    database.prepare('INSERT INTO stamp VALUES(1, ?)').run(stamp)
    database.exec('COMMIT')
  } finally {
    database.close()
  }
}

export function openDatabase(path: string, synchronous: 'FULL' | 'NORMAL', cacheBytes: number): LogDatabase {
  const database = new DatabaseSync(path, { timeout: 0 })
  try {
    // EXCLUSIVE before the first access: the index of the WAL then lives in memory and needs no file of its own.
    // `synchronous` is a setting of the connection: a WAL database that is reopened otherwise falls to NORMAL where
    // SQLite was built so, and loses its tail in a power cut. No automatic checkpoint: ours is checkpoint.ts.
    // No spill: the pages of one commit go to the WAL once, at its end.
    database.exec(`
      PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=${synchronous}; PRAGMA fullfsync=ON;
      PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=-1; PRAGMA cache_spill=OFF; PRAGMA mmap_size=0;
      PRAGMA cache_size=-${Math.ceil(cacheBytes / 1024)}; PRAGMA temp_store=MEMORY; PRAGMA trusted_schema=OFF;
      PRAGMA cell_size_check=ON;
    `)
    return {
      database,
      begin: database.prepare('BEGIN IMMEDIATE'),
      commit: database.prepare('COMMIT'),
      rollback: database.prepare('ROLLBACK'),
      checkpoint: prepareRows(database, 'PRAGMA wal_checkpoint(PASSIVE)'),
      countFreePages: prepareRows(database, 'PRAGMA freelist_count'),
      readStamp: prepareRows(database, 'SELECT data FROM stamp WHERE id = 1'),
      writeStamp: database.prepare('UPDATE stamp SET data = ? WHERE id = 1'),
    }
  } catch (error) {
    database.close()
    throw error
  }
}

/** A statement whose rows come as arrays, which Node builds faster than objects. */
export function prepareRows(database: DatabaseSync, sql: string): StatementSync {
  const statement = database.prepare(sql)
  statement.setReturnArrays(true)
  return statement
}
