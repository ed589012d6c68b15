/**
 * Runs a program for a job: the payload on its standard input, what it is about in SLUICE_JOB_… variables, its standard
 * output as the result. It has a process group of its own, so that Ctrl-C on a terminal does not reach it, and so that
 * what it started ends with it.
 *
 *     exit code 0            done
 *     DEAD_CODE              dead at once: no attempt will succeed
 *     any other, a signal    failed: tried again, with the end of what it said on standard error
 *     `signal` aborted       SIGTERM to the group, SIGKILL after KILL_AFTER_MS; nothing it says counts any more
 */
import { spawn } from 'node:child_process'
import { type HandlerContext, type JobMessage, Unrecoverable } from '../index.ts'

/** As programs that are run for a mail say that it can never be delivered. */
export const DEAD_CODE = 100
const KILL_AFTER_MS = 5_000
/** What is kept of standard error. */
const MAX_SAID = 2_000
/** The system refuses a longer variable. */
const MAX_VARIABLE_BYTES = 65_536

/** Fails the attempt; `name` says how the program ended. */
export class ExecError extends Error {
  override readonly name: string
  readonly exitCode: number | null

  constructor(name: string, said: string, exitCode: number | null) {
    super(said === '' ? 'it said nothing on standard error' : said)
    this.name = name
    this.exitCode = exitCode
  }
}

export interface ExecOptions {
  readonly command: string
  /** The most that the result may have, in bytes. */
  readonly maxResultBytes: number
  /** Gets what it says on standard error. */
  readonly onSaid: (chunk: Buffer) => void
}

/** Resolves to the result: what it printed, as JSON if it is, else as text; undefined where it printed nothing. */
export function execute(job: JobMessage, context: HandlerContext, options: ExecOptions): Promise<unknown> {
  const { signal } = context
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason)
    const child = spawn(options.command, {
      shell: true,
      detached: true,
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...variablesOf(job, context) },
    })
    let killing: NodeJS.Timeout | undefined
    const kill = (): void => {
      if (killing !== undefined) return
      signalGroup(child.pid, 'SIGTERM')
      killing = setTimeout(() => signalGroup(child.pid, 'SIGKILL'), KILL_AFTER_MS)
    }
    signal.addEventListener('abort', kill, { once: true })
    const out: Buffer[] = []
    let outBytes = 0
    let said = ''
    let isTooLong = false
    child.stdout.on('data', (chunk: Buffer) => {
      outBytes += chunk.byteLength
      if (outBytes <= options.maxResultBytes) out.push(chunk)
      else if (!isTooLong) {
        isTooLong = true
        kill()
      }
    })
    child.stderr.on('data', (chunk: Buffer) => {
      options.onSaid(chunk)
      said = (said + chunk.toString('utf8')).slice(-MAX_SAID)
    })
    // A program need not read what it is given.
    child.stdin.on('error', () => {})
    child.stdin.end(job.bytes)
    const end = (): void => {
      clearTimeout(killing)
      signal.removeEventListener('abort', kill)
    }
    child.once('error', (error) => {
      end()
      reject(error)
    })
    child.once('close', (code, by) => {
      end()
      // What it left running, and holds none of its pipes, is not waited for.
      if (killing !== undefined) signalGroup(child.pid, 'SIGKILL')
      const text = said.trim()
      if (signal.aborted) reject(signal.reason)
      else if (isTooLong)
        reject(new ExecError('Output', `It printed more than ${options.maxResultBytes} bytes and was ended.`, code))
      else if (code === 0) resolve(readResult(Buffer.concat(out).toString('utf8')))
      else if (code === DEAD_CODE) reject(new Unrecoverable(text === '' ? `Exit ${code}` : text))
      else reject(new ExecError(code === null ? `Signal ${by}` : `Exit ${code}`, text, code))
    })
  })
}

function readResult(printed: string): unknown {
  const text = printed.replace(/\r?\n$/, '')
  if (text === '') return undefined
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

function variablesOf(job: JobMessage, { attempt, fence }: HandlerContext): Record<string, string> {
  const { id, queue, key, headers, priority, timestampMs, deadlineAtMs } = job
  const given = {
    SLUICE_JOB_ID: id,
    SLUICE_JOB_QUEUE: queue,
    SLUICE_JOB_ATTEMPT: String(attempt),
    SLUICE_JOB_FENCE: String(fence),
    SLUICE_JOB_KEY: key,
    SLUICE_JOB_PRIORITY: priority,
    SLUICE_JOB_TIMESTAMP_MS: String(timestampMs),
    SLUICE_JOB_DEADLINE_AT_MS: deadlineAtMs === undefined ? undefined : String(deadlineAtMs),
    SLUICE_JOB_HEADERS: JSON.stringify(headers),
    TRACEPARENT: headers['traceparent'],
  }
  const kept: Record<string, string> = {}
  for (const [name, value] of Object.entries(given)) {
    // No system passes a zero character on; and what is too long would keep the program from starting.
    if (value === undefined || value.includes('\0') || Buffer.byteLength(value) > MAX_VARIABLE_BYTES) continue
    kept[name] = value
  }
  return kept
}

function signalGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, signal)
  } catch {
    // All of it has ended.
  }
}
