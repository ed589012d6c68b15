/**
 * The memory log: the specification of a log in one sitting, the store of `:memory:`, and the model that a simulation
 * crashes.
 *
 * What would be on a disk is a `MemoryMedium`: a journal of commits. A log opened on a medium replays it. A medium can
 * be told how the next commit meets a crash:
 *   lost   nothing of it reached the medium;
 *   kept   all of it did, but nobody was told;
 *   torn   a part did: its entry fails its check, and since nothing can follow it, the next open takes it off.
 * In each case the commit throws and the log is dead, as a process is; the medium lives on and can be opened again.
 */
import { strict as assert } from 'node:assert'
import { SluiceError } from '../errors.ts'
import { findBatchDamage } from '../message-batch.ts'
import type {
  Commit,
  CommitOutcome,
  Log,
  LogAbilities,
  LogExtent,
  LogHealth,
  LogState,
  LogTopic,
  Ownership,
  StoredBatch,
} from './contract.ts'

export type CrashKind = 'lost' | 'kept' | 'torn'

interface JournalEntry {
  readonly commit: Commit
  torn: boolean
}

/** What survives a crash. */
export class MemoryMedium {
  readonly journal: JournalEntry[] = []
  epoch = 0
  clean = true
  /** How the next commit ends, if not well. */
  crashNext: CrashKind | null = null
  /** While true, commits with outputs answer `full`. */
  full = false
}

const ABILITIES: LogAbilities = {
  durability: 'memory',
  copies: 1,
  outputs: 'atomic',
  admission: 'exact',
  partitions: 'one',
}

/** A log on `medium`, or without one a log that nothing survives and that keeps no journal. */
export function openMemoryLog(medium?: MemoryMedium): MemoryLog {
  return new MemoryLog(medium ?? new MemoryMedium(), medium !== undefined)
}

class MemoryLog implements Log {
  readonly abilities = ABILITIES
  readonly #medium: MemoryMedium
  readonly #state = new SortedState()
  readonly #batches = new Map<number, StoredBatch[]>()
  readonly #revoked = new AbortController()
  #counters = { commits: 0, syncs: 0, rowsRead: 0, rowsWritten: 0, bytesWritten: 0 }
  #storedBytes = 0
  #isDead = false
  readonly #journaled: boolean
  #epoch = 0

  constructor(medium: MemoryMedium, journaled: boolean) {
    this.#medium = medium
    this.#journaled = journaled
    const last = medium.journal.at(-1)
    if (last?.torn === true) medium.journal.pop()
    for (const entry of medium.journal) this.#apply(entry.commit)
  }

  declare(topics: readonly LogTopic[]): readonly LogExtent[] {
    return topics.map(({ id }) => {
      const batches = this.#batches.get(id) ?? []
      const first = batches[0]
      const last = batches.at(-1)
      return {
        topic: id,
        partition: 0,
        earliest: first?.baseOffset ?? 0,
        head: last === undefined ? 0 : last.baseOffset + last.count,
        headBytes: last === undefined ? 0 : last.startBytes + sizesOf(last),
      }
    })
  }

  read(topic: number, _partition: number, offset: number, maxBytes: number): readonly StoredBatch[] {
    const batches = this.#batches.get(topic) ?? []
    let low = 0
    let high = batches.length
    while (low < high) {
      const middle = (low + high) >>> 1
      const batch = batches[middle] as StoredBatch
      if (batch.baseOffset + batch.count <= offset) low = middle + 1
      else high = middle
    }
    const found = []
    for (let bytes = 0; low < batches.length && bytes < maxBytes; low++) {
      const batch = batches[low] as StoredBatch
      const damage = findBatchDamage(batch.bytes)
      if (damage !== null) throw new SluiceError('CORRUPT', `Topic ${topic} at ${batch.baseOffset}: ${damage}`)
      found.push(batch)
      bytes += batch.bytes.byteLength
      this.#counters.rowsRead++
    }
    return found
  }

