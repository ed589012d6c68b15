/**
 * Schemas. A queue or topic that this process gave a schema checks what comes over HTTP with it, and stores its output,
 * as it does with what comes from the process itself. Without one a payload is not even parsed.
 */
import { isUtf8 } from 'node:buffer'
import { SluiceError } from '../errors.ts'
import { parseJsonPayload, type Schema, validatePayload } from '../index.ts'
import type { Incoming } from './incoming.ts'

/** What is stored in place of `incoming`: at once, where there is no schema or it answers at once. */
export function validate(schema: Schema | undefined, incoming: Incoming): Incoming | Promise<Incoming> {
  if (schema === undefined) return incoming
  const output = validatePayload(schema, readValue(incoming))
  return output instanceof Promise
    ? output.then((value) => withPayload(incoming, value))
    : withPayload(incoming, output)
}

function readValue({ fields }: Incoming): unknown {
  const { payload, isBytes = typeof payload !== 'string' } = fields
  if (isBytes) return payload
  if (typeof payload === 'string') return parseJsonPayload(payload)
  if (!isUtf8(payload)) throw new SluiceError('INVALID_PAYLOAD', 'The payload is not UTF-8, so it is not JSON.')
  return parseJsonPayload(Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength).toString('utf8'))
}

function withPayload({ fields, wish }: Incoming, value: unknown): Incoming {
  const isBytes = value instanceof Uint8Array
  const payload = isBytes ? value : JSON.stringify(value)
  if (payload === undefined)
    throw new SluiceError('INVALID_PAYLOAD', 'The schema makes something of the payload that JSON cannot express.')
  return { fields: { ...fields, payload, isBytes }, wish }
}
