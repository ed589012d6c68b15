/**
 * Schedules: what is kept of them, and the one step in which a tick is dealt with.
 *
 * The ledger knows no calendar. Whoever fires works the ticks out and says from where to where it moves the schedule; the
 * ledger moves it only if it still stands there, and stores the job in the same step. So a tick has one job, however many
 * processes fire it, whatever of them is killed, and for good: there is no window after which it could fire again.
 */
import type { CommandOutcome } from '../engine/contract.ts'
import { RESERVED_NAMES } from '../engine/options.ts'
import { MAX_SCHEDULES, type ScheduleCommand, type ScheduleView } from '../engine/schedules.ts'
import { SluiceError } from '../errors.ts'
import { append } from './appending.ts'
import type { Core } from './core.ts'
import { idOf } from './jobs.ts'
import { decodeJson } from './state.ts'
import type { Topic } from './topic.ts'

type Row = Omit<ScheduleView, 'queue' | 'name'>
type Of<K extends ScheduleCommand['kind']> = Extract<ScheduleCommand, { kind: K }>

const PREFIX = 'z/'
const VERSION = 'y'

const KINDS: ReadonlySet<string> = new Set(['schedule', 'unschedule', 'schedules', 'fire'])

export function isScheduleCommand(command: { readonly kind: string }): command is ScheduleCommand {
  return KINDS.has(command.kind)
}

export function carryOutSchedule(
  core: Core,
  topics: ReadonlyMap<string, Topic>,
  command: ScheduleCommand,
): CommandOutcome {
  switch (command.kind) {
    case 'schedule':
      return keep(core, command)
    case 'unschedule': {
      const key = keyOf(command)
      if (core.state.get(key) === undefined) return { status: 'not-found' }
      core.state.delete(key)
      raiseVersion(core)
      return { status: 'done' }
    }
    case 'schedules':
      return list(core, command)
    case 'fire':
      return fire(core, topics, command)
  }
}

function keep(core: Core, command: Of<'schedule'>): CommandOutcome {
  const { queue, timing, job } = command
  if (queue.startsWith(RESERVED_NAMES))
    throw new SluiceError('UNSUPPORTED', `'${queue}' is Sluice's own queue, and nothing is scheduled for it.`)
  const before = core.state.getJson<Row>(keyOf(command))
  if (before?.timing === timing && before.job === job) return view(command, before, false)
  if (before === undefined && core.state.under(PREFIX, MAX_SCHEDULES).length >= MAX_SCHEDULES)
    throw new SluiceError(
      'UNSUPPORTED',
      `There are ${MAX_SCHEDULES} schedules, the most there may be. Remove one, or add what is due with delayMs.`,
      { limit: MAX_SCHEDULES },
    )
  const row: Row = {
    timing,
    job,
    revision: (before?.revision ?? 0) + 1,
    createdAtMs: before?.createdAtMs ?? core.nowMs,
    doneMs: before?.timing === timing ? before.doneMs : core.nowMs,
    firedMs: before?.firedMs ?? null,
    jobId: before?.jobId ?? null,
  }
  core.state.putJson(keyOf(command), row)
  raiseVersion(core)
  return view(command, row, before === undefined)
}

function list(core: Core, { queue, knownVersion }: Of<'schedules'>): CommandOutcome {
  const version = core.state.getJson<number>(VERSION) ?? 0
  if (version === knownVersion) return { status: 'done' }
  const prefix = queue === undefined ? PREFIX : `${PREFIX}${queue}/`
  const schedules = core.state.under(prefix, MAX_SCHEDULES).map(([key, value]): ScheduleView => {
    const [, ofQueue = '', name = ''] = key.split('/')
    return { queue: ofQueue, name, ...decodeJson<Row>(value) }
  })
  return { status: 'schedules', schedules, version }
}

function fire(core: Core, topics: ReadonlyMap<string, Topic>, command: Of<'fire'>): CommandOutcome {
  const row = core.state.getJson<Row>(keyOf(command))
  if (row === undefined) return { status: 'not-found' }
  const { queue, toMs } = command
  if (row.revision !== command.revision || row.doneMs !== command.fromMs || toMs <= row.doneMs)
    return view(command, row, false)
  let next: Row = { ...row, doneMs: toMs }
  if (command.append !== null) {
    const topic = topics.get(queue)
    if (topic?.row.kind !== 'queue' || command.append.topic !== queue)
      throw new SluiceError('QUEUE_NOT_FOUND', `There is no queue '${queue}' for the schedule '${command.name}'.`)
    const outcome = append(core, topic, command.append, false)
    const one = outcome.status === 'mixed' ? outcome.outcomes[0] : outcome
    if (one?.status === 'full') return one
    next = { ...next, firedMs: toMs, jobId: one?.status === 'stored' ? idOf(topic, one.offset) : null }
  }
  core.state.putJson(keyOf(command), next)
  return next.jobId === row.jobId || next.jobId === null ? { status: 'done' } : { status: 'done', ids: [next.jobId] }
}

function view({ queue, name }: { queue: string; name: string }, row: Row, created: boolean): CommandOutcome {
  return { status: 'schedule', schedule: { queue, name, ...row }, created }
}

function raiseVersion(core: Core): void {
  core.state.putJson(VERSION, (core.state.getJson<number>(VERSION) ?? 0) + 1)
}

function keyOf({ queue, name }: { readonly queue: string; readonly name: string }): string {
  return `${PREFIX}${queue}/${name}`
}
