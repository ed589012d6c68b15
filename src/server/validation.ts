/**
 * Schemas. A queue or topic that this process gave a schema checks what comes over HTTP with it, and stores its output,
 * as it does with what comes from the process itself. Without one a payload is not even parsed.
 */
import { isUtf8 } from 'node:buffer'
import { SluiceError } from '../errors.ts'
import { parseJsonPayload, type Schema, validatePayload } from '../index.ts'
import { checkPayloadBytes, encodePayload } from '../payload.ts'
import type { Incoming } from './incoming.ts'

/** What is stored in place of `incoming`: at once, where there is no schema or it answers at once. */
export function validate(
  schema: Schema | undefined,
  incoming: Incoming,
  maxBytes: number,
): Incoming | Promise<Incoming> {
  if (schema === undefined) return incoming
  const output = validatePayload(schema, readValue(incoming))
  return output instanceof Promise
    ? output.then((value) => withPayload(incoming, value, maxBytes))
    : withPayload(incoming, output, maxBytes)
}

function readValue({ fields }: Incoming): unknown {
  const { payload, isBytes = typeof payload !== 'string' } = fields
  if (isBytes) return payload
  if (typeof payload === 'string') return parseJsonPayload(payload)
  if (!isUtf8(payload)) throw new SluiceError('INVALID_PAYLOAD', 'The payload is not UTF-8, so it is not JSON.')
  return parseJsonPayload(Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength).toString('utf8'))
}

/** The output is checked as the payloads of this process are. */
function withPayload({ fields, wish }: Incoming, value: unknown, maxBytes: number): Incoming {
  const payload = encodePayload(value)
  checkPayloadBytes(payload, maxBytes, 'What the schema makes of the payload', 'maxMessageBytes')
  return { fields: { ...fields, payload, isBytes: typeof payload !== 'string' }, wish }
}
