/**
 * How long a job that is stored now would wait before it is started, from what was measured: P11 refuses a call at once
 * where that is past its deadline, rather than let it wait for nothing and keep others from their places.
 *
 * Two lines are looked at, and the longer counts: the queue (what waits, by the rate at which it is drained) and the lane of
 * the key (what stands in it, by the rate at which heads have left it). A rate is that of a time in which something
 * waited all along: what is drained of a queue that is mostly empty says how much came, not how much could go.
 *
 * Nothing is known of a queue that has not drained MIN_COUNT jobs with a line behind them, nor of a job of high priority,
 * which does not stand behind the others: such a job is let in. So is one in doubt: rates are told high rather than low.
 */
import { PRIORITY_NORMAL } from '../message-batch.ts'
import type { Core } from './core.ts'
import type { Group } from './group.ts'

const MIN_COUNT = 3
const MIN_MS = 1_000

/** Milliseconds, or null where nothing is known. `ahead`: messages of the same batch that go before it. */
export function measureWait(core: Core, group: Group, lane: number, priority: number, ahead: number): number | null {
  const inQueue = priority < PRIORITY_NORMAL ? null : waitInQueue(core, group, ahead)
  const inLane = lane === 0 ? null : waitInLane(core, group, lane)
  if (inQueue === null || inLane === null) return inQueue ?? inLane
  return Math.max(inQueue, inLane)
}

function waitInQueue(core: Core, group: Group, ahead: number): number | null {
  const { sinceMs, drained } = group.backlog
  const waiting = group.waiting + ahead
  if (waiting <= 0) return 0
  const recent = group.drain.since(sinceMs, core.nowMs)
  const all = { count: group.drain.total - drained, ms: core.nowMs - sinceMs }
  // A few seconds say how it goes now; where jobs take longer than that, the whole time of the line does.
  const { count, ms } = recent.count >= MIN_COUNT ? recent : all
  return count < MIN_COUNT || all.ms < MIN_MS ? null : (waiting / count) * ms
}

function waitInLane(core: Core, group: Group, lane: number): number | null {
  const state = group.lanes.stateOf(group.laneOf(lane))
  if (state === null) return null
  const ms = core.nowMs - state.sinceMs
  return state.left < MIN_COUNT || ms < MIN_MS ? null : (state.count / state.left) * ms
}
