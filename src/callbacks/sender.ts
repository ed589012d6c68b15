/**
 * The sender of callbacks: a worker on the queue of callbacks, which posts each to its receiver as a signed webhook
 * (Standard Webhooks 1.0; docs/callbacks.md). All that makes it durable, it has from the queue: attempts, back-off, dead
 * letters, leases, so that of several senders one sends a callback at a time.
 *
 *     watching --the queue is there--> working --close--> closed
 *
 * The queue comes to be with the first job that asks for a callback, which may be on another machine; until then the
 * sender asks for it now and then, rather than declaring a queue that nobody may ever need.
 *
 *     2xx                                    taken
 *     410                                    a dead letter at once: the receiver wants no more
 *     an address that may not be called      a dead letter at once: allow it, and redrive
 *     429 or 503 with Retry-After            tried again after that time, within a second and a day
 *     anything else, or no answer            tried again after the back-off of the queue
 */
import { readFileSync } from 'node:fs'
import { CALLBACKS_QUEUE } from '../engine/options.ts'
import { isSluiceError } from '../errors.ts'
import { RetryLater, Unrecoverable } from '../handler-errors.ts'
import { type Host, realHost } from '../host/host.ts'
import type { JobMessage } from '../message.ts'
import { checkOptions, createRules, duration, invalidOption, type Rule, text, whole } from '../options-check.ts'
import type { Sluice } from '../sluice.ts'
import type { Worker } from '../worker.ts'
import { createAddressPolicy } from './addresses.ts'
import { Circuits } from './circuits.ts'
import type { Lookup } from './lookup.ts'
import { type Posted, post } from './post.ts'
import { fileSecrets, fixedSecrets, type SecretSource, sign } from './secrets.ts'

export interface CallbackOptions {
  /**
   * What callbacks are signed with, the newest first: `whsec_` and 24 to 64 bytes in base64. Each callback has a signature
   * of each. @default those of `secretFile`
   */
  readonly secrets?: readonly string[] | undefined
  /**
   * A file with a secret a line, looked at again when it changes. @default `webhook-secret` in the data folder, made with
   * a new secret where it is not there
   */
  readonly secretFile?: string | undefined
  /**
   * Addresses and ranges that may be called although they are not public, such as `10.0.0.0/8`. @default none
   */
  readonly allow?: readonly string[] | undefined
  /** Callbacks that are sent at one time, 1 to 1,000. @default 32 */
  readonly concurrency?: number | undefined
  /** The longest that one attempt may take, in milliseconds, 100 to 120,000. @default 15_000 */
  readonly timeoutMs?: number | undefined
}

/** For tests. */
export interface CallbackParts {
  readonly lookup?: Lookup | undefined
  readonly host?: Host | undefined
}

export interface CallbackSender extends AsyncDisposable {
  /** Takes nothing new; what is being sent is waited for, as `worker.close()` does. Also done by `sluice.close()`. */
  close(): Promise<void>
}

const texts: Rule = (value, name) => {
  if (!Array.isArray(value)) throw invalidOption(name, value, 'an array of texts')
  // A secret is not shown, whatever is wrong with it.
  for (const [i, one] of value.entries())
    if (typeof one !== 'string') throw invalidOption(`${name}[${i}]`, undefined, 'text')
}
export const CALLBACK_RULES = createRules({
  secrets: texts,
  secretFile: text(4_096),
  allow: texts,
  concurrency: whole(1, 1_000),
  timeoutMs: duration(100, 120_000),
})

const DEFAULT_CONCURRENCY = 32
const DEFAULT_TIMEOUT_MS = 15_000
/** How often it is asked whether the queue of callbacks is there. */
const WATCH_MS = 1_000
/** A request takes its time beside the lease's; the handler is ended by its own deadline, never by the worker's. */
const HANDLER_MARGIN_MS = 30_000
/** Sooner no receiver is tried again, whatever it asks for. */
const MIN_RETRY_AFTER_MS = 1_000
const USER_AGENT = `sluice/${readVersion()}`

/** Sends the callbacks of `sluice` until it is closed. Any number of processes may do it. */
export function sendCallbacks(sluice: Sluice, options: CallbackOptions, parts: CallbackParts = {}): CallbackSender {
  checkOptions(options, CALLBACK_RULES, 'the sender of callbacks')
  return new Sender(sluice, options, parts)
}

class Sender implements CallbackSender {
  readonly #sluice: Sluice
  readonly #options: CallbackOptions
  readonly #secrets: SecretSource
  readonly #policy: ReturnType<typeof createAddressPolicy>
  readonly #host: Host
  readonly #lookup: Lookup | undefined
  readonly #circuits = new Circuits()
  #worker: Worker | null = null
  #stopTimer: (() => void) | null = null
  #isClosed = false

