/**
 * A client of the HTTP API over plain `fetch`: what any language would write.
 *
 * One try has one of four ends, and what may follow depends on which:
 *
 *     answered   the server said something, be it a refusal
 *     busy       503 (or 429): not stored; again after `Retry-After`
 *     refused    no connection: the server is down and heard nothing; again after a back-off
 *     unknown    the connection broke before the answer, or the server says `UNKNOWN`, since that happened to it: it may
 *                have taken effect or not. Again only where that is safe: with an idempotency key, or for a settle, whose
 *                fence lets it take effect once
 */
import { setTimeout as pause } from 'node:timers/promises'

export type Reply =
  | { readonly end: 'answered'; readonly status: number; readonly body: unknown }
  | { readonly end: 'busy'; readonly retryAfterMs: number }
  | { readonly end: 'refused' }
  | { readonly end: 'unknown' }

export interface Call {
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  /** Text as it is; anything else becomes JSON. */
  readonly body?: unknown
}

export interface Answer {
  readonly status: number
  readonly body: unknown
  /** How many tries ended in each other way before this answer. */
  readonly busy: number
  readonly refused: number
  readonly unknown: number
}

/** A call without an answer for this long is taken for one whose outcome is unknown. */
const CALL_MS = 20_000
/** A request is tried for this long in all. */
const PATIENCE_MS = 120_000
const BACKOFF_BASE_MS = 20
const BACKOFF_MAX_MS = 500

export class Client {
  readonly #base: string
  readonly #signal: AbortSignal

  /** `signal` ends every call and every pause. */
  constructor(base: string, signal: AbortSignal) {
    this.#base = base
    this.#signal = signal
  }

  /** One try. */
  async ask(path: string, { method = 'POST', headers = {}, body }: Call = {}): Promise<Reply> {
    try {
      const response = await fetch(`${this.#base}${path}`, {
        method,
        headers: body === undefined ? headers : { 'content-type': 'application/json', ...headers },
        body: body === undefined ? null : typeof body === 'string' ? body : JSON.stringify(body),
        signal: AbortSignal.any([this.#signal, AbortSignal.timeout(CALL_MS)]),
      })
      const text = await response.text()
      if (response.status === 503 || response.status === 429) {
        return { end: 'busy', retryAfterMs: Number(response.headers.get('retry-after') ?? 1) * 1_000 }
      }
      const answer = JSON.parse(text) as { code?: unknown } | null
      if (response.status === 500 && answer?.code === 'UNKNOWN') return { end: 'unknown' }
      return { end: 'answered', status: response.status, body: answer }
    } catch (error) {
      this.#signal.throwIfAborted()
      return { end: isRefused(error) ? 'refused' : 'unknown' }
    }
  }

  /** As many tries as it takes. For calls that may be repeated. */
  async askUntilAnswered(path: string, call: Call = {}): Promise<Answer> {
    const tries = { busy: 0, refused: 0, unknown: 0 }
    const untilMs = Date.now() + PATIENCE_MS
    for (let failures = 0; Date.now() < untilMs; failures++) {
      const reply = await this.ask(path, call)
      if (reply.end === 'answered') return { status: reply.status, body: reply.body, ...tries }
      tries[reply.end]++
      await (reply.end === 'busy' ? this.pause(reply.retryAfterMs) : this.backOff(failures))
    }
    throw new Error(`${call.method ?? 'POST'} ${path} had no answer for ${PATIENCE_MS} ms: ${JSON.stringify(tries)}`)
  }

  /** The same, for a call that must be answered with one of `statuses`. */
  async expect<T>(statuses: readonly number[], path: string, call: Call = {}): Promise<T> {
    const { status, body } = await this.askUntilAnswered(path, call)
    if (statuses.includes(status)) return body as T
    throw new Error(`${call.method ?? 'POST'} ${path} answered ${status}: ${JSON.stringify(body)}`)
  }

  /** Exponential back-off with full jitter. */
  backOff(failures: number): Promise<void> {
    return this.pause(Math.random() * Math.min(BACKOFF_MAX_MS, BACKOFF_BASE_MS * 2 ** failures))
  }

  pause(ms: number): Promise<void> {
    return pause(ms, undefined, { signal: this.#signal })
  }
}

function isRefused(error: unknown): boolean {
  const { cause } = error as { cause?: { code?: string; errors?: readonly { code?: string }[] } }
  return cause?.code === 'ECONNREFUSED' || (cause?.errors?.every(({ code }) => code === 'ECONNREFUSED') ?? false)
}
