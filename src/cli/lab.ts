/**
 * `sluice lab`: what happens when jobs are created faster than they are done, shown by doing it, for a few seconds, on
 * ':memory:'. What is printed was measured in this run.
 *
 * Each experiment has the same workers: `WORKERS` handlers that take `HANDLER_MS` each. What differs is who creates jobs,
 * how fast, and what holds them back.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { isSluiceError, open, type Queue, type QueueOptions, type Sluice } from '../index.ts'
import { type Command, UsageError } from './command.ts'
import { print } from './plain.ts'
import { createProgress } from './progress.ts'
import { quantile, round, sparkline } from './quantiles.ts'
import { INTERRUPTED, stopOnSignal } from './stopping.ts'
import { formatTable } from './table.ts'

const WORKERS = 4
const HANDLER_MS = 20
/** Jobs a second that they can do. */
const CAPACITY = (WORKERS * 1_000) / HANDLER_MS
const LIMIT = 40
const TICK_MS = 10
const SAMPLES = 24
/** A drain that takes longer than this many times the run is cut off. */
const MAX_DRAIN = 3

interface Experiment {
  readonly name: string
  /** Jobs created in a second; null: callers that wait for each result before they create the next. */
  readonly perSecond: number | null
  readonly options: QueueOptions
  readonly lesson: string
}

const CALLERS = 8

const EXPERIMENTS: readonly Experiment[] = [
  {
    name: `${CALLERS} callers that wait`,
    perSecond: null,
    options: {},
    lesson: `Synchronous: whoever waits for each answer creates no faster than it is done, whatever they would like. Nothing piles up; ${CALLERS} callers share ${WORKERS} workers, so each stands idle for about as long again as its job takes.`,
  },
  {
    name: 'half of what can be done',
    perSecond: CAPACITY / 2,
    options: {},
    lesson:
      'Slower than it can be done: all is accepted, hardly any job waits, and the workers are idle half of the time.',
  },
  {
    name: 'nine tenths of it',
    perSecond: CAPACITY * 0.9,
    options: {},
    lesson: 'Close to it: utilisation rises, and so does the wait, as any hiccup now takes long to make up for.',
  },
  {
    name: 'twice of it, no limit',
    perSecond: CAPACITY * 2,
    options: {},
    lesson:
      'Overload without a limit: all is accepted and no more is done. Depth and wait grow for as long as it lasts, and the last to come waits longest, also after it is over.',
  },
  {
    name: `twice of it, limit ${LIMIT}`,
    perSecond: CAPACITY * 2,
    options: { limit: { messages: LIMIT } },
    lesson: `Back pressure: as much is done, and who is accepted waits no longer than ${LIMIT} jobs take. The others hear QUEUE_FULL at once (over HTTP 503 with Retry-After), and can come again or give up.`,
  },
  {
    name: 'twice of it, paced',
    perSecond: CAPACITY * 2,
    options: { pace: { messages: CAPACITY * 0.9 } },
    lesson: `The producer holds itself back (pace: ${CAPACITY * 0.9}/s): add() resolves when its turn has come, so that jobs are created at the rate at which they are accepted. They wait at their source instead.`,
  },
]

export interface Measured {
  readonly experiment: string
  readonly wantedPerSecond: number | null
  readonly acceptedPerSecond: number
  readonly refusedPerSecond: number
  readonly donePerSecond: number
  /** Of the time of the workers. */
  readonly utilisation: number
  /** From wanted to accepted: what a producer is held back. */
  readonly sourceMs: { readonly p50: number; readonly p99: number }
  /** From accepted to started. */
  readonly waitMs: { readonly p50: number; readonly p99: number }
  readonly maxDepth: number
  /** Until nothing was left, after the last was created. */
  readonly drainMs: number
  readonly depths: readonly number[]
  readonly lesson: string
}

export const lab: Command = {
  name: 'lab',
  usage: '',
  about: `Shows what a queue does when jobs are created slower and faster than they can be done, by doing it in memory for a
few seconds: ${WORKERS} workers that take ${HANDLER_MS} ms a job, so ${CAPACITY} jobs a second, and six ways to feed them. The figures
are measured, on this machine, in this run; a busy machine does less than ${CAPACITY}.`,
  examples: ['sluice lab', 'sluice lab --seconds 10', 'sluice lab --json'],
  options: {
    seconds: { type: 'string', value: 'N', text: 'How long each of the six takes, without its drain. Default: 2' },
  },
  async run(input) {
    if (input.words.length > 0) throw new UsageError('sluice lab takes options only.')
    const runMs = (input.count('seconds', 1, 60) ?? 2) * 1_000
    const stop = stopOnSignal()
    const progress = createProgress()
    const results: Measured[] = []
    try {
      if (!input.isJson)
        process.stdout.write(`${WORKERS} workers, ${HANDLER_MS} ms a job: at most ${CAPACITY} jobs a second.\n\n`)
      for (const experiment of EXPERIMENTS) {
        progress.show(() => `${experiment.name} …`)
        const measured = await runExperiment(experiment, runMs, stop.signal)
        if (measured === null) return INTERRUPTED
        results.push(measured)
        progress.end()
        if (!input.isJson) process.stdout.write(describeOne(measured))
      }
      print(
        input.isJson,
        { workers: WORKERS, handlerMs: HANDLER_MS, capacityPerSecond: CAPACITY, results },
        summary(results),
      )
      return 0
    } finally {
      stop.release()
    }
  },
}

