/**
 * The whole path, all of it durable and in one process: publish, commit, lease, handle, settle. Its rate against BullMQ
 * on Redis with `appendfsync always`, its CPU time, and its latency at a steady rate against the bare loop's.
 */
import {
  type Bench,
  type BenchOptions,
  childrenOf,
  interleave,
  median,
  openBench,
  quantile,
  ratioOfMedians,
  readOptions,
} from './harness.ts'
import { type EndToEndFigures, meanPayloadBytes, type SteadyFigures } from './load.ts'
import { type BullmqModule, type BullmqSettings, installBullmq, installRedis, startRedis } from './redis.ts'
import {
  atLeast,
  atMost,
  type Bar,
  below,
  type Cell,
  count,
  createReport,
  inapplicable,
  printReport,
  readMachine,
  spread,
  type Table,
  tell,
} from './report.ts'

const usage = `
Usage: node bench/end-to-end.ts [options]

Publish, commit, lease, handle, settle, all durable, publisher and worker in one process: Sluice against BullMQ on a
redis-server of its own with appendfsync always. Then 500 messages a second from call to handler: Sluice against the
bare loop (call to synced). Installs BullMQ into bench/bullmq and, as root, redis-server where they are missing.

  --throughput   only the rate and the CPU time
  --latency      only the latency`

type SluiceModule = typeof import('./sluice-side.ts')

const inFlights = [256, 1024]
const sluiceConcurrencies = [64, 256, 1024]
const bullmqCandidates: readonly BullmqSettings[] = [
  { bulk: 0, concurrency: 64, workers: 1, autoPipelining: false },
  { bulk: 0, concurrency: 256, workers: 1, autoPipelining: false },
  { bulk: 0, concurrency: 1024, workers: 1, autoPipelining: false },
  { bulk: 0, concurrency: 256, workers: 1, autoPipelining: true },
  { bulk: 64, concurrency: 64, workers: 1, autoPipelining: false },
  { bulk: 64, concurrency: 256, workers: 1, autoPipelining: false },
  { bulk: 256, concurrency: 256, workers: 1, autoPipelining: false },
  { bulk: 64, concurrency: 256, workers: 4, autoPipelining: false },
  { bulk: 64, concurrency: 512, workers: 4, autoPipelining: false },
]

interface Side {
  readonly name: string
  measure(inFlight: number, messages: number): Promise<EndToEndFigures>
}

function sluiceSide(bench: Bench, concurrency: number): Side {
  const { endToEndOnSluice } = childrenOf<SluiceModule>(bench, './sluice-side.ts')
  return {
    name: `Sluice, concurrency ${concurrency}`,
    measure: (inFlight, messages) =>
      bench.inFolder((folder) => endToEndOnSluice({ folder, messages, inFlight, concurrency })),
  }
}

function bullmqSide(bench: Bench, settings: BullmqSettings): Side {
  const { endToEndOnBullmq } = childrenOf<BullmqModule>(bench, './bullmq/side.ts')
  const { bulk, concurrency, workers, autoPipelining } = settings
  const parts = [bulk === 0 ? 'add' : `addBulk of ${bulk}`, `concurrency ${concurrency}`]
  if (workers > 1) parts.push(`in ${workers} workers`)
  if (autoPipelining) parts.push('auto-pipelining')
  return {
    name: `BullMQ, ${parts.join(', ')}`,
    measure: (inFlight, messages) =>
      bench.inFolder(async (folder) => {
        await using redis = await startRedis(folder)
        return await endToEndOnBullmq({ ...settings, folder, messages, inFlight, port: redis.port })
      }),
  }
}

interface Tuned {
  /** The fastest first. */
  readonly sides: readonly Side[]
  readonly rows: readonly Cell[][]
}

/** Tries each candidate, twice in turn: each system is compared at its best. */
async function tune(title: string, candidates: readonly Side[], inFlight: number, messages: number): Promise<Tuned> {
  const named = Object.fromEntries(candidates.map((side) => [side.name, () => side.measure(inFlight, messages)]))
  const results = await interleave(`tuning ${title}, ${count(inFlight)} in flight`, 2, named, tellRate)
  const tried = candidates.map((side) => ({ side, rate: median(rates(results[side.name] ?? [])) }))
  const rows = tried.map(({ side, rate }) => [count(inFlight), side.name, rate])
  return { sides: tried.sort((a, b) => b.rate - a.rate).map(({ side }) => side), rows }
}

const tellRate = (figures: EndToEndFigures): string => `${tell(figures.perSecond)}/s`

interface Part {
  readonly tables: readonly Table[]
  readonly bars: readonly Bar[]
}

