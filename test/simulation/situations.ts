/** What happened in a run, counted, to see that a batch of seeds meets everything that it should. */
import type { HistoryEvent } from '../../src/conformance/history.ts'

export class Situations {
  readonly counts = new Map<string, number>()

  saw(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1)
  }

  /** What answers show of it. */
  observe(event: HistoryEvent): void {
    if (event.kind !== 'end') return
    const { answer } = event
    if (answer.status === 'found' && SHOWN.has(answer.job.status)) this.saw(answer.job.status)
    if (answer.status !== 'stats') return
    for (const { groups } of answer.topics) {
      if (groups.some(({ dead }) => dead > 0)) this.saw('dead letter')
      if (groups.some(({ blocked }) => blocked > 0)) this.saw('blocked')
    }
  }
}

const SHOWN: ReadonlySet<string> = new Set(['expired', 'retrying', 'scheduled', 'active', 'failed', 'completed'])

/** Each must be met somewhere in a batch of 500 seeds. */
export const WANTED: readonly string[] = [
  'crash lost',
  'crash kept',
  'crash torn',
  'crash between',
  'crash while it opens',
  'answer lost',
  'request lost',
  'request repeated',
  'late answer',
  'disk full',
  'slow disk',
  'clock set forward while it runs',
  'clock set between two processes',
  'queue full',
  'disk full answered',
  'duplicate',
  'mismatch',
  'unknown publish tried again',
  'unknown publish was stored',
  'scheduled',
  'retrying',
  'active',
  'failed',
  'completed',
  'lease expired',
  'stale settle refused',
  'stale extend refused',
  'stale remember refused',
  'key parked',
  'released',
  'dead letter',
  'blocked',
  'redriven',
  'discarded',
  'cancelled',
  'cancel came too late',
  'expired',
  'outputs refused',
  'outputs stored',
  'once recalled',
  'group paused',
  'group sought',
  'group forgotten',
  'group detached',
  'message lost its process',
]
