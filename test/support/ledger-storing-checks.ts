/** What is stored, refused and read: limits, idempotency, delay, outputs, redrive, offsets (P4, P6, P7, P8, P9). */
import { strict as assert } from 'node:assert'
import type {
  AppendOutcome,
  AppendRequest,
  CommandOutcome,
  FullOutcome,
  MessageOutcome,
  ReadOutcome,
  ReadRequest,
  SettleOutcome,
  SettleRequest,
} from '../../src/engine/contract.ts'
import { parseJobId } from '../../src/job-id.ts'
import type { AnswerValue, LedgerRequest } from '../../src/ledger/requests.ts'
import { BatchView } from '../../src/message-batch.ts'
import { spread } from './ledger-driver.ts'
import {
  type ModelDelayed,
  type ModelGroup,
  type ModelMessage,
  type ModelPlace,
  type ModelTopic,
  sum,
} from './ledger-model.ts'
import { messageOf, type Scene } from './ledger-scene.ts'

/** Delayed jobs that fell due on a full disk may come this much later. */
const DISK_LATE_MS = 2_500
const RESERVE = 1.1
const LOW_WATER = 0.9
/** More than the largest message of a run, its redrive header included. */
const LARGEST_BYTES = 200

export class StoringChecks {
  readonly #scene: Scene

  constructor(scene: Scene) {
    this.#scene = scene
  }

  /** Delayed jobs take their places before the requests of a step. `refusedAtMs`: when the disk was full last. */
  placeDue(requests: readonly LedgerRequest[], values: ReadonlyMap<number, AnswerValue>, refusedAtMs: number): void {
    const scene = this.#scene
    const stored = new Map<string, number>()
    const note = (topic: string, outcomes: readonly MessageOutcome[]) =>
      stored.set(topic, (stored.get(topic) ?? 0) + outcomes.filter(({ status }) => status === 'stored').length)
    for (const request of requests) {
      const value = values.get(request.id)
      if (request.kind === 'append') {
        for (const [i, one] of request.body.entries()) note(one.topic, outcomesOf(one, (value as AppendOutcome[])[i]))
      } else if (request.kind === 'settle') {
        for (const [i, one] of request.body.entries()) {
          const outcome = (value as SettleOutcome[])[i]
          const outputs = outcome?.status === 'settled' ? outcome.outputs : []
          for (const [j, output] of outputs.entries()) {
            const of = one.outputs?.[j]
            if (of !== undefined) note(of.topic, outcomesOf(of, output))
          }
        }
      } else if (request.kind === 'command' && request.body.kind === 'redrive') {
        const { ids = [] } = value as { ids?: readonly string[] }
        note(
          request.body.topic,
          ids.map(() => ({ status: 'stored', offset: 0 })),
        )
      }
    }
    for (const topic of scene.topics.values()) {
      const placed = sum(scene.outputsOf(topic).map(({ count }) => count)) - (stored.get(topic.name) ?? 0)
      for (let i = 0; i < placed; i++) topic.placeNext(scene.nowMs)
      scene.count('placed', placed)
      if (scene.nowMs - refusedAtMs < DISK_LATE_MS) continue
      for (const { dueMs } of topic.waitingDelayed)
        assert.ok(dueMs > scene.nowMs, 'a delayed job that is due has its place')
    }
  }

  read({ topic: name, from }: ReadRequest, outcome: ReadOutcome | undefined): void {
    if (outcome === undefined) return
    if (outcome.status !== 'read') {
      assert.ok(
        outcome.status === 'truncated' && (from as number) < outcome.earliest,
        `a read from ${from} answers ${outcome.status}`,
      )
      return
    }
    const { messages } = this.#scene.topic(name)
    let offset = from as number
    for (const { bytes, baseOffset, from: first, to } of outcome.messages) {
      assert.equal(baseOffset + first, offset, 'offsets rise without gaps')
      const view = new BatchView(bytes)
      for (let i = first; i < to; i++) assert.deepEqual(messageOf(view, i), messages[offset++])
    }
    assert.equal(outcome.next, offset)
    this.#scene.count('read', offset - (from as number))
  }

