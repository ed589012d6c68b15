/**
 * The engine contract: what the nouns (queue, topic, job, worker) speak to. It has two implementations for good: the
 * local one (a ledger over any log, in a thread) and the remote one (HTTP).
 *
 * Rules
 *  1. Batches in, outcomes out in the same order. What can be expected (full, duplicate, stale, not found) is a value;
 *     an exception is a `SluiceError` of code CLOSED, ENGINE_FAILED, UNKNOWN, UNSUPPORTED or a caller's mistake.
 *  2. An outcome is given once it is durable at the engine's durability (P1). UNKNOWN means nobody can tell (P2).
 *  3. Every wait has a deadline (`waitMs`) and takes an AbortSignal; an aborted wait answers as one that timed out. It
 *     never takes back what was done: a lease that was granted to an aborted wait is given back by the engine.
 *  4. Times are ms since 1970 (`…AtMs`, `deadlineMs`) or durations in ms (`…Ms`).
 *  5. Batches are in the format of message-batch.ts; those passed in are given away and must not be used again.
 */
import type { Durability } from '../logs/contract.ts'
import type { EngineAbilities } from './abilities.ts'
import type { GroupSettings, Partially, QueueSettings, TopicSettings } from './options.ts'
import type { ScheduleCommand, ScheduleOutcome } from './schedules.ts'

export interface Engine {
  readonly abilities: EngineAbilities
  /** Makes queues, topics and groups or changes their settings. The only way in which they come to be. */
  declare(declarations: readonly Declaration[]): Promise<readonly DeclareOutcome[]>
  /** Stores batches. */
  append(requests: readonly AppendRequest[]): Promise<readonly AppendOutcome[]>
  /** Reads a topic from an offset, waiting for more where it is at the end. */
  read(request: ReadRequest, signal?: AbortSignal): Promise<ReadOutcome>
  /** Takes messages of a group, each with its attempt durable, waiting until there is at least one. */
  lease(request: LeaseRequest, signal?: AbortSignal): Promise<LeaseOutcome>
  /** Keeps leases for longer, reports progress. */
  extend(requests: readonly ExtendRequest[]): Promise<readonly ExtendOutcome[]>
  /** Ends leases. Each request takes effect whole, with its outputs, or not at all. */
  settle(requests: readonly SettleRequest[]): Promise<readonly SettleOutcome[]>
  /** Jobs by id. */
  find(ids: readonly string[]): Promise<readonly FindOutcome[]>
  /** One job, as soon as its version is above `version`, or as it is when the wait ends. */
  watch(request: WatchRequest, signal?: AbortSignal): Promise<FindOutcome>
  /** One act of an operator or a handler. */
  command(command: Command): Promise<CommandOutcome>
  stats(): Promise<EngineStats>
  /** P12: answers what waits, gives back what is held in process, stops. May be called more than once. */
  close(): Promise<void>
}

// ---- declare

export type Declaration =
  | { readonly kind: 'queue'; readonly name: string; readonly settings: Partially<QueueSettings> }
  | { readonly kind: 'topic'; readonly name: string; readonly settings: Partially<TopicSettings> }
  | {
      readonly kind: 'group'
      readonly topic: string
      readonly name: string
      readonly settings: Partially<GroupSettings>
      /** Where a new group starts; ignored for one that exists. */
      readonly from: ReadFrom
    }

/** A place to start: the earliest kept, the end, an offset, or the first message stored at or after a time. */
export type ReadFrom = 'earliest' | 'latest' | number | { readonly timeMs: number }

export type DeclareOutcome =
  /** `tag` is part of the ids of a queue's jobs. `settings` are those in force. */
  | { readonly status: 'declared'; readonly created: boolean; readonly tag: string; readonly settings: object }
  /** A setting that may not change, or a topic of that name that is a queue (or the other way round). */
  | { readonly status: 'conflict'; readonly message: string }
  | { readonly status: 'not-found' }
  | OffsetProblem

// ---- append

