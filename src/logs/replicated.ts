/**
 * The log of a broker: every commit is an entry of a journal (journals/contract.ts), and what all entries say together lies
 * in a cache beside it (replicated/cache.ts), from which everything is read at once. One log lives as long as one grant.
 *
 *     own: claim ──replay up to it──> base ──> open ──commit, commit, …──> ended (lost, failed, closed)
 *
 * It trades memory of the broker for simplicity: the broker keeps what is alive, and at most as much again that is not, and
 * a new owner reads all of it before it begins.
 *
 * The sweep. A journal would grow for ever. So now and then everything that is alive is written into it once more, a little
 * with each commit: in order of the keys, each with the value that it has, and the batches that are kept, each in its place.
 * When the sweep has come through, whatever stands before its start is repeated behind it or changed behind it, and is cut
 * off. A death in the middle of a sweep costs nothing: what was copied is as true as before.
 *
 * Invariants
 *  1. A commit is answered `durable`, and is put into the cache, only after the journal has all of its parts (P1, P6).
 *  2. Epoch and number of entries have no gap within an epoch, and a base says where the epoch before ended, as its owner saw
 *     it; entries of an epoch below one that was claimed before them are overlooked (contract, rule 3).
 *  3. A commit of which a part is missing at the end of its epoch was never answered, and is none.
 *  4. What is cut off lies before the start of a sweep whose last copy is durable.
 */
import { randomBytes } from 'node:crypto'
import { SluiceError } from '../errors.ts'
import type { Grant, Journal } from '../journals/contract.ts'
import type {
  Answer,
  Commit,
  CommitOutcome,
  Log,
  LogAbilities,
  LogExtent,
  LogHealth,
  LogTopic,
  Ownership,
  StoredBatch,
} from './contract.ts'
import { Cache } from './replicated/cache.ts'
import {
  ENTRY_HEAD_BYTES,
  encodeCommit,
  encodeEntry,
  NO_ENGINE,
  splitBody,
  type TopicMark,
} from './replicated/entry.ts'
import { HeardTurns } from './replicated/heard.ts'
import { type Replayed, replayInto } from './replicated/replay.ts'
import { Sweep } from './replicated/sweep.ts'

/**
 * For how long an owner may answer from its cache, from when an append began that proved that nobody had followed it. The next
 * owner waits for longer than that after its claim, so that it never answers before the last answer of the one before. Both
 * measure it with a clock that does not jump; one that stands still, in a machine that is suspended, makes an answer older.
 */
const READ_LEASE_MS = 250
const READ_LEASE_OVER_MS = 300
/** A sweep begins when the journal has this much, and twice what was alive at the last one. */
const SWEEP_BYTES = 64 * 1024 ** 2
/** How long a commit without messages is tried while the broker is full, and how often. */
const FULL_PATIENCE_MS = 30_000
const FULL_RETRY_MS = 250

export interface ReplicatedLogOptions {
  /** Where the cache lies; null: where the system keeps what is temporary. */
  readonly stateDir: string | null
  /** What this process worked on before, if it did: another engine there is an error. */
  readonly engineId: string | null
  /** When a sweep begins, in bytes of the journal. @default 64 MiB */
  readonly sweepBytes?: number
}

export function openReplicatedLog(journal: Journal, grant: Grant, options: ReplicatedLogOptions): ReplicatedLog {
  return new ReplicatedLog(journal, grant, options)
}

class ReplicatedLog implements Log {
  readonly abilities: LogAbilities
  readonly #journal: Journal
  readonly #grant: Grant
  readonly #options: ReplicatedLogOptions
  readonly #cache: Cache
  readonly #counters = { commits: 0, syncs: 0, rowsWritten: 0, bytesWritten: 0 }
  /** Aborted with the grant, or when this log failed. */
  readonly #ended = new AbortController()
  readonly #heard = new HeardTurns()
  #engineId = NO_ENGINE
  #number = 0
  /** What the next commit says of topics. */
  #topics = new Map<number, TopicMark>()
  #sweep: Sweep | null = null
  #sinceSweepBytes = 0
  #aliveBytes = 0
  #isOpen = false
  /** When the last append began that was kept, by a clock that does not jump. */
  #provedMs = Number.NEGATIVE_INFINITY

