/** What SQLite and the file system answer, sorted into what the log does about it. */
import { SluiceError } from '../../errors.ts'

/** `full`: no room. `corrupt`: what is stored is damaged. `readOnly`, `locked`: see errors.ts. `fatal`: anything else. */
export type FailureKind = 'full' | 'corrupt' | 'readOnly' | 'locked' | 'fatal'

// Primary result codes of SQLite; `errcode` is the extended one, its low byte is this.
const SQLITE_PERM = 3
const SQLITE_BUSY = 5
const SQLITE_LOCKED = 6
const SQLITE_READONLY = 8
const SQLITE_CORRUPT = 11
const SQLITE_FULL = 13
const SQLITE_NOTADB = 26

export function sortFailure(error: unknown): FailureKind {
  const { code, errcode } = error as { code?: string; errcode?: number }
  switch (code === 'ERR_SQLITE_ERROR' && errcode !== undefined ? errcode & 0xff : -1) {
    case SQLITE_FULL:
      return 'full'
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return 'corrupt'
    case SQLITE_READONLY:
    case SQLITE_PERM:
      return 'readOnly'
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return 'locked'
  }
  switch (code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return 'full'
    case 'EROFS':
    case 'EACCES':
    case 'EPERM':
      return 'readOnly'
    // A number in a row that no number of ours can be.
    case 'ERR_OUT_OF_RANGE':
      return 'corrupt'
  }
  return 'fatal'
}

/** A `SluiceError` for a failure while the folder is opened, when nothing has been promised yet. */
export function openFailure(folder: string, error: unknown): SluiceError {
  if (error instanceof SluiceError) return error
  const text = error instanceof Error ? error.message : String(error)
  const { code } = error as { code?: string }
  if (code === 'EEXIST' || code === 'ENOTDIR') {
    return new SluiceError(
      'INVALID_OPTION',
      `The data folder ${folder} is not a folder (${text}). Name one, or one that can be made.`,
      { folder },
      error,
    )
  }
  switch (sortFailure(error)) {
    case 'full':
      return new SluiceError(
        'DISK_FULL',
        `There is no room on the disk to open the data folder ${folder} (${text}). Free some space.`,
        { folder },
        error,
      )
    case 'corrupt':
      return corrupt(folder, `SQLite reports: ${text}`, error)
    case 'readOnly':
      return new SluiceError(
        'READ_ONLY',
        `The data folder ${folder} cannot be written (${text}). Give the user of this process write permission on it and its files.`,
        { folder },
        error,
      )
    case 'locked':
      return new SluiceError(
        'LOCKED',
        `Another program holds the database in ${folder} open. Stop it first.`,
        { folder },
        error,
      )
    case 'fatal':
      return new SluiceError(
        'ENGINE_FAILED',
        `The data folder ${folder} could not be opened: ${text}`,
        { folder },
        error,
      )
  }
}

/** P13: names what is damaged and what can be done; nothing is cleaned up. */
export function corrupt(folder: string, what: string, cause?: unknown): SluiceError {
  const message = `The data in ${folder} is damaged: ${what}. It is not served, and nothing was changed. Restore a backup, or copy the folder aside for inspection.`
  return new SluiceError('CORRUPT', message, { folder, damage: what }, cause)
}
