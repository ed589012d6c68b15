/**
 * Real brokers for tests and benches: what starting one has in common, whichever it is. Each runs on a free port of
 * loopback, in a folder of its own, and is stopped by its process id. None outlives the process that started it: at a
 * normal end it is killed by a hook, and where `setpriv` is there the kernel kills it even after SIGKILL.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** A broker that is there to be used, and to be treated badly. */
export interface Broker extends AsyncDisposable {
  /** With its credentials, as `open` takes it. */
  readonly url: string
  /** Of what runs now. Empty where the broker is somebody else's (a URL in the environment): see `isOurs`. */
  readonly pids: readonly number[]
  /** Whether it may be killed, paused and restarted. What cannot be done to it rejects. */
  readonly isOurs: boolean
  /** SIGTERM, and its end. May be called more than once, and also after `kill`. */
  stop(): Promise<void>
  /** SIGKILL, and its end: what it had not given to the operating system is gone. */
  kill(): Promise<void>
  /** SIGSTOP: connections stay open, and nothing answers. */
  pause(): void
  resume(): void
  /** Starts it again, on the same port and folder; stops it before where it runs. */
  restart(): Promise<void>
}

export interface ProcessOptions {
  /** For messages, such as `redis-server`. */
  readonly name: string
  readonly command: string
  readonly args: readonly string[]
  readonly cwd?: string
  readonly env?: NodeJS.ProcessEnv
  /** Its output goes there; the end of it is shown where it does not start. */
  readonly outputFile: string
  /** Tried until it answers true. What it throws counts as false. */
  readonly isReady: () => Promise<boolean>
  /** @default 60_000 */
  readonly readyMs?: number
  /** How long a SIGTERM may take before it becomes SIGKILL. @default 30_000 */
  readonly stopMs?: number
}

export interface ServerProcess {
  readonly pid: number
  readonly isRunning: () => boolean
  /** Resolves when it has ended. */
  readonly ended: Promise<void>
  stop(): Promise<void>
  kill(): Promise<void>
  pause(): void
  resume(): void
}

const running = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})

/** Starts a server and waits until it answers. */
export async function startProcess(options: ProcessOptions): Promise<ServerProcess> {
  const { name, outputFile, isReady, readyMs = 60_000, stopMs = 30_000 } = options
  const output = openSync(outputFile, 'a')
  // `setpriv` becomes the server: the process id is the same.
  const [command, args] = existsSync(SETPRIV)
    ? [SETPRIV, ['--pdeathsig', 'KILL', options.command, ...options.args]]
    : [options.command, options.args]
  const child = spawn(command, args, {
    stdio: ['ignore', output, output],
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.env === undefined ? {} : { env: options.env }),
  })
  closeSync(output)
  const ended = once(child, 'exit').then(
    () => {},
    () => {},
  )
  running.add(child)
  ended.then(() => running.delete(child))
  const isRunning = (): boolean => child.pid !== undefined && child.exitCode === null && child.signalCode === null
  const server: ServerProcess = {
    pid: child.pid ?? 0,
    isRunning,
    ended,
    async stop() {
      if (!isRunning()) return
      child.kill('SIGCONT')
      child.kill('SIGTERM')
      const late = setTimeout(() => child.kill('SIGKILL'), stopMs)
      await ended
      clearTimeout(late)
    },
    async kill() {
      if (!isRunning()) return
      child.kill('SIGKILL')
      await ended
    },
    pause: () => signalRunning('SIGSTOP'),
    resume: () => signalRunning('SIGCONT'),
  }
  function signalRunning(signal: NodeJS.Signals): void {
    if (!isRunning()) throw new Error(`${name} does not run`)
    child.kill(signal)
  }
  try {
    await waitUntil(`${name} answers`, isReady, {
      withinMs: readyMs,
      unless: () => (isRunning() ? null : `it ended with ${child.exitCode ?? child.signalCode}`),
    })
  } catch (error) {
    await server.kill()
    throw new Error(`${name} did not start: ${(error as Error).message}\n${readEnd(outputFile)}`, { cause: error })
  }
  return server
}

const SETPRIV = '/usr/bin/setpriv'

/** A broker of one process, from how it is started. */
export async function startBroker(url: string, start: () => Promise<ServerProcess>): Promise<Broker> {
  let server = await start()
  const broker: Broker = {
    url,
    get pids() {
      return server.isRunning() ? [server.pid] : []
    },
    isOurs: true,
    stop: () => server.stop(),
    kill: () => server.kill(),
    pause: () => server.pause(),
    resume: () => server.resume(),
    async restart() {
      await server.stop()
      server = await start()
    },
    [Symbol.asyncDispose]: () => server.stop(),
  }
  return broker
}

