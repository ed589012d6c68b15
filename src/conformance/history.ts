/**
 * A history: what clients asked of an engine, what they were told, and when. The checkers (`checkers/`) decide from it
 * alone whether a promise was broken, so a history can come from a simulation, from processes that are killed, or from a
 * server behind a bad network.
 *
 * A call is two events: `begin` before it is sent, `end` when its answer was seen. What lies between is when it may have
 * taken effect. The order of events is that in which the recorder saw them: an `end` before a `begin` means that the one
 * was over before the other began; calls that overlap have no order. An answer that never came is an `end` whose answer
 * has the status `unknown`: the call may have taken effect, may yet do so, or never will.
 *
 * A message is known by its `id`: its payload, or a digest of it where that is long. No two messages of a run have the
 * same payload, except that a publisher who tries again under an idempotency key sends the same one.
 *
 * Events are plain data: a history can be written as NDJSON by one process and checked by another.
 */
import { createHash } from 'node:crypto'
import type { JobStatus } from '../engine/contract.ts'

export interface SentMessage {
  readonly id: string
  readonly key?: string | undefined
  /** 0 high, 1 normal, 2 low. */
  readonly priority?: number | undefined
  /** As the engine counts it against the limit. */
  readonly size: number
  readonly dueAtMs?: number | undefined
  readonly deadlineMs?: number | undefined
  readonly idempotencyKey?: string | undefined
}

export interface Sent {
  readonly topic: string
  readonly messages: readonly SentMessage[]
}

export interface HoldOf {
  readonly topic: string
  /** '' for a queue. */
  readonly group: string
  readonly fence: number
  readonly offsets: readonly number[]
}

export type Call =
  /** Settings that checkers need. A call that declares again says the settings that are then in force. */
  | ({ readonly kind: 'declare'; readonly topic: string } & Declared)
  | ({ readonly kind: 'append' } & Sent)
  | {
      readonly kind: 'lease'
      readonly topic: string
      readonly group: string
      readonly max: number
      readonly leaseMs: number
      readonly waitMs: number
      readonly holder: 'process' | 'token'
    }
  | ({ readonly kind: 'extend'; readonly leaseMs: number; readonly progress?: string | undefined } & HoldOf)
  | ({
      readonly kind: 'settle'
      readonly outcome: 'done' | 'retry' | 'release' | 'dead'
      readonly result?: string | undefined
      /** Of a retry; absent: the back-off of the group. */
      readonly atMs?: number | undefined
      readonly outputs: readonly Sent[]
    } & HoldOf)
  | { readonly kind: 'read'; readonly topic: string; readonly from: number; readonly max: number }
  | { readonly kind: 'find'; readonly job: string; readonly waitMs: number }
  | { readonly kind: 'cancel'; readonly job: string }
  | { readonly kind: 'seek'; readonly topic: string; readonly group: string; readonly from: number }
  | { readonly kind: 'pause' | 'resume' | 'forget'; readonly topic: string; readonly group: string }
  | { readonly kind: 'redrive' | 'discard'; readonly topic: string; readonly group: string; readonly max: number }
  | ({ readonly kind: 'remember'; readonly name: string; readonly value: string } & HoldOf)
  | ({ readonly kind: 'recall'; readonly name: string } & HoldOf)
  | { readonly kind: 'stats' }

export interface Declared {
  /** A group of a topic, or '' for the topic or queue itself. */
  readonly group: string
  readonly type: 'queue' | 'topic' | 'group'
  /** Ids of a queue's jobs begin with `queue:tag:`. */
  readonly tag?: string | undefined
  readonly limit?: { readonly messages: number; readonly bytes: number } | undefined
  readonly idempotencyMs?: number | undefined
  readonly onSlowGroup?: 'refuse' | 'detach' | undefined
  /** Of a queue's own group or a group of a topic. */
  readonly attempts?: number | undefined
  readonly onExhausted?: 'deadLetter' | 'block' | undefined
  readonly strict?: boolean | undefined
  /** Where a new group starts. */
  readonly from?: number | undefined
  /** Whether what is settled may be gone before the end of the run. @default false */
  readonly forgets?: boolean | undefined
}

export type SentOutcome =
  | { readonly status: 'stored'; readonly offset: number }
  | { readonly status: 'scheduled'; readonly job: string; readonly dueAtMs: number }
  /** `offset` or `job`: the place of the first time. */
  | { readonly status: 'duplicate'; readonly offset?: number | undefined; readonly job?: string | undefined }
  | { readonly status: 'mismatch' | 'not-found' }
  | { readonly status: 'full'; readonly reason: 'messages' | 'bytes' | 'disk' | 'wait'; readonly retryAfterMs: number }

export interface SeenMessage {
  readonly offset: number
  readonly id: string
  readonly key?: string | undefined
}

export interface SeenJob {
  readonly job: string
  readonly status: JobStatus
  readonly attempts: number
  readonly version: number
  readonly result?: string | undefined
  readonly redriveOf?: string | undefined
}

export interface SeenGroup {
  readonly name: string
  readonly floor: number
  readonly depth: number
  readonly leased: number
  readonly retrying: number
  readonly blocked: number
  readonly dead: number
}

