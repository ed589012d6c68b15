/**
 * Durable publish and the whole path on Redis, RabbitMQ and Kafka, against a loop written by hand over the same client on
 * the same server: one message at a time, and 256 and 1,024 in flight. The bars are for Sluice as the owner of the data;
 * as a member of another process's it stands beside it, for information.
 */
import { randomUUID } from 'node:crypto'
import { BROKER_KINDS, type BrokerKind } from '../scripts/brokers/engines.ts'
import {
  type Bench,
  type BenchOptions,
  childrenOf,
  interleave,
  median,
  openBench,
  ratioOfMedians,
  readOptions,
  type Sides,
} from './harness.ts'
import { type EndToEndFigures, meanPayloadBytes, type PublishFigures } from './load.ts'
import { atLeast, type Bar, type Cell, count, createReport, printReport, readMachine, spread, tell } from './report.ts'

const usage = `
Usage: node bench/brokers.ts [options]

Publish, and publish, lease, handle, settle, all durable, on real brokers that are started for it: Sluice against a loop
over the same client (redis-loop.ts, rabbitmq-loop.ts, kafka-loop.ts).

  --broker NAME  only redis, rabbitmq or kafka
  --only N       only with N in flight (1, 256 or 1024)
  --publish      only publishing
  --end-to-end   only the whole path
  --owner        leave out Sluice as a member of another process's data`

const BAR = 0.8
/** Of Sluice's worker. */
const CONCURRENCY = 1_024
const IN_FLIGHT = [1, 256, 1_024]
const MESSAGES_ALONE = 2_000
/** Seconds of either side, and enough for Sluice to begin to sweep. */
const MESSAGES: Readonly<Record<What, number>> = { publish: 400_000, endToEnd: 200_000 }

interface Run {
  readonly url: string
  readonly name: string
  readonly folder: string
  readonly messages: number
  readonly inFlight: number
}

interface Loop {
  publish(run: Run & { keys: number }): Promise<PublishFigures>
  endToEnd(run: Run & { concurrency: number }): Promise<EndToEndFigures>
}

function loopOf(kind: BrokerKind, bench: Bench): Loop {
  if (kind.name === 'Redis') {
    const loop = childrenOf<typeof import('./redis-loop.ts')>(bench, './redis-loop.ts')
    return { publish: loop.publishToRedisLoop, endToEnd: loop.endToEndOnRedisLoop }
  }
  if (kind.name === 'Kafka') {
    const loop = childrenOf<typeof import('./kafka-loop.ts')>(bench, './kafka-loop.ts')
    return { publish: loop.publishToKafkaLoop, endToEnd: loop.endToEndOnKafkaLoop }
  }
  const loop = childrenOf<typeof import('./rabbitmq-loop.ts')>(bench, './rabbitmq-loop.ts')
  return {
    publish: (run) => loop.publishToRabbitmqLoop({ ...run, kind: 'stream' }),
    endToEnd: (run) => loop.endToEndOnRabbitmqLoop({ ...run, kind: 'stream' }),
  }
}

type Figures = PublishFigures | EndToEndFigures
type What = 'publish' | 'endToEnd'
type Use = (where: { url: string; name: string }) => Promise<Figures>

type WithServer = (use: (url: string) => Promise<Figures>) => Promise<Figures>

const TITLES: Readonly<Record<What, string>> = { publish: 'publish', endToEnd: 'end to end' }
const ALONE = 'a loop by hand'
const OWNER = 'Sluice, owner'
const MEMBER = 'Sluice, member'

/** What is measured on one kind of broker. */
class Comparison {
  readonly rows: Cell[][] = []
  readonly bars: Bar[] = []
  readonly #bench: Bench
  readonly #options: BenchOptions
  readonly #kind: BrokerKind
  /** A server for one measurement, or one for all. */
  readonly #withServer: WithServer

  constructor(bench: Bench, kind: BrokerKind, withServer: WithServer) {
    this.#bench = bench
    this.#options = bench.options
    this.#kind = kind
    this.#withServer = withServer
  }

