/** What the SQLite log does beyond what every log does: who may open a folder, what it refuses, and what it finds damaged. */
import { strict as assert } from 'node:assert'
import { spawn, spawnSync } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync, type SQLInputValue } from 'node:sqlite'
import { after, test } from 'node:test'
import { crc32 } from 'node:zlib'
import { type ErrorCode, isSluiceError, type SluiceError } from '../../src/errors.ts'
import type { Ownership, StoredBatch } from '../../src/logs/contract.ts'
import { migrate } from '../../src/logs/sqlite/database.ts'
import { PageGuard } from '../../src/logs/sqlite/page-guard.ts'
import { decodeStampPage } from '../../src/logs/sqlite/stamp.ts'
import { openSqliteLog, type SqliteLog } from '../../src/logs/sqlite.ts'
import { BatchBuilder } from '../../src/message-batch.ts'
import { continueWorkload, verifyFolder } from '../support/power-loss/sqlite-workload.ts'

const OPTIONS = { checkpointBytes: 256 * 1024, reserveBytes: 65_536 }
const TOPIC = { id: 1, name: 'orders', partitions: 1 }
const CHILD = join(import.meta.dirname, '../support/power-loss/sqlite-child.ts')
const root = mkdtempSync(join(tmpdir(), 'sluice-log-'))
let folders = 0
after(() => rmSync(root, { recursive: true, force: true }))

function newFolder(): string {
  return join(root, `folder-${++folders}`)
}

function withCode(code: ErrorCode, text = /./): (error: unknown) => boolean {
  return (error) => isSluiceError(error, code) && text.test(error.message)
}

/** A batch of so many messages, for the place that `previous` leaves. */
function batchAfter(previous: StoredBatch | null, count = 1, size = 20): StoredBatch {
  const builder = new BatchBuilder()
  for (let i = 0; i < count; i++)
    builder.add({ payload: JSON.stringify({ i, after: previous?.baseOffset, text: 'x'.repeat(size) }) })
  const bytes = builder.finish()
  return {
    topic: 1,
    partition: 0,
    baseOffset: previous === null ? 0 : previous.baseOffset + previous.count,
    count,
    timestampMs: (previous?.timestampMs ?? 0) + 1,
    startBytes: previous === null ? 0 : previous.startBytes + previous.bytes.byteLength - 16,
    bytes,
  }
}

function commit(
  log: SqliteLog,
  ownership: Ownership,
  outputs: StoredBatch[],
  changes: Record<string, string | null> = {},
): string {
  const values = Object.entries(changes).map(
    ([key, value]) => [key, value === null ? null : Buffer.from(value)] as const,
  )
  return log.commit(ownership, { outputs, changes: new Map(values) }).status
}

test('a checkpoint within a commit, while the look at the WAL that an earlier one asked for is still to come, damages nothing', async () => {
  const folder = newFolder()
  const log = openSqliteLog(folder, OPTIONS)
  const ownership = log.own() as Ownership
  const changes = (n: number): Record<string, string> =>
    Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`k${i}`, `${n} ${'x'.repeat(5_000)}`]))
  let n = 0
  for (let round = 0; round < 20; round++) {
    // The first asks for a look when the thread comes to rest; one of those after it cannot wait for that.
    for (let i = 0; i < 3; i++) assert.equal(commit(log, ownership, [], changes(++n)), 'durable')
    await new Promise((resolve) => setImmediate(resolve))
  }
  log.close()
  const again = openSqliteLog(folder, OPTIONS)
  const { state } = again.own() as Ownership
  assert.match(Buffer.from(state.get('k7') as Uint8Array).toString(), new RegExp(`^${n} x`))
  again.close()
})

test('what was committed is there after the folder is opened again', () => {
  const folder = newFolder()
  for (let round = 1; round <= 3; round++) {
    const log = openSqliteLog(folder, OPTIONS)
    const step = continueWorkload(log, 9)
    for (let i = 0; i < 150; i++) step()
    log.close()
    assert.equal(verifyFolder(folder, 9, OPTIONS), 150 * round)
  }
})

