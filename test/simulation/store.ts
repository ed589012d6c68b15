/**
 * What a simulated engine stores on, and how a process that dies leaves it. The memory log is the specification; the
 * SQLite log must do the same (see differential.test.ts).
 */
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Commit, CommitOutcome, Log, Ownership } from '../../src/logs/contract.ts'
import { type CrashKind, MemoryMedium, openMemoryLog } from '../../src/logs/memory.ts'
import { openSqliteLog, type SqliteLog } from '../../src/logs/sqlite.ts'

export interface Store {
  /** What a new process finds. */
  open(): Log
  /** The process dies in this commit. */
  crashIn(kind: CrashKind, log: Log, ownership: Ownership, commit: Commit): void
  /** The process dies between two commits. */
  crash(log: Log): void
  dispose(): void
}

export class MemoryStore implements Store {
  readonly #medium = new MemoryMedium()

  open(): Log {
    return openMemoryLog(this.#medium)
  }

  crashIn(kind: CrashKind, log: Log, ownership: Ownership, commit: Commit): void {
    this.#medium.crashNext = kind
    try {
      log.commit(ownership, commit)
    } catch {
      // As it must.
    }
    this.#medium.crashNext = null
  }

  crash(): void {}

  dispose(): void {}
}

/** A folder of the SQLite log. A kill is a copy of the files as they are, from which the next process opens. */
export class SqliteStore implements Store {
  readonly #root = mkdtempSync(join(tmpdir(), 'sluice-simulated-'))
  #lives = 0

  open(): Log {
    return openSqliteLog(this.#folder, { durability: 'os' })
  }

  crashIn(kind: CrashKind, log: Log, ownership: Ownership, commit: Commit): void {
    if (kind === 'kept') log.commit(ownership, commit) as CommitOutcome satisfies CommitOutcome
    this.crash(log)
  }

  crash(log: Log): void {
    const before = this.#folder
    this.#lives++
    cpSync(before, this.#folder, { recursive: true })
    ;(log as SqliteLog).close()
    rmSync(before, { recursive: true, force: true })
  }

  dispose(): void {
    rmSync(this.#root, { recursive: true, force: true })
  }

  get #folder(): string {
    return join(this.#root, `life-${this.#lives}`)
  }
}
