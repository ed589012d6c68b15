/**
 * Verifying: what is stored is whole, or the broker is set up to keep it. One function for each kind of place; what a URL
 * means is told by its scheme, in `CHECKS`.
 */
import { existsSync, statSync } from 'node:fs'
import { resolve } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { SluiceError } from '../errors.ts'
import type { Finding, JournalOptions } from '../journals/contract.ts'
import { verifyBackupFile, verifyFiles } from '../logs/sqlite/verify.ts'
import { holdFolder } from './folder-hold.ts'

type Check = (options: JournalOptions) => Promise<readonly Finding[]>

/** How each broker is looked at, loaded with its client. */
const CHECKS: Readonly<Record<string, () => Promise<Check>>> = {
  redis: async () => (await import('../journals/redis.ts')).checkRedis,
  rediss: async () => (await import('../journals/redis.ts')).checkRedis,
  amqp: async () => (await import('../journals/rabbitmq.ts')).checkRabbitmq,
  amqps: async () => (await import('../journals/rabbitmq.ts')).checkRabbitmq,
  kafka: async () => (await import('../journals/kafka.ts')).checkKafka,
  kafkas: async () => (await import('../journals/kafka.ts')).checkKafka,
}

export async function verifyBroker(options: JournalOptions): Promise<readonly Finding[]> {
  const scheme = options.url.protocol.slice(0, -1)
  const load = CHECKS[scheme]
  if (load === undefined)
    throw new SluiceError('UNSUPPORTED', `There is nothing that checks a '${scheme}://' in this version.`, { scheme })
  return (await load())(options)
}

/** Bytes that were read by now. */
export type OnRead = (bytes: number) => void

/** Throws `CORRUPT`, `LOCKED` (somebody has the folder open), `FORMAT_NEWER` or `INVALID_OPTION`. */
export async function verifyFolder(folder: string, onRead: OnRead): Promise<readonly Finding[]> {
  const path = resolve(folder)
  if (!existsSync(path) || !statSync(path).isDirectory())
    throw new SluiceError('INVALID_OPTION', `There is no folder ${path}.`, { folder: path })
  const hold = await holdFolder(path)
  try {
    const { rows, files } = await drain(verifyFiles(path), onRead)
    const { stamp } = rows
    return [
      ok('pages of the database', `${files.databasePages} pages have the checksums that the guard holds`),
      ok(
        'write-ahead log',
        files.walFrames === 0
          ? 'empty, as after a close in good order'
          : `whole up to commit ${stamp.commit}, as after a kill: the next opening takes it up`,
      ),
      ...files.warnings.map((reason): Finding => ({ severity: 'warn', title: 'power cut', reason, remedy: '' })),
      ...rowFindings(rows),
      ok('last commit', `number ${stamp.commit}, epoch ${stamp.epoch}${stamp.clean ? ', closed in good order' : ''}`),
    ]
  } finally {
    hold.close()
  }
}

export async function verifyBackup(file: string, onRead: OnRead): Promise<readonly Finding[]> {
  const { rows, facts } = await drain(verifyBackupFile(resolve(file)), onRead)
  return [
    ok('pages', `${facts.pages} pages have the checksums that the end of the file holds`),
    ...rowFindings(rows),
    ok('taken', `${new Date(facts.finishedAtMs).toISOString()}, commit ${facts.commit}, epoch ${facts.epoch}`),
  ]
}

function rowFindings({
  topics,
  batches,
  messages,
  keys,
}: {
  topics: number
  batches: number
  messages: number
  keys: number
}) {
  return [
    ok('messages', `${messages} in ${batches} batches of ${topics} topics, each whole and without a gap`),
    ok('state', `${keys} keys, each whole`),
  ]
}

function ok(title: string, reason: string): Finding {
  return { severity: 'ok', title, reason, remedy: '' }
}

/** Lets others go on between two steps. */
async function drain<T>(steps: Generator<number, T>, onRead: OnRead): Promise<T> {
  let bytes = 0
  for (;;) {
    const { value, done } = steps.next()
    if (done === true) return value
    bytes += value
    onRead(bytes)
    await setImmediate()
  }
}
