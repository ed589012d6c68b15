/** What the engine answered, as what a caller reads: the place of a message that was stored, or the error of one that was not. */
import { SluiceError } from '../errors.ts'
import { formatJobId, formatScheduledJobId, type StoredPlace, type StoreReceipt } from '../index.ts'
import { fullError, mismatchError } from '../outcomes.ts'
import type { Appended } from './appender.ts'
import type { Entry } from './directory.ts'

export interface Accepted {
  readonly id: string
  readonly queue: string
  readonly status: string
  readonly duplicate: boolean
  readonly createdAtMs: number
  readonly dueAtMs?: number
  readonly durability: string
  readonly copies: number
}

/** A job that was taken in; throws where it was not. */
export function acceptedJob({ name, tag }: Entry, { outcome, receipt, idempotencyKey }: Appended): Accepted {
  const { timestampMs, durability, copies, partition } = receipt
  const common = { queue: name, duplicate: false, createdAtMs: timestampMs, durability, copies }
  switch (outcome.status) {
    case 'stored':
      return { id: formatJobId(name, tag, outcome.offset, partition), status: 'queued', ...common }
    case 'scheduled':
      return {
        id: formatScheduledJobId(name, tag, outcome.dueAtMs, outcome.serial),
        status: 'scheduled',
        dueAtMs: outcome.dueAtMs,
        ...common,
      }
    case 'duplicate':
      return {
        id: placeId(name, tag, outcome.place),
        status: outcome.place.kind === 'scheduled' ? 'scheduled' : 'queued',
        ...common,
        createdAtMs: outcome.timestampMs,
        duplicate: true,
      }
    case 'mismatch':
      throw mismatchError('queue', name, idempotencyKey)
    case 'full':
      throw fullError('queue', name, outcome)
  }
}

/** Writes what `acceptedJob` says of jobs that were stored. All that share an append share a receipt, and all of it but the id. */
export function createAcceptedWriter(): (
  entry: Entry,
  offset: number,
  receipt: StoreReceipt,
) => { readonly id: string; readonly text: string } {
  let lastEntry: Entry | null = null
  let lastReceipt: StoreReceipt | null = null
  let rest = ''
  return (entry, offset, receipt) => {
    if (entry !== lastEntry || receipt !== lastReceipt) {
      const appended: Appended = { outcome: { status: 'stored', offset }, receipt, idempotencyKey: undefined }
      const { id: _id, ...others } = acceptedJob(entry, appended)
      rest = JSON.stringify(others).slice(1)
      lastEntry = entry
      lastReceipt = receipt
    }
    const id = formatJobId(entry.name, entry.tag, offset, receipt.partition)
    return { id, text: `{"id":${JSON.stringify(id)},${rest}` }
  }
}

export interface Published {
  readonly topic: string
  readonly partition: number
  readonly offset: number
  readonly timestampMs: number
  readonly duplicate: boolean
  readonly durability: string
  readonly copies: number
}

/** The receipt of a message on a topic; throws where it was not stored. */
export function publishedMessage(topic: string, { outcome, receipt, idempotencyKey }: Appended): Published {
  switch (outcome.status) {
    case 'stored':
      return { topic, ...receipt, offset: outcome.offset, duplicate: false }
    case 'duplicate': {
      const { place, timestampMs } = outcome
      if (place.kind === 'offset')
        return { topic, ...receipt, timestampMs, partition: place.partition, offset: place.offset, duplicate: true }
      throw new SluiceError('UNSUPPORTED', 'A topic has no scheduled messages.')
    }
    case 'scheduled':
      throw new SluiceError('UNSUPPORTED', 'A topic has no scheduled messages.')
    case 'mismatch':
      throw mismatchError('topic', topic, idempotencyKey)
    case 'full':
      throw fullError('topic', topic, outcome)
  }
}

function placeId(queue: string, tag: string, place: StoredPlace): string {
  return place.kind === 'offset'
    ? formatJobId(queue, tag, place.offset, place.partition)
    : formatScheduledJobId(queue, tag, place.dueMs, place.serial)
}

/** What stands in a template for the offset: one that no message has. */
const NO_OFFSET = Number.MAX_SAFE_INTEGER

/**
 * Writes the answers of stored messages as JSON text. `show` is asked once for all that share a receipt, as those of one
 * append do, and the offset is put into what it said: writing each by itself was a tenth of the time of a batch.
 */
export function createStoredWriter(
  show: (appended: Appended) => object,
): (offset: number, receipt: StoreReceipt) => string {
  const write = (offset: number, receipt: StoreReceipt): string =>
    JSON.stringify({
      outcome: 'stored',
      ...show({ outcome: { status: 'stored', offset }, receipt, idempotencyKey: undefined }),
    })
  let last: StoreReceipt | null = null
  let parts: readonly string[] = []
  return (offset, receipt) => {
    if (receipt !== last) {
      last = receipt
      parts = write(NO_OFFSET, receipt).split(`${NO_OFFSET}`)
    }
    // A name may have these very digits in it.
    return parts.length === 2 ? `${parts[0]}${offset}${parts[1]}` : write(offset, receipt)
  }
}
