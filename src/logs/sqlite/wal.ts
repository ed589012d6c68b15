/**
 * Reads the write-ahead log of the database without SQLite.
 *
 * SQLite takes the first frame that does not check for the end of the WAL: right after a power cut, and silently wrong
 * where a byte was flipped (one flipped bit: 150 of 500 acknowledged rows left, integrity check ok). The walk finds the
 * same end by the same rules, and looks beyond it. It also gives the checksum of the newest version of each page, which
 * a checkpoint signs before SQLite copies the pages (see page-guard.ts).
 *
 * The file, big endian but for the words that are summed (SQLite's documentation, "WAL Format"):
 *
 *     header      0  4  0x377f0682: words are summed little endian (the other order is of machines we do not run on)
 *                 4  4  3007000
 *                 8  4  bytes in a page
 *                12  4  number of the checkpoint
 *                16  8  salt, new whenever the WAL starts again from its beginning
 *                24  8  checksum of the 24 bytes before
 *     each frame  0  4  page
 *                 4  4  pages in the database after this commit; 0: not the last frame of its commit
 *                 8  8  salt
 *                16  8  checksum: goes on from the frame before, over the first 8 bytes of this header and the page
 *                24  4,096  the page
 *
 * 16 MiB take 12 ms, of which 4 are SQLite's checksums and 5 are ours.
 */
import { fstatSync, readSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import { PAGE_BYTES } from './database.ts'
import { decodeStampPage, STAMP_PAGE, type Stamp } from './stamp.ts'

export const WAL_HEADER_BYTES = 32
const FRAME_HEADER_BYTES = 24
export const FRAME_BYTES = FRAME_HEADER_BYTES + PAGE_BYTES
const MAGIC = 0x377f0682
/** How many frames are read at once: 1 MiB. */
const FRAMES_AT_ONCE = 256

export interface WalFacts {
  /** How many frames there are up to the end of the last whole commit. */
  readonly frames: number
  /** Of each page in those frames, the CRC-32 of its newest version. */
  readonly pageSums: ReadonlyMap<number, number>
  /** How many pages the database has after the last whole commit; 0 where there is none. */
  readonly databasePages: number
  /** The newest page 1 in those frames, or null. */
  readonly firstPage: Uint8Array | null
  /** The newest stamp in those frames, or null where there is none (each commit writes one). */
  readonly stamp: Stamp | null
  /** The highest commit on any stamp in the file, also behind the end and left from earlier rounds; 0: none. */
  readonly highestCommit: number
}

export function walkWal(fd: number): WalFacts {
  const slots = Math.max(0, Math.floor((fstatSync(fd).size - WAL_HEADER_BYTES) / FRAME_BYTES))
  const header = new DataView(new ArrayBuffer(WAL_HEADER_BYTES))
  readFully(fd, new Uint8Array(header.buffer), 0)
  const sum = new Int32Array(2)
  addWords(new Int32Array(header.buffer), 0, 6, sum)
  let isWhole = header.getUint32(0) === MAGIC && header.getUint32(8) === PAGE_BYTES && matches(sum, header, 24)

  const chunk = new ArrayBuffer(Math.min(slots, FRAMES_AT_ONCE) * FRAME_BYTES)
  const bytes = new Uint8Array(chunk)
  const words = new Int32Array(chunk)
  const view = new DataView(chunk)
  const pageSums = new Map<number, number>()
  // What the frames since the last commit hold; it counts once their commit is whole.
  const open: { pages: number[]; sums: number[]; firstPage: Uint8Array | null; stamp: Stamp | null } = { pages: [], sums: [], firstPage: null, stamp: null }
  const facts = { frames: 0, databasePages: 0, firstPage: null as Uint8Array | null, stamp: null as Stamp | null, highestCommit: 0 }

  for (let slot = 0; slot < slots; slot += FRAMES_AT_ONCE) {
    const count = Math.min(FRAMES_AT_ONCE, slots - slot)
    readFully(fd, bytes.subarray(0, count * FRAME_BYTES), WAL_HEADER_BYTES + slot * FRAME_BYTES)
    for (let i = 0, at = 0; i < count; i++, at += FRAME_BYTES) {
      const page = view.getUint32(at)
      const content = bytes.subarray(at + FRAME_HEADER_BYTES, at + FRAME_BYTES)
      const stamp = page === STAMP_PAGE ? decodeStampPage(content) : null
      if (stamp !== null && stamp.commit > facts.highestCommit) facts.highestCommit = stamp.commit
      if (!isWhole) continue
      isWhole = page !== 0 && view.getUint32(at + 8) === header.getUint32(16) && view.getUint32(at + 12) === header.getUint32(20)
      if (!isWhole) continue
      addWords(words, at / 4, at / 4 + 2, sum)
      addWords(words, (at + FRAME_HEADER_BYTES) / 4, (at + FRAME_BYTES) / 4, sum)
      isWhole = matches(sum, view, at + 16)
      if (!isWhole) continue
      open.pages.push(page)
      open.sums.push(crc32(content))
      if (page === 1) open.firstPage = content.slice()
      if (stamp !== null) open.stamp = stamp
      const databasePages = view.getUint32(at + 4)
      if (databasePages === 0) continue
      for (let j = 0; j < open.pages.length; j++) pageSums.set(open.pages[j] as number, open.sums[j] as number)
      facts.frames = slot + i + 1
      facts.databasePages = databasePages
      facts.firstPage = open.firstPage ?? facts.firstPage
      facts.stamp = open.stamp ?? facts.stamp
      open.pages.length = open.sums.length = 0
      open.firstPage = open.stamp = null
    }
  }
  return { ...facts, pageSums }
}

/** SQLite's checksum: two sums, each of which takes in the other. Goes on from `sum`. */
function addWords(words: Int32Array, from: number, to: number, sum: Int32Array): void {
  let first = sum[0] as number
  let second = sum[1] as number
  for (let i = from; i < to; i += 2) {
    first = (first + (words[i] as number) + second) | 0
    second = (second + (words[i + 1] as number) + first) | 0
  }
  sum[0] = first
  sum[1] = second
}

function matches(sum: Int32Array, view: DataView, at: number): boolean {
  return view.getInt32(at) === sum[0] && view.getInt32(at + 4) === sum[1]
}

/** Reads until `target` is full or the file ends; what is not there stays as it was, and its length is returned. */
export function readFully(fd: number, target: Uint8Array, position: number): number {
  let done = 0
  while (done < target.byteLength) {
    const read = readSync(fd, target, done, target.byteLength - done, position + done)
    if (read === 0) break
    done += read
  }
  return done
}
