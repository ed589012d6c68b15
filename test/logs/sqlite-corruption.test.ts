/**
 * P13 on the SQLite log: a folder whose files were damaged answers an error, or gives exactly what was stored; never
 * less, never other. The damage follows from a seed, which each failure prints: SLUICE_SEED=… replays it alone.
 */
import { strict as assert } from 'node:assert'
import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, before, test } from 'node:test'
import { isSluiceError, type SluiceError } from '../../src/errors.ts'
import { PageGuard } from '../../src/logs/sqlite/page-guard.ts'
import { openSqliteLog } from '../../src/logs/sqlite.ts'
import { continueWorkload, createRandom, verifyFolder } from '../support/power-loss/sqlite-workload.ts'

const SEED = 20_251
const COMMITS = 140
const OPTIONS = { checkpointBytes: 512 * 1024, reserveBytes: 65_536 }
const CASES = Number(process.env.SLUICE_DAMAGE_CASES ?? 300)
const DATA_FILES = ['sluice.db', 'sluice.db-wal', 'sluice.wal', 'sluice.guard']

let root = ''
/** Folders to damage, each a way in which a process leaves one. */
const bases: Record<string, string> = {}

before(async () => {
  root = mkdtempSync(join(tmpdir(), 'sluice-damage-'))
  const live = join(root, 'live')
  const log = openSqliteLog(live, OPTIONS)
  const step = continueWorkload(log, SEED)
  for (let i = 0; i < COMMITS; i++) {
    step()
    // Checkpoints on the way, and at the end a dozen commits that are only in the WAL.
    if (i % 4 === 0 && i < COMMITS - 12) await new Promise((resolve) => setImmediate(resolve))
  }
  bases.killed = copyFolder(live, join(root, 'killed'))
  bases.unplanned = copyFolder(live, join(root, 'unplanned'))
  closeBySqlite(bases.unplanned)
  log.close()
  bases.closed = live
})

after(() => rmSync(root, { recursive: true, force: true }))

test('a folder that a killed process, an unplanned end or a close left gives what was stored', () => {
  for (const [name, base] of Object.entries(bases)) {
    const folder = copyFolder(base, join(root, `whole-${name}`))
    assert.equal(verifyFolder(folder, SEED, OPTIONS), COMMITS, name)
    assert.equal(verifyFolder(folder, SEED, OPTIONS), COMMITS, `${name}, opened again`)
  }
})

test('flipped bytes, cut files and deleted files are an error, never data and never a shorter log', () => {
  const only = process.env.SLUICE_SEED
  const seeds = only === undefined ? Array.from({ length: CASES }, (_, i) => i + 1) : [Number(only)]
  const outcomes = new Map<string, number>()
  for (const seed of seeds) {
    const random = createRandom(seed)
    const name = Object.keys(bases)[seed % 3] as string
    const folder = copyFolder(bases[name] as string, join(root, `case-${seed}`))
    const damage = damageFolder(folder, random)
    const before = contentsOf(folder)
    let outcome = 'whole'
    try {
      assert.equal(verifyFolder(folder, SEED, OPTIONS), COMMITS, 'as many commits as were stored')
    } catch (error) {
      assert(isSluiceError(error, 'CORRUPT'), `SLUICE_SEED=${seed}: ${name}, ${damage}: ${(error as Error).stack}`)
      outcome = 'CORRUPT'
      // Found at open in all but a few cases; then nothing was changed.
      if (!(error as SluiceError).message.includes('offset')) {
        assert.deepEqual(contentsOf(folder), before, `SLUICE_SEED=${seed}: ${name}, ${damage}: files changed`)
      }
    }
    outcomes.set(`${damage.split(' ')[0]} ${outcome}`, (outcomes.get(`${damage.split(' ')[0]} ${outcome}`) ?? 0) + 1)
    rmSync(folder, { recursive: true })
  }
  if (only !== undefined) return
  for (const kind of ['flip', 'cut'])
    assert((outcomes.get(`${kind} CORRUPT`) ?? 0) > CASES / 20, JSON.stringify([...outcomes]))
})

test('each byte of the last commit counts: a flip anywhere in its frames is CORRUPT', () => {
  const wal = readFileSync(join(bases.killed as string, 'sluice.db-wal'))
  const frames = lastCommitFrames(wal)
  const random = createRandom(77)
  for (let i = 0; i < 40; i++) {
    const folder = copyFolder(bases.killed as string, join(root, `last-${i}`))
    const at = frames.from + Math.floor(random() * (frames.to - frames.from))
    flip(join(folder, 'sluice.db-wal'), at, 1 << (i % 8))
    assert.throws(() => verifyFolder(folder, SEED, OPTIONS), isCorrupt, `byte ${at} of the WAL`)
    rmSync(folder, { recursive: true })
  }
})

