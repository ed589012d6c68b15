/** Reading a topic by offset (P6). */
import type { MessageSlice, OffsetProblem, ReadOutcome, ReadRequest } from '../engine/contract.ts'
import type { Core } from './core.ts'
import { findOffsetProblem } from './operating.ts'
import type { ReadWaiter } from './requests.ts'
import type { Topic } from './topic.ts'

/** The most bytes of one answer. */
const MAX_READ_BYTES = 1_048_576

/** The offset where a request starts, or the answer where it cannot. */
export function resolveRead(
  topics: ReadonlyMap<string, Topic>,
  request: ReadRequest,
): number | OffsetProblem | { status: 'not-found' } {
  const topic = topics.get(request.topic)
  if (topic === undefined) return { status: 'not-found' }
  const offset = topic.resolve(request.from)
  return findOffsetProblem(topic, offset) ?? offset
}

/** Answers a reader if there is something, or `isOver`. True: it was answered. */
export function serveReader(core: Core, topic: Topic, waiter: ReadWaiter, isOver: boolean): boolean {
  const { from, request } = waiter
  if (topic.head <= from && !isOver) return false
  const problem = findOffsetProblem(topic, from)
  const outcome: ReadOutcome = problem ?? readSlices(topic, from, request.max)
  waiter.done = true
  core.answer(waiter.id, outcome)
  return true
}

function readSlices(topic: Topic, from: number, max: number): ReadOutcome {
  const messages: MessageSlice[] = []
  let offset = from
  let bytes = 0
  while (offset < topic.head && offset - from < max && bytes < MAX_READ_BYTES) {
    const batch = topic.window.at(offset)
    if (batch === null) break
    const first = offset - batch.baseOffset
    const end = Math.min(batch.count, first + max - (offset - from))
    const { baseOffset, timestampMs, view } = batch
    messages.push({ partition: 0, baseOffset, timestampMs, bytes: view.bytes, from: first, to: end })
    bytes += view.bytes.byteLength
    offset = baseOffset + end
  }
  return { status: 'read', messages, next: offset, earliest: topic.earliest, head: topic.head }
}
