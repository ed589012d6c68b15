/**
 * The catalog: a stream of small records, of which the order decides. It is never cut: a record is some 100 bytes, and one is
 * added for each grant and for each 64 MiB of entries.
 *
 *   {"id", "grant": true}   the nth of these is the grant of epoch n: epochs rise by the order of the stream
 *   {"id", "made": n}       segment n was declared, and must be there from now on
 *   {"id", "sealed": n}     segment n has a seal that counts: who looks for the last segment may start after it
 *   {"id", "first": n}      segments before n may be deleted
 *   {"id", "gone": n}       segments before n were deleted
 *
 * Of the numbers the highest holds, whoever wrote it: what was true once stays true. A record that was published twice
 * counts once, by its id.
 */
import { randomUUID } from 'node:crypto'
import type { ChannelModel } from 'amqplib'
import { type Consumption, consumeStream, foreignMessageError } from './streams.ts'

export interface CatalogState {
  epoch: number
  made: number
  sealed: number
  first: number
  gone: number
}

export type CatalogNote = { grant: true } | { made: number } | { sealed: number } | { first: number } | { gone: number }

const SILENCE_MS = 250

export const CATALOG_ID = 'sluice1.catalog'

export function encodeNote(note: CatalogNote): { readonly id: string; readonly bytes: Buffer } {
  const id = randomUUID()
  return { id, bytes: Buffer.from(JSON.stringify({ id, ...note })) }
}

/** Reads it up to and with the record `untilId`. */
export async function readCatalog(model: ChannelModel, name: string, untilId: string): Promise<CatalogState> {
  const state: CatalogState = { epoch: 0, made: -1, sealed: -1, first: 0, gone: 0 }
  const seen = new Set<string>()
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  promise.catch(() => {})
  let consumption: Consumption | null = null
  let isDone = false
  consumption = await consumeStream(
    model,
    name,
    0,
    (message) => {
      message.done()
      if (isDone) return
      const record = message.id === CATALOG_ID ? parse(message.bytes) : null
      if (record === null) return reject(foreignMessageError(name, message.offset))
      if (!seen.has(record.id)) take(state, record)
      seen.add(record.id)
      if (record.id !== untilId) return
      isDone = true
      resolve()
    },
    reject,
  )
  try {
    await promise
  } finally {
    consumption.stop()
  }
  return state
}

function take(state: CatalogState, record: Record<string, unknown>): void {
  if (record['grant'] === true) state.epoch++
  for (const key of ['made', 'sealed', 'first', 'gone'] as const) {
    const value = record[key]
    if (typeof value === 'number') state[key] = Math.max(state[key], value)
  }
}

function parse(bytes: Buffer): (Record<string, unknown> & { id: string }) | null {
  try {
    const record = JSON.parse(bytes.toString('utf8'))
    return typeof record?.id === 'string' ? record : null
  } catch {
    return null
  }
}

/**
 * Rejects with FOREIGN_DATA where the first message is not ours. RabbitMQ does not tell how many there are in a stream, so an
 * empty one is known by its silence; who speaks later is found when the catalog is read.
 */
export async function checkCatalog(model: ChannelModel, name: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  promise.catch(() => {})
  const consumption = await consumeStream(
    model,
    name,
    0,
    (message) => {
      message.done()
      if (message.id === CATALOG_ID) resolve()
      else reject(foreignMessageError(name, message.offset))
    },
    reject,
  )
  const patience = setTimeout(() => resolve(), SILENCE_MS)
  try {
    await promise
  } finally {
    clearTimeout(patience)
    consumption.stop()
  }
}
