/**
 * Consumers as child processes: what the parent and the child say to each other.
 *
 *     parent -> child   its settings, as an argument; 'stop'
 *     child -> parent   { settled }: how many more, after each settle; { evidence } at the end
 */
import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { Client } from './client.ts'
import { type Consumer, consume, type Evidence } from './consume.ts'

export interface ChildSettings {
  /** The address of the server. */
  readonly url: string
  /** Of the worker or group. */
  readonly name: string
  readonly leaseMs: number
}

type FromChild = { readonly settled: number } | { readonly evidence: Evidence }

const STOP_MS = 15_000

export interface ConsumerProcess {
  readonly name: string
  readonly pid: number | undefined
  /** Lets it finish its round; the answer is what it saw. */
  stop(): Promise<Evidence>
  /** At once. */
  kill(): void
}

/** Starts `file` as a consumer. `onFailed` hears of an end that nobody asked for. */
export function startConsumer(
  file: string,
  settings: ChildSettings,
  onSettled: (count: number) => void,
  onFailed: (error: Error) => void,
): ConsumerProcess {
  const child: ChildProcess = fork(fileURLToPath(new URL(file, import.meta.url)), [JSON.stringify(settings)], {
    serialization: 'advanced',
  })
  const { name } = settings
  const evidence = new Promise<Evidence>((resolve, reject) => {
    child.on('message', (message: FromChild) =>
      'evidence' in message ? resolve(message.evidence) : onSettled(message.settled),
    )
    child.once('exit', (code, signal) => reject(new Error(`${name} stopped by itself (${signal ?? code}).`)))
  })
  evidence.catch(onFailed)
  return {
    name,
    pid: child.pid,
    async stop() {
      const overdue = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
      if (child.connected) child.send('stop')
      try {
        return await evidence
      } finally {
        clearTimeout(overdue)
      }
    },
    kill: () => child.kill('SIGKILL'),
  }
}

/** In the child: runs a consumer until the parent says stop. `makeConsumer` adds what is its own. */
export async function runConsumer(
  makeConsumer: (
    settings: ChildSettings,
    client: Client,
  ) => Pick<Consumer, 'path' | 'handle'> & Partial<Pick<Consumer, 'onSettled'>>,
): Promise<void> {
  const settings = JSON.parse(process.argv[2] ?? '') as ChildSettings
  let isStopped = false
  process.on('message', () => {
    isStopped = true
  })
  // Nobody is left to report to.
  process.on('disconnect', () => process.exit(1))
  // On Ctrl-C the whole group of processes is told; the parent decides what happens.
  process.on('SIGINT', () => {})
  const client = new Client(settings.url, new AbortController().signal)
  const settled = new Set<number>()
  const own = makeConsumer(settings, client)
  const evidence = await consume({
    client,
    leaseMs: settings.leaseMs,
    path: own.path,
    handle: own.handle,
    isStopped: () => isStopped,
    async onSettled(handOuts) {
      await own.onSettled?.(handOuts)
      const before = settled.size
      for (const { offset, end } of handOuts) if (end !== 'lost') settled.add(offset)
      tell({ settled: settled.size - before })
    },
  })
  await tell({ evidence })
  process.exit(0)
}

function tell(message: FromChild): Promise<void> {
  return new Promise((resolve, reject) => {
    process.send?.(message, undefined, {}, (error: Error | null) => (error === null ? resolve() : reject(error)))
  })
}