export interface AppendRequest {
  /** A queue or a topic; it has been declared. */
  readonly topic: string
  readonly batch: Uint8Array
  /** Wishes of single messages, by ascending index. Absent: none has any. */
  readonly wishes?: readonly AppendWish[] | undefined
}

export interface AppendWish {
  readonly index: number
  /** P8. Scope: the queue and {@link scope}. */
  readonly idempotencyKey?: string | undefined
  /** Whose key it is: a credential's id. Default: ''. */
  readonly scope?: string | undefined
  /** Queues only. The job takes its place when this is due. */
  readonly dueAtMs?: number | undefined
  /** P11, queues only: refuse it, as `full`, where the measured wait is past its deadline. Who waits for it hears at once. */
  readonly inTime?: boolean | undefined
  /** Queues only. Who is told when the job has ended; checked by whoever took it in, and again before it is called. */
  readonly callbackUrl?: string | undefined
}

export type AppendOutcome =
  /** All stored, at `offset`, `offset + 1`, … */
  | { readonly status: 'stored'; readonly offset: number; readonly receipt: StoreReceipt }
  /** One outcome a message. */
  | { readonly status: 'mixed'; readonly outcomes: readonly MessageOutcome[]; readonly receipt: StoreReceipt }
  | { readonly status: 'not-found' }

/** What holds for every message of an append. */
export interface StoreReceipt {
  readonly partition: number
  readonly timestampMs: number
  /** P1: what was reached. */
  readonly durability: Durability
  readonly copies: number
}

export type MessageOutcome =
  | { readonly status: 'stored'; readonly offset: number }
  | { readonly status: 'scheduled'; readonly dueAtMs: number; readonly serial: number }
  /** P8: the receipt of the first time; `timestampMs` is when that was. */
  | { readonly status: 'duplicate'; readonly place: StoredPlace; readonly timestampMs: number }
  /** P8: the key stands for another payload. */
  | { readonly status: 'mismatch' }
  | FullOutcome

export type StoredPlace =
  | { readonly kind: 'offset'; readonly partition: number; readonly offset: number }
  | { readonly kind: 'scheduled'; readonly dueMs: number; readonly serial: number }

/** P7: nothing was stored. */
export interface FullOutcome {
  readonly status: 'full'
  /** What is full: the limit in messages or bytes, the disk, or the number of queues. */
  readonly reason: 'messages' | 'bytes' | 'disk' | 'wait'
  /** Depth in messages or bytes, and the limit it met; 0 for the disk; of `wait` the measured wait and what is left, in ms. */
  readonly depth: number
  readonly limit: number
  readonly retryAfterMs: number
  /** Of a topic: the group that is furthest behind. */
  readonly group?: string | undefined
  /** What is full, where it is not what was appended to: the queue of callbacks. */
  readonly queue?: string | undefined
}

// ---- read

export interface ReadRequest {
  readonly topic: string
  readonly from: ReadFrom
  /** At most this many messages. */
  readonly max: number
  /** How long to wait at the end of the topic. */
  readonly waitMs: number
}

export type ReadOutcome =
  | {
      readonly status: 'read'
      /** May be empty. Messages from `from` on, ascending. */
      readonly messages: readonly MessageSlice[]
      /** Where to go on. */
      readonly next: number
      readonly earliest: number
      readonly head: number
    }
  | OffsetProblem
  | { readonly status: 'not-found' }

/** Messages `from` to `to` (exclusive) of a batch whose first message is at `baseOffset`. */
export interface MessageSlice {
  readonly partition: number
  readonly baseOffset: number
  readonly timestampMs: number
  readonly bytes: Uint8Array
  readonly from: number
  readonly to: number
}

/** P6: an offset that cannot be read, and what can. */
export interface OffsetProblem {
  readonly status: 'truncated' | 'out-of-range'
  readonly offset: number
  readonly earliest: number
  readonly head: number
}

// ---- lease

