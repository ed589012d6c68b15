/**
 * A message as it comes in: the headers of a request, a line of a batch, or an output of a settle. All three give the
 * same thing: the fields that are stored, and the wishes that go beside them.
 */
import { isUtf8 } from 'node:buffer'
import type { IncomingHttpHeaders } from 'node:http'
import { normalizeCallbackUrl } from '../callback-url.ts'
import { SluiceError } from '../errors.ts'
import { type AppendWish, type MessageFields, PRIORITIES } from '../index.ts'
import { checkOptions, findNearest, MAX_DURATION_MS } from '../options-check.ts'
import { OUTPUT_JOB_RULES, OUTPUT_MESSAGE_RULES } from '../setting-rules.ts'
import { cutMember } from './json-text.ts'
import { about, optional, type Reader, type Readers, reader, wholeText } from './members.ts'

export interface Incoming {
  readonly fields: MessageFields
  readonly wish: Omit<AppendWish, 'index'> | null
}

const NO_OPTIONS = {}
const delayHeader = wholeText(0, MAX_DURATION_MS)
const deadlineHeader = wholeText(1, MAX_DURATION_MS)

/** A header whose value is checked, as the option that it is, with the others. */
function optionHeader(
  option: 'key' | 'idempotencyKey' | 'priority' | 'callbackUrl',
  description: string,
): Reader<string | undefined> {
  return reader({ ...OUTPUT_JOB_RULES[option]?.schema, description }, (value) => value as string | undefined)
}

/** Checked with the headers of the message, which they become. */
const trace = reader({ type: 'string' }, (value) => value as string | undefined)
/** `Sluice-Header-Tenant: acme` is the header `tenant` of the message. */
const HEADER_PREFIX = 'sluice-header-'
/** The headers of a request that say something of its message. */
export const MESSAGE_HEADERS = {
  'Sluice-Key': optionHeader('key', 'Orders: messages of one key are handed out one at a time. UTF-8'),
  'Idempotency-Key': optionHeader(
    'idempotencyKey',
    'Sent again under the same key it is stored once; of a batch, line n has the key with `/n` behind it',
  ),
  traceparent: about('Travels with the message (W3C Trace Context)', trace),
  tracestate: about('Travels with `traceparent`', trace),
}
export const JOB_HEADERS = {
  ...MESSAGE_HEADERS,
  'Sluice-Delay-Ms': about('It is due in so many milliseconds', optional(delayHeader)),
  'Sluice-Deadline-Ms': about(
    'It must be started within so many milliseconds, or is expired',
    optional(deadlineHeader),
  ),
  'Sluice-Priority': optionHeader('priority', '`high`, `normal` or `low`'),
  'Sluice-Callback-Url': optionHeader('callbackUrl', 'Told of the end of the job by a signed webhook'),
}
const HEADERS = { queue: sluiceNames(JOB_HEADERS), topic: sluiceNames(MESSAGE_HEADERS) }

function sluiceNames(headers: Readers): string[] {
  return Object.keys(headers).filter((name) => name.startsWith('Sluice-'))
}

/** What the OpenAPI document says of headers that no list can name. */
export const HEADERS_NOTE =
  'A header `Sluice-Header-NAME` of the request is the header `name` of the message. On a batch these and the others are what a line has that does not say otherwise.'

/** A message, from the headers and the body of its request. */
export function readRequest(
  headers: IncomingHttpHeaders,
  payload: Buffer,
  kind: 'queue' | 'topic',
  nowMs: number,
): Incoming {
  const isBytes = headers['content-type']?.toLowerCase().startsWith('application/octet-stream') ?? false
  return complete({ payload, isBytes }, readHeaders(headers, kind), kind, 'the headers', nowMs)
}

/** A message as a JSON object: its text, and the same parsed. */
export interface MessageSource {
  /** What the headers of the batch say for this line: from `readDefaults`. */
  readonly defaults?: object
  readonly source: string
  readonly value: unknown
  readonly kind: 'queue' | 'topic'
  /** For messages: "line 3". */
  readonly where: string
}

