/**
 * A backup: one file that is a copy of the database as it was at one commit, with what proves that it is whole.
 *
 *     at           size  what
 *     0       4,096 * n  the pages of the database, which SQLite itself can open
 *     …           4 * n  the CRC-32 of each page, 1 where that is 0
 *     end - 64        4  0x6b426c53 ("SlBk")
 *     end - 60        4  CRC-32 of the 56 bytes that follow
 *     end - 56        4  version of the format of the folder
 *     end - 52        4  n
 *     end - 48        8  number of the last commit in it, as a double
 *     end - 40        8  epoch of its owner, as a double
 *     end - 32        8  when it was finished, ms since 1970, as a double
 *     end - 24        4  CRC-32 of all sums
 *     end - 20       20  0
 *
 * It is taken in two parts, and until the second has ended the file has another name and no end:
 *  1. `copyDatabase`, in the thread of the commits: SQLite's own online backup, a few pages at a time, between commits.
 *     A page that a commit changes after it was copied is copied again by that commit, so that the copy is of the commit
 *     at which it ends, whatever was written meanwhile.
 *  2. `finishBackup`, in a thread of its own: every row is read and checked (row-walk.ts), the sums and the end are
 *     written and synced, and only then the file gets its name.
 * So what a kill or a full disk leaves is never taken for a backup: it has no end, and `readBackup` refuses it.
 *
 * How much a commit is held up: SQLite copies PAGES_AT_ONCE pages under the lock that a commit needs, and the last step
 * syncs the file under it, too; so the file is synced beside it as it grows, and there is little left to sync then.
 */