export interface LeaseRequest {
  readonly topic: string
  /** A group of the topic; '' for a queue. */
  readonly group: string
  /** At most this many messages, 1 to 10,000. */
  readonly max: number
  /** How long the hold lasts without being extended. Ignored for `process`. */
  readonly leaseMs: number
  /** How long to wait for the first message. */
  readonly waitMs: number
  /**
   * `process`: the hold ends with this process, never by time, and the message is a suspect if the process dies.
   * `token`: the hold ends by time and survives a restart; whoever shows the token has it.
   */
  readonly holder: { readonly kind: 'process' } | { readonly kind: 'token'; readonly token: string }
}

export type LeaseOutcome =
  | {
      readonly status: 'leased'
      /** P5: above every earlier fence of the group. */
      readonly fence: number
      /** ms since 1970; 0 for `process`. */
      readonly expiresAtMs: number
      /** The messages, as a batch without checksum; message i is at `offsets[i]`, in its attempt `attempts[i]`. */
      readonly batch: Uint8Array
      readonly offsets: readonly number[]
      readonly attempts: readonly number[]
      /** When each was stored. */
      readonly timestampsMs: readonly number[]
    }
  /** Nothing came within `waitMs`. */
  | { readonly status: 'empty' }
  /** P2: the group was detached and lost `offset` up to `earliest`; it goes on from there. */
  | OffsetProblem
  | { readonly status: 'not-found' }

// ---- extend, settle

/** A hold on messages: what {@link LeaseOutcome} gave. */
export interface Hold {
  readonly topic: string
  readonly group: string
  readonly fence: number
  readonly offsets: readonly number[]
  /** The token, where the holder was one. */
  readonly token?: string | undefined
}

export interface ExtendRequest extends Hold {
  /** From now. The time of a hold is that of its fence: it is extended for every message leased with this one. */
  readonly leaseMs: number
  /** JSON text, shown with the job; kept in memory only. At most 4,096 bytes. */
  readonly progress?: string | undefined
}

export type ExtendOutcome =
  /** Offsets that are no longer held are in `lost`; the others are held until `expiresAtMs`. */
  | { readonly status: 'extended'; readonly expiresAtMs: number; readonly lost: readonly number[] }
  | { readonly status: 'not-found' }

export interface SettleRequest extends Hold {
  readonly outcome: Settlement
  /** P9: appended in the same step. Where one of them is full, the settle has no effect. */
  readonly outputs?: readonly AppendRequest[] | undefined
}

export type Settlement =
  /** `result`: JSON text, kept as long as the job. */
  | { readonly kind: 'done'; readonly result?: string | undefined }
  /** Tried again at `atMs`, by default when the back-off of the group says. */
  | { readonly kind: 'retry'; readonly error: string; readonly atMs?: number | undefined }
  /** Given back unstarted: the attempt has its number, and does not count against the limit. */
  | { readonly kind: 'release' }
  /** No more attempts. */
  | { readonly kind: 'dead'; readonly error: string }

export type SettleOutcome =
  /** Offsets that were no longer held are in `lost` and nothing was done to them (P5). */
  | { readonly status: 'settled'; readonly lost: readonly number[]; readonly outputs: readonly AppendOutcome[] }
  /** P7: an output found no room; nothing was done, the lease is still held. */
  | FullOutcome
  | { readonly status: 'not-found' }

// ---- find, watch

/** P10. Terminal from `completed` on. */
export type JobStatus =
  | 'queued'
  | 'scheduled'
  | 'active'
  | 'retrying'
  | 'blocked'
  | 'completed'
  | 'failed'
  | 'cancelled'
  | 'expired'

/** A job as it is now. */
export interface JobView {
  readonly id: string
  readonly queue: string
  readonly status: JobStatus
  /** Attempts begun. */
  readonly attempts: number
  /** Rises with each change of the attempt, the status or the progress. */
  readonly version: number
  /** When it was stored, or accepted for later. */
  readonly createdAtMs: number
  /** When a scheduled or retrying job is due. */
  readonly dueAtMs?: number | undefined
  /** JSON text. */
  readonly result?: string | undefined
  readonly error?: string | undefined
  readonly progress?: string | undefined
  readonly redriveOf?: string | undefined
}

