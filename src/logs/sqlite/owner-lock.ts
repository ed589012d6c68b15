/**
 * One owner of a data folder, from the moment it is opened until the process ends or closes it.
 *
 * The lock is a POSIX record lock that SQLite takes on `sluice.lock`, an empty file used for nothing else: it dies with
 * the process, so that no stale file ever blocks, and SQLite's own table of open files makes it hold between threads of
 * one process too. It cannot be a lock on the database itself: the files are checked before SQLite opens them, and
 * closing any descriptor of a file drops the process's record locks on it. Nothing but SQLite ever opens `sluice.lock`;
 * a process that copies its own open folder does, so the broker's thread holds the folder by another means besides
 * (broker/folder-hold.ts).
 *
 * `sluice.pid` tells people who the owner is. Nothing depends on it.
 */
import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { SluiceError } from '../../errors.ts'
import { sortFailure } from './failure.ts'

export interface OwnerLock {
  close(): void
}

export function takeOwnerLock(folder: string): OwnerLock {
  const path = join(folder, 'sluice.lock')
  const database = new DatabaseSync(path)
  try {
    chmodSync(path, 0o600)
    // No journal in a file: BEGIN EXCLUSIVE would otherwise leave an empty one behind. Nothing is ever written.
    database.exec('PRAGMA busy_timeout=0; PRAGMA journal_mode=MEMORY; BEGIN EXCLUSIVE')
  } catch (error) {
    database.close()
    if (sortFailure(error) === 'locked') throw lockedError(folder, error)
    throw error
  }
  const owner = { pid: process.pid, host: hostname(), since: new Date().toISOString() }
  try {
    writeFileSync(join(folder, 'sluice.pid'), `${JSON.stringify(owner)}\n`, { mode: 0o600 })
  } catch (error) {
    if (sortFailure(error) !== 'full') {
      database.close()
      throw error
    }
  }
  return { close: () => database.close() }
}

/** The refusal of a folder that has an owner, with what is known of it. */
export function lockedError(folder: string, cause: unknown): SluiceError {
  let owner: { pid?: unknown; host?: unknown; since?: unknown } = {}
  try {
    owner = JSON.parse(readFileSync(join(folder, 'sluice.pid'), 'utf8')) ?? {}
  } catch {
    // The owner is between taking the lock and writing its name: the message goes without.
  }
  const who = Number.isSafeInteger(owner.pid)
    ? `process ${owner.pid} on ${owner.host}, since ${owner.since}`
    : 'another process'
  return new SluiceError(
    'LOCKED',
    `The data folder ${folder} is in use by ${who}. Stop it, or let it serve the folder (\`sluice serve\`) and use its HTTP API.`,
    { folder, pid: Number.isSafeInteger(owner.pid) ? owner.pid : null },
    cause,
  )
}
