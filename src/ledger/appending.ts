/**
 * Appending: admission and idempotency of single messages, and the one fast way for a batch without wishes.
 *
 * Idempotency (P8). A key is a row in the bucket of the time in which it came; a window is `BUCKETS` buckets, so that a
 * look-up asks for a handful of keys, and what is out of the window is deleted bucket by bucket, in key order. A row is
 * kept for at least the window and at most one bucket longer. Where the window was changed, keys are looked for in the
 * buckets of the former one too, for as long as those hold any. Where the wall clock was set back between two processes,
 * the time of keys stands still at the newest bucket until the clock has come that far, so that none is overlooked.
 */
import { hash } from 'node:crypto'
import type {
  AppendOutcome,
  AppendRequest,
  AppendWish,
  FullOutcome,
  MessageOutcome,
  StoredPlace,
} from '../engine/contract.ts'
import { type BatchRun, BatchView, gatherBatch } from '../message-batch.ts'
import type { Core } from './core.ts'
import { schedule, scheduledPlace } from './delaying.ts'
import { measureWait } from './measured-wait.ts'
import { offsetPlace, promise, promiseFits, refusePromise } from './promises.ts'
import { hex, unhex } from './state.ts'
import { type FormerWindow, type Leaving, PROMISE_BYTES, sizeOfAll, type Topic, type TopicRow } from './topic.ts'

interface IdempotencyRow {
  readonly place: StoredPlace
  /** Of the payload: the first 128 bits of SHA-256. */
  readonly payload: string
  readonly atMs: number
}

const BUCKETS = 4
const MAX_FORMER_WINDOWS = 4

/** Stores a batch, or the messages of it that may be. */
export function append(core: Core, topic: Topic, request: AppendRequest, isReserve: boolean): AppendOutcome {
  const { batch, wishes } = request
  const receipt = {
    partition: 0,
    timestampMs: Math.max(topic.lastTimestampMs, core.nowMs),
    durability: core.durability,
    copies: core.copies,
  }
  const view = new BatchView(batch)
  const isPlain = wishes === undefined || wishes.length === 0
  if (isPlain && !core.refuseAppends && topic.fits(view.count, sizeOfAll(batch), isReserve)) {
    return { status: 'stored', offset: topic.store(core, batch), receipt }
  }
  const outcomes = appendSome(core, topic, view, wishes ?? [], isReserve)
  return { status: 'mixed', outcomes, receipt }
}

/** Null if all of `outputs` find room, with the reserve, once `leaving` is settled; else the refusal (P7, P9). */
export function admitOutputs(
  core: Core,
  outputs: readonly { topic: Topic; batch: Uint8Array; wishes?: readonly AppendWish[] | undefined }[],
  leaving: Leaving,
): FullOutcome | null {
  const sums = new Map<Topic, { count: number; bytes: number }>()
  const add = (topic: Topic, count: number, bytes: number): void => {
    const sum = sums.get(topic) ?? { count: 0, bytes: 0 }
    sums.set(topic, { count: sum.count + count, bytes: sum.bytes + bytes })
  }
  for (const { topic, batch, wishes = [] } of outputs) {
    add(topic, new BatchView(batch).count, sizeOfAll(batch))
    const promises = wishes.filter(({ callbackUrl }) => callbackUrl !== undefined).length
    if (promises > 0 && !core.refuseAppends) add(core.callbacks(), promises, promises * PROMISE_BYTES)
  }
  for (const [topic, { count, bytes }] of sums) {
    if (core.refuseAppends || !topic.fits(count, bytes, true, leaving))
      return topic.refuse(core, { messages: count, bytes }, undefined, true)
  }
  return null
}

function appendSome(
  core: Core,
  topic: Topic,
  view: BatchView,
  wishes: readonly AppendWish[],
  isReserve: boolean,
): MessageOutcome[] {
  const outcomes: MessageOutcome[] = []
  const runs: BatchRun[] = []
  let nextWish = 0
  let offset = topic.head
  let bytes = 0
  for (let i = 0; i < view.count; i++) {
    const wish = wishes[nextWish]?.index === i ? wishes[nextWish++] : undefined
    const size = view.size(i)
    const known = wish?.idempotencyKey === undefined ? null : recall(core, topic, view, i, wish)
    const late = wish?.inTime === true && known === null ? refuseLate(core, topic, view, i, offset - topic.head) : null
    if (known !== null) {
      outcomes.push(known)
    } else if (core.refuseAppends || !topic.fits(offset - topic.head + 1, bytes + size, isReserve)) {
      outcomes.push(
        topic.refuse(core, { messages: 1, bytes: size }, { messages: offset - topic.head, bytes }, isReserve),
      )
    } else if (late !== null) {
      outcomes.push(late)
    } else if (wish?.callbackUrl !== undefined && !promiseFits(core, isReserve)) {
      outcomes.push(refusePromise(core, isReserve))
    } else if (wish?.dueAtMs !== undefined && wish.dueAtMs > core.nowMs) {
      const place = schedule(core, topic, view, i, Math.ceil(wish.dueAtMs))
      if (wish.idempotencyKey !== undefined) remember(core, topic, view, i, wish, place)
      if (wish.callbackUrl !== undefined) promise(core, topic, scheduledPlace(place), wish.callbackUrl)
      outcomes.push({ status: 'scheduled', dueAtMs: place.dueMs, serial: place.serial })
    } else {
      if (wish?.idempotencyKey !== undefined)
        remember(core, topic, view, i, wish, { kind: 'offset', partition: 0, offset })
      if (wish?.callbackUrl !== undefined) promise(core, topic, offsetPlace(offset), wish.callbackUrl)
      const last = runs.at(-1)
      if (last?.to === i) runs[runs.length - 1] = { ...last, to: i + 1 }
      else runs.push({ batch: view, from: i, to: i + 1 })
      outcomes.push({ status: 'stored', offset })
      offset++
      bytes += size
    }
  }
  if (runs.length > 0) topic.store(core, gatherBatch(runs))
  return outcomes
}

