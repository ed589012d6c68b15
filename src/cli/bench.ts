/** `sluice bench`: what this machine and this engine do, measured from the outside, with what an acknowledgement means. */
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { cpus, loadavg, totalmem } from 'node:os'
import { join, resolve } from 'node:path'
import { isSluiceError, open, type Queue, type Sluice } from '../index.ts'
import { type Command, type Input, UsageError } from './command.ts'
import { openPlace, PLACE_OPTIONS, placeOf } from './opening.ts'
import { plain, print } from './plain.ts'
import { bytesText, createProgress, type Progress } from './progress.ts'
import { quantile, round } from './quantiles.ts'
import { INTERRUPTED, stopOnSignal } from './stopping.ts'
import { formatTable } from './table.ts'

const MEANINGS = {
  disk: 'what is acknowledged survives a power cut',
  os: 'what is acknowledged survives a killed process',
  memory: 'nothing survives the process',
} as const
const BATCH = 500
const BATCHES_AT_ONCE = 4
/** Measured one at a time; a slow disk ends it by time. */
const MAX_SINGLE = 2_000
const SINGLE_MS = 3_000

interface Row {
  readonly what: string
  readonly messages: number
  readonly perSecond: number
  readonly p50Ms?: number
  readonly p99Ms?: number
  /** Of this process, all its threads, for 100,000 messages. */
  readonly cpuSeconds: number
}

interface Bench {
  readonly queue: Queue<string, number>
  readonly messages: number
  readonly payload: string
  readonly concurrency: number
  readonly signal: AbortSignal
  readonly progress: Progress
}

export const bench: Command = {
  name: 'bench',
  usage: '',
  about: `Measures, one after the other, on a queue of its own that it leaves empty:

publish     jobs stored a second, in batches, while nobody works
work off    jobs done a second of those that wait
end to end  jobs a second from add to done, with a worker beside the publisher
one at a time  how long an add, and a call with its answer, take alone: half of them (p50), all but one of 100 (p99)

Without --url and --data it is a new folder in the current one, removed afterwards; with --data a new folder in that one;
':memory:' with --memory. On a machine that does other things it tells of those, too. For comparisons with other systems
see bench/ in the repository.`,
  examples: [
    'sluice bench',
    'sluice bench --memory',
    'sluice bench --url http://127.0.0.1:8787 --messages 5000 --json',
  ],
  options: {
    messages: { type: 'string', value: 'N', text: 'Jobs in each part. Default: 50000' },
    bytes: { type: 'string', value: 'N', text: 'Bytes of a payload. Default: 100' },
    concurrency: { type: 'string', value: 'N', text: 'Handlers at the same time. Default: 100' },
    memory: { type: 'boolean', text: "Measure ':memory:'." },
    url: { ...PLACE_OPTIONS.url, text: 'A server or a broker, as open() takes it.' } as never,
    data: { type: 'string', value: 'DIR', text: 'Make the folder in this one: its disk is measured.' },
  },
  async run(input) {
    if (input.words.length > 0) throw new UsageError('sluice bench takes options only.')
    const messages = input.count('messages', 100, 10_000_000) ?? 50_000
    const bytes = input.count('bytes', 1, 1_000_000) ?? 100
    const concurrency = input.count('concurrency', 1, 10_000) ?? 100
    const place = await openBenchPlace(input)
    const stop = stopOnSignal()
    const progress = createProgress()
    try {
      const queue = place.sluice.queue<string, number>(`bench-${randomBytes(4).toString('hex')}`, {
        limit: { messages: messages + MAX_SINGLE + 1_000, bytes: Math.max(2 ** 30, messages * (bytes + 200)) },
      })
      await queue.declare()
      const given = {
        queue,
        messages,
        payload: 'x'.repeat(Math.max(0, bytes - 2)),
        concurrency,
        signal: stop.signal,
        progress,
      }
      const rows: Row[] = []
      for (const part of [publish, workOff, endToEnd, addAlone, callAlone]) {
        rows.push(await part(given))
        if (stop.signal.aborted) return INTERRUPTED
      }
      progress.end()
      const report = { ...describeMachine(), ...describePlace(place), bytes, concurrency, rows }
      print(input.isJson, report, describe(report))
      return 0
    } catch (error) {
      if (stop.signal.aborted) return INTERRUPTED
      throw error
    } finally {
      progress.end()
      stop.release()
      await place.close()
    }
  },
}

