/**
 * Promises of callbacks: which jobs that have not ended will get one, and where to.
 *
 * The room for a callback is taken when its job is stored, not when the job ends: a promise counts in the depth of the
 * queue of callbacks (P7) as one message of PROMISE_BYTES, until the callback itself stands there. So a job that asks for
 * a callback is refused while that queue is full, and one that was stored can always end: no settle, cancel or expiry
 * waits for a receiver.
 *
 * A promise is a row of its own beside the message, so that workers do not see the URL, which may have a secret in it.
 *
 * Invariant: the `promised` of the queue of callbacks is the sum of the `promises` of all queues, which are stored.
 */
import type { FullOutcome } from '../engine/contract.ts'
import { CALLBACKS_QUEUE } from '../engine/options.ts'
import { formatJobId, formatScheduledJobId } from '../job-id.ts'
import type { Core } from './core.ts'
import { hex, unhex } from './state.ts'
import { PROMISE_BYTES, type Topic } from './topic.ts'

export interface PromiseRow {
  readonly url: string
  /** When the job was stored, or accepted for later. */
  readonly createdAtMs: number
  /** The id under which it is known, where its offset does not say it: that of a job that was delayed. */
  readonly id?: string
  readonly redriveOf?: string
}

/** Whether there is room for one more. */
export function promiseFits(core: Core, isReserve: boolean): boolean {
  return core.callbacks().fits(1, PROMISE_BYTES, isReserve)
}

export function refusePromise(core: Core, isReserve: boolean): FullOutcome {
  const full = core.callbacks().refuse(core, { messages: 1, bytes: PROMISE_BYTES }, undefined, isReserve)
  return { ...full, queue: CALLBACKS_QUEUE }
}

/** Promises a callback to the job at `place`. There is room for it. */
export function promise(core: Core, topic: Topic, place: string, url: string, redriveOf?: string): void {
  const row: PromiseRow = { url, createdAtMs: core.nowMs, ...(redriveOf === undefined ? {} : { redriveOf }) }
  core.state.putJson(keyOf(topic, place), row)
  count(core, topic, 1)
}

/** A delayed job has got its place, and keeps the id that it was given before. */
export function movePromise(core: Core, topic: Topic, scheduledKey: string, offset: number): void {
  if (topic.promises === 0) return
  const before = keyOf(topic, `s${scheduledKey}`)
  const row = core.state.getJson<PromiseRow>(before)
  if (row === undefined) return
  core.state.delete(before)
  core.state.putJson(keyOf(topic, offsetPlace(offset)), { ...row, id: idAt(topic, `s${scheduledKey}`) })
}

export function findPromise(core: Core, topic: Topic, place: string): PromiseRow | undefined {
  return topic.promises === 0 ? undefined : core.state.getJson<PromiseRow>(keyOf(topic, place))
}

/** The promise to the job at `place`, which is kept now. */
export function takePromise(core: Core, topic: Topic, place: string): PromiseRow | undefined {
  const row = findPromise(core, topic, place)
  if (row === undefined) return undefined
  core.state.delete(keyOf(topic, place))
  count(core, topic, -1)
  return row
}

export function offsetPlace(offset: number): string {
  return hex(offset)
}

/** The id of the job at a place. */
export function idAt({ row }: Topic, place: string): string {
  if (!place.startsWith('s')) return formatJobId(row.name, row.tag, unhex(place))
  const [due = '', serial = ''] = place.slice(1).split('-')
  return formatScheduledJobId(row.name, row.tag, unhex(due), unhex(serial))
}

function count(core: Core, topic: Topic, by: number): void {
  topic.promises += by
  topic.countersChanged = true
  core.grown.add(topic)
  core.callbacks().promised += by
}

function keyOf(topic: Topic, place: string): string {
  return `b/${hex(topic.row.id)}/${place}`
}
