/** How true `Retry-After` is: what a full queue says, against when room came. */
import { BODY_100, JOBS_PATH } from './gateway-side.ts'
import { childrenOf, openBench, quantile, readOptions } from './harness.ts'
import { findFreePort } from './redis.ts'
import { atMost, count, createReport, printReport, readMachine, tell } from './report.ts'

const usage = `
Usage: node bench/gateway-retry-after.ts [options]

A queue with a limit of 1,000 that is drained at a steady rate. It is filled, asked every 10 ms until it takes one more,
filled again, and so on. Of each refusal retryAfterMs is compared with the time that it took until one was let in.

  --refusals N   (default 1000)
  --rate N       drained a second (default 200)`

async function main(): Promise<void> {
  const options = readOptions(usage, { refusals: 'string', rate: 'string' })
  const refusals = options.number('refusals', options.quick ? 300 : 1_000)
  const perSecond = options.number('rate', 200)
  await using bench = await openBench(options)
  const machine = readMachine(options.dir)
  const { probe } = childrenOf<typeof import('./retry-after-client.ts')>(bench, './retry-after-client.ts')
  const { saidMs, cameMs } = await bench.inFolder((folder) =>
    bench.withServer('./gateway-side.ts', 'serveDraining', { folder, perSecond, limit: 1_000 }, findFreePort, (port) =>
      probe({ port, path: JOBS_PATH, body: BODY_100, refusals, everyMs: 10, fillers: 8 }),
    ),
  )
  const errors = saidMs.map((said, i) => Math.abs(said - (cameMs[i] as number)) / (cameMs[i] as number))
  const cells = [0.1, 0.5, 0.9].map((share) => `${tell(100 * quantile(errors, share))} %`)
  const report = createReport('gateway-retry-after', options, machine, {
    tables: [
      {
        title: `${count(errors.length)} refusals, drained at ${count(perSecond)} a second`,
        head: ['error of a tenth at most', 'median', 'of nine tenths', 'said ms, median', 'came ms, median'],
        rows: [[...cells, quantile(saidMs, 0.5), quantile(cameMs, 0.5)]],
      },
    ],
    bars: [atMost('Retry-After: median error', 0.5, quantile(errors, 0.5), '')],
  })
  printReport(report, options.json)
}

if (import.meta.main) await main()
