/** Commands: what operators do to groups and jobs, and what a handler keeps with `once`. */
import type { Command, CommandOutcome } from '../engine/contract.ts'
import { SluiceError } from '../errors.ts'
import type { Core } from './core.ts'
import { explainJob } from './explaining.ts'
import { cancelJob } from './jobs.ts'
import { listUnsettled } from './listing.ts'
import { discard, findOffsetProblem, forgetGroup, listDead, redrive, seekGroup, setPaused } from './operating.ts'
import { carryOutSchedule, isScheduleCommand } from './schedules.ts'
import { findLease } from './settling.ts'
import { decodeText, encodeText } from './state.ts'
import type { Topic } from './topic.ts'

type OnceCommand = Extract<Command, { kind: 'remember' | 'recall' }>

/** Carries out one act of an operator or a handler. */
export function carryOut(core: Core, topics: ReadonlyMap<string, Topic>, command: Command): CommandOutcome {
  if (command.kind === 'cancel') {
    const outcome = cancelJob(core, topics, command.id, command.isMoved === true)
    if (outcome === null) return { status: 'not-found' }
    return outcome === 'cancelled' ? { status: 'done' } : { status: 'terminal', job: outcome }
  }
  if (command.kind === 'backup')
    throw new SluiceError('UNSUPPORTED', 'A backup is made by the engine that has the file')
  if (isScheduleCommand(command)) return carryOutSchedule(core, topics, command)
  if (command.kind === 'explain') return explainJob(core, topics, command.id)
  if (command.kind === 'unsettled') return listUnsettled(core, topics, command)
  if (command.kind === 'remember' || command.kind === 'recall') return once(core, topics, command)
  const group = topics.get(command.topic)?.groups.get(command.group)
  if (group === undefined) return { status: 'not-found' }
  switch (command.kind) {
    case 'pause':
    case 'resume':
      setPaused(core, group, command.kind === 'pause')
      return { status: 'done' }
    case 'redrive':
      return redrive(core, group, command.ids, command.max)
    case 'discard':
      return discard(core, group, command.ids, command.max)
    case 'forget':
      if (group.topic.row.kind === 'queue')
        throw new SluiceError('UNSUPPORTED', 'A queue has one group, which cannot be removed')
      forgetGroup(core, group)
      return { status: 'done' }
    case 'dead':
      return listDead(core, group, command.after, command.max)
    case 'seek': {
      if (group.topic.row.kind === 'queue')
        throw new SluiceError(
          'UNSUPPORTED',
          'A queue cannot be moved to another place: a settled job stays settled. Redrive its dead letters, or use a topic',
        )
      const offset = group.topic.resolve(command.from)
      const problem = findOffsetProblem(group.topic, offset)
      if (problem !== null) return problem
      seekGroup(core, group, offset)
      return { status: 'done' }
    }
  }
}

/** P9: what `once` keeps under a lease, and whether the lease is still held. */
function once(core: Core, topics: ReadonlyMap<string, Topic>, command: OnceCommand): CommandOutcome {
  const { hold } = command
  const group = topics.get(hold.topic)?.groups.get(hold.group)
  if (group === undefined) return { status: 'not-found' }
  const offset = hold.offsets[0] as number
  if (findLease(group, hold)?.holds(offset) !== true) return { status: 'lost' }
  const name = Buffer.from(command.name).toString('hex')
  if (command.kind === 'remember') {
    core.state.put(group.remember(offset, name), encodeText(command.value))
    return { status: 'done' }
  }
  const value = core.state.get(group.onceKey(offset, name))
  return value === undefined ? { status: 'done' } : { status: 'done', value: decodeText(value) }
}
