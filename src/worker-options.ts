/** What a worker is told: by users, and by the noun that it works for. */
import type { HandlerContext } from './handler-context.ts'
import type { HeldLease } from './held-lease.ts'
import type { Message } from './message.ts'
import { createRules, duration } from './options-check.ts'

export const DEFAULT_LEASE_MS = 30_000
export const DEFAULT_TIMEOUT_MS = 1_800_000
export const DEFAULT_DRAIN_MS = 10_000
export const CLOSE_RULES = createRules({ drainMs: duration(0) })

export interface WorkOptions {
  /** Handlers that run at the same time, 1 to 10,000. @default 1 */
  readonly concurrency?: number | undefined
  /**
   * The longest a handler may take, in milliseconds, 1 to ten years. Then its signal aborts, and the attempt has failed
   * with `HANDLER_TIMEOUT` even if the handler never returns. @default 1_800_000 (30 minutes)
   */
  readonly timeoutMs?: number | undefined
  /**
   * How long a message stays held when this process falls silent, in milliseconds, 1,000 to a day; extended by itself
   * while the handler runs. Of no account on the embedded engine, where a hold ends with the process. @default 30_000
   */
  readonly leaseMs?: number | undefined
}

export interface CloseOptions {
  /**
   * How long running handlers may still take, in milliseconds, up to ten years. Then their signals abort and their
   * messages are given back. 0 gives back at once. @default 10_000
   */
  readonly drainMs?: number | undefined
}

/** What a worker works on. */
export interface WorkerPlan {
  readonly topic: string
  /** '' for a queue. */
  readonly group: string
  /** Whether what handlers return is kept. */
  readonly keepsResults: boolean
  /** Declares what is needed. */
  prepare(): Promise<void>
  /** The engine says that there is no such group: it is to be declared again. */
  forget(): void
  makeMessage(lease: HeldLease, index: number): Message
}

/** A handler, whatever its types. */
export type AnyHandler = (message: never, context: HandlerContext) => unknown