export type FindOutcome = { readonly status: 'found'; readonly job: JobView } | { readonly status: 'not-found' }

/** Why a job has not begun. Several may hold at a time; the one that tells most stands first. Ids are those of jobs. */
export type WaitReason =
  /** It was added for later. */
  | { readonly kind: 'delayed'; readonly untilMs: number }
  /** Its last attempt failed, and the next is not due. */
  | { readonly kind: 'retrying'; readonly untilMs: number }
  /** It is out of attempts and holds its key (`onExhausted: 'block'`): redrive or cancel it. */
  | { readonly kind: 'exhausted' }
  /** P4: a job of the same key, or of a strict queue, is before it. `ahead` counts those, as far as they are known. */
  | { readonly kind: 'key'; readonly behind: string; readonly behindStatus: JobStatus; readonly ahead: number }
  /** P3: a job whose process died is handed out alone: this one (no `behind`), or one before it. */
  | { readonly kind: 'suspect'; readonly behind?: string | undefined }
  | { readonly kind: 'paused' }
  /** No worker asks for jobs of this queue now, and none holds any. */
  | { readonly kind: 'no-worker' }
  /** No worker asks for more: they hold `active` jobs. */
  | { readonly kind: 'workers-busy'; readonly active: number }
  /** The rate of the queue lets the next one go then. */
  | { readonly kind: 'rate'; readonly untilMs: number }
  /** So many jobs may be handed out before it. */
  | { readonly kind: 'line'; readonly ahead: number }

export interface WatchRequest {
  readonly id: string
  /** Answer when the version is above this, or the job is terminal. */
  readonly version: number
  /** Whether to answer only a terminal status (or the end of the wait). */
  readonly untilTerminal: boolean
  readonly waitMs: number
}

// ---- command

export type Command =
  /** P10: ends a job that is not terminal; a running one loses its lease. */
  /** `isMoved`: it goes on elsewhere under another id, so no callback tells of an end. */
  | { readonly kind: 'cancel'; readonly id: string; readonly isMoved?: boolean }
  /** Jobs of a queue that are not settled, in the order of their places, then those that are delayed; after a cursor. */
  | { readonly kind: 'unsettled'; readonly topic: string; readonly after?: string; readonly max: number }
  /** Why a job waits. */
  | { readonly kind: 'explain'; readonly id: string }
  | { readonly kind: 'pause' | 'resume'; readonly topic: string; readonly group: string }
  /** Makes new jobs of dead letters, and lets blocked ones try again; all of them, or those of `ids`. */
  | {
      readonly kind: 'redrive'
      readonly topic: string
      readonly group: string
      readonly ids?: readonly string[]
      readonly max: number
    }
  /** Drops dead letters for good, oldest first; all of them, or those of `ids`. */
  | {
      readonly kind: 'discard'
      readonly topic: string
      readonly group: string
      readonly ids?: readonly string[]
      readonly max: number
    }
  /** Removes a group of a topic with all it holds. What only it had not settled is free to go. */
  | { readonly kind: 'forget'; readonly topic: string; readonly group: string }
  /** Dead letters, oldest first, after `after` (a cursor from an earlier answer). */
  | {
      readonly kind: 'dead'
      readonly topic: string
      readonly group: string
      readonly after?: string
      readonly max: number
    }
  /**
   * A copy of everything, as it is at one moment, in a new file of this machine; the engine goes on meanwhile. `value`:
   * JSON of what it holds. `UNSUPPORTED` where the data is in no file; never asked for over the wire as it is.
   */
  | { readonly kind: 'backup'; readonly file: string }
  /** P6: the group goes on from there; what it holds is lost to it. */
  | { readonly kind: 'seek'; readonly topic: string; readonly group: string; readonly from: ReadFrom }
  /** P9: keeps the result of `once` under the lease. JSON text. */
  | { readonly kind: 'remember'; readonly hold: Hold; readonly name: string; readonly value: string }
  /** What was kept under that name. */
  | { readonly kind: 'recall'; readonly hold: Hold; readonly name: string }
  | ScheduleCommand

