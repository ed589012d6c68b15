/**
 * P1 and P2 on the SQLite log: after a power cut at any moment of a real run, everything that was acknowledged is there,
 * whole and in order; what was not is there whole or not at all; and nothing of it is taken for damage.
 *
 * A run is recorded with strace, and the states that a power cut may leave are computed from it (see
 * test/support/power-loss). POWER_LOSS_STATES=200 looks at more states, SLUICE_SEED=… at others.
 */
import { strict as assert } from 'node:assert'
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { isSluiceError } from '../../src/errors.ts'
import { PageGuard } from '../../src/logs/sqlite/page-guard.ts'
import {
  CRASH_KINDS,
  type CrashState,
  crashState,
  crashStates,
  materialize,
  syncsBetween,
} from '../support/power-loss/disk-model.ts'
import { findStrace, type Recording, record } from '../support/power-loss/recorder.ts'
import { createRandom, verifyFolder } from '../support/power-loss/sqlite-workload.ts'

const STATES = Number(process.env.POWER_LOSS_STATES ?? 140)
const SEED = Number(process.env.SLUICE_SEED ?? 1_001)
const OPTIONS = { checkpointBytes: 256 * 1024, reserveBytes: 65_536 }
const CHILD = join(import.meta.dirname, '../support/power-loss/sqlite-child.ts')
const COMMITS = 70

const missing = findStrace()
if (missing !== null) console.error(`# ${missing}`)
const skip = missing ?? false

let root = ''
/** A run that makes its folder, commits, and closes in good order. */
let recording: Recording

before(async () => {
  root = mkdtempSync(join(tmpdir(), 'sluice-power-'))
  if (missing === null) recording = await recordChild(join(root, 'whole'), COMMITS, {})
})
after(() => rmSync(root, { recursive: true, force: true }))

test(`after a power cut everything acknowledged is there, in ${STATES} states`, { skip }, (context) => {
  context.diagnostic(`SLUICE_SEED=${SEED}, ${recording.ops.length} calls, ${STATES} states opened`)
  assert.equal(recording.exitCode, 0)
  assert.equal(recording.acks.length, COMMITS)
  for (const state of crashStates(recording, STATES, createRandom(SEED))) {
    assert.equal(findViolation(recording, state), null, `SLUICE_SEED=${SEED}: ${state.text}`)
  }
})

test('after a power cut while the folder is made or given up, it can be used', { skip }, async (context) => {
  context.diagnostic(`SLUICE_SEED=${SEED}, ${4 * STATES} states opened`)
  const short = await recordChild(join(root, 'short'), 1, {})
  for (const state of crashStates(short, 4 * STATES, createRandom(SEED + 4))) {
    assert.equal(findViolation(short, state), null, `SLUICE_SEED=${SEED}: ${state.text}`)
  }
})

test('after a power cut in the middle of a recovery everything acknowledged is there', { skip }, async (context) => {
  context.diagnostic(`SLUICE_SEED=${SEED}`)
  const random = createRandom(SEED + 1)
  const rounds = Math.max(2, Math.floor(STATES / 20))
  context.diagnostic(`${rounds * Math.ceil(STATES / rounds)} states opened`)
  for (let round = 0; round < rounds; round++) {
    const first = [...crashStates(recording, CRASH_KINDS.length, random)].at(-1 - (round % 4)) as CrashState
    const watch = join(root, `recovery-${round}`)
    materialize(first, recording.watch, watch)
    const second = await recordChild(watch, 12, {}, `after ${first.text}`)
    // The states of the second run, with what was acknowledged in both.
    for (const state of crashStates(second, Math.ceil(STATES / rounds), random)) {
      const both = { ...state, acks: [...first.acks, ...state.acks] }
      assert.equal(
        findViolation(second, both, 2),
        null,
        `SLUICE_SEED=${SEED}, round ${round}: ${first.text}; then ${state.text}`,
      )
    }
  }
})

test('each acknowledgement has one sync before it, which began after the last write of its commit', { skip }, () => {
  const walWrites = recording.ops.filter((op) => op.kind === 'write' && op.inode === inodeOf('sluice.db-wal'))
  let more = 0
  for (const [i, ack] of recording.acks.entries()) {
    const previous = recording.acks[i - 1]?.start ?? 0
    const written = walWrites.filter((op) => op.start > previous && op.end < ack.start)
    const last = Math.max(...written.map((op) => op.end))
    const after = syncsBetween(recording, last, ack.start)
    assert.deepEqual(
      after.map((op) => op.inode),
      [inodeOf('sluice.db-wal')],
      `${ack.line}: a sync between its last write and itself`,
    )
    const all = syncsBetween(recording, previous, ack.start)
    if (i > 0 && all.length !== 1) more++
  }
  // The others are those where the WAL began again: three syncs of the checkpoint, one of its new beginning.
  const databaseSyncs = recording.ops.filter(
    (op) => op.kind === 'sync' && op.inode === inodeOf('sluice.db') && op.start < (recording.acks.at(-1)?.start ?? 0),
  )
  assert(
    more > 0 && more <= databaseSyncs.length,
    `${more} acknowledgements had more than one sync, with ${databaseSyncs.length} checkpoints`,
  )
})

