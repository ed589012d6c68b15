/** NDJSON batches of 500 jobs over HTTP against `queue.addMany` in process. */

import { type AddManyOptions, BATCH_500, BATCH_LINES, JOBS_PATH } from './gateway-side.ts'
import { childrenOf, interleave, openBench, ratioOfMedians, readOptions } from './harness.ts'
import { findFreePort } from './redis.ts'
import { atLeast, count, createReport, printReport, readMachine, spread, tell } from './report.ts'

const usage = `
Usage: node bench/gateway-batches.ts [options]

Durable jobs of 100 bytes, ${BATCH_LINES} to a batch, 8 batches at once: lines of NDJSON over HTTP from another process, against
queue.addMany() in the process that has the folder.

  --at-once N    batches at once (default 8)`

async function main(): Promise<void> {
  const options = readOptions(usage, { 'at-once': 'string' })
  const atOnce = options.number('at-once', 8)
  const batches = options.quick ? 200 : 800
  await using bench = await openBench(options)
  const machine = readMachine(options.dir)
  const { post } = childrenOf<typeof import('./http-client.ts')>(bench, './http-client.ts')
  const { addMany } = childrenOf<typeof import('./gateway-side.ts')>(bench, './gateway-side.ts')
  const sides: Record<string, () => Promise<{ perSecond: number }>> = {
    [inProcess]: () => bench.inFolder((folder) => addMany({ folder, calls: atOnce, batches } satisfies AddManyOptions)),
    [overHttp]: () =>
      bench.inFolder((folder) =>
        bench.withServer('./gateway-side.ts', 'serveSluice', { folder }, findFreePort, async (port) => {
          const { perSecond } = await post({
            port,
            path: JOBS_PATH,
            type: 'application/x-ndjson',
            body: BATCH_500,
            connections: atOnce,
            requests: batches,
            status: 200,
          })
          return { perSecond: perSecond * BATCH_LINES }
        }),
      ),
  }
  const results = await interleave(
    `batches of ${BATCH_LINES}`,
    options.pairs,
    sides,
    (figures: { perSecond: number }) => `${tell(figures.perSecond)}/s`,
  )
  const rates = (side: string): number[] => (results[side] ?? []).map(({ perSecond }) => perSecond)
  const rows = [inProcess, overHttp].map((side) => [
    side,
    spread(rates(side)),
    ratioOfMedians(rates(side), rates(inProcess)),
  ])
  const title = `Jobs of 100 bytes, ${BATCH_LINES} to a batch, ${count(atOnce)} batches at once: median (least to most)`
  const head = ['side', 'jobs/s', 'of addMany']
  const bars = [
    atLeast(
      `NDJSON batches of ${BATCH_LINES}, of addMany in process`,
      0.5,
      ratioOfMedians(rates(overHttp), rates(inProcess)),
    ),
  ]
  printReport(
    createReport('gateway-batches', options, machine, { tables: [{ title, head, rows }], bars }),
    options.json,
  )
}

const inProcess = 'addMany in process'
const overHttp = 'NDJSON over HTTP'

if (import.meta.main) await main()
