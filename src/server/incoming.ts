/**
 * A message as it comes in: the headers of a request, a line of a batch, or an output of a settle. All three give the
 * same thing: the fields that are stored, and the wishes that go beside them.
 */
import { isUtf8 } from 'node:buffer'
import type { IncomingHttpHeaders } from 'node:http'
import { type AppendWish, MAX_HEADER_BYTES, MAX_KEY_BYTES, type MessageFields, PRIORITIES } from '../index.ts'
import { SluiceError } from '../errors.ts'
import { cutMembers } from './json-text.ts'
import { anything, invalid, oneOf, optional, readMembers, type Rule, text, textMap, whole, wholeText } from './members.ts'

export interface Incoming {
  readonly fields: MessageFields
  readonly wish: Omit<AppendWish, 'index'> | null
}

/** Ten years: longer is a mistake in the unit. */
const MAX_DELAY_MS = 315_360_000_000
const MAX_TIME_MS = 8_640_000_000_000_000
const MAX_IDEMPOTENCY_CHARS = 256

const idempotencyKey: Rule<string> = (value, name) => {
  if (typeof value === 'string' && value.length > 0 && value.length <= MAX_IDEMPOTENCY_CHARS) return value
  throw invalid(name, value, `1 to ${MAX_IDEMPOTENCY_CHARS} characters`)
}
const key: Rule<string> = (value, name) => {
  if (typeof value === 'string' && value !== '' && Buffer.byteLength(value) <= MAX_KEY_BYTES) return value
  throw invalid(name, value, `1 to ${MAX_KEY_BYTES} bytes of UTF-8`)
}
const headerMap: Rule<Readonly<Record<string, string>>> = (value, name) => {
  const map = textMap(value, name)
  if (Buffer.byteLength(JSON.stringify(map)) <= MAX_HEADER_BYTES) return map
  throw invalid(name, 'longer', `at most ${MAX_HEADER_BYTES} bytes as JSON`)
}
const priority = oneOf(PRIORITIES)

const TOPIC_LINE = {
  payload: anything,
  payloadBase64: optional(text(Number.MAX_SAFE_INTEGER)),
  key: optional(key),
  headers: optional(headerMap),
  idempotencyKey: optional(idempotencyKey),
}
const JOB_LINE = {
  ...TOPIC_LINE,
  delayMs: optional(whole(0, MAX_DELAY_MS)),
  priority: optional(priority),
  deadlineMs: optional(whole(0, MAX_TIME_MS)),
}
const delayHeader = wholeText(0, MAX_DELAY_MS)
const deadlineHeader = wholeText(0, MAX_TIME_MS)

/** A job, from the headers of its request. */
export function readJobRequest(headers: IncomingHttpHeaders, payload: Buffer, nowMs: number): Incoming {
  const delay = headers['sluice-delay-ms']
  const priorityName = headers['sluice-priority']
  const deadline = headers['sluice-deadline-ms']
  const { fields, wish } = readTopicRequest(headers, payload)
  if (delay === undefined && priorityName === undefined && deadline === undefined) return { fields, wish }
  return withJobOptions(
    fields,
    wish?.idempotencyKey,
    {
      delayMs: delay === undefined ? undefined : delayHeader(delay, 'Sluice-Delay-Ms'),
      priority: priorityName === undefined ? undefined : priority(priorityName, 'Sluice-Priority'),
      deadlineMs: deadline === undefined ? undefined : deadlineHeader(deadline, 'Sluice-Deadline-Ms'),
    },
    nowMs,
  )
}

/** A message for a topic, from the headers of its request. */
export function readTopicRequest(headers: IncomingHttpHeaders, payload: Buffer): Incoming {
  const keyHeader = headers['sluice-key']
  const idempotencyHeader = headers['idempotency-key']
  const fields = {
    payload,
    isBytes: headers['content-type']?.startsWith('application/octet-stream') ?? false,
    key: keyHeader === undefined ? undefined : key(decodeHeader(keyHeader), 'Sluice-Key'),
    headers: traceHeaders(headers),
  }
  if (idempotencyHeader === undefined) return { fields, wish: null }
  return { fields, wish: { idempotencyKey: idempotencyKey(decodeHeader(idempotencyHeader), 'Idempotency-Key') } }
}

/** A message as a JSON object: its text, and the same parsed. */
export interface MessageSource {
  readonly source: string
  readonly value: unknown
  readonly kind: 'queue' | 'topic'
  /** For messages: "line 3". */
  readonly where: string
}

/** A message, from a JSON object that carries it. */
export function readMessageObject({ source, value, kind, where }: MessageSource, nowMs: number, maxBytes: number): Incoming {
  const read = kind === 'queue' ? readMembers(value, JOB_LINE, where) : readMembers(value, TOPIC_LINE, where)
  const hasText = Object.hasOwn(value as object, 'payload')
  if (hasText === (read.payloadBase64 !== undefined)) {
    throw new SluiceError('INVALID_PAYLOAD', `${where} needs one of payload (any JSON) and payloadBase64 (bytes), such as {"payload": {"to": "a@b.c"}}.`)
  }
  const payload = hasText ? (cutMembers(source).get('payload') as string) : decodeBase64(read.payloadBase64 as string)
  const bytes = Buffer.byteLength(payload)
  if (bytes > maxBytes) {
    throw new SluiceError('PAYLOAD_TOO_LARGE', `${where} has a payload of ${bytes} bytes; a message has at most ${maxBytes}.`, { limit: maxBytes })
  }
  const fields = { payload, key: read.key, headers: read.headers }
  if ('delayMs' in read) return withJobOptions(fields, read.idempotencyKey, read, nowMs)
  return { fields, wish: read.idempotencyKey === undefined ? null : { idempotencyKey: read.idempotencyKey } }
}

interface JobOptions {
  readonly delayMs: number | undefined
  readonly priority: (typeof PRIORITIES)[number] | undefined
  readonly deadlineMs: number | undefined
}

function withJobOptions(fields: MessageFields, idempotency: string | undefined, options: JobOptions, nowMs: number): Incoming {
  const { delayMs = 0, deadlineMs = 0 } = options
  const wish = delayMs === 0 && idempotency === undefined ? null : { idempotencyKey: idempotency, dueAtMs: delayMs === 0 ? undefined : nowMs + delayMs }
  return {
    fields: { ...fields, deadlineMs, ...(options.priority === undefined ? {} : { priority: PRIORITIES.indexOf(options.priority) }) },
    wish,
  }
}

/** The context of a trace travels with the message. */
function traceHeaders(headers: IncomingHttpHeaders): Record<string, string> | undefined {
  const { traceparent, tracestate } = headers
  if (typeof traceparent !== 'string') return undefined
  return typeof tracestate === 'string' ? { traceparent, tracestate } : { traceparent }
}

/** Node gives a header as Latin-1; people send UTF-8. */
function decodeHeader(value: string | string[]): string {
  const given = String(value)
  const bytes = Buffer.from(given, 'latin1')
  return isUtf8(bytes) ? bytes.toString('utf8') : given
}

function decodeBase64(encoded: string): Buffer {
  if (encoded.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(encoded)) return Buffer.from(encoded, 'base64')
  throw new SluiceError('INVALID_PAYLOAD', 'payloadBase64 is not base64 (A to Z, a to z, 0 to 9, + and /, filled up with =).')
}
