/** The log of a data folder on disk. What it is and how it works: sqlite/log.ts; its files: sqlite/folder.ts. */
import { closeSync, openSync } from 'node:fs'
import { Checkpoints } from './sqlite/checkpoint.ts'
import { openDatabase } from './sqlite/database.ts'
import { corrupt, openFailure } from './sqlite/failure.ts'
import {
  type Closable,
  checkFiles,
  closeAll,
  createFiles,
  openGuard,
  pathsIn,
  prepareFolder,
  settleWal,
} from './sqlite/folder.ts'
import { SqliteLog } from './sqlite/log.ts'
import { takeOwnerLock } from './sqlite/owner-lock.ts'
import { currentBoot } from './sqlite/page-guard.ts'
import { Reserve } from './sqlite/reserve.ts'
import { decodeStamp } from './sqlite/stamp.ts'

export type { SqliteLog }

const MIB = 1024 ** 2

export interface SqliteLogOptions {
  /**
   * What an acknowledged commit survives: `disk` a power cut, at the price of a sync; `os` a killed process.
   * @default 'disk'
   */
  readonly durability?: 'os' | 'disk'
  /**
   * How long the WAL becomes before its pages are moved to the database, in bytes. More makes the pauses rarer and
   * longer (up to 2 ms per MiB), at the same throughput (measured: 4, 8 and 16 MiB).
   * @default 4 MiB
   */
  readonly checkpointBytes?: number
  /**
   * How much room is kept on the disk for settling when it is full, in bytes. Less than twice `checkpointBytes` may not
   * hold what a full WAL brings to the database: then settling answers `full` too.
   * @default 16 MiB
   */
  readonly reserveBytes?: number
  /**
   * How much of the database is kept in memory, in bytes.
   * @default 16 MiB
   */
  readonly cacheBytes?: number
  /**
   * How much of the database is verified before `openSqliteLog` returns, in bytes (2 GiB: about 1 s, where the system has
   * it in memory). The rest follows, 16 MiB with each checkpoint.
   * @default 2 GiB
   */
  readonly verifyBytes?: number
}

/**
 * Opens the data folder and makes it where there is none. Throws `LOCKED`, `READ_ONLY`, `FORMAT_NEWER`, `CORRUPT`,
 * `DISK_FULL`, `UNSUPPORTED` or `ENGINE_FAILED`; nothing stays open then.
 */
export function openSqliteLog(folder: string, options: SqliteLogOptions = {}): SqliteLog {
  const opened: Closable[] = []
  try {
    return openFolder(folder, options, opened)
  } catch (error) {
    closeAll(opened)
    throw openFailure(folder, error)
  }
}

function openFolder(folder: string, options: SqliteLogOptions, opened: Closable[]): SqliteLog {
  const {
    durability = 'disk',
    checkpointBytes = 4 * MIB,
    reserveBytes = 16 * MIB,
    cacheBytes = 16 * MIB,
    verifyBytes = 2048 * MIB,
  } = options
  const keep = <T extends Closable>(resource: T): T => {
    opened.push(resource)
    return resource
  }
  const paths = pathsIn(folder)
  prepareFolder(folder)
  keep(takeOwnerLock(folder))
  createFiles(paths)
  // Open for as long as SQLite has the file: closing it would drop the locks that SQLite holds on it in this process.
  const databaseFile = openSync(paths.database, 'r')
  keep({ close: () => closeSync(databaseFile) })
  const guard = keep(openGuard(paths))
  const facts = checkFiles(paths, databaseFile, guard, verifyBytes)
  guard.setOwner(durability === 'disk', currentBoot())
  // That commits are not synced is known before the first that a power cut may take (folder.ts).
  if (durability === 'os' && facts.mark.isSynced) {
    guard.writeMark(facts.stamp.commit)
    guard.sync()
  }
  settleWal(paths, checkpointBytes)
  const reserve = keep(new Reserve(folder, paths.reserve, reserveBytes))
  const database = openDatabase(paths.database, durability === 'disk' ? 'FULL' : 'NORMAL', cacheBytes)
  keep(database.database)
  const [stampBytes] = (database.readStamp.get() ?? []) as unknown as [Uint8Array?]
  if (stampBytes === undefined || decodeStamp(stampBytes)?.commit !== facts.stamp.commit) {
    throw corrupt(folder, `SQLite does not find commit ${facts.stamp.commit}, which the files hold`)
  }
  const checkpoints = keep(
    new Checkpoints({ paths, database, databaseFile, guard, durability, checkpointBytes }, facts),
  )
  return new SqliteLog({ paths, guard, reserve, database, checkpoints, facts, durability, opened })
}
