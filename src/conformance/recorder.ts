/**
 * Writes down what goes through an engine: every call and its answer, as a history. Put between the nouns and an engine
 * (`createSluice(recordEngine(engine, …))`), any program becomes a run that the checkers can judge.
 */
import type {
  AppendOutcome,
  AppendRequest,
  Command,
  CommandOutcome,
  Declaration,
  Engine,
  EngineStats,
  FindOutcome,
  JobView,
  LeaseOutcome,
  MessageOutcome,
  MessageSlice,
  OffsetProblem,
  ReadOutcome,
  SettleOutcome,
} from '../engine/contract.ts'
import { formatScheduledJobId, isSluiceError } from '../index.ts'
import { BatchView } from '../message-batch.ts'
import {
  type Answer,
  type Call,
  type History,
  idOf,
  type SeenJob,
  type Sent,
  type SentMessage,
  type SentOutcome,
} from './history.ts'

/** Codes after which nobody knows whether the call took effect. */
const DOUBTFUL: ReadonlySet<string> = new Set(['UNKNOWN', 'ENGINE_FAILED'])

/** An engine that does what `engine` does and tells `history` of it. `client`: whose calls they are. `now`: ms since 1970. */
export function recordEngine(engine: Engine, history: History, client: string, now: () => number): Engine {
  const tags = new Map<string, string>()

  async function tell<T>(
    calls: readonly Call[],
    ask: () => Promise<T>,
    answersOf: (value: T) => readonly Answer[],
  ): Promise<T> {
    const ops = calls.map((call) => history.begin(client, now(), call))
    const end = (answers: readonly Answer[]) => {
      for (const [i, op] of ops.entries()) history.end(op, now(), answers[i] ?? { status: 'unknown' })
    }
    try {
      const value = await ask()
      end(answersOf(value))
      return value
    } catch (error) {
      const isKnown = isSluiceError(error) && !DOUBTFUL.has(error.code)
      end(calls.map(() => (isKnown ? { status: 'refused', code: error.code } : { status: 'unknown' })))
      throw error
    }
  }

  return {
    abilities: engine.abilities,
    declare: (declarations) =>
      tell(
        declarations.map(toDeclare),
        () => engine.declare(declarations),
        (outcomes) =>
          outcomes.map((outcome, i) => {
            if (outcome.status !== 'declared') return { status: 'refused', code: outcome.status }
            const { kind, name } = declarations[i] as Declaration
            if (kind === 'queue') tags.set(name, outcome.tag)
            return { status: 'done', value: outcome.tag }
          }),
      ),
    append(requests) {
      const sent = requests.map(toSent)
      return tell(
        sent.map((one) => ({ kind: 'append', ...one })),
        () => engine.append(requests),
        (outcomes) => outcomes.map((outcome, i) => toAppended(outcome, sent[i] as Sent, tags)),
      )
    },
    read: (request, signal) =>
      tell(
        [
          {
            kind: 'read',
            topic: request.topic,
            from: typeof request.from === 'number' ? request.from : 0,
            max: request.max,
          },
        ],
        () => engine.read(request, signal),
        // Where it started is only known of a number.
        (outcome) => [
          typeof request.from === 'number' ? toRead(outcome) : { status: 'refused', code: 'NOT_AN_OFFSET' },
        ],
      ),
    lease(request, signal) {
      const { topic, group, max, leaseMs, waitMs, holder } = request
      return tell(
        [{ kind: 'lease', topic, group, max, leaseMs, waitMs: signal === undefined ? waitMs : 0, holder: holder.kind }],
        () => engine.lease(request, signal),
        // A wait that was given up may have been granted, and given back by the engine.
        (outcome) => [
          outcome.status === 'empty' && signal?.aborted === true ? { status: 'unknown' } : toLeased(outcome),
        ],
      )
    },
    extend: (requests) =>
      tell(
        requests.map(({ token: _token, ...request }) => ({ kind: 'extend', ...request })),
        () => engine.extend(requests),
        (outcomes) => outcomes,
      ),
    settle(requests) {
      const calls = requests.map(
        ({ topic, group, fence, offsets, outcome, outputs = [] }): Extract<Call, { kind: 'settle' }> => ({
          kind: 'settle',
          ...{ topic, group, fence, offsets, outcome: outcome.kind, outputs: outputs.map(toSent) },
          result: outcome.kind === 'done' ? outcome.result : undefined,
          atMs: outcome.kind === 'retry' ? outcome.atMs : undefined,
        }),
      )
      return tell(
        calls,
        () => engine.settle(requests),
        (outcomes) => outcomes.map((outcome, i) => toSettled(outcome, calls[i]?.outputs ?? [], tags)),
      )
    },
    find: (ids) =>
      tell(
        ids.map((job) => ({ kind: 'find', job, waitMs: 0 })),
        () => engine.find(ids),
        (outcomes) => outcomes.map(toFound),
      ),
    watch: (request, signal) =>
      tell(
        [{ kind: 'find', job: request.id, waitMs: request.waitMs }],
        () => engine.watch(request, signal),
        (outcome) => [toFound(outcome)],
      ),
    command(command) {
      const call = toCommand(command)
      if (call === null) return engine.command(command)
      return tell(
        [call],
        () => engine.command(command),
        (outcome) => [toDone(outcome)],
      )
    },
    stats: () =>
      tell(
        [{ kind: 'stats' }],
        () => engine.stats(),
        (stats) => [toStats(stats)],
      ),
    close: () => engine.close(),
  }
}

