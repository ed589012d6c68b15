/**
 * Refuses requests that two programs could read in two ways: what stands in front of the server must not see another
 * request than the server does. Framing itself (`Content-Length` with `Transfer-Encoding`, either of them twice, folded
 * headers, bare line feeds, odd chunk sizes) is the parser's, which refuses it. It lets through what is here:
 *
 *  - a header that decides who calls, from where, or what the body is, and comes twice: Node keeps the first and drops the
 *    others, or joins them, and others may do otherwise;
 *  - more headers than any program sends: Node silently drops those beyond 2,000, and with them what a check would look at;
 *  - a transfer coding besides `chunked`, or one in HTTP/1.0; versions other than 1.0 and 1.1;
 *  - a target that is a whole URL, whose host would count rather than that of `Host`.
 */
import type { IncomingMessage } from 'node:http'
import { SluiceError } from '../errors.ts'

const MAX_HEADERS = 128
const ONCE: ReadonlySet<string> = new Set([
  'authorization',
  'content-encoding',
  'content-length',
  'content-type',
  'cookie',
  'host',
  'idempotency-key',
  'last-event-id',
  'origin',
  'sec-fetch-site',
  'transfer-encoding',
])

/** Throws `BAD_REQUEST`. */
export function checkRequest({
  httpVersion,
  url = '',
  rawHeaders,
}: Pick<IncomingMessage, 'httpVersion' | 'url' | 'rawHeaders'>): void {
  if (httpVersion !== '1.1' && httpVersion !== '1.0')
    throw new SluiceError('BAD_REQUEST', `The request is of HTTP/${httpVersion}; this server speaks HTTP/1.1.`)
  if (!url.startsWith('/'))
    throw new SluiceError('BAD_REQUEST', 'The target of the request must be a path; the host is named by Host.')
  if (rawHeaders.length > 2 * MAX_HEADERS)
    throw new SluiceError('BAD_REQUEST', `The request has more than ${MAX_HEADERS} headers.`, { limit: MAX_HEADERS })
  // Names and values in turn.
  let seen: Set<string> | null = null
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = (rawHeaders[i] as string).toLowerCase()
    if (!ONCE.has(name) && !name.startsWith('sluice-')) continue
    seen ??= new Set()
    if (seen.has(name)) throw new SluiceError('BAD_REQUEST', `The request has the header '${name.slice(0, 80)}' twice.`)
    seen.add(name)
    if (name === 'transfer-encoding') checkCoding(rawHeaders[i + 1] as string, httpVersion)
  }
}

function checkCoding(coding: string, httpVersion: string): void {
  if (httpVersion === '1.1' && coding.trim().toLowerCase() === 'chunked') return
  throw new SluiceError('BAD_REQUEST', 'The only transfer coding that is read is chunked, in HTTP/1.1.')
}
