/**
 * From where the server may be called. On loopback every page in the user's browser can reach it, and a browser sends the
 * cookie of a session by itself, so two things are checked before a body is read, whether or not credentials are asked for:
 *
 *  - `Host` must be a loopback name, the address that was connected to, or a name in `allowedHosts`. A page whose name
 *    was pointed at 127.0.0.1 after it was loaded (DNS rebinding) still sends its own name.
 *  - A write from a browser must come from a page of this very server: `Origin`, where there is one, names this host,
 *    and `Sec-Fetch-Site` says `same-origin`, or `none` for what a person typed. Other programs send neither.
 */
import { isIPv6 } from 'node:net'
import { SluiceError } from '../errors.ts'

export interface GuardedRequest {
  readonly method: string
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  /** The address of this machine that the connection came in at. */
  readonly localAddress: string | undefined
}

const LOOPBACK_NAMES = new Set(['localhost', '127.0.0.1', '::1'])
const READS = new Set(['GET', 'HEAD', 'OPTIONS'])
const HOST_PATTERN = /^(?:\[([0-9a-f:.]+)\]|([^:@/?#\s]+))(?::\d{1,5})?$/i

/** Whether `host` is an address or name of this machine that no other machine can reach. */
export function isLoopback(host: string): boolean {
  return LOOPBACK_NAMES.has(host.toLowerCase()) || /^127(?:\.\d{1,3}){3}$/.test(host)
}

/** The name in a `Host` header or authority, in lower case and without brackets, port and last dot; or null. */
export function hostName(authority: string): string | null {
  const match = HOST_PATTERN.exec(authority)
  const name = match?.[1] ?? match?.[2]
  return name === undefined ? null : name.toLowerCase().replace(/\.$/, '')
}

/** The guard of a server that listens on `listenHost`. It throws `FORBIDDEN_ORIGIN`. */
export function createGuard(listenHost: string, allowedHosts: readonly string[]): (request: GuardedRequest) => void {
  const names = new Set([...LOOPBACK_NAMES, listenHost.toLowerCase()])
  for (const allowed of allowedHosts) {
    const name = isIPv6(allowed) ? allowed.toLowerCase() : hostName(allowed)
    if (name === null)
      throw new SluiceError('INVALID_OPTION', `allowedHosts has '${allowed}', which is not a host name.`)
    names.add(name)
  }
  function isOurs(name: string | null, localAddress: string | undefined): boolean {
    return name !== null && (names.has(name) || name === localAddress?.replace(/^::ffff:/, ''))
  }
  // A client names the same host each time, and clients name few.
  let lastHost = ''
  let lastAddress: string | undefined
  return ({ method, headers, localAddress }) => {
    const host = String(headers.host ?? '')
    if (host !== lastHost || localAddress !== lastAddress || host === '') {
      if (isOurs(hostName(host), localAddress)) {
        lastHost = host
        lastAddress = localAddress
      } else refuseHost(host)
    }
    if (READS.has(method)) return
    const site = headers['sec-fetch-site']
    if (site !== undefined && site !== 'same-origin' && site !== 'none') {
      throw new SluiceError(
        'FORBIDDEN_ORIGIN',
        `A page of another site may not write here (Sec-Fetch-Site: ${clip(String(site))}).`,
      )
    }
    const { origin } = headers
    if (origin !== undefined && !isSameHost(String(origin), host)) {
      throw new SluiceError(
        'FORBIDDEN_ORIGIN',
        `A page of '${clip(String(origin))}' may not write here; only pages of this server may.`,
      )
    }
  }
}

function refuseHost(host: string): never {
  throw new SluiceError(
    'FORBIDDEN_ORIGIN',
    `This server does not answer for the host '${clip(host)}'. Call it by the address it listens on, or name the host in \`allowedHosts\`.`,
  )
}

/** Whether the call changes nothing, or says, as every browser does, that a page of this server made it. */
export function isWriteFromOwnPage({ method, headers }: Pick<GuardedRequest, 'method' | 'headers'>): boolean {
  // That `Origin` names this host has been checked by the guard.
  return READS.has(method) || headers.origin !== undefined || headers['sec-fetch-site'] === 'same-origin'
}

/** An origin has the port only where it is not the default of its scheme, and behind a proxy the scheme may differ. */
function isSameHost(origin: string, host: string): boolean {
  const match = /^https?:\/\/([^/?#]+)$/i.exec(origin)
  return match?.[1]?.toLowerCase() === host.toLowerCase()
}

function clip(text: string): string {
  return text.length > 100 ? `${text.slice(0, 100)}…` : text
}