interface Place {
  readonly sluice: Sluice
  readonly where: string
  close(): Promise<void>
}

async function openBenchPlace(input: Input): Promise<Place> {
  const isMemory = input.has('memory')
  const data = input.value('data')
  if ([isMemory, data !== undefined, input.value('url') !== undefined].filter(Boolean).length > 1)
    throw new UsageError('Name one of --url, --data and --memory.')
  if (isMemory) {
    const sluice = await open(':memory:')
    return { sluice, where: "':memory:'", close: () => sluice.close() }
  }
  if (input.value('url') !== undefined) {
    const sluice = await openPlace(input)
    return { sluice, where: placeOf(input), close: () => sluice.close({ drainMs: 0 }) }
  }
  const parent = resolve(data ?? '.')
  if (!existsSync(parent)) throw new UsageError(`--data names '${parent}', which is not there.`)
  // Beside the data, not in it, and on its disk: a folder for temporary files may be in memory.
  const folder = join(parent, `sluice-bench-${randomBytes(4).toString('hex')}`)
  await mkdir(folder, { mode: 0o700 })
  const sluice = await open(folder)
  return {
    sluice,
    where: `a folder in ${parent}`,
    async close() {
      await sluice.close({ drainMs: 0 })
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** Runs a part and says what it took. */
async function measure(what: string, messages: () => number, act: () => Promise<readonly number[]>): Promise<Row> {
  const cpuBefore = process.cpuUsage()
  const startMs = performance.now()
  const times = await act()
  const tookMs = performance.now() - startMs
  const { user, system } = process.cpuUsage(cpuBefore)
  const count = messages()
  return {
    what,
    messages: count,
    perSecond: round((count / tookMs) * 1_000),
    ...(times.length === 0 ? {} : { p50Ms: round(quantile(times, 0.5), 2), p99Ms: round(quantile(times, 0.99), 2) }),
    cpuSeconds: round(((user + system) / 1_000_000 / count) * 100_000, 2),
  }
}

/** Adds all, a few batches at a time. What is refused is a failure: the limit has room for all. */
async function addAll({ queue, messages, payload, signal, progress }: Bench, what: string): Promise<void> {
  let left = messages
  let done = 0
  const feeder = async () => {
    while (left > 0 && !signal.aborted) {
      const count = Math.min(BATCH, left)
      left -= count
      const outcomes = await queue.addMany(Array.from({ length: count }, () => ({ payload })))
      const refused = outcomes.find((outcome) => isSluiceError(outcome))
      if (refused !== undefined) throw refused
      done += count
      progress.show(() => `${what}: ${done.toLocaleString('en-US')} of ${messages.toLocaleString('en-US')}`)
    }
  }
  await Promise.all(Array.from({ length: BATCHES_AT_ONCE }, feeder))
}

async function publish(given: Bench): Promise<Row> {
  return measure(
    'publish',
    () => given.messages,
    async () => {
      await addAll(given, 'publish')
      return []
    },
  )
}

/** Handles until so many are done; gives when each was, in ms since it began. */
async function handleAll({ queue, messages, concurrency, signal, progress }: Bench, what: string): Promise<void> {
  let done = 0
  let finish: () => void = () => {}
  const finished = new Promise<void>((resolve) => (finish = resolve))
  signal.addEventListener('abort', finish, { once: true })
  const worker = queue.work(
    () => {
      if (++done === messages) finish()
      if (done % 1_000 === 0)
        progress.show(() => `${what}: ${done.toLocaleString('en-US')} of ${messages.toLocaleString('en-US')}`)
      return undefined as never
    },
    { concurrency },
  )
  await finished
  // Settled is what counts.
  await worker.close(signal.aborted ? { drainMs: 0 } : {})
}

function workOff(given: Bench): Promise<Row> {
  return measure(
    'work off',
    () => given.messages,
    async () => {
      await handleAll(given, 'work off')
      return []
    },
  )
}

function endToEnd(given: Bench): Promise<Row> {
  return measure(
    'end to end',
    () => given.messages,
    async () => {
      await Promise.all([addAll(given, 'end to end'), handleAll(given, 'end to end')])
      return []
    },
  )
}

/** Adds that stay: they are worked off by the calls that follow. */
async function addAlone({ queue, payload, signal, progress }: Bench): Promise<Row> {
  let count = 0
  return measure(
    'add, one at a time',
    () => count,
    async () => {
      const times = await alone(signal, progress, 'one at a time', () => queue.add(payload))
      count = times.length
      return times
    },
  )
}

async function callAlone({ queue, payload, signal, progress }: Bench): Promise<Row> {
  const worker = queue.work(() => 1)
  await worker.ready
  while (!signal.aborted && (await queue.call(payload)) !== 1) {}
  let count = 0
  const row = await measure(
    'call, one at a time',
    () => count,
    async () => {
      const times = await alone(signal, progress, 'calls', () => queue.call(payload))
      count = times.length
      return times
    },
  )
  await worker.close()
  return row
}

async function alone(
  signal: AbortSignal,
  progress: Progress,
  what: string,
  act: () => Promise<unknown>,
): Promise<readonly number[]> {
  const times: number[] = []
  const untilMs = performance.now() + SINGLE_MS
  while (times.length < MAX_SINGLE && performance.now() < untilMs && !signal.aborted) {
    const startMs = performance.now()
    await act()
    times.push(performance.now() - startMs)
    progress.show(() => `${what}: ${times.length}`)
  }
  return times
}

function describeMachine() {
  const all = cpus()
  return {
    machine: {
      cpus: all.length,
      model: all[0]?.model ?? 'unknown',
      memoryBytes: totalmem(),
      loadBefore: round(loadavg()[0] ?? 0, 2),
      platform: `${process.platform} ${process.arch}`,
      node: process.versions.node,
    },
  }
}

function describePlace({ sluice, where }: Place) {
  const { durability, copies } = sluice.engine.abilities
  return { place: where, durability, copies }
}

function describe({
  machine,
  place,
  durability,
  copies,
  bytes,
  rows,
}: ReturnType<typeof describeMachine> &
  ReturnType<typeof describePlace> & { bytes: number; rows: readonly Row[] }): string {
  const table = formatTable(
    ['', 'JOBS', 'A SECOND', 'P50 MS', 'P99 MS', 'CPU S PER 100,000'],
    rows.map(({ what, messages, perSecond, p50Ms, p99Ms, cpuSeconds }) => [
      what,
      messages,
      perSecond,
      p50Ms === undefined ? '-' : String(p50Ms),
      p99Ms === undefined ? '-' : String(p99Ms),
      String(cpuSeconds),
    ]),
  )
  const busy =
    machine.loadBefore > machine.cpus / 2
      ? `The machine was busy with other things (load ${machine.loadBefore}): alone it does more than this.\n`
      : ''
  return `${place}, durability '${durability}': ${MEANINGS[durability]}; ${copies === 1 ? 'one copy' : `${copies} copies`}
${machine.cpus} x ${plain(machine.model)}, ${bytesText(machine.memoryBytes)}, ${machine.platform}, Node ${machine.node}; payloads of ${bytes} bytes

${table}${busy}`
}
