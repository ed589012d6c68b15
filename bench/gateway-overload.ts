/** Five times as much as the server can do: what gets through, and how it is afterwards. */
import { JOBS_PATH } from './gateway-side.ts'
import { childrenOf, median, openBench, ratioOfMedians, readOptions, say } from './harness.ts'
import type { RushFigures, RushOptions } from './overload-client.ts'
import { findFreePort } from './redis.ts'
import { atLeast, atMost, count, createReport, printReport, readMachine, spread, tell } from './report.ts'

const usage = `
Usage: node bench/gateway-overload.ts [options]

Batches of 100 durable jobs, by 400 clients that honour Retry-After with jitter and a retry budget of a tenth. First as
many as the server can do (measured), twice and five times as many, in turn; 10 s later, half. Goodput is what was stored
within 2 s of being wanted, and its peak the better of the first two. For information the same rush by clients that do not honour anything.

  --clients N   (default 400)
  --factor N    times the capacity (default 5)
  --seconds N   of each part (default 6)`

const LINES = 100
const GOOD_MS = 2_000
const QUIET_S = 10
/** In each round, in turn. */
const TURNS = 3
const BODY =
  `{"payload":{"id":1234567,"to":"customer-123@example.com","subject":"order shipped","total":123}}\n`.repeat(LINES)
const CAPACITY_CONNECTIONS = 32

interface Round {
  readonly capacity: number
  readonly atCapacity: readonly RushFigures[]
  readonly atTwice: readonly RushFigures[]
  readonly rushed: readonly RushFigures[]
  readonly after: readonly RushFigures[]
  readonly rude: readonly RushFigures[]
}

async function main(): Promise<void> {
  const options = readOptions(usage, { clients: 'string', factor: 'string', seconds: 'string' })
  const clients = options.number('clients', 400)
  const factor = options.number('factor', 5)
  const seconds = options.number('seconds', options.quick ? 3 : 6)
  await using bench = await openBench(options)
  const machine = readMachine(options.dir)
  const { post } = childrenOf<typeof import('./http-client.ts')>(bench, './http-client.ts')
  const { rush } = childrenOf<typeof import('./overload-client.ts')>(bench, './overload-client.ts')
  const common = { path: JOBS_PATH, type: 'application/x-ndjson', body: BODY }

  const runRound = (folder: string): Promise<Round> =>
    bench.withServer('./gateway-side.ts', 'serveSluice', { folder }, findFreePort, async (port) => {
      const { perSecond: capacity } = await post({
        ...common,
        port,
        connections: CAPACITY_CONNECTIONS,
        requests: options.quick ? 2_000 : 6_000,
        status: 200,
      })
      const wish = { ...common, port, clients, seconds, goodMs: GOOD_MS, honours: true } satisfies Omit<
        RushOptions,
        'perSecond'
      >
      const atCapacity: RushFigures[] = []
      const atTwice: RushFigures[] = []
      const rushed: RushFigures[] = []
      const rude: RushFigures[] = []
      for (let turn = 1; turn <= TURNS; turn++) {
        atCapacity.push(await rush({ ...wish, perSecond: capacity }))
        atTwice.push(await rush({ ...wish, perSecond: 2 * capacity }))
        rushed.push(await rush({ ...wish, perSecond: factor * capacity }))
        rude.push(await rush({ ...wish, perSecond: factor * capacity, honours: false }))
        say(
          `turn ${turn}/${TURNS}: stored in time ${[atCapacity, atTwice, rushed, rude].map((all) => tell(all.at(-1)?.good ?? 0)).join(', ')}`,
        )
      }
      rushed.push(await rush({ ...wish, perSecond: factor * capacity }))
      await new Promise((resolve) => setTimeout(resolve, QUIET_S * 1_000))
      const after = [await rush({ ...wish, perSecond: capacity / 2 })]
      return { capacity, atCapacity, atTwice, rushed, after, rude }
    })

  const rounds: Round[] = []
  const wanted = options.quick ? 1 : Math.min(options.pairs, 3)
  for (let round = 1; round <= wanted; round++) {
    const figures = await bench.inFolder(runRound)
    rounds.push(figures)
    const { capacity, after } = figures
    say(
      `round ${round}/${wanted}: capacity ${tell(capacity)} batches/s, afterwards ${tell(after[0]?.refused ?? 0)} refused`,
    )
  }
  // Of a round: both are of the same server in the same minute.
  const goods = (all: readonly RushFigures[]): number[] => all.map(({ good }) => good)
  // What a closed loop can do is not quite what these clients get through, so the peak is looked for at two loads.
  const shares = rounds.map(({ atCapacity, atTwice, rushed }) =>
    Math.min(ratioOfMedians(goods(rushed), goods(atCapacity)), ratioOfMedians(goods(rushed), goods(atTwice))),
  )
  const refusedAfter = rounds.flatMap(({ after }) => after.map(({ refused }) => refused * seconds))
  const row = (name: string, of: (round: Round) => readonly RushFigures[]) => {
    const all = rounds.flatMap(of)
    const figure = (name: keyof RushFigures): string => spread(all.map((one) => one[name]))
    return [
      name,
      figure('wanted'),
      figure('good'),
      figure('accepted'),
      figure('refused'),
      figure('held'),
      figure('p99Ms'),
    ]
  }
  const report = createReport('gateway-overload', options, machine, {
    tables: [
      {
        title: `Batches of ${LINES} jobs a second, ${count(clients)} clients, ${count(wanted)} rounds: median (least to most)`,
        head: ['load', 'wanted', `stored within ${GOOD_MS / 1_000} s`, 'stored', 'refused', 'not sent', 'p99 ms'],
        rows: [
          row('at the capacity', ({ atCapacity }) => atCapacity),
          row('twice', ({ atTwice }) => atTwice),
          row(`${factor} times`, ({ rushed }) => rushed),
          row(`half, ${QUIET_S} s later`, ({ after }) => after),
          row(`${factor} times, by clients that honour nothing`, ({ rude }) => rude),
        ],
      },
    ],
    bars: [
      atLeast(`goodput at ${factor} times the capacity, of its peak`, 0.9, median(shares)),
      atMost(`refused ${QUIET_S} s after`, 0, Math.max(...refusedAfter), ''),
    ],
    notes: ['Clients and server share the machine, so what the clients cost is missing at the server, at either load.'],
  })
  printReport(report, options.json)
}

if (import.meta.main) await main()
