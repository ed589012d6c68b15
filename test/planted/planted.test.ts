/** The checkers are worth something: each of these bugs is noticed, by a checker that is there for it. */
import { equal, ok } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { PLANTED, type PlantedBug } from './bugs.ts'
import type { Hunted, PlantTask } from './plant.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '')
/** Lives that a bug may go unnoticed. */
const SEEDS = 150
const FIRST_SEED = Number(process.env['SLUICE_FIRST_SEED'] ?? 1)

describe('a planted bug is noticed', { concurrency: 2 }, () => {
  for (const bug of PLANTED) {
    test(bug.title, async (t) => {
      const { caught, others } = await hunt(bug)
      ok(caught !== null, `none of ${SEEDS} lives shows it to ${bug.caughtBy}, but to ${others.join() || 'nobody'}`)
      t.diagnostic(`seed ${caught.seed}: ${caught.check}: ${caught.message}`)
    })
  }

  test('there are at least 25, and no two are the same', () => {
    ok(PLANTED.length >= 25)
    equal(new Set(PLANTED.map(({ title }) => title)).size, PLANTED.length)
  })
})

function hunt(bug: PlantedBug): Promise<Hunted> {
  return new Promise((resolve, reject) => {
    const task: PlantTask = { bug, root: ROOT, firstSeed: FIRST_SEED, seeds: SEEDS }
    const thread = new Worker(new URL('./plant.ts', import.meta.url), { workerData: task })
    thread.on('message', (hunted: Hunted) => {
      resolve(hunted)
      void thread.terminate()
    })
    thread.on('error', reject)
    thread.on('exit', () => reject(new Error('the thread ended without a word')))
  })
}
