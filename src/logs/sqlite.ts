import { strict as assert } from 'node:assert'
import { SluiceError } from '../errors.ts'
import { join } from 'node:path'
import { existsSync, mkdirSync, statSync } from 'node:fs'
import type { Commit, CommitOutcome, Durability, Log, LogAbilities, LogExtent, LogHealth, LogTopic, Ownership, StoredBatch } from './contract.ts'
import { BatchTable } from './sqlite/batch-table.ts'
import { createDatabase, openDatabase, type LogDatabase } from './sqlite/database.ts'
import { corrupt, openFailure, sortFailure } from './sqlite/failure.ts'
import { takeOwnerLock, type OwnerLock } from './sqlite/owner-lock.ts'
import { decodeStamp, encodeStamp } from './sqlite/stamp.ts'
import { StateTable } from './sqlite/state-table.ts'

export interface SqliteLogOptions {
  readonly durability?: 'os' | 'disk'
}

export function openSqliteLog(folder: string, options: SqliteLogOptions = {}): SqliteLog {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    const lock = takeOwnerLock(folder)
    try {
      const path = join(folder, 'sluice.db')
      if (!existsSync(path)) createDatabase(path, encodeStamp({ commit: 0, epoch: 0, clean: true }))
      return new SqliteLog(folder, lock, openDatabase(path, options.durability === 'os' ? 'NORMAL' : 'FULL', 16 * 1024 ** 2), options.durability ?? 'disk')
    } catch (e) { lock.release(); throw e }
  } catch (error) {
    throw openFailure(folder, error)
  }
}

class SqliteLog implements Log {
  readonly abilities: LogAbilities
  readonly #folder: string
  readonly #lock: OwnerLock
  readonly #db: LogDatabase
  readonly #batches: BatchTable
  readonly #state: StateTable
  #revoked = new AbortController()
  #epoch: number
  #commitNumber: number
  #clean: boolean
  #closed = false
  #walBytes = 0
  #failure: SluiceError | null = null
  readonly #counters = { commits: 0, syncs: 0, rowsWritten: 0, bytesWritten: 0 }
  readonly #stampBytes = encodeStamp({ commit: 0, epoch: 0, clean: false })

  constructor(folder: string, lock: OwnerLock, db: LogDatabase, durability: Durability) {
    this.abilities = { durability, copies: 1, offsets: 'owner', places: 'dense', outputs: 'atomic', admission: 'exact', partitions: 'one' }
    this.#folder = folder
    this.#lock = lock
    this.#db = db
    const damaged = (what: string): never => { throw corrupt(folder, what) }
    this.#batches = new BatchTable(db.database, damaged)
    this.#state = new StateTable(db.database, damaged)
    const row = db.readStamp.get() as unknown as [Uint8Array]
    const stamp = decodeStamp(row[0])
    if (stamp === null) throw corrupt(folder, 'the stamp')
    this.#epoch = stamp.epoch
    this.#commitNumber = stamp.commit
    this.#clean = stamp.clean
  }

  declare(topics: readonly LogTopic[]): readonly LogExtent[] {
    this.#check()
    const extents: LogExtent[] = []
    const run = () => { for (const topic of topics) extents.push(this.#batches.declare(topic)) }
    if (!topics.some((topic) => this.#batches.isNew(topic))) run()
    else if (!this.#transact(run)) throw new SluiceError('DISK_FULL')
    return extents
  }

  append(batches: readonly StoredBatch[]): CommitOutcome {
    this.#check()
    const offsets: number[] = []
    const ok = this.#transact(() => {
      for (const batch of batches) {
        const placed = this.#batches.atHead(batch)
        offsets.push(placed.baseOffset)
        this.#batches.append(placed)
      }
    })
    return ok ? { status: 'durable', offsets } : { status: 'full' }
  }

  read(topic: number, _partition: number, offset: number, maxBytes: number): readonly StoredBatch[] {
    this.#check()
    return this.#batches.read(topic, offset, maxBytes)
  }

  own(): Ownership {
    this.#check()
    const clean = this.#clean
    this.#revoked.abort(new SluiceError('LOCKED', 'taken again'))
    this.#epoch++
    this.#clean = false
    if (!this.#transact(() => {})) throw new SluiceError('DISK_FULL')
    this.#revoked = new AbortController()
    return { epoch: this.#epoch, state: this.#state, clean, signal: this.#revoked.signal }
  }

  commit(ownership: Ownership, commit: Commit): CommitOutcome {
    this.#check()
    if (ownership.epoch !== this.#epoch) return { status: 'lost' }
    let bytes = 0
    const ok = this.#transact(() => {
      for (const output of commit.outputs) { this.#batches.append(output); bytes += output.bytes.byteLength }
      for (const [key, value] of commit.changes) bytes += this.#state.write(key, value)
      this.#batches.trimSlice(bytes)
    })
    if (!ok) return { status: 'full' }
    this.#counters.commits++
    this.#counters.rowsWritten += commit.outputs.length
    this.#counters.bytesWritten += bytes
    this.#walBytes += bytes * 1.1 + 16_000 + commit.changes.size * 4_200
    if (this.#walBytes > 16 * 1024 ** 2) { this.#db.checkpoint.get(); this.#walBytes = 0 }
    return { status: 'durable', offsets: commit.outputs.map((output) => output.baseOffset) }
  }

  async *changes(_ownership: Ownership): AsyncIterable<readonly [string, Uint8Array]> {
    yield* this.#state.all()
  }

  trim(topic: number, _partition: number, offset: number): void {
    this.#batches.trim(topic, offset)
  }

  health(): LogHealth {
    return {
      status: 'ok', reasons: [],
      counters: { ...this.#counters, rowsRead: this.#batches.rowsRead },
      storedBytes: statSync(join(this.#folder, 'sluice.db')).size,
    }
  }

  close(): void {
    if (this.#closed) return
    if (this.#failure === null) { this.#clean = true; this.#transact(() => {}) }
    this.#closed = true
    this.#db.database.close()
    this.#lock.release()
  }

  #transact(write: () => void): boolean {
    try {
      this.#db.begin.run()
      write()
      this.#db.writeStamp.run(encodeStamp({ commit: this.#commitNumber + 1, epoch: this.#epoch, clean: this.#clean }, this.#stampBytes))
      this.#db.commit.run()
    } catch (error) {
      this.#batches.undo()
      if (this.#db.database.isTransaction) this.#db.rollback.run()
      if (sortFailure(error) === 'full') return false
      throw error
    }
    this.#batches.keep()
    this.#commitNumber++
    this.#counters.syncs++
    return true
  }

  #check(): void {
    if (this.#closed) throw new SluiceError('CLOSED')
    assert(!this.#failure)
  }
}
export type { SqliteLog }