async function runExperiment(experiment: Experiment, runMs: number, signal: AbortSignal): Promise<Measured | null> {
  await using sluice = await open(':memory:')
  const queue = sluice.queue<number>('lab', { limit: { messages: 1_000_000 }, ...experiment.options })
  await queue.declare()
  const waits: number[] = []
  const counts = { accepted: 0, refused: 0, doneInTime: 0, busyMs: 0, sourceMs: [] as number[] }
  let isOver = false
  const worker = queue.work(
    async (job) => {
      const startMs = performance.now()
      waits.push(Math.max(0, Date.now() - job.timestampMs))
      await delay(HANDLER_MS)
      counts.busyMs += isOver ? 0 : performance.now() - startMs
      if (!isOver) counts.doneInTime++
    },
    { concurrency: WORKERS },
  )
  await worker.ready
  const depths: number[] = []
  const sampling = sample(sluice, depths, runMs / SAMPLES)
  const startMs = performance.now()
  const creating =
    experiment.perSecond === null ? call(queue, runMs, counts) : create(queue, experiment.perSecond, runMs, counts)
  await Promise.race([creating, aborted(signal)])
  isOver = true
  const tookMs = performance.now() - startMs
  const drainMs = signal.aborted ? 0 : await drain(sluice, runMs * MAX_DRAIN, signal)
  await sampling.stop()
  await worker.close({ drainMs: 0 })
  if (signal.aborted) return null
  const perSecond = (count: number) => round((count / tookMs) * 1_000)
  return {
    experiment: experiment.name,
    wantedPerSecond: experiment.perSecond,
    acceptedPerSecond: perSecond(counts.accepted),
    refusedPerSecond: perSecond(counts.refused),
    donePerSecond: perSecond(counts.doneInTime),
    utilisation: round(Math.min(1, counts.busyMs / (tookMs * WORKERS)), 2),
    sourceMs: { p50: round(quantile(counts.sourceMs, 0.5)), p99: round(quantile(counts.sourceMs, 0.99)) },
    waitMs: { p50: round(quantile(waits, 0.5)), p99: round(quantile(waits, 0.99)) },
    maxDepth: Math.max(0, ...depths),
    drainMs: round(drainMs),
    depths: depths.slice(0, SAMPLES),
    lesson: experiment.lesson,
  }
}

interface Counts {
  accepted: number
  refused: number
  readonly sourceMs: number[]
}

/** Creates jobs at a rate, whatever becomes of them: as callers do who know nothing of each other. */
async function create(queue: Queue<number>, perSecond: number, runMs: number, counts: Counts): Promise<void> {
  const startMs = performance.now()
  let created = 0
  for (;;) {
    const elapsedMs = performance.now() - startMs
    if (elapsedMs >= runMs) return
    const due = Math.floor((elapsedMs / 1_000) * perSecond)
    for (; created < due; created++) void add(queue, counts)
    await delay(TICK_MS)
  }
}

async function add(queue: Queue<number>, counts: Counts): Promise<void> {
  const startMs = performance.now()
  try {
    await queue.add(0)
    counts.accepted++
    counts.sourceMs.push(performance.now() - startMs)
  } catch (error) {
    if (isSluiceError(error, 'QUEUE_FULL')) counts.refused++
    // What still waits for its turn at the end is given up: it was never created.
    else if (!isSluiceError(error, 'CLOSED')) throw error
  }
}

async function call(queue: Queue<number>, runMs: number, counts: Counts): Promise<void> {
  const untilMs = performance.now() + runMs
  const caller = async () => {
    while (performance.now() < untilMs) {
      await queue.call(0)
      counts.accepted++
    }
  }
  await Promise.all(Array.from({ length: CALLERS }, caller))
}

async function drain(sluice: Sluice, maxMs: number, signal: AbortSignal): Promise<number> {
  const startMs = performance.now()
  while (performance.now() - startMs < maxMs && !signal.aborted) {
    if ((await depthOf(sluice)) === 0) break
    await delay(TICK_MS)
  }
  return performance.now() - startMs
}

async function depthOf(sluice: Sluice): Promise<number> {
  return (await sluice.stats()).topics[0]?.depth.messages ?? 0
}

function sample(sluice: Sluice, depths: number[], everyMs: number) {
  let isOver = false
  const looking = (async () => {
    while (!isOver) {
      await delay(everyMs)
      if (!isOver) depths.push(await depthOf(sluice))
    }
  })()
  return {
    async stop() {
      isOver = true
      await looking
    },
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}

function describeOne({ experiment, depths, maxDepth, lesson }: Measured): string {
  return `${experiment}\n  depth  ${sparkline(depths, Math.max(maxDepth, LIMIT))}  at most ${maxDepth.toLocaleString('en-US')}\n${wrap(lesson)}\n`
}

function wrap(text: string): string {
  const lines: string[] = ['']
  for (const word of text.split(' ')) {
    const last = lines.at(-1) as string
    if (last.length + word.length > 100) lines.push(word)
    else lines[lines.length - 1] = last === '' ? word : `${last} ${word}`
  }
  return lines.map((line) => `  ${line}\n`).join('')
}

function summary(results: readonly Measured[]): string {
  return formatTable(
    [
      'JOBS A SECOND',
      'WANTED',
      'ACCEPTED',
      'REFUSED',
      'DONE',
      'BUSY %',
      'AT SOURCE MS',
      'WAIT P50 MS',
      'P99 MS',
      'MAX DEPTH',
      'DRAIN MS',
    ],
    results.map((one) => [
      one.experiment,
      one.wantedPerSecond === null ? 'as answered' : String(one.wantedPerSecond),
      one.acceptedPerSecond,
      one.refusedPerSecond,
      one.donePerSecond,
      Math.round(one.utilisation * 100),
      one.sourceMs.p50,
      one.waitMs.p50,
      one.waitMs.p99,
      one.maxDepth,
      one.drainMs,
    ]),
  )
}
