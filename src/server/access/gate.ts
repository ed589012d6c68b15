/**
 * Finds out who calls, before anything of a body is read. A program shows an API key (`Authorization: Bearer`), a browser
 * the cookie of a session that it got for one.
 *
 * What a call without a good key costs is one look-up and one hash of 43 characters, so strangers gain nothing by many of
 * them; the log says how many there were, in one line for ten seconds.
 *
 * Who was let in may hold a connection for long: when keys change, the waits of callers whose key is no longer good end
 * (a long poll answers what it has, an event stream ends), and the next call of theirs is refused.
 */
import type { FastifyRequest } from 'fastify'
import { SluiceError } from '../../errors.ts'
import { isWriteFromOwnPage } from '../guard.ts'
import type { Visit } from '../load.ts'
import type { KeyRing } from './key-ring.ts'
import { ANYONE, type Caller } from './scopes.ts'
import type { Sessions } from './sessions.ts'

const REPORT_MS = 10_000
/** How often the key file is looked at. */
const LOOK_MS = 250
const BEARER = /^Bearer +([A-Za-z0-9._~+/=-]{1,512}) *$/i

export interface Identity {
  readonly caller: Caller
  readonly by: 'nobody' | 'key' | 'session'
  /** Which session. */
  readonly session?: string
}

const NOBODY: Identity = { caller: ANYONE, by: 'nobody' }

export interface GateOptions {
  /** Null: nobody needs a key. */
  readonly keys: KeyRing | null
  readonly sessions: Sessions
  /** Hears of calls without a good key. */
  report(count: number): void
}

export class Gate {
  readonly #keys: KeyRing | null
  readonly #sessions: Sessions
  readonly #report: (count: number) => void
  /** Calls that were let in, by whose key and of which session. */
  readonly #underWay = new Map<Visit, { readonly keyId: string; readonly session: string | undefined }>()
  #failures = 0
  #reportAtMs = Number.NEGATIVE_INFINITY
  #timer: NodeJS.Timeout | null = null

  constructor({ keys, sessions, report }: GateOptions) {
    this.#keys = keys
    this.#sessions = sessions
    this.#report = report
    keys?.onChange(() => this.#endWaits())
  }

  /** Whether calls need a credential now. */
  get isGuarded(): boolean {
    return this.#keys?.isGuarded ?? false
  }

  /** Watches the key file, until `stop`. */
  start(): void {
    if (this.#keys === null) return
    this.#timer = setInterval(() => {
      this.#keys?.refresh()
      // Keys end by time, too.
      this.#endWaits()
    }, LOOK_MS).unref()
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
  }

  /** Who calls. Throws `UNAUTHENTICATED`, and `FORBIDDEN_ORIGIN` for a write by cookie that no page of ours made. */
  identify(request: Pick<FastifyRequest, 'headers' | 'method'>): Identity {
    const keys = this.#keys
    if (keys === null || !keys.isGuarded) return NOBODY
    const { authorization, cookie } = request.headers
    if (authorization !== undefined) {
      const text = BEARER.exec(authorization)?.[1]
      const caller = text === undefined ? null : keys.authenticate(text)
      if (caller === null) throw this.#refuse('The key is not one of this server, or it has ended or was revoked')
      return { caller, by: 'key' }
    }
    const session = this.#sessions.find(cookie)
    if (session === null) throw this.#refuse('This call needs a key')
    const caller = keys.find(session.keyId)
    if (caller === null) throw this.#refuse('The key of this session has ended or was revoked')
    if (!isWriteFromOwnPage(request))
      throw new SluiceError('FORBIDDEN_ORIGIN', 'A write by a session must say that a page of this server made it.')
    return { caller, by: 'session', session: session.id }
  }

  /** Whether a call that needs no credential has one, or would need none anywhere. */
  lets(request: Pick<FastifyRequest, 'headers' | 'method'>): boolean {
    const { authorization, cookie } = request.headers
    if (this.isGuarded && authorization === undefined && cookie === undefined) return false
    try {
      this.identify(request)
      return true
    } catch {
      return false
    }
  }

  /** Follows a call that was let in, until it is over. */
  follow(visit: Visit, caller: Caller, session?: string): void {
    if (caller !== ANYONE) this.#underWay.set(visit, { keyId: caller.id, session })
  }

  leave(visit: Visit): void {
    this.#underWay.delete(visit)
  }

  /** Ends the session of the cookie with its waits, and gives the `Set-Cookie` that removes it. */
  endSession(cookie: string | undefined): string {
    const ended = this.#sessions.find(cookie)?.id
    if (ended !== undefined) for (const [visit, { session }] of this.#underWay) if (session === ended) visit.cutWait()
    return this.#sessions.end(cookie)
  }

  #endWaits(): void {
    for (const [visit, { keyId }] of this.#underWay) {
      if (this.#keys?.find(keyId) === null) visit.cutWait()
    }
  }

  #refuse(what: string): SluiceError {
    this.#failures++
    const now = performance.now()
    if (now - this.#reportAtMs >= REPORT_MS) {
      this.#report(this.#failures)
      this.#failures = 0
      this.#reportAtMs = now
    }
    return new SluiceError(
      'UNAUTHENTICATED',
      `${what}. Send Authorization: Bearer with a key of \`sluice keys create\`.`,
    )
  }
}
