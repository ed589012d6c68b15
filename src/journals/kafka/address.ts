/**
 * What a URL says of a Kafka:
 *
 *     kafka://user:password@host:9092?brokers=host2:9092,host3:9092&mechanism=scram-sha-256&tls=true&ca=/path/ca.pem
 *
 * `kafkas://` is `kafka://…?tls=true`. `advertised=ignore` keeps to the host of the URL, whatever address the broker gives of
 * itself: for one broker behind a tunnel or a forwarded port. Passwords stand in no message.
 */
import { readFileSync } from 'node:fs'
import type { ConnectionOptions, SASLOptions } from '@platformatic/kafka'
import { SluiceError } from '../../errors.ts'

export interface BrokerPlace {
  readonly host: string
  readonly port: number
}

export interface KafkaAddress {
  /** Who is asked first for the cluster. */
  readonly brokers: readonly BrokerPlace[]
  readonly tls: ConnectionOptions['tls']
  readonly sasl: SASLOptions | undefined
  /** Go to the first of `brokers` for everything. */
  readonly isAdvertisedIgnored: boolean
  /** Without its credentials, for messages. */
  readonly text: string
}

const DEFAULT_PORT = 9092
const PARAMETERS = ['brokers', 'mechanism', 'tls', 'ca', 'cert', 'key', 'servername', 'advertised', 'namespace']
const MECHANISMS = { plain: 'PLAIN', 'scram-sha-256': 'SCRAM-SHA-256', 'scram-sha-512': 'SCRAM-SHA-512' } as const

export function readAddress(url: URL): KafkaAddress {
  const { searchParams } = url
  for (const name of searchParams.keys())
    if (!PARAMETERS.includes(name))
      throw refuse(`The URL has the parameter '${name}'. Those of Kafka are namespace, ${PARAMETERS.join(', ')}`)
  const first = {
    host: url.hostname.replace(/^\[(.*)\]$/, '$1') || '127.0.0.1',
    port: Number(url.port || DEFAULT_PORT),
  }
  const others = (searchParams.get('brokers') ?? '').split(',').filter((one) => one !== '')
  const brokers = [first, ...others.map(readPlace)]
  const text = brokers.map(({ host, port }) => `${host}:${port}`).join(',')
  const advertised = searchParams.get('advertised')
  if (advertised !== null && advertised !== 'ignore') throw refuse(`advertised=${advertised} is not 'ignore'`)
  return { brokers, tls: readTls(url), sasl: readSasl(url), isAdvertisedIgnored: advertised === 'ignore', text }
}

function readPlace(text: string): BrokerPlace {
  const [, host, port = DEFAULT_PORT] = /^\[?([^\]]+?)\]?(?::(\d{1,5}))?$/.exec(text.trim()) ?? []
  if (host === undefined) throw refuse(`'${text}' in brokers= is no host:port`)
  return { host, port: Number(port) }
}

function readTls({ protocol, searchParams }: URL): ConnectionOptions['tls'] {
  const wanted = protocol === 'kafkas:' ? 'true' : (searchParams.get('tls') ?? 'false')
  if (wanted !== 'true' && wanted !== 'false') throw refuse(`tls=${wanted} is neither true nor false`)
  if (wanted === 'false') return undefined
  const files = (['ca', 'cert', 'key'] as const).flatMap((name) => {
    const file = searchParams.get(name)
    return file === null ? [] : [[name, readFile(name, file)]]
  })
  const servername = searchParams.get('servername')
  return { ...Object.fromEntries(files), ...(servername === null ? {} : { servername }) }
}

function readFile(name: string, file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (cause) {
    throw new SluiceError('INVALID_OPTION', `The file of ${name}= cannot be read: ${file}`, {}, cause)
  }
}

function readSasl({ username, password, searchParams }: URL): SASLOptions | undefined {
  const name = searchParams.get('mechanism')?.toLowerCase()
  if (username === '') {
    if (name !== undefined) throw refuse('The URL has a mechanism, and no user: kafka://user:password@host')
    return undefined
  }
  if (name !== undefined && !Object.hasOwn(MECHANISMS, name))
    throw refuse(`mechanism=${name} is none of ${Object.keys(MECHANISMS).join(', ')}`)
  return {
    mechanism: MECHANISMS[(name ?? 'plain') as keyof typeof MECHANISMS],
    username: decodeURIComponent(username),
    password: decodeURIComponent(password),
  }
}

function refuse(message: string): SluiceError {
  return new SluiceError('INVALID_OPTION', `${message}.`)
}
