/**
 * The stamp: one small row that every commit writes, alone on page 2 of the database.
 *
 * It numbers the commits, so that what a file or a WAL holds can be told without SQLite: the newest whole stamp is the
 * last commit (see recovery.ts). Its length never changes and SQLite fills a page from its end, so that it is the last
 * 32 bytes of the page. It costs a frame of 4 KiB in the WAL, 4 microseconds a commit.
 *
 *     at  size  what
 *      0     4  0x74536c53 ("SlSt")
 *      4     4  CRC-32 of the 24 bytes that follow
 *      8     8  number of the commit, rises by 1, as a double
 *     16     8  epoch of the owner, as a double
 *     24     4  bit 0: given up in good order
 *     28     4  0
 */
import { crc32 } from 'node:zlib'
import { PAGE_BYTES } from './database.ts'

export const STAMP_PAGE = 2
const STAMP_BYTES = 32
const MAGIC = 0x74536c53

export interface Stamp {
  readonly commit: number
  readonly epoch: number
  readonly clean: boolean
}

export function encodeStamp(stamp: Stamp, target: Buffer = Buffer.alloc(STAMP_BYTES)): Buffer {
  target.writeUInt32LE(MAGIC, 0)
  target.writeDoubleLE(stamp.commit, 8)
  target.writeDoubleLE(stamp.epoch, 16)
  target.writeUInt32LE(stamp.clean ? 1 : 0, 24)
  target.writeUInt32LE(crc32(target.subarray(8)), 4)
  return target
}

/** The stamp in its row, or null where the bytes are not a whole one. */
export function decodeStamp(bytes: Uint8Array): Stamp | null {
  if (bytes.byteLength !== STAMP_BYTES) return null
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (buffer.readUInt32LE(0) !== MAGIC || buffer.readUInt32LE(4) !== crc32(buffer.subarray(8))) return null
  return { commit: buffer.readDoubleLE(8), epoch: buffer.readDoubleLE(16), clean: (buffer.readUInt32LE(24) & 1) === 1 }
}

/** The stamp on a copy of page 2. */
export function decodeStampPage(page: Uint8Array): Stamp | null {
  return decodeStamp(page.subarray(PAGE_BYTES - STAMP_BYTES, PAGE_BYTES))
}
