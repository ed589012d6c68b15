/**
 * Refuses headers that two programs could read in two ways. Of a header that comes twice Node keeps the first and drops the
 * others, or joins them, and what stands in front of the server may do otherwise; so one that decides who calls, from
 * where, or what the body is comes once or the call is refused. (What bounds a body, `Content-Length` and
 * `Transfer-Encoding`, is the parser's, which refuses it before.)
 */
import { SluiceError } from '../errors.ts'

/** More than any program sends. Node silently drops those beyond 2,000, and with them what a check would look at. */
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
])

/** Names and values in turn, as they came. Throws `BAD_REQUEST`. */
export function checkHeaders(rawHeaders: readonly string[]): void {
  if (rawHeaders.length > 2 * MAX_HEADERS)
    throw new SluiceError('BAD_REQUEST', `The request has more than ${MAX_HEADERS} headers.`, { limit: MAX_HEADERS })
  let seen: Set<string> | null = null
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = (rawHeaders[i] as string).toLowerCase()
    if (!ONCE.has(name) && !name.startsWith('sluice-')) continue
    seen ??= new Set()
    if (seen.has(name)) throw new SluiceError('BAD_REQUEST', `The request has the header '${name.slice(0, 80)}' twice.`)
    seen.add(name)
  }
}
