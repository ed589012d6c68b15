/** Checks a data folder that nobody has open, or a backup, down to each row, and changes nothing. */
import { closeSync, copyFileSync, existsSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { SluiceError } from '../../errors.ts'
import { type BackupFacts, openBackup } from './backup.ts'
import { corrupt, openFailure } from './failure.ts'
import { checkFiles, type FolderFacts, pathsIn } from './folder.ts'
import { PageGuard } from './page-guard.ts'
import { openUntouched, type RowFacts, walkRows } from './row-walk.ts'

export interface VerifiedFolder {
  readonly rows: RowFacts
  readonly files: Pick<FolderFacts, 'databasePages' | 'walFrames' | 'warnings'>
}

/**
 * First what opening checks (folder.ts), for all of the database; then every row. Where the write-ahead log holds commits,
 * as after a kill, the rows are read on a copy in `scratch`, since SQLite would move them into the database.
 */
export function* verifyFiles(folder: string, scratch = tmpdir()): Generator<number, VerifiedFolder> {
  const paths = pathsIn(folder)
  if (!existsSync(paths.database) && !existsSync(paths.guard))
    throw new SluiceError('INVALID_OPTION', `${folder} is no data folder of Sluice: there is no sluice.db in it.`, {
      folder,
    })
  const damaged = (what: string): never => {
    throw corrupt(folder, what)
  }
  try {
    if (!existsSync(paths.database)) damaged('the database file sluice.db is missing')
    if (!existsSync(paths.guard)) damaged('the file sluice.guard is missing')
    const guard = new PageGuard(paths.guard, 'r')
    const file = openSync(paths.database, 'r')
    let files: FolderFacts
    try {
      files = checkFiles(paths, file, guard, Number.MAX_SAFE_INTEGER)
    } finally {
      closeSync(file)
      guard.close()
    }
    yield 0
    const rows = yield* files.walFrames === 0
      ? walkFile(openUntouched(paths.database), damaged)
      : walkCopy(existsSync(paths.wal) ? paths.wal : paths.walKeeper, paths.database, scratch, damaged)
    if (rows.stamp.commit !== files.stamp.commit)
      damaged(`SQLite does not find commit ${files.stamp.commit}, which the files hold`)
    return { rows, files }
  } catch (error) {
    throw openFailure(folder, error)
  }
}

export function* verifyBackupFile(file: string): Generator<number, { rows: RowFacts; facts: BackupFacts }> {
  const damaged = (what: string): never => {
    throw new SluiceError('CORRUPT', `The backup ${file} is damaged: ${what}. Take another one.`, {
      file,
      damage: what,
    })
  }
  const backup = openBackup(file)
  try {
    for (const chunk of backup.chunks()) yield chunk.byteLength
  } finally {
    backup.close()
  }
  const rows = yield* walkFile(openUntouched(file), damaged)
  if (rows.stamp.commit !== backup.facts.commit) damaged(`it holds commit ${rows.stamp.commit}, not what its end says`)
  return { rows, facts: backup.facts }
}

function* walkFile(database: DatabaseSync, damaged: (what: string) => never): Generator<number, RowFacts> {
  try {
    return yield* walkRows(database, damaged)
  } finally {
    database.close()
  }
}

function* walkCopy(
  wal: string,
  databaseFile: string,
  scratch: string,
  damaged: (what: string) => never,
): Generator<number, RowFacts> {
  const folder = mkdtempSync(join(scratch, 'sluice-verify-'))
  try {
    const copy = join(folder, basename(databaseFile))
    copyFileSync(databaseFile, copy)
    copyFileSync(wal, `${copy}-wal`)
    return yield* walkFile(new DatabaseSync(copy), damaged)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