test('epochs rise, the older owner is told that it lost and has no effect', () => {
  const folder = newFolder()
  const log = openSqliteLog(folder, OPTIONS)
  log.declare([TOPIC])
  const first = log.own()
  assert.equal(commit(log, first, [], { a: '1' }), 'durable')
  const second = log.own()
  assert(second.epoch > first.epoch)
  assert(isSluiceError(first.signal.reason, 'LOCKED') && !second.signal.aborted)
  assert.equal(commit(log, first, [batchAfter(null)], { a: '2' }), 'lost')
  assert.equal(Buffer.from(second.state.get('a') ?? '').toString(), '1')
  assert.equal(log.declare([TOPIC])[0]?.head, 0)
  log.close()
  assert(second.signal.aborted)
  const again = openSqliteLog(folder, OPTIONS)
  const third = again.own()
  assert(third.epoch > second.epoch && third.clean)
  again.close()
})

test('an owner is told whether the one before it ended well', async () => {
  const folder = newFolder()
  const run = (close: boolean) =>
    spawnSync(process.execPath, [CHILD, folder, '1', '3', JSON.stringify({ ...OPTIONS, close })])
  assert.equal(run(true).status, 0)
  let log = openSqliteLog(folder, OPTIONS)
  assert.equal(log.own().clean, true)
  log.close()
  assert.equal(run(false).status, 0)
  log = openSqliteLog(folder, OPTIONS)
  assert.equal(log.own().clean, false)
  log.close()
})

