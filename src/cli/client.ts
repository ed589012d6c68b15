/** Calls a server for the other commands. What it answers as a problem becomes the `SluiceError` that it stands for. */
import { ERRORS, type ErrorCode, SluiceError } from '../errors.ts'
import { type Input, UsageError } from './command.ts'
import { credentialHeaders } from './credential.ts'

export const DEFAULT_URL = 'http://127.0.0.1:8787'
/** Longer than the longest wait of the server. */
const CALL_TIMEOUT_MS = 90_000

export interface Call {
  readonly method?: 'GET' | 'POST' | 'DELETE'
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
}

export class Client {
  readonly #base: string
  readonly #credential: Readonly<Record<string, string>>

  /** `credential`: headers that show a key. */
  constructor(base: string, credential: Readonly<Record<string, string>> = {}) {
    this.#base = base
    this.#credential = credential
  }

  /** The text of the answer. Throws `UNKNOWN` where the connection broke, since nobody can tell what was done. */
  async call(path: string, call: Call = {}): Promise<string> {
    const { answer, text } = await this.#send(path, call)
    if (answer.ok) return text
    throw errorOf(answer, text)
  }

  async #send(path: string, { method = 'GET', headers = {}, body }: Call): Promise<{ answer: Response; text: string }> {
    try {
      const answer = await fetch(`${this.#base}${path}`, {
        method,
        headers: { ...headers, ...this.#credential },
        ...(body === undefined ? {} : { body }),
        signal: AbortSignal.timeout(CALL_TIMEOUT_MS),
      })
      return { answer, text: await answer.text() }
    } catch (error) {
      const { cause } = error as { cause?: { code?: string } }
      if (cause?.code === 'ECONNREFUSED') throw new UnreachableError(this.#base, error)
      throw new SluiceError(
        'UNKNOWN',
        `The connection to ${this.#base} failed (${cause?.code ?? (error as Error).message}); whether the call took effect is not known.`,
        {},
        error,
      )
    }
  }
}

/** No server listens, so nothing was done. */
export class UnreachableError extends SluiceError {
  constructor(base: string, cause: unknown) {
    super(
      'UNREACHABLE',
      `No server answers at ${base}. Start one with \`sluice serve\`, or name another with --url, or a folder with --data.`,
      {},
      cause,
    )
  }
}

/** The client of the server that the options name. */
export function clientOf(input: Input): Client {
  const given = input.value('url') ?? DEFAULT_URL
  const url = URL.parse(given)
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:'))
    throw new UsageError(`--url is '${given}'; it must be such as ${DEFAULT_URL}.`)
  return new Client(url.href.replace(/\/+$/, ''), credentialHeaders(url))
}

/** The error in an answer. */
export function errorOf(answer: Response, text: string): SluiceError {
  const problem = parseObject(text)
  const { code, detail, type: _type, title: _title, status: _status, ...details } = problem
  if (typeof code === 'string' && Object.hasOwn(ERRORS, code))
    return new SluiceError(code as ErrorCode, String(detail), details)
  const retryAfter = Number(answer.headers.get('retry-after'))
  const isBusy = answer.status === 503 || answer.status === 429
  return isBusy
    ? new SluiceError('OVERLOADED', `The server answers ${answer.status}.`, {
        retryAfterMs: retryAfter > 0 ? retryAfter * 1_000 : 1_000,
      })
    : new SluiceError(
        'UNKNOWN',
        `The server answers ${answer.status}, not as Sluice does: is ${answer.url} a Sluice server?`,
      )
}

export function parseObject(text: string): Record<string, unknown> {
  try {
    return Object(JSON.parse(text)) as Record<string, unknown>
  } catch {
    return {}
  }
}
