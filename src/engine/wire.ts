/**
 * The engine contract between two machines: a method's argument or answer as one body, in which batches stand as the bytes
 * that they are. Not for people; docs/http.md has the calls for any language.
 *
 *     at  size  what
 *      0     4  0x01454C53 ("SLE", version 1), little endian, as all that follows
 *      4     4  length of the JSON text
 *      8     n  JSON: {"value": …, "lengths": [bytes of each piece]}; where `value` has bytes it says {"~": number of the piece}
 *    8+n     …  the pieces, one behind the other
 */
import { SluiceError } from '../errors.ts'

/** Spoken by both ends, or refused: see the handshake in remote/remote-engine.ts. */
export const WIRE_VERSION = 2
/** The number of a call that must not be carried out twice; where it was sent before; which process answers. */
export const CALL_HEADER = 'sluice-call'
export const SENT_TO_HEADER = 'sluice-sent-to'
export const PROCESS_HEADER = 'sluice-process'
export const WIRE_TYPE = 'application/vnd.sluice.engine'

const MAGIC = 0x01454c53
const HEAD_BYTES = 8
const PIECE = '~'

export function encodeWire(value: unknown): Buffer {
  const pieces: Uint8Array[] = []
  const text = JSON.stringify(value, function (this: Record<string, unknown>, key, plain) {
    // A Buffer has turned itself into something else by now.
    const given = this[key]
    if (!(given instanceof Uint8Array)) return plain
    return { [PIECE]: pieces.push(given) - 1 }
  })
  const json = Buffer.from(`{"value":${text ?? 'null'},"lengths":[${pieces.map(({ byteLength }) => byteLength)}]}`)
  const head = Buffer.alloc(HEAD_BYTES)
  head.writeUInt32LE(MAGIC, 0)
  head.writeUInt32LE(json.byteLength, 4)
  return Buffer.concat([head, json, ...pieces])
}

/** The most values, and the deepest, that a call has in its JSON: what costs far more than its bytes is no call. */
export const MAX_CALL_VALUES = 1_000_000
const MAX_DEPTH = 64

/**
 * Throws BAD_REQUEST where the body is not of that form. Each piece of bytes stands in one place of the value, so what comes
 * out is never much more than what came in. `maxValues`: how many values the JSON may have.
 */
export function decodeWire(body: Uint8Array, maxValues = Number.POSITIVE_INFINITY): unknown {
  const buffer = Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  if (buffer.byteLength < HEAD_BYTES || buffer.readUInt32LE(0) !== MAGIC)
    throw malformed('it does not begin with its mark')
  const end = HEAD_BYTES + buffer.readUInt32LE(4)
  if (end > buffer.byteLength) throw malformed('it is cut off')
  const text = buffer.toString('utf8', HEAD_BYTES, end)
  if (Number.isFinite(maxValues)) checkSize(text, maxValues)
  let parsed: unknown
  let at = end
  try {
    parsed = JSON.parse(text)
  } catch {
    throw malformed('its head is not JSON')
  }
  const { value, lengths } = (parsed ?? {}) as { value?: unknown; lengths?: unknown }
  if (!Array.isArray(lengths)) throw malformed('it has no lengths')
  const pieces = lengths.map((length: unknown) => {
    if (!Number.isSafeInteger(length) || (length as number) < 0 || at + (length as number) > buffer.byteLength)
      throw malformed('its lengths are not those of its pieces')
    const piece = buffer.subarray(at, at + (length as number))
    at += length as number
    return piece
  })
  if (at !== buffer.byteLength) throw malformed('there is something behind it')
  return fill(value, pieces, 0)
}

/** Before it is parsed, since a body of nothing but brackets makes more objects than memory has room for. */
function checkSize(text: string, maxValues: number): void {
  let values = 0
  let depth = 0
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at)
    if (unit === 0x22) at = skipString(text, at)
    else if (unit === 0x2c) values++
    else if (unit === 0x5b || unit === 0x7b) {
      values++
      // Around the value stands the head.
      if (++depth > MAX_DEPTH + 1) throw malformed(`it is nested deeper than ${MAX_DEPTH} levels`)
    } else if (unit === 0x5d || unit === 0x7d) depth--
    if (values > maxValues) throw malformed(`it has more than ${maxValues} values`)
  }
}

/** The place of the closing quote, or the end of the text. */
function skipString(text: string, from: number): number {
  for (let end = text.indexOf('"', from + 1); end !== -1; end = text.indexOf('"', end + 1)) {
    let slashes = 0
    while (text.charCodeAt(end - 1 - slashes) === 0x5c) slashes++
    if (slashes % 2 === 0) return end
  }
  return text.length
}

/** Puts the pieces where they stand. Each is taken once. */
function fill(value: unknown, pieces: (Uint8Array | undefined)[], depth: number): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (depth > MAX_DEPTH) throw malformed(`it is nested deeper than ${MAX_DEPTH} levels`)
  if (Array.isArray(value)) return value.map((one) => fill(one, pieces, depth + 1))
  if (Object.hasOwn(value, PIECE)) {
    const number = (value as Record<string, unknown>)[PIECE]
    const piece = typeof number === 'number' ? pieces[number] : undefined
    if (piece === undefined) throw malformed('it names a piece that is not there, or was named before')
    pieces[number as number] = undefined
    // A copy of its own: batches are kept, and given away to another thread.
    return new Uint8Array(piece)
  }
  const filled: Record<string, unknown> = {}
  for (const [key, one] of Object.entries(value)) {
    // It would be the prototype: seen by whoever checks the value here, and gone where it is copied to another thread.
    if (key === '__proto__') throw malformed('it has a member that no call has')
    filled[key] = fill(one, pieces, depth + 1)
  }
  return filled
}

function malformed(why: string): SluiceError {
  return new SluiceError('BAD_REQUEST', `The body is not one of ${WIRE_TYPE}: ${why}.`)
}
