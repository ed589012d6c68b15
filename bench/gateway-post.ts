/** `POST` of a durable job: against the same framework that stores nothing, and against a route that adds to BullMQ. */
import { BODY_100, JOBS_PATH } from './gateway-side.ts'
import { childrenOf, interleave, openBench, ratioOfMedians, readOptions } from './harness.ts'
import type { PostFigures } from './http-client.ts'
import { findFreePort, installBullmq, installRedis, startRedis } from './redis.ts'
import { atLeast, count, createReport, printReport, readMachine, spread, tell } from './report.ts'

const usage = `
Usage: node bench/gateway-post.ts [options]

A durable job of 100 bytes by POST, 64 connections, one request at a time on each: Sluice with its folder on disk, the
same Fastify with one route that answers 202 and stores nothing, and a Fastify route that adds to BullMQ on Redis with
appendfsync always: as BullMQ is by default, which the bar is about, and with auto-pipelining. Server, client and
redis-server are processes of their own.

  --connections N (default 64)
  --no-bullmq     leave BullMQ out: it needs redis-server, and its packages from the registry`

async function main(): Promise<void> {
  const options = readOptions(usage, { connections: 'string', 'no-bullmq': 'boolean' })
  const connections = options.number('connections', 64)
  const withBullmq = !options.flag('no-bullmq')
  const versions = withBullmq ? { ...installBullmq(), redis: installRedis() } : {}
  await using bench = await openBench(options)
  const machine = readMachine(options.dir, versions)
  const scale = options.quick ? 0.25 : 1
  const drive = (port: number, requests: number): Promise<PostFigures> =>
    childrenOf<typeof import('./http-client.ts')>(bench, './http-client.ts').post({
      port,
      path: JOBS_PATH,
      type: 'application/json',
      body: BODY_100,
      connections,
      requests: Math.ceil(requests * scale),
      status: 202,
    })
  const sides: Record<string, () => Promise<PostFigures>> = {
    [bare]: () =>
      bench.inFolder((folder) =>
        bench.withServer(SIDE, 'serveBare', { folder }, findFreePort, (port) => drive(port, 60_000)),
      ),
    [ours]: () =>
      bench.inFolder((folder) =>
        bench.withServer(SIDE, 'serveSluice', { folder }, findFreePort, (port) => drive(port, 60_000)),
      ),
  }
  if (withBullmq) {
    for (const autoPipelining of [true, false])
      sides[autoPipelining ? bullmqPiped : bullmq] = () =>
        bench.inFolder(async (folder) => {
          await using redis = await startRedis(folder)
          const settings = { redisPort: redis.port, autoPipelining }
          return await bench.withServer('./bullmq/http-side.ts', 'serveBullmq', settings, findFreePort, (port) =>
            drive(port, 8_000),
          )
        })
  }
  const results = await interleave(
    `POST, ${connections} connections`,
    options.pairs,
    sides,
    (figures: PostFigures) => `${tell(figures.perSecond)}/s`,
  )
  const rates = (side: string): number[] => (results[side] ?? []).map(({ perSecond }) => perSecond)
  const rows = Object.entries(results).map(([side, runs]) => [
    side,
    spread(rates(side)),
    spread(runs.map(({ p50Ms }) => p50Ms)),
    spread(runs.map(({ p99Ms }) => p99Ms)),
    ratioOfMedians(rates(side), rates(bare)),
    ratioOfMedians(rates(ours), rates(side)),
  ])
  const bars = [
    atLeast(
      `POST, ${connections} connections, of Fastify storing nothing`,
      0.5,
      ratioOfMedians(rates(ours), rates(bare)),
    ),
  ]
  if (withBullmq) {
    // As BullMQ is by default; the table says what becomes of it with auto-pipelining.
    const plain = ratioOfMedians(rates(ours), rates(bullmq))
    bars.push(atLeast('the same over a Fastify route that adds to BullMQ', 3, plain))
  }
  const head = ['side', 'requests/s', 'p50 ms', 'p99 ms', 'of Fastify storing nothing', 'Sluice over it']
  const title = `POST of a 100-byte job, ${count(connections)} connections: median (least to most)`
  printReport(createReport('gateway-post', options, machine, { tables: [{ title, head, rows }], bars }), options.json)
}

const SIDE = './gateway-side.ts'
const bare = 'Fastify, stores nothing'
const ours = 'Sluice, durable'
const bullmq = 'BullMQ, always'
const bullmqPiped = 'BullMQ, always, auto-pipelining'

if (import.meta.main) await main()
