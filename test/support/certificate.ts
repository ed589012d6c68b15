/** A certificate for loopback that signs itself, made by openssl for one test. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'

/** Writes `NAME.crt` and `NAME.key` into the folder. */
export async function makeCertificate(folder: string, name = 'tls'): Promise<{ cert: string; key: string }> {
  const cert = join(folder, `${name}.crt`)
  const key = join(folder, `${name}.key`)
  await promisify(execFile)('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
    ...['-subj', `/CN=${name}`, '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', key, '-out', cert],
  ])
  return { cert, key }
}
