/** Processes that share a journal and die, hang and lose letters: 5 seconds here, `npm run prove -- journal` for more. */
import { deepEqual, ok } from 'node:assert/strict'
import { test } from 'node:test'
import { formatJudgements } from '../../src/conformance/judge.ts'
import { runJournal } from './journal-run.ts'

const SEED = Number(process.env['SLUICE_SEED'] ?? Date.now() % 1_000_000)
const SECONDS = Number(process.env['SLUICE_JOURNAL_SECONDS'] ?? 5)

test(`nothing is lost, doubled or reordered while owners of a journal die, hang and lose letters, for ${SECONDS} s`, async (t) => {
  t.diagnostic(`SLUICE_SEED=${SEED}`)
  const { judgements, operations, faults, stored } = await runJournal({ seed: SEED, seconds: SECONDS })
  t.diagnostic(`${operations} operations, ${faults} faults, ${stored} acknowledged`)
  deepEqual(
    judgements.filter(({ verdict }) => verdict.status === 'violated').map(({ checker }) => checker),
    [],
    `SLUICE_SEED=${SEED}\n${formatJudgements(judgements)}`,
  )
  ok(stored > 0 && faults > 0)
})
