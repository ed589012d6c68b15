/** `sluice work`: a worker whose handler is a program. */
import { setImmediate } from 'node:timers/promises'
import {
  type HandlerContext,
  isSluiceError,
  type JobMessage,
  type Sluice,
  Unrecoverable,
  type Worker,
} from '../index.ts'
import { type Command, type Input, UsageError } from './command.ts'
import { DEAD_CODE, ExecError, execute } from './executing.ts'
import { openPlace, PLACE_OPTIONS, placeOf } from './opening.ts'
import { plain } from './plain.ts'
import { stopOnSignal } from './stopping.ts'

const MAX_MS = 315_360_000_000
const MAX_CONCURRENCY = 1_000
const MAX_RESULT_BYTES = 1_048_576

export const work: Command = {
  name: 'work',
  usage: 'QUEUE --exec COMMAND',
  about: `Works on a queue: runs COMMAND, by the shell, for each job. It gets the payload on its standard input and the
variables SLUICE_JOB_ID, SLUICE_JOB_QUEUE, SLUICE_JOB_ATTEMPT, SLUICE_JOB_FENCE, SLUICE_JOB_KEY, SLUICE_JOB_PRIORITY,
SLUICE_JOB_TIMESTAMP_MS, SLUICE_JOB_DEADLINE_AT_MS, SLUICE_JOB_HEADERS (JSON) and TRACEPARENT, where the job has them.

exit code 0    done; what it printed is the result: JSON if it is, else text
exit code ${DEAD_CODE}  dead at once: no attempt will succeed
any other      tried again after the queue's back-off; the end of its standard error is the error

The lease is kept while it runs. Where the lease is lost (the job was cancelled) or the time is over, it and what it
started get SIGTERM, and SIGKILL 5 s later.
Ctrl-C takes no more jobs and waits for those that run. A second Ctrl-C gives them back, to be done elsewhere.`,
  examples: [
    `sluice work email --exec './send-mail.sh'`,
    `sluice work thumbnails --exec 'convert - -resize 200x200 "out/$SLUICE_JOB_ID.png"' --concurrency 4`,
    `sluice work import --exec 'python3 import.py' --timeout-ms 60000 --data ./data`,
  ],
  options: {
    exec: { type: 'string', value: 'COMMAND', text: 'What is run for each job, by the shell.' },
    concurrency: { type: 'string', value: 'N', text: 'How many run at the same time. Default: 1' },
    'timeout-ms': { type: 'string', value: 'N', text: 'The longest that one may run. Default: 1800000 (30 minutes)' },
    'lease-ms': {
      type: 'string',
      value: 'N',
      text: 'How long a job stays held when this process falls silent. Default: 30000',
    },
    'max-result-bytes': {
      type: 'string',
      value: 'N',
      text: `The most that it may print: more fails the attempt. Default: ${MAX_RESULT_BYTES}`,
    },
    'max-jobs': { type: 'string', value: 'N', text: 'End after so many attempts.' },
    quiet: { type: 'boolean', text: 'Do not pass on what it says on standard error, nor tell of jobs that are done.' },
    ...PLACE_OPTIONS,
  },
  async run(input) {
    const [queue, ...rest] = input.words
    const command = input.value('exec')
    if (queue === undefined || rest.length > 0) throw new UsageError('Name one queue.')
    if (command === undefined || command.trim() === '') throw new UsageError("Say what to run: --exec 'COMMAND'.")
    const options = readOptions(input)
    const sluice = await openPlace(input)
    try {
      return await workOn(sluice, queue, command, input, options)
    } finally {
      await sluice.close()
    }
  },
}

interface Options {
  readonly concurrency: number
  readonly timeoutMs: number
  readonly leaseMs: number
  readonly maxResultBytes: number
  readonly maxJobs: number
}

function readOptions(input: Input): Options {
  return {
    concurrency: input.count('concurrency', 1, MAX_CONCURRENCY) ?? 1,
    timeoutMs: input.count('timeout-ms', 1, MAX_MS) ?? 1_800_000,
    leaseMs: input.count('lease-ms', 1_000, 86_400_000) ?? 30_000,
    maxResultBytes: input.count('max-result-bytes', 1, 15_728_640) ?? MAX_RESULT_BYTES,
    maxJobs: input.count('max-jobs', 1, Number.MAX_SAFE_INTEGER) ?? Number.POSITIVE_INFINITY,
  }
}

