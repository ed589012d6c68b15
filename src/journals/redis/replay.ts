/**
 * Reading a journal from its oldest entry on, in pages, and noticing what is missing (P13): entries of a grant are numbered
 * without a gap, a grant says which entry was the last before it, and the floor is the first that may not be missing.
 */
import { SluiceError } from '../../errors.ts'
import type { JournalEntry } from '../contract.ts'
import type { Connection } from './connection.ts'
import { compareIds, type Id, type Names, parseId } from './layout.ts'
import type { Look } from './server.ts'

/** A page is at most so many entries, and fewer where they are large. */
const PAGE_ENTRIES = 64
const PAGE_BYTES = 4 * 1024 ** 2

type Read = <T>(ask: (connection: Connection) => Promise<T>) => Promise<T>
/** As Redis gives it: its id, then names and values of its fields. */
type StreamEntry = readonly [id: Buffer, fields: readonly Buffer[]]

export async function* replayEntries(names: Names, { last, floor }: Look, read: Read): AsyncIterable<JournalEntry> {
  const end = showId(last)
  let before: string | null = null
  let count = PAGE_ENTRIES
  while (before !== end && last.epoch > 0) {
    const from: string = before === null ? '-' : `(${before}`
    const command = ['XRANGE', names.entries, from, end, 'COUNT', String(count)]
    const page = (await read((connection) => connection.askBytes(command))) as readonly StreamEntry[]
    let bytes = 0
    for (const [id, fields] of page) {
      const place = id.toString('latin1')
      const isEntry = fields[0]?.toString('latin1') === 'e'
      checkNext(names, parseId(place), before, isEntry ? null : (fields[3]?.toString('latin1') ?? null), floor)
      before = place
      if (!isEntry) continue
      const value = fields[1] ?? Buffer.alloc(0)
      bytes += value.byteLength
      yield { place, bytes: value }
    }
    if (page.length === 0) throw damaged(names, `entries after ${before ?? 'the start'} and up to ${end} are missing`)
    // After large ones a page is small, and after small ones it grows again.
    count = Math.min(PAGE_ENTRIES, Math.max(1, Math.floor((page.length * PAGE_BYTES) / Math.max(bytes, 1))))
  }
}

function checkNext(names: Names, id: Id, before: string | null, previous: string | null, floor: Id): void {
  if (before === null) {
    const isWhole = floor.epoch === 0 ? id.epoch === 1 && id.number === 0 : compareIds(id, floor) <= 0
    if (!isWhole) throw damaged(names, `it begins at ${showId(id)}, and should at ${showId(floor)}`)
    return
  }
  const last = parseId(before)
  const follows = id.epoch === last.epoch ? id.number === last.number + 1 : previous === before
  if (!follows) throw damaged(names, `${showId(id)} follows ${before}`)
}

export function damaged(names: Names, what: string): SluiceError {
  return new SluiceError('CORRUPT', `The journal in Redis (${names.entries}) is damaged: ${what}. Nothing was changed.`)
}

function showId({ epoch, number }: Id): string {
  return `${epoch}-${number}`
}