  own(): Ownership {
    const { clean } = this.#medium
    this.#medium.clean = false
    this.#epoch = ++this.#medium.epoch
    return { epoch: this.#epoch, state: this.#state, clean, signal: this.#revoked.signal }
  }

  commit(ownership: Ownership, commit: Commit): CommitOutcome {
    if (ownership.epoch !== this.#medium.epoch) return { status: 'lost' }
    return this.#keep(commit)
  }

  async *changes(_ownership: Ownership): AsyncIterable<readonly [string, Uint8Array]> {
    yield* this.#state.range('', '\uffff', Number.MAX_SAFE_INTEGER)
  }

  trim(topic: number, _partition: number, offset: number): void {
    const batches = this.#batches.get(topic)
    if (batches === undefined) return
    let count = 0
    for (; count < batches.length - 1; count++) {
      const batch = batches[count] as StoredBatch
      if (batch.baseOffset + batch.count > offset) break
      this.#storedBytes -= batch.bytes.byteLength
    }
    if (count > 0) batches.splice(0, count)
  }

  health(): LogHealth {
    return { status: 'ok', reasons: [], counters: { ...this.#counters }, storedBytes: this.#storedBytes }
  }

  close(): void {
    if (!this.#isDead && this.#epoch === this.#medium.epoch) this.#medium.clean = true
  }

  #keep(commit: Commit): CommitOutcome {
    if (this.#isDead) throw new SluiceError('ENGINE_FAILED', 'The process of this log died in an earlier commit')
    const crash = this.#medium.crashNext
    if (crash === null && this.#medium.full && commit.outputs.length > 0) return { status: 'full' }
    this.#medium.crashNext = null
    if (crash !== 'lost') this.#journal(commit, crash === 'torn')
    if (crash !== null) {
      this.#isDead = true
      throw new SluiceError('ENGINE_FAILED', `The process died in a commit, which was ${crash}`)
    }
    this.#apply(commit)
    this.#counters.commits++
    return { status: 'durable', offsets: commit.outputs.map((output) => output.baseOffset) }
  }

  #journal(commit: Commit, torn: boolean): void {
    if (!this.#journaled) return
    this.#medium.journal.push({ commit: { ...commit, changes: new Map(commit.changes) }, torn })
  }

  #apply(commit: Commit): void {
    for (const output of commit.outputs) {
      let batches = this.#batches.get(output.topic)
      if (batches === undefined) this.#batches.set(output.topic, (batches = []))
      const last = batches.at(-1)
      assert(last === undefined || last.baseOffset + last.count === output.baseOffset, 'places are contiguous')
      batches.push(output)
      this.#storedBytes += output.bytes.byteLength
      this.#counters.rowsWritten++
      this.#counters.bytesWritten += output.bytes.byteLength
    }
    for (const [key, value] of commit.changes) this.#state.put(key, value)
  }
}

export type { MemoryLog }

/** The sum of `BatchView.size` over a batch: all of it but its header. */
function sizesOf(batch: StoredBatch): number {
  return batch.bytes.byteLength - 16
}

/** Keys of a run before it is split. */
const MAX_RUN = 512

/** A map with its keys in order, in short runs, so that a change costs the same however many there are. */
class SortedState implements LogState {
  readonly #values = new Map<string, Uint8Array>()
  /** Ascending; none is empty. */
  readonly #runs: string[][] = []

  get(key: string): Uint8Array | undefined {
    return this.#values.get(key)
  }

  range(from: string, to: string, limit: number): readonly (readonly [string, Uint8Array])[] {
    const found: [string, Uint8Array][] = []
    for (let at = this.#runOf(from); at < this.#runs.length; at++) {
      const run = this.#runs[at] as string[]
      for (let i = placeOf(run, from); i < run.length; i++) {
        const key = run[i] as string
        if (key >= to || found.length >= limit) return found
        found.push([key, this.#values.get(key) as Uint8Array])
      }
    }
    return found
  }

  put(key: string, value: Uint8Array | null): void {
    if (value === null) {
      if (this.#values.delete(key)) this.#remove(key)
    } else {
      if (!this.#values.has(key)) this.#insert(key)
      this.#values.set(key, value)
    }
  }

  #insert(key: string): void {
    if (this.#runs.length === 0) this.#runs.push([])
    const at = Math.min(this.#runOf(key), this.#runs.length - 1)
    const run = this.#runs[at] as string[]
    run.splice(placeOf(run, key), 0, key)
    if (run.length > MAX_RUN) this.#runs.splice(at + 1, 0, run.splice(MAX_RUN / 2))
  }

  #remove(key: string): void {
    const at = this.#runOf(key)
    const run = this.#runs[at] as string[]
    run.splice(placeOf(run, key), 1)
    if (run.length === 0) this.#runs.splice(at, 1)
  }

  /** The index of the first run that does not end below `key`. */
  #runOf(key: string): number {
    return lowest(this.#runs.length, (i) => (this.#runs[i]?.at(-1) as string) >= key)
  }
}

/** The index of the first key that is not below `key`. */
function placeOf(run: readonly string[], key: string): number {
  return lowest(run.length, (i) => (run[i] as string) >= key)
}

/** The first of `count` indexes for which `holds`, which then holds for all that follow; `count`: none. */
function lowest(count: number, holds: (index: number) => boolean): number {
  let low = 0
  let high = count
  while (low < high) {
    const middle = (low + high) >>> 1
    if (holds(middle)) high = middle
    else low = middle + 1
  }
  return low
}
