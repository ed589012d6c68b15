/**
 * Payloads: a value that JSON can express, kept as JSON text, or a `Uint8Array`, kept as the bytes that it is.
 *
 * What JSON would drop in silence (a function, a Map, an ArrayBuffer) is refused rather than stored as `{}`; what
 * JSON.stringify changes by its own rules inside a value (a Date becomes text, NaN null) is left to it.
 */
import { SluiceError } from './errors.ts'

/** How deep arrays and objects may be nested in JSON that came as text. */
export const MAX_JSON_DEPTH = 100

const QUOTE = 0x22
const BACKSLASH = 0x5c

/** The payload as it is stored. Refuses what cannot be (`INVALID_PAYLOAD`). */
export function encodePayload(value: unknown): string | Uint8Array {
  if (typeof value === 'object' && ArrayBuffer.isView(value)) {
    if (value instanceof Uint8Array) return value
    throw invalid(`${value.constructor.name} is neither JSON nor bytes; pass a Uint8Array of its buffer`)
  }
  return encodeJson(value, 'The payload')
}

/** JSON text of `value`; `what` begins the message of a refusal. */
export function encodeJson(value: unknown, what: string): string {
  let json: string | undefined
  try {
    json = JSON.stringify(value)
  } catch (cause) {
    throw invalid(`${what} cannot be written as JSON: ${firstLine(cause)}`, cause)
  }
  if (json === undefined) throw invalid(`${what} is ${typeof value}, which JSON cannot express`)
  if (typeof value === 'object' && (json === '{}' ? isOpaque(value) : ArrayBuffer.isView(value))) {
    throw invalid(`${what} is a ${(value as object).constructor.name}, which JSON cannot express; convert it first`)
  }
  return json
}

/** Refuses what is longer than allowed (`PAYLOAD_TOO_LARGE`). */
export function checkPayloadBytes(
  payload: string | Uint8Array,
  maxBytes: number,
  what = 'The payload',
  limit = 'maxPayloadBytes',
): void {
  if (typeof payload === 'string' && payload.length * 3 <= maxBytes) return
  const bytes = typeof payload === 'string' ? Buffer.byteLength(payload) : payload.byteLength
  if (bytes <= maxBytes) return
  throw new SluiceError(
    'PAYLOAD_TOO_LARGE',
    `${what} has ${bytes} bytes, and ${limit} is ${maxBytes}. Send less, or raise it where Sluice is opened.`,
    { bytes, [limit]: maxBytes },
  )
}

/**
 * The value of JSON text from outside. Depth is checked before the text is parsed, by scanning it, so that text of any
 * depth costs no stack.
 */
export function parseJsonPayload(json: string, maxDepth: number = MAX_JSON_DEPTH): unknown {
  if (isDeeperThan(json, maxDepth))
    throw invalid(`The payload is nested deeper than ${maxDepth} levels`, undefined, { maxDepth })
  try {
    return JSON.parse(json)
  } catch (cause) {
    throw invalid(`The payload is not JSON: ${firstLine(cause)}`, cause)
  }
}

/** Whether arrays and objects are nested deeper than that in a text, be it JSON or not. Costs no stack. */
export function isDeeperThan(json: string, maxDepth: number): boolean {
  let depth = 0
  for (let at = 0; at < json.length; at++) {
    const unit = json.charCodeAt(at)
    if (unit === QUOTE) {
      at = findStringEnd(json, at)
    } else if (unit === 0x5b || unit === 0x7b) {
      if (++depth > maxDepth) return true
    } else if (unit === 0x5d || unit === 0x7d) {
      depth--
    }
  }
  return false
}

/** The closing quote of the string that opens at `at`, or the end of the text. */
function findStringEnd(json: string, at: number): number {
  for (let end = json.indexOf('"', at + 1); end !== -1; end = json.indexOf('"', end + 1)) {
    let slashes = 0
    while (json.charCodeAt(end - 1 - slashes) === BACKSLASH) slashes++
    if (slashes % 2 === 0) return end
  }
  return json.length
}

/** Whether an object has content that JSON does not see. */
function isOpaque(value: unknown): boolean {
  return (
    ArrayBuffer.isView(value) ||
    value instanceof Map ||
    value instanceof Set ||
    value instanceof ArrayBuffer ||
    value instanceof Promise ||
    value instanceof RegExp
  )
}

/** What was thrown, in one line. Never throws, whatever it was. */
export function firstLine(cause: unknown): string {
  try {
    return String(cause instanceof Error ? cause.message : cause).split('\n', 1)[0] as string
  } catch {
    return `what was thrown is ${typeof cause} that cannot be shown`
  }
}

function invalid(message: string, cause?: unknown, details: Record<string, unknown> = {}): SluiceError {
  return new SluiceError('INVALID_PAYLOAD', `${message}.`, details, cause)
}
