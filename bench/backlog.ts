/**
 * What a deep backlog costs: publish and drain against an empty queue, memory, rows read for each hand-out, and how
 * soon a process that was killed has work again.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { OpenFigures, PassFigures } from './backlog-side.ts'
import {
  type Bench,
  childrenOf,
  freeBytes,
  interleave,
  median,
  openBench,
  ratioOfMedians,
  readOptions,
  say,
} from './harness.ts'
import { atLeast, atMost, below, count, createReport, printReport, readMachine, spread, tell } from './report.ts'

const usage = `
Usage: node bench/backlog.ts [options]

A backlog of 5 million messages with 100,000 keys: publish and drain (256 in flight, 256 handlers) over that folder and
over an empty one in turn, the most memory of any of these processes, rows read for each hand-out, and the time from
open() to the first handler after SIGKILL under load. Needs about 3 GB of disk.

  --messages N   of backlog (default 5000000)
  --keys N       (default 100000)
  --kills N      (default 5)`

type SideModule = typeof import('./backlog-side.ts')

const bytesPerMessage = 600
const churnMs = 1_500

async function main(): Promise<void> {
  const options = readOptions(usage, { messages: 'string', keys: 'string', kills: 'string' })
  const messages = options.number('messages', options.quick ? 500_000 : 5_000_000)
  const keys = options.number('keys', 100_000)
  const kills = options.number('kills', options.quick ? 2 : 5)
  await using bench = await openBench(options)
  const machine = readMachine(options.dir)
  if ((await freeBytes(options.dir)) < messages * bytesPerMessage) throw new Error(`Too little room in ${options.dir}`)
  const side = childrenOf<SideModule>(bench, './backlog-side.ts')

  const small = await bench.makeFolder()
  const deep = await bench.makeFolder()
  const smallMessages = Math.ceil(messages / 10)
  await side.fill({ folder: small, keys, messages: smallMessages })
  say(`filled a folder with ${count(smallMessages)}; filling one with ${count(messages)} …`)
  const filled = await side.fill({ folder: deep, keys, messages })
  say(`filled: ${tell(filled.perSecond)}/s, ${tell(filled.rssMiB)} MiB`)

  let run = 0
  const pass = (folder: string): Promise<PassFigures> => {
    const load = options.quick ? 100_000 : 250_000
    return side.passThrough({ folder, keys, messages: load, inFlight: 256, concurrency: 256, run: ++run })
  }
  const results = await interleave(
    `backlog of ${count(messages)}`,
    options.pairs,
    { empty: () => bench.inFolder(pass), deep: () => pass(deep) },
    (figures: PassFigures) =>
      `publish ${tell(figures.publishPerSecond)}/s, drain ${tell(figures.drainPerSecond)}/s, ${tell(figures.rowsPerHandOut)} rows, ${tell(figures.rssMiB)} MiB`,
  )
  const middle = await pass(small)
  const opened = await killAndOpen(bench, deep, keys, kills)

  const of = (runs: readonly PassFigures[], name: keyof PassFigures): number[] => runs.map((figures) => figures[name])
  const row = (name: string, runs: readonly PassFigures[]) => [
    name,
    tell(median(of(runs, 'depth'))),
    spread(of(runs, 'publishPerSecond')),
    spread(of(runs, 'drainPerSecond')),
    spread(of(runs, 'rowsPerHandOut')),
    tell(Math.max(...of(runs, 'rssMiB'))),
  ]
  const rssMiB = Math.max(filled.rssMiB, ...of(results.deep, 'rssMiB'), ...opened.map((figures) => figures.rssMiB))
  const firstMs = opened.map((figures) => figures.firstHandOutMs)
  const rows = (runs: readonly PassFigures[]): number => median(of(runs, 'rowsPerHandOut'))
  const ratio = (name: keyof PassFigures): number => ratioOfMedians(of(results.deep, name), of(results.empty, name))
  const backlog = `backlog of ${count(messages)}, ${count(keys)} keys`

  const report = createReport('backlog', options, machine, {
    tables: [
      {
        title: 'Publish, then drain as much: median (least to most)',
        head: ['queue', 'depth at the start', 'published/s', 'drained/s', 'rows read per hand-out', 'most MiB'],
        rows: [row('empty', results.empty), row('a tenth (one run)', [middle]), row('deep', results.deep)],
      },
      {
        title: `After SIGKILL under load, ${count(kills)} times: median (least to most)`,
        head: ['open ms', 'open to first handler ms', 'depth', 'most MiB'],
        rows: [
          [
            spread(opened.map((figures) => figures.openMs)),
            spread(firstMs),
            tell(median(opened.map((figures) => figures.depth))),
            tell(Math.max(...opened.map((figures) => figures.rssMiB))),
          ],
        ],
      },
    ],
    bars: [
      atLeast(`${backlog}: publish, of empty`, 0.8, ratio('publishPerSecond')),
      atLeast(`${backlog}: drain, of empty`, 0.8, ratio('drainPerSecond')),
      atMost(`${backlog}: rows read per hand-out, of a tenth of it`, 1.5, rows(results.deep) / rows([middle])),
      below(`${backlog}: most resident memory`, 350, rssMiB, ' MiB'),
      below(`${backlog}: open to first handler after SIGKILL, slowest`, 2, Math.max(...firstMs) / 1000, ' s'),
    ],
    notes: [
      'Rows read per hand-out vary with how many messages shared a commit; were they to grow with depth, ten times the depth would show.',
      `Filling took ${tell(filled.perSecond)} messages/s and at most ${tell(filled.rssMiB)} MiB.`,
    ],
  })
  printReport(report, options.json)
}

/** Kills a process that publishes and works, and opens the folder in a fresh one. */
async function killAndOpen(bench: Bench, folder: string, keys: number, kills: number): Promise<OpenFigures[]> {
  const side = childrenOf<SideModule>(bench, './backlog-side.ts')
  const opened: OpenFigures[] = []
  for (let kill = 1; kill <= kills; kill++) {
    const child = bench.start('./backlog-side.ts', 'churn', { folder, keys })
    await child.ready
    await sleep(churnMs)
    child.kill()
    await child.result.catch(() => {})
    const figures = await side.openAndLease({ folder, keys })
    opened.push(figures)
    say(
      `kill ${kill}/${kills}: open ${tell(figures.openMs)} ms, first handler ${tell(figures.firstHandOutMs)} ms, ${tell(figures.rssMiB)} MiB`,
    )
  }
  return opened
}

if (import.meta.main) await main()
