/**
 * Real brokers that are killed, stand still and lose connections, with owners that die: one life of 10 seconds on each here,
 * `npm run prove -- redis` (rabbitmq, kafka) for 20 of a minute.
 */
import { deepEqual, ok } from 'node:assert/strict'
import { test } from 'node:test'
import { BROKER_KINDS } from '../../scripts/brokers/engines.ts'
import { formatJudgements } from '../../src/conformance/judge.ts'
import { runBroker } from './broker-run.ts'

const SEED = Number(process.env['SLUICE_SEED'] ?? Date.now() % 1_000_000)
const SECONDS = Number(process.env['SLUICE_BROKER_SECONDS'] ?? 10)
const ONLY = process.env['SLUICE_BROKER']

for (const kind of BROKER_KINDS.filter(({ name }) => ONLY === undefined || name === ONLY)) {
  const version = await kind.find()
  if (version === null && process.env['CI'] === 'true') throw new Error(`${kind.name} is missing, and CI needs it`)
  const skip = version === null ? `${kind.name} is missing` : false
  test(`nothing acknowledged is lost, doubled or reordered on ${kind.name} that is killed and cut off, for ${SECONDS} s`, {
    skip,
  }, async (t) => {
    t.diagnostic(`SLUICE_SEED=${SEED}`)
    const [life] = await runBroker({ kind, lives: 1, seed: SEED, seconds: SECONDS })
    ok(life)
    t.diagnostic(`${life.operations} operations, ${life.faults} faults, ${life.stored} acknowledged`)
    deepEqual(
      life.judgements.filter(({ verdict }) => verdict.status === 'violated').map(({ checker }) => checker),
      [],
      `SLUICE_SEED=${SEED}\n${formatJudgements(life.judgements)}`,
    )
    ok(life.stored > 0 && life.faults > 0)
  })
}
