/** A bad network between clients and a server: 5 seconds here, `npm run prove -- network` for 50 runs of a minute. */
import { deepEqual, ok } from 'node:assert/strict'
import { test } from 'node:test'
import { formatJudgements } from '../../src/conformance/judge.ts'
import { runNetwork } from './network-run.ts'

const SEED = Number(process.env['SLUICE_SEED'] ?? Date.now() % 1_000_000)
const SECONDS = Number(process.env['SLUICE_NETWORK_SECONDS'] ?? 5)

test(`nothing is lost, doubled or reordered over a network that delays, cuts and swallows, for ${SECONDS} s`, async (t) => {
  t.diagnostic(`SLUICE_SEED=${SEED}`)
  const { judgements, operations, faults, stored } = await runNetwork({ seed: SEED, seconds: SECONDS })
  t.diagnostic(`${operations} operations, ${faults} faults, ${stored} acknowledged`)
  deepEqual(
    judgements.filter(({ verdict }) => verdict.status === 'violated').map(({ checker }) => checker),
    [],
    `SLUICE_SEED=${SEED}\n${formatJudgements(judgements)}`,
  )
  ok(stored > 0 && faults > 0)
  for (const name of [
    'no-acknowledged-loss',
    'bounded-duplicates',
    'key-order',
    'fencing',
    'conservation',
    'job-phase',
  ])
    ok(
      judgements.some(({ checker, verdict }) => checker === name && verdict.status === 'held'),
      `${name} was put to the test`,
    )
})
