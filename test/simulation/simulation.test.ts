/**
 * 500 simulated lives here, more with `npm run prove -- simulation`. `SLUICE_SEED=7` runs one; `SLUICE_SEEDS` says how
 * many, from `SLUICE_FIRST_SEED` on.
 */
import { deepEqual, equal, ok } from 'node:assert/strict'
import { availableParallelism } from 'node:os'
import { describe, test } from 'node:test'
import { CRASHES, OPERATIONS, replayCommand, runBatch, shrink } from './batch.ts'
import { runSeed } from './run.ts'
import { WANTED } from './situations.ts'

const ONLY = process.env['SLUICE_SEED']
const SEEDS = ONLY === undefined ? Number(process.env['SLUICE_SEEDS'] ?? 500) : 1
const FIRST_SEED = Number(ONLY ?? process.env['SLUICE_FIRST_SEED'] ?? 1)
/** Below this many seeds not every situation need be met. */
const ENOUGH_SEEDS = 300

describe('a simulated life', () => {
  test(`of ${SEEDS} seeds keeps every promise, and all is worked off once nothing goes wrong any more`, async (t) => {
    t.diagnostic(`seeds ${FIRST_SEED} to ${FIRST_SEED + SEEDS - 1}`)
    const threads = Math.min(2, availableParallelism())
    const batch = await runBatch({ firstSeed: FIRST_SEED, seeds: SEEDS, threads })
    t.diagnostic(`${batch.operations} operations, ${batch.crashes} crashes`)
    const [failure] = batch.failures
    if (failure !== undefined) {
      const { options, result } = await shrink(failure.seed, failure.check)
      const witness = (result.failure?.witness ?? []).map((event) => JSON.stringify(event)).join('\n')
      const summary = `${batch.failures.length} of ${SEEDS} seeds failed; seed ${failure.seed} breaks ${failure.check}`
      const shrunk = `${result.failure?.message ?? failure.message}\n${witness}`
      throw new Error(`${summary}: ${failure.message}\nReplay it: ${replayCommand(options)}\nwhich says: ${shrunk}`)
    }
    equal(batch.seeds, SEEDS)
    ok(batch.crashes >= SEEDS * CRASHES, 'each seed has its crashes')
    ok(batch.operations >= SEEDS * OPERATIONS, 'each seed has its operations')
    if (SEEDS < ENOUGH_SEEDS) return
    deepEqual(
      WANTED.filter((what) => !batch.situations.has(what)),
      [],
      'every situation is met',
    )
    deepEqual(
      [...batch.exercised].filter(([, times]) => times === 0).map(([checker]) => checker),
      [],
      'every checker has something to judge',
    )
  })

  test('is the same for the same seed, to the last event', async () => {
    const options = { seed: FIRST_SEED, operations: OPERATIONS, crashes: CRASHES }
    const [one, other] = [await runSeed(options), await runSeed(options)]
    equal(one.hash, other.hash)
    ok((await runSeed({ ...options, seed: FIRST_SEED + 1 })).hash !== one.hash, 'another seed has another life')
  })
})
