/** A backup under load: what it costs those who add meanwhile, and how long it takes. */

import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { open } from '../src/index.ts'
import { childrenOf, interleave, openBench, ratioOfMedians, readOptions } from './harness.ts'
import { createReport, printReport, readMachine, spread, tell } from './report.ts'

const usage = `
Usage: node bench/backup.ts [options]

A folder with a backlog of 1 KiB messages. Four callers add one message each at a time, first for as long as --alone says
with nothing beside them, then while a backup is taken, read back and checked. Told: adds a second and how long each took.

  --megabytes N  of the backlog (default 500)
  --alone N      milliseconds (default 5000)`

const CALLERS = 4
const PAYLOAD = { text: 'x'.repeat(1_000) }

export interface BackupRun {
  readonly folder: string
  readonly megabytes: number
  readonly aloneMs: number
}

interface Adds {
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly maxMs: number
}

export interface BackupFigures {
  readonly alone: Adds
  readonly during: Adds
  readonly seconds: number
  readonly megabytes: number
}

export async function measureBackup({ folder, megabytes, aloneMs }: BackupRun): Promise<BackupFigures> {
  await using sluice = await open(join(folder, 'data'))
  const queue = sluice.queue('q', { limit: { messages: 100_000_000, bytes: 2 ** 40 } })
  for (let added = 0; added < megabytes * 1_000; added += 1_000)
    await queue.addMany(Array.from({ length: 1_000 }, () => ({ payload: PAYLOAD })))
  let times: number[] = []
  let isOver = false
  const caller = async () => {
    while (!isOver) {
      const startMs = performance.now()
      await queue.add(PAYLOAD)
      times.push(performance.now() - startMs)
    }
  }
  const callers = Array.from({ length: CALLERS }, caller)
  const during = async (act: () => Promise<unknown>): Promise<Adds & { seconds: number }> => {
    times = []
    const startMs = performance.now()
    await act()
    const seconds = (performance.now() - startMs) / 1_000
    const sorted = times.toSorted((a, b) => a - b)
    const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0
    return { perSecond: sorted.length / seconds, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1), seconds }
  }
  await during(() => delay(aloneMs / 4))
  const alone = await during(() => delay(aloneMs))
  let bytes = 0
  const backup = await during(async () => {
    bytes = (await sluice.backup(join(folder, 'copy'))).fileBytes
  })
  isOver = true
  await Promise.all(callers)
  return { alone, during: backup, seconds: backup.seconds, megabytes: bytes / 1_000_000 }
}

async function main(): Promise<void> {
  const options = readOptions(usage, { megabytes: 'string', alone: 'string' })
  const megabytes = options.number('megabytes', options.quick ? 100 : 500)
  const aloneMs = options.number('alone', 5_000)
  await using bench = await openBench(options)
  const machine = readMachine(options.dir)
  const side = childrenOf<typeof import('./backup.ts')>(bench, './backup.ts')
  const { backup: runs } = await interleave(
    'backup under load',
    options.pairs,
    { backup: () => bench.inFolder((folder) => side.measureBackup({ folder, megabytes, aloneMs })) },
    (figures: BackupFigures) => `${tell(figures.seconds)} s, ${tell(figures.during.perSecond)} adds/s beside it`,
  )
  const rowOf = (what: string, of: (run: BackupFigures) => Adds) => [
    what,
    spread(runs.map((run) => of(run).perSecond)),
    ...(['p50Ms', 'p99Ms', 'maxMs'] as const).map((name) => spread(runs.map((run) => of(run)[name]))),
  ]
  const ratio = ratioOfMedians(
    runs.map((run) => run.during.perSecond),
    runs.map((run) => run.alone.perSecond),
  )
  const tables = [
    {
      title: `Adds by ${CALLERS} callers, one at a time each: median (least to most)`,
      head: ['', 'adds/s', 'p50 ms', 'p99 ms', 'max ms'],
      rows: [rowOf('alone', (run) => run.alone), rowOf('while a backup is taken', (run) => run.during)],
    },
    {
      title: 'The backup',
      head: ['MB', 'seconds', 'MB/s', 'adds/s of alone'],
      rows: [
        [
          spread(runs.map((run) => run.megabytes)),
          spread(runs.map((run) => run.seconds)),
          spread(runs.map((run) => run.megabytes / run.seconds)),
          ratio,
        ],
      ],
    },
  ]
  printReport(createReport('backup', options, machine, { tables, bars: [] }), options.json)
}

if (import.meta.main) await main()
