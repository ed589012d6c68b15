/**
 * The journal contract: what a broker (Redis, RabbitMQ, Kafka) implements so that every promise of Sluice holds on it.
 *
 * A journal is one ordered sequence of entries, kept by a broker under a name (the namespace), which one process at a time
 * may write: the **owner**. The owner runs the ledger; what the ledger decides becomes entries (logs/replicated.ts says
 * what stands in them), and a cache of all that they say lies beside it in a local file. Every other process that opened
 * the same namespace is a **member**: it sends its requests to the owner as **letters** through the same broker, and takes
 * over when the owner is gone. So the broker keeps bytes in order, fences and carries letters, and knows nothing of
 * messages, lanes, leases or limits: those are decided once, exactly, for every broker.
 *
 * Rules
 *  1. **Order.** All entries of a journal have one order, the same for everybody who ever replays it.
 *  2. **Durable.** `append` answers `durable` when all its entries are kept at the durability and on the copies that
 *     `abilities` state. After a crash within it, any prefix of its entries may be there (the log above ties entries that
 *     belong together).
 *  3. **Fenced.** Epochs of grants only rise, over all processes, restarts and lives of the broker. `append` answers
 *     `durable` only if no entry of a later grant stands before its own; else `lost`, and whatever it left is after such an
 *     entry (replays overlook it). It never answers `durable` to one that is overlooked.
 *  4. **Sound after the claim.** The first entry that an owner appends is its claim. Once that is durable, nothing that an
 *     earlier owner was or will be told to be durable comes after it. `replay` then gives everything up to and with it.
 *  5. **Outcomes that nobody knows are found out.** When the connection breaks within `append`, the journal connects again
 *     and finds out (it never stores an entry twice under one answer); only when it cannot within its patience does it
 *     reject with `UNKNOWN`, and the grant ends.
 *  6. `full` means that nothing of the call was kept, and that room may come: out of memory or disk, or the broker holds
 *     publishers back. `lost` ends the grant.
 *  7. A grant ends (its signal aborts, with a SluiceError as reason) when the broker gave the journal to another, when the
 *     connection was gone for longer than the broker keeps a grant, or with `close`. It may have ended before the signal says so;
 *     rule 3 holds all the same.
 *  8. Nothing that was stored is changed or removed, but by `truncate`. An entry is given back as it was, byte for byte.
 *  9. Letters are best effort: at most a few are lost, some may come twice, with a connection. Who sends them numbers them.
 * 10. Errors: opening rejects with a SluiceError: `UNSUPPORTED` (version or configuration that cannot keep what was asked,
 *     with the reason and the remedy in its message), `UNREACHABLE` (no answer within the time), `UNAUTHENTICATED` (the broker
 *     refused the credentials), `FOREIGN_DATA` (something of the same name that is not ours). A password is in no message.
 */
import type { Durability } from '../logs/contract.ts'

export interface JournalAbilities {
  /** P1: what `durable` means. */
  readonly durability: Durability
  /** P1: on how many machines it is by then. */
  readonly copies: number
  /** The most bytes of one entry, at least 256 KiB. Longer commits become several entries. */
  readonly maxEntryBytes: number
  /** The most bytes of one letter, at least 16 MiB. */
  readonly maxLetterBytes: number
}

/** The right to append, from when it was granted until its signal aborts. */
export interface Grant {
  readonly epoch: number
  readonly signal: AbortSignal
}

export interface JournalEntry {
  /** Where it stands, for `truncate`: a text that only the journal understands. */
  readonly place: string
  readonly bytes: Uint8Array
}

export type JournalOutcome =
  /** All kept. `places` are those of the entries, in order. */
  | { readonly status: 'durable'; readonly places: readonly string[] }
  /** Nothing was kept; `reason` says what is full and what to do. */
  | { readonly status: 'full'; readonly reason: string }
  /** Another owner has the journal. */
  | { readonly status: 'lost' }