  constructor(sluice: Sluice, options: CallbackOptions, { lookup, host = realHost }: CallbackParts) {
    this.#sluice = sluice
    this.#options = options
    this.#secrets = secretsOf(options)
    this.#policy = createAddressPolicy(options.allow ?? [])
    this.#lookup = lookup
    this.#host = host
    void this.#watch()
  }

  async close(): Promise<void> {
    this.#isClosed = true
    this.#stopTimer?.()
    await this.#worker?.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #watch(): Promise<void> {
    try {
      const outcome = await this.#sluice.engine.read({ topic: CALLBACKS_QUEUE, from: 'latest', max: 1, waitMs: 0 })
      if (this.#isClosed) return
      if (outcome.status !== 'not-found') {
        this.#work()
        return
      }
    } catch (error) {
      // A server that does not answer may do so later; a Sluice that is closed does not.
      if (isSluiceError(error, 'CLOSED') || isSluiceError(error, 'ENGINE_FAILED')) return
      if (isSluiceError(error) && !error.retryable && !this.#isClosed) {
        // Such as FORBIDDEN: the worker meets it, too, and tells `onError`.
        this.#work()
        return
      }
    }
    if (!this.#isClosed) this.#stopTimer = this.#host.setTimer(WATCH_MS, () => void this.#watch())
  }

  #work(): void {
    const { concurrency = DEFAULT_CONCURRENCY, timeoutMs = DEFAULT_TIMEOUT_MS } = this.#options
    this.#worker = this.#sluice.queue(CALLBACKS_QUEUE).work((job, { signal }) => this.#send(job, timeoutMs, signal), {
      concurrency,
      timeoutMs: timeoutMs + HANDLER_MARGIN_MS,
    })
  }

  async #send(job: JobMessage, timeoutMs: number, signal: AbortSignal): Promise<{ answered: number }> {
    const { 'sluice-callback-url': target = '', 'sluice-callback-id': id = '' } = job.headers
    if (!URL.canParse(target) || id === '') throw new Unrecoverable('It says neither where to nor who it is')
    const url = new URL(target)
    const timestamp = Math.floor(Date.now() / 1_000)
    const body = job.bytes
    if (!this.#circuits.enter(url.origin)) throw new Error(`${url.origin} has not answered lately, and was not tried`)
    let posted: Posted | null = null
    try {
      posted = await post(
        {
          url,
          body,
          headers: {
            'content-type': 'application/json',
            'user-agent': USER_AGENT,
            'webhook-id': id,
            'webhook-timestamp': String(timestamp),
            'webhook-signature': sign(this.#secrets(), { id, timestamp, body }),
          },
        },
        { policy: this.#policy, timeoutMs, lookup: this.#lookup, signal },
      )
    } finally {
      this.#circuits.leave(
        url.origin,
        posted === null || posted.status === 'refused' ? null : posted.status === 'answered',
      )
    }
    signal.throwIfAborted()
    // The path and the query of the URL may be secrets of the receiver, so errors name its origin only.
    if (posted.status === 'refused')
      throw new Unrecoverable(
        `Not sent to ${url.origin}: ${posted.reason}. Where it should be, allow its address: \`sluice serve --callback-allow\`, or \`allow\` of \`callbacks\`.`,
      )
    if (posted.status === 'failed') throw new Error(`${url.origin}: ${posted.reason}`)
    const { code, retryAfterMs } = posted
    if (code >= 200 && code < 300) return { answered: code }
    if (code === 410) throw new Unrecoverable(`${url.origin} answered 410: it wants no more callbacks`)
    const message = `${url.origin} answered ${code}${code >= 300 && code < 400 ? ', and redirects are not followed' : ''}`
    if (retryAfterMs !== null && (code === 429 || code === 503))
      throw new RetryLater({ delayMs: Math.max(MIN_RETRY_AFTER_MS, Math.ceil(retryAfterMs)), message })
    throw new Error(message)
  }
}

function secretsOf({ secrets, secretFile }: CallbackOptions): SecretSource {
  if (secrets !== undefined) return fixedSecrets(secrets)
  if (secretFile !== undefined) return fileSecrets(secretFile, (error) => process.emitWarning(String(error)))
  throw invalidOption('secrets', undefined, 'given, or `secretFile`: there is no data folder here to keep one in')
}

function readVersion(): string {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string
  }
  return version
}