/** A message, from a JSON object that carries it. */
export function readMessageObject(
  { source, value, kind, where, defaults = NO_OPTIONS }: MessageSource,
  nowMs: number,
  maxBytes: number,
): Incoming {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw noPayload(where)
  const { payload: parsed, payloadBase64 } = value as Record<string, unknown>
  if ((parsed === undefined) === (payloadBase64 === undefined)) throw noPayload(where)
  const payload = parsed === undefined ? decodeBase64(payloadBase64) : (cutMember(source, 'payload') as string)
  const bytes = Buffer.byteLength(payload)
  if (bytes > maxBytes) {
    throw new SluiceError(
      'PAYLOAD_TOO_LARGE',
      `${where} has a payload of ${bytes} bytes; a message has at most ${maxBytes}.`,
      { limit: maxBytes },
    )
  }
  const options = optionsBeside(value)
  return complete({ payload }, defaults === NO_OPTIONS ? options : withDefaults(options, defaults), kind, where, nowMs)
}

/** The options that the headers of a batch give to its line `number`. */
export function readDefaults(headers: IncomingHttpHeaders, kind: 'queue' | 'topic'): (number: number) => object {
  const options: MessageOptions = readHeaders(headers, kind)
  const { idempotencyKey } = options
  if (idempotencyKey === undefined) return () => options
  return (number) => ({ ...options, idempotencyKey: `${idempotencyKey}/${number}` })
}

/** What a line says goes before what the headers of its batch say. */
function withDefaults(own: MessageOptions, defaults: MessageOptions): object {
  if (own === NO_OPTIONS) return defaults
  const isPlain = typeof own.headers === 'object' && own.headers !== null && !Array.isArray(own.headers)
  const headers = isPlain ? { ...defaults.headers, ...own.headers } : (own.headers ?? defaults.headers)
  return { ...defaults, ...own, ...(headers === undefined ? {} : { headers }) }
}

/** The members beside the payload; most messages have none, and need no copy without it. */
function optionsBeside(value: object): object {
  for (const name in value) {
    if (name === 'payload' || name === 'payloadBase64') continue
    const { payload: _payload, payloadBase64: _base64, ...options } = value as Record<string, unknown>
    return options
  }
  return NO_OPTIONS
}

interface MessageOptions {
  readonly key?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly idempotencyKey?: string
  readonly delayMs?: number
  readonly priority?: (typeof PRIORITIES)[number]
  readonly deadlineMs?: number
  readonly callbackUrl?: string
}

/** Checks the options with the rules that they have in TypeScript, and makes fields and wishes of them. */
function complete(
  payload: Pick<MessageFields, 'payload' | 'isBytes'>,
  options: object,
  kind: 'queue' | 'topic',
  where: string,
  nowMs: number,
): Incoming {
  if (options === NO_OPTIONS) return { fields: payload, wish: null }
  checkOptions(options, kind === 'queue' ? OUTPUT_JOB_RULES : OUTPUT_MESSAGE_RULES, where)
  const { key, headers, idempotencyKey, delayMs = 0, priority, deadlineMs, callbackUrl } = options as MessageOptions
  return {
    fields: {
      ...payload,
      key,
      headers,
      ...(priority === undefined ? {} : { priority: PRIORITIES.indexOf(priority) }),
      ...(deadlineMs === undefined ? {} : { deadlineMs: nowMs + deadlineMs }),
    },
    wish:
      delayMs === 0 && idempotencyKey === undefined && callbackUrl === undefined
        ? null
        : {
            idempotencyKey,
            dueAtMs: delayMs === 0 ? undefined : nowMs + delayMs,
            ...(callbackUrl === undefined ? {} : { callbackUrl: normalizeCallbackUrl(callbackUrl) }),
          },
  }
}

