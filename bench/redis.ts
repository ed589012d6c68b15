/**
 * What the comparison with BullMQ needs: its packages, installed on demand next to their own lock file, and a
 * redis-server of its own, on a free port of loopback and in a folder of the benchmark, that syncs before it answers.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { say } from './harness.ts'
import type { EndToEndFigures, EndToEndOptions } from './load.ts'

export interface BullmqSettings {
  /** Messages to an `addBulk`; 0: `add`. */
  readonly bulk: number
  /** Of all workers together. */
  readonly concurrency: number
  /** Workers in the process, each with connections of its own. */
  readonly workers: number
  /** ioredis puts what is called in one turn of the event loop into one pipeline. */
  readonly autoPipelining: boolean
}

export interface BullmqOptions extends EndToEndOptions, BullmqSettings {
  readonly port: number
}

export interface BullmqServeOptions {
  /** Where to listen. */
  readonly port: number
  readonly redisPort: number
  readonly autoPipelining: boolean
}

/** What bullmq/http-side.ts exports. */
export interface BullmqHttpModule {
  serveBullmq(options: BullmqServeOptions): Promise<never>
}

/** What bullmq/side.ts exports: it cannot be imported before its packages are there. */
export interface BullmqModule {
  endToEndOnBullmq(options: BullmqOptions): Promise<EndToEndFigures>
}

const bullmqFolder = fileURLToPath(new URL('./bullmq', import.meta.url))

/** Installs BullMQ where it is missing, and says which versions there are. */
export function installBullmq(): Record<string, string> {
  const manifest = (name: string): string => join(bullmqFolder, 'node_modules', name, 'package.json')
  if (!existsSync(manifest('bullmq')) || !existsSync(manifest('ioredis'))) {
    say('installing BullMQ into bench/bullmq/node_modules …')
    execFileSync('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund'], {
      cwd: bullmqFolder,
      stdio: ['ignore', 2, 2],
    })
  }
  const version = (name: string): string => JSON.parse(readFileSync(manifest(name), 'utf8')).version
  return { bullmq: version('bullmq'), ioredis: version('ioredis') }
}

/** Installs redis-server from the system's packages where it is missing, and says its version. */
export function installRedis(): string {
  const version = readRedisVersion()
  if (version !== null) return version
  if (process.getuid?.() !== 0)
    throw new Error('redis-server is missing. Install it, for instance with `sudo apt-get install redis-server`')
  say('installing redis-server …')
  // RUNLEVEL=1 keeps the package from starting a server of its own.
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' }
  execFileSync('apt-get', ['update'], { env, stdio: ['ignore', 2, 2] })
  execFileSync('apt-get', ['install', '--yes', '--no-install-recommends', 'redis-server'], {
    env,
    stdio: ['ignore', 2, 2],
  })
  const installed = readRedisVersion()
  if (installed === null) throw new Error('redis-server was installed but does not start')
  return installed
}

function readRedisVersion(): string | null {
  try {
    return execFileSync('redis-server', ['--version'], { encoding: 'utf8' }).match(/v=([\d.]+)/)?.[1] ?? 'unknown'
  } catch {
    return null
  }
}

export interface RedisServer extends AsyncDisposable {
  readonly port: number
}

const running = new Set<ChildProcess>()
process.on('exit', () => {
  for (const server of running) server.kill('SIGKILL')
})

export async function startRedis(parent: string): Promise<RedisServer> {
  const folder = join(parent, 'redis')
  await mkdir(folder)
  const port = await findFreePort()
  const settings = {
    port: String(port),
    bind: '127.0.0.1',
    dir: folder,
    appendonly: 'yes',
    appendfsync: 'always',
    'maxmemory-policy': 'noeviction',
    // Snapshots would only cost it time: the log is what makes it durable.
    save: '',
  }
  const server = spawn(
    'redis-server',
    Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]),
    { stdio: 'ignore' },
  )
  running.add(server)
  const ended = once(server, 'exit')
  await waitUntilOpen(port, server)
  return {
    port,
    async [Symbol.asyncDispose]() {
      server.kill('SIGTERM')
      await ended
      running.delete(server)
    },
  }
}

export async function findFreePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('No free port on loopback')
  return address.port
}

async function waitUntilOpen(port: number, server: ChildProcess): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt++) {
    if (server.exitCode !== null) break
    const socket = connect(port, '127.0.0.1')
    const isOpen = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true))
      socket.once('error', () => resolve(false))
    })
    socket.destroy()
    if (isOpen) return
    await sleep(25)
  }
  throw new Error('redis-server did not start')
}
