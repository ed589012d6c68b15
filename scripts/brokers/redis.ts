/**
 * A real redis-server for tests and benches, from Debian's packages. By default it is configured as docs/redis.md asks:
 * append-only file, synced before it answers, nothing evicted.
 *
 * SLUICE_REDIS_URL uses one that runs already; what needs control of the server or another configuration is then skipped.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  type Broker,
  borrowBroker,
  findFreePort,
  installPackages,
  isListening,
  readVersion,
  startBroker,
  startProcess,
  tellMissing,
} from './broker.ts'

export interface RedisOptions {
  /** In which its own folder is made. @default the system's folder for temporary files */
  readonly parent?: string
  /** Directives of redis.conf that differ from the default ones. */
  readonly settings?: Readonly<Record<string, string>>
  readonly password?: string
  /** Files of a certificate: it then speaks only TLS. */
  readonly tls?: { readonly cert: string; readonly key: string }
  /** The port of a redis-server of which it is to be a replica. */
  readonly replicaOf?: number
  /** @default a free one */
  readonly port?: number
}

export interface RedisBroker extends Broker {
  readonly port: number
  /** Where its append-only file lies. */
  readonly folder: string
}

const DEFAULTS: Readonly<Record<string, string>> = {
  bind: '127.0.0.1',
  appendonly: 'yes',
  appendfsync: 'always',
  'maxmemory-policy': 'noeviction',
  // Snapshots would only cost time: the append-only file is what makes it durable.
  save: '',
  // By default a replica waits for others for some seconds.
  'repl-diskless-sync-delay': '0',
  'enable-debug-command': 'yes',
}

/** Directives of which each word is an argument. */
const OF_WORDS: ReadonlySet<string> = new Set(['replicaof', 'rename-command'])

/** Its version, installed where it is missing; null where that is not possible, which was then said loudly. */
export function findRedis(): string | null {
  if (process.env.SLUICE_REDIS_URL !== undefined) return 'of SLUICE_REDIS_URL'
  const version = readRedisVersion()
  if (version !== null) return version
  installPackages('redis-server')
  const installed = readRedisVersion()
  if (installed === null) tellMissing('redis-server', 'Install it, such as with `sudo apt-get install redis-server`.')
  return installed
}

function readRedisVersion(): string | null {
  return readVersion('redis-server', '--version')?.match(/v=([\d.]+)/)?.[1] ?? null
}

/** Starts one. With the default options SLUICE_REDIS_URL is used instead where it is set. */
export async function startRedis(options: RedisOptions = {}): Promise<RedisBroker> {
  const given = process.env.SLUICE_REDIS_URL
  if (given !== undefined && Object.keys(options).every((name) => name === 'parent')) {
    const port = Number(new URL(given).port || 6379)
    return { ...borrowBroker(given), port, folder: '' }
  }
  const folder = await mkdtemp(join(options.parent ?? tmpdir(), 'sluice-redis-'))
  const { password, replicaOf, tls } = options
  const port = options.port ?? (await findFreePort())
  const settings: Record<string, string> = { ...DEFAULTS, dir: folder, port: String(port), ...options.settings }
  if (settings['cluster-enabled'] === 'yes') settings['cluster-port'] ??= String(await findFreePort())
  if (password !== undefined) Object.assign(settings, { requirepass: password, masterauth: password })
  if (tls !== undefined) {
    const { cert, key } = tls
    Object.assign(settings, { port: '0', 'tls-port': String(port), 'tls-cert-file': cert, 'tls-key-file': key })
    Object.assign(settings, { 'tls-ca-cert-file': cert, 'tls-auth-clients': 'no' })
  }
  if (replicaOf !== undefined) settings.replicaof = `127.0.0.1 ${replicaOf}`
  const args = Object.entries(settings).flatMap(([name, value]) => [
    `--${name}`,
    ...(OF_WORDS.has(name) ? value.split(' ') : [value]),
  ])
  const scheme = tls === undefined ? 'redis' : 'rediss'
  const url = `${scheme}://${password === undefined ? '' : `:${password}@`}127.0.0.1:${port}`
  const remove = (): Promise<void> => rm(folder, { recursive: true, force: true })
  const broker = await startBroker(url, () =>
    startProcess({
      name: 'redis-server',
      command: 'redis-server',
      args,
      outputFile: join(folder, 'output.txt'),
      isReady: tls === undefined ? async () => hasLoaded(await askRedis(port, 'PING')) : () => isListening(port),
    }),
  ).catch(async (error: unknown) => {
    await remove()
    throw error
  })
  return {
    url,
    port,
    folder,
    isOurs: true,
    get pids() {
      return broker.pids
    },
    stop: broker.stop,
    kill: broker.kill,
    pause: broker.pause,
    resume: broker.resume,
    restart: broker.restart,
    async [Symbol.asyncDispose]() {
      await broker.stop()
      await remove()
    },
  }
}

/** It answers, and has read its append-only file. One that wants a password has as well. */
function hasLoaded(answer: string): boolean {
  return answer.startsWith('+') || answer.startsWith('-NOAUTH') || answer.startsWith('-MASTERDOWN')
}

/** Sends one line, and answers the first piece that comes back: enough for a question at the start. */
async function askRedis(port: number, line: string): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  try {
    return await new Promise<string>((resolve, reject) => {
      socket.once('error', reject)
      socket.once('close', () => reject(new Error('the connection was closed')))
      socket.once('data', (piece: Buffer) => resolve(piece.toString('latin1')))
      socket.write(`${line}\r\n`)
    })
  } finally {
    socket.destroy()
  }
}
