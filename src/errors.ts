/**
 * One class of error and one table of codes.
 *
 * A `SluiceError` is something a user, an operator or a machine did and can act on. Our own bugs are `assert` failures,
 * never this class. Expected outcomes inside Sluice (full, duplicate, stale) are values of the engine contract; they
 * become a `SluiceError` only where a user's call has no other way to hear of them.
 *
 * The reference page docs/errors.md and the HTTP problem documents are made from this table.
 */

interface ErrorRow {
  /** What happened, one sentence, without values: values stand in the message of the instance. */
  readonly title: string
  /** The status of the HTTP answer. */
  readonly status: number
  /** Whether the same request may succeed later, unchanged. */
  readonly retryable: boolean
  /** What to do about it. */
  readonly solve: string
}

export const ERRORS = {
  INVALID_NAME: row(
    400,
    false,
    'A name has characters that names may not have',
    'Use 1 to 128 letters, digits, dots, dashes or underscores, the first a letter or digit.',
  ),
  INVALID_OPTION: row(
    400,
    false,
    'An option is unknown or its value is out of range',
    'The message names the option, the value and what is allowed.',
  ),
  INVALID_PAYLOAD: row(
    400,
    false,
    'A payload cannot be encoded or is broken',
    'Send a value that JSON can express, or bytes; where the queue has a schema, valid JSON of at most 100 levels.',
  ),
  SCHEMA_MISMATCH: row(
    422,
    false,
    'A payload does not match the schema',
    'The details name each path and what was expected there. Nothing was stored.',
  ),
  PAYLOAD_TOO_LARGE: row(
    413,
    false,
    'A payload or body is larger than allowed',
    'Send less at once, or raise the limit where the queue or server is configured.',
  ),
  UNSUPPORTED_MEDIA_TYPE: row(
    415,
    false,
    'The content type is not one that this route reads',
    'Send application/json, application/x-ndjson or application/octet-stream, as the route documents.',
  ),
  BAD_REQUEST: row(400, false, 'The request cannot be read', 'The message says which part is malformed.'),
  FORBIDDEN: row(
    403,
    false,
    'The key has no scope for this',
    'The details name the scope that is missing: use a key that has it, or make one with `sluice keys create --scope`.',
  ),
  FORBIDDEN_ORIGIN: row(
    403,
    false,
    'The Host, Origin or Sec-Fetch-Site header is not one this server answers',
    'Call the server by the address it listens on, or name the host in `allowedHosts`.',
  ),
  NOT_FOUND: row(404, false, 'There is no such route', 'docs/http.md lists the routes.'),
  METHOD_NOT_ALLOWED: row(
    405,
    false,
    'The route does not take this method',
    'The Allow header names the methods that it takes.',
  ),
  QUEUE_NOT_FOUND: row(404, false, 'There is no such queue', 'Declare it, or add a job: the first use declares it.'),
  TOPIC_NOT_FOUND: row(
    404,
    false,
    'There is no such topic',
    'Declare it, or publish to it: the first use declares it.',
  ),
  GROUP_NOT_FOUND: row(
    404,
    false,
    'There is no such group on this topic',
    'Declare the group by subscribing, with the place where it starts.',
  ),
  JOB_NOT_FOUND: row(
    404,
    false,
    'There is no job of this id',
    'The id is of another data folder, or the job was settled longer ago than `retention` keeps.',
  ),
  DECLARED_DIFFERENTLY: row(
    409,
    false,
    'The queue or topic exists with another setting that may not change',
    'Use the existing setting, or another name.',
  ),
  QUEUE_FULL: row(
    503,
    true,
    'The queue or topic is at its limit; nothing was stored',
    'Try again after `retryAfterMs`, slow the producer down, add workers, or raise `limit`. On a topic the details name the group that is behind: let it work, or remove it.',
  ),
  WAIT_TOO_LONG: row(
    503,
    true,
    'The measured wait is past the deadline; nothing was stored',
    'Try again after `retryAfterMs`, allow more time, add workers, or add the job without waiting for it.',
  ),
  DISK_FULL: row(
    503,
    true,
    'The disk is full; nothing was stored',
    'Free space on the disk of the data folder. Settling still works; publishing resumes by itself.',
  ),
  OVERLOADED: row(503, true, 'The server has too many requests in flight', 'Try again after the time in Retry-After.'),
  IDEMPOTENCY_MISMATCH: row(
    409,
    false,
    'The idempotency key was used with another payload',
    'Use a new key for a new payload.',
  ),
  LEASE_LOST: row(
    409,
    false,
    'The lease is no longer held; the call had no effect',
    'Stop working on the message: it expired, was cancelled or is handed to another worker.',
  ),
  OFFSET_TRUNCATED: row(
    410,
    false,
    'The offset is below the earliest one kept',
    'Read from `earliest` (see the details), or seek the group.',
  ),
  OFFSET_OUT_OF_RANGE: row(
    400,
    false,
    'The offset is beyond the end of the topic',
    'Read from an offset up to `head` (see the details).',
  ),
  DEADLINE: row(
    504,
    false,
    'The wait ended before the outcome was there',
    'The work goes on: ask for the job by the id in the details. Adding it again would do it twice.',
  ),
  JOB_FAILED: row(
    500,
    false,
    'The job failed for good',
    'The details carry the last error; redrive it once the cause is mended.',
  ),
  JOB_CANCELLED: row(409, false, 'The job was cancelled', 'Add it again if it is still wanted.'),
  JOB_EXPIRED: row(
    504,
    true,
    'The deadline of the job passed before it was started',
    'It never ran. Give more time, or add workers.',
  ),
  JOB_SETTLED: row(409, false, 'The job is already settled; its status never changes', 'Nothing is to be done.'),
  HANDLER_TIMEOUT: row(
    500,
    true,
    'A handler ran longer than its time-out',
    'Raise `timeoutMs`, or make the handler faster and heed `signal`.',
  ),
  UNKNOWN: row(500, true, 'The outcome is not known', 'Retry with the same idempotency key: that is safe.'),
  LOCKED: row(
    409,
    false,
    'Another process owns the data folder',
    'Stop that process, or let it serve the folder (`sluice serve`) and use its HTTP API.',
  ),
  READ_ONLY: row(
    500,
    false,
    'The data folder cannot be written',
    'Give the user of this process write permission on the folder and on its files.',
  ),
  FORMAT_NEWER: row(
    500,
    false,
    'The data folder was written by a newer version',
    'Open it with that version or a newer one.',
  ),
  CORRUPT: row(
    500,
    false,
    'Stored data is damaged; it is not served',
    'Restore a backup, or copy the folder aside for inspection. Nothing was changed.',
  ),
  UNSUPPORTED: row(
    400,
    false,
    'This engine refuses what was asked',
    'The message says which ability is missing and which engines have it.',
  ),
  ENGINE_FAILED: row(
    500,
    false,
    'The engine stopped after a failed write, sync or check',
    'See the cause; mend the disk and open the engine again. What was acknowledged is kept.',
  ),
  UNREACHABLE: row(
    503,
    true,
    'The server or broker cannot be reached, or has no owner that answers',
    'Nothing was stored. Start it or mend the network; what waits goes on by itself once it answers.',
  ),
  UNAUTHENTICATED: row(
    401,
    false,
    'The credentials are missing or were refused',
    'Give valid credentials: to a broker in its URL, to a server as an API key (`Authorization: Bearer`; `open(url, { credential })`; SLUICE_KEY for `sluice`).',
  ),
  FOREIGN_DATA: row(
    409,
    false,
    'The broker has something of this name that Sluice did not make',
    'Give another `namespace`, or remove what stands there. Nothing was changed.',
  ),
  ENGINE_CHANGED: row(
    500,
    false,
    'The broker does not have the data any more that this process worked on',
    'It came back empty, was restored, or a replica was promoted: what was acknowledged may be missing. Check the broker, then open Sluice again to go on with what is there.',
  ),
  CLOSED: row(
    503,
    false,
    'Sluice is closed or closing',
    'Open it again. What was acknowledged is kept, and goes on then.',
  ),
} as const satisfies Record<string, ErrorRow>