test('a build that acknowledges before the sync is caught', { skip }, async () => {
  for (const plant of [{ ackFirst: true }, { durability: 'os' }]) {
    const planted = await recordChild(join(root, `planted-${Object.keys(plant)[0]}`), 30, plant)
    const caught: string[] = []
    for (const state of crashStates(planted, 60, createRandom(SEED + 2))) {
      const violation = findViolation(planted, state)
      if (violation !== null) caught.push(violation)
    }
    assert(
      caught.some((text) => /acknowledged/.test(text)),
      `${JSON.stringify(plant)}: ${caught.length} of 60 caught`,
    )
  }
})

test('durability os loses the end in a power cut, opens, and says so', { skip }, async () => {
  const unsynced = await recordChild(join(root, 'os'), 40, { durability: 'os' })
  const random = createRandom(SEED + 3)
  let lost = 0
  for (const state of crashStates(unsynced, 2 * STATES, random)) {
    const folder = place(unsynced, state)
    if (!isThere(join(folder, 'sluice.guard')) || !isThere(join(folder, 'sluice.db'))) continue
    // The states are of this boot of the machine; a power cut makes another one.
    const guard = new PageGuard(join(folder, 'sluice.guard'))
    const mark = guard.readMark()
    if (mark !== null && !mark.isSynced) {
      guard.setOwner(false, 'the boot before')
      guard.writeMark(mark.commit)
    }
    guard.close()
    const found = verifyFolder(folder, SEED, { ...OPTIONS, durability: 'os' })
    if (found < state.acks.length) lost++
  }
  assert(lost > 0, 'some state has lost what was acknowledged, as durability os allows')
})

test('a failed sync ends the log, and nothing acknowledged before is lost', { skip }, async () => {
  for (const [call, error, when] of [
    ['fsync', 'EIO', 60],
    ['pwrite64', 'EIO', 400],
    ['fdatasync', 'EIO', 2],
  ] as const) {
    // The process lives on, so that what it does after the failure counts, too: it closes the log.
    const failed = await recordChild(join(root, `failed-${call}`), COMMITS, {}, undefined, [
      `--inject=${call}:error=${error}:when=${when}+`,
    ])
    assert.notEqual(failed.exitCode, 0, `${call} failed`)
    assert(
      failed.acks.length < COMMITS && failed.acks.length > 3,
      `${failed.acks.length} acknowledged before ${call} failed`,
    )
    const state = crashState(failed, failed.end, 'all', Math.random)
    assert.equal(findViolation(failed, state), null, call)
  }
})

/** Runs the child on `watch`/data, and records it. */
async function recordChild(
  watch: string,
  commits: number,
  more: object,
  text = '',
  straceArgs: string[] = [],
): Promise<Recording> {
  mkdirSync(watch, { recursive: true })
  const json = JSON.stringify({ ...OPTIONS, ...more })
  const recorded = await record({
    command: [process.execPath, CHILD, join(watch, 'data'), String(SEED), String(commits), json],
    watch,
    isAck: (line) => line.startsWith('ack '),
    straceArgs,
  })
  if (straceArgs.length === 0) assert.equal(recorded.exitCode, 0, `the child ends well ${text}`)
  return recorded
}

/** What is wrong with a state, or null. Each run may have begun one commit more than it acknowledged. */
function findViolation(recorded: Recording, state: CrashState, runs = 1): string | null {
  const folder = place(recorded, state)
  const acknowledged = Math.max(0, ...state.acks.map((line) => Number(line.slice(4)) + 1))
  try {
    const found = verifyFolder(folder, SEED, OPTIONS)
    if (found < acknowledged) return `${found} commits are there, ${acknowledged} were acknowledged`
    return found > acknowledged + runs ? `${found} commits are there, but only ${acknowledged + runs} were begun` : null
  } catch (error) {
    if (isSluiceError(error)) return `${error.code}, with ${acknowledged} acknowledged: ${error.message}`
    return (error as Error).stack ?? String(error)
  }
}

function place(recorded: Recording, state: CrashState): string {
  materialize(state, recorded.watch, join(root, 'state'))
  return join(root, 'state', 'data')
}

function isThere(path: string): boolean {
  try {
    return readFileSync(path).byteLength > 0
  } catch {
    return false
  }
}

/** The file that has this name in the recording of the whole run. */
function inodeOf(name: string): number {
  for (const op of recording.ops) {
    if (op.kind !== 'names') continue
    for (const { path, inode } of op.changes) if (path.endsWith(`/${name}`) && inode !== null) return inode
  }
  throw new Error(`${name} was not made`)
}
