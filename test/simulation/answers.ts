/** What the ledger answered, as a history says it. */
import { strict as assert } from 'node:assert'
import { type Answer, idOf, type SeenJob, type SentOutcome } from '../../src/conformance/history.ts'
import type {
  AppendOutcome,
  CommandOutcome,
  ExtendOutcome,
  FindOutcome,
  JobView,
  LeaseOutcome,
  MessageOutcome,
  MessageSlice,
  ReadOutcome,
  SettleOutcome,
  TopicStats,
} from '../../src/engine/contract.ts'
import { formatScheduledJobId } from '../../src/job-id.ts'
import type { AnswerValue } from '../../src/ledger/requests.ts'
import { BatchView } from '../../src/message-batch.ts'

/** What an append of `count` messages to `topic` was answered. */
export function toSent(outcome: AppendOutcome, count: number, topic: string, tag: string): SentOutcome[] {
  if (outcome.status === 'not-found') return Array.from({ length: count }, () => ({ status: 'not-found' }))
  if (outcome.status === 'stored')
    return Array.from({ length: count }, (_, i) => ({ status: 'stored', offset: outcome.offset + i }))
  return outcome.outcomes.map((one) => toSentOne(one, topic, tag))
}

function toSentOne(outcome: MessageOutcome, topic: string, tag: string): SentOutcome {
  switch (outcome.status) {
    case 'scheduled':
      return {
        status: 'scheduled',
        job: formatScheduledJobId(topic, tag, outcome.dueAtMs, outcome.serial),
        dueAtMs: outcome.dueAtMs,
      }
    case 'duplicate':
      return outcome.place.kind === 'offset'
        ? { status: 'duplicate', offset: outcome.place.offset }
        : { status: 'duplicate', job: formatScheduledJobId(topic, tag, outcome.place.dueMs, outcome.place.serial) }
    case 'full':
      return { status: 'full', reason: outcome.reason, retryAfterMs: outcome.retryAfterMs }
    default:
      return outcome
  }
}

export function toAppended(value: AnswerValue, count: number, topic: string, tag: string): Answer {
  const [outcome] = value as readonly AppendOutcome[]
  return { status: 'sent', outcomes: toSent(outcome as AppendOutcome, count, topic, tag), durability: 'disk' }
}

export function toLeased(value: AnswerValue): Answer {
  const outcome = value as LeaseOutcome
  if (outcome.status !== 'leased')
    return outcome.status === 'empty' || outcome.status === 'not-found' ? outcome : toProblem(outcome)
  const view = new BatchView(outcome.batch)
  return {
    status: 'leased',
    fence: outcome.fence,
    expiresAtMs: outcome.expiresAtMs,
    messages: outcome.offsets.map((offset, i) => ({
      offset,
      id: idOf(view.payloadText(i)),
      key: view.key(i),
      attempt: outcome.attempts[i] as number,
    })),
  }
}

function toProblem({
  status,
  offset,
  earliest,
}: {
  status: 'truncated' | 'out-of-range'
  offset: number
  earliest: number
}): Answer {
  return { status, offset, earliest }
}

export function toRead(value: AnswerValue): Answer {
  const outcome = value as ReadOutcome
  if (outcome.status !== 'read') return outcome.status === 'not-found' ? outcome : toProblem(outcome)
  const { next, earliest, head } = outcome
  return { status: 'read', messages: outcome.messages.flatMap(toSeen), next, earliest, head }
}

function toSeen({ bytes, baseOffset, from, to }: MessageSlice) {
  const view = new BatchView(bytes)
  return Array.from({ length: to - from }, (_, i) => ({
    offset: baseOffset + from + i,
    id: idOf(view.payloadText(from + i)),
    key: view.key(from + i),
  }))
}

export function toExtended(value: AnswerValue): Answer {
  const [outcome] = value as readonly ExtendOutcome[]
  return outcome as ExtendOutcome
}

export function toSettled(
  value: AnswerValue,
  counts: readonly (readonly [count: number, topic: string, tag: string])[],
): Answer {
  const [outcome] = value as readonly SettleOutcome[]
  if (outcome?.status !== 'settled') return { status: outcome?.status === 'full' ? 'full' : 'not-found' }
  const outputs = outcome.outputs.map((one, i) => toSent(one, ...(counts[i] as [number, string, string])))
  return { status: 'settled', lost: outcome.lost, outputs }
}

function toJob({ id, status, attempts, version, result, redriveOf }: JobView): SeenJob {
  return { job: id, status, attempts, version, result, redriveOf }
}

export function toFound(value: AnswerValue): Answer {
  const outcome = (Array.isArray(value) ? value[0] : value) as FindOutcome
  return outcome.status === 'found' ? { status: 'found', job: toJob(outcome.job) } : outcome
}

export function toDone(value: AnswerValue): Answer {
  const outcome = value as CommandOutcome
  switch (outcome.status) {
    case 'done':
      return { status: 'done', count: outcome.count, jobs: outcome.ids, value: outcome.value }
    case 'terminal':
      return { status: 'terminal', job: toJob(outcome.job) }
    case 'truncated':
    case 'out-of-range':
      return toProblem(outcome)
    case 'full':
    case 'lost':
    case 'not-found':
      return { status: outcome.status }
    case 'dead-letters':
    case 'explained':
    case 'schedule':
    case 'schedules':
    case 'unsettled':
      assert.fail('no simulated client asks for them')
  }
}

export function toStats(value: AnswerValue): Answer {
  const topics = (value as readonly TopicStats[]).map(({ name, earliest, head, depth, scheduled, groups }) => ({
    name,
    earliest,
    head,
    depth,
    scheduled,
    groups: groups.map(({ name: group, floor, depth: open, leased, retrying, blocked, dead }) => ({
      name: group,
      floor,
      depth: open,
      leased,
      retrying,
      blocked,
      dead,
    })),
  }))
  return { status: 'stats', topics }
}