test('with an old mark, as a power cut leaves it, damage before the last commit is CORRUPT, and a torn last commit is not', () => {
  const wal = readFileSync(join(bases.killed as string, 'sluice.db-wal'))
  const last = lastCommitFrames(wal)
  for (const [at, isDamage] of [
    [32 + 24 + 100, true],
    [32 + 4_120 * 5 + 8, true],
    [last.from + 30, false],
  ] as const) {
    const folder = copyFolder(bases.killed as string, join(root, `old-mark-${at}`))
    const guard = new PageGuard(join(folder, 'sluice.guard'))
    guard.setOwner(true, 'an earlier boot')
    guard.writeMark(1)
    guard.close()
    flip(join(folder, 'sluice.db-wal'), at, 4)
    if (isDamage) assert.throws(() => verifyFolder(folder, SEED, OPTIONS), isCorrupt, `byte ${at}`)
    else assert.equal(verifyFolder(folder, SEED, OPTIONS), COMMITS - 1)
  }
})

test('without syncs, a power cut may take the end of the WAL, and commits go on from what is left', () => {
  const folder = copyFolder(bases.killed as string, join(root, 'no-sync'))
  const guard = new PageGuard(join(folder, 'sluice.guard'))
  const mark = guard.readMark()
  guard.setOwner(false, 'an earlier boot')
  guard.writeMark(mark?.commit ?? 0)
  guard.close()
  flip(join(folder, 'sluice.db-wal'), 32 + 24 + 99, 1)
  // Owners that did nothing change nothing of this.
  for (const durability of ['os', 'disk'] as const) openSqliteLog(folder, { ...OPTIONS, durability }).close()
  const kept = verifyFolder(folder, SEED, OPTIONS, (log) => {
    assert.equal(log.health().status, 'degraded')
    const step = continueWorkload(log, SEED)
    for (let i = 0; i < 2; i++) step()
    // As killed: what is left of the commits that were lost must prove nothing against those that took their place.
    copyFolder(folder, join(root, 'no-sync-killed'))
    log.close()
  })
  assert(kept > 10 && kept < COMMITS - 8, `${kept} commits were kept`)
  assert.equal(verifyFolder(join(root, 'no-sync-killed'), SEED, OPTIONS), kept + 2)
  assert.equal(verifyFolder(folder, SEED, OPTIONS), kept + 2)
})

test('a WAL that is damaged while the log runs is not copied into the database', () => {
  const folder = copyFolder(bases.closed as string, join(root, 'running'))
  const log = openSqliteLog(folder, OPTIONS)
  const step = continueWorkload(log, SEED)
  for (let i = 0; i < 5; i++) step()
  flip(join(folder, 'sluice.db-wal'), 32 + 24 + 17, 1)
  const ownership = log.own()
  const { signal } = ownership
  const before = readFileSync(join(folder, 'sluice.db'))
  assert.throws(() => {
    for (let i = 0; i < 500; i++) log.commit(ownership, { outputs: [], changes: new Map() })
  }, isCorrupt)
  assert(isSluiceError(signal.reason, 'CORRUPT'))
  assert.equal(log.health().status, 'failed')
  assert.deepEqual(readFileSync(join(folder, 'sluice.db')), before)
  log.close()
  assert.throws(() => openSqliteLog(folder, OPTIONS), isCorrupt)
})

test('a database page that is damaged beyond what is verified at open is found as checkpoints go by', () => {
  const folder = copyFolder(bases.closed as string, join(root, 'late'))
  const pages = statSync(join(folder, 'sluice.db')).size / 4_096
  flip(join(folder, 'sluice.db'), (pages - 1) * 4_096 + 2_000, 1)
  assert.throws(() => openSqliteLog(folder, OPTIONS), isCorrupt)
  const log = openSqliteLog(folder, { ...OPTIONS, verifyBytes: 4_096 * 4 })
  const ownership = log.own()
  const { signal } = ownership
  assert.throws(() => {
    for (let i = 0; i < 500; i++) log.commit(ownership, { outputs: [], changes: new Map() })
  }, isCorrupt)
  assert(isSluiceError(signal.reason, 'CORRUPT'))
  log.close()
})

