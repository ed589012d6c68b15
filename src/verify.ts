/** Whether what a location keeps is whole, and whether it can keep what Sluice promises. Nothing is changed. */
import { statSync } from 'node:fs'
import type { Finding } from './journals/contract.ts'
import { type OpenOptions, open } from './open.ts'
import { findNodeProblem, invalidOption } from './options-check.ts'

export type { Finding } from './journals/contract.ts'

export interface Verified {
  readonly kind: 'folder' | 'backup' | 'server' | 'broker'
  /** Whether nothing refuses. */
  readonly isGood: boolean
  readonly findings: readonly Finding[]
}

/** Of a broker: what is to be kept, as for `open`. */
export interface VerifyOptions
  extends Pick<OpenOptions, 'credential' | 'insecureHttp' | 'durability' | 'copies' | 'connectMs'> {
  /** Hears of the bytes that were read by now, of a folder or a backup. */
  readonly onRead?: ((bytes: number) => void) | undefined
}

/**
 * A data folder that nobody has open: files, checksums, the write-ahead log, and every row. A backup: the same. A server:
 * whether it answers and its log is well. A broker: whether it is set up to keep what Sluice promises. What is damaged is
 * `CORRUPT`, a folder that is open `LOCKED`.
 */
export async function verify(location: string, options: VerifyOptions = {}): Promise<Verified> {
  const nodeProblem = findNodeProblem(process.versions.node)
  if (nodeProblem !== null) throw nodeProblem
  const { onRead = () => {}, durability, copies, connectMs, ...rest } = options
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(location)?.[1]?.toLowerCase()
  if (scheme === 'http' || scheme === 'https') return toVerified('server', await verifyServer(location, rest))
  const broker = await import('./broker/verify.ts')
  if (scheme !== undefined) {
    if (!URL.canParse(location)) throw invalidOption('the location', '(a URL)', 'a URL that can be read')
    const url = new URL(location)
    const namespace = url.searchParams.get('namespace') ?? 'sluice'
    url.searchParams.delete('namespace')
    return toVerified('broker', await broker.verifyBroker({ url, namespace, durability, copies, connectMs }))
  }
  const isFile = statSync(location, { throwIfNoEntry: false })?.isFile() === true
  return isFile
    ? toVerified('backup', await broker.verifyBackup(location, onRead))
    : toVerified('folder', await broker.verifyFolder(location, onRead))
}

function toVerified(kind: Verified['kind'], findings: readonly Finding[]): Verified {
  return { kind, isGood: findings.every(({ severity }) => severity !== 'refuse'), findings }
}

async function verifyServer(location: string, options: OpenOptions): Promise<readonly Finding[]> {
  const sluice = await open(location, options)
  try {
    const { abilities } = sluice.engine
    const { topics, log } = await sluice.stats()
    const severity = log.status === 'ok' ? 'ok' : log.status === 'degraded' ? 'warn' : 'refuse'
    const copies = abilities.copies === 1 ? 'one copy' : `${abilities.copies} copies`
    return [
      { severity: 'ok', title: 'server', reason: `it answers; ${topics.length} queues and topics`, remedy: '' },
      { severity: 'ok', title: 'durability', reason: `'${abilities.durability}', ${copies}`, remedy: '' },
      {
        severity,
        title: `log is ${log.status}`,
        reason: log.reasons.join(' ') || 'it stores and syncs',
        remedy: severity === 'ok' ? '' : 'See the log of the server.',
      },
    ]
  } finally {
    await sluice.close()
  }
}