export interface JournalHealth {
  readonly status: 'ok' | 'degraded' | 'failed'
  /** What is wrong and what to do, each a sentence or two, where the status is not ok. At most 20. */
  readonly reasons: readonly string[]
  /** What the broker and its nodes look like, as `name: value` for people, such as version, nodes, leader, members. */
  readonly facts: Readonly<Record<string, string>>
  /** Bytes that the journal occupies in the broker, as far as the broker says; else what was appended less what was cut. */
  readonly storedBytes: number
}

/** Where letters of this process arrive and leave. */
export interface Mailbox {
  /** Under which others reach this process: unique, 1 to 100 characters of `A-Za-z0-9._-`. */
  readonly address: string
  /**
   * Hands a letter to the broker for an address, for whoever is the owner (`owner`), or for everybody (`all`). Resolves when
   * the broker has it, or when it cannot be sent now (the connection is gone): no error tells of that.
   */
  send(to: string, letter: Uint8Array): Promise<void>
  /** Whether letters for `owner` come here: set by who holds the grant, and taken back when it ends. */
  serveOwner(isOwner: boolean): Promise<void>
  close(): Promise<void>
}

export interface Journal {
  readonly abilities: JournalAbilities
  /**
   * Waits until the journal is nobody else's, and takes it. Rejects if `signal` aborts (with its reason), after `close`, and
   * where what it finds is not to be worked on: `ENGINE_CHANGED`, `CORRUPT`, `FOREIGN_DATA`. An earlier grant of this journal that has not ended is given up first.
   */
  own(signal: AbortSignal): Promise<Grant>
  /**
   * Appends in order. One call at a time. See rules 2, 3, 5, 6. `mayUseReserve`: there are no new messages in it, but a claim, or
   * what settles and moves messages and so makes room (P7). A broker that can takes such even while it is full.
   */
  append(grant: Grant, entries: readonly Uint8Array[], mayUseReserve?: boolean): Promise<JournalOutcome>
  /**
   * Every entry from the oldest kept on, in order, to what was the end when it was called. In pieces: memory is bounded.
   * A part of the journal that cannot be read is an error with `CORRUPT`, never left out.
   */
  replay(grant: Grant): AsyncIterable<JournalEntry>
  /** Allows all entries before `place` to be removed. That one and all later ones stay. Need not be done at once. */
  truncate(grant: Grant, place: string): Promise<void>
  /** One mailbox a journal. `onLetter` gets each letter as it comes, and must not throw. */
  openMailbox(onLetter: (letter: Uint8Array) => void): Promise<Mailbox>
  /** Never rejects: what it cannot learn is a reason. */
  health(): Promise<JournalHealth>
  /** Gives the grant up, so that another can have it at once, and ends everything. May be called more than once. */
  close(): Promise<void>
}

/** How a journal is opened; each broker's file has a function of this type, loaded by the scheme of the URL. */
export interface JournalOptions {
  /** The broker's URL with its credentials. */
  readonly url: URL
  /** What everything in the broker is named after: `^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`. */
  readonly namespace: string
  /** P1: refuse to open where less is kept. Absent: the strongest that the broker's configuration has. */
  readonly durability?: Durability | undefined
  /** P1: refuse to open where there are fewer. @default 1 */
  readonly copies?: number | undefined
  /** How long a broker that does not answer is tried, at opening. @default 10_000 */
  readonly connectMs?: number | undefined
}

export type OpenJournal = (options: JournalOptions) => Promise<Journal>

/**
 * One thing that was looked at before a broker is trusted. Each broker's file has `check…(options): Promise<Finding[]>`;
 * opening refuses (`UNSUPPORTED`) where one says so, and `sluice verify` shows all of them.
 */
export interface Finding {
  readonly severity: 'refuse' | 'warn' | 'ok'
  /** A few words: the setting and its value. */
  readonly title: string
  /** What is kept, or what could be lost. */
  readonly reason: string
  /** What to do about it. Empty where nothing is to be done. */
  readonly remedy: string
}
