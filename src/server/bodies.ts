/**
 * Bodies: which content types a route reads, how large they may be, and how they are taken apart. A payload is kept as
 * the bytes that came; what controls the server (declarations, leases, settles) is parsed here, whole.
 */
import { isUtf8 } from 'node:buffer'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { SluiceError } from '../errors.ts'
import type { Body } from './api/operation.ts'
import { ref } from './api/schemas.ts'
import { parseJson } from './members.ts'
import type { ServerSettings } from './settings.ts'

const JSON_TYPE = 'application/json'
const BYTES_TYPE = 'application/octet-stream'
export const BATCH_TYPE = 'application/x-ndjson'
/** The most lines of one batch. */
const MAX_LINES = 65_536
const LINE_FEED = 0x0a
/** The largest control body, unless the route says otherwise. */
const MAX_CONTROL_BYTES = 1_048_576

/** Control bodies only: JSON, kept as bytes until a route reads it. */
export function readsControl(app: FastifyInstance, settings: ServerSettings): void {
  keepAsBuffer(app, JSON_TYPE, Math.min(MAX_CONTROL_BYTES, settings.maxBatchBytes))
}

/** One payload, or a batch of messages as lines. */
export function readsPayloads(app: FastifyInstance, settings: ServerSettings): void {
  keepAsBuffer(app, JSON_TYPE, settings.maxMessageBytes)
  keepAsBuffer(app, BYTES_TYPE, settings.maxMessageBytes)
  keepAsBuffer(app, BATCH_TYPE, settings.maxBatchBytes)
}

/** What the OpenAPI document says of such a body. `line`: the schema of a line of a batch. */
export function payloadBody(line: 'JobLine' | 'MessageLine'): Body {
  return {
    isRequired: true,
    content: {
      [JSON_TYPE]: { description: 'The payload: any JSON' },
      [BYTES_TYPE]: { description: 'The payload: bytes' },
      [BATCH_TYPE]: { description: 'A batch: on each line an object of this form', ...ref(line) },
    },
  }
}

function keepAsBuffer(app: FastifyInstance, type: string, bodyLimit: number): void {
  app.addContentTypeParser(type, { parseAs: 'buffer', bodyLimit }, (_request, body, done) => done(null, body))
}

/** Refuses bodies that are not what their type says once they are stored: compressed ones, and text that is not UTF-8. */
export function checkBodyHeaders({ method, headers }: Pick<FastifyRequest, 'method' | 'headers'>): void {
  // Of these no body is read.
  if (method === 'GET' || method === 'HEAD') return
  const encoding = headers['content-encoding']
  if (encoding !== undefined && encoding !== 'identity') {
    throw new SluiceError('UNSUPPORTED_MEDIA_TYPE', 'A body with a Content-Encoding is not read; send it as it is.')
  }
  const charset = /;\s*charset\s*=\s*"?([^";\s]+)/i.exec(headers['content-type'] ?? '')?.[1]
  if (charset !== undefined && !/^(?:utf-?8|us-ascii)$/i.test(charset)) {
    throw new SluiceError('UNSUPPORTED_MEDIA_TYPE', 'A body must be UTF-8; its content type names another charset.')
  }
}

/** How many bytes of body a request announces; where it does not say, the most that it may have. */
export function announcedBytes(headers: FastifyRequest['headers'], settings: ServerSettings): number {
  const length = headers['content-length']
  if (length !== undefined) return Math.min(Number(length) || 0, settings.maxBatchBytes)
  if (headers['transfer-encoding'] === undefined) return 0
  return headers['content-type']?.toLowerCase().startsWith(BATCH_TYPE)
    ? settings.maxBatchBytes
    : settings.maxMessageBytes
}

/** The payload of a request that carries one message. */
export function readPayload(request: FastifyRequest): Buffer {
  const { body } = request
  if (!Buffer.isBuffer(body))
    throw new SluiceError(
      'UNSUPPORTED_MEDIA_TYPE',
      `The body is missing. Send the payload with the content type ${JSON_TYPE} or ${BYTES_TYPE}.`,
    )
  if (body.byteLength === 0 && isOfType(request, JSON_TYPE))
    throw new SluiceError('INVALID_PAYLOAD', 'The body is empty, which is not JSON. Send null for no payload.')
  return body
}

/** Whether the body is a batch of lines. */
export function isBatch(request: FastifyRequest): boolean {
  return isOfType(request, BATCH_TYPE)
}

/** A control body: its text, and the same parsed. A request without a body is `{}`. */
export function readControl(request: FastifyRequest): { readonly text: string; readonly value: unknown } {
  const { body } = request
  if (!Buffer.isBuffer(body) || body.byteLength === 0) return { text: '{}', value: {} }
  if (!isUtf8(body)) throw new SluiceError('BAD_REQUEST', 'The body is not UTF-8.')
  const text = body.toString('utf8')
  return { text, value: parseJson(text, 'The body', 'BAD_REQUEST') }
}

/** The lines of a batch that hold anything; null for one that is not UTF-8. */
export function splitLines(body: Buffer): (string | null)[] {
  return isUtf8(body) ? splitText(body.toString('utf8')) : splitBytes(body)
}

function splitText(text: string): string[] {
  const lines: string[] = []
  for (let start = 0; start < text.length; ) {
    const feed = text.indexOf('\n', start)
    const end = feed < 0 ? text.length : feed
    const line = text.slice(start, end)
    if (line.trim() !== '') lines.push(line)
    if (lines.length > MAX_LINES) throw tooManyLines()
    start = end + 1
  }
  return lines
}

/** Finds out which of the lines are at fault. */
function splitBytes(body: Buffer): (string | null)[] {
  const lines: (string | null)[] = []
  for (let start = 0; start < body.byteLength; ) {
    const feed = body.indexOf(LINE_FEED, start)
    const end = feed < 0 ? body.byteLength : feed
    const line = body.subarray(start, end)
    const text = isUtf8(line) ? line.toString('utf8') : null
    if (text?.trim() !== '') lines.push(text)
    if (lines.length > MAX_LINES) throw tooManyLines()
    start = end + 1
  }
  return lines
}

function tooManyLines(): SluiceError {
  const message = `A batch has at most ${MAX_LINES} lines; nothing was stored.`
  return new SluiceError('PAYLOAD_TOO_LARGE', message, { limit: MAX_LINES })
}

function isOfType(request: FastifyRequest, type: string): boolean {
  return request.headers['content-type']?.toLowerCase().startsWith(type) ?? false
}