export interface SeenTopic {
  readonly name: string
  readonly earliest: number
  readonly head: number
  readonly depth: { readonly messages: number; readonly bytes: number }
  readonly scheduled: number
  readonly groups: readonly SeenGroup[]
}

export type Answer =
  /** Nobody can tell whether it took effect. */
  | { readonly status: 'unknown' }
  /** It had no effect: a mistake of the caller, an engine that was closed before it took the call. */
  | { readonly status: 'refused'; readonly code: string }
  | { readonly status: 'not-found' }
  /** An append: an outcome for each message. */
  | { readonly status: 'sent'; readonly outcomes: readonly SentOutcome[]; readonly durability: string }
  | {
      readonly status: 'leased'
      readonly fence: number
      /** 0 where the holder is the process. */
      readonly expiresAtMs: number
      readonly messages: readonly (SeenMessage & { readonly attempt: number })[]
    }
  | { readonly status: 'empty' }
  /** A lease or read below what is kept, or above the head. */
  | { readonly status: 'truncated' | 'out-of-range'; readonly offset: number; readonly earliest: number }
  | { readonly status: 'extended'; readonly expiresAtMs: number; readonly lost: readonly number[] }
  /** `outputs`: an outcome for each message of each output. */
  | {
      readonly status: 'settled'
      readonly lost: readonly number[]
      readonly outputs: readonly (readonly SentOutcome[])[]
    }
  /** Of a settle with outputs: nothing was done. */
  | { readonly status: 'full' }
  | {
      readonly status: 'read'
      readonly messages: readonly SeenMessage[]
      readonly next: number
      readonly earliest: number
      readonly head: number
    }
  | { readonly status: 'found'; readonly job: SeenJob }
  /** A cancel, seek, pause, …; `jobs` of a redrive: the new ones; `value` of a recall. */
  | {
      readonly status: 'done'
      readonly count?: number | undefined
      readonly jobs?: readonly string[] | undefined
      readonly value?: string | undefined
    }
  /** A cancel that came too late. */
  | { readonly status: 'terminal'; readonly job: SeenJob }
  /** A remember or recall under an old fence. */
  | { readonly status: 'lost' }
  | { readonly status: 'stats'; readonly topics: readonly SeenTopic[] }

export interface BeginEvent {
  readonly kind: 'begin'
  readonly op: number
  readonly client: string
  /** By the clock of the engine, or one that agrees with it but for `skewMs` of the history. */
  readonly atMs: number
  readonly call: Call
}

export interface EndEvent {
  readonly kind: 'end'
  readonly op: number
  readonly atMs: number
  readonly answer: Answer
}

/** Something that happened to the engine or to all clients. */
export type Mark =
  /** The process that owns the store is up and serves. */
  | 'open'
  /** It was stopped in good order; what was held in process was given back. */
  | 'stop'
  /** It died: what was held in process is suspect; calls under way are unknown. */
  | 'crash'
  /** A crash that may take what was acknowledged with less than its durability. */
  | 'power-loss'
  /** From here on nothing goes wrong any more (no crash, no fault): all must come to an end. */
  | 'healed'
  /** Everything that can be worked off was; no call is under way. What follows are questions. */
  | 'quiet'

export interface MarkEvent {
  readonly kind: 'mark'
  readonly atMs: number
  readonly mark: Mark
}

export type HistoryEvent = BeginEvent | EndEvent | MarkEvent

/** Long payloads are known by their digest. */
const LONGEST_ID = 64

/** By which a message is known in a history. */
export function idOf(payload: string): string {
  return payload.length <= LONGEST_ID ? payload : createHash('sha256').update(payload).digest('base64url')
}

/** Takes events and passes each on as it comes. Calls that never end are ended as `unknown` by `loseOpen`. */
export class History {
  readonly #listeners: ((event: HistoryEvent) => void)[] = []
  readonly #open = new Map<number, string>()
  #nextOp = 1

  /** Every event from now on goes to `listener`. */
  listen(listener: (event: HistoryEvent) => void): void {
    this.#listeners.push(listener)
  }

  /** Before a call is sent. Gives the number of the call. */
  begin(client: string, atMs: number, call: Call): number {
    const op = this.#nextOp++
    this.#open.set(op, client)
    this.#tell({ kind: 'begin', op, client, atMs, call })
    return op
  }

  /** When the answer was seen. A second answer to a call is not one. */
  end(op: number, atMs: number, answer: Answer): void {
    if (this.#open.delete(op)) this.#tell({ kind: 'end', op, atMs, answer })
  }

  mark(atMs: number, mark: Mark): void {
    this.#tell({ kind: 'mark', atMs, mark })
  }

  /** The answers of a client, or of all, will not come any more. */
  loseOpen(atMs: number, client?: string): void {
    for (const [op, owner] of this.#open)
      if (client === undefined || owner === client) this.end(op, atMs, { status: 'unknown' })
  }

  #tell(event: HistoryEvent): void {
    for (const listener of this.#listeners) listener(event)
  }
}
