/**
 * Sends one call of the engine contract to a server and tells how it ended: an answer, an error of the server, a
 * connection that was never made (nothing happened), or one that was lost (nobody knows what happened).
 */
import { type ClientRequest, Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { PROCESS_HEADER, WIRE_TYPE } from '../engine/wire.ts'
import { ERRORS, type ErrorCode, SluiceError } from '../errors.ts'
import { downloadBackup } from './download.ts'

export type Sent =
  | { readonly status: 'answered'; readonly body: Buffer }
  /** The server said so; nothing was done, but where the code is UNKNOWN. */
  | { readonly status: 'refused'; readonly error: SluiceError }
  /** Nobody listens there, or not any more: the call did not begin. */
  | { readonly status: 'not-sent'; readonly cause: unknown }
  | { readonly status: 'lost'; readonly cause: unknown; readonly isLate: boolean }
  | { readonly status: 'aborted' }

export interface CallOptions {
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly body?: Buffer | undefined
  readonly headers?: Readonly<Record<string, string>>
  /** How long the server may take; then the connection counts as lost. */
  readonly timeoutMs: number
  readonly signal?: AbortSignal | undefined
}

/** Errors of a socket that never was connected. */
const NOT_CONNECTED: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
])
/** Below what the server keeps idle connections for (5 s), so that none is used as it is closed. */
const IDLE_MS = 3_000

export class Transport {
  readonly #origin: URL
  /** Private, so that no print of this shows it. */
  readonly #authorization: Readonly<Record<string, string>>
  readonly #agent: HttpAgent | HttpsAgent
  readonly #underWay = new Set<ClientRequest>()
  /** The process that answered last; '' until one has. */
  serverProcess = ''

  constructor(origin: URL, credential?: string) {
    this.#origin = origin
    this.#authorization = credential === undefined ? {} : { authorization: `Bearer ${credential}` }
    const options = { keepAlive: true, timeout: IDLE_MS, maxFreeSockets: 64 }
    this.#agent = origin.protocol === 'https:' ? new HttpsAgent(options) : new HttpAgent(options)
  }

  call({ method, path, body, headers: more, timeoutMs, signal }: CallOptions): Promise<Sent> {
    if (signal?.aborted === true) return Promise.resolve({ status: 'aborted' })
    const isTls = this.#origin.protocol === 'https:'
    const send = isTls ? httpsRequest : httpRequest
    return new Promise((resolve) => {
      const headers = {
        ...this.#authorization,
        ...more,
        ...(body === undefined ? {} : { 'content-type': WIRE_TYPE, 'content-length': body.byteLength }),
      }
      const request = send(new URL(path, this.#origin), { method, agent: this.#agent, headers })
      this.#underWay.add(request)
      let isConnected = false
      const end = (sent: Sent) => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', onAbort)
        this.#underWay.delete(request)
        resolve(sent)
      }
      const onAbort = () => {
        end({ status: 'aborted' })
        request.destroy()
      }
      const timer = setTimeout(() => {
        end({ status: 'lost', cause: new Error(`no answer within ${timeoutMs} ms`), isLate: true })
        request.destroy()
      }, timeoutMs)
      signal?.addEventListener('abort', onAbort)
      request.on('socket', (socket) => {
        if (socket.connecting) socket.once(isTls ? 'secureConnect' : 'connect', () => (isConnected = true))
        else isConnected = true
      })
      request.on('error', (cause: NodeJS.ErrnoException) => {
        // Nothing of a request goes out before the two ends of TLS agree.
        const neverWas = !isConnected && (isTls || NOT_CONNECTED.has(cause.code ?? ''))
        end(neverWas ? { status: 'not-sent', cause } : { status: 'lost', cause, isLate: false })
      })
      request.on('response', (response) => {
        this.serverProcess = String(response.headers[PROCESS_HEADER] ?? this.serverProcess)
        readAll(response).then(
          (bytes) => end(toSent(response, bytes)),
          (cause: unknown) => end({ status: 'lost', cause, isLate: false }),
        )
      })
      request.end(body)
    })
  }

  /** A backup, into a file: too large for an answer that is kept in memory. */
  download(file: string, signal: AbortSignal): Promise<string> {
    return downloadBackup({ origin: this.#origin, headers: this.#authorization, file, signal })
  }

  /** Ends connections, those in use too. */
  close(): void {
    for (const request of this.#underWay) request.destroy()
    this.#agent.destroy()
  }
}

async function readAll(response: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = []
  for await (const piece of response) pieces.push(piece as Buffer)
  if (!response.complete) throw new Error('the answer was cut off')
  return Buffer.concat(pieces)
}

/** What an answer means. */
export function toSent({ statusCode = 0, headers }: IncomingMessage, body: Buffer): Sent {
  if (statusCode >= 200 && statusCode < 300) return { status: 'answered', body }
  return { status: 'refused', error: toError(statusCode, `${headers['content-type']}`, body) }
}

/** The problem document of a server as the error that it stands for. */
function toError(statusCode: number, type: string, body: Buffer): SluiceError {
  if (type.startsWith('application/problem+json')) {
    try {
      const {
        code,
        detail,
        type: _type,
        title: _title,
        status: _status,
        ...details
      } = JSON.parse(body.toString('utf8'))
      if (Object.hasOwn(ERRORS, code)) return new SluiceError(code as ErrorCode, String(detail), details)
    } catch {
      // Something else answers there.
    }
  }
  return new SluiceError('UNSUPPORTED', `What answers there with ${statusCode} is not a Sluice of this version.`, {
    status: statusCode,
  })
}
