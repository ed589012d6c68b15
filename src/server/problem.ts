/**
 * Errors as RFC 9457 problem documents: every failure that leaves the server is one row of the table in errors.ts, with
 * the values of this instance beside it. What is not a `SluiceError` is our own bug: it is logged, and the answer says
 * no more than that the outcome is not known.
 */
import { ERRORS, type ErrorCode, SluiceError } from '../errors.ts'

export interface Problem {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly code: ErrorCode
  readonly detail: string
  /** `depth`, `limit`, `retryAfterMs`, `path` and the like. */
  readonly [value: string]: unknown
}

export const PROBLEM_TYPE = 'application/problem+json; charset=utf-8'
/** What `Retry-After` says where the code is worth a retry and nothing better was measured. */
const BLIND_RETRY_SECONDS = 1
/** Members of our own, and the stack of a bug, which is for the log and not for callers. */
const KEPT_BACK = new Set(['type', 'title', 'status', 'code', 'detail', 'stack'])

/** What Fastify itself refuses, in our codes. Whatever else it answers with a 4xx is `BAD_REQUEST`. */
const FASTIFY_CODES: Readonly<Record<string, readonly [ErrorCode, string]>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: ['PAYLOAD_TOO_LARGE', 'The body is larger than this route takes'],
  FST_ERR_CTP_INVALID_MEDIA_TYPE: [
    'UNSUPPORTED_MEDIA_TYPE',
    'The content type is missing or not one that this route reads',
  ],
  FST_ERR_CTP_EMPTY_JSON_BODY: [
    'BAD_REQUEST',
    'The body is empty and its content type is application/json: send {} or no content type',
  ],
  FST_ERR_CTP_INVALID_JSON_BODY: [
    'BAD_REQUEST',
    'The body is not JSON, or has a member named __proto__ or constructor',
  ],
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: [
    'BAD_REQUEST',
    'The body is not as long as Content-Length says; nothing was stored',
  ],
  FST_ERR_BAD_URL: ['BAD_REQUEST', 'The path is not valid percent-encoding'],
  ERR_HTTP_REQUEST_TIMEOUT: ['BAD_REQUEST', 'The request took too long to arrive; nothing was stored'],
  HPE_HEADER_OVERFLOW: ['BAD_REQUEST', 'The headers are larger than 16 KiB'],
}

/** Statuses for which HTTP has a better one than the row of `BAD_REQUEST`. */
const FINER_STATUS: Readonly<Record<string, number>> = { ERR_HTTP_REQUEST_TIMEOUT: 408, HPE_HEADER_OVERFLOW: 431 }

/** The error as one that has a row in the table, or null where it is a bug of ours. */
export function toSluiceError(error: unknown): SluiceError | null {
  if (error instanceof SluiceError) return error
  if (typeof error !== 'object' || error === null) return null
  const { code, statusCode, message } = error as { code?: unknown; statusCode?: unknown; message?: unknown }
  const known = typeof code === 'string' ? FASTIFY_CODES[code] : undefined
  if (known !== undefined) return new SluiceError(known[0], `${known[1]}.`)
  const isClients = typeof statusCode === 'number' && statusCode >= 400 && statusCode < 500
  return isClients || (typeof code === 'string' && code.startsWith('HPE_'))
    ? new SluiceError('BAD_REQUEST', `The request cannot be read: ${String(message)}.`)
    : null
}

export function problemOf(error: unknown): Problem {
  const known =
    toSluiceError(error) ??
    new SluiceError('UNKNOWN', 'The server failed; whether the request took effect is not known. See its log.')
  const { title, status } = ERRORS[known.code]
  const values: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(known.details)) if (!KEPT_BACK.has(name)) values[name] = value
  return {
    type: `urn:sluice:error:${known.code}`,
    title,
    status: FINER_STATUS[(error as { code?: string } | null)?.code ?? ''] ?? status,
    code: known.code,
    detail: known.message,
    ...values,
  }
}

/** The value of `Retry-After`: whole seconds, rounded up, or null where a retry is of no use. */
export function retryAfterSeconds(problem: Problem): number | null {
  if (problem.status !== 503) return null
  const { retryAfterMs } = problem
  return typeof retryAfterMs === 'number' ? Math.max(1, Math.ceil(retryAfterMs / 1_000)) : BLIND_RETRY_SECONDS
}

/** The document as text. A detail that JSON cannot express never turns a refusal into a failure. */
export function formatProblem(problem: Problem): string {
  return JSON.stringify(problem, (_name, value) => (typeof value === 'bigint' ? Number(value) : value))
}
