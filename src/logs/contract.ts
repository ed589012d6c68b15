/**
 * The log contract: what a new store implements so that every promise of Sluice holds on it. Read this first.
 *
 * A log keeps two things in order: **messages** (batches of bytes, each message at a place that never changes) and
 * **changes** (what the ledger decided, as keys put and deleted). It knows nothing of lanes, leases, attempts, limits or
 * jobs; the ledger knows those, once, for every log. A log keeps what it is given, says how durably, gives the same
 * back, and fences whoever lost a partition.
 *
 * Rules
 *  1. `commit` is atomic: after a crash all of it is there or none. When it answers `durable`, it is so at the
 *     durability of `abilities`. A log that emulates this says so in `abilities.outputs`.
 *  2. What `read` gives was durable before (P6). Bytes come back as they went in, verified, or the call throws
 *     `CORRUPT` (P13). Nothing is skipped: a gap is damage.
 *  3. Epochs of `own` only rise, across processes and restarts. A commit under an older epoch answers `lost` and has no
 *     effect that any reader sees (P5).
 *  4. An outcome that the log cannot know is an exception with code `UNKNOWN`, and the log stays usable (P2).
 *  5. `full` means that nothing of the commit was applied, and that a commit without outputs still works (P13, disk).
 *  6. Methods may answer at once or with a promise. An embedded log answers at once: the ledger then hands messages
 *     out in the very commit that stores them.
 *  7. One call at a time: the broker loop waits for each `commit` before the next. `read` may run beside it.
 *
 * A broker is not a log but keeps a journal (journals/contract.ts), over which logs/replicated.ts is the log: see
 * docs/decisions/0004-one-journal-for-a-broker.md.
 */

/** At once, or later. */
export type Answer<T> = T | Promise<T>

/** How an acknowledged write survives: not at all, a killed process, a power cut. */
export type Durability = 'memory' | 'os' | 'disk'

/** What a log promises, as data: the ledger, the suite and the documentation read it. */
export interface LogAbilities {
  /** What `durable` means in the answer of a commit. */
  readonly durability: Durability
  /** How many machines hold it by then. */
  readonly copies: number
  /** Whether outputs and changes appear together, or outputs a moment later. */
  readonly outputs: 'atomic' | 'emulated'
  /** Whether a limit is checked in the step that stores, or against a depth that is a little old. */
  readonly admission: 'exact' | 'emulated'
  /** Whether more than one partition can be declared. */
  readonly partitions: 'one' | 'many'
}

/** A topic as the log knows it. The id is the ledger's, small and never used twice. */
export interface LogTopic {
  readonly id: number
  readonly name: string
  /** How many partitions; 1 where `abilities.partitions` is `one`. */
  readonly partitions: number
}

/** Where a partition begins and ends. */
export interface LogExtent {
  readonly topic: number
  readonly partition: number
  /** The lowest offset that can be read; equals `head` in an empty partition. */
  readonly earliest: number
  /** The offset that the next message gets. */
  readonly head: number
  /** Bytes (as {@link StoredBatch.startBytes}) up to `head`. */
  readonly headBytes: number
}

/** A batch in its place. */
export interface StoredBatch {
  readonly topic: number
  readonly partition: number
  /** The offset of its first message; its messages have that and the following offsets. */
  readonly baseOffset: number
  readonly count: number
  /** When it was stored, ms since 1970; never falls within a partition. */
  readonly timestampMs: number
  /** The sizes (see `BatchView.size`) of all messages ever stored before it in this partition. */
  readonly startBytes: number
  /** See message-batch.ts. The log does not look inside, but for {@link findBatchDamage} on read. */
  readonly bytes: Uint8Array
}

/** What the ledger decided, to be kept in one step. */
export interface Commit {
  /** New batches, in order. */
  readonly outputs: readonly StoredBatch[]
  /** Keys to put, or to delete (null). Keys are ASCII, at most 512 characters; values at most 16 MiB. */
  readonly changes: ReadonlyMap<string, Uint8Array | null>
}

export type CommitOutcome =
  /** Kept. `offsets` are the base offsets of the outputs, in order. */
  | { readonly status: 'durable'; readonly offsets: readonly number[] }
  /** No room; nothing was applied. */
  | { readonly status: 'full' }
  /** Another owner has the partition; nothing was applied. */
  | { readonly status: 'lost' }

/** The committed keys and values, readable at once: on an embedded log the truth, on a broker a local cache of it. */
export interface LogState {
  get(key: string): Uint8Array | undefined
  /** Entries with `from <= key < to`, ascending (by code unit), at most `limit`. */
  range(from: string, to: string, limit: number): readonly (readonly [key: string, value: Uint8Array])[]
}

/** A grant of partitions to this process. */
export interface Ownership {
  /** Rises with each grant, across processes and restarts. */
  readonly epoch: number
  readonly state: LogState
  /** Whether the previous owner gave it up in good order; false after a crash. */
  readonly clean: boolean
  /** Aborted when another owner took over or the log failed; its reason is a SluiceError. */
  readonly signal: AbortSignal
}

export interface LogHealth {
  readonly status: 'ok' | 'degraded' | 'failed'
  /** What is wrong and what to do, where the status is not ok. */
  readonly reasons: readonly string[]
  /** Counters since the log was opened. */
  readonly counters: {
    readonly commits: number
    readonly syncs: number
    /** Rows or records of messages read from the store, for the proof that a hand-out does not depend on depth. */
    readonly rowsRead: number
    readonly rowsWritten: number
    readonly bytesWritten: number
  }
  /** Bytes that the store occupies now. */
  readonly storedBytes: number
}

export interface Log {
  readonly abilities: LogAbilities
  /** Makes the topics where they are new and says where each partition begins and ends. */
  declare(topics: readonly LogTopic[]): Answer<readonly LogExtent[]>
  /** Batches from the one that holds `offset` on, in order, until `maxBytes` is reached (at least one, if there is one). */
  read(topic: number, partition: number, offset: number, maxBytes: number): Answer<readonly StoredBatch[]>
  /** Takes the partitions that this process should have; on an embedded log all of them. */
  own(): Answer<Ownership>
  /** Keeps outputs and changes in one step under the epoch. */
  commit(ownership: Ownership, commit: Commit): Answer<CommitOutcome>
  /**
   * Before answers that no commit stands behind: whether this owner may say how things are, since no other one has said
   * anything yet. Left out where there is one owner at a time by other means. Rejects as `commit` does.
   */
  confirm?(ownership: Ownership): Answer<'owned' | 'lost'>
  /** Every key and value that was committed, to rebuild a cache or a copy. */
  changes(ownership: Ownership): AsyncIterable<readonly [key: string, value: Uint8Array]>
  /** Allows batches that lie whole below `offset` to be deleted; their space is used again. The newest one stays. */
  trim(topic: number, partition: number, offset: number): Answer<void>
  health(): Answer<LogHealth>
  /** Gives everything up in good order. May be called more than once. */
  close(): Answer<void>
}
