/**
 * Proofs that take long, and the ledger in which each is written down.
 *
 *     npm run prove -- NAME [--runs N] [--seed N] [--seconds N] [--threads N] [--no-record]
 *
 * Progress goes to standard error. Ctrl-C ends it after what is under way, and writes down what was done. A violation
 * ends it with status 1, and is written down like everything else.
 */

import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { describeCommit, record } from './prove/ledger.ts'
import { type PartOutcome, PROOFS, type Proof } from './prove/proofs.ts'

const HELP = `npm run prove -- NAME [options]

${Object.entries(PROOFS)
  .map(([name, { about, runs, unit }]) => `  ${name.padEnd(18)}${about} (${runs.toLocaleString('en')} ${unit})`)
  .join('\n')}

  --runs N       how many, instead of the number above
  --seed N       the first seed (default: drawn, and printed)
  --seconds N    how long one run lasts, where it lasts for a time (default 60)
  --threads N    for simulations (default: all processors)
  --no-record    leave proofs/ledger.jsonl as it is
`

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    runs: { type: 'string' },
    seed: { type: 'string' },
    seconds: { type: 'string', default: '60' },
    threads: { type: 'string', default: `${availableParallelism()}` },
    'no-record': { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
})

const [name = ''] = positionals
const proof = PROOFS[name]
if (values.help || proof === undefined) {
  const isAsked = values.help || name === ''
  if (!isAsked) console.error(`There is no proof called '${name}'.\n`)
  console.log(HELP)
  process.exitCode = isAsked ? 0 : 2
} else {
  process.exitCode = await prove(name, proof)
}

async function prove(
  title: string,
  { engine, fault, unit, runs: usual, runsAPart, seedsARun, lasts, run }: Proof,
): Promise<number> {
  const wanted = numberOf('runs', values.runs) ?? usual
  const firstSeed = numberOf('seed', values.seed) ?? 1 + Math.floor(Math.random() * 1_000_000_000)
  const seconds = numberOf('seconds', values.seconds) as number
  const threads = numberOf('threads', values.threads) as number
  const length = lasts === true ? ` --seconds ${seconds}` : ''
  const command = `npm run prove -- ${title} --runs ${wanted} --seed ${firstSeed}${length}`
  const abort = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => abort.abort())
  const startedAt = performance.now()
  const commit = describeCommit()
  console.error(command)
  let seed = firstSeed
  const total = { runs: 0, operations: 0, violations: 0 }
  let report = ''
  while (total.runs < wanted && total.violations === 0 && !abort.signal.aborted) {
    const runs = Math.min(runsAPart, wanted - total.runs)
    const part: PartOutcome = await run({ firstSeed: seed, runs, threads, seconds, signal: abort.signal })
    total.runs += part.runs
    total.operations += part.operations
    total.violations += part.violations
    report += part.report
    seed += seedsARun === 1 ? part.runs : 1
    const tookS = (performance.now() - startedAt) / 1_000
    const leftS = (tookS / Math.max(total.runs, 1)) * (wanted - total.runs)
    console.error(
      `${total.runs} of ${wanted} ${unit}, ${total.violations} violations, ${tookS.toFixed(0)} s, ${leftS.toFixed(0)} s left`,
    )
  }
  const tookS = Math.round((performance.now() - startedAt) / 100) / 10
  if (total.runs > 0 && !values['no-record']) {
    const seeds = [firstSeed, Math.max(firstSeed, seed - 1)] as const
    record({ date: new Date().toISOString(), commit, engine, fault, ...total, unit, seeds, seconds: tookS, command })
  }
  if (report !== '') console.log(report)
  console.log(`${total.runs} ${unit}, ${total.operations} operations, ${total.violations} violations in ${tookS} s`)
  if (total.violations > 0) return 1
  return abort.signal.aborted ? 130 : 0
}

function numberOf(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const number = Number(text)
  if (Number.isSafeInteger(number) && number > 0) return number
  console.error(`--${option} takes a whole number from 1, not '${text}'`)
  process.exit(2)
}
