/**
 * The cache of a journal: the tables of the SQLite log in a private database of this process, which is gone with it. It
 * holds what the journal says, so it is never synced, and built again whenever this process becomes the owner.
 *
 *     filling --endFilling--> open -- put, catchUp, … --> closed
 *
 * What a commit changes is put here when the journal has it, and written when the thread comes to rest: by then whoever waits
 * for the commit has the answer, and the next append is on its way to the broker. Invariants:
 *  1. At most one commit is put and not written; whoever reads, writes it first, so nobody sees that it was late.
 *  2. What the step after it wants to be trimmed is trimmed after it, and nothing is deleted before that step is durable.
 *  3. Once writing has failed, everything fails with why.
 */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { SluiceError } from '../../errors.ts'
import type { LogExtent, LogState, LogTopic, StoredBatch } from '../contract.ts'
import { BatchTable } from '../sqlite/batch-table.ts'
import { createTables, PAGE_BYTES, prepareRows } from '../sqlite/database.ts'
import { StateTable } from '../sqlite/state-table.ts'
import type { CommitBody, StateChange, TopicMark } from './entry.ts'

const CACHE_KIB = 32_768
/** Entries that are put into the cache within one transaction while it is filled. */
const FILL_BYTES = 8 * 1024 ** 2

interface Put {
  readonly batches: readonly StoredBatch[]
  readonly changes: Iterable<StateChange>
}

export class Cache {
  readonly state: LogState = {
    get: (key) => {
      this.catchUp()
      return this.#table.get(key)
    },
    range: (from, to, limit) => {
      this.catchUp()
      return this.#table.range(from, to, limit)
    },
  }
  readonly #database: DatabaseSync
  readonly #batches: BatchTable
  readonly #table: StateTable
  readonly #topics = new Map<number, TopicMark>()
  readonly #begin: StatementSync
  readonly #commit: StatementSync
  readonly #countPages: StatementSync
  #filledBytes = 0
  #isFilling = true
  /** Put, and not written yet; and what is to be trimmed then. */
  #put: Put | null = null
  #trims: (readonly [id: number, offset: number])[] = []
  #failure: { readonly error: unknown } | null = null

  /** In `folder`, or where the system keeps what is temporary. */
  constructor(folder: string | null) {
    // '' is a private database that SQLite removes when it is closed. A file of ours is removed as soon as it is open.
    const path = folder === null ? '' : join(folder, `cache-${process.pid}-${performance.now()}.db`)
    this.#database = new DatabaseSync(path)
    this.#database.exec(`
      PRAGMA page_size=${PAGE_BYTES}; PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;
      PRAGMA cache_size=-${CACHE_KIB}; PRAGMA temp_store=MEMORY; PRAGMA trusted_schema=OFF;
    `)
    createTables(this.#database)
    if (path !== '' && process.platform !== 'win32') rmSync(path)
    const damaged = (what: string): never => {
      throw new SluiceError('CORRUPT', `The cache of the journal is damaged: ${what}. The journal is not; start again.`)
    }
    this.#batches = new BatchTable(this.#database, damaged)
    this.#table = new StateTable(this.#database, damaged)
    this.#begin = this.#database.prepare('BEGIN IMMEDIATE')
    this.#commit = this.#database.prepare('COMMIT')
    this.#countPages = prepareRows(this.#database, 'PRAGMA page_count')
    this.#begin.run()
  }

  get rowsRead(): number {
    return this.#batches.rowsRead
  }

  get bytes(): number {
    this.catchUp()
    const [pages] = this.#countPages.get() as unknown as [number]
    return pages * PAGE_BYTES
  }

  get topics(): IterableIterator<TopicMark> {
    return this.#topics.values()
  }

  /** What stands in a commit of the journal, in the order of the journal. Its batches may come in any order. */
  fill(commit: CommitBody): void {
    for (const topic of commit.topics) this.#note(topic)
    for (const batch of commit.copiedBatches) this.#restore(batch)
    for (const batch of commit.batches) this.#restore(batch)
    this.#write(commit.copiedState)
    this.#write(commit.state)
    if (this.#filledBytes < FILL_BYTES) return
    this.#commit.run()
    this.#begin.run()
    this.#filledBytes = 0
  }

  /** Everything is there: what a topic has kept must be without a gap (P13). Throws CORRUPT. */
  endFilling(): void {
    for (const { id, name, trimTo } of this.#topics.values()) this.#batches.declareRestored(id, name, trimTo)
    this.#batches.keep()
    this.#commit.run()
    this.#isFilling = false
  }

  /** Whether a topic is known; `declare` makes it so. */
  has(id: number): boolean {
    return this.#topics.has(id)
  }

  declare({ id, name, partitions }: LogTopic): LogExtent {
    this.catchUp()
    if (!this.#topics.has(id)) this.#topics.set(id, { id, name, trimTo: 0 })
    const extent = this.#batches.declare({ id, name, partitions })
    this.#batches.keep()
    return extent
  }

  read(topic: number, offset: number, maxBytes: number): readonly StoredBatch[] {
    this.catchUp()
    return this.#batches.read(topic, offset, maxBytes)
  }

  /** What was kept in the journal. Copies are here already. */
  put(batches: readonly StoredBatch[], changes: Iterable<StateChange>): void {
    this.catchUp()
    this.#put = { batches, changes }
  }

  /** Writes what was put. */
  catchUp(): void {
    if (this.#failure !== null) throw this.#failure.error
    if (this.#put === null) return
    try {
      this.#apply(this.#put)
    } catch (error) {
      this.#failure = { error }
      throw error
    }
  }

  #apply({ batches, changes }: Put): void {
    this.#begin.run()
    let bytes = 0
    for (const batch of batches) {
      this.#batches.append(batch)
      bytes += batch.bytes.byteLength
    }
    this.#write(changes)
    this.#batches.trimSlice(bytes)
    this.#commit.run()
    this.#batches.keep()
    this.#put = null
    for (const [id, offset] of this.#trims) this.#batches.trim(id, offset)
    this.#trims = []
  }

  /** Answers whether there is something new to tell the journal. */
  trim(id: number, offset: number): boolean {
    if (this.#put === null) this.#batches.trim(id, offset)
    else this.#trims.push([id, offset])
    const topic = this.#topics.get(id)
    if (topic === undefined || topic.trimTo >= offset) return false
    this.#topics.set(id, { ...topic, trimTo: offset })
    return true
  }

  close(): void {
    if (this.#isFilling) this.#commit.run()
    this.#isFilling = false
    this.#put = null
    if (this.#database.isOpen) this.#database.close()
  }

  #note(topic: TopicMark): void {
    const trimTo = Math.max(topic.trimTo, this.#topics.get(topic.id)?.trimTo ?? 0)
    this.#topics.set(topic.id, { ...topic, trimTo })
  }

  #restore(batch: StoredBatch): void {
    this.#batches.restore(batch)
    this.#filledBytes += batch.bytes.byteLength
  }

  #write(changes: Iterable<StateChange>): void {
    for (const [key, value] of changes) this.#filledBytes += this.#table.write(key, value)
  }
}
