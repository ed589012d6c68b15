/** `sluice jobs`: one job (get, explain, wait, cancel), or the dead ones of a queue and whether it hands any out. */
import { findNearest, isTerminal, type Sluice, SluiceError } from '../index.ts'
import { type Command, type Input, UsageError } from './command.ts'
import { findTopic, PLACE_OPTIONS, withPlace } from './opening.ts'
import { plain, print, show, showMembers } from './plain.ts'
import { formatTable } from './table.ts'

const MAX_WAIT_MS = 86_400_000
const DEFAULT_WAIT_MS = 30_000
const MAX_MOVED = 1_000_000
const DEFAULT_LISTED = 100

interface Act {
  readonly takes: 'job' | 'queue' | 'queue and ids'
  run(sluice: Sluice, input: Input, name: string, ids: readonly string[]): Promise<number>
}

const ACTS: Readonly<Record<string, Act>> = {
  get: { takes: 'job', run: getJob },
  explain: { takes: 'job', run: explainJob },
  wait: { takes: 'job', run: waitForJob },
  cancel: { takes: 'job', run: cancelJob },
  dead: { takes: 'queue', run: listDead },
  redrive: { takes: 'queue and ids', run: redrive },
  discard: { takes: 'queue and ids', run: discard },
  pause: { takes: 'queue', run: pause },
  resume: { takes: 'queue', run: resume },
}

export const jobs: Command = {
  name: 'jobs',
  usage: 'get|explain|wait|cancel ID   or   dead|redrive|discard|pause|resume QUEUE [ID…]',
  about: `get      shows a job: status, attempts, result or last error, and why it waits
explain  says why a job has not begun: behind which job of its key, until when, paused, no worker, its place
wait     waits for the result and prints it; exits with 1 where the job did not complete in time, or at all
cancel   ends a job that is not settled; a worker that has it loses its lease
dead     lists the jobs of a queue that are out of attempts, oldest first
redrive  makes new jobs of dead ones and lets blocked ones try again: those named, or all up to --max
discard  removes dead letters for good: those named, or with --all all of them up to --max
pause    hands no more jobs of a queue out, in any process and over restarts; resume does again`,
  examples: [
    'sluice jobs get email:k3x9ab:17',
    'sluice jobs explain email:k3x9ab:17',
    'sluice jobs wait email:k3x9ab:17 --wait-ms 5000 --json',
    'sluice jobs dead email',
    'sluice jobs redrive email --max 100',
    'sluice jobs discard email email:k3x9ab:3 email:k3x9ab:9',
  ],
  options: {
    ...PLACE_OPTIONS,
    'wait-ms': {
      type: 'string',
      value: 'N',
      text: `wait, get: wait up to N milliseconds for it to be settled. Default of wait: ${DEFAULT_WAIT_MS}`,
    },
    max: {
      type: 'string',
      value: 'N',
      text: `dead, redrive, discard: at most so many. Default: ${DEFAULT_LISTED}; redrive, discard: 10000`,
    },
    all: { type: 'boolean', text: 'discard: without ids, all of them.' },
  },
  async run(input) {
    const [name = '', target, ...ids] = input.words
    const act = Object.hasOwn(ACTS, name) ? ACTS[name] : undefined
    if (act === undefined) {
      const nearest = findNearest(name, Object.keys(ACTS))
      throw new UsageError(
        `Say what to do: ${Object.keys(ACTS).join(', ')}.${nearest === null ? '' : ` Did you mean '${nearest}'?`}`,
      )
    }
    if (target === undefined || (ids.length > 0 && act.takes !== 'queue and ids'))
      throw new UsageError(
        `sluice jobs ${name} takes ${act.takes === 'job' ? 'the id of one job' : 'the name of one queue'}.`,
      )
    if (input.value('wait-ms') !== undefined && name !== 'get' && name !== 'wait')
      throw new UsageError(`--wait-ms has no meaning with ${name}.`)
    if (input.value('max') !== undefined && act.takes === 'job')
      throw new UsageError(`--max has no meaning with ${name}.`)
    return withPlace(input, (sluice) => act.run(sluice, input, target, ids))
  },
}

// ---- one job

/** An id has the queue in front; what is none is answered as one that is not there. */
async function findJob(sluice: Sluice, id: string) {
  const queue = id.slice(0, Math.max(0, id.indexOf(':')))
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(queue))
    throw new SluiceError('JOB_NOT_FOUND', `There is no job '${id.slice(0, 200)}': that is not the id of one.`, { id })
  return sluice.queue(queue).get(id)
}

async function getJob(sluice: Sluice, input: Input, id: string): Promise<number> {
  const waitMs = input.count('wait-ms', 0, MAX_WAIT_MS)
  const job = await findJob(sluice, id)
  if (waitMs !== undefined && waitMs > 0) await job.result({ timeoutMs: waitMs }).catch(onlyLost)
  const { job: info, waits, why } = await job.explain()
  print(
    input.isJson,
    waits.length === 0 ? info : { ...info, waits, why },
    showMembers(waits.length === 0 ? info : { ...info, why }),
  )
  return 0
}

