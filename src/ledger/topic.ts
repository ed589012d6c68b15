/**
 * A topic, or the topic of a queue: where it begins and ends, how full it is, what is delayed, who waits for more.
 *
 * Depth (P7) is counted, never estimated: messages and bytes stored since the start of the group, less those settled,
 * plus those delayed. Both are monotone counters that are stored with every settle, so that nothing is recounted when a
 * folder is opened. A queue has one group; a topic is as deep as its slowest group finds it.
 */
import type { FullOutcome, ReadFrom } from '../engine/contract.ts'
import type { QueueSettings, TopicSettings } from '../engine/options.ts'
import type { JobId } from '../job-id.ts'
import type { StoredBatch } from '../logs/contract.ts'
import { BatchView, PRIORITY_NORMAL } from '../message-batch.ts'
import { isBelowLowWater, lowWater, RESERVE, retryAfterMs } from '../policy/admission.ts'
import type { Core } from './core.ts'
import type { Group } from './group.ts'
import type { ReadWaiter, WatchWaiter } from './requests.ts'
import { hex } from './state.ts'
import { WaitLine } from './wait-line.ts'
import { Window } from './window.ts'

/** How a topic is stored. */
export interface TopicRow {
  readonly id: number
  readonly name: string
  readonly kind: 'queue' | 'topic'
  /** Part of the ids of its jobs (see job-id.ts). */
  readonly tag: string
  /** Tags of before a restore from a backup: good for what was there then. */
  readonly formerTags?: readonly FormerTag[]
  readonly settings: QueueSettings | TopicSettings
  /** Windows of idempotency that were in force before, while keys of them hold. */
  readonly formerWindows?: readonly FormerWindow[]
}

export interface FormerTag {
  readonly tag: string
  readonly belowOffset: number
  readonly belowSerial: number
}

export interface FormerWindow {
  readonly idempotencyMs: number
  readonly untilMs: number
}

export interface TopicCounters {
  /** The lowest offset that may be read. */
  readonly earliest: number
  /** The highest offset whose priority is not normal; -1: none. */
  readonly lastSpecial: number
  readonly scheduled: number
  readonly scheduledBytes: number
  /** The next serial number of a delayed job. */
  readonly serial: number
  /** Jobs that have not ended and will get a callback. Absent: 0. */
  readonly promises?: number
}

/** Messages and their bytes. */
export interface Amount {
  readonly messages: number
  readonly bytes: number
}

/** What a group is about to settle, so that its places are free. */
export interface Leaving extends Amount {
  readonly group: Group
}

/** What a callback that is not written yet counts in bytes: one without a result is never larger (callbacks.ts). */
export const PROMISE_BYTES = 8_192

const NOTHING: Amount = { messages: 0, bytes: 0 }

export class Topic {
  row: TopicRow
  readonly window: Window
  head = 0
  headBytes = 0
  earliest = 0
  lastSpecial = -1
  /** Before this idempotency keys do not go back, even if the clock was set back (see appending.ts). */
  keysSinceMs = 0
  scheduled = 0
  scheduledBytes = 0
  serial = 0
  /** Jobs of this queue that have not ended and will get a callback. */
  promises = 0
  /** Of the queue of callbacks: places that are kept for such jobs of all queues (promises.ts). */
  promised = 0
  /** When the timer for delayed jobs fires. */
  dueTimerMs = Number.POSITIVE_INFINITY
  countersChanged = false
  /** Set by a refusal, until the depth is below low water. */
  isFull = false
  appended = 0
  refused = 0
  refusedBy = { messages: 0, bytes: 0, disk: 0, wait: 0 }
  lastTimestampMs = 0
  readonly groups = new Map<string, Group>()
  readonly readWaiters = new WaitLine<ReadWaiter>()
  /** Who wants to know of a delayed job, by the end of its key. */
  readonly scheduledWatchers = new Map<string, Set<WatchWaiter>>()

  constructor(row: TopicRow, core: Core) {
    this.row = row
    this.window = new Window(row.id, core.fetch, core.budget)
  }

