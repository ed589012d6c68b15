/** Runs every benchmark, one after the other, and tells which bars are met. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { readOptions, say } from './harness.ts'
import { barTable, formatTable, type Report, tellMachine } from './report.ts'

const benches = [
  'publish',
  'end-to-end',
  'brokers',
  'poisoned-key',
  'backlog',
  'backup',
  'gateway-post',
  'gateway-batches',
  'gateway-retry-after',
  'gateway-overload',
  'gateway-idle',
]

const usage = `
Usage: node bench/main.ts [options]

All benchmarks and a summary of their bars: an hour and a half; with --quick about 20 minutes, to look and not to quote.
Each also runs alone, and tells more of itself with --help: node bench/publish.ts --help.

  ${benches.join('\n  ')}

  --strict       exit with 1 where a bar is not met`

async function runBench(name: string, args: readonly string[]): Promise<Report> {
  const path = fileURLToPath(new URL(`./${name}.ts`, import.meta.url))
  const child = spawn(process.execPath, [path, '--json', ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  const end = (): boolean => child.kill('SIGTERM')
  process.once('SIGTERM', end)
  const [output, [code]] = await Promise.all([text(child.stdout), once(child, 'exit')])
  process.off('SIGTERM', end)
  if (code !== 0) throw new Error(`${name} ended with exit code ${code}`)
  return JSON.parse(output) as Report
}

async function main(): Promise<void> {
  const options = readOptions(usage, { strict: 'boolean' })
  const args = process.argv.slice(2).filter((argument) => argument !== '--strict' && argument !== '--json')
  const reports: Report[] = []
  const failures: string[] = []
  for (const name of benches) {
    say(`\n== ${name}`)
    try {
      reports.push(await runBench(name, args))
    } catch (error) {
      failures.push(`${name}: ${(error as Error).message}`)
    }
  }
  const bars = reports.flatMap((report) => report.bars)
  if (options.json) process.stdout.write(`${JSON.stringify({ reports, failures })}\n`)
  else tellAll(reports, failures)
  const missed = bars.some(({ state }) => state === 'not met')
  if (failures.length > 0 || (options.flag('strict') && missed)) process.exitCode = 1
}

function tellAll(reports: readonly Report[], failures: readonly string[]): void {
  for (const report of reports) {
    console.log(`\n# ${report.bench}, ${report.pairs} interleaved pairs${report.quick ? ', quick' : ''}`)
    console.log(tellMachine(report.machine))
    for (const table of report.tables) console.log(`\n${table.title}\n${formatTable(table)}`)
    for (const note of report.notes) console.log(`\n${note}`)
  }
  const bars = reports.flatMap((report) => report.bars)
  const met = bars.filter(({ state }) => state === 'met').length
  console.log(`\n# ${met} of ${bars.length} bars met\n${formatTable(barTable(bars))}`)
  for (const failure of failures) console.log(`FAILED ${failure}`)
}

if (import.meta.main) await main()
