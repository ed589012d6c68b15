/**
 * Room that is kept free for settling on a full disk (P13): a file of real bytes, given back to the file system at the
 * first write that finds no room.
 *
 *     held      the file has its length; commits of every kind are taken
 *       | release()     a write found no room
 *     released  commits with messages answer `full`, unless the database has as much room within its own file, left by
 *       |       messages that were trimmed; what frees messages goes on in the room of the reserve
 *       | reclaim()     the disk has room again, seen when a commit with messages asks
 *     held
 *
 * A part of it takes the pages that a full WAL brings to the database, the rest what settling adds until space returns.
 * The WAL itself keeps its room: it is never made shorter.
 */
import { randomFillSync } from 'node:crypto'
import { closeSync, fstatSync, fsyncSync, ftruncateSync, openSync, statfsSync } from 'node:fs'
import { sortFailure } from './failure.ts'
import { writeFully } from './page-guard.ts'

const CHUNK_BYTES = 1_048_576

export class Reserve {
  isHeld = false
  readonly bytes: number
  readonly #folder: string
  readonly #fd: number
  /** The free space at the last attempt that failed, so that it is not repeated until there is more. */
  #failedAtBytes = -1

  constructor(folder: string, path: string, bytes: number) {
    this.#folder = folder
    this.bytes = bytes
    this.#fd = openSync(path, 'a+', 0o600)
    this.#fill()
  }

  /** Gives the room back. Synced, since some file systems free blocks only then. */
  release(): void {
    if (!this.isHeld) return
    this.isHeld = false
    ftruncateSync(this.#fd, 0)
    fsyncSync(this.#fd)
  }

  /** Takes the room again where the disk has it and `neededBytes` besides. Costs 5 microseconds where it has not. */
  reclaim(neededBytes: number): boolean {
    if (this.isHeld) return true
    const { bavail, bsize } = statfsSync(this.#folder)
    const freeBytes = bavail * bsize
    if (freeBytes < this.bytes + neededBytes || freeBytes <= this.#failedAtBytes) return false
    this.#fill()
    if (!this.isHeld) this.#failedAtBytes = freeBytes
    return this.isHeld
  }

  close(): void {
    closeSync(this.#fd)
  }

  #fill(): void {
    let length = fstatSync(this.#fd).size
    try {
      if (length < this.bytes) {
        // Not zeros: a file system that compresses or leaves holes would keep no room for them.
        const chunk = randomFillSync(Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, this.bytes)))
        for (; length < this.bytes; length += chunk.byteLength) {
          writeFully(this.#fd, chunk.subarray(0, Math.min(chunk.byteLength, this.bytes - length)), length)
        }
      }
      this.isHeld = true
      this.#failedAtBytes = -1
    } catch (error) {
      ftruncateSync(this.#fd, 0)
      if (sortFailure(error) !== 'full') throw error
    }
  }
}
