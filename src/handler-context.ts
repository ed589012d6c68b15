/** The second argument of a handler. */
import type { MessageOptions } from './feed.ts'
import type { Priority } from './message-batch.ts'
import type { Queue } from './queue.ts'
import type { Topic } from './topic.ts'

/** Options of a message that a handler publishes. Those below `idempotencyKey` are for queues. */
export interface OutputOptions extends Omit<MessageOptions, 'fullWaitMs'> {
  /** See `AddOptions`. */
  readonly delayMs?: number | undefined
  readonly priority?: Priority | undefined
  readonly deadlineMs?: number | undefined
  readonly callbackUrl?: string | undefined
}

/** Publishes from a handler: to a noun, whose payloads are checked by their type, or to a name. */
export interface Publish {
  // biome-ignore lint/suspicious/noExplicitAny: what its handlers get and return is of no concern here
  <In>(target: Queue<any, any, In> | Topic<any, In>, payload: In, options?: OutputOptions): Promise<void>
  (target: string, payload: unknown, options?: OutputOptions): Promise<void>
}

/** What a handler gets beside its message. Take what is needed by destructuring: `async (job, { signal }) => …`. */
export interface HandlerContext {
  /**
   * Aborts when the handler should stop: it ran for `timeoutMs` (`HANDLER_TIMEOUT`), its lease was lost, for example by
   * `cancel` (`LEASE_LOST`), or the worker closes and its drain time is over (`CLOSED`). The reason is the error.
   */
  readonly signal: AbortSignal
  /**
   * The number of this hold on the message. It only rises (P5): a store that remembers the highest fence it has seen
   * and refuses lower ones is safe from a handler that outlived its lease.
   */
  readonly fence: number
  /** 1 for the first delivery. */
  readonly attempt: number
  /**
   * Shows how far the job is: any JSON value of at most 4,096 bytes. Sent at most five times a second, the latest value
   * wins; kept in memory only, while the job runs. A larger one never fails the attempt: its JSON is cut off, shown as
   * text, and `onError` hears of it once in an attempt.
   */
  readonly progress: (value: unknown) => void
  /**
   * Publishes to a queue or topic of the same Sluice, by noun or name, in the very step that completes this message:
   * both take effect, or neither (P9). Where the target is full, the settle waits for room within `timeoutMs`. Awaiting
   * it tells of a refused option or payload; unawaited, such a refusal fails the attempt. At most 10,000 messages.
   */
  readonly publish: Publish
  /**
   * Runs `effect` and keeps what it returns (as JSON) under this message and `name`, so that a later attempt gets that
   * value and does not run it again. It does run again if the process died after the effect and before the record, or
   * if the lease was lost meanwhile: make the effect itself idempotent where that matters (P9).
   */
  readonly once: <T>(name: string, effect: () => T | Promise<T>) => Promise<T>
}
