/** The entry of the broker thread: opens the SQLite log of a folder and runs a broker over it. */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { SluiceError } from '../errors.ts'
import { realHost } from '../host/host.ts'
import type { LedgerAnswer } from '../ledger/requests.ts'
import { openSqliteLog } from '../logs/sqlite.ts'
import { Broker } from './broker.ts'
import { abilitiesOver } from './link.ts'
import type { BrokerOptions, FromBroker, ToBroker } from './messages.ts'

const port = parentPort
if (port === null) throw new Error('This file is the entry of a thread')

const send = (message: FromBroker, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer)

const { folder, durability } = workerData as BrokerOptions
try {
  const log = openSqliteLog(folder, { durability: durability === 'memory' ? 'os' : durability })
  let messages = 0
  const broker = await Broker.open(log, realHost, (answers) => {
    const taken = messages
    messages = 0
    send({ kind: 'answers', answers, messages: taken }, transferable(answers))
  })
  const take = async (message: ToBroker): Promise<void> => {
    switch (message.kind) {
      case 'requests':
        messages++
        broker.submit(message.requests)
        return
      case 'health':
        send({ kind: 'health', id: message.id, health: await broker.health() })
        return
      case 'close':
        await broker.close()
        send({ kind: 'closed' })
        port.close()
    }
  }
  port.on('message', (message: ToBroker) => {
    if (message.kind !== 'requests') return void take(message)
    // Everything that has come by now goes into one commit.
    const requests = [...message.requests]
    messages++
    for (let next = receiveMessageOnPort(port); next !== undefined; next = receiveMessageOnPort(port)) {
      const more = next.message as ToBroker
      if (more.kind === 'requests') {
        messages++
        requests.push(...more.requests)
      } else {
        queueMicrotask(() => void take(more))
      }
    }
    broker.submit(requests)
  })
  send({ kind: 'open', abilities: abilitiesOver(log.abilities) })
} catch (error) {
  const known = error instanceof SluiceError ? error : new SluiceError('ENGINE_FAILED', `The data folder "${folder}" cannot be opened: ${error}`, {}, error)
  send({ kind: 'refused', error: { code: known.code, message: known.message, details: known.details } })
  port.close()
}

/** Buffers that are nobody else's: the batches made for leases. */
function transferable(answers: readonly LedgerAnswer[]): ArrayBuffer[] {
  const buffers: ArrayBuffer[] = []
  for (const answer of answers) {
    if (!('value' in answer) || answer.value === null || !('status' in answer.value)) continue
    if (answer.value.status === 'leased') buffers.push(answer.value.batch.buffer as ArrayBuffer)
  }
  return buffers
}
