/** Durable publish against the bare loop: 1, 256 and 4,096 in flight, and 256 in flight with 1,000 keys. */
import { childrenOf, interleave, median, openBench, ratioOfMedians, readOptions } from './harness.ts'
import { meanPayloadBytes, type PublishFigures } from './load.ts'
import {
  atLeast,
  atMost,
  type Bar,
  type Cell,
  count,
  createReport,
  printReport,
  readMachine,
  spread,
  tell,
} from './report.ts'

const usage = `
Usage: node bench/publish.ts [options]

Durable publish, one process, call to durable: Sluice's queue.add() against the bare loop.

  --only N       only the case with N in flight (1, 256 or 4096)`

interface Case {
  readonly inFlight: number
  readonly messages: number
  /** Sides besides the bare loop, by number of keys. */
  readonly keys: readonly number[]
}

const cases: readonly Case[] = [
  { inFlight: 1, messages: 3_000, keys: [0] },
  { inFlight: 256, messages: 400_000, keys: [0, 1000] },
  { inFlight: 4096, messages: 1_000_000, keys: [0] },
]

async function main(): Promise<void> {
  const options = readOptions(usage, { only: 'string' })
  const only = options.number('only', 0) || null
  await using bench = await openBench(options)
  const machine = readMachine(options.dir)
  const { publishToBareLoop } = childrenOf<typeof import('./bare-loop.ts')>(bench, './bare-loop.ts')
  const { publishToSluice } = childrenOf<typeof import('./sluice-side.ts')>(bench, './sluice-side.ts')
  const scale = options.quick ? 0.3 : 1
  const bars: Bar[] = []
  const rows: Cell[][] = []

  for (const { inFlight, messages: fullMessages, keys } of cases) {
    if (only !== null && only !== inFlight) continue
    const messages = fullMessages * scale
    const sides: Record<string, () => Promise<PublishFigures>> = {
      'bare loop': () => bench.inFolder((folder) => publishToBareLoop({ folder, messages, inFlight, keys: 0 })),
    }
    for (const keyCount of keys) {
      sides[nameSide(keyCount)] = () =>
        bench.inFolder((folder) => publishToSluice({ folder, messages, inFlight, keys: keyCount }))
    }
    const results = await interleave(`${count(inFlight)} in flight`, options.pairs, sides, (figures: PublishFigures) =>
      figures.p50Ms === null ? `${tell(figures.perSecond)}/s` : `p50 ${tell(figures.p50Ms)} ms`,
    )
    const bare = results['bare loop'] ?? []
    for (const [side, runs] of Object.entries(results)) {
      rows.push([count(inFlight), side, ...tellRuns(runs), tell(ratioOfMedians(rates(runs), rates(bare)))])
    }
    for (const keyCount of keys) bars.push(judge(inFlight, keyCount, results[nameSide(keyCount)] ?? [], bare))
  }

  const title = `Durable publish, payload of ${tell(meanPayloadBytes(400_000))} bytes: median (least to most)`
  const head = ['in flight', 'side', 'messages/s', 'p50 ms', 'p99 ms', 'CPU s per 100,000', 'of the bare loop']
  printReport(createReport('publish', options, machine, { tables: [{ title, head, rows }], bars }), options.json)
}

function nameSide(keys: number): string {
  return keys === 0 ? 'Sluice' : `Sluice, ${count(keys)} keys`
}

function rates(runs: readonly PublishFigures[]): number[] {
  return runs.map((run) => run.perSecond)
}

function p50s(runs: readonly PublishFigures[]): number[] {
  return runs.map((run) => run.p50Ms ?? Number.NaN)
}

function tellRuns(runs: readonly PublishFigures[]): Cell[] {
  const timed = runs.every((run) => run.p50Ms !== null)
  return [
    spread(rates(runs)),
    timed ? spread(p50s(runs)) : '-',
    median(runs.map((run) => run.p99Ms ?? Number.NaN)),
    median(runs.map((run) => run.cpuSecondsPer100k)),
  ]
}

function judge(inFlight: number, keys: number, runs: readonly PublishFigures[], bare: readonly PublishFigures[]): Bar {
  if (inFlight === 1)
    return atMost('publish, 1 in flight: p50 over the bare loop', 1.3, ratioOfMedians(p50s(runs), p50s(bare)))
  const ratio = ratioOfMedians(rates(runs), rates(bare))
  if (keys > 0) return atLeast(`publish, ${count(inFlight)} in flight, ${count(keys)} keys`, 0.5, ratio)
  return atLeast(`publish, ${count(inFlight)} in flight`, inFlight === 256 ? 0.6 : 0.4, ratio)
}

if (import.meta.main) await main()
