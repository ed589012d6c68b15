/**
 * The settings of a queue, a topic and a group, as the engine keeps them: complete, with defaults filled in. The same
 * names stand in TypeScript, over HTTP and on the command line.
 */

/** Bounds on what a queue or topic holds unsettled. */
export interface Limit {
  /** Messages waiting, leased, parked and scheduled. @default 100_000. 0 refuses everything. */
  readonly messages: number
  /** Their bytes (payload, key, headers and 24 each). @default 268_435_456 (256 MiB) */
  readonly bytes: number
}

/** How long what is settled can still be read. Never touches what is not settled. */
export interface Retention {
  /** Milliseconds since it was settled. @default 86_400_000 (a day). 0 drops it as soon as possible. */
  readonly ms: number
  /** Bytes of settled messages. The oldest go first. @default 268_435_456 (256 MiB) */
  readonly bytes: number
}

/** Delay before attempt n + 1: a random time from 0 to min(maxMs, baseMs * factor^(n - 1)) ("full jitter"). */
export interface Backoff {
  /** @default 1_000. 0 retries at once. */
  readonly baseMs: number
  /** @default 2. 1 keeps the mean constant. */
  readonly factor: number
  /** @default 300_000 */
  readonly maxMs: number
}

/** At most `messages` hand-outs in any `perMs`, over all workers. */
export interface Rate {
  /** Whole number from 1. */
  readonly messages: number
  /** Milliseconds. @default 1_000 */
  readonly perMs: number
}

/** What happens to a message that is out of attempts (P4). */
export type OnExhausted = 'deadLetter' | 'block'

/** What happens when a group falls so far behind that the topic is at its limit (P2). */
export type OnSlowGroup = 'refuse' | 'detach'

/** How a group hands messages out and retries them: a queue's own group, or a group on a topic. */
export interface GroupSettings {
  /** The most attempts of one message, the first included. @default 5. 1 never retries. */
  readonly attempts: number
  readonly backoff: Backoff
  /** Out of attempts: `deadLetter` lets the next of its key go on, `block` holds its key until it is redriven. @default 'deadLetter' */
  readonly onExhausted: OnExhausted
  /** The most dead letters kept; at the bound `deadLetter` becomes `block`. @default 10_000 */
  readonly deadLetters: number
  /** One lane: strictly one after the other. Cannot change later. @default false */
  readonly strict: boolean
  /** At most `messages` hand-outs in any `perMs`, evenly, over all workers; null: as fast as they ask. @default null */
  readonly rate: Rate | null
}

export interface QueueSettings extends GroupSettings {
  readonly limit: Limit
  readonly retention: Retention
  /** Milliseconds within which an idempotency key gives the same receipt. @default 86_400_000 (a day) */
  readonly idempotencyMs: number
}

export interface TopicSettings {
  readonly limit: Limit
  readonly retention: Retention
  /** Milliseconds within which an idempotency key gives the same receipt. @default 86_400_000 (a day) */
  readonly idempotencyMs: number
  /** When a group keeps the topic at its limit: `refuse` publishers, or `detach` the group, which loses messages and is told which. @default 'refuse' */
  readonly onSlowGroup: OnSlowGroup
}

const GROUP_DEFAULTS: GroupSettings = {
  attempts: 5,
  backoff: { baseMs: 1_000, factor: 2, maxMs: 300_000 },
  onExhausted: 'deadLetter',
  deadLetters: 10_000,
  strict: false,
  rate: null,
}
const DAY_MS = 86_400_000

export const DEFAULT_GROUP: GroupSettings = GROUP_DEFAULTS
export const DEFAULT_QUEUE: QueueSettings = {
  ...GROUP_DEFAULTS,
  limit: { messages: 100_000, bytes: 268_435_456 },
  retention: { ms: DAY_MS, bytes: 268_435_456 },
  idempotencyMs: DAY_MS,
}
export const DEFAULT_TOPIC: TopicSettings = {
  limit: { messages: 1_000_000, bytes: 1_073_741_824 },
  retention: { ms: 7 * DAY_MS, bytes: 1_073_741_824 },
  idempotencyMs: DAY_MS,
  onSlowGroup: 'refuse',
}

/** Names that begin so are Sluice's own: nobody else may declare one. */
export const RESERVED_NAMES = 'sluice.'
/** The queue of callbacks that wait to be sent (ledger/callbacks.ts). It is declared by the first job that asks for one. */
export const CALLBACKS_QUEUE = 'sluice.callbacks'

/** What the queue of callbacks is declared with: 12 attempts over one to two days, each place reckoned at 8 KiB. */
export const DEFAULT_CALLBACKS: QueueSettings = {
  ...DEFAULT_QUEUE,
  attempts: 12,
  backoff: { baseMs: 10_000, factor: 4, maxMs: 43_200_000 },
  limit: { messages: 100_000, bytes: 1_073_741_824 },
}

/** Settings as a user gives them: any part may be left out. */
export type Partially<T> = { readonly [K in keyof T]?: T[K] extends object ? Partial<T[K]> | T[K] : T[K] }

/** What is in force when these settings are declared for something new. */
export function withDefaults<T extends object>(defaults: T, given: Partially<T>): T {
  const merged: Record<string, unknown> = { ...(defaults as Record<string, unknown>) }
  for (const [name, value] of Object.entries(given as Record<string, unknown>)) {
    if (value === undefined) continue
    const fallback = (defaults as Record<string, unknown>)[name]
    const nested = typeof value === 'object' && value !== null && typeof fallback === 'object' && fallback !== null
    merged[name] = nested
      ? { ...fallback, ...value }
      : name === 'rate' && value
        ? { perMs: 1_000, ...(value as object) }
        : value
  }
  return merged as T
}
