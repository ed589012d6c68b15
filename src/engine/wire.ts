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

/** Throws BAD_REQUEST where the body is not of that form. The bytes in the value are parts of `body`. */
export function decodeWire(body: Uint8Array): unknown {
  const buffer = Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  if (buffer.byteLength < HEAD_BYTES || buffer.readUInt32LE(0) !== MAGIC)
    throw malformed('it does not begin with its mark')
  const end = HEAD_BYTES + buffer.readUInt32LE(4)
  if (end > buffer.byteLength) throw malformed('it is cut off')
  let parsed: unknown
  let at = end
  try {
    parsed = JSON.parse(buffer.toString('utf8', HEAD_BYTES, end), (_key, value: unknown) =>
      isPlace(value) ? new Piece(value[PIECE]) : value,
    )
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
  return fill(value, pieces)
}

/** Where bytes stand, until they are put there. */
class Piece {
  readonly number: unknown

  constructor(number: unknown) {
    this.number = number
  }
}

function isPlace(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && PIECE in value
}

function fill(value: unknown, pieces: readonly Uint8Array[]): unknown {
  if (value instanceof Piece) {
    const piece = pieces[value.number as number]
    if (piece === undefined) throw malformed('it names a piece that is not there')
    // A copy of its own: batches are kept, and given away to another thread.
    return new Uint8Array(piece)
  }
  if (Array.isArray(value)) return value.map((one) => fill(one, pieces))
  if (typeof value !== 'object' || value === null) return value
  const filled: Record<string, unknown> = {}
  for (const [key, one] of Object.entries(value)) filled[key] = fill(one, pieces)
  return filled
}

function malformed(why: string): SluiceError {
  return new SluiceError('BAD_REQUEST', `The body is not one of ${WIRE_TYPE}: ${why}.`)
}