/** The broker behind a URL of the environment: it is used, and left as it is. */
export function borrowBroker(url: string): Broker {
  const refuse = (): never => {
    throw new Error('This broker is somebody else’s: it is neither killed, paused nor restarted')
  }
  return {
    url,
    pids: [],
    isOurs: false,
    stop: async () => {},
    kill: async () => refuse(),
    pause: refuse,
    resume: refuse,
    restart: async () => refuse(),
    [Symbol.asyncDispose]: async () => {},
  }
}

export interface WaitOptions {
  /** @default 60_000 */
  readonly withinMs?: number
  /** A reason why waiting is useless, else null. */
  readonly unless?: () => string | null
}

/** Asks again and again, a few dozen times a second, until it is so. What `isSo` throws counts as not yet. */
export async function waitUntil(
  what: string,
  isSo: () => Promise<boolean> | boolean,
  options: WaitOptions = {},
): Promise<void> {
  const { withinMs = 60_000, unless } = options
  const until = performance.now() + withinMs
  let last: unknown
  for (;;) {
    try {
      if (await isSo()) return
      last = undefined
    } catch (error) {
      last = error
    }
    const useless = unless?.() ?? null
    if (useless !== null) throw new Error(`Waited until ${what}, but ${useless}`, { cause: last })
    if (performance.now() > until)
      throw new Error(`Waited until ${what}, for ${withinMs} ms${last === undefined ? '' : `: ${last}`}`)
    await sleep(25)
  }
}

/** Whether something listens there. */
export async function isListening(port: number, host = '127.0.0.1'): Promise<boolean> {
  const socket = connect(port, host)
  try {
    return await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true))
      socket.once('error', () => resolve(false))
    })
  } finally {
    socket.destroy()
  }
}

/** Below those that the system gives out by itself: what another process asked for must not come between. */
const PORTS = { from: 10_000, to: 32_000 }

/** Ports of loopback that nobody has now. Asked for together, so that they differ. */
export async function findFreePorts(count: number): Promise<number[]> {
  const ports = new Set<number>()
  while (ports.size < count) {
    const port = PORTS.from + Math.floor(Math.random() * (PORTS.to - PORTS.from))
    if (await isFree(port)) ports.add(port)
  }
  return [...ports]
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}

export async function findFreePort(): Promise<number> {
  const [port = 0] = await findFreePorts(1)
  return port
}

/** Installs packages of Debian, as root, without the services that they would start. Tells of a failure and goes on: see `tellMissing`. */
export function installPackages(...names: readonly string[]): void {
  if (process.getuid?.() !== 0 || !existsSync('/usr/bin/apt-get')) return
  say(`installing ${names.join(', ')} …`)
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' }
  // What policy-rc.d answers with 101 is not started by the package.
  const policy = '/usr/sbin/policy-rc.d'
  const isOurs = !existsSync(policy)
  if (isOurs) writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 })
  try {
    const run = (...args: string[]): void => {
      execFileSync('apt-get', ['-o', 'DPkg::Lock::Timeout=600', ...args], { env, stdio: ['ignore', 2, 2] })
    }
    try {
      run('install', '--yes', '--no-install-recommends', ...names)
    } catch {
      run('update')
      run('install', '--yes', '--no-install-recommends', ...names)
    }
  } catch (error) {
    say(`${names.join(', ')} could not be installed: ${(error as Error).message.split('\n')[0]}`)
  } finally {
    if (isOurs) rmSync(policy, { force: true })
  }
}

/** The first line that a command prints, or null where it is missing or fails. */
export function readVersion(command: string, ...args: readonly string[]): string | null {
  try {
    return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).split('\n')[0] ?? null
  } catch {
    return null
  }
}

/**
 * Says, loudly, that a broker is missing, and answers the reason for `test.skip`. Where `CI=true` that is a failure: a
 * broker that should be there and is not proves nothing.
 */
export function tellMissing(name: string, remedy: string): string {
  const text = `${name} is missing, so nothing is proved on it. ${remedy}`
  if (process.env.CI === 'true') throw new Error(text)
  say(`\n${'!'.repeat(80)}\n${text}\n${'!'.repeat(80)}\n`)
  return text
}

export function say(text: string): void {
  process.stderr.write(`${text}\n`)
}

/** The last lines of a file of output. */
export function readEnd(file: string, lines = 30): string {
  try {
    return readFileSync(file, 'utf8').split('\n').slice(-lines).join('\n')
  } catch {
    return ''
  }
}
