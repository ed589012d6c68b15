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
 * 8 MiB take 6 ms, of which 2 are SQLite's checksums and 3 are ours.
 */
import { fstatSync, readSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import { PAGE_BYTES } from './database.ts'
import { decodeStampPage, STAMP_PAGE, type Stamp } from './stamp.ts'

export const WAL_HEADER_BYTES = 32
const FRAME_HEADER_BYTES = 24
export const FRAME_BYTES = FRAME_HEADER_BYTES + PAGE_BYTES
const MAGIC = 0x377f0682
/** How many frames are read at once: 264 KB. */
const FRAMES_AT_ONCE = 64

/** What a WAL holds, as of its last whole commit. */
export interface WalFacts {
  /** How many frames there are up to the end of that commit. */
  readonly frames: number
  /** How many pages the database has after it; 0 where there is none. */
  readonly databasePages: number
  /** The stamp of that commit, or null where there is none. */
  readonly stamp: Stamp | null
  /** The newest page 1 in those frames, or null. */
  readonly firstPage: Uint8Array | null
  /** Of each page in those frames, the CRC-32 of its newest version. */
  readonly pageSums: ReadonlyMap<number, number>
}

export const EMPTY_WAL: WalFacts = { frames: 0, databasePages: 0, stamp: null, firstPage: null, pageSums: new Map() }

/** Follows the WAL from its beginning as it grows. */
export class WalWalk implements WalFacts {
  frames = 0
  databasePages = 0
  stamp: Stamp | null = null
  firstPage: Uint8Array | null = null
  readonly pageSums = new Map<number, number>()
  readonly #fd: number
  readonly #header = new DataView(new ArrayBuffer(WAL_HEADER_BYTES))
  readonly #chunk = new ArrayBuffer(FRAMES_AT_ONCE * FRAME_BYTES)
  readonly #bytes = new Uint8Array(this.#chunk)
  readonly #words = new Int32Array(this.#chunk)
  readonly #view = new DataView(this.#chunk)
  /** The checksum of the last frame that was whole, how many those are, and the checksum at the last whole commit. */
  readonly #sum = new Int32Array(2)
  readonly #commitSum = new Int32Array(2)
  #whole = 0
  /** Pages and sums of the frames after the last whole commit. */
  #openPages: number[] = []
  #openSums: number[] = []
  #openFirstPage: Uint8Array | null = null
  #openStamp: Stamp | null = null

  constructor(fd: number) {
    this.#fd = fd
  }

  /** Goes on to the last whole commit. */
  advance(): void {
    // From the last whole commit: whole frames behind it are of a commit that failed, and are written over by the next.
    this.#forgetOpen()
    this.#whole = this.frames
    this.#sum.set(this.#commitSum)
    if (this.#whole === 0 && !this.#readHeader()) return
    for (;;) {
      const read = readFully(this.#fd, this.#bytes, WAL_HEADER_BYTES + this.#whole * FRAME_BYTES)
      const count = Math.floor(read / FRAME_BYTES)
      for (let i = 0; i < count; i++) {
        if (!this.#take(i * FRAME_BYTES)) return
      }
      if (count < FRAMES_AT_ONCE) return
    }
  }

  /** Begins again, after a checkpoint: the next commit is the first of the file. */
  restart(): void {
    this.frames = this.databasePages = 0
    this.stamp = this.firstPage = null
    this.pageSums.clear()
  }

  #readHeader(): boolean {
    const header = this.#header
    readFully(this.#fd, new Uint8Array(header.buffer), 0)
    this.#sum.fill(0)
    addWords(new Int32Array(header.buffer), 0, 6, this.#sum)
    return header.getUint32(0) === MAGIC && header.getUint32(8) === PAGE_BYTES && this.#matches(header, 24)
  }

  /** Takes the frame at a place of the chunk, if it is whole. */
  #take(at: number): boolean {
    const view = this.#view
    const page = view.getUint32(at)
    if (
      page === 0 ||
      view.getUint32(at + 8) !== this.#header.getUint32(16) ||
      view.getUint32(at + 12) !== this.#header.getUint32(20)
    ) {
      return false
    }
    addWords(this.#words, at / 4, at / 4 + 2, this.#sum)
    addWords(this.#words, (at + FRAME_HEADER_BYTES) / 4, (at + FRAME_BYTES) / 4, this.#sum)
    if (!this.#matches(view, at + 16)) return false
    this.#whole++
    const content = this.#bytes.subarray(at + FRAME_HEADER_BYTES, at + FRAME_BYTES)
    this.#openPages.push(page)
    this.#openSums.push(crc32(content))
    if (page === 1) this.#openFirstPage = content.slice()
    if (page === STAMP_PAGE) this.#openStamp = decodeStampPage(content)
    const databasePages = view.getUint32(at + 4)
    if (databasePages > 0) this.#endCommit(databasePages)
    return true
  }

  #endCommit(databasePages: number): void {
    for (let i = 0; i < this.#openPages.length; i++)
      this.pageSums.set(this.#openPages[i] as number, this.#openSums[i] as number)
    this.frames = this.#whole
    this.#commitSum.set(this.#sum)
    this.databasePages = databasePages
    this.stamp = this.#openStamp
    this.firstPage = this.#openFirstPage ?? this.firstPage
    this.#forgetOpen()
  }

  #forgetOpen(): void {
    this.#openPages = []
    this.#openSums = []
    this.#openFirstPage = this.#openStamp = null
  }

  #matches(view: DataView, at: number): boolean {
    return view.getInt32(at) === this.#sum[0] && view.getInt32(at + 4) === this.#sum[1]
  }
}

/** The highest commit on any stamp in the file, also behind the last whole commit and left from earlier rounds; 0: none. */
export function findHighestCommit(fd: number): number {
  const slots = Math.floor((fstatSync(fd).size - WAL_HEADER_BYTES) / FRAME_BYTES)
  const frame = Buffer.alloc(FRAME_BYTES)
  let highest = 0
  for (let slot = 0; slot < slots; slot++) {
    readFully(fd, frame.subarray(0, 4), WAL_HEADER_BYTES + slot * FRAME_BYTES)
    if (frame.readUInt32BE(0) !== STAMP_PAGE) continue
    readFully(fd, frame, WAL_HEADER_BYTES + slot * FRAME_BYTES)
    highest = Math.max(highest, decodeStampPage(frame.subarray(FRAME_HEADER_BYTES))?.commit ?? 0)
  }
  return highest
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
