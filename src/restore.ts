/** Restoring a backup: the one thing that is done to a folder without opening it. */
import { findNodeProblem } from './options-check.ts'

/** What was restored. */
export interface Restored {
  readonly folder: string
  /** When the backup was finished, ms since 1970: what was stored later is not in it. */
  readonly backupAtMs: number
}

/**
 * Makes a data folder of a backup that `sluice.backup()` took. The folder must be empty or not there, and has its name
 * once all of it was checked. Rejects with `CORRUPT` (the backup is not whole), `FORMAT_NEWER`, `INVALID_OPTION` and
 * `DISK_FULL`.
 *
 * What the backup holds goes on from there: its jobs wait, and what was leased is handed out again, as all leases end.
 * What came later is gone; its ids are `JOB_NOT_FOUND`, never another job, and its fences are lower than all new ones.
 */
export async function restore(file: string, folder: string): Promise<Restored> {
  const nodeProblem = findNodeProblem(process.versions.node)
  if (nodeProblem !== null) throw nodeProblem
  const { restoreBackup } = await import('./broker/backup.ts')
  const { finishedAtMs } = restoreBackup(file, folder, Date.now())
  return { folder, backupAtMs: finishedAtMs }
}
