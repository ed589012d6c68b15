/**
 * A link: how the local engine reaches its broker, in a thread of its own or, for `:memory:`, in this one.
 */
import { Worker } from 'node:worker_threads'
import type { EngineAbilities } from '../engine/abilities.ts'
import { SluiceError } from '../errors.ts'
import type { Host } from '../host/host.ts'
import type { LedgerAnswer, LedgerRequest } from '../ledger/requests.ts'
import type { LogAbilities, LogHealth } from '../logs/contract.ts'
import { openMemoryLog } from '../logs/memory.ts'
import { Broker } from './broker.ts'
import type { FromBroker, ThreadEntry, ToBroker } from './messages.ts'

const KEEP_ALIVE_MS = 1_000_000

/** Gets answers, and how many messages were taken in. */
export type OnAnswers = (answers: readonly LedgerAnswer[], messages: number) => void

export interface Link {
  readonly abilities: EngineAbilities
  /** How far the clock that the ledger goes by is ahead of this machine's, as far as is known. */
  clockAheadMs(): number
  send(requests: readonly LedgerRequest[], transfer: ArrayBuffer[]): void
  health(): Promise<LogHealth>
  /** Copies the data into a new file. Rejects with `UNSUPPORTED` where it is in no file. */
  copy(file: string): Promise<void>
  /** Whether the process is to stay alive for the answers. */
  keepAlive(needed: boolean): void
  close(): Promise<void>
}

/** What an engine with a ledger over this log promises. */
export function abilitiesOver(log: LogAbilities): EngineAbilities {
  return {
    durability: log.durability,
    copies: log.copies,
    persistence: log.durability === 'memory' ? 'refused' : 'native',
    keyOrder: 'native',
    priority: 'native',
    delay: 'native',
    replay: 'native',
    admission: log.admission === 'exact' ? 'native' : 'emulated',
    idempotency: 'native',
    atomicOutputs: log.outputs === 'atomic' ? 'native' : 'emulated',
    partitions: log.partitions === 'many' ? 'native' : 'refused',
  }
}

/** The refusal of a backup where there is nothing to copy. */
export function noFileError(): SluiceError {
  return new SluiceError(
    'UNSUPPORTED',
    'A backup is a copy of a data folder, and this engine has none: back up a broker by its own means, and keep what matters out of memory.',
  )
}

/** A broker over memory, in this thread. */
export async function openMemoryLink(host: Host, onAnswers: OnAnswers): Promise<Link> {
  const log = openMemoryLog()
  let messages = 0
  let alive: NodeJS.Timeout | undefined
  const broker = await Broker.open(log, host, (answers) => {
    const taken = messages
    messages = 0
    onAnswers(answers, taken)
  })
  return {
    abilities: abilitiesOver(log.abilities),
    clockAheadMs: () => 0,
    send(requests) {
      messages++
      queueMicrotask(() => broker.submit(requests))
    },
    health: async () => broker.health(),
    copy: () => Promise.reject(noFileError()),
    keepAlive(needed) {
      clearInterval(alive)
      if (needed) alive = setInterval(() => {}, KEEP_ALIVE_MS)
    },
    async close() {
      await broker.close()
      clearInterval(alive)
    },
  }
}

/** A broker in a thread of its own, so that a sync does not hold up the caller, nor the caller a lease or a heartbeat. */
export function openThreadLink(
  { entry, options }: ThreadEntry,
  onAnswers: OnAnswers,
  onFailure: (error: SluiceError) => void,
): Promise<Link> {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
  const thread = new Worker(new URL(`./${entry}.${extension}`, import.meta.url), {
    workerData: options,
    transferList: entry === 'shared/thread' && options.seat !== null ? [options.seat.port] : [],
    // The thread installs no handlers and needs no flags of the caller's, such as a test runner's.
    execArgv: [],
    name: 'sluice-broker',
  })
  const healths = new Map<number, (health: LogHealth) => void>()
  const copies = new Map<number, { resolve: () => void; reject: (error: SluiceError) => void }>()
  let healthId = 0
  let copyId = 0
  let clockAheadMs = 0
  return new Promise<Link>((resolve, reject) => {
    let closed: (() => void) | null = null
    let hasExited = false
    thread.on('message', (message: FromBroker) => {
      switch (message.kind) {
        case 'answers':
          return onAnswers(message.answers, message.messages)
        case 'open':
          return resolve({
            abilities: message.abilities,
            clockAheadMs: () => clockAheadMs,
            send: (requests, transfer) =>
              thread.postMessage({ kind: 'requests', requests } satisfies ToBroker, transfer),
            health: () =>
              new Promise((tell) => {
                healths.set(++healthId, tell)
                thread.postMessage({ kind: 'health', id: healthId } satisfies ToBroker)
              }),
            copy: (file) =>
              new Promise<void>((done, fail) => {
                if (hasExited) return fail(new SluiceError('CLOSED'))
                copies.set(++copyId, { resolve: done, reject: fail })
                thread.postMessage({ kind: 'copy', id: copyId, file } satisfies ToBroker)
              }),
            keepAlive: (needed) => (needed ? thread.ref() : thread.unref()),
            close: () =>
              new Promise<void>((done) => {
                if (hasExited) return done()
                closed = done
                thread.ref()
                thread.postMessage({ kind: 'close' } satisfies ToBroker)
              }),
          })
        case 'clock':
          clockAheadMs = message.aheadMs
          return
        case 'refused':
          return reject(new SluiceError(message.error.code, message.error.message, { ...message.error.details }))
        case 'health':
          healths.get(message.id)?.(message.health)
          healths.delete(message.id)
          return
        case 'copied': {
          const copy = copies.get(message.id)
          copies.delete(message.id)
          const { error } = message
          if (error === null) copy?.resolve()
          else copy?.reject(new SluiceError(error.code, error.message, { ...error.details }))
          return
        }
        case 'closed':
          return
      }
    })
    thread.on('error', (error) => {
      const failure = new SluiceError('ENGINE_FAILED', `The broker thread stopped: ${error}`, {}, error)
      reject(failure)
      onFailure(failure)
    })
    thread.on('exit', (code) => {
      hasExited = true
      const failure =
        closed === null
          ? new SluiceError('ENGINE_FAILED', `The broker thread ended with code ${code}`)
          : new SluiceError('CLOSED')
      closed?.()
      for (const copy of copies.values()) copy.reject(failure)
      reject(failure)
      onFailure(failure)
    })
  })
}
