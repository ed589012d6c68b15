/**
 * Sessions of browsers: a page cannot keep an API key safe, so it exchanges the key once for a cookie that no script can
 * read. The session is the key's: it may what the key may, and ends with it.
 *
 *     __Host-sluice   the browser sends it to this very host only, over TLS (or on loopback) only, to its own pages only
 *
 * Sessions are in memory: a restart of the server ends all. What is kept of one is the hash of its secret, so that nothing
 * in the server's memory is worth stealing. Their number is bounded, in all and for each key; the oldest makes room.
 */
import { drawSecret, hashSecret } from './api-key.ts'

export const COOKIE = '__Host-sluice'
/** A working day. */
export const SESSION_MS = 43_200_000
const MAX_SESSIONS = 1_000
const MAX_PER_KEY = 50
const SECRET = /^[A-Za-z0-9_-]{43}$/

interface Session {
  readonly keyId: string
  readonly endsAtMs: number
}

export class Sessions {
  readonly #now: () => number
  /** By the hash of the secret, the oldest first. */
  readonly #sessions = new Map<string, Session>()

  constructor(now: () => number) {
    this.#now = now
  }

  get size(): number {
    return this.#sessions.size
  }

  /** Begins a session of a key, and gives the value of `Set-Cookie`. It ends with the key, if that is earlier. */
  begin(keyId: string, keyEndsAtMs: number | null): { readonly setCookie: string; readonly endsAtMs: number } {
    const nowMs = this.#now()
    const endsAtMs = Math.min(nowMs + SESSION_MS, keyEndsAtMs ?? Number.POSITIVE_INFINITY)
    this.#makeRoom(keyId, nowMs)
    const secret = drawSecret()
    this.#sessions.set(idOf(secret), { keyId, endsAtMs })
    const seconds = Math.max(0, Math.floor((endsAtMs - nowMs) / 1_000))
    return { setCookie: formatCookie(secret, seconds), endsAtMs }
  }

  /** The session that the cookie is of, and the id of its key; or null. */
  find(cookieHeader: string | undefined): { readonly id: string; readonly keyId: string } | null {
    const secret = readCookie(cookieHeader)
    if (secret === null) return null
    // The look-up is by a hash of what was sent, so its time says nothing of the secrets that there are.
    const id = idOf(secret)
    const session = this.#sessions.get(id)
    return session !== undefined && this.#now() < session.endsAtMs ? { id, keyId: session.keyId } : null
  }

  /** Ends the session of the cookie, if there is one, and gives the `Set-Cookie` that removes it. */
  end(cookieHeader: string | undefined): string {
    const secret = readCookie(cookieHeader)
    if (secret !== null) this.#sessions.delete(idOf(secret))
    return formatCookie('', 0)
  }

  #makeRoom(keyId: string, nowMs: number): void {
    let ofKey = 0
    for (const [id, session] of this.#sessions) {
      if (nowMs >= session.endsAtMs) this.#sessions.delete(id)
      else if (session.keyId === keyId) ofKey++
    }
    for (const [id, session] of this.#sessions) {
      const isTooMany = this.#sessions.size >= MAX_SESSIONS || (session.keyId === keyId && ofKey >= MAX_PER_KEY)
      if (!isTooMany) continue
      this.#sessions.delete(id)
      if (session.keyId === keyId) ofKey--
    }
  }
}

function idOf(secret: string): string {
  return hashSecret(secret).toString('latin1')
}

function formatCookie(secret: string, seconds: number): string {
  return `${COOKIE}=${secret}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=${seconds}`
}

function readCookie(header: string | undefined): string | null {
  for (const pair of header?.split(';') ?? []) {
    const text = pair.trim()
    if (!text.startsWith(`${COOKIE}=`)) continue
    const secret = text.slice(COOKIE.length + 1)
    return SECRET.test(secret) ? secret : null
  }
  return null
}
