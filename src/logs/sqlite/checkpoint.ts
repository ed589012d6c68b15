/**
 * Moves what the WAL holds into the database file, so that the WAL starts again from its beginning.
 *
 * The steps, in an order that a crash may cut anywhere (see folder.ts for what is checked afterwards):
 *  1. The WAL is walked: it must end at the last commit, or it was damaged while we ran and nothing is copied.
 *  2. The sums of its pages are written to the guard and synced. The database does not match them yet, but those pages
 *     stand in the WAL, which is durable by now: where commits are not synced, it is synced first.
 *  3. SQLite syncs the WAL, copies the pages, and syncs the database. The WAL is only written over from its beginning by
 *     the commit after that, since the checkpoint was whole: nobody else reads this database.
 *
 * It runs in the thread of the commits, after the answers were sent (the log asks for it in a `setImmediate`), or within
 * a commit where the caller never comes to rest. So that the pause is short, the walk follows the commits, 64 pages at a
 * time (0.2 ms). What is left takes about 2 ms where commits changed the same pages again and again, and where every page
 * of 8 MiB is another, 17 ms, of which 5 are the sync.
 */
import { closeSync, fsyncSync, openSync } from 'node:fs'
import { type LogDatabase, PAGE_BYTES } from './database.ts'
import { corrupt } from './failure.ts'
import type { FolderFacts, FolderPaths } from './folder.ts'
import type { PageGuard } from './page-guard.ts'
import { FRAME_BYTES, WalWalk } from './wal.ts'

/** How much of what was not verified at open is verified after each checkpoint. */
const VERIFY_BYTES = 16 * 1024 ** 2
/** How many pages commits may have written before the walk follows. */
const WALK_PAGES = 64

export interface CheckpointParts {
  readonly paths: FolderPaths
  readonly database: LogDatabase
  /** The database file, open for reading. */
  readonly databaseFile: number
  readonly guard: PageGuard
  readonly durability: 'os' | 'disk'
  /** The length of the WAL at which a checkpoint is due. */
  readonly checkpointBytes: number
}

export class Checkpoints {
  /** Syncs that were done, ours and SQLite's. */
  syncs = 0
  readonly #paths: FolderPaths
  readonly #database: LogDatabase
  readonly #databaseFile: number
  readonly #walFile: number
  readonly #walk: WalWalk
  readonly #guard: PageGuard
  readonly #isSynced: boolean
  readonly #dueFrames: number
  readonly #databasePages: number
  #verifiedPages: number
  /** Whether commits were made since the last checkpoint. */
  #isNeeded: boolean
  /** About how many pages the commits wrote that the walk has not come to. SQLite does not tell. */
  #pages = 0

  constructor(parts: CheckpointParts, facts: FolderFacts) {
    this.#paths = parts.paths
    this.#database = parts.database
    this.#databaseFile = parts.databaseFile
    this.#walFile = openSync(parts.paths.wal, 'r')
    this.#walk = new WalWalk(this.#walFile)
    this.#guard = parts.guard
    this.#isSynced = parts.durability === 'disk'
    this.#dueFrames = Math.floor(parts.checkpointBytes / FRAME_BYTES)
    this.#databasePages = facts.databasePages
    this.#verifiedPages = facts.verifiedPages
    this.#isNeeded = facts.walFrames > 0
    if (this.#isNeeded) this.#walk.advance()
  }

  /** Counts a commit that wrote about so many pages. */
  add(pages: number): void {
    this.#pages += pages
    this.#isNeeded = true
  }

  /** Whether the caller should call `follow` when it has a moment, or at once. */
  get isDue(): 'no' | 'soon' | 'now' {
    if (this.#walk.frames + this.#pages >= 2 * this.#dueFrames) return 'now'
    return this.#pages >= WALK_PAGES || this.#walk.frames + this.#pages >= this.#dueFrames ? 'soon' : 'no'
  }

  /** Walks what was committed. Returns whether it is time to `run`: at once where the walk does not come to its end. */
  follow(lastCommit: number): boolean {
    // Until the next commit the WAL holds what the checkpoint copied: it begins anew only then.
    if (!this.#isNeeded) return false
    this.#walk.advance()
    this.#pages = 0
    return this.#walk.frames >= this.#dueFrames || this.#walk.stamp?.commit !== lastCommit
  }

  /** Runs a checkpoint. Throws `CORRUPT`, or what SQLite or the file system answer: the WAL is then as it was. */
  run(lastCommit: number): void {
    if (!this.#isNeeded) return
    this.follow(lastCommit)
    const { frames: signed, stamp, pageSums } = this.#walk
    if (stamp?.commit !== lastCommit) {
      throw corrupt(
        this.#paths.folder,
        `the write-ahead log ends at commit ${stamp?.commit ?? 'none'} instead of ${lastCommit}`,
      )
    }
    if (!this.#isSynced) fsyncSync(this.#walFile)
    this.#guard.writeSums(pageSums)
    const [busy, frames, copied] = this.#database.checkpoint.get() as unknown as [number, number, number]
    this.syncs += 3
    if (busy !== 0 || frames !== signed || copied !== frames) {
      throw new Error(`the checkpoint copied ${copied} of ${frames} frames where ${signed} were signed`)
    }
    this.#walk.restart()
    this.#isNeeded = false
    this.#verifyMore()
  }

  close(): void {
    closeSync(this.#walFile)
  }

  /** The WAL is empty now in effect, so that each page of the database has the sum that the guard holds. */
  #verifyMore(): void {
    if (this.#verifiedPages >= this.#databasePages) return
    const to = Math.min(this.#databasePages, this.#verifiedPages + VERIFY_BYTES / PAGE_BYTES)
    const damage = this.#guard.findDamage(this.#databaseFile, this.#verifiedPages + 1, to)
    if (damage !== null) throw corrupt(this.#paths.folder, damage)
    this.#verifiedPages = to
  }
}