  append(request: AppendRequest, outcome: AppendOutcome | undefined, isReserve: boolean): void {
    const scene = this.#scene
    const topic = scene.topic(request.topic)
    const view = new BatchView(request.batch)
    const wishes = new Map((request.wishes ?? []).map((wish) => [wish.index, wish]))
    for (const [i, one] of outcomesOf(request, outcome).entries()) {
      const message = messageOf(view, i)
      const { idempotencyKey: key, dueAtMs = 0 } = wishes.get(i) ?? {}
      const known = key === undefined ? undefined : topic.known.get(key)
      scene.count(`append ${one.status}`)
      if (known !== undefined && scene.nowMs - known.atMs < topic.idempotencyMs) {
        assert.equal(
          one.status,
          known.payload === message.payload ? 'duplicate' : 'mismatch',
          'a key holds within its window',
        )
      }
      switch (one.status) {
        case 'stored':
        case 'scheduled':
          assert.equal(scene.isRefusing, false, 'nothing is stored on a full disk')
          assert.equal(one.status, dueAtMs > scene.nowMs ? 'scheduled' : 'stored')
          if (one.status === 'stored') topic.store(message, one.offset)
          else schedule(topic, { dueMs: one.dueAtMs, serial: one.serial, message, offset: null })
          assertWithin(topic, isReserve ? RESERVE : 1)
          if (key !== undefined && topic.idempotencyMs > 0) {
            topic.known.set(key, { place: placeText(one), payload: message.payload, atMs: scene.nowMs })
          }
          break
        case 'duplicate':
          assert.equal(placeText(one.place), known?.place)
          assert.ok(
            known !== undefined && scene.nowMs - known.atMs <= topic.idempotencyMs * 1.25 + 5,
            'a key is forgotten after its window',
          )
          break
        case 'mismatch':
          assert.ok(known !== undefined && known.payload !== message.payload)
          break
        case 'full':
          assert.equal(isReserve, false, 'outputs that were admitted are stored')
          this.#checkFull(topic, one, message.size)
      }
    }
  }

  /** A refusal has a reason: the disk, the limit, or that the queue was full and is not below low water. */
  #checkFull(topic: ModelTopic, full: FullOutcome, bytes: number): void {
    assert.ok(full.retryAfterMs >= 50 && full.retryAfterMs <= 66_000)
    assert.equal(full.reason === 'disk', this.#scene.isRefusing)
    assert.notEqual(full.reason, 'wait', 'nothing here asks for it')
    if (full.reason === 'disk' || full.reason === 'wait') return
    const depth = topic.depth()
    const { limit } = topic
    assert.equal(full.limit, limit[full.reason])
    assert.equal(full.depth, depth[full.reason])
    const isOver = depth.messages + 1 > limit.messages || depth.bytes + bytes > limit.bytes
    assert.ok(isOver || isAboveLowWater(topic, 0), `a refusal at a depth of ${JSON.stringify(depth)}`)
  }

