/** The certificate and key that the server shows, from files. Neither is ever part of a message. */
import { readFileSync, statSync } from 'node:fs'
import { createSecureContext, type Server as TlsServer } from 'node:tls'
import { SluiceError } from '../errors.ts'

/** How often the files are looked at. */
const LOOK_MS = 1_000

export interface TlsFiles {
  /** The certificate and those that vouch for it, in PEM. */
  readonly cert: string
  /** The private key, in PEM, without a passphrase. */
  readonly key: string
}

export interface TlsContext {
  readonly cert: Buffer
  readonly key: Buffer
}

/** Throws `INVALID_OPTION` where a file cannot be read or the two do not belong together. */
export function readTls(files: TlsFiles): TlsContext {
  const context = { cert: readPem(files.cert, 'tls.cert'), key: readPem(files.key, 'tls.key') }
  try {
    createSecureContext(context)
  } catch (error) {
    throw new SluiceError(
      'INVALID_OPTION',
      `The certificate ${files.cert} and the key ${files.key} cannot be used: ${(error as NodeJS.ErrnoException).code ?? 'they are not PEM'}. They must be PEM, without a passphrase, and belong together.`,
      { option: 'tls' },
    )
  }
  return context
}

/** Shows a certificate that was renewed, once both files are there and belong together; until then the old one. */
export function renewTls(server: object, files: TlsFiles): NodeJS.Timeout {
  let shown = stampOfTls(files)
  return setInterval(() => {
    const stamp = stampOfTls(files)
    if (stamp === shown) return
    try {
      ;(server as TlsServer).setSecureContext(readTls(files))
      shown = stamp
    } catch {
      // Only one of the two is written yet.
    }
  }, LOOK_MS).unref()
}

/** What tells one state of the files from another. */
function stampOfTls({ cert, key }: TlsFiles): string {
  return [cert, key]
    .map((path) => {
      const stat = statSync(path, { bigint: true, throwIfNoEntry: false })
      return stat === undefined ? '' : `${stat.ino} ${stat.size} ${stat.mtimeNs}`
    })
    .join('|')
}

function readPem(path: string, option: string): Buffer {
  try {
    return readFileSync(path)
  } catch (error) {
    throw new SluiceError(
      'INVALID_OPTION',
      `${option} is '${path}', which cannot be read: the system says ${(error as NodeJS.ErrnoException).code}.`,
      { option },
    )
  }
}
