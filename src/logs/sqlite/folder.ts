/**
 * The files of a data folder: made, and checked before SQLite opens them.
 *
 *     sluice.db       the database
 *     sluice.db-wal   its write-ahead log
 *     sluice.wal      a second name of the same file, see below
 *     sluice.guard    the mark of the last commit and the sums of all pages (page-guard.ts)
 *     sluice.reserve  room for settling on a full disk (reserve.ts)
 *     sluice.lock, sluice.pid   the one owner (owner-lock.ts)
 *     sluice.new*     a database that was not finished; it has never been used and is removed
 *
 * **A byte that was flipped is an error, never data and never a shorter log** (P13). SQLite alone cannot keep that: it
 * has no checksum for the pages of its database, and it takes a bad frame for the end of the WAL. So, before it opens
 * the files, all of them are read and compared; it then cannot find less than was there. Let N be the number on the
 * newest stamp (stamp.ts) in the WAL's whole commits, or where they have none, in the database file.
 *
 *  1. N is at least the commit of the mark. The mark is written after the sync of that commit, so whatever a crash left,
 *     it holds. It finds a WAL that is damaged, cut short or deleted, down to its last commit.
 *  2. No stamp in the WAL, whole or not, is numbered above N + 1. Commit N + 2 only began after N + 1 was synced, so
 *     that its stamp proves that N + 1 was durable. It finds damage where a power cut left an old mark.
 *  3. Every page of the database is whole in the WAL, or has the sum that the guard holds for it.
 *
 * A frame of commit N + 1 that does not check, with no later stamp and a mark of N, is what a power cut leaves of a
 * commit that nobody was told of. The same bytes are left where N + 1 was acknowledged, then a power cut lost its mark
 * (which the system writes back within half a minute), then its frame was damaged before the next open, with no commit
 * in between. These two cannot be told apart; the second is the one loss by damage that is not found.
 *
 * Durability `os` syncs no commit, so after a power cut 1 and 2 may fail by right: they are left out where the mark was
 * written by such an owner in an earlier boot of the machine, and what SQLite finds is what was kept.
 *
 * **Nothing but a checkpoint of our own changes the database file** (it signs the pages first). But SQLite also copies
 * the WAL into the database and deletes it whenever a connection is closed, and Node closes it when a thread or a
 * process ends without `close()`. So the WAL has a second name. Where SQLite deleted the first, it is put back, and its
 * frames, which are all still there, vouch for the pages again. A file system without hard links is refused.
 */
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { crc32 } from 'node:zlib'
import { SluiceError } from '../../errors.ts'
import { APPLICATION_ID, createDatabase, FORMAT_VERSION, PAGE_BYTES } from './database.ts'
import { corrupt } from './failure.ts'
import { currentBoot, type Mark, PageGuard } from './page-guard.ts'
import { decodeStampPage, encodeStamp, STAMP_PAGE, type Stamp } from './stamp.ts'
import { EMPTY_WAL, findHighestCommit, readFully, WAL_HEADER_BYTES, type WalFacts, WalWalk } from './wal.ts'

/** What the folder holds open. */
export interface Closable {
  close(): void
}

/** Closes all, the last first, whatever fails; then throws the first failure. */
export function closeAll(resources: readonly Closable[]): void {
  const failures: unknown[] = []
  for (const resource of resources.toReversed()) {
    try {
      resource.close()
    } catch (error) {
      failures.push(error)
    }
  }
  if (failures.length > 0) throw failures[0]
}

export interface FolderPaths {
  readonly folder: string
  readonly database: string
  readonly wal: string
  readonly walKeeper: string
  readonly guard: string
  readonly reserve: string
}

export function pathsIn(folder: string): FolderPaths {
  const file = (name: string) => join(folder, name)
  return {
    folder,
    database: file('sluice.db'),
    wal: file('sluice.db-wal'),
    walKeeper: file('sluice.wal'),
    guard: file('sluice.guard'),
    reserve: file('sluice.reserve'),
  }
}

/**
 * Makes the folders that are missing, from the top, and gives the first. Level by level: Node's own `recursive` tries for
 * ever where a parent says ENOENT to every new name, as those in /proc do.
 */
