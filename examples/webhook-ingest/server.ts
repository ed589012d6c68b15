/** `sluice serve` as a child process that can be killed and started again on the same data and port. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { fileURLToPath } from 'node:url'
import type { Client } from './client.ts'

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))
/** Generous: on a broker whose owner was killed it waits until somebody has taken over. */
const READY_MS = 120_000
const STOP_MS = 15_000
/** Of what the server says, for when it fails. */
const KEPT_CHARS = 4_096
/**
 * Below the ports from which systems serve outgoing connections: a client that tries again while the server is down
 * must not be given the very port of the server.
 */
const PORTS = { from: 20_000, to: 30_000 }

export class ServerProcess {
  readonly port: number
  readonly #location: string
  readonly #onFailed: (error: Error) => void
  #child: ChildProcess | null = null
  #exited: Promise<unknown> = Promise.resolve()
  #said = ''

  /** `onFailed` hears of an end that nobody asked for. */
  constructor(port: number, location: string, onFailed: (error: Error) => void) {
    this.port = port
    this.#location = location
    this.#onFailed = onFailed
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  /** Starts it; the answer is how many milliseconds passed until it was ready. */
  async start(client: Client): Promise<number> {
    const startedAtMs = performance.now()
    const child = spawn(process.execPath, [MAIN, 'serve', '--port', `${this.port}`, '--data', this.#location], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.#child = child
    this.#exited = once(child, 'exit')
    this.#said = ''
    child.once('exit', (code, signal) => {
      if (this.#child === child)
        this.#onFailed(new Error(`The server stopped by itself (${signal ?? code}). ${this.#words()}`))
    })
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.#said = (this.#said + text).slice(-KEPT_CHARS)
      })
    }
    for (let tries = 0; ; tries++) {
      const reply = await client.ask('/readyz', { method: 'GET' })
      if (reply.end === 'answered' && reply.status === 200) return performance.now() - startedAtMs
      if (performance.now() - startedAtMs > READY_MS)
        throw new Error(`The server was not ready within ${READY_MS} ms. ${this.#words()}`)
      await client.backOff(Math.min(tries, 2))
    }
  }

  /** SIGKILL: it gets no chance to finish anything. */
  async kill(): Promise<void> {
    const child = this.#child
    this.#child = null
    child?.kill('SIGKILL')
    await this.#exited
  }

  /** SIGTERM (P12); throws where it does not end well. */
  async stop(): Promise<void> {
    const child = this.#child
    if (child === null) return
    this.#child = null
    child.kill('SIGTERM')
    const overdue = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
    await this.#exited
    clearTimeout(overdue)
    if (child.exitCode !== 0)
      throw new Error(`The server did not stop well (${child.signalCode ?? child.exitCode}). ${this.#words()}`)
  }

  #words(): string {
    return this.#said === '' ? 'It said nothing.' : `It said:\n${this.#said}`
  }
}

/** A port on loopback that nothing listens on. */
export async function findPort(random: () => number): Promise<number> {
  for (;;) {
    const port = PORTS.from + Math.floor(random() * (PORTS.to - PORTS.from))
    const probe = createServer()
    const isFree = await new Promise<boolean>((resolve) => {
      probe.once('error', () => resolve(false))
      probe.listen(port, '127.0.0.1', () => resolve(true))
    })
    if (!isFree) continue
    probe.close()
    await once(probe, 'close')
    return port
  }
}
