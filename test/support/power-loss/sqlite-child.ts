/**
 * A process that commits to a SQLite log until it is killed or done, and prints `ack N` when commit N is acknowledged.
 *
 *     node sqlite-child.ts FOLDER SEED COMMITS [OPTIONS as JSON]
 *
 * `close` (default true): whether it closes the log when it is done. Two planted bugs, for the checkers:
 * `ackFirst` prints before the commit; `durability: 'os'` acknowledges what no sync has made durable.
 */
import { writeSync } from 'node:fs'
import { openSqliteLog, type SqliteLogOptions } from '../../../src/logs/sqlite.ts'
import { continueWorkload } from './sqlite-workload.ts'

interface ChildOptions extends SqliteLogOptions {
  readonly close?: boolean
  readonly ackFirst?: boolean
}

const [folder = '', seed, commits, json = '{}'] = process.argv.slice(2)
const { close = true, ackFirst = false, ...options } = JSON.parse(json) as ChildOptions
const log = openSqliteLog(folder, options)
try {
  const step = continueWorkload(log, Number(seed))
  let next = 0
  for (let left = Number(commits); left > 0; left--) {
    if (ackFirst && next > 0) writeSync(1, `ack ${next}\n`)
    const index = step()
    if (!ackFirst) writeSync(1, `ack ${index}\n`)
    next = index + 1
    // Now and then the thread comes to rest, so that the log does what it put off.
    if (index % 3 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  if (close) log.close()
  writeSync(1, 'done\n')
} catch (error) {
  writeSync(1, `failed ${(error as { code?: string }).code} ${log.health().status}\n`)
  log.close()
  process.exitCode = 1
}
