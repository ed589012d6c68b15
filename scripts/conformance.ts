/**
 * Runs the conformance suite and prints the matrix. `--record` keeps it in proofs/conformance.json, from which the tables
 * of README.md and docs/conformance.md are made (`node scripts/generate-docs.ts`).
 *
 *     node scripts/conformance.ts [--engine NAME] [--scenario ID] [--repeat N] [--json] [--record]
 */
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { ENGINES, type EngineUnderTest } from '../src/conformance/registry.ts'
import { type ConformanceResult, runConformance } from '../src/conformance/run.ts'
import { SCENARIOS } from '../src/conformance/scenarios/all.ts'
import { BROKER_KINDS, brokerEngine } from './brokers/engines.ts'
import { describeCommit, ROOT } from './prove/ledger.ts'
import type { RecordedCell, RecordedMatrix } from './prove/matrix.ts'

interface Started {
  readonly engine: EngineUnderTest
  stop(): Promise<void>
}

/** Each engine, and what must run for it. */
const ALL: readonly { readonly name: string; start(): Promise<Started> }[] = [
  ...ENGINES.map((engine) => ({ name: engine.name, start: async () => ({ engine, stop: async () => {} }) })),
  ...BROKER_KINDS.map((kind) => ({
    name: kind.name,
    async start() {
      if ((await kind.find()) === null) throw new Error(`${kind.name} is missing`)
      const broker = await kind.start()
      return { engine: brokerEngine(kind.name, broker.url), stop: () => broker.stop() }
    },
  })),
]

const HELP = `node scripts/conformance.ts [options]

  --engine NAME    one of: ${names()} (default: all; the brokers are started for it)
  --scenario ID    one scenario, such as ${SCENARIOS[0]?.id} (default: all ${SCENARIOS.length})
  --repeat N       each so many times: the stress mode is 10 (default 1)
  --broker-repeat N  brokers so many times, where that is another number
  --json           the results as JSON
  --record         keep them in proofs/conformance.json
`

const { values } = parseArgs({
  options: {
    engine: { type: 'string' },
    scenario: { type: 'string' },
    repeat: { type: 'string', default: '1' },
    'broker-repeat': { type: 'string' },
    json: { type: 'boolean', default: false },
    record: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
})

const engines = ALL.filter(({ name }) => values.engine === undefined || name === values.engine)
const scenarios = SCENARIOS.filter(({ id }) => values.scenario === undefined || id === values.scenario)
const repeat = Number(values.repeat)
const brokerRepeat = Number(values['broker-repeat'] ?? values.repeat)
const isWrong =
  engines.length === 0 ||
  scenarios.length === 0 ||
  !Number.isSafeInteger(repeat) ||
  repeat < 1 ||
  !Number.isSafeInteger(brokerRepeat) ||
  brokerRepeat < 1
if (values.help || isWrong) {
  if (isWrong) console.error('There is no such engine or scenario, or --repeat is not a whole number from 1.\n')
  console.log(HELP)
  process.exitCode = values.help ? 0 : 2
} else {
  await main()
}

async function main(): Promise<void> {
  const results: ConformanceResult[] = []
  for (const one of engines) {
    let done = 0
    const { engine, stop } = await one.start()
    const ofEngine = await runConformance(engine, {
      scenarios,
      repeat: timesOf(engine.name),
      onResult: ({ scenario, result }) => {
        if (process.stderr.isTTY) process.stderr.write(`\r${engine.name}: ${++done} of ${scenarios.length} `)
        if (result.status === 'failed')
          console.error(`\n${engine.name}: ${scenario.id}: ${scenario.title}\n`, result.error)
      },
    })
    if (process.stderr.isTTY) process.stderr.write('\n')
    await stop()
    results.push(...ofEngine)
  }
  const matrix: RecordedMatrix = {
    date: new Date().toISOString(),
    commit: describeCommit(),
    repeat,
    brokerRepeat,
    engines: engines.map(({ name }) => name),
    cells: results.map(({ engine, scenario, result }): RecordedCell => {
      const cell = { engine, id: scenario.id, status: result.status }
      if (result.status === 'no') return { ...cell, note: result.reason }
      return result.status === 'passed' && result.cost !== undefined ? { ...cell, note: result.cost } : cell
    }),
  }
  if (values.json) console.log(JSON.stringify(matrix))
  else print(matrix)
  const isWhole = values.engine === undefined && values.scenario === undefined
  if (values.record && !isWhole) console.error('Only a run of everything is recorded.')
  if (values.record && isWhole) writeFileSync(`${ROOT}proofs/conformance.json`, `${JSON.stringify(matrix, null, 1)}\n`)
  process.exitCode = results.some(({ result }) => result.status === 'failed') ? 1 : 0
}

function print({ engines: names, cells }: RecordedMatrix): void {
  const wide = Math.max(...scenarios.map(({ id }) => id.length))
  console.log(`${''.padEnd(wide)}  ${names.join('  ')}`)
  for (const { id } of scenarios) {
    const marks = names.map((name) => {
      const cell = cells.find((one) => one.engine === name && one.id === id)
      return (cell?.status ?? '').padEnd(name.length)
    })
    console.log(`${id.padEnd(wide)}  ${marks.join('  ')}`)
  }
  for (const name of names) {
    const of = cells.filter(({ engine }) => engine === name)
    const count = (status: string) => of.filter((cell) => cell.status === status).length
    console.log(
      `${name}: ${count('passed')} passed, ${count('no')} no, ${count('failed')} failed, each ${timesOf(name)} times`,
    )
  }
}

function names(): string {
  return ALL.map(({ name }) => `'${name}'`).join(', ')
}

function timesOf(engine: string): number {
  return BROKER_KINDS.some(({ name }) => name === engine) ? brokerRepeat : repeat
}