  constructor(journal: Journal, grant: Grant, options: ReplicatedLogOptions) {
    const { durability, copies } = journal.abilities
    this.abilities = {
      durability,
      copies,
      outputs: 'atomic',
      admission: 'exact',
      partitions: 'one',
    }
    this.#journal = journal
    this.#grant = grant
    this.#options = options
    this.#cache = new Cache(options.stateDir)
    if (grant.signal.aborted) this.#end(grant.signal.reason)
    else grant.signal.addEventListener('abort', () => this.#end(grant.signal.reason), { once: true })
  }

  get epoch(): number {
    return this.#grant.epoch
  }

  /** Before the requests of a member's turn are applied. */
  noteHeard(session: string, turn: number): void {
    this.#heard.note([session, this.#grant.epoch, turn])
  }

  /** The member of the session has stopped, and will not ask what came of it. */
  forgetHeard(session: string): void {
    this.#heard.forget(session, this.#grant.epoch)
  }

  /** How far members of earlier owners were heard, and the first epoch of which all are known. */
  heardBefore(): { readonly since: number; readonly turns: Readonly<Record<string, number>> } {
    const since = this.#heard.forgetBefore(this.#grant.epoch)
    return { since, turns: Object.fromEntries(this.#heard.list().map(([session, , turn]) => [session, turn])) }
  }

  /** Aborted when the grant or this log has ended; the reason is a SluiceError. */
  get signal(): AbortSignal {
    return this.#ended.signal
  }

  /** Whose data this is: given with the first entry ever, the same for all owners. */
  get engineId(): string {
    return this.#engineId
  }

  async own(): Promise<Ownership> {
    const { epoch, signal } = this.#grant
    await this.#append('claim', [new Uint8Array(0)], NO_ENGINE)
    const claimedMs = performance.now()
    const replayed = await replayInto(this.#journal, this.#grant, this.#cache, this.#heard)
    this.#checkEngine(replayed)
    this.#engineId = replayed.engineId ?? randomBytes(8).toString('hex')
    await this.#append(
      'base',
      [Buffer.from(JSON.stringify({ after: replayed.last, first: replayed.first }))],
      this.#engineId,
    )
    this.#sinceSweepBytes = replayed.bytes
    this.#aliveBytes = this.#cache.bytes
    this.#isOpen = true
    if (replayed.last !== null) await pause(Math.max(0, claimedMs + READ_LEASE_OVER_MS - performance.now()), signal)
    signal.throwIfAborted()
    return { epoch, state: this.#cache.state, clean: replayed.last === null, signal: this.#ended.signal }
  }

  declare(topics: readonly LogTopic[]): readonly LogExtent[] {
    return topics.map((topic) => {
      if (!this.#cache.has(topic.id)) this.#topics.set(topic.id, { id: topic.id, name: topic.name, trimTo: 0 })
      return this.#cache.declare(topic)
    })
  }

  read(topic: number, _partition: number, offset: number, maxBytes: number): readonly StoredBatch[] {
    this.#check()
    return this.#cache.read(topic, offset, maxBytes)
  }

  async commit(ownership: Ownership, commit: Commit): Promise<CommitOutcome> {
    if (ownership.epoch !== this.#grant.epoch) return { status: 'lost' }
    return this.#keep(commit.outputs, commit.changes)
  }

  confirm(ownership: Ownership): Answer<'owned' | 'lost'> {
    if (ownership.epoch !== this.#grant.epoch) return 'lost'
    this.#check()
    return performance.now() - this.#provedMs < READ_LEASE_MS ? 'owned' : this.#prove()
  }

  /** By an entry that says nothing. A broker that has no room for it has none for the claim of another owner. */
  async #prove(): Promise<'owned' | 'lost'> {
    const nothing = { heard: [], first: null, topics: [], copiedBatches: [], batches: [], copiedState: [], state: [] }
    const { status } = await this.#append('last', [encodeCommit(nothing)], this.#engineId, true)
    return status === 'lost' ? 'lost' : 'owned'
  }

  async *changes(_ownership: Ownership): AsyncIterable<readonly [string, Uint8Array]> {
    yield* this.#cache.state.range('', '\x7f', Number.MAX_SAFE_INTEGER)
  }

  trim(topic: number, _partition: number, offset: number): void {
    this.#check()
    if (!this.#cache.trim(topic, offset)) return
    for (const mark of this.#cache.topics) if (mark.id === topic) this.#topics.set(topic, mark)
  }

  async health(): Promise<LogHealth> {
    const { status, reasons, storedBytes } = await this.#journal.health()
    return {
      status: this.#ended.signal.aborted ? 'failed' : status,
      reasons: this.#ended.signal.aborted ? [...reasons, String(this.#ended.signal.reason?.message)] : reasons,
      counters: { ...this.#counters, rowsRead: this.#isOpen ? this.#cache.rowsRead : 0 },
      storedBytes,
    }
  }

  /** Another owner was heard of, with a later epoch. */
  yieldTo(epoch: number): void {
    if (epoch > this.#grant.epoch) this.#end(new SluiceError('UNREACHABLE', 'Another process has taken over.'))
  }

  /** Ends this log. The grant and the journal are whose they were. */
  close(): void {
    this.#end(new SluiceError('CLOSED'))
    this.#isOpen = false
    this.#cache.close()
  }

  async #keep(batches: readonly StoredBatch[], changes: Commit['changes']): Promise<CommitOutcome> {
    this.#check()
    const isStart = this.#sweep === null && this.#sinceSweepBytes > this.#sweepAtBytes
    if (isStart) this.#sweep = new Sweep(this.#cache, [this.#grant.epoch, this.#number])
    const own = sizeOf(batches, changes)
    const copies = this.#sweep?.next(own) ?? { batches: [], state: [] }
    const topics = isStart ? [...this.#cache.topics] : [...this.#topics.values()]
    const isLast = this.#sweep?.isDone === true
    const heard = this.#heard.take(isStart)
    const body = encodeCommit({
      heard,
      first: isLast ? (this.#sweep as Sweep).start : null,
      topics,
      copiedBatches: copies.batches,
      batches,
      copiedState: copies.state,
      state: changes,
    })
    const outcome = await this.#tryAppend(body, batches.length > 0)
    if (outcome.status !== 'durable') {
      // Nothing was kept, and so nothing was copied either: the sweep begins anew.
      this.#sweep = null
      this.#heard.giveBack(heard)
      return outcome
    }
    this.#topics.clear()
    if (!this.#isOpen) throw this.#ended.signal.reason
    this.#cache.put(batches, changes)
    setImmediate(this.#catchUp)
    this.#counters.commits++
    this.#counters.syncs++
    this.#counters.rowsWritten += batches.length
    this.#counters.bytesWritten += body.byteLength
    if (isStart) this.#sinceSweepBytes = 0
    this.#sinceSweepBytes += body.byteLength
    await this.#sweepOn(outcome.place)
    return { status: 'durable', offsets: batches.map(({ baseOffset }) => baseOffset) }
  }

  /** After the answers of the commit, and the next append, have left. */
  readonly #catchUp = (): void => {
    if (!this.#isOpen) return
    try {
      this.#cache.catchUp()
    } catch {
      // Whoever reads or commits next gets it: invariant 3 of the cache.
    }
  }

  async #tryAppend(
    body: Uint8Array,
    hasMessages: boolean,
  ): Promise<{ status: 'durable'; place: string } | { status: 'full' } | { status: 'lost' }> {
    const parts = splitBody(body, this.#journal.abilities.maxEntryBytes - ENTRY_HEAD_BYTES)
    const untilMs = performance.now() + FULL_PATIENCE_MS
    for (;;) {
      const outcome = await this.#append('last', parts, this.#engineId, !hasMessages)
      if (outcome.status === 'durable') return { status: 'durable', place: outcome.places[0] as string }
      if (outcome.status === 'lost') return outcome
      // Where settling has no reserve in a broker, it waits for room while it may; new messages are refused at once (P7).
      if (hasMessages) return { status: 'full' }
      if (performance.now() > untilMs) {
        const error = new SluiceError('UNREACHABLE', `The broker has no room, not even for settling: ${outcome.reason}`)
        this.#end(error)
        throw error
      }
      await pause(FULL_RETRY_MS, this.#ended.signal)
      this.#check()
    }
  }

  async #append(
    kind: 'claim' | 'base' | 'last',
    bodies: readonly Uint8Array[],
    engineId: string,
    mayUseReserve = kind !== 'last',
  ) {
    const { epoch } = this.#grant
    const entries = bodies.map((body, i) =>
      encodeEntry({
        epoch,
        number: this.#number + i,
        engineId,
        kind: kind === 'last' && i < bodies.length - 1 ? 'part' : kind,
        part: i,
        body,
      }),
    )
    const beganMs = performance.now()
    const outcome = await this.#journal.append(this.#grant, entries, mayUseReserve).catch((error: unknown) => {
      this.#end(error)
      throw error
    })
    if (outcome.status === 'durable') {
      this.#number += entries.length
      this.#provedMs = beganMs
    } else if (outcome.status === 'lost') this.#end(new SluiceError('UNREACHABLE', 'Another process has taken over.'))
    if (kind !== 'last' && outcome.status !== 'durable')
      throw new SluiceError(
        'UNREACHABLE',
        outcome.status === 'full' ? `The broker has no room: ${outcome.reason}` : 'Another process has taken over.',
      )
    return outcome
  }

  /** `place` is that of the commit that has just become durable. */
  async #sweepOn(place: string): Promise<void> {
    const sweep = this.#sweep
    if (sweep === null) return
    sweep.startPlace ??= place
    if (!sweep.isDone) return
    this.#sweep = null
    this.#aliveBytes = sweep.copiedBytes
    // What cannot be cut off now is with the next sweep. Of what is wrong the next append tells.
    await this.#journal.truncate(this.#grant, sweep.startPlace).catch(() => {})
  }

  get #sweepAtBytes(): number {
    return Math.max(this.#options.sweepBytes ?? SWEEP_BYTES, 2 * this.#aliveBytes)
  }

  #checkEngine({ engineId, last }: Replayed): void {
    const known = this.#options.engineId
    if (known === null || engineId === known) return
    throw new SluiceError(
      'ENGINE_CHANGED',
      last === null
        ? 'The broker came back empty: what was acknowledged is not there any more. Restore its data, or open Sluice again to begin anew.'
        : 'The broker has the data of another Sluice now. Check which broker the URL names, or open Sluice again to work on with what is there.',
      { engineId, before: known },
    )
  }

  #end(reason: unknown): void {
    if (!this.#ended.signal.aborted) this.#ended.abort(reason)
  }

  #check(): void {
    if (this.#ended.signal.aborted) throw this.#ended.signal.reason
  }
}

export type { ReplicatedLog }

function sizeOf(batches: readonly StoredBatch[], changes: Commit['changes']): number {
  let bytes = 0
  for (const batch of batches) bytes += batch.bytes.byteLength
  for (const [key, value] of changes) bytes += key.length + (value?.byteLength ?? 0)
  return bytes
}

/** Ends early with the signal. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', end)
      resolve()
    }
    const timer = setTimeout(end, ms)
    signal.addEventListener('abort', end, { once: true })
  })
}
