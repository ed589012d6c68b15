/**
 * P1 and P2 on the whole engine: after a power cut at any moment of a real run, each job that was acknowledged is there,
 * each that was told to be completed is so with its result, and each completed one has its event (P9).
 *
 * `POWER_LOSS_STATES=200` looks at more states, `POWER_LOSS_SEED=…` at others.
 */
import { equal, ok } from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { createRandom } from '../src/host/host.ts'
import { CrashRecord } from './support/crash/record.ts'
import { type CrashState, crashStates, materialize } from './support/power-loss/disk-model.ts'
import { findStrace, type Recording, record } from './support/power-loss/recorder.ts'

const STATES = Number(process.env.POWER_LOSS_STATES ?? 60)
const SEED = Number(process.env.POWER_LOSS_SEED ?? 2_002)
const CHILD = join(import.meta.dirname, 'support/crash/child.ts')
const JOBS = 150

const missing = findStrace()
if (missing !== null) console.error(`# ${missing}`)
const skip = missing ?? false

let root = ''

before(() => {
  root = mkdtempSync(join(tmpdir(), 'sluice-power-loss-'))
})
after(() => rmSync(root, { recursive: true, force: true }))

function recordRun(name: string, durability: string): Promise<Recording> {
  const watch = join(root, name)
  mkdirSync(watch, { recursive: true })
  return record({
    command: [process.execPath, CHILD, join(watch, 'data'), `${SEED}`, `${JOBS}`, '20', '{}', durability],
    watch,
    isAck: () => true,
  })
}

async function findViolations(recording: Recording, state: CrashState): Promise<readonly string[]> {
  materialize(state, recording.watch, join(root, 'state'))
  const seen = new CrashRecord()
  for (const line of state.acks) seen.feed(line)
  try {
    await seen.checkStored(join(root, 'state', 'data'))
  } catch (error) {
    return [...seen.violations, String(error)]
  }
  return seen.violations
}

test(`after a power cut nothing acknowledged is lost or changed, in ${STATES} states`, { skip }, async (t) => {
  t.diagnostic(`POWER_LOSS_SEED=${SEED}, ${STATES} states opened`)
  const recording = await recordRun('run', 'disk')
  equal(recording.exitCode, 0)
  for (const state of crashStates(recording, STATES, createRandom(SEED))) {
    equal((await findViolations(recording, state)).join('\n'), '', `POWER_LOSS_SEED=${SEED}: ${state.text}`)
  }
})

test('a build that acknowledges before the sync is caught', { skip }, async () => {
  const planted = await recordRun('planted', 'os')
  let caught = 0
  for (const state of crashStates(planted, 40, createRandom(SEED))) {
    if ((await findViolations(planted, state)).some((text) => text.startsWith('P2') || text.startsWith('P10'))) caught++
  }
  ok(caught > 0, `${caught} of 40 states`)
})