  /** P7: a settle is refused only where an output finds no room, its own places being free. */
  fullSettle(request: SettleRequest, group: ModelGroup, places: readonly ModelPlace[]): void {
    if (this.#scene.isRefusing) return
    const outputs = request.outputs ?? []
    const isFull = outputs.some(({ topic: name }) => {
      const topic = this.#scene.topic(name)
      const { limit } = topic
      const depth = topic.depth(request.outcome.kind === 'done' ? { group, places } : undefined)
      const views = outputs.filter((output) => output.topic === name).map(({ batch }) => new BatchView(batch))
      const messages = depth.messages + sum(views.map(({ count }) => count))
      const bytes = depth.bytes + sum(views.map((view) => view.bytes.byteLength - 16))
      return messages > Math.floor(limit.messages * RESERVE) || bytes > Math.floor(limit.bytes * RESERVE)
    })
    assert.ok(isFull, 'an output finds no room')
  }

  redrive(group: ModelGroup, ids: readonly string[] | undefined, outcome: CommandOutcome): void {
    const scene = this.#scene
    const { topic } = group
    const offsets = ids?.map((id) => this.#offsetFor(topic, id))
    const isMeant = (offset: number) => offsets === undefined || offsets.includes(offset)
    const blocked = group.open.filter(({ state, offset }) => state === 'blocked' && isMeant(offset))
    for (const place of blocked) {
      place.state = 'parked'
      place.dueFromMs = place.dueByMs = scene.nowMs
      place.forgiven = place.attempts
    }
    const dead = topic.kind === 'topic' ? [] : [...group.dead].filter(isMeant).toSorted((a, b) => a - b)
    const { count = 0, ids: made = [] } = outcome.status === 'done' ? outcome : {}
    assert.equal(count, blocked.length + made.length)
    const left = new Set(dead)
    for (const id of made) {
      const offset = placeOffset(id)
      const { message, redriveOf } = this.#storedAt(topic, offset)
      const from = dead.find((one) => left.has(one) && redriveOf === scene.driver.id(topic.name, one))
      assert.ok(from !== undefined, 'a redriven job names the one it was')
      const { payload, key, priority } = topic.messages[from] as ModelMessage
      assert.deepEqual(
        [message.payload, message.key, message.priority, message.deadlineMs],
        [payload, key, priority, 0],
      )
      left.delete(from)
      group.dead.delete(from)
      topic.store(message, offset)
      assertWithin(topic, 1)
    }
    if (outcome.status === 'full') this.#checkFull(topic, outcome, LARGEST_BYTES)
    else if (left.size > 0)
      assert.ok(scene.isRefusing || isAboveLowWater(topic, LARGEST_BYTES), 'what is left found no room')
  }

  /** The offset that an id means to a redrive. Where a delayed job went is known as long as the job is. */
  #offsetFor(topic: ModelTopic, id: string): number | null {
    const found = this.#scene.locate(id)
    if (found?.topic !== topic || typeof found.place.offset !== 'number') return null
    const isForgotten = parseJobId(id)?.place.kind === 'scheduled' && found.place.offset < this.#scene.earliestOf(topic)
    return isForgotten ? null : found.place.offset
  }

  #storedAt(topic: ModelTopic, offset: number): { message: ModelMessage; redriveOf: string | undefined } {
    const outputs = this.#scene.outputsOf(topic)
    const batch = outputs.find(({ baseOffset, count }) => offset >= baseOffset && offset < baseOffset + count)
    assert.ok(batch !== undefined, `${offset} is in the commit`)
    const view = new BatchView(batch.bytes)
    const index = offset - batch.baseOffset
    return { message: messageOf(view, index), redriveOf: view.headers(index)?.['sluice-redrive-of'] }
  }
}

/** One outcome a message, however the append was answered. */
function outcomesOf(request: AppendRequest, outcome: AppendOutcome | undefined): readonly MessageOutcome[] {
  return spread(outcome as AppendOutcome, new BatchView(request.batch).count)
}

function schedule(topic: ModelTopic, delayed: ModelDelayed): void {
  assert.equal(topic.serials.has(delayed.serial), false, 'serial numbers are used once')
  topic.serials.add(delayed.serial)
  topic.delayed.push(delayed)
}

function assertWithin(topic: ModelTopic, share: number): void {
  const { messages, bytes } = topic.depth()
  assert.ok(
    messages <= Math.floor(topic.limit.messages * share),
    `the depth of ${topic.name}, ${messages}, is within its limit`,
  )
  assert.ok(
    bytes <= Math.floor(topic.limit.bytes * share),
    `the depth of ${topic.name}, ${bytes} bytes, is within its limit`,
  )
}

/** Whether a topic that was full is not below low water, give or take `bytes`. */
function isAboveLowWater(topic: ModelTopic, bytes: number): boolean {
  const { messages, bytes: depthBytes } = topic.depth()
  const isAlmost = bytes > 0 && messages + 1 > Math.floor(topic.limit.messages * LOW_WATER)
  return (
    isAlmost ||
    messages > Math.floor(topic.limit.messages * LOW_WATER) ||
    depthBytes + bytes > Math.floor(topic.limit.bytes * LOW_WATER)
  )
}

function placeText(
  place: { offset: number } | { dueAtMs: number; serial: number } | { dueMs: number; serial: number },
): string {
  if ('offset' in place) return `${place.offset}`
  return `${'dueAtMs' in place ? place.dueAtMs : place.dueMs}-${place.serial}`
}

function placeOffset(id: string): number {
  const place = parseJobId(id)?.place
  assert.ok(place?.kind === 'offset', `${id} names an offset`)
  return place.offset
}