async function measureThroughput(bench: Bench, options: BenchOptions): Promise<Part> {
  const scale = options.quick ? 0.3 : 1
  const tuning: Cell[][] = []
  const rows: Cell[][] = []
  const bars: Bar[] = []
  for (const inFlight of inFlights) {
    const bullmq = await tune(
      'BullMQ',
      bullmqCandidates.map((settings) => bullmqSide(bench, settings)),
      inFlight,
      8_000 * scale,
    )
    const sluice = await tune(
      'Sluice',
      sluiceConcurrencies.map((concurrency) => sluiceSide(bench, concurrency)),
      inFlight,
      150_000 * scale,
    )
    tuning.push(...bullmq.rows, ...sluice.rows)
    // Two tries do not settle which is the fastest, so the two best of BullMQ go on and the better one counts.
    const finalists = bullmq.sides.slice(0, 2)
    const sluiceBest = sluice.sides.slice(0, 1)
    const sides = [
      ...finalists.map((side) => [side.name, () => side.measure(inFlight, 40_000 * scale)] as const),
      ...sluiceBest.map((side) => [side.name, () => side.measure(inFlight, 400_000 * scale)] as const),
    ]
    const results = await interleave(`${count(inFlight)} in flight`, options.pairs, Object.fromEntries(sides), tellRate)
    const runsOf = (side: Side | undefined): EndToEndFigures[] => results[side?.name ?? ''] ?? []
    const [best] = finalists.toSorted((a, b) => median(rates(runsOf(b))) - median(rates(runsOf(a))))
    const base = rates(runsOf(best))
    for (const side of [...finalists, ...sluiceBest]) {
      const runs = runsOf(side)
      const cpu = runs.map((run) => run.cpuSecondsPer100k)
      const serverCpu = median(runs.map((run) => run.serverCpuSecondsPer100k))
      rows.push([
        count(inFlight),
        side.name,
        spread(rates(runs)),
        spread(cpu),
        serverCpu,
        ratioOfMedians(rates(runs), base),
      ])
    }
    const runs = runsOf(sluiceBest[0])
    const cpu = median(runs.map((run) => run.cpuSecondsPer100k))
    bars.push(
      atLeast(`end to end, ${count(inFlight)} in flight, over BullMQ`, 12, ratioOfMedians(rates(runs), base)),
      atMost(`end to end, ${count(inFlight)} in flight: CPU for 100,000 messages`, 1, cpu, ' s'),
    )
  }
  const head = ['in flight', 'side', 'messages/s', 'CPU s per 100,000', 'and of redis-server', 'of the better BullMQ']
  const tables = [
    { title: 'Tuning: median of two runs', head: ['in flight', 'side', 'messages/s'], rows: tuning },
    { title: 'End to end, each side at its best: median (least to most)', head, rows },
  ]
  return { tables, bars }
}

function rates(runs: readonly EndToEndFigures[]): number[] {
  return runs.map((run) => run.perSecond)
}

const steadyPerSecond = 500

async function measureLatency(bench: Bench, options: BenchOptions): Promise<Part> {
  const { steadyToBareLoop } = childrenOf<typeof import('./bare-loop.ts')>(bench, './bare-loop.ts')
  const { steadyToSluice } = childrenOf<SluiceModule>(bench, './sluice-side.ts')
  const load = { perSecond: steadyPerSecond, messages: steadyPerSecond * (options.quick ? 2 : 4) }
  const results = await interleave(
    `a steady ${steadyPerSecond}/s`,
    options.pairs,
    {
      'bare loop': () => bench.inFolder((folder) => steadyToBareLoop({ ...load, folder })),
      Sluice: () => bench.inFolder((folder) => steadyToSluice({ ...load, folder })),
    },
    (figures: SteadyFigures) =>
      `p50 ${tell(quantile(figures.latenciesMs, 0.5))} ms, p99 ${tell(quantile(figures.latenciesMs, 0.99))} ms`,
  )
  const at = (runs: readonly SteadyFigures[], share: number): number[] =>
    runs.map((run) => quantile(run.latenciesMs, share))
  const rows = Object.entries(results).map(([side, runs]) => [
    side,
    spread(at(runs, 0.5)),
    spread(at(runs, 0.99)),
    spread(at(runs, 1)),
    ratioOfMedians(at(runs, 0.5), at(results['bare loop'], 0.5)),
  ])
  const p99 = median(at(results.Sluice, 0.99))
  const diskP99 = median(at(results['bare loop'], 0.99))
  const name = `${steadyPerSecond}/s, call to handler: p99 (the disk's own: ${tell(diskP99)} ms)`
  return {
    tables: [
      {
        title: `A steady ${steadyPerSecond}/s: median (least to most) of the runs' quantiles`,
        head: ['side', 'p50 ms', 'p99 ms', 'most ms', 'p50 of the bare loop'],
        rows,
      },
    ],
    bars: [
      atMost(
        `${steadyPerSecond}/s, call to handler: p50 over the bare loop`,
        2,
        ratioOfMedians(at(results.Sluice, 0.5), at(results['bare loop'], 0.5)),
      ),
      diskP99 < 1 ? below(name, 5, p99, ' ms') : inapplicable(below(name, 5, p99, ' ms')),
    ],
  }
}

async function main(): Promise<void> {
  const options = readOptions(usage, { throughput: 'boolean', latency: 'boolean' })
  const all = options.flag('throughput') === options.flag('latency')
  await using bench = await openBench(options)
  const withRate = all || options.flag('throughput')
  const versions = withRate ? { redis: installRedis(), ...installBullmq() } : {}
  const machine = readMachine(options.dir, versions)
  const parts: Part[] = []
  if (withRate) parts.push(await measureThroughput(bench, options))
  if (all || options.flag('latency')) parts.push(await measureLatency(bench, options))
  const report = createReport('end-to-end', options, machine, {
    tables: parts.flatMap(({ tables }) => tables),
    bars: parts.flatMap(({ bars }) => bars),
    notes: [
      `Payload of ${tell(meanPayloadBytes(400_000))} bytes. A bar on p99 applies where the disk's own is under 1 ms.`,
    ],
  })
  printReport(report, options.json)
}

if (import.meta.main) await main()