test('a file that is not a database, and an empty one, are CORRUPT', () => {
  for (const content of ['', 'not a database', 'x'.repeat(20_000)]) {
    const folder = copyFolder(bases.closed as string, join(root, `other-${content.length}`))
    writeFileSync(join(folder, 'sluice.db'), content)
    assert.throws(() => openSqliteLog(folder, OPTIONS), isCorrupt)
    const alone = join(root, `alone-${content.length}`)
    mkdirSync(alone)
    writeFileSync(join(alone, 'sluice.db'), content)
    assert.throws(() => openSqliteLog(alone, OPTIONS), isCorrupt)
  }
})

function isCorrupt(error: unknown): boolean {
  return isSluiceError(error, 'CORRUPT')
}

/** Damages one file, sometimes two; returns what it did. The first word is the kind. */
function damageFolder(folder: string, random: () => number): string {
  const below = (limit: number) => Math.floor(random() * limit)
  const done: string[] = []
  for (let i = random() < 0.15 ? 2 : 1; i > 0; i--) {
    const files = DATA_FILES.filter((name) => existsSync(join(folder, name)))
    const name = files[below(files.length)] as string
    const path = join(folder, name)
    const size = statSync(path).size
    const kind = random()
    if (kind < 0.6 && size > 0) {
      const at = below(size)
      const bits = 1 + below(255)
      flip(path, at, bits)
      done.push(`flip of ${bits} at ${at} of ${name}`)
    } else if (kind < 0.7 && size >= 512) {
      const at = below(Math.floor(size / 512)) * 512
      const bytes = readFileSync(path)
      bytes.fill(0, at, at + 512)
      writeFileSync(path, bytes)
      done.push(`zeros at ${at} of ${name}`)
    } else if (kind < 0.75 && size >= 8_192) {
      const [a, b] = [below(Math.floor(size / 4_096)) * 4_096, below(Math.floor(size / 4_096)) * 4_096]
      const bytes = readFileSync(path)
      const page = Buffer.from(bytes.subarray(a, a + 4_096))
      bytes.copy(bytes, a, b, b + 4_096)
      page.copy(bytes, b)
      writeFileSync(path, bytes)
      done.push(`swap of the pages at ${a} and ${b} of ${name}`)
    } else if (kind < 0.9) {
      const length = below(size)
      truncateSync(path, length)
      done.push(`cut of ${name} from ${size} to ${length}`)
    } else {
      rmSync(path)
      done.push(`deletion of ${name}`)
    }
  }
  return done.join(', ')
}

function flip(path: string, at: number, bits: number): void {
  const bytes = readFileSync(path)
  bytes.writeUInt8(bytes.readUInt8(at) ^ bits, at)
  writeFileSync(path, bytes)
}

/** Where the frames of the newest commit lie: the last that carry the salt of the header. */
function lastCommitFrames(wal: Buffer): { from: number; to: number } {
  let from = 32
  let to = 32
  for (let at = 32; at + 4_120 <= wal.byteLength && wal.compare(wal, 16, 24, at + 8, at + 16) === 0; at += 4_120) {
    const isFirst = at === 32 || wal.readUInt32BE(at - 4_120 + 4) !== 0
    if (isFirst) from = at
    to = at + 4_120
  }
  return { from, to }
}

function copyFolder(from: string, to: string): string {
  mkdirSync(to)
  const inodes = new Map<number, string>()
  for (const name of readdirSync(from)) {
    const { ino } = statSync(join(from, name))
    const same = inodes.get(ino)
    if (same === undefined) copyFileSync(join(from, name), join(to, name))
    else linkSync(join(to, same), join(to, name))
    inodes.set(ino, name)
  }
  return to
}

/** What a process does that ends without closing the log: SQLite copies the WAL and deletes it. */
function closeBySqlite(folder: string): void {
  const database = new DatabaseSync(join(folder, 'sluice.db'))
  database.exec('PRAGMA locking_mode=EXCLUSIVE')
  database.prepare('SELECT count(*) FROM batch').get()
  database.close()
  assert(!existsSync(join(folder, 'sluice.db-wal')))
}

function contentsOf(folder: string): Record<string, string> {
  const contents: Record<string, string> = {}
  for (const name of DATA_FILES) {
    if (existsSync(join(folder, name))) contents[name] = readFileSync(join(folder, name), 'latin1')
  }
  return contents
}
