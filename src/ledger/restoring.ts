/**
 * Taking up data that was restored from a backup.
 *
 * The backup is of some moment; what was written after it went on elsewhere, and others saw it: workers were given fences
 * that this copy knows nothing of, and callers ids of jobs that are not in it. So that nothing from that other life is
 * taken for something of this one, the first start after a restore
 *  - raises every fence above all that may have been given since the backup (P5),
 *  - ends every lease: who held one before the restore has none, and its message is handed out again (P3),
 *  - gives every queue a new tag for the ids of its jobs. Ids of before stay good for the jobs that the backup has.
 */
import type { Core } from './core.ts'
import { endLease } from './settling.ts'
import { drawTag, type Topic } from './topic.ts'

/** Where a restore leaves word. */
export const RESTORE_KEY = 'e'

export interface RestoreRow {
  /** When the backup was finished, and when it was restored. */
  readonly backupAtMs: number
  readonly restoredAtMs: number
}

/** More leases than any engine gives in a millisecond, for the time since the backup; and some, since clocks differ. */
const FENCES_PER_MS = 1_000
const FENCES_MORE = 1_000_000_000

/** Does what a restore asks for, once: its changes are those of the first step. */
export function takeUpRestore(core: Core, topics: ReadonlyMap<string, Topic>): void {
  const restore = core.state.getJson<RestoreRow>(RESTORE_KEY)
  if (restore === undefined) return
  core.state.delete(RESTORE_KEY)
  const jump = FENCES_MORE + FENCES_PER_MS * Math.max(0, restore.restoredAtMs - restore.backupAtMs)
  for (const topic of topics.values()) {
    const { tag, formerTags = [] } = topic.row
    const former = { tag, belowOffset: topic.head, belowSerial: topic.serial }
    topic.row = { ...topic.row, tag: drawTag(core.random), formerTags: [...formerTags, former] }
    topic.saveRow(core)
    for (const group of topic.groups.values()) {
      for (const lease of [...group.leases.values()])
        endLease(core, group, lease, 'The data was restored from a backup while it was held')
      group.fence += jump
      group.countersChanged = true
      core.touched.add(group)
    }
  }
  for (const [key] of core.state.under('f/', Number.MAX_SAFE_INTEGER)) {
    const fence = core.state.getJson<number>(key) ?? 0
    core.state.putJson(key, fence + jump)
  }
}