function toDeclare(declaration: Declaration): Call {
  const { kind, name, settings } = declaration
  if (kind !== 'group') return { kind: 'declare', topic: name, group: '', type: kind, ...(settings as object) }
  const from = declaration.from === 'earliest' ? 0 : typeof declaration.from === 'number' ? declaration.from : undefined
  return { kind: 'declare', topic: declaration.topic, group: name, type: 'group', from, ...(settings as object) }
}

function toSent({ topic, batch, wishes = [] }: AppendRequest): Sent {
  const view = new BatchView(batch)
  const byIndex = new Map(wishes.map((wish) => [wish.index, wish]))
  const messages = Array.from({ length: view.count }, (_, i): SentMessage => {
    const wish = byIndex.get(i)
    const deadlineMs = view.deadlineMs(i)
    return {
      id: idOf(view.payloadText(i)),
      key: view.key(i),
      priority: view.priority(i),
      size: view.size(i),
      dueAtMs: wish?.dueAtMs,
      deadlineMs: deadlineMs === 0 ? undefined : deadlineMs,
      idempotencyKey: wish?.idempotencyKey,
    }
  })
  return { topic, messages }
}

type Tags = ReadonlyMap<string, string>

function toAppended(outcome: AppendOutcome, { topic, messages }: Sent, tags: Tags): Answer {
  if (outcome.status === 'not-found') return { status: 'not-found' }
  return {
    status: 'sent',
    outcomes: toOutcomes(outcome, topic, messages.length, tags),
    durability: outcome.receipt.durability,
  }
}

function toOutcomes(outcome: AppendOutcome, topic: string, count: number, tags: Tags): SentOutcome[] {
  if (outcome.status === 'not-found') return Array.from({ length: count }, () => ({ status: 'not-found' }))
  if (outcome.status === 'stored')
    return Array.from({ length: count }, (_, i) => ({ status: 'stored', offset: outcome.offset + i }))
  return outcome.outcomes.map((one) => toOutcome(one, topic, tags))
}

