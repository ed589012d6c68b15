/**
 * The bare loop: the least that a durable queue in one Node process can do, and what every speed here is told against.
 * It appends to a growing file with `fs.promises`, calls `datasync`, and commits whatever waits: messages that arrive
 * while a commit is under way go with the next one. One promise and one `JSON.stringify` a message. It keeps no order
 * by key, no attempts, no limits, and nobody can read from it.
 */
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { childrenOf, interleave, median, openBench, readOptions } from './harness.ts'
import {
  createPayload,
  meanPayloadBytes,
  measurePublish,
  measureSteady,
  type Payload,
  type PublishFigures,
  type PublishOptions,
  type SteadyFigures,
  type SteadyOptions,
} from './load.ts'
import { createReport, printReport, readMachine, spread, tell } from './report.ts'

export interface BareLoop {
  /** Resolves once the message is on disk. */
  publish(payload: unknown): Promise<void>
  close(): Promise<void>
}

export async function openBareLoop(path: string): Promise<BareLoop> {
  const file = await open(path, 'w')
  let lines: string[] = []
  let waiting: { resolve: () => void; reject: (error: unknown) => void }[] = []
  let committing = false

  async function commitWhatWaits(): Promise<void> {
    while (waiting.length > 0) {
      const batch = waiting
      const text = lines.join('')
      waiting = []
      lines = []
      try {
        await file.appendFile(text)
        await file.datasync()
      } catch (error) {
        for (const { reject } of batch) reject(error)
        continue
      }
      for (const { resolve } of batch) resolve()
    }
    committing = false
  }

  return {
    publish(payload) {
      return new Promise((resolve, reject) => {
        lines.push(`${JSON.stringify(payload)}\n`)
        waiting.push({ resolve, reject })
        if (committing) return
        committing = true
        queueMicrotask(commitWhatWaits)
      })
    },
    close: () => file.close(),
  }
}

async function withBareLoop<T>(folder: string, use: (publish: (payload: Payload) => Promise<void>) => Promise<T>) {
  const loop = await openBareLoop(join(folder, 'bare-loop'))
  try {
    return await use(loop.publish)
  } finally {
    await loop.close()
  }
}

export function publishToBareLoop(options: PublishOptions): Promise<PublishFigures> {
  return withBareLoop(options.folder, (publish) => measurePublish(options, (id) => publish(createPayload(id))))
}

/** Latency at a steady rate, from the call to the end of its `datasync`: the disk's own. */
export function steadyToBareLoop(options: SteadyOptions): Promise<SteadyFigures> {
  return withBareLoop(options.folder, (publish) =>
    measureSteady(options, (arrived) => (id) => {
      publish(createPayload(id)).then(() => arrived(id))
    }),
  )
}

const usage = `
Usage: node bench/bare-loop.ts [options]

The bare loop alone: how fast this machine's disk and Node can append, sync and resolve. No bars: the other benchmarks
run it in turn with what they measure.`

async function main(): Promise<void> {
  const options = readOptions(usage)
  await using bench = await openBench(options)
  const machine = readMachine(options.dir)
  const { publishToBareLoop } = childrenOf<typeof import('./bare-loop.ts')>(bench, './bare-loop.ts')
  const side = (inFlight: number, messages: number) => () =>
    bench.inFolder((folder) => publishToBareLoop({ folder, inFlight, messages, keys: 0 }))
  const scale = options.quick ? 0.25 : 1
  const results = await interleave(
    'bare loop',
    options.pairs,
    { '1': side(1, 4_000 * scale), '256': side(256, 400_000 * scale), '4,096': side(4_096, 1_000_000 * scale) },
    (figures: PublishFigures) => `${tell(figures.perSecond)}/s`,
  )
  const rows = Object.entries(results).map(([inFlight, runs]) => [
    inFlight,
    spread(runs.map((run) => run.perSecond)),
    median(runs.map((run) => run.p50Ms ?? Number.NaN)),
    median(runs.map((run) => run.p99Ms ?? Number.NaN)),
    median(runs.map((run) => run.cpuSecondsPer100k)),
  ])
  const title = `The bare loop, payload of ${tell(meanPayloadBytes(400_000))} bytes`
  const head = ['in flight', 'messages/s', 'p50 ms', 'p99 ms', 'CPU s per 100,000']
  printReport(createReport('bare-loop', options, machine, { tables: [{ title, head, rows }], bars: [] }), options.json)
}

if (import.meta.main) await main()