type Outcome = 'done' | 'failed' | 'dead' | 'released' | 'cancelled' | 'timed out'

async function workOn(
  sluice: Sluice,
  queue: string,
  command: string,
  input: Input,
  { concurrency, timeoutMs, leaseMs, maxResultBytes, maxJobs }: Options,
): Promise<number> {
  const isQuiet = input.has('quiet')
  const totals: Partial<Record<Outcome, number>> = {}
  /** Those that run, given back or not: none outlives this process. */
  const programs = new Set<Promise<unknown>>()
  let begun = 0
  let isStopping = false
  let worker: Worker | null = null
  const drain = (): void => {
    isStopping = true
    void worker?.close({ drainMs: MAX_MS })
  }
  const tell = (job: JobMessage, { attempt }: HandlerContext, startMs: number, outcome: Outcome, error?: unknown) => {
    totals[outcome] = (totals[outcome] ?? 0) + 1
    const ms = Math.round(performance.now() - startMs)
    const text = error instanceof Error ? `${error.name}: ${error.message}` : undefined
    const exitCode = outcome === 'done' ? 0 : error instanceof ExecError ? error.exitCode : undefined
    if (input.isJson)
      process.stdout.write(`${JSON.stringify({ id: job.id, attempt, outcome, ms, exitCode, error: text })}\n`)
    else if (!isQuiet || outcome !== 'done')
      process.stdout.write(
        `${outcome.padEnd(9)} ${job.id}  attempt ${attempt}, ${ms} ms${text === undefined ? '' : `  ${plain(text)}`}\n`,
      )
  }
  const handle = async (job: JobMessage, context: HandlerContext): Promise<unknown> => {
    if (++begun >= maxJobs) drain()
    const startMs = performance.now()
    try {
      const onSaid = (chunk: Buffer) => void (isQuiet || process.stderr.write(chunk))
      const program = execute(job, context, { command, maxResultBytes, onSaid })
      programs.add(program)
      const result = await program.finally(() => programs.delete(program))
      tell(job, context, startMs, 'done')
      return result
    } catch (error) {
      tell(job, context, startMs, outcomeOf(error), error)
      throw error
    }
  }
  const stop = stopOnSignal(() => {
    process.stderr.write('Giving back what runs.\n')
    void worker?.close({ drainMs: 0 })
  })
  stop.signal.addEventListener('abort', () => {
    process.stderr.write(`${stop.by}: waiting for what runs. Ctrl-C again gives it back.\n`)
    drain()
  })
  try {
    // One that was asked to end while it began must not begin.
    worker = sluice.queue(queue).work(handle as never, { concurrency, timeoutMs, leaseMs })
    await worker.ready
    const told = { event: 'working', queue, place: placeOf(input), concurrency, pid: process.pid }
    if (input.isJson) process.stdout.write(`${JSON.stringify(told)}\n`)
    else if (!isQuiet)
      process.stdout.write(`Working on '${queue}' at ${placeOf(input)}, ${concurrency} at a time. Ctrl-C stops.\n`)
    if (stop.signal.aborted) drain()
    await worker.closed
    await Promise.allSettled([...programs])
    // The handlers of those tell what became of them.
    await setImmediate()
  } finally {
    stop.release()
  }
  const counts = Object.entries(totals).map(([outcome, count]) => `${count} ${outcome}`)
  if (input.isJson) process.stdout.write(`${JSON.stringify({ event: 'stopped', ...totals })}\n`)
  else if (!isQuiet) process.stdout.write(`Stopped: ${counts.join(', ') || 'no jobs'}.\n`)
  // A worker that nobody asked to stop has lost its engine, which `onError` has told.
  return isStopping ? 0 : 1
}

function outcomeOf(error: unknown): Outcome {
  if (error instanceof Unrecoverable) return 'dead'
  if (isSluiceError(error, 'CLOSED')) return 'released'
  if (isSluiceError(error, 'LEASE_LOST')) return 'cancelled'
  return isSluiceError(error, 'HANDLER_TIMEOUT') ? 'timed out' : 'failed'
}
