/** What every route has at hand. */
import type { FastifyRequest } from 'fastify'
import type { Engine, Sluice, StoredSchedules } from '../index.ts'
import type { Gate } from './access/gate.ts'
import type { KeyRing } from './access/key-ring.ts'
import type { Sessions } from './access/sessions.ts'
import type { Appender } from './appender.ts'
import type { Directory } from './directory.ts'
import type { Tails } from './follower.ts'
import type { Load, Visit } from './load.ts'
import type { ServerSettings } from './settings.ts'

export interface Context {
  readonly sluice: Sluice
  readonly engine: Engine
  readonly settings: ServerSettings
  readonly directory: Directory
  readonly appender: Appender
  readonly tails: Tails
  readonly load: Load
  readonly gate: Gate
  /** Null where the server knows of no key file. */
  readonly keys: KeyRing | null
  readonly sessions: Sessions
  /** Fires the schedules whose payload is stored; null until the server listens. */
  schedules: StoredSchedules | null
  /** Milliseconds since 1970. */
  now(): number
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Its place in the count of requests under way; there from the first hook on. */
    visit: Visit
  }
}

/** What a handler gives that will send its reply, and then end its visit, without a promise for it. */
export const ANSWERS_LATER = Symbol('answers later')

export const JSON_TYPE = 'application/json; charset=utf-8'
/** Longer than any name or id, as a part of a path; what is longer is refused by their own checks. */
export const MAX_PATH_CHARS = 16_384
/** The longest wait of one call. */
export const MAX_WAIT_MS = 60_000

/**
 * Runs a wait as one: counted with the waits, ended when the client goes or the server closes. Without a time to wait
 * it is a plain call.
 */
export async function waiting<T>(
  { visit }: FastifyRequest,
  waitMs: number,
  call: (signal?: AbortSignal) => Promise<T>,
): Promise<T> {
  if (waitMs === 0) return call()
  const signal = visit.wait()
  try {
    return await call(signal)
  } finally {
    visit.endWait()
  }
}
