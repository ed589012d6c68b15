/**
 * The SQLite log against its specification: the same lives on both, and every question must have the same answer at the
 * same instant. `SLUICE_DIFFERENTIAL_SEEDS` says how many.
 *
 * When a log really deletes what it was allowed to is its own affair, and a crash may undo it; so lives that trim have no
 * crashes here, and lives that crash trim nothing.
 */
import { equal } from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { HistoryEvent } from '../../src/conformance/history.ts'
import { CRASHES, OPERATIONS } from './batch.ts'
import { runSeed } from './run.ts'
import { MemoryStore, SqliteStore } from './store.ts'
import type { Feature } from './swarm.ts'

const SEEDS = Number(process.env['SLUICE_DIFFERENTIAL_SEEDS'] ?? 10)
const FIRST_SEED = Number(process.env['SLUICE_FIRST_SEED'] ?? 1)

describe('the SQLite log does what the memory log does', () => {
  for (let seed = FIRST_SEED; seed < FIRST_SEED + SEEDS; seed++) {
    const trims = seed % 2 === 0
    test(`through ${trims ? 'the trims' : `${CRASHES} crashes`} of seed ${seed}`, async () => {
      const without: Feature[] = [trims ? 'crashes' : 'short-retention']
      const options = { seed, operations: OPERATIONS, crashes: CRASHES, without }
      const onMemory: HistoryEvent[] = []
      const expected = await runSeed({ ...options, store: new MemoryStore(), onEvent: (event) => onMemory.push(event) })
      let at = 0
      let difference: string | null = null
      const actual = await runSeed({
        ...options,
        store: new SqliteStore(),
        onEvent: (event) => {
          const wanted = JSON.stringify(onMemory[at++])
          const got = JSON.stringify(event)
          if (difference === null && wanted !== got) difference = `event ${at}: memory ${wanted}, SQLite ${got}`
        },
      })
      equal(difference, null, `SLUICE_FIRST_SEED=${seed} SLUICE_DIFFERENTIAL_SEEDS=1`)
      equal(actual.hash, expected.hash)
      equal(actual.failure, null)
    })
  }
})
