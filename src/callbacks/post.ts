/**
 * One request to a receiver that nobody here knows, under one deadline for all of it.
 *
 *     resolve -> every address is judged -> connect to one of them -> send -> first lines of the answer -> close
 *
 * What a name stands for is asked once, and the connection is made to an address of that very answer: the name goes into
 * `Host` and into TLS only. So a name that stands for something else a moment later (rebinding) changes nothing. One
 * address that is refused refuses the name. Redirects are answers like any other; nothing follows them.
 *
 * Of the answer only its status is used. Its head has at most 16 KiB, of its body at most 16 KiB are read, and the
 * connection is closed whatever the receiver does.
 */
import { type ClientRequest, request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { isIP, type LookupFunction } from 'node:net'
import type { AddressPolicy } from './addresses.ts'
import { type Address, createLookup, type Lookup } from './lookup.ts'

const MAX_HEAD_BYTES = 16_384
const MAX_ANSWER_BYTES = 16_384
/** How long a receiver may take to end an answer whose status is known. */
const REST_MS = 1_000
/** Longer a receiver cannot ask to be left alone. */
const MAX_RETRY_AFTER_MS = 86_400_000

const lookupAnywhere = createLookup()

export interface Letter {
  readonly url: URL
  readonly headers: Readonly<Record<string, string>>
  readonly body: Uint8Array
}

export interface PostOptions {
  readonly policy: AddressPolicy
  readonly timeoutMs: number
  readonly lookup?: Lookup | undefined
  /** Ends it: the outcome is `failed`. */
  readonly signal: AbortSignal
}

export type Posted =
  | { readonly status: 'answered'; readonly code: number; readonly retryAfterMs: number | null }
  /** It may not be sent there; nothing was. */
  | { readonly status: 'refused'; readonly reason: string }
  /** No answer came; it may have arrived all the same. */
  | { readonly status: 'failed'; readonly reason: string }

/** Sends and tells what came of it. Never rejects. */
export async function post(letter: Letter, options: PostOptions): Promise<Posted> {
  const { policy, timeoutMs, lookup = lookupAnywhere, signal } = options
  const deadline = new AbortController()
  const timer = setTimeout(() => deadline.abort(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs)
  const end = AbortSignal.any([deadline.signal, signal])
  try {
    const host = hostOf(letter.url)
    const addresses = await orAbort(isIP(host) === 0 ? lookup(host, end) : literal(host), end)
    if (addresses.length === 0) return { status: 'failed', reason: `${host} has no address` }
    for (const { address } of addresses) {
      const reason = policy.refuse(address)
      if (reason !== null) return { status: 'refused', reason: isIP(host) === 0 ? `${host}: ${reason}` : reason }
    }
    return await exchange(letter, host, addresses, end)
  } catch (error) {
    return { status: 'failed', reason: describe(end.aborted ? end.reason : error) }
  } finally {
    clearTimeout(timer)
  }
}

function exchange(
  { url, headers, body }: Letter,
  host: string,
  addresses: readonly Address[],
  end: AbortSignal,
): Promise<Posted> {
  const options: RequestOptions = {
    protocol: url.protocol,
    hostname: host,
    port: url.port,
    path: `${url.pathname}${url.search}`,
    method: 'POST',
    headers: { ...headers, host: url.host, 'content-length': body.byteLength, connection: 'close' },
    // A connection of its own, which nothing else uses later.
    agent: false,
    lookup: answerWith(addresses),
    maxHeaderSize: MAX_HEAD_BYTES,
    signal: end,
  }
  const sending = url.protocol === 'https:' ? httpsRequest(options) : httpRequest(options)
  return new Promise<Posted>((resolve, reject) => {
    sending.on('error', reject)
    sending.on('upgrade', (_answer, socket) => {
      socket.destroy()
      reject(new Error('it answered with another protocol'))
    })
    sending.on('response', (answer) => {
      readRest(answer).then(() => resolve(outcomeOf(answer)), reject)
    })
    sending.end(body)
  }).finally(() => close(sending))
}

/** Lets the receiver end its answer, within bounds: what it says there is of no account. */
function readRest(answer: IncomingMessage): Promise<void> {
  return new Promise((resolve) => {
    let bytes = 0
    const timer = setTimeout(resolve, REST_MS)
    const done = (): void => {
      clearTimeout(timer)
      resolve()
    }
    answer.on('data', (chunk: Buffer) => {
      bytes += chunk.byteLength
      if (bytes > MAX_ANSWER_BYTES) done()
    })
    answer.on('end', done).on('error', done).on('close', done)
  })
}

function close(sending: ClientRequest): void {
  // What comes after the outcome is known is nobody's error.
  sending.on('error', () => {})
  sending.destroy()
}

function outcomeOf(answer: IncomingMessage): Posted {
  const code = answer.statusCode ?? 0
  return { status: 'answered', code, retryAfterMs: readRetryAfter(answer.headers['retry-after']) }
}

function readRetryAfter(value: string | undefined): number | null {
  if (value === undefined) return null
  const ms = /^\d{1,9}$/.test(value) ? Number(value) * 1_000 : Date.parse(value) - Date.now()
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), MAX_RETRY_AFTER_MS) : null
}

/** The resolver of the connection: it knows the answer already, whatever it is asked. */
function answerWith(addresses: readonly Address[]): LookupFunction {
  return (_name, options, callback) => {
    const [first] = addresses as [Address]
    if (options.all === true) callback(null, [...addresses])
    else callback(null, first.address, first.family)
  }
}

/** The host without the brackets of IPv6. */
function hostOf({ hostname }: URL): string {
  return hostname.startsWith('[') ? hostname.slice(1, -1) : hostname
}

function literal(address: string): Promise<readonly Address[]> {
  return Promise.resolve([{ address, family: isIP(address) }])
}

function orAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason)
    if (signal.aborted) abort()
    signal.addEventListener('abort', abort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}

function describe(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException
  const text = code === undefined ? String(message ?? error) : code
  return text.slice(0, 200)
}