function row(status: number, retryable: boolean, title: string, solve: string): ErrorRow {
  return { title, status, retryable, solve }
}

/** Every code that a {@link SluiceError} may have. */
export type ErrorCode = keyof typeof ERRORS

/** A failure that a caller can act on. `code` is stable; `message` says what happened, the value and what to do. */
export class SluiceError extends Error {
  override readonly name: string = 'SluiceError'
  readonly code: ErrorCode
  /** Whether the same request may succeed later, unchanged. */
  readonly retryable: boolean
  /** Values for programs, such as `depth`, `limit`, `retryAfterMs`, `path`. */
  readonly details: Readonly<Record<string, unknown>>

  constructor(code: ErrorCode, message?: string, details: Record<string, unknown> = {}, cause?: unknown) {
    super(message ?? `${ERRORS[code].title}. ${ERRORS[code].solve}`, cause === undefined ? undefined : { cause })
    this.code = code
    this.retryable = ERRORS[code].retryable
    this.details = details
  }

  /** What a log or an answer shows of it. */
  toJSON(): Record<string, unknown> {
    const { name, code, message, retryable, details } = this
    return { name, code, message, retryable, details }
  }
}

/** Whether `value` is a {@link SluiceError}, of that code where one is given. */
export function isSluiceError(value: unknown, code?: ErrorCode): value is SluiceError {
  return value instanceof SluiceError && (code === undefined || value.code === code)
}

/** Whether a call of the engine may succeed when it is made again. */
export function isTransient(error: unknown): boolean {
  return error instanceof SluiceError && error.retryable && error.code !== 'CLOSED'
}
