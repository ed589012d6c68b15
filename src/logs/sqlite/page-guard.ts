/**
 * What the files of a database must hold, kept beside it in `sluice.guard`: a mark that says which commit was durable,
 * and a checksum for every page of the database file.
 *
 *     at     size  what
 *      0        4  0x64476c53 ("SlGd")
 *      4        4  CRC-32 of the 56 bytes that follow
 *      8        4  version of the format of the folder
 *     12        4  bit 0: commits are not synced (durability `os`)
 *     16        8  number of the last commit that was durable, as a double
 *     24       40  the boot of the machine it was written in, as text, filled up with zeros
 *     64           0
 *  4,096  4 * (p-1)  page p: CRC-32 of its 4,096 bytes, 1 where that is 0; 0: never written, so the page is all zeros
 *
 * The **mark** is overwritten after each commit, with no sync of its own (2 microseconds). It lies in one sector, so
 * it is never torn; after a power cut it may be an old one, and never one that is ahead of the WAL, since it is written
 * after the commit was synced. A mark that is not whole is therefore damage.
 *
 * The **page sums** are written and synced before SQLite copies pages from the WAL into the database. Whatever moment a
 * crash falls on, a page whose sum and content may differ still stands in the WAL, where its frame vouches for it. A sum
 * shares a sector with its neighbours, which do not change when it does: a torn sector is the old one or the new one.
 */
import { closeSync, fdatasyncSync, openSync, readFileSync, writeSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import { FORMAT_VERSION, PAGE_BYTES } from './database.ts'
import { readFully } from './wal.ts'

const MAGIC = 0x64476c53
const MARK_BYTES = 64
const BOOT_BYTES = 40
const SUMS_AT = 4_096
/** Sums are changed a block at a time. */
const BLOCK_SUMS = 1_024
const BLOCK_BYTES = BLOCK_SUMS * 4
/** Pages that are read at once when they are verified: 1 MiB. */
const PAGES_AT_ONCE = 256

export interface Mark {
  readonly format: number
  readonly isSynced: boolean
  readonly commit: number
  readonly boot: string
}

/** Says which start of the machine this is, or '' where the system does not tell. */
export function currentBoot(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim().slice(0, BOOT_BYTES)
  } catch {
    return ''
  }
}

export class PageGuard {
  readonly #fd: number
  readonly #mark = Buffer.alloc(MARK_BYTES)

  constructor(path: string, flags: 'r' | 'r+' | 'wx+' = 'r+') {
    this.#fd = openSync(path, flags, 0o600)
  }

  /** The mark, or null where it is not whole. */
  readMark(): Mark | null {
    const bytes = Buffer.alloc(MARK_BYTES)
    if (readFully(this.#fd, bytes, 0) < MARK_BYTES) return null
    if (bytes.readUInt32LE(0) !== MAGIC || bytes.readUInt32LE(4) !== crc32(bytes.subarray(8))) return null
    return {
      format: bytes.readUInt32LE(8),
      isSynced: (bytes.readUInt32LE(12) & 1) === 0,
      commit: bytes.readDoubleLE(16),
      boot: bytes.toString('latin1', 24, 24 + BOOT_BYTES).replace(/\0+$/, ''),
    }
  }

  /** What later marks say besides the commit. */
  setOwner(isSynced: boolean, boot: string): void {
    const mark = this.#mark.fill(0)
    mark.writeUInt32LE(MAGIC, 0)
    mark.writeUInt32LE(FORMAT_VERSION, 8)
    mark.writeUInt32LE(isSynced ? 0 : 1, 12)
    mark.write(boot, 24, BOOT_BYTES, 'latin1')
  }

  /** Says that this commit is durable. */
  writeMark(commit: number): void {
    this.#mark.writeDoubleLE(commit, 16)
    this.#mark.writeUInt32LE(crc32(this.#mark.subarray(8)), 4)
    writeFully(this.#fd, this.#mark, 0)
  }

  /** Keeps the sums of these pages; durable when it returns. */
  writeSums(pageSums: ReadonlyMap<number, number>): void {
    const pages = [...pageSums.keys()].sort((a, b) => a - b)
    const block = Buffer.alloc(BLOCK_BYTES)
    for (let i = 0; i < pages.length; ) {
      const number = Math.floor(((pages[i] as number) - 1) / BLOCK_SUMS)
      block.fill(0)
      readFully(this.#fd, block, SUMS_AT + number * BLOCK_BYTES)
      for (; i < pages.length && Math.floor(((pages[i] as number) - 1) / BLOCK_SUMS) === number; i++) {
        const page = pages[i] as number
        block.writeUInt32LE((pageSums.get(page) as number) || 1, ((page - 1) % BLOCK_SUMS) * 4)
      }
      writeFully(this.#fd, block, SUMS_AT + number * BLOCK_BYTES)
    }
    this.sync()
  }

  /**
   * Compares the pages `from` to `to` (inclusive) of the database file with their sums, but for those in `except`.
   * Returns what is wrong, or null. About 2 GB/s from the system's cache.
   */
  findDamage(database: number, from: number, to: number, except?: { has(page: number): boolean }): string | null {
    const bytes = Buffer.allocUnsafeSlow(PAGES_AT_ONCE * PAGE_BYTES)
    const sums = Buffer.alloc(PAGES_AT_ONCE * 4)
    for (let first = from; first <= to; first += PAGES_AT_ONCE) {
      const count = Math.min(PAGES_AT_ONCE, to - first + 1)
      const read = readFully(database, bytes.subarray(0, count * PAGE_BYTES), (first - 1) * PAGE_BYTES)
      sums.fill(0)
      readFully(this.#fd, sums.subarray(0, count * 4), SUMS_AT + (first - 1) * 4)
      for (let i = 0; i < count; i++) {
        if (except?.has(first + i) === true) continue
        if ((i + 1) * PAGE_BYTES > read) return `the database file ends before page ${first + i} of ${to}`
        const sum = sums.readUInt32LE(i * 4) || ZERO_PAGE_SUM
        const found = crc32(bytes.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES)) || 1
        if (found !== sum) return `the checksum of page ${first + i} of the database file does not match`
      }
    }
    return null
  }

  sync(): void {
    fdatasyncSync(this.#fd)
  }

  close(): void {
    closeSync(this.#fd)
  }
}

const ZERO_PAGE_SUM = crc32(new Uint8Array(PAGE_BYTES))

/** Writes all of `bytes`, or throws: a write may be cut short where the disk is full. */
export function writeFully(fd: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.byteLength; ) {
    done += writeSync(fd, bytes, done, bytes.byteLength - done, position + done)
  }
}