/** Whether a header may say something of the message: most requests have none that does. */
function saysSomething(given: IncomingHttpHeaders): boolean {
  if (given['idempotency-key'] !== undefined || given.traceparent !== undefined) return true
  for (const name in given) if (name.startsWith('sluice-')) return true
  return false
}

/** The options that the headers of a request carry, by the names that they have in TypeScript. */
function readHeaders(given: IncomingHttpHeaders, kind: 'queue' | 'topic'): object {
  if (!saysSomething(given)) return NO_OPTIONS
  checkHeaderNames(given, kind)
  const options: Record<string, unknown> = {}
  let count = 0
  function take(header: string, option: string, read: (value: string) => unknown): void {
    const value = given[header]
    if (value === undefined) return
    options[option] = read(String(value))
    count++
  }
  take('sluice-key', 'key', decodeHeader)
  take('idempotency-key', 'idempotencyKey', decodeHeader)
  const headers = readMessageHeaders(given)
  if (headers !== null) {
    options.headers = headers
    count++
  }
  if (kind === 'queue') {
    take('sluice-delay-ms', 'delayMs', (value) => delayHeader(value, 'Sluice-Delay-Ms'))
    take('sluice-deadline-ms', 'deadlineMs', (value) => deadlineHeader(value, 'Sluice-Deadline-Ms'))
    take('sluice-priority', 'priority', (value) => value)
    take('sluice-callback-url', 'callbackUrl', decodeHeader)
  }
  return count === 0 ? NO_OPTIONS : options
}

/** The headers of the message: those of its trace, and those that are named as such. */
function readMessageHeaders(given: IncomingHttpHeaders): Record<string, string> | null {
  let headers: Record<string, string> | null = null
  for (const name in given) {
    if (!name.startsWith(HEADER_PREFIX)) continue
    // Without a prototype, so that `__proto__` is a name like any other: one that is refused, not one that is lost.
    headers ??= Object.create(null) as Record<string, string>
    headers[name.slice(HEADER_PREFIX.length)] = decodeHeader(String(given[name]))
  }
  const { traceparent, tracestate } = given
  if (traceparent === undefined) return headers
  const trace = {
    traceparent: String(traceparent),
    ...(tracestate === undefined ? {} : { tracestate: String(tracestate) }),
  }
  return headers === null ? trace : { ...headers, ...trace }
}

/** A misspelt header is refused: without it the message would be stored as one that nobody meant. */
function checkHeaderNames(given: IncomingHttpHeaders, kind: 'queue' | 'topic'): void {
  for (const name in given) {
    if (!name.startsWith('sluice-') || (name.startsWith(HEADER_PREFIX) && name.length > HEADER_PREFIX.length)) continue
    const known = HEADERS[kind]
    if (known.some((one) => one.toLowerCase() === name)) continue
    const shown = name.slice(0, 80)
    const nearest = findNearest(name, known)
    const hint = nearest === null ? '' : ` Did you mean '${nearest}'?`
    throw new SluiceError(
      'INVALID_OPTION',
      `There is no header '${shown}' of a message for a ${kind}.${hint} There are: ${known.join(', ')}, and Sluice-Header-NAME.`,
      { option: shown, nearest },
    )
  }
}

/** Node gives a header as Latin-1; people send UTF-8. */
function decodeHeader(value: string): string {
  const bytes = Buffer.from(value, 'latin1')
  return isUtf8(bytes) ? bytes.toString('utf8') : value
}

function decodeBase64(encoded: unknown): Buffer {
  if (typeof encoded === 'string' && encoded.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(encoded))
    return Buffer.from(encoded, 'base64')
  throw new SluiceError(
    'INVALID_PAYLOAD',
    'payloadBase64 is not base64 (A to Z, a to z, 0 to 9, + and /, filled up with =).',
  )
}

function noPayload(where: string): SluiceError {
  return new SluiceError(
    'INVALID_PAYLOAD',
    `${where} needs one of payload (any JSON) and payloadBase64 (bytes), such as {"payload": {"to": "a@b.c"}}.`,
  )
}
