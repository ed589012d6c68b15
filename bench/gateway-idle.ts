/** Thousands of event streams and long polls on which nothing happens: what each costs, and what publishers feel. */
import { BODY_100, JOBS_PATH } from './gateway-side.ts'
import { type Bench, childrenOf, median, openBench, readOptions, say } from './harness.ts'
import type { PostFigures } from './http-client.ts'
import type { HoldOptions } from './idle-side.ts'
import { findFreePort } from './redis.ts'
import { atMost, count, createReport, printReport, readMachine, spread, tell } from './report.ts'

const usage = `
Usage: node bench/gateway-idle.ts [options]

5,000 event streams of a topic and 1,000 long polls of a queue, idle, from another process: resident memory of the server
for each connection against as many streams of a bare node:http server, and the p99 of publishing (POST, 16 connections)
with them and without, in turn. Needs as many open files: see ulimit -n.

  --streams N    (default 5000)
  --polls N      (default 1000)`

const PUBLISH_CONNECTIONS = 16
const KIB = 1_024
/** Of publishing with and without, over one server. */
const TURNS = 2
const FEW = 100

interface Memory {
  readonly rss: number
  readonly heapUsed: number
  readonly external: number
}

interface SideFigures {
  /** Resident KiB for each connection. */
  readonly kib: number
  readonly without: readonly PostFigures[]
  readonly with: readonly PostFigures[]
}

async function main(): Promise<void> {
  const options = readOptions(usage, { streams: 'string', polls: 'string' })
  const streams = options.number('streams', options.quick ? 1_000 : 5_000)
  const polls = options.number('polls', options.quick ? 200 : 1_000)
  const rounds = options.quick ? 2 : Math.min(options.pairs, 5)
  await using bench = await openBench(options)
  const machine = readMachine(options.dir)
  const requests = options.quick ? 5_000 : 15_000
  const bare: SideFigures[] = []
  const ours: SideFigures[] = []
  for (let round = 1; round <= rounds; round++) {
    bare.push(await measure(bench, 'serveBareIdle', { streams: streams + polls, polls: 0 }, 0))
    ours.push(await measure(bench, 'serveSluiceIdle', { streams, polls }, requests))
    const last = ours.at(-1)
    say(
      `${round}/${rounds}: bare ${tell(bare.at(-1)?.kib ?? 0)} KiB, Sluice ${tell(last?.kib ?? 0)} KiB a connection; p99 ${(last?.without ?? []).map(({ p99Ms }) => tell(p99Ms))} ms without, ${(last?.with ?? []).map(({ p99Ms }) => tell(p99Ms))} ms with them`,
    )
  }
  const kib = (sides: readonly SideFigures[]): number[] => sides.map((side) => side.kib)
  const p99 = (of: 'with' | 'without'): number[] => ours.flatMap((side) => side[of].map(({ p99Ms }) => p99Ms))
  const p50 = (of: 'with' | 'without'): number[] => ours.flatMap((side) => side[of].map(({ p50Ms }) => p50Ms))
  const connections = `${count(streams)} streams, ${count(polls)} long polls`
  const report = createReport('gateway-idle', options, machine, {
    tables: [
      {
        title: `Resident memory of the server, ${connections}: median (least to most)`,
        head: ['server', 'KiB a connection'],
        rows: [
          ['bare node:http, streams only', spread(kib(bare))],
          ['Sluice', spread(kib(ours))],
        ],
      },
      {
        title: `POST of a durable job, ${PUBLISH_CONNECTIONS} connections`,
        head: ['', 'p50 ms', 'p99 ms'],
        rows: [
          ['without them', spread(p50('without')), spread(p99('without'))],
          ['with them', spread(p50('with')), spread(p99('with'))],
        ],
      },
    ],
    bars: [
      atMost(`${connections}: memory a connection, of bare node:http`, 1.5, median(kib(ours)) / median(kib(bare))),
      atMost('publish p99 with them, of that without', 2, median(p99('with')) / median(p99('without'))),
    ],
  })
  printReport(report, options.json)
}

async function measure(
  bench: Bench,
  name: 'serveBareIdle' | 'serveSluiceIdle',
  idle: Omit<HoldOptions, 'port'>,
  requests: number,
): Promise<SideFigures> {
  const controlPort = await findFreePort()
  const { post } = childrenOf<typeof import('./http-client.ts')>(bench, './http-client.ts')
  const publish = (port: number): Promise<PostFigures> =>
    post({
      port,
      path: JOBS_PATH,
      type: 'application/json',
      body: BODY_100,
      connections: PUBLISH_CONNECTIONS,
      requests,
      status: 202,
    })
  return bench.inFolder((folder) =>
    bench.withServer('./idle-side.ts', name, { folder, controlPort }, findFreePort, async (port) => {
      // What the first of them cost (code, buffers that are kept) is there before; then memory, before anything is published.
      const few = bench.start('./idle-side.ts', 'holdIdle', { port, streams: FEW, polls: idle.polls === 0 ? 0 : FEW })
      await few.ready
      few.kill()
      await few.result.catch(() => {})
      const before = await readMemory(controlPort)
      const hold = async (): Promise<() => Promise<void>> => {
        const holder = bench.start('./idle-side.ts', 'holdIdle', { port, ...idle } satisfies HoldOptions)
        await holder.ready
        return async () => {
          holder.kill()
          await holder.result.catch(() => {})
        }
      }
      let release = await hold()
      const after = await readMemory(controlPort)
      const figures = { kib: (after.rss - before.rss) / KIB / (idle.streams + idle.polls) }
      const withThem: PostFigures[] = []
      const without: PostFigures[] = []
      for (let turn = 0; requests > 0 && turn < TURNS; turn++) {
        if (turn > 0) release = await hold()
        withThem.push(await publish(port))
        await release()
        without.push(await publish(port))
      }
      await release()
      return { ...figures, with: withThem, without }
    }),
  )
}

async function readMemory(port: number): Promise<Memory> {
  return (await (await fetch(`http://127.0.0.1:${port}/`)).json()) as Memory
}

if (import.meta.main) await main()