import {
  closeSync,
  fdatasync,
  fstatSync,
  fsyncSync,
  linkSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { backup, type DatabaseSync } from 'node:sqlite'
import { crc32 } from 'node:zlib'
import { SluiceError } from '../../errors.ts'
import { FORMAT_VERSION, PAGE_BYTES } from './database.ts'
import { sortFailure } from './failure.ts'
import { pathsIn, syncFolder } from './folder.ts'
import { PageGuard, writeFully } from './page-guard.ts'
import { openUntouched, type RowFacts, walkRows } from './row-walk.ts'
import { readFully } from './wal.ts'

const MAGIC = 0x6b426c53
const END_BYTES = 64
/** Copied under one lock: 128 KiB, about 0.2 ms. */
const PAGES_AT_ONCE = 32
/** Synced as it grows, so that the last sync is short. */
const SYNC_PAGES = 2_048
/** Read or written at once: 1 MiB. */
const CHUNK_PAGES = 256

export interface BackupFacts {
  readonly pages: number
  readonly commit: number
  readonly epoch: number
  readonly finishedAtMs: number
}

/** Part 1. Rejects with `DISK_FULL` or what SQLite says; what is left of the file is the caller's to remove. */
export async function copyDatabase(database: DatabaseSync, file: string, signal: AbortSignal): Promise<void> {
  closeSync(openSync(file, 'wx', 0o600))
  const fd = openSync(file, 'r+')
  let synced = 0
  let isSyncing = false
  try {
    await backup(database, file, {
      rate: PAGES_AT_ONCE,
      progress: ({ totalPages, remainingPages }) => {
        signal.throwIfAborted()
        const done = totalPages - remainingPages
        if (isSyncing || done - synced < SYNC_PAGES) return
        synced = done
        isSyncing = true
        // Not waited for, and a failure shows in SQLite's own sync.
        fdatasync(fd, () => {
          isSyncing = false
        })
      },
    })
    signal.throwIfAborted()
  } finally {
    // The number is not given to another file while a sync is under way with it.
    const close = () => (isSyncing ? void setImmediate(close) : closeSync(fd))
    close()
  }
}

/** Part 2. Checks the copy, ends it and gives it its name, which nothing may have yet. */
export function finishBackup(unfinished: string, file: string, nowMs: number): BackupFacts & RowFacts {
  const damaged = (what: string): never => {
    throw new SluiceError('CORRUPT', `The copy is damaged: ${what}. No backup was made; check the disk.`, {
      file,
      damage: what,
    })
  }
  const database = openUntouched(unfinished)
  let rows: RowFacts
  try {
    const walk = walkRows(database, damaged)
    let step = walk.next()
    while (step.done !== true) step = walk.next()
    rows = step.value
  } finally {
    database.close()
  }
  const facts = writeEnd(unfinished, rows, nowMs)
  giveName(unfinished, file)
  syncFolder(dirname(file))
  return { ...rows, ...facts }
}

/** Nothing that has come to have the name meanwhile is replaced, where the file system has hard links. */
function giveName(unfinished: string, file: string): void {
  try {
    linkSync(unfinished, file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') throw error
    renameSync(unfinished, file)
    return
  }
  rmSync(unfinished)
}

function writeEnd(path: string, { stamp }: RowFacts, nowMs: number): BackupFacts {
  const fd = openSync(path, 'r+')
  try {
    const { size } = fstatSync(fd)
    const pages = size / PAGE_BYTES
    const sums = Buffer.alloc(pages * 4)
    const chunk = Buffer.allocUnsafeSlow(CHUNK_PAGES * PAGE_BYTES)
    for (let first = 0; first < pages; first += CHUNK_PAGES) {
      readFully(fd, chunk, first * PAGE_BYTES)
      for (let i = 0; i < Math.min(CHUNK_PAGES, pages - first); i++)
        sums.writeUInt32LE(sumOfPage(chunk, i), (first + i) * 4)
    }
    const facts = { pages, commit: stamp.commit, epoch: stamp.epoch, finishedAtMs: nowMs }
    writeFully(fd, sums, size)
    // The end is written once all before it is durable.
    fsyncSync(fd)
    writeFully(fd, encodeEnd(facts, crc32(sums)), size + sums.byteLength)
    fsyncSync(fd)
    return facts
  } finally {
    closeSync(fd)
  }
}

function encodeEnd({ pages, commit, epoch, finishedAtMs }: BackupFacts, sumOfSums: number): Buffer {
  const end = Buffer.alloc(END_BYTES)
  end.writeUInt32LE(MAGIC, 0)
  end.writeUInt32LE(FORMAT_VERSION, 8)
  end.writeUInt32LE(pages, 12)
  end.writeDoubleLE(commit, 16)
  end.writeDoubleLE(epoch, 24)
  end.writeDoubleLE(finishedAtMs, 32)
  end.writeUInt32LE(sumOfSums, 40)
  end.writeUInt32LE(crc32(end.subarray(8)), 4)
  return end
}

/** A backup that is open, whose end and sums were found whole. */
export interface OpenBackup {
  readonly facts: BackupFacts
  /** The sum of each page, by its number from 1. */
  readonly sums: ReadonlyMap<number, number>
  /** Pages in order, each checked, as chunks. Throws `CORRUPT`. */
  chunks(): Generator<Uint8Array>
  close(): void
}

/** Opens a backup. Throws `CORRUPT` where it is none, was not finished or is damaged, and `FORMAT_NEWER`. */
export function openBackup(file: string): OpenBackup {
  const damaged = (what: string): never => {
    throw new SluiceError('CORRUPT', `${file} is not a whole backup: ${what}. Nothing was changed; take another one.`, {
      file,
      damage: what,
    })
  }
  const fd = openSync(file, 'r')
  try {
    const { size } = fstatSync(fd)
    const end = Buffer.alloc(END_BYTES)
    if (size < END_BYTES) return damaged('it is too short')
    readFully(fd, end, size - END_BYTES)
    if (end.readUInt32LE(0) !== MAGIC) return damaged('it has no end, so it was not finished or was cut off')
    if (end.readUInt32LE(4) !== crc32(end.subarray(8))) return damaged('its end is damaged')
    const format = end.readUInt32LE(8)
    if (format > FORMAT_VERSION)
      throw new SluiceError(
        'FORMAT_NEWER',
        `The backup ${file} has format ${format}; this version reads up to ${FORMAT_VERSION}. Restore it with a newer one.`,
        { file, version: format, supported: FORMAT_VERSION },
      )
    const facts: BackupFacts = {
      pages: end.readUInt32LE(12),
      commit: end.readDoubleLE(16),
      epoch: end.readDoubleLE(24),
      finishedAtMs: end.readDoubleLE(32),
    }
    const { pages } = facts
    if (size !== pages * (PAGE_BYTES + 4) + END_BYTES) return damaged('its length is not what its end says')
    const sumBytes = Buffer.alloc(pages * 4)
    readFully(fd, sumBytes, pages * PAGE_BYTES)
    if (crc32(sumBytes) !== end.readUInt32LE(40)) return damaged('its sums are damaged')
    const sums = new Map<number, number>()
    for (let page = 1; page <= pages; page++) sums.set(page, sumBytes.readUInt32LE((page - 1) * 4))
    return { facts, sums, chunks: () => readChunks(fd, pages, sumBytes, damaged), close: () => closeSync(fd) }
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

function* readChunks(
  fd: number,
  pages: number,
  sums: Buffer,
  damaged: (what: string) => never,
): Generator<Uint8Array, void> {
  const chunk = Buffer.allocUnsafeSlow(CHUNK_PAGES * PAGE_BYTES)
  for (let first = 0; first < pages; first += CHUNK_PAGES) {
    const count = Math.min(CHUNK_PAGES, pages - first)
    readSync(fd, chunk, 0, count * PAGE_BYTES, first * PAGE_BYTES)
    for (let i = 0; i < count; i++) {
      if (sumOfPage(chunk, i) !== sums.readUInt32LE((first + i) * 4))
        damaged(`the checksum of page ${first + i + 1} does not match`)
    }
    yield chunk.subarray(0, count * PAGE_BYTES)
  }
}

/** Makes the files of a data folder of a backup, in an empty folder. Throws `CORRUPT` before anything is used. */
export function unpackBackup(file: string, folder: string): BackupFacts {
  const paths = pathsIn(folder)
  const backupFile = openBackup(file)
  try {
    const fd = openSync(paths.database, 'wx', 0o600)
    try {
      for (const chunk of backupFile.chunks())
        for (let done = 0; done < chunk.byteLength; ) done += writeSync(fd, chunk, done)
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    const { facts, sums } = backupFile
    const guard = new PageGuard(paths.guard, 'wx+')
    guard.setOwner(true, '')
    guard.writeMark(facts.commit)
    guard.writeSums(sums)
    guard.close()
    return facts
  } finally {
    backupFile.close()
  }
}

/** As in page-guard.ts: 0 says that a page was never written. */
function sumOfPage(chunk: Uint8Array, index: number): number {
  return crc32(chunk.subarray(index * PAGE_BYTES, (index + 1) * PAGE_BYTES)) || 1
}

/** What a full or a read-only disk says of a backup; anything else as it is. */
export function backupFailure(error: unknown): unknown {
  if (error instanceof SluiceError) return error
  const text = error instanceof Error ? error.message : String(error)
  switch (sortFailure(error)) {
    case 'full':
      return new SluiceError(
        'DISK_FULL',
        `There is no room on the disk for the copy (${text}), and there is none now. Free some space, or name another disk.`,
        {},
        error,
      )
    case 'readOnly':
      return new SluiceError('READ_ONLY', `The copy cannot be written (${text}).`, {}, error)
    default:
      return error
  }
}
