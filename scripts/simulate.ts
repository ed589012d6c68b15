/**
 * One simulated life, or the same life again: what a failing seed prints as its replay.
 *
 *     node scripts/simulate.ts --seed 7 [--operations N] [--crashes N] [--without a,b] [--events]
 */
import { parseArgs } from 'node:util'
import { formatJudgements } from '../src/conformance/judge.ts'
import { CRASHES, OPERATIONS } from '../test/simulation/batch.ts'
import { runSeed } from '../test/simulation/run.ts'
import { FEATURES, type Feature } from '../test/simulation/swarm.ts'

const HELP = `node scripts/simulate.ts --seed N [options]

  --operations N   operations before everything heals (default ${OPERATIONS})
  --crashes N      crashes of the process (default ${CRASHES})
  --without a,b    leave out some of what may happen: ${FEATURES.join(', ')}
  --events         print the whole history, a line of JSON for each event
`

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    operations: { type: 'string', default: `${OPERATIONS}` },
    crashes: { type: 'string', default: `${CRASHES}` },
    without: { type: 'string', default: '' },
    events: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
})

const without = values.without === '' ? [] : values.without.split(',')
const unknown = without.filter((one) => !FEATURES.includes(one as Feature))
if (unknown.length > 0) console.error(`There is nothing called ${unknown.join(', ')} to leave out.\n`)
if (values.help || values.seed === undefined || unknown.length > 0) {
  console.log(HELP)
  process.exitCode = values.help ? 0 : 2
} else {
  const result = await runSeed({
    seed: Number(values.seed),
    operations: Number(values.operations),
    crashes: Number(values.crashes),
    without: without as Feature[],
    ...(values.events ? { onEvent: (event: object) => console.log(JSON.stringify(event)) } : {}),
  })
  console.log(formatJudgements(result.judgements))
  console.log(
    [...result.situations]
      .toSorted()
      .map(([what, count]) => `${what} ${count}`)
      .join(', '),
  )
  if (result.failure !== null) console.log(`${result.failure.check}: ${result.failure.message}`)
  console.log(`seed ${result.seed}: ${result.operations} operations, ${result.crashes} crashes, trace ${result.hash}`)
  process.exitCode = result.failure === null ? 0 : 1
}
