/** The entry of the broker thread over a journal: connects to the broker and runs a router. */
import { mkdirSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { SluiceError } from '../../errors.ts'
import { realHost } from '../../host/host.ts'
import type { Journal } from '../../journals/contract.ts'
import { openJournal } from '../../journals/open.ts'
import { openReplicatedLog } from '../../logs/replicated.ts'
import { noFileError } from '../link.ts'
import type { FromBroker, SharedData, ToBroker } from '../messages.ts'
import { transferable } from '../transferable.ts'
import { Keeping } from './keeping.ts'
import { Router } from './router.ts'

const port = parentPort
if (port === null) throw new Error('This file is the entry of a thread')

/** How long `open` waits for an owner that answers, beyond the time for the connection. */
const OWNER_MS = 30_000
/** How long a handle that a client library left open may keep this thread from ending. */
const LEFTOVERS_MS = 5_000

const send = (message: FromBroker, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer)
const { seat, ...options } = workerData as SharedData
let journal: Journal | null = null
try {
  const { url, namespace, durability, copies, connectMs, stateDir } = options
  if (stateDir !== null) mkdirSync(stateDir, { recursive: true, mode: 0o700 })
  const opened = await openJournal({ url: new URL(url), namespace, durability, copies, connectMs })
  journal = opened
  let messages = 0
  let keeping: Keeping | null = null
  const tell = (all: Extract<FromBroker, { kind: 'answers' }>['answers']): void => {
    const answers = keeping?.take(all) ?? all
    const taken = messages
    messages = 0
    if (answers.length === 0 && taken === 0) return
    send({ kind: 'answers', answers, messages: taken }, transferable(answers))
  }
  const { router, abilities } = await Router.open(
    {
      journal: opened,
      host: realHost,
      openLog: (grant, engineId) => openReplicatedLog(opened, grant, { stateDir, engineId }),
      emit: tell,
      onClock: (aheadMs) => send({ kind: 'clock', aheadMs }),
    },
    OWNER_MS,
  )
  if (seat !== null) keeping = new Keeping(seat, (requests) => router.submit(requests))
  const take = async (message: ToBroker): Promise<void> => {
    switch (message.kind) {
      case 'requests':
        messages++
        router.submit(message.requests)
        // The owner elsewhere, or the journal, takes its time: more may come meanwhile, and rides with the next commit.
        if (!router.isOwner) tell([])
        return
      case 'health':
        send({ kind: 'health', id: message.id, health: await router.health() })
        return
      case 'copy': {
        const { code, message: text, details } = noFileError()
        send({ kind: 'copied', id: message.id, error: { code, message: text, details } })
        return
      }
      case 'close':
        await router.close()
        keeping?.close()
        send({ kind: 'closed' })
        port.close()
        setTimeout(() => process.exit(0), LEFTOVERS_MS).unref()
    }
  }
  port.on('message', (message: ToBroker) => void take(message))
  send({ kind: 'open', abilities })
} catch (error) {
  await journal?.close()
  const known =
    error instanceof SluiceError
      ? error
      : new SluiceError('ENGINE_FAILED', `The broker's data cannot be opened: ${error}`, {}, error)
  send({ kind: 'refused', error: { code: known.code, message: known.message, details: known.details } })
  port.close()
}