test('a second opener is told who has the folder, in the same process and in another; a dead owner blocks nobody', async () => {
  const folder = newFolder()
  const child = spawn(process.execPath, [CHILD, folder, '1', '1000000', JSON.stringify(OPTIONS)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = new Promise((resolve) => child.once('exit', resolve))
  await new Promise((resolve) => child.stdout.once('data', resolve))
  child.stdout.resume()
  try {
    assert.throws(
      () => openSqliteLog(folder, OPTIONS),
      (error) => withCode('LOCKED', /sluice serve/)(error) && (error as SluiceError).details.pid === child.pid,
    )
  } finally {
    child.kill('SIGKILL')
    await ended
  }
  const log = openSqliteLog(folder, OPTIONS)
  assert.throws(() => openSqliteLog(folder, OPTIONS), withCode('LOCKED', new RegExp(`process ${process.pid} `)))
  log.close()
  openSqliteLog(folder, OPTIONS).close()
})

test("a folder that the log makes and its files are the owner's alone; one that was there keeps its mode", () => {
  const folder = newFolder()
  openSqliteLog(folder, OPTIONS).close()
  assert.equal(statSync(folder).mode & 0o777, 0o700)
  for (const name of readdirSync(folder)) assert.equal(statSync(join(folder, name)).mode & 0o777, 0o600, name)
  const chosen = newFolder()
  mkdirSync(chosen)
  chmodSync(chosen, 0o750)
  openSqliteLog(chosen, OPTIONS).close()
  assert.equal(statSync(chosen).mode & 0o777, 0o750)
})

test('a folder that cannot be written is READ_ONLY, and a path that is no folder is named', (context) => {
  const folder = newFolder()
  openSqliteLog(folder, OPTIONS).close()
  const file = newFolder()
  writeFileSync(file, '')
  assert.throws(() => openSqliteLog(file, OPTIONS), withCode('INVALID_OPTION', /folder-/))
  assert.throws(() => openSqliteLog(join(file, 'data'), OPTIONS), withCode('INVALID_OPTION'))
  if (process.getuid?.() !== 0) {
    chmodSync(folder, 0o500)
    assert.throws(() => openSqliteLog(folder, OPTIONS), withCode('READ_ONLY'))
    chmodSync(folder, 0o700)
    chmodSync(join(folder, 'sluice.db'), 0o400)
    assert.throws(() => openSqliteLog(folder, OPTIONS), withCode('READ_ONLY'))
    return
  }
  // Root may write whatever the mode is; a read-only mount stops it.
  const mount = newFolder()
  mkdirSync(mount)
  if (spawnSync('mount', ['--bind', '-o', 'ro', folder, mount]).status !== 0) {
    context.skip('root that may not mount: a read-only folder is NOT tested')
    return
  }
  try {
    assert.throws(() => openSqliteLog(mount, OPTIONS), withCode('READ_ONLY'))
  } finally {
    spawnSync('umount', [mount])
  }
  openSqliteLog(folder, OPTIONS).close()
})

test('a folder of a newer format is refused and left as it is', () => {
  const folder = newFolder()
  openSqliteLog(folder, OPTIONS).close()
  const mark = readFileSync(join(folder, 'sluice.guard'))
  mark.writeUInt32LE(2, 8)
  mark.writeUInt32LE(crc32(mark.subarray(8, 64)), 4)
  writeFileSync(join(folder, 'sluice.guard'), mark)
  assert.throws(() => openSqliteLog(folder, OPTIONS), withCode('FORMAT_NEWER', /format 2/))
  assert.deepEqual(readFileSync(join(folder, 'sluice.guard')), mark)

  const other = newFolder()
  openSqliteLog(other, OPTIONS).close()
  alter(other, 'PRAGMA user_version = 3')
  assert.throws(() => openSqliteLog(other, OPTIONS), withCode('FORMAT_NEWER', /format 3/))
})

test('a database of an older format takes each step to the newer ones once, in order', () => {
  const database = new DatabaseSync(':memory:')
  database.exec('CREATE TABLE seen(step); PRAGMA user_version = 2')
  const steps = [1, 2, 3].map((step) => () => Number(database.prepare('INSERT INTO seen VALUES(?)').run(step).changes))
  let transactions = 0
  const transact = (write: () => number) => {
    transactions += write()
  }
  migrate(database, transact, steps)
  migrate(database, transact, steps)
  assert.deepEqual(
    database
      .prepare('SELECT step FROM seen')
      .all()
      .map((row) => row.step),
    [2, 3],
  )
  assert.equal(transactions, 2)
  assert.equal(database.prepare('PRAGMA user_version').get()?.user_version, 4)
  database.close()
})

test('a commit that does not go on where its topic ends changes nothing, and the log goes on', () => {
  const log = openSqliteLog(newFolder(), OPTIONS)
  const ownership = log.own()
  log.declare([TOPIC])
  const first = batchAfter(null, 2)
  assert.equal(commit(log, ownership, [first], { a: '1' }), 'durable')
  const next = batchAfter(first)
  for (const wrong of [{ baseOffset: 7 }, { startBytes: 0 }, { timestampMs: 0 }, { topic: 9 }]) {
    assert.throws(() => commit(log, ownership, [next, { ...batchAfter(next), ...wrong }], { a: '2' }), {
      name: 'AssertionError',
    })
  }
  assert.equal(Buffer.from(ownership.state.get('a') ?? '').toString(), '1')
  assert.equal(commit(log, ownership, [next]), 'durable')
  assert.equal(log.read(1, 0, 0, 10_000).length, 2)
  log.close()
})

test('state is found by key and by range, in order, and every change is told', async () => {
  const log = openSqliteLog(newFolder(), OPTIONS)
  const ownership = log.own()
  const changes: Record<string, string | null> = {}
  for (let i = 0; i < 700; i++) changes[`k/${String(i).padStart(4, '0')}`] = `v${i}`
  commit(log, ownership, [], changes)
  commit(log, ownership, [], { 'k/0003': null, 'k/0004': 'new', 'k/9999': null })
  const { state } = ownership
  assert.equal(state.get('k/0003'), undefined)
  assert.deepEqual(
    state.range('k/0002', 'k/0006', 3).map(([key, value]) => [key, Buffer.from(value).toString()]),
    [
      ['k/0002', 'v2'],
      ['k/0004', 'new'],
      ['k/0005', 'v5'],
    ],
  )
  const all = []
  for await (const [key] of log.changes(ownership)) all.push(key)
  assert.equal(all.length, 699)
  assert.deepEqual(all, [...all].sort())
  log.close()
})

test('trimmed batches go in slices, the newest stays, and their room is used again', () => {
  const folder = newFolder()
  let log = openSqliteLog(folder, OPTIONS)
  let ownership = log.own()
  log.declare([TOPIC])
  let last: StoredBatch | null = null
  const add = () => {
    last = batchAfter(last, 3, 8_000)
    assert.equal(commit(log, ownership, [last]), 'durable')
  }
  for (let i = 0; i < 300; i++) add()
  const size = () => statSync(join(folder, 'sluice.db')).size
  log.trim(1, 0, 3 * 299 + 1)
  const earliest = () => log.declare([TOPIC])[0]?.earliest ?? 0
  commit(log, ownership, [], { a: '1' })
  assert(earliest() > 0 && earliest() < 3 * 299, `one slice went, up to ${earliest()}`)
  // What is still to go survives the owner.
  log.close()
  log = openSqliteLog(folder, OPTIONS)
  ownership = log.own()
  log.declare([TOPIC])
  for (let i = 0; i < 60; i++) commit(log, ownership, [], { a: '1' })
  assert.equal(earliest(), 3 * 299, 'all but the batch that holds the offset')
  log.trim(1, 0, 3 * 300)
  commit(log, ownership, [], { a: '2' })
  assert.equal(earliest(), 3 * 299, 'the newest batch stays')
  assert.equal(log.read(1, 0, 0, 1)[0]?.baseOffset, 3 * 299)
  const before = size()
  for (let i = 0; i < 900; i++) {
    add()
    log.trim(1, 0, (last as StoredBatch | null)?.baseOffset ?? 0)
  }
  assert(size() <= before, `${size()} bytes after ${before}`)
  log.close()
})

test('one commit is one sync, and a read costs the rows that it gives, however many there are', () => {
  const log = openSqliteLog(newFolder(), OPTIONS)
  const ownership = log.own()
  log.declare([TOPIC])
  let last: StoredBatch | null = null
  const before = log.health().counters
  for (let i = 0; i < 20; i++) commit(log, ownership, [(last = batchAfter(last))])
  const { counters } = log.health()
  assert.equal(counters.syncs - before.syncs, 20)
  assert.equal(counters.rowsWritten - before.rowsWritten, 20)
  assert.equal(log.read(1, 0, 5, 1).length, 1)
  assert.equal(log.health().counters.rowsRead - counters.rowsRead, 1)
  assert(log.health().storedBytes > 0)
  log.close()
})

test('a topic has one partition, and no sync is done where durability is os', () => {
  const log = openSqliteLog(newFolder(), { ...OPTIONS, durability: 'os' })
  assert.equal(log.abilities.durability, 'os')
  assert.throws(() => log.declare([{ ...TOPIC, partitions: 2 }]), withCode('UNSUPPORTED'))
  log.declare([TOPIC])
  const ownership = log.own()
  commit(log, ownership, [batchAfter(null)])
  assert.equal(log.health().counters.syncs, 0)
  log.close()
})

test('a closed log says so, and may be closed twice', () => {
  const log = openSqliteLog(newFolder(), OPTIONS)
  const ownership = log.own()
  log.close()
  log.close()
  assert.throws(() => log.read(1, 0, 0, 1), withCode('CLOSED'))
  assert.throws(() => commit(log, ownership, []), withCode('CLOSED'))
  assert.throws(() => ownership.state.get('a'), withCode('CLOSED'))
})

test('a write that fails ends the log: the owner is told, nothing more is taken, and the folder opens again', {
  skip: process.platform !== 'linux' && 'needs /proc',
}, () => {
  const folder = newFolder()
  const log = openSqliteLog(folder, OPTIONS)
  const step = continueWorkload(log, 4)
  for (let i = 0; i < 10; i++) step()
  const ownership = log.own()
  const fd = readdirSync('/proc/self/fd').find((name) => linkOf(name) === join(folder, 'sluice.guard'))
  closeSync(Number(fd))
  assert.throws(() => commit(log, ownership, [], { x: '1' }), withCode('ENGINE_FAILED', /EBADF/))
  assert(isSluiceError(ownership.signal.reason, 'ENGINE_FAILED'))
  assert.equal(log.health().status, 'failed')
  assert.throws(() => commit(log, ownership, [], { x: '2' }), withCode('ENGINE_FAILED'))
  assert.throws(() => log.close(), { code: 'EBADF' })
  const again = openSqliteLog(folder, OPTIONS)
  assert.equal(Buffer.from(again.own().state.get('last') ?? '').toString(), '9')
  again.close()
})

test('a row that is not what was stored is CORRUPT even where its page checks', () => {
  const swap =
    "UPDATE state SET (sum, value) = (SELECT sum, value FROM state WHERE key = 'group/b') WHERE key = 'group/a'"
  const alterations: [sql: string, parameters: SQLInputValue[]][] = [
    ['DELETE FROM batch WHERE id = (1 << 45) + 4', []],
    ['DELETE FROM batch WHERE id = (1 << 45)', []],
    ['UPDATE batch SET id = id + 1000 WHERE id = (1 << 45) + 18', []],
    ['UPDATE batch SET count = 3 WHERE id = (1 << 45) + 4', []],
    ['UPDATE batch SET at = at + 1 WHERE id = (1 << 45) + 4', []],
    ['UPDATE batch SET bytes = (SELECT bytes FROM batch WHERE id = (1 << 45) + 6) WHERE id = (1 << 45) + 4', []],
    [
      "UPDATE batch SET bytes = CAST(substr(bytes, 1, length(bytes) - 1) || x'ff' AS BLOB) WHERE id = (1 << 45) + 4",
      [],
    ],
    ['UPDATE topic SET earliest = 4', []],
    ['UPDATE topic SET name = ?', ['other']],
    ["UPDATE state SET value = ? WHERE key = 'group/a'", [Buffer.from('forged')]],
    [swap, []],
  ]
  for (const [sql, parameters] of alterations) {
    const folder = newFolder()
    const log = openSqliteLog(folder, OPTIONS)
    const ownership = log.own()
    log.declare([TOPIC])
    let last: StoredBatch | null = null
    for (let i = 0; i < 10; i++)
      commit(log, ownership, [(last = batchAfter(last, 2))], { 'group/a': 'first', 'group/b': 'second' })
    log.close()
    alter(folder, sql, ...parameters)
    const damaged = openSqliteLog(folder, OPTIONS)
    assert.throws(
      () => {
        const { state } = damaged.own()
        damaged.declare([TOPIC])
        damaged.read(1, 0, 0, 1_000_000)
        state.range('', '\x7f', 100)
      },
      withCode('CORRUPT'),
      sql,
    )
    damaged.close()
  }
})

test('the stamp of the last commit is the end of page 2, where the check looks for it', () => {
  const folder = newFolder()
  const log = openSqliteLog(folder, OPTIONS)
  const step = continueWorkload(log, 4)
  for (let i = 0; i < 100; i++) step()
  log.close()
  const page = readFileSync(join(folder, 'sluice.db')).subarray(4_096, 8_192)
  // Own, declare, the commits, close.
  assert.deepEqual(decodeStampPage(page), { commit: 103, epoch: 1, clean: true })
})

/** Changes the database behind the log's back, and signs the pages as they are then. */
function alter(folder: string, sql: string, ...parameters: SQLInputValue[]): void {
  const database = new DatabaseSync(join(folder, 'sluice.db'))
  database.exec('PRAGMA locking_mode=EXCLUSIVE')
  database.prepare(sql).run(...parameters)
  database.close()
  const bytes = readFileSync(join(folder, 'sluice.db'))
  const sums = new Map<number, number>()
  for (let at = 0; at < bytes.byteLength; at += 4_096) sums.set(at / 4_096 + 1, crc32(bytes.subarray(at, at + 4_096)))
  const guard = new PageGuard(join(folder, 'sluice.guard'))
  guard.writeSums(sums)
  guard.close()
}

function linkOf(name: string): string {
  try {
    return readlinkSync(join('/proc/self/fd', name))
  } catch {
    return ''
  }
}
