/** The entry of the broker thread: opens the SQLite log of a folder and runs a broker over it. */
import { existsSync, statSync } from 'node:fs'
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { SluiceError } from '../errors.ts'
import { realHost } from '../host/host.ts'
import type { LedgerRequest } from '../ledger/requests.ts'
import { openSqliteLog } from '../logs/sqlite.ts'
import { Broker } from './broker.ts'
import { Copies } from './copies.ts'
import { type FolderHold, holdFolder } from './folder-hold.ts'
import { abilitiesOver } from './link.ts'
import type { FolderOptions, FromBroker, ToBroker } from './messages.ts'
import { transferable } from './transferable.ts'

const port = parentPort
if (port === null) throw new Error('This file is the entry of a thread')

/** How long the thread stays awake for the next message of a caller that is quick to come back. */
const EAGER_MS = 0.1
const MAX_EAGER_STEPS = 32

const send = (message: FromBroker, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer)

const { folder, durability } = workerData as FolderOptions
let hold: FolderHold | null = null
try {
  // Before the log looks at the files, if there are any: opening repairs what a kill has left.
  if (existsSync(folder) && statSync(folder).isDirectory()) hold = await holdFolder(folder)
  const log = openSqliteLog(folder, { durability: durability === 'memory' ? 'os' : durability })
  hold ??= await holdFolder(folder)
  let messages = 0
  const broker = await Broker.open(log, realHost, (answers) => {
    const taken = messages
    messages = 0
    send({ kind: 'answers', answers, messages: taken }, transferable(answers))
  })
  const copies = new Copies(log, send)
  const receive = (): ToBroker | undefined => receiveMessageOnPort(port)?.message as ToBroker | undefined
  const take = async (message: Exclude<ToBroker, { kind: 'requests' }>): Promise<void> => {
    switch (message.kind) {
      case 'health':
        send({ kind: 'health', id: message.id, health: await broker.health() })
        return
      case 'copy':
        copies.start(message)
        return
      case 'close':
        await copies.stop()
        await broker.close()
        hold?.close()
        send({ kind: 'closed' })
        port.close()
    }
  }
  /** Whether something came that is served when the thread comes to rest. */
  let isAsked = false
  /** Takes a message and all that have come by now: their requests go into one commit. */
  const takeAll = (first: ToBroker): void => {
    const requests: LedgerRequest[] = []
    for (let message: ToBroker | undefined = first; message !== undefined; message = receive()) {
      if (message.kind === 'requests') {
        messages++
        for (const request of message.requests) requests.push(request)
      } else {
        const other = message
        isAsked = true
        queueMicrotask(() => void take(other))
      }
    }
    if (requests.length > 0) broker.submit(requests)
  }
  let restedAtMs = 0
  port.on('message', (message: ToBroker) => {
    const isEager = performance.now() - restedAtMs < EAGER_MS
    takeAll(message)
    // A caller that waits for each answer comes back within a few hundredths of a millisecond, which is about what it
    // takes to wake a sleeping thread: stay awake for it, as long as the last wait was worth it.
    // Now and then the thread comes to rest all the same, for what the log has put off until then.
    let left = isEager && !isAsked ? MAX_EAGER_STEPS : 0
    for (let until = performance.now() + EAGER_MS; left > 0 && performance.now() < until; ) {
      const next = receive()
      if (next === undefined) continue
      takeAll(next)
      left = isAsked ? 0 : left - 1
      until = performance.now() + EAGER_MS
    }
    isAsked = false
    restedAtMs = performance.now()
  })
  send({ kind: 'open', abilities: abilitiesOver(log.abilities) })
} catch (error) {
  hold?.close()
  const known =
    error instanceof SluiceError
      ? error
      : new SluiceError('ENGINE_FAILED', `The data folder "${folder}" cannot be opened: ${error}`, {}, error)
  send({ kind: 'refused', error: { code: known.code, message: known.message, details: known.details } })
  port.close()
}