function makeFolders(folder: string): string | undefined {
  const missing: string[] = []
  for (let path = folder; !existsSync(path); path = dirname(path)) missing.unshift(path)
  for (const path of missing) {
    try {
      mkdirSync(path, { mode: 0o700 })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
  }
  if (!statSync(folder).isDirectory()) {
    throw new SluiceError(
      'INVALID_OPTION',
      `${folder} is a file; the data is kept in a folder. Name one, or a place for a new one`,
    )
  }
  return missing[0]
}

/** Makes the folder where there is none, and throws where it cannot be written. */
export function prepareFolder(folder: string): void {
  // Mode 0700 only where it is ours: a folder that was there has the mode that somebody chose.
  const made = makeFolders(resolve(folder))
  // Its name is durable before anything in it is: from the folder's parent up to the parent of the first that was made.
  if (made !== undefined) {
    for (let parent = dirname(resolve(folder)); ; parent = dirname(parent)) {
      syncFolder(parent)
      if (parent === dirname(resolve(made))) break
    }
  }
  accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK)
  for (const name of readdirSync(folder)) {
    if (name.startsWith('sluice.')) accessSync(join(folder, name), constants.R_OK | constants.W_OK)
  }
}

/** Makes the database and its guard, where there are none. Needs the owner's lock. */
export function createFiles(paths: FolderPaths): void {
  if (existsSync(paths.database)) return
  // A guard without a database is left where it was being made; one that marks a commit has lost its database.
  if (existsSync(paths.wal) || existsSync(paths.walKeeper) || markedCommit(paths.guard) > 0) {
    throw corrupt(paths.folder, 'the database file sluice.db is missing')
  }
  for (const name of readdirSync(paths.folder)) {
    if (name.startsWith('sluice.new')) rmSync(join(paths.folder, name))
  }
  rmSync(paths.guard, { force: true })
  const unfinished = join(paths.folder, 'sluice.new')
  closeSync(openSync(unfinished, 'wx', 0o600))
  createDatabase(unfinished, encodeStamp({ commit: 0, epoch: 0, clean: true }))
  const guard = new PageGuard(paths.guard, 'wx+')
  guard.setOwner(true, '')
  guard.writeMark(0)
  guard.writeSums(sumsOfFile(unfinished))
  guard.close()
  // Durable before the database has its name: a database without its guard is damage.
  syncFolder(paths.folder)
  renameSync(unfinished, paths.database)
  syncFolder(paths.folder)
}

/** Gives the WAL its two names and, where it is new, its length. After the check, which leaves a damaged folder as it is. */
export function settleWal(paths: FolderPaths, walBytes: number): void {
  const isKept = existsSync(paths.walKeeper)
  if (!existsSync(paths.wal)) {
    if (isKept) linkSync(paths.walKeeper, paths.wal)
    else allocateWal(paths.wal, walBytes)
  }
  if (!isSameFile(paths.wal, paths.walKeeper)) {
    rmSync(paths.walKeeper, { force: true })
    linkWal(paths)
  }
  // The names are durable before a commit is.
  syncFolder(paths.folder)
}

/** The guard of a database that there is. */
export function openGuard(paths: FolderPaths): PageGuard {
  if (!existsSync(paths.guard)) throw corrupt(paths.folder, 'the file sluice.guard is missing')
  return new PageGuard(paths.guard)
}

/** What was found in the files before SQLite opened them. */
export interface FolderFacts {
  readonly stamp: Stamp
  readonly mark: Mark
  /**
   * The next commit is numbered above this: above the stamp, but where an owner without syncs lost commits in a power
   * cut above those, too, so that what is left of them proves nothing later (2).
   */
  readonly highestCommit: number
  readonly databasePages: number
  /** How many frames of the WAL SQLite will find. */
  readonly walFrames: number
  /** Pages up to this one were compared with their sums; those after it are so as checkpoints go by. */
  readonly verifiedPages: number
  /** Where not empty: what a power cut took from commits that were not synced (durability `os`). */
  readonly warnings: readonly string[]
}

/** Compares everything with everything, up to `verifyBytes` of the database, and throws `CORRUPT` or `FORMAT_NEWER`. */
export function checkFiles(paths: FolderPaths, database: number, guard: PageGuard, verifyBytes: number): FolderFacts {
  const damaged = (what: string) => corrupt(paths.folder, what)
  const mark = guard.readMark()
  if (mark === null) throw damaged('the mark in sluice.guard is not whole')
  if (mark.format > FORMAT_VERSION) throw newerFormat(paths.folder, mark.format)
  const { wal, highestCommit } = walkFile(existsSync(paths.wal) ? paths.wal : paths.walKeeper)

  const page = new Uint8Array(PAGE_BYTES)
  readFully(database, page, (STAMP_PAGE - 1) * PAGE_BYTES)
  const stamp = wal.frames > 0 ? wal.stamp : decodeStampPage(page)
  if (stamp === null) throw damaged('the last commit has no stamp')
  const warnings: string[] = []
  const mayBeShorter = !mark.isSynced && (mark.boot === '' || mark.boot !== currentBoot())
  const gap =
    stamp.commit < mark.commit
      ? `commit ${mark.commit} was durable, but the write-ahead log ends at commit ${stamp.commit}`
      : highestCommit > stamp.commit + 1
        ? `commit ${stamp.commit + 1} in the write-ahead log is damaged, and commit ${highestCommit} follows it`
        : null
  if (gap !== null && !mayBeShorter) throw damaged(gap)
  if (gap !== null) warnings.push(`After a power cut, without syncs: ${gap}.`)

  page.fill(0)
  readFully(database, page, 0)
  const first = Buffer.from(wal.firstPage ?? page)
  const databasePages = wal.databasePages || first.readUInt32BE(28)
  const verifiedPages = Math.min(databasePages, Math.ceil(verifyBytes / PAGE_BYTES))
  const damage = guard.findDamage(database, 1, verifiedPages, wal.pageSums)
  if (damage !== null) throw damaged(damage)
  if (first.toString('latin1', 0, 16) !== 'SQLite format 3\0' || first.readUInt32BE(68) !== APPLICATION_ID) {
    throw damaged('sluice.db is not a database of Sluice')
  }
  if (first.readUInt32BE(60) > FORMAT_VERSION) throw newerFormat(paths.folder, first.readUInt32BE(60))
  return {
    stamp,
    mark,
    highestCommit: Math.max(stamp.commit, mark.commit, highestCommit - 1),
    databasePages,
    walFrames: wal.frames,
    verifiedPages,
    warnings,
  }
}

