/**
 * The whole engine, killed under load: 20 lives of one folder here, more with `CRASH_ROUNDS=200`. `CRASH_SEED` replays.
 */
import { deepEqual, ok } from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { createRandom } from '../src/host/host.ts'
import { CrashRecord } from './support/crash/record.ts'

const CHILD = fileURLToPath(new URL('./support/crash/child.ts', import.meta.url))
const ROUNDS = Number(process.env['CRASH_ROUNDS'] ?? 20)
const SEED = Number(process.env['CRASH_SEED'] ?? Date.now() % 1_000_000)
const KEYS = 40

/** Runs a child until it has printed `killAfter` lines, or to its end. Says whether it came to its end. */
function live(folder: string, seed: number, jobs: number, record: CrashRecord, killAfter: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const child = spawn(
      process.execPath,
      [CHILD, folder, `${seed}`, `${jobs}`, `${KEYS}`, JSON.stringify(record.next())],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
        env: { ...process.env, NODE_TEST_CONTEXT: undefined },
      },
    )
    let lines = 0
    let isDone = false
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (line === 'done') isDone = true
      record.feed(line)
      if (++lines === killAfter) child.kill('SIGKILL')
    })
    child.on('error', reject)
    child.on('close', (code, signal) => {
      if (code !== 0 && signal !== 'SIGKILL') reject(new Error(`the child ended with ${code ?? signal}`))
      else resolve(isDone)
    })
  })
}

test(`nothing acknowledged is lost, reordered or changed over ${ROUNDS} kills under load`, async (t) => {
  t.diagnostic(`CRASH_SEED=${SEED}`)
  const random = createRandom(SEED)
  const folder = mkdtempSync(join(tmpdir(), 'sluice-crash-'))
  const record = new CrashRecord()
  try {
    for (let round = 0; round < ROUNDS; round++) {
      await live(folder, SEED + round, 100_000, record, 1 + Math.floor(random() * 900))
      if (round % 5 === 4) await record.checkStored(folder)
      deepEqual(record.violations, [], `CRASH_SEED=${SEED}`)
    }
    ok(await live(folder, SEED + ROUNDS, 0, record, -1), 'the last life ends')
    await record.checkDone(folder)
    deepEqual(record.violations, [], `CRASH_SEED=${SEED}`)
    t.diagnostic(`${record.lives} lives, ${record.acknowledged} acknowledged, ${record.repeats} handled again`)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})
