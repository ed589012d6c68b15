/**
 * What a URL of RabbitMQ says: `amqp://user:password@host:port/vhost`, `amqps://` for TLS, and, as parameters, more hosts, the
 * management API, files for TLS, and the length of segments.
 */
import { readFileSync } from 'node:fs'
import { SluiceError } from '../../errors.ts'

const TLS_PARAMETERS = ['ca', 'cert', 'key', 'servername']
const PARAMETERS = ['hosts', 'management', 'segmentBytes', ...TLS_PARAMETERS]
const SEGMENT_BYTES = 67_108_864

export interface Target {
  readonly protocol: string
  readonly hosts: readonly { readonly hostname: string; readonly port: number }[]
  readonly username: string
  readonly password: string
  readonly vhost: string
  /** Of the management API, with its credentials; null where it is not given. */
  readonly management: URL | null
  /** Options of the socket. */
  readonly tls: object
  /** How long a segment of the journal becomes. */
  readonly segmentBytes: number
}

/** Throws INVALID_OPTION, with no password in it. */
export function readTarget(url: URL): Target {
  for (const name of url.searchParams.keys())
    if (!PARAMETERS.includes(name))
      throw refuse(`The URL has the parameter '${name}'. Those of RabbitMQ are namespace, ${PARAMETERS.join(', ')}`)
  const defaultPort = url.protocol === 'amqps:' ? 5671 : 5672
  const more = url.searchParams.get('hosts')?.split(',').filter(Boolean) ?? []
  const [username, password, vhost] = [url.username, url.password, url.pathname.slice(1)].map(decode) as [
    string,
    string,
    string,
  ]
  const credentials = username === '' ? { username: 'guest', password: 'guest' } : { username, password }
  return {
    protocol: url.protocol.slice(0, -1),
    hosts: [url.host || 'localhost', ...more].map((text) => readHost(text, defaultPort)),
    ...credentials,
    vhost: vhost || '/',
    management: readManagement(url.searchParams.get('management'), credentials),
    tls: readTls(url),
    segmentBytes: readSegmentBytes(url.searchParams.get('segmentBytes')),
  }
}

function readHost(text: string, defaultPort: number): { hostname: string; port: number } {
  const { hostname, port } = URL.canParse(`amqp://${text}`) ? new URL(`amqp://${text}`) : { hostname: '', port: '' }
  if (hostname === '')
    throw refuse(`'${text}' in the parameter 'hosts' is no host. Give host:port, separated by commas`)
  return { hostname: hostname.replace(/^\[|\]$/g, ''), port: Number(port) || defaultPort }
}

function readManagement(text: string | null, credentials: { username: string; password: string }): URL | null {
  if (text === null || text === '') return null
  if (!URL.canParse(text) || !/^https?:$/.test(new URL(text).protocol))
    throw refuse("The parameter 'management' is no http:// or https:// URL")
  const url = new URL(text)
  if (url.username === '') {
    url.username = encodeURIComponent(credentials.username)
    url.password = encodeURIComponent(credentials.password)
  }
  return url
}

function readTls({ protocol, searchParams }: URL): object {
  const given = TLS_PARAMETERS.flatMap((name) => {
    const value = searchParams.get(name)
    return value === null ? [] : [[name, name === 'servername' ? value : readFile(name, value)] as const]
  })
  if (protocol === 'amqps:') return Object.fromEntries(given)
  if (given.length > 0) throw refuse(`The parameter '${given[0]?.[0]}' is for TLS: use amqps://`)
  return {}
}

function readFile(name: string, file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (cause) {
    throw new SluiceError('INVALID_OPTION', `The file of ${name}= cannot be read: ${file}`, {}, cause)
  }
}

function readSegmentBytes(text: string | null): number {
  if (text === null) return SEGMENT_BYTES
  const bytes = Number(text)
  if (!Number.isSafeInteger(bytes) || bytes < 1_000)
    throw refuse(`The parameter 'segmentBytes' is '${text}', and not a whole number from 1000 on`)
  return bytes
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw refuse('The credentials or the virtual host in the URL are not URL-encoded')
  }
}

function refuse(message: string): SluiceError {
  return new SluiceError('INVALID_OPTION', `${message}.`)
}
