/** Jobs that are not settled, page by page: what an operator sees of a queue, and what is moved to another one. */
import type { Command, CommandOutcome, UnsettledJob } from '../engine/contract.ts'
import { BatchView, gatherBatch } from '../message-batch.ts'
import type { Core } from './core.ts'
import { findJob, idOf } from './jobs.ts'
import { findPromise, idAt, offsetPlace } from './promises.ts'
import { hex, unhex } from './state.ts'
import type { Topic } from './topic.ts'
import type { PlacedBatch } from './window.ts'

/** Bytes of messages in one page. */
const PAGE_BYTES = 4_194_304
/** Settled jobs that one page passes over, so that a long gap does not hold up the rest. */
const MAX_PASSED = 100_000

type Listing = Extract<Command, { kind: 'unsettled' }>

/** A cursor is the place behind which to go on: an offset in hexadecimal, or `s` and the key of a delayed job. */
export function listUnsettled(core: Core, topics: ReadonlyMap<string, Topic>, command: Listing): CommandOutcome {
  const topic = topics.get(command.topic)
  if (topic === undefined || topic.row.kind !== 'queue') return { status: 'not-found' }
  const { after = '', max } = command
  const jobs: UnsettledJob[] = []
  let bytes = 0
  const isFull = () => jobs.length >= max || bytes >= PAGE_BYTES
  const take = (place: string, id: string, batch: Uint8Array): void => {
    const found = findJob(core, topics, id)
    if (found.status !== 'found') return
    const callbackUrl = findPromise(core, topic, place)?.url
    jobs.push({ job: found.job, batch, ...(callbackUrl === undefined ? {} : { callbackUrl }) })
    bytes += batch.byteLength
  }
  if (!after.startsWith('s')) {
    const { settled } = topic.jobs
    const from = after === '' ? topic.floor : unhex(after) + 1
    let passed = 0
    for (let offset = Math.max(from, topic.earliest); offset < topic.head; offset++) {
      if (settled.has(offset)) {
        if (++passed < MAX_PASSED) continue
        return { status: 'unsettled', jobs, next: hex(offset) }
      }
      if (isFull()) return { status: 'unsettled', jobs, next: hex(offset - 1) }
      const { view, baseOffset } = topic.window.at(offset) as PlacedBatch
      const index = offset - baseOffset
      take(offsetPlace(offset), idOf(topic, offset), gatherBatch([{ batch: view, from: index, to: index + 1 }]))
    }
  }
  const prefix = `d/${hex(topic.row.id)}/`
  const start = after.startsWith('s') ? `${prefix}${after.slice(1)}\x01` : prefix
  let last = after.startsWith('s') ? after : 's'
  for (const [key, value] of core.state.range(start, `${prefix}\x7f`, max + 1)) {
    const place = `s${key.slice(prefix.length)}`
    if (isFull()) return { status: 'unsettled', jobs, next: last }
    const view = new BatchView(value.subarray(8))
    take(place, idAt(topic, place), gatherBatch([{ batch: view, from: 0, to: 1 }]))
    last = place
  }
  return { status: 'unsettled', jobs, next: null }
}
