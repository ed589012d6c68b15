/** What a callback costs: jobs that ask for one beside jobs that do not, and how fast callbacks are sent. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { open } from '../src/index.ts'
import { childrenOf, interleave, openBench, ratioOfMedians, readOptions } from './harness.ts'
import { createPayload, drive, type Payload, startClock } from './load.ts'
import { createReport, printReport, readMachine, spread, tell } from './report.ts'
import { AMPLE_LIMIT } from './sluice-side.ts'

const usage = `
Usage: node bench/callbacks.ts [options]

Publisher (256 in flight) and worker (256 handlers) in one process, durable. In turn: jobs without a callback; jobs that
ask for one, which is stored and not sent; the same with a sender and a receiver on loopback that answers 204, until all
were taken.

  --messages N   in each run (default 20000)`

const SECRET = `whsec_${Buffer.alloc(32, 7).toString('base64')}`
const CALLBACKS = 'sluice.callbacks'

export interface CallbackBenchOptions {
  readonly folder: string
  readonly messages: number
  readonly kind: 'none' | 'stored' | 'sent'
}

export interface CallbackFigures {
  readonly perSecond: number
}

export async function measureCallbacks({ folder, messages, kind }: CallbackBenchOptions): Promise<CallbackFigures> {
  const { promise: allTaken, resolve: takenAll } = Promise.withResolvers<void>()
  let taken = 0
  const receiver = createServer((request, reply) => {
    request.resume().on('end', () => {
      reply.writeHead(204).end()
      if (++taken === messages) takenAll()
    })
  })
  receiver.listen(0, '127.0.0.1')
  await once(receiver, 'listening')
  const callbackUrl = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/`
  const sluice = await open(join(folder, 'sluice'), {
    ...(kind === 'sent' ? { callbacks: { secrets: [SECRET], allow: ['127.0.0.1'] } } : {}),
  })
  try {
    await sluice.queue(CALLBACKS, { limit: AMPLE_LIMIT }).declare()
    const queue = sluice.queue<Payload>('bench', { limit: AMPLE_LIMIT })
    const { promise: allHandled, resolve: handledAll } = Promise.withResolvers<void>()
    let handled = 0
    const options = kind === 'none' ? {} : { callbackUrl }
    const worker = queue.work(
      async () => {
        if (++handled === messages) handledAll()
      },
      { concurrency: 256 },
    )
    const clock = startClock()
    await drive({ from: 0, messages, inFlight: 256 }, (id) => queue.add(createPayload(id), options))
    await allHandled
    await worker.close()
    if (kind === 'sent') await allTaken
    return { perSecond: messages / clock().seconds }
  } finally {
    await sluice.close()
    receiver.close()
    receiver.closeAllConnections()
  }
}

async function main(): Promise<void> {
  const options = readOptions(usage, { messages: 'string' })
  const messages = options.number('messages', options.quick ? 5_000 : 20_000)
  await using bench = await openBench(options)
  const machine = readMachine(options.dir)
  const side = childrenOf<typeof import('./callbacks.ts')>(bench, './callbacks.ts')
  const measure = (kind: CallbackBenchOptions['kind']) => () =>
    bench.inFolder((folder) => side.measureCallbacks({ folder, messages, kind }))
  const sides = { 'no callback': measure('none'), 'stored, not sent': measure('stored'), sent: measure('sent') }
  const results = await interleave(
    'callbacks',
    options.pairs,
    sides,
    (figures: CallbackFigures) => `${tell(figures.perSecond)}/s`,
  )
  const rates = (name: keyof typeof sides): number[] => results[name].map(({ perSecond }) => perSecond)
  const names = Object.keys(sides) as (keyof typeof sides)[]
  const rows = names.map((name) => [name, spread(rates(name)), ratioOfMedians(rates(name), rates('no callback'))])
  const tables = [{ title: 'Callbacks: median (least to most)', head: ['side', 'jobs/s', 'of no callback'], rows }]
  printReport(createReport('callbacks', options, machine, { tables, bars: [] }), options.json)
}

if (import.meta.main) await main()