/**
 * P11: the refusal of a job whose measured wait is past its deadline, or null. `ahead`: messages of this batch that go
 * before it.
 */
function refuseLate(core: Core, topic: Topic, view: BatchView, index: number, ahead: number): FullOutcome | null {
  const deadlineMs = view.deadlineMs(index)
  if (deadlineMs === 0 || topic.row.kind !== 'queue') return null
  const waitMs = measureWait(core, topic.jobs, view.lane(index), view.priority(index), ahead)
  const leftMs = deadlineMs - core.nowMs
  return waitMs === null || waitMs <= Math.max(leftMs, 0) ? null : topic.refuseLate(core, waitMs, leftMs)
}

// ---- idempotency

function recall(core: Core, topic: Topic, view: BatchView, index: number, wish: AppendWish): MessageOutcome | null {
  const name = keyHash(wish)
  for (const ms of bucketLengths(core, topic)) {
    const startMs = bucketStart(core, topic, ms)
    for (let age = 0; age <= BUCKETS; age++) {
      const row = core.state.getJson<IdempotencyRow>(`i/${hex(topic.row.id)}/${hex(startMs - age * ms)}/${name}`)
      if (row === undefined) continue
      return row.payload === payloadHash(view, index)
        ? { status: 'duplicate', place: row.place, timestampMs: row.atMs }
        : { status: 'mismatch' }
    }
  }
  return null
}

function remember(
  core: Core,
  topic: Topic,
  view: BatchView,
  index: number,
  wish: AppendWish,
  place: StoredPlace,
): void {
  const { idempotencyMs } = topic.row.settings
  if (idempotencyMs === 0) return
  const row: IdempotencyRow = { place, payload: payloadHash(view, index), atMs: core.nowMs }
  core.state.putJson(
    `i/${hex(topic.row.id)}/${hex(bucketStart(core, topic, bucketLength(idempotencyMs)))}/${keyHash(wish)}`,
    row,
  )
}

/** Deletes up to `limit` keys that are out of the window; says how many. */
export function forgetKeys(core: Core, topic: Topic, limit: number): number {
  const prefix = `i/${hex(topic.row.id)}/`
  const oldestMs = Math.min(...bucketLengths(core, topic).map((ms) => bucketStart(core, topic, ms) - BUCKETS * ms))
  const old = core.state.range(prefix, prefix + hex(Math.max(oldestMs, 0)), limit)
  for (const [key] of old) core.state.delete(key)
  return old.length
}

/** The windows before a change of `row`, and until when keys that came under them hold. */
export function formerWindows(core: Core, row: TopicRow): readonly FormerWindow[] {
  const { idempotencyMs } = row.settings
  const former = (row.formerWindows ?? []).filter(
    (one) => one.untilMs > core.nowMs && one.idempotencyMs !== idempotencyMs,
  )
  return [...former, { idempotencyMs, untilMs: core.nowMs + (BUCKETS + 1) * bucketLength(idempotencyMs) }].slice(
    -MAX_FORMER_WINDOWS,
  )
}

/** Of the buckets that may hold keys: those of the window in force, and of former ones. */
function bucketLengths(core: Core, { row }: Topic): readonly number[] {
  const former = (row.formerWindows ?? []).filter(({ untilMs }) => untilMs > core.nowMs)
  return [row.settings, ...former].map(({ idempotencyMs }) => bucketLength(idempotencyMs))
}

function bucketLength(idempotencyMs: number): number {
  return Math.max(1, Math.ceil(idempotencyMs / BUCKETS))
}

function bucketStart(core: Core, topic: Topic, bucketMs: number): number {
  return Math.floor(Math.max(core.nowMs, topic.keysSinceMs) / bucketMs) * bucketMs
}

/** The newest bucket of a topic that is ahead of the clock, which was set back since; 0: there is none. */
export function newestBucketMs(core: Core, topic: Topic): number {
  const prefix = `i/${hex(topic.row.id)}/`
  let newestMs = 0
  for (let fromMs = core.nowMs + 1; ; fromMs = newestMs + 1) {
    const [entry] = core.state.range(prefix + hex(fromMs), `${prefix}\x7f`, 1)
    if (entry === undefined) return newestMs
    newestMs = unhex(entry[0].slice(prefix.length, prefix.length + 14))
  }
}

function keyHash(wish: AppendWish): string {
  return hash('sha256', `${wish.scope ?? ''}\n${wish.idempotencyKey}`, 'hex').slice(0, 32)
}

function payloadHash(view: BatchView, index: number): string {
  return hash('sha256', view.payload(index), 'hex').slice(0, 32)
}