  /** Whether an id is one of this queue's: of its tag, or of a former one while that was in force. */
  knows({ queue, tag, place }: JobId): boolean {
    const { row } = this
    if (queue !== row.name) return false
    if (tag === row.tag) return true
    return (row.formerTags ?? []).some(
      (former) =>
        former.tag === tag &&
        (place.kind === 'offset' ? place.offset < former.belowOffset : place.serial < former.belowSerial),
    )
  }

  /** The group of a queue. */
  get jobs(): Group {
    return this.groups.get('') as Group
  }

  /** What is not settled, by the group that has most of it. */
  get depth(): Amount {
    return this.#depthWithout(null)
  }

  #depthWithout(leaving: Leaving | null): Amount {
    let messages = 0
    let bytes = 0
    for (const group of this.groups.values()) {
      const isLeft = group === leaving?.group
      messages = Math.max(messages, isLeft ? group.depth - leaving.messages : group.depth)
      bytes = Math.max(bytes, isLeft ? group.depthBytes - leaving.bytes : group.depthBytes)
    }
    return {
      messages: messages + this.scheduled + this.promised,
      bytes: bytes + this.scheduledBytes + this.promised * PROMISE_BYTES,
    }
  }

  /** Whether `count` messages of `bytes` may be stored, all of them, once `leaving` is settled. */
  fits(count: number, bytes: number, isReserve: boolean, leaving: Leaving | null = null): boolean {
    const { limit } = this.row.settings
    const { messages: depth, bytes: depthBytes } = this.#depthWithout(leaving)
    if (!isReserve && this.isFull) {
      if (!isBelowLowWater({ messages: depth, bytes: depthBytes }, limit)) return false
      this.isFull = false
    }
    const share = isReserve ? RESERVE : 1
    return depth + count <= Math.floor(limit.messages * share) && depthBytes + bytes <= Math.floor(limit.bytes * share)
  }

  /** The refusal of `wanted`, which did not fit behind what is there and what is `pending` in the same batch. */
  refuse(core: Core, wanted: Amount, pending: Amount = NOTHING, isReserve = false): FullOutcome {
    this.refused += wanted.messages
    if (core.refuseAppends) {
      this.refusedBy.disk += wanted.messages
      return { status: 'full', reason: 'disk', depth: 0, limit: 0, retryAfterMs: retryAfterMs(0, 0, core.random()) }
    }
    const { limit } = this.row.settings
    const there = this.depth
    const depth = { messages: there.messages + pending.messages, bytes: there.bytes + pending.bytes }
    const share = isReserve ? RESERVE : 1
    const isOver = depth.messages + wanted.messages > Math.floor(limit.messages * share)
    const isOverBytes = depth.bytes + wanted.bytes > Math.floor(limit.bytes * share)
    const isBytes = !isOver && (isOverBytes || depth.messages <= lowWater(limit.messages))
    this.refusedBy[isBytes ? 'bytes' : 'messages'] += wanted.messages
    this.isFull = !isBelowLowWater(depth, limit)
    const slowest = this.#slowestGroup
    const perSecond = slowest?.drain.perSecond(core.nowMs) ?? 0
    const mean = depth.messages === 0 ? wanted.bytes : depth.bytes / depth.messages
    const excess = isBytes
      ? (depth.bytes + wanted.bytes - lowWater(limit.bytes)) / Math.max(mean, 1)
      : depth.messages - lowWater(limit.messages)
    return {
      status: 'full',
      reason: isBytes ? 'bytes' : 'messages',
      depth: isBytes ? depth.bytes : depth.messages,
      limit: isBytes ? limit.bytes : limit.messages,
      retryAfterMs: retryAfterMs(excess, perSecond, core.random()),
      ...(this.row.kind === 'topic' ? { group: slowest?.row.name } : {}),
    }
  }

  /** P11: the refusal of a job that would have to wait for longer than it may. */
  refuseLate(core: Core, waitMs: number, leftMs: number): FullOutcome {
    this.refused++
    this.refusedBy.wait++
    const overMs = Math.max(0, waitMs - leftMs)
    return {
      status: 'full',
      reason: 'wait',
      depth: Math.ceil(waitMs),
      limit: Math.max(0, Math.floor(leftMs)),
      // The line moves on by a message for each that is drained: at 1,000 a second, so much in as many milliseconds.
      retryAfterMs: retryAfterMs(overMs, 1_000, core.random()),
    }
  }

  /** The group that has most to settle. */
  get #slowestGroup(): Group | undefined {
    let slowest: Group | undefined
    for (const group of this.groups.values()) if (slowest === undefined || group.depth > slowest.depth) slowest = group
    return slowest
  }

  /** Puts a batch at the head. It has been admitted. Gives its first offset. */
  store(core: Core, bytes: Uint8Array): number {
    const view = new BatchView(bytes)
    const baseOffset = this.head
    if (this.row.kind === 'queue') this.jobs.noteArrival(core.nowMs)
    this.lastTimestampMs = Math.max(this.lastTimestampMs, core.nowMs)
    const batch: StoredBatch = {
      topic: this.row.id,
      partition: 0,
      baseOffset,
      count: view.count,
      timestampMs: this.lastTimestampMs,
      startBytes: this.headBytes,
      bytes,
    }
    this.head += view.count
    this.headBytes += sizeOfAll(bytes)
    this.appended += view.count
    for (let i = 0; i < view.count; i++) {
      if (view.priority(i) === PRIORITY_NORMAL) continue
      this.lastSpecial = baseOffset + i
      this.countersChanged = true
    }
    this.window.push(batch)
    core.outputs.push(batch)
    core.grown.add(this)
    return baseOffset
  }

  priorityOf(offset: number): number {
    if (offset > this.lastSpecial) return PRIORITY_NORMAL
    const batch = this.window.at(offset)
    return batch === null ? PRIORITY_NORMAL : batch.view.priority(offset - batch.baseOffset)
  }

  /** Bytes of the topic before `offset`. */
  bytesBefore(offset: number): number {
    if (offset >= this.head) return this.headBytes
    const batch = this.window.at(offset)
    if (batch === null) return this.headBytes
    let bytes = batch.startBytes
    for (let i = 0; i < offset - batch.baseOffset; i++) bytes += batch.view.size(i)
    return bytes
  }

  /** The offset that `from` stands for; not checked against what is kept. */
  resolve(from: ReadFrom): number {
    if (from === 'earliest') return this.earliest
    if (from === 'latest') return this.head
    if (typeof from === 'number') return from
    let low = this.earliest
    let high = this.head
    while (low < high) {
      const middle = Math.floor((low + high) / 2)
      const batch = this.window.at(middle)
      if (batch === null || batch.timestampMs >= from.timeMs)
        high = batch === null ? middle : Math.max(low, batch.baseOffset)
      else low = batch.baseOffset + batch.count
    }
    return low
  }

  /** Everything below is settled for all groups. */
  get floor(): number {
    let floor = this.head
    for (const group of this.groups.values()) floor = Math.min(floor, group.settled.floor)
    return floor
  }

  save(core: Core): void {
    if (!this.countersChanged) return
    this.countersChanged = false
    const counters: TopicCounters = {
      earliest: this.earliest,
      lastSpecial: this.lastSpecial,
      scheduled: this.scheduled,
      scheduledBytes: this.scheduledBytes,
      serial: this.serial,
      ...(this.promises === 0 ? {} : { promises: this.promises }),
    }
    core.state.putJson(`T/${hex(this.row.id)}`, counters)
  }

  saveRow(core: Core): void {
    core.state.putJson(`t/${this.row.name}`, this.row)
  }
}

/** The sum of `BatchView.size` over a batch: all of it but its header. */
export function sizeOfAll(batch: Uint8Array): number {
  return batch.byteLength - 16
}

/** What sets the ids of one queue apart from those of another of its name, in another data folder or life. */
export function drawTag(random: () => number): string {
  return Math.floor(random() * 36 ** 6)
    .toString(36)
    .padStart(6, '0')
}
