/**
 * P2 on the SQLite log: whatever moment a process is killed at, nothing that it acknowledged is lost.
 * SLUICE_KILL_ROUNDS=200 runs more rounds, SLUICE_SEED=… begins with another seed.
 */
import { strict as assert } from 'node:assert'
import { spawn } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { openSqliteLog } from '../../src/logs/sqlite.ts'
import { continueWorkload, createRandom, verifyFolder } from '../support/power-loss/sqlite-workload.ts'

const ROUNDS = Number(process.env.SLUICE_KILL_ROUNDS ?? 20)
const SEED = Number(process.env.SLUICE_SEED ?? 4_711)
const OPTIONS = { checkpointBytes: 512 * 1024, reserveBytes: 65_536 }
const CHILD = join(import.meta.dirname, '../support/power-loss/sqlite-child.ts')

let root = ''
before(() => {
  root = mkdtempSync(join(tmpdir(), 'sluice-kill-'))
})
after(() => rmSync(root, { recursive: true, force: true }))

test(`nothing acknowledged is lost in ${ROUNDS} rounds of SIGKILL under load`, async (context) => {
  context.diagnostic(`SLUICE_SEED=${SEED}`)
  const random = createRandom(SEED)
  const folder = join(root, 'killed')
  let kept = 0
  for (let round = 1; round <= ROUNDS; round++) {
    const acknowledged = await runAndKill(folder, 1 + Math.floor(random() * 120), random() * 3)
    // Half of the time a copy is verified, so that the next owner meets what the kill left.
    const isCopy = random() < 0.5
    const verified = isCopy ? join(root, `copy-${round}`) : folder
    if (isCopy) cpSync(folder, verified, { recursive: true })
    const found = verifyFolder(verified, SEED, OPTIONS)
    assert(
      found >= kept && found >= acknowledged + 1,
      `SLUICE_SEED=${SEED}, round ${round}: ${found} commits, but ${acknowledged} was acknowledged`,
    )
    assert(found <= Math.max(kept, acknowledged + 2), `round ${round}: ${found} commits, one more than was begun`)
    kept = found
    if (isCopy) rmSync(verified, { recursive: true })
  }
  context.diagnostic(`${kept} commits`)
})

test('a thread that is ended without close leaves what it acknowledged', async () => {
  const folder = join(root, 'thread')
  for (let round = 1; round <= 3; round++) {
    const worker = new Worker(
      `const [folder, seed, options] = require('node:worker_threads').workerData
      Promise.all([import(${JSON.stringify(moduleUrl('../../src/logs/sqlite.ts'))}), import(${JSON.stringify(moduleUrl('../support/power-loss/sqlite-workload.ts'))})])
        .then(([{ openSqliteLog }, { continueWorkload }]) => {
          const step = continueWorkload(globalThis.log = openSqliteLog(folder, options), seed)
          for (let i = 0; i < 60; i++) step()
          require('node:worker_threads').parentPort.postMessage('done')
          setInterval(() => {}, 60_000)
        })`,
      { eval: true, workerData: [folder, SEED, OPTIONS] },
    )
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
    await worker.terminate()
    assert(!existsSync(join(folder, 'sluice.db-wal')), 'SQLite took the WAL with it, which is what this test is about')
    const copy = join(root, `thread-${round}`)
    cpSync(folder, copy, { recursive: true })
    assert.equal(verifyFolder(copy, SEED, OPTIONS), round * 60)
  }
  const log = openSqliteLog(folder, OPTIONS)
  assert.equal(continueWorkload(log, SEED)(), 180)
  log.close()
})

function moduleUrl(path: string): string {
  return new URL(path, import.meta.url).href
}

/** Runs the child until it acknowledged so many commits, and up to `spinMs` longer. Returns the last one it told of. */
async function runAndKill(folder: string, acks: number, spinMs: number): Promise<number> {
  const child = spawn(process.execPath, [CHILD, folder, String(SEED), '1000000', JSON.stringify(OPTIONS)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let last = -1
  let count = 0
  for await (const line of createInterface(child.stdout)) {
    const match = /^ack (\d+)$/.exec(line)
    assert(match !== null, line)
    last = Number(match[1])
    if (++count !== acks) continue
    // Not always at the end of a commit: the child goes on while this thread burns a part of a millisecond.
    for (const end = performance.now() + spinMs; performance.now() < end; );
    child.kill('SIGKILL')
  }
  assert(count >= acks, 'the child came to where it should be killed')
  return last
}
