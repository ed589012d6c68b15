/**
 * What may be sent again when an answer does not come, and nobody knows whether the first time took effect.
 *
 *   a second time changes nothing       find, watch, read, stats, extend, declare, pause, resume, seek, remember, recall,
 *                                       schedules and their firing (the place it moves on from), an
 *                                       append of which every message has an idempotency key (P8), a settle (its fence, P5)
 *   a second time may be another        any other append, redrive, discard, forget: UNKNOWN (P2)
 *
 *   a lease                             UNKNOWN: what was granted and not heard of ends with its time, and counts as an attempt
 *
 * A settle that was sent twice and then is said to be lost may be what the first one did: UNKNOWN, too.
 */
import { BatchView } from '../message-batch.ts'
import type { AppendRequest, Command } from './contract.ts'

/** Commands that a second time find done, and do no more. */
const REPEATABLE_COMMANDS: ReadonlySet<Command['kind']> = new Set([
  'cancel',
  'explain',
  'unsettled',
  'pause',
  'resume',
  'dead',
  'seek',
  'remember',
  'recall',
  'schedule',
  'unschedule',
  'schedules',
  'fire',
])

export function isRepeatableCommand({ kind }: Command): boolean {
  return REPEATABLE_COMMANDS.has(kind)
}

/** Whether every message has an idempotency key. */
export function isKeyed({ batch, wishes = [] }: AppendRequest): boolean {
  return wishes.filter(({ idempotencyKey }) => idempotencyKey !== undefined).length === new BatchView(batch).count
}
