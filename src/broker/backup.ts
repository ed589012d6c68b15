/** Taking a backup of a folder that is open, and restoring one into a folder that is not there. */
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { Worker } from 'node:worker_threads'
import { SluiceError } from '../errors.ts'
import type { AnswerError } from '../ledger/requests.ts'
import { RESTORE_KEY, type RestoreRow } from '../ledger/restoring.ts'
import { type BackupFacts, backupFailure, unpackBackup } from '../logs/sqlite/backup.ts'
import { syncFolder } from '../logs/sqlite/folder.ts'
import type { RowFacts } from '../logs/sqlite/row-walk.ts'
import { openSqliteLog } from '../logs/sqlite.ts'

export interface BackupTaken extends BackupFacts, Omit<RowFacts, 'stamp'> {
  readonly file: string
  /** Of the file. */
  readonly fileBytes: number
}

/** What the thread that finishes a backup is told, and says. */
export interface FinishOrder {
  readonly unfinished: string
  readonly file: string
}
export type FinishAnswer = { readonly taken: BackupTaken } | { readonly error: AnswerError }

/** `copy` makes the copy under another name; it is checked, ended and given its own in a thread (logs/sqlite/backup.ts). */
export async function takeBackup(file: string, copy: (unfinished: string) => Promise<void>): Promise<BackupTaken> {
  const path = resolve(file)
  if (existsSync(path))
    throw new SluiceError(
      'INVALID_OPTION',
      `${path} is there already, and a backup overwrites nothing. Name a new file.`,
      {
        file: path,
      },
    )
  if (!existsSync(dirname(path)))
    throw new SluiceError('INVALID_OPTION', `The folder ${dirname(path)} of the backup is not there. Make it first.`, {
      file: path,
    })
  const unfinished = `${path}.unfinished-${randomBytes(4).toString('hex')}`
  try {
    await copy(unfinished)
    return await finishInThread({ unfinished, file: path })
  } catch (error) {
    for (const left of [unfinished, `${unfinished}-journal`]) rmSync(left, { force: true })
    throw asBackupError(error)
  }
}

function finishInThread(order: FinishOrder): Promise<BackupTaken> {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
  const thread = new Worker(new URL(`./backup-thread.${extension}`, import.meta.url), {
    workerData: order,
    execArgv: [],
    name: 'sluice-backup',
  })
  return new Promise((done, fail) => {
    thread.on('message', (answer: FinishAnswer) => {
      if ('taken' in answer) done(answer.taken)
      else fail(new SluiceError(answer.error.code, answer.error.message, { ...answer.error.details }))
    })
    thread.on('error', fail)
    thread.on('exit', (code) =>
      fail(new SluiceError('CLOSED', `The backup was ended with code ${code}; there is none`)),
    )
  })
}

/**
 * Restores a backup into a folder, which must be empty or not there: it has its name only once it is whole. The engine
 * that opens it takes up the restore (ledger/restoring.ts).
 */
export function restoreBackup(file: string, folder: string, nowMs: number): BackupFacts {
  const target = resolve(folder)
  if (existsSync(target) && readdirSync(target).length > 0)
    throw new SluiceError(
      'INVALID_OPTION',
      `The folder ${target} is not empty, and a restore overwrites nothing. Name a new folder, or move this one away.`,
      { folder: target },
    )
  const unfinished = `${target}.unfinished-${randomBytes(4).toString('hex')}`
  try {
    mkdirSync(dirname(target), { recursive: true })
    mkdirSync(unfinished, { mode: 0o700 })
    const facts = unpackBackup(resolve(file), unfinished)
    const log = openSqliteLog(unfinished)
    const row: RestoreRow = { backupAtMs: facts.finishedAtMs, restoredAtMs: nowMs }
    const outcome = log.commit(log.own(), {
      outputs: [],
      changes: new Map([[RESTORE_KEY, Buffer.from(JSON.stringify(row))]]),
    })
    log.close()
    if (outcome.status !== 'durable')
      throw new SluiceError('DISK_FULL', `There is no room on the disk to restore into ${target}. Free some space.`)
    renameSync(unfinished, target)
    syncFolder(dirname(target))
    return facts
  } catch (error) {
    rmSync(unfinished, { recursive: true, force: true })
    throw asBackupError(error)
  }
}

/** An error of a backup, or of a restore, as one that a user can act on. */
export function asBackupError(error: unknown): SluiceError {
  const sorted = backupFailure(error)
  if (sorted instanceof SluiceError) return sorted
  const { code } = error as { code?: unknown }
  const text = error instanceof Error ? error.message : String(error)
  return code === 'ENOENT' || code === 'ENOTDIR' || code === 'EISDIR' || code === 'EEXIST'
    ? new SluiceError('INVALID_OPTION', `${text}. Name a file that is there, and a place for what is not.`, {}, error)
    : new SluiceError('ENGINE_FAILED', `The copy failed, and there is none: ${text}`, {}, error)
}