export type CommandOutcome =
  | { readonly status: 'done'; readonly count?: number; readonly value?: string; readonly ids?: readonly string[] }
  | { readonly status: 'unsettled'; readonly jobs: readonly UnsettledJob[]; readonly next: string | null }
  | { readonly status: 'dead-letters'; readonly letters: readonly DeadLetter[]; readonly next: string | null }
  | { readonly status: 'terminal'; readonly job: JobView }
  /** `waits` is empty for a job that runs or has ended. */
  | { readonly status: 'explained'; readonly job: JobView; readonly waits: readonly WaitReason[] }
  | { readonly status: 'lost' }
  | { readonly status: 'not-found' }
  | OffsetProblem
  | ScheduleOutcome
  | FullOutcome

export interface UnsettledJob {
  readonly job: JobView
  /** A batch of this one message. */
  readonly batch: Uint8Array
  readonly callbackUrl?: string | undefined
}

export interface DeadLetter {
  readonly id: string
  readonly offset: number
  readonly attempts: number
  readonly error: string
  readonly diedAtMs: number
  /** A batch of this one message. */
  readonly batch: Uint8Array
}

// ---- stats

export interface GroupStats {
  readonly name: string
  /** Everything below it is settled. */
  readonly floor: number
  /** Messages not settled. On a topic: places from the floor to the head, less those settled between. */
  readonly depth: number
  readonly leased: number
  readonly retrying: number
  readonly blocked: number
  readonly dead: number
  readonly paused: boolean
  /** Settled a second, smoothed. */
  readonly drainPerSecond: number
  /** When the oldest message that is not settled was stored; null: there is none, or it is not known yet. */
  readonly oldestAtMs: number | null
  /** Calls of workers that wait for messages. */
  readonly asking: number
  readonly work: GroupWork
}

/** Upper bounds of the slots of a {@link DurationHistogram}; there is one more for what is above them all. */
export const DURATION_BOUNDS_MS: readonly number[] = [
  1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 1_800_000,
]

export interface DurationHistogram {
  /** How many were at most the bound of their slot, and above that of the one before. */
  readonly counts: readonly number[]
  readonly sumMs: number
}

/** What a group did since the engine was opened. */
export interface GroupWork {
  /** Messages settled as done. */
  readonly done: number
  /** Attempts that failed and are tried again. */
  readonly failed: number
  /** Messages that ended as dead letters, or that hold up their key. */
  readonly died: number
  /** Jobs whose deadline passed before they were started. */
  readonly expired: number
  /** From being stored, or due, to the first hand-out. */
  readonly waited: DurationHistogram
  /** From a hand-out to the end of its hold, whatever that was: with a worker, its own line of messages included. */
  readonly held: DurationHistogram
}

export interface TopicStats {
  readonly kind: 'queue' | 'topic'
  readonly name: string
  readonly earliest: number
  readonly head: number
  readonly depth: { readonly messages: number; readonly bytes: number }
  readonly limit: { readonly messages: number; readonly bytes: number }
  readonly scheduled: number
  /** Since the engine was opened. */
  readonly appended: number
  readonly refused: number
  /** The same by what there was too much of. */
  readonly refusedBy: Readonly<Record<FullOutcome['reason'], number>>
  readonly groups: readonly GroupStats[]
}

export interface EngineStats {
  readonly topics: readonly TopicStats[]
  readonly log: {
    readonly status: 'ok' | 'degraded' | 'failed'
    readonly reasons: readonly string[]
    readonly commits: number
    readonly syncs: number
    readonly rowsRead: number
    readonly rowsWritten: number
    readonly bytesWritten: number
    readonly storedBytes: number
  }
}