function toOutcome(outcome: MessageOutcome, topic: string, tags: Tags): SentOutcome {
  const jobOf = (dueMs: number, serial: number) => formatScheduledJobId(topic, tags.get(topic) ?? '', dueMs, serial)
  switch (outcome.status) {
    case 'scheduled':
      return { status: 'scheduled', job: jobOf(outcome.dueAtMs, outcome.serial), dueAtMs: outcome.dueAtMs }
    case 'duplicate':
      return outcome.place.kind === 'offset'
        ? { status: 'duplicate', offset: outcome.place.offset }
        : { status: 'duplicate', job: jobOf(outcome.place.dueMs, outcome.place.serial) }
    case 'full':
      return { status: 'full', reason: outcome.reason, retryAfterMs: outcome.retryAfterMs }
    default:
      return outcome
  }
}

function toLeased(outcome: LeaseOutcome): Answer {
  if (outcome.status !== 'leased')
    return outcome.status === 'empty' || outcome.status === 'not-found' ? outcome : toProblem(outcome)
  const view = new BatchView(outcome.batch)
  const messages = outcome.offsets.map((offset, i) => ({
    offset,
    id: idOf(view.payloadText(i)),
    key: view.key(i),
    attempt: outcome.attempts[i] as number,
  }))
  return { status: 'leased', fence: outcome.fence, expiresAtMs: outcome.expiresAtMs, messages }
}

function toProblem({ status, offset, earliest }: OffsetProblem): Answer {
  return { status, offset, earliest }
}

function toRead(outcome: ReadOutcome): Answer {
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

function toSettled(outcome: SettleOutcome, outputs: readonly Sent[], tags: Tags): Answer {
  if (outcome.status !== 'settled') return { status: outcome.status === 'full' ? 'full' : 'not-found' }
  const said = outcome.outputs.map((one, i) => {
    const { topic, messages } = outputs[i] as Sent
    return toOutcomes(one, topic, messages.length, tags)
  })
  return { status: 'settled', lost: outcome.lost, outputs: said }
}

function toJob({ id, status, attempts, version, result, redriveOf }: JobView): SeenJob {
  return { job: id, status, attempts, version, result, redriveOf }
}

function toFound(outcome: FindOutcome): Answer {
  return outcome.status === 'found' ? { status: 'found', job: toJob(outcome.job) } : outcome
}

function toCommand(command: Command): Call | null {
  switch (command.kind) {
    case 'dead':
    case 'unsettled':
    case 'explain':
    case 'backup':
    case 'schedule':
    case 'unschedule':
    case 'schedules':
    case 'fire':
      return null
    case 'cancel':
      return { kind: 'cancel', job: command.id }
    case 'seek':
      return { ...command, from: typeof command.from === 'number' ? command.from : 0 }
    case 'remember': {
      const { topic, group, fence, offsets } = command.hold
      return { kind: 'remember', topic, group, fence, offsets, name: command.name, value: command.value }
    }
    case 'recall': {
      const { topic, group, fence, offsets } = command.hold
      return { kind: 'recall', topic, group, fence, offsets, name: command.name }
    }
    default:
      return command
  }
}

function toDone(outcome: CommandOutcome): Answer {
  switch (outcome.status) {
    case 'done':
      return { status: 'done', count: outcome.count, jobs: outcome.ids, value: outcome.value }
    case 'terminal':
      return { status: 'terminal', job: toJob(outcome.job) }
    case 'truncated':
    case 'out-of-range':
      return toProblem(outcome)
    case 'dead-letters':
      return { status: 'done', count: outcome.letters.length }
    case 'explained':
      return { status: 'found', job: toJob(outcome.job) }
    case 'schedule':
    case 'schedules':
    case 'unsettled':
      return { status: 'done' }
    default:
      return { status: outcome.status }
  }
}

function toStats({ topics }: EngineStats): Answer {
  return {
    status: 'stats',
    topics: topics.map(({ name, earliest, head, depth, scheduled, groups }) => ({
      name,
      earliest,
      head,
      depth,
      scheduled,
      groups,
    })),
  }
}
