/** One key whose every attempt fails, among 1,000: what it costs the others. */
import { join } from 'node:path'
import { open } from '../src/index.ts'
import { childrenOf, interleave, openBench, ratioOfMedians, readOptions } from './harness.ts'
import { createKey, createPayload, drive, type Payload, startClock } from './load.ts'
import { atLeast, count, createReport, printReport, readMachine, spread, tell } from './report.ts'
import { AMPLE_LIMIT } from './sluice-side.ts'

const usage = `
Usage: node bench/poisoned-key.ts [options]

1,000 keys, publisher (256 in flight) and worker (256 handlers) in one process. In turn: all keys succeed; each attempt
of one key throws, with the default back-off (1 s); the same with a back-off of 10 ms, so that it fails all the time and
its messages die. Counted is the rate of the other keys' messages.

  --messages N   of all keys, in each run (default 300000)`

const keys = 1000
const poisonedKey = 'customer-7'

export interface PoisonOptions {
  readonly folder: string
  readonly messages: number
  /** Of the poisoned key, in milliseconds; null: no key is poisoned. */
  readonly backoffMs: number | null
}

export interface PoisonFigures {
  /** Of the other keys. */
  readonly perSecond: number
  readonly failures: number
}

export async function measurePoisoned({ folder, messages, backoffMs }: PoisonOptions): Promise<PoisonFigures> {
  await using sluice = await open(join(folder, 'sluice'))
  const backoff = backoffMs === null ? undefined : { baseMs: backoffMs, factor: 2, maxMs: 300_000 }
  const queue = sluice.queue<Payload>('bench', { limit: AMPLE_LIMIT, ...(backoff && { backoff }) })
  const warmUp = Math.ceil(messages * 0.25)
  const isOther = (id: number): boolean => createKey(id, keys) !== poisonedKey
  let failures = 0
  let handled = 0
  let awaited = 0
  let onHandled = (): void => {}
  const worker = queue.work(
    async ({ payload: { id } }) => {
      if (isOther(id)) {
        if (++handled === awaited) onHandled()
      } else if (backoffMs !== null) {
        failures++
        throw new Error('always')
      }
    },
    { concurrency: 256 },
  )
  const pass = async (from: number, messageCount: number): Promise<number> => {
    let others = 0
    for (let id = from; id < from + messageCount; id++) if (isOther(id)) others++
    const { promise, resolve } = Promise.withResolvers<void>()
    onHandled = resolve
    awaited = handled + others
    const clock = startClock()
    await drive({ from, messages: messageCount, inFlight: 256 }, (id) =>
      queue.add(createPayload(id), { key: createKey(id, keys) }),
    )
    if (handled < awaited) await promise
    return others / clock().seconds
  }
  await pass(0, warmUp)
  const perSecond = await pass(warmUp, messages)
  await worker.close({ drainMs: 0 })
  return { perSecond, failures }
}

async function main(): Promise<void> {
  const options = readOptions(usage, { messages: 'string' })
  const messages = options.number('messages', options.quick ? 100_000 : 300_000)
  await using bench = await openBench(options)
  const machine = readMachine(options.dir)
  const side = childrenOf<typeof import('./poisoned-key.ts')>(bench, './poisoned-key.ts')
  const measure = (backoffMs: number | null) => () =>
    bench.inFolder((folder) => side.measurePoisoned({ folder, messages, backoffMs }))
  const sides = {
    'no poison': measure(null),
    'poison, back-off 1 s': measure(1_000),
    'poison, back-off 10 ms': measure(10),
  }
  const results = await interleave(
    'poisoned key',
    options.pairs,
    sides,
    (figures: PoisonFigures) => `${tell(figures.perSecond)}/s`,
  )

  const rates = (runs: readonly PoisonFigures[]): number[] => runs.map((run) => run.perSecond)
  const ratio = (side: keyof typeof sides): number => ratioOfMedians(rates(results[side]), rates(results['no poison']))
  const names = Object.keys(sides) as (keyof typeof sides)[]
  const rows = names.map((name) => [
    name,
    spread(rates(results[name])),
    spread(results[name].map((run) => run.failures)),
    ratio(name),
  ])
  const head = ['side', "the other keys' messages/s", 'failed attempts', 'of no poison']
  const bars = names
    .slice(1)
    .map((name) => atLeast(`one key of ${count(keys)}, ${name}: the others' rate`, 0.9, ratio(name)))
  const tables = [{ title: 'One poisoned key: median (least to most)', head, rows }]
  printReport(createReport('poisoned-key', options, machine, { tables, bars }), options.json)
}

if (import.meta.main) await main()
