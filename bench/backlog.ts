/**
 * What a deep backlog costs: publish and drain against an empty queue, memory, rows read for each hand-out, and how
 * soon a process that was killed has work again.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { DrainFigures, OpenFigures, PublishFigures } from './backlog-side.ts'
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
over empty ones in turn, the most memory of any of these processes, rows read for each hand-out, and the time from
open() to the first handler after SIGKILL under load. Needs about 3 GB of disk.

  --messages N   of backlog (default 5000000)
  --keys N       (default 100000)
  --kills N      (default 5)`

type SideModule = typeof import('./backlog-side.ts')

type PassFigures = PublishFigures & DrainFigures

const atOnce = 'empty, drained at once'
const empty = 'empty'
const full = 'deep'
const inFlight = 256
const concurrency = 256
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
  await side.fill({ folder: small, keys, messages: smallMessages, inFlight })
  say(`filled a folder with ${count(smallMessages)}; filling one with ${count(messages)} …`)
  const filled = await side.fill({ folder: deep, keys, messages, inFlight })
  say(`filled: ${tell(filled.perSecond)}/s, ${tell(filled.rssMiB)} MiB`)

  let run = 0
  const load = options.quick ? 100_000 : 250_000
  const inTwo = async (folder: string): Promise<PassFigures> => {
    const published = await side.publish({ folder, keys, messages: load, inFlight, run: ++run })
    const drained = await side.drain({ folder, keys, messages: load, concurrency })
    return { ...published, ...drained, rssMiB: Math.max(published.rssMiB, drained.rssMiB) }
  }
  const inOne = (folder: string): Promise<PassFigures> =>
    side.publishAndDrain({ folder, keys, messages: load, inFlight, concurrency, run: ++run })
  const sides = {
    [atOnce]: () => bench.inFolder(inOne),
    [empty]: () => bench.inFolder(inTwo),
    [full]: () => inTwo(deep),
  }
  const results = await interleave(
    `backlog of ${count(messages)}`,
    options.pairs,
    sides,
    (figures: PassFigures) => `publish ${tell(figures.publishPerSecond)}/s, drain ${tell(figures.drainPerSecond)}/s`,
  )
  const tenth = await inTwo(small)
  const opened = await killAndOpen(bench, deep, keys, kills)

  const of = (runs: readonly PassFigures[], name: keyof PassFigures): number[] => runs.map((figures) => figures[name])
  const row = (name: string, runs: readonly PassFigures[]) => [
    name,
    count(median(of(runs, 'depth'))),
    spread(of(runs, 'publishPerSecond')),
    median(of(runs, 'publishCpuPer100k')),
    spread(of(runs, 'drainPerSecond')),
    median(of(runs, 'drainCpuPer100k')),
    median(of(runs, 'rowsPerHandOut')),
    tell(Math.max(...of(runs, 'rssMiB'))),
  ]
  const rssMiB = Math.max(filled.rssMiB, ...of(results[full], 'rssMiB'), ...opened.map((figures) => figures.rssMiB))
  const firstMs = opened.map((figures) => figures.firstHandOutMs)
  const rowsOf = (runs: readonly PassFigures[]): number => median(of(runs, 'rowsPerHandOut'))
  const ratio = (name: keyof PassFigures, base: typeof empty | typeof atOnce): number =>
    ratioOfMedians(of(results[full], name), of(results[base], name))
  const backlog = `backlog of ${count(messages)}, ${count(keys)} keys`

  const report = createReport('backlog', options, machine, {
    tables: [
      {
        title: 'Publish, then drain as much: median (least to most)',
        head: [
          'queue',
          'depth at the start',
          'published/s',
          'CPU s per 100,000',
          'drained/s',
          'CPU s per 100,000',
          'rows read per hand-out',
          'most MiB',
        ],
        rows: [
          row(atOnce, results[atOnce]),
          row(empty, results[empty]),
          row('a tenth (one run)', [tenth]),
          row(full, results[full]),
        ],
      },
      {
        title: `After SIGKILL under load, ${count(kills)} times: median (least to most)`,
        head: ['open ms', 'open to first handler ms', 'depth', 'most MiB'],
        rows: [
          [
            spread(opened.map((figures) => figures.openMs)),
            spread(firstMs),
            count(median(opened.map((figures) => figures.depth))),
            tell(Math.max(...opened.map((figures) => figures.rssMiB))),
          ],
        ],
      },
    ],
    bars: [
      atLeast(`${backlog}: publish, of empty`, 0.8, ratio('publishPerSecond', empty)),
      atLeast(`${backlog}: drain, of empty, both from the file`, 0.8, ratio('drainPerSecond', empty)),
      atLeast(`${backlog}: drain, of empty at once, from memory`, 0.8, ratio('drainPerSecond', atOnce)),
      atMost(`${backlog}: rows read per hand-out, of a tenth of it`, 1.5, rowsOf(results[full]) / rowsOf([tenth])),
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
