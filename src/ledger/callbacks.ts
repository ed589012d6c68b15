/**
 * Callbacks: how a job that has ended becomes a message in the queue of callbacks, which a sender works on.
 *
 * The message is stored by the very step that ends the job, in its commit. So there is no moment at which the job has
 * ended and its callback is not stored, nor one at which a callback may be sent of an end that is not durable:
 *     killed before the commit   the job has not ended, and there is no callback
 *     killed after it            the job has ended, and the callback waits in its queue, as any job does
 *     killed while it is sent    the lease of the callback ends, and it is sent again, under the same id
 * All ends pass here: completed, failed (out of attempts, or dead by its handler), cancelled, expired. A job that is
 * blocked has not ended.
 *
 * The body is written once, here, so that each attempt sends the same bytes. Where a result is large, or its bytes find no
 * room in the queue, the body goes without it: the id says where to ask. While the disk is full nothing is appended
 * (P13), so the callback is kept as a delayed job, in the room from which settling lives, until appending goes on.
 */
import { hash } from 'node:crypto'
import { BatchBuilder, BatchView } from '../message-batch.ts'
import type { Core } from './core.ts'
import { schedule } from './delaying.ts'
import { idAt, type PromiseRow, takePromise } from './promises.ts'
import { PROMISE_BYTES, sizeOfAll, type Topic } from './topic.ts'

/** Headers of a message in the queue of callbacks: where it goes, and its `webhook-id`. Its payload is the body. */
export const CALLBACK_URL_HEADER = 'sluice-callback-url'
export const CALLBACK_ID_HEADER = 'sluice-callback-id'

/** Bytes of a result that travels with its callback. */
const MAX_RESULT_BYTES = 65_536
/** Bytes of an error text, as JSON. With the URL, the ids and the rest a body without a result stays below PROMISE_BYTES. */
const MAX_ERROR_BYTES = 4_096
/** How soon appending is tried again on a full disk. */
const FULL_DISK_RETRY_MS = 1_000

/** Reused: its buffers are larger than a callback. */
const builder = new BatchBuilder()

export interface JobEnd {
  readonly status: 'completed' | 'failed' | 'cancelled' | 'expired'
  readonly attempts: number
  /** JSON text. */
  readonly result?: string | undefined
  readonly error?: string | undefined
}

/** Stores the callback of the job at `place`, if one was promised. Called by the step that ends it. */
export function announceEnd(core: Core, topic: Topic, place: string, end: JobEnd): void {
  if (topic.promises === 0) return
  const row = takePromise(core, topic, place)
  if (row === undefined) return
  const id = row.id ?? idAt(topic, place)
  const callbacks = core.callbacks()
  const batch = writeCallback(core, callbacks, { id, topic, row, end })
  if (core.refuseAppends) schedule(core, callbacks, new BatchView(batch), 0, core.nowMs + FULL_DISK_RETRY_MS)
  else callbacks.store(core, batch)
  // Served once more, where this step has served it already.
  core.touched.delete(callbacks.jobs)
  core.touched.add(callbacks.jobs)
}

interface Ended {
  readonly id: string
  readonly topic: Topic
  readonly row: PromiseRow
  readonly end: JobEnd
}

function writeCallback(core: Core, callbacks: Topic, ended: Ended): Uint8Array {
  const { id, row, end } = ended
  const headers = { [CALLBACK_URL_HEADER]: row.url, [CALLBACK_ID_HEADER]: webhookId(id) }
  const build = (payload: string): Uint8Array => {
    builder.add({ payload, headers })
    return builder.finish()
  }
  const resultBytes = end.result === undefined ? 0 : Buffer.byteLength(end.result)
  const small = build(writeBody(core.nowMs, ended, end.result !== undefined && resultBytes <= 1_024))
  if (resultBytes <= 1_024 || resultBytes > MAX_RESULT_BYTES || core.refuseAppends) return small
  const whole = build(writeBody(core.nowMs, ended, true))
  const isRoom = callbacks.depth.bytes + sizeOfAll(whole) <= callbacks.row.settings.limit.bytes
  return sizeOfAll(whole) <= PROMISE_BYTES || isRoom ? whole : small
}

/** docs/callbacks.md describes it. */
function writeBody(nowMs: number, { id, topic, row, end }: Ended, withResult: boolean): string {
  const { status, attempts, result, error } = end
  const data = {
    id,
    queue: topic.row.name,
    status,
    attempts,
    createdAtMs: row.createdAtMs,
    endedAtMs: nowMs,
    ...(row.redriveOf === undefined ? {} : { redriveOf: row.redriveOf }),
    ...(error === undefined ? {} : { error: cutText(error) }),
    ...(result === undefined || withResult ? {} : { resultOmitted: true }),
  }
  const json = JSON.stringify({ type: `job.${status}`, version: 1, timestamp: new Date(nowMs).toISOString(), data })
  // The result goes as the JSON that it is: what a number or a name is in it is not for us to say.
  return result === undefined || !withResult ? json : `${json.slice(0, -2)},"result":${result}}}`
}

function cutText(text: string): string {
  let cut = text
  while (Buffer.byteLength(JSON.stringify(cut)) > MAX_ERROR_BYTES) cut = cut.slice(0, Math.floor(cut.length * 0.8))
  return cut === text ? text : `${cut.toWellFormed()}…`
}

/** One for each end of a job, in all attempts and redrives. Without dots, which part what is signed. */
function webhookId(jobId: string): string {
  return `msg_${hash('sha256', jobId, 'hex').slice(0, 32)}`
}