/**
 * After a last checkpoint and after SQLite closed the database, which took the first name of the WAL: makes the WAL an
 * empty one and gives it its name back. Where a power cut undoes that, its frames say what the database says. It keeps
 * its length, since a commit that makes it longer takes 1.7 times as long
 * (p50 0.16 ms against 0.09): the file's new length must be synced too.
 */
export function emptyWal(paths: FolderPaths): void {
  const file = openSync(paths.walKeeper, 'r+')
  writeSync(file, new Uint8Array(WAL_HEADER_BYTES), 0, WAL_HEADER_BYTES, 0)
  closeSync(file)
  renameSync(paths.walKeeper, paths.wal)
  syncFolder(paths.folder)
}

/** Bytes that the files occupy. */
export function storedBytesIn(paths: FolderPaths): number {
  let bytes = 0
  for (const path of [paths.database, paths.wal, paths.guard, paths.reserve]) {
    bytes += statSync(path, { throwIfNoEntry: false })?.size ?? 0
  }
  return bytes
}

export function syncFolder(folder: string): void {
  const file = openSync(folder, 'r')
  fsyncSync(file)
  closeSync(file)
}

/** A WAL of zeros, which SQLite takes for an empty one, at its later length. A full disk makes it shorter. */
function allocateWal(path: string, walBytes: number): void {
  const file = openSync(path, 'wx', 0o600)
  try {
    const zeros = new Uint8Array(1_048_576)
    for (let done = 0; done < walBytes; )
      done += writeSync(file, zeros, 0, Math.min(zeros.byteLength, walBytes - done), done)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
  } finally {
    closeSync(file)
  }
}

function linkWal(paths: FolderPaths): void {
  try {
    linkSync(paths.wal, paths.walKeeper)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'EOPNOTSUPP' && code !== 'ENOSYS') throw error
    throw new SluiceError(
      'UNSUPPORTED',
      `The file system of ${paths.folder} has no hard links, which the data folder needs. Put it on a local disk.`,
      { folder: paths.folder },
      error,
    )
  }
}

function isSameFile(a: string, b: string): boolean {
  const [first, second] = [a, b].map((path) => statSync(path, { throwIfNoEntry: false, bigint: true }))
  return first !== undefined && second !== undefined && first.ino === second.ino && first.dev === second.dev
}

function walkFile(path: string): { wal: WalFacts; highestCommit: number } {
  if (!existsSync(path)) return { wal: EMPTY_WAL, highestCommit: 0 }
  const file = openSync(path, 'r')
  try {
    const wal = new WalWalk(file)
    wal.advance()
    return { wal, highestCommit: findHighestCommit(file) }
  } finally {
    closeSync(file)
  }
}

function markedCommit(path: string): number {
  if (!existsSync(path)) return 0
  const guard = new PageGuard(path)
  const mark = guard.readMark()
  guard.close()
  return mark?.commit ?? 0
}

function sumsOfFile(path: string): Map<number, number> {
  const bytes = readFileSync(path)
  const sums = new Map<number, number>()
  for (let at = 0; at < bytes.byteLength; at += PAGE_BYTES)
    sums.set(at / PAGE_BYTES + 1, crc32(bytes.subarray(at, at + PAGE_BYTES)))
  return sums
}

function newerFormat(folder: string, version: number): SluiceError {
  return new SluiceError(
    'FORMAT_NEWER',
    `The data folder ${folder} has format ${version}; this version reads up to ${FORMAT_VERSION}. Open it with a newer one.`,
    { folder, version, supported: FORMAT_VERSION },
  )
}