/** How a job ended is shown; that nobody can tell is a failure. */
function onlyLost(error: unknown): void {
  const ends = ['JOB_FAILED', 'JOB_CANCELLED', 'JOB_EXPIRED', 'DEADLINE']
  if (!(error instanceof SluiceError) || !ends.includes(error.code)) throw error
}

async function explainJob(sluice: Sluice, input: Input, id: string): Promise<number> {
  const { job, waits, why } = await (await findJob(sluice, id)).explain()
  print(input.isJson, { id: job.id, status: job.status, waits, why }, `${job.status}: ${plain(why)}\n`)
  return 0
}

async function waitForJob(sluice: Sluice, input: Input, id: string): Promise<number> {
  const job = await findJob(sluice, id)
  const result = await job.result({ timeoutMs: input.count('wait-ms', 0, MAX_WAIT_MS) ?? DEFAULT_WAIT_MS })
  print(input.isJson, result ?? null, result === undefined ? '' : `${show(result)}\n`)
  return 0
}

async function cancelJob(sluice: Sluice, input: Input, id: string): Promise<number> {
  const job = await findJob(sluice, id)
  await job.cancel()
  const info = await job.status()
  print(input.isJson, info, isTerminal(info) ? `${info.id} is ${info.status}\n` : showMembers(info))
  return 0
}

// ---- a queue

async function listDead(sluice: Sluice, input: Input, queue: string): Promise<number> {
  await findTopic(sluice, 'queue', queue)
  const max = input.count('max', 1, MAX_MOVED) ?? DEFAULT_LISTED
  const rows: object[] = []
  let after: string | undefined
  while (rows.length < max) {
    const page = await sluice
      .queue(queue)
      .dead({ limit: Math.min(1_000, max - rows.length), ...(after === undefined ? {} : { after }) })
    for (const { id, attempts, error, diedAtMs, message } of page.jobs) {
      const { key = null, headers, payload, payloadBase64 } = message.toJSON() as Record<string, unknown>
      rows.push({ id, attempts, error, diedAtMs, key, headers, payload, payloadBase64 })
    }
    if (page.next === null) break
    after = page.next
  }
  print(input.isJson, rows, rows.length === 0 ? `No dead letters in '${queue}'.\n` : deadTable(rows as DeadRow[]))
  return 0
}

interface DeadRow {
  readonly id: string
  readonly attempts: number
  readonly error: string
  readonly diedAtMs: number
  readonly key: string | null
}

const MAX_ERROR = 80

export function deadTable(rows: readonly DeadRow[]): string {
  return formatTable(
    ['ID', 'KEY', 'ATTEMPTS', 'DIED', 'ERROR'],
    rows.map(({ id, key, attempts, diedAtMs, error }) => [
      id,
      plain(key ?? '-'),
      attempts,
      new Date(diedAtMs).toISOString(),
      plain(error.length > MAX_ERROR ? `${error.slice(0, MAX_ERROR)}…` : error),
    ]),
  )
}

function chosen(input: Input, ids: readonly string[]): { ids?: readonly string[]; max?: number } {
  const max = input.count('max', 1, MAX_MOVED)
  return { ...(ids.length === 0 ? {} : { ids }), ...(max === undefined ? {} : { max }) }
}

async function redrive(sluice: Sluice, input: Input, queue: string, ids: readonly string[]): Promise<number> {
  await findTopic(sluice, 'queue', queue)
  const redriven = await sluice.queue(queue).redrive(chosen(input, ids))
  print(
    input.isJson,
    { queue, ...redriven },
    `${redriven.count} redriven\n${redriven.ids.map((id) => `${id}\n`).join('')}`,
  )
  return 0
}

async function discard(sluice: Sluice, input: Input, queue: string, ids: readonly string[]): Promise<number> {
  if (ids.length === 0 && !input.has('all'))
    throw new UsageError('Name the dead letters to discard, or all of them with --all: they are gone for good.')
  await findTopic(sluice, 'queue', queue)
  const discarded = await sluice.queue(queue).discard(chosen(input, ids))
  print(input.isJson, { queue, ...discarded }, `${discarded.count} discarded\n`)
  return 0
}

async function pause(sluice: Sluice, input: Input, queue: string): Promise<number> {
  await findTopic(sluice, 'queue', queue)
  await sluice.queue(queue).pause()
  print(
    input.isJson,
    { queue, paused: true },
    `'${queue}' hands out no more jobs. \`sluice jobs resume ${queue}\` goes on.\n`,
  )
  return 0
}

async function resume(sluice: Sluice, input: Input, queue: string): Promise<number> {
  await findTopic(sluice, 'queue', queue)
  await sluice.queue(queue).resume()
  print(input.isJson, { queue, paused: false }, `'${queue}' hands out jobs again.\n`)
  return 0
}
