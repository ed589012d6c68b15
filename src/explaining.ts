/** Why a job waits, in words. */
import type { JobStatus, WaitReason } from './engine/contract.ts'

/** One sentence for each reason, the one that tells most first; of a job that does not wait, how it is. */
export function describeWaits(status: JobStatus, waits: readonly WaitReason[], nowMs: number): string {
  if (waits.length > 0) return waits.map((reason) => `${describe(reason, nowMs)}.`).join(' ')
  if (status === 'active') return 'It runs.'
  return status === 'queued' || status === 'retrying' ? 'It is about to be handed out.' : `It is ${status}.`
}

function describe(reason: WaitReason, nowMs: number): string {
  switch (reason.kind) {
    case 'delayed':
      return `It is due in ${duration(reason.untilMs - nowMs)}`
    case 'retrying':
      return `Its last attempt failed; the next is due in ${duration(reason.untilMs - nowMs)}`
    case 'exhausted':
      return 'It is out of attempts and blocks its key until it is redriven or cancelled'
    case 'key':
      return behindKey(reason)
    case 'suspect':
      return reason.behind === undefined
        ? 'Its process died while it ran, so it is handed out alone, once nothing else of the queue is held'
        : `Job ${reason.behind} was held when its process died and is handed out alone, before everything else`
    case 'paused':
      return 'The queue is paused'
    case 'no-worker':
      return 'No worker asks for jobs of this queue'
    case 'workers-busy':
      return `All workers are busy, with ${reason.active} ${reason.active === 1 ? 'job' : 'jobs'}`
    case 'rate':
      return `The rate of the queue lets the next job go in ${duration(reason.untilMs - nowMs)}`
    case 'line':
      return reason.ahead === 0 ? 'It is next' : `${reason.ahead} may go before it`
  }
}

function behindKey({ behind, behindStatus, ahead }: Extract<WaitReason, { kind: 'key' }>): string {
  const doing = {
    active: 'which runs',
    retrying: 'which is tried again later',
    blocked: 'which is out of attempts: redrive or cancel that one',
  } as Partial<Record<JobStatus, string>>
  const others = ahead > 1 ? `; ${ahead} of its key go before it` : ''
  return `It waits behind job ${behind} of its key, ${doing[behindStatus] ?? 'which waits, too'}${others}`
}

function duration(ms: number): string {
  if (ms < 1_000) return `${Math.max(0, Math.ceil(ms))} ms`
  const seconds = ms / 1_000
  if (seconds < 120) return `${seconds.toFixed(1)} s`
  const minutes = seconds / 60
  return minutes < 120 ? `${Math.round(minutes)} min` : `${Math.round(minutes / 60)} h`
}
