/** What a URL of Redis says: `redis://user:password@host:port/database`, `rediss://` for TLS, with its files as parameters. */
import { readFileSync } from 'node:fs'
import { SluiceError } from '../../errors.ts'

const PARAMETERS = ['ca', 'cert', 'key', 'servername']

/** Options of the client. */
export interface Address {
  readonly url: string
  readonly socket: object
}

/** Throws INVALID_OPTION, with no password in it. */
export function readAddress(url: URL): Address {
  for (const name of url.searchParams.keys())
    if (!PARAMETERS.includes(name))
      throw refuse(`The URL has the parameter '${name}'. Those of Redis are namespace, ${PARAMETERS.join(', ')}`)
  if (!/^\/?\d*$/.test(url.pathname))
    throw refuse(`The path of the URL, '${url.pathname}', is not a number of a database`)
  for (const part of [url.username, url.password])
    if (!isEncoded(part)) throw refuse('The credentials are not URL-encoded')
  const plain = new URL(url)
  plain.search = ''
  return { url: plain.href, socket: readTls(url) }
}

function readTls({ protocol, searchParams }: URL): object {
  const given = PARAMETERS.flatMap((name) => {
    const value = searchParams.get(name)
    return value === null ? [] : [[name, name === 'servername' ? value : readFile(name, value)] as const]
  })
  if (protocol === 'rediss:') return { tls: true, ...Object.fromEntries(given) }
  if (given.length > 0) throw refuse(`The parameter '${given[0]?.[0]}' is for TLS: use rediss://`)
  return {}
}

function readFile(name: string, file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (cause) {
    throw new SluiceError('INVALID_OPTION', `The file of ${name}= cannot be read: ${file}`, {}, cause)
  }
}

function isEncoded(text: string): boolean {
  try {
    decodeURIComponent(text)
    return true
  } catch {
    return false
  }
}

function refuse(message: string): SluiceError {
  return new SluiceError('INVALID_OPTION', `${message}.`)
}
