/**
 * Delay (P4). A delayed job is a row ordered by its due time; it counts in the depth from the start, takes its place
 * when it falls due, and leaves a row behind that says where it went, since its id was given before it had an offset.
 */
import type { StoredPlace } from '../engine/contract.ts'
import { type BatchRun, BatchView, gatherBatch } from '../message-batch.ts'
import type { Core } from './core.ts'
import { movePromise } from './promises.ts'
import { hex, unhex } from './state.ts'
import type { Topic } from './topic.ts'

/** Where a delayed job went: an offset, or nowhere since it was cancelled. */
export interface MovedRow {
  readonly offset: number | null
  readonly atMs: number
  readonly acceptedAtMs: number
}

/** Delayed jobs that take their places in one step, so that many at once do not hold up the rest. */
const MAX_DUE_PER_STEP = 1_000
/** How long after a full disk delayed jobs are tried again. */
const FULL_DISK_RETRY_MS = 1_000
/** Most bytes of a batch made of delayed jobs. */
const MAX_DUE_BYTES = 262_144

export type ScheduledPlace = Extract<StoredPlace, { kind: 'scheduled' }>

/** Keeps message `index` of `view` until it is due. It has been admitted. */
export function schedule(core: Core, topic: Topic, view: BatchView, index: number, dueMs: number): ScheduledPlace {
  const place: ScheduledPlace = { kind: 'scheduled', dueMs, serial: topic.serial++ }
  const message = gatherBatch([{ batch: view, from: index, to: index + 1 }])
  const value = new Uint8Array(8 + message.byteLength)
  new DataView(value.buffer).setFloat64(0, core.nowMs, true)
  value.set(message, 8)
  core.state.put(`d/${hex(topic.row.id)}/${scheduledKey(dueMs, place.serial)}`, value)
  topic.scheduled++
  topic.scheduledBytes += view.size(index)
  topic.countersChanged = true
  core.grown.add(topic)
  setDueTimer(core, topic, dueMs)
  return place
}

/** Sees to it that `placeDue` runs at `atMs`: one timer to a topic, however many jobs are delayed. */
export function setDueTimer(core: Core, topic: Topic, atMs: number): void {
  if (atMs >= topic.dueTimerMs) return
  topic.dueTimerMs = atMs
  core.timers.add(atMs, { kind: 'scheduled', topic, atMs })
}

/** When the delayed job of that row was accepted. */
export function acceptedAtMs(row: Uint8Array): number {
  return new DataView(row.buffer, row.byteOffset).getFloat64(0, true)
}

/** The end of the keys of a delayed job. */
export function scheduledKey(dueMs: number, serial: number): string {
  return `${hex(dueMs)}-${hex(serial)}`
}

/** Gives the delayed jobs that are due their places, in order of their times, then of acceptance. */
export function placeDue(core: Core, topic: Topic, atMs: number): void {
  if (atMs !== topic.dueTimerMs) return
  topic.dueTimerMs = Number.POSITIVE_INFINITY
  if (topic.scheduled === 0) return
  if (core.refuseAppends) {
    setDueTimer(core, topic, core.nowMs + FULL_DISK_RETRY_MS)
    return
  }
  const prefix = `d/${hex(topic.row.id)}/`
  const due = core.state.range(prefix, prefix + hex(core.nowMs + 1), MAX_DUE_PER_STEP)
  for (let from = 0; from < due.length; ) {
    const runs: BatchRun[] = []
    let bytes = 0
    let offset = topic.head
    for (; from < due.length && (runs.length === 0 || bytes < MAX_DUE_BYTES); from++) {
      const [key, value] = due[from] as readonly [string, Uint8Array]
      const view = new BatchView(value.subarray(8))
      runs.push({ batch: view, from: 0, to: 1 })
      bytes += view.bytes.byteLength
      topic.scheduled--
      topic.scheduledBytes -= view.size(0)
      const end = key.slice(prefix.length)
      core.state.delete(key)
      const moved: MovedRow = { offset, atMs: core.nowMs, acceptedAtMs: acceptedAtMs(value) }
      core.state.putJson(`m/${prefix.slice(2)}${end}`, moved)
      movePromise(core, topic, end, offset)
      const watchers = topic.scheduledWatchers.get(end)
      if (watchers !== undefined) {
        topic.scheduledWatchers.delete(end)
        topic.jobs.watchers.set(offset, watchers)
        topic.jobs.changed.add(offset)
        core.touched.add(topic.jobs)
      }
      offset++
    }
    topic.store(core, gatherBatch(runs))
  }
  topic.countersChanged = true
  const next = core.state.range(prefix, `${prefix}\x7f`, 1)[0]
  if (next !== undefined)
    setDueTimer(core, topic, Math.max(unhex(next[0].slice(prefix.length, prefix.length + 14)), core.nowMs + 1))
}

/** Where the promise of a callback stands while its job is delayed. */
export function scheduledPlace({ dueMs, serial }: ScheduledPlace): string {
  return `s${scheduledKey(dueMs, serial)}`
}