  async measure(what: What, inFlight: number): Promise<void> {
    const { name } = this.#kind
    const messages = (inFlight === 1 ? MESSAGES_ALONE : MESSAGES[what]) * (this.#options.quick ? 0.3 : 1)
    const run = { folder: '', messages, inFlight, keys: 0, concurrency: CONCURRENCY }
    const loop = loopOf(this.#kind, this.#bench)
    const sluice = childrenOf<typeof import('./broker-side.ts')>(this.#bench, './broker-side.ts')
    const side = { publish: sluice.publishToBroker, endToEnd: sluice.endToEndOnBroker }[what]
    const sides: Sides = {
      [ALONE]: () => this.#run((where) => loop[what]({ ...run, ...where })),
      [OWNER]: () => this.#run((where) => side({ ...run, ...where })),
    }
    if (!this.#options.flag('owner'))
      sides[MEMBER] = () => this.#run((where) => this.#besideOwner(where, () => side({ ...run, ...where })))
    const title = `${name}, ${TITLES[what]}, ${count(inFlight)} in flight`
    const results = (await interleave(title, this.#options.pairs, sides, tellFigures)) as Record<string, Figures[]>
    this.#add(title, inFlight, results)
  }

  #run(use: Use): Promise<Figures> {
    return this.#withServer((url) => use({ url, name: `bench-${randomUUID()}` }))
  }

  /** Another process owns the data meanwhile. */
  async #besideOwner(where: { url: string; name: string }, use: () => Promise<Figures>): Promise<Figures> {
    const owner = this.#bench.start('./broker-side.ts', 'ownForOthers', where)
    await owner.ready
    try {
      return await use()
    } finally {
      owner.kill()
      await owner.result.catch(() => {})
    }
  }

  #add(title: string, inFlight: number, results: Record<string, Figures[]>): void {
    const base = results[ALONE] ?? []
    for (const [side, runs] of Object.entries(results)) {
      const ratio = ratioOfMedians(ratesOf(runs), ratesOf(base))
      const cpu = median(runs.map(({ cpuSecondsPer100k }) => cpuSecondsPer100k))
      const p50 =
        inFlight === 1 ? spread(runs.map((run) => ('p50Ms' in run ? (run.p50Ms ?? Number.NaN) : Number.NaN))) : '-'
      this.rows.push([title, side, spread(ratesOf(runs)), p50, cpu, ratio])
      if (side === OWNER && inFlight > 1) this.bars.push(atLeast(`${title}, of a loop by hand`, BAR, ratio))
    }
  }
}

function ratesOf(runs: readonly Figures[]): number[] {
  return runs.map(({ perSecond }) => perSecond)
}

function tellFigures(figures: Figures): string {
  return 'p50Ms' in figures && figures.p50Ms !== null ? `p50 ${tell(figures.p50Ms)} ms` : `${tell(figures.perSecond)}/s`
}

async function compare(bench: Bench, kind: BrokerKind): Promise<Comparison> {
  // The names of the loop on Redis are always the same, and a server is there at once.
  const shared = kind.name === 'Redis' ? null : await kind.start()
  try {
    const comparison = new Comparison(bench, kind, async (use) => {
      if (shared !== null) return await use(shared.url)
      await using broker = await kind.start()
      return await use(broker.url)
    })
    const { options } = bench
    const isAll = options.flag('publish') === options.flag('end-to-end')
    const only = options.number('only', 0)
    for (const what of ['publish', 'endToEnd'] as const) {
      if (!isAll && !options.flag(what === 'publish' ? 'publish' : 'end-to-end')) continue
      for (const inFlight of IN_FLIGHT) {
        if (only !== 0 && inFlight !== only) continue
        // With one in flight, the whole path waits for nothing but publishing.
        if (inFlight > 1 || what === 'publish') await comparison.measure(what, inFlight)
      }
    }
    return comparison
  } finally {
    // Its folder goes with it.
    await shared?.[Symbol.asyncDispose]()
  }
}

async function main(): Promise<void> {
  const options = readOptions(usage, {
    broker: 'string',
    only: 'string',
    publish: 'boolean',
    'end-to-end': 'boolean',
    owner: 'boolean',
  })
  const broker = options.choice('broker', ['redis', 'rabbitmq', 'kafka'])
  const kinds = BROKER_KINDS.filter(({ name }) => broker === null || name.toLowerCase() === broker)
  await using bench = await openBench(options)
  const versions: Record<string, string> = {}
  for (const kind of kinds) {
    const version = await kind.find()
    if (version === null) throw new Error(`${kind.name} is missing, so nothing is measured on it`)
    versions[kind.name] = version
  }
  const machine = readMachine(options.dir, versions)
  const done: Comparison[] = []
  for (const kind of kinds) done.push(await compare(bench, kind))
  const title = `On a broker, payload of ${tell(meanPayloadBytes(MESSAGES.publish))} bytes: median (least to most)`
  const head = ['what', 'side', 'messages/s', 'p50 ms', 'CPU s per 100,000', 'of the loop']
  const report = createReport('brokers', options, machine, {
    tables: [{ title, head, rows: done.flatMap(({ rows }) => rows) }],
    bars: done.flatMap(({ bars }) => bars),
    notes: [
      'CPU is that of the process that publishes and works: neither that of the server, nor of another owner of the data.',
    ],
  })
  printReport(report, options.json)
}

if (import.meta.main) await main()
