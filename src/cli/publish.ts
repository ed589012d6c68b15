/**
 * `sluice publish`: one message, or one for each line of the input.
 *
 * Lines go in batches. Each carries an idempotency key of its own, drawn for this run, so a batch whose outcome was
 * lost with the connection is sent again without storing anything twice. What a full queue refuses is sent again, in
 * order and before anything behind it, after the time that the server names.
 */
import { randomBytes } from 'node:crypto'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { ERRORS, type ErrorCode, SluiceError } from '../errors.ts'
import { clientOf, UnreachableError } from './client.ts'
import { type Command, type Input, UsageError } from './command.ts'
import { openEngineTarget } from './engine-target.ts'
import { PLACE_OPTIONS } from './opening.ts'
import { createServerTarget, type Line, type LineOutcome, type Target } from './target.ts'

const MAX_LINES = 500
const MAX_CHARS = 2_000_000
const MAX_SHOWN = 10
/** Waits between tries where the server does not say how long. */
const RETRY_MS = 500
const MAX_RETRY_MS = 60_000
const PROGRESS_MS = 200
const PROGRESS_LINE_MS = 5_000

export const publish: Command = {
  name: 'publish',
  usage: 'TOPIC [PAYLOAD | -]   or   --queue NAME [PAYLOAD | -]',
  about:
    'Sends a message to a topic, or a job to a queue. PAYLOAD is JSON. Without it, or with -, every line of the\nstandard input is a payload of its own (NDJSON), stored in order. A full queue is waited for.',
  examples: [
    `sluice publish orders '{"customer": 7}' --key 7`,
    `sluice publish --queue email '{"to": "a@b.c"}'`,
    `jq -c '.[]' orders.json | sluice publish orders`,
    'sluice publish --queue import --data ./data - < rows.ndjson',
  ],
  options: {
    queue: { type: 'string', value: 'NAME', text: 'A queue instead of a topic.' },
    key: { type: 'string', value: 'KEY', text: 'The key of every message: those of one key are worked off in order.' },
    'delay-ms': { type: 'string', value: 'N', text: 'Jobs only: due in N milliseconds.' },
    priority: { type: 'string', value: 'CLASS', text: 'Jobs only: high, normal or low.' },
    'callback-url': {
      type: 'string',
      value: 'URL',
      text: 'Jobs only: told by a signed webhook when the job has ended.',
    },
    'idempotency-key': {
      type: 'string',
      value: 'KEY',
      text: 'Of a single message: sent again under the same key it is stored once.',
    },
    'retry-ms': {
      type: 'string',
      value: 'N',
      text: `Give up when nothing was stored for N milliseconds. Default: ${MAX_RETRY_MS}`,
    },
    ...PLACE_OPTIONS,
  },
  run,
}

async function run(input: Input): Promise<number> {
  const { kind, name, payload } = readWords(input)
  if (input.value('data') !== undefined && input.value('url') !== undefined)
    throw new UsageError('Name one of --url and --data.')
  if (kind === 'topic' && (input.value('delay-ms') ?? input.value('priority')) !== undefined)
    throw new UsageError('--delay-ms and --priority are for jobs: name a --queue.')
  const wrap = createWrap(input)
  // A server is sent lines as any client sends them; what is opened here takes them without a way over HTTP.
  const isServer =
    input.value('data') === undefined && /^https?:|^(?![a-z][a-z0-9+.-]*:)/i.test(input.value('url') ?? '')
  const target = isServer ? createServerTarget(clientOf(input), kind, name) : await openEngineTarget(input, kind, name)
  const sender = new Sender(target, input.count('retry-ms', 0, 86_400_000) ?? MAX_RETRY_MS)
  try {
    if (payload !== null) {
      checkJson(payload, 'The payload', 'Put text into double quotes inside single ones')
      return await publishOne(sender, wrap(payload, input.value('idempotency-key') ?? drawKey()), input.isJson, kind)
    }
    if (input.value('idempotency-key') !== undefined)
      throw new UsageError('--idempotency-key is for a single message; lines get one each.')
    return await publishLines(sender, wrap, input.isJson, kind, name)
  } finally {
    await target.close()
  }
}

function readWords(input: Input): { kind: 'queue' | 'topic'; name: string; payload: string | null } {
  const queue = input.value('queue')
  const words = [...input.words]
  const name = queue ?? words.shift()
  const [payload, ...rest] = words
  if (name === undefined) throw new UsageError('Name a topic, or a queue with --queue NAME.')
  if (rest.length > 0) throw new UsageError(`'${rest[0]}' is one word too many: put quotes around the payload.`)
  if ((payload === undefined || payload === '-') && process.stdin.isTTY)
    throw new UsageError('There is no payload: give one, or pipe lines in.')
  return {
    kind: queue === undefined ? 'topic' : 'queue',
    name,
    payload: payload === undefined || payload === '-' ? null : payload,
  }
}

type Wrap = (payload: string, idempotencyKey?: string) => Line

/**
 * Makes a line of a batch of a payload, whose text stays as it is but for line breaks between its parts. The payload
 * must have been checked: what is not one JSON value would say more than its place in the line means.
 */
function createWrap(input: Input): Wrap {
  const options = {
    key: input.value('key'),
    delayMs: input.count('delay-ms', 0, Number.MAX_SAFE_INTEGER),
    priority: input.value('priority'),
    callbackUrl: input.value('callback-url'),
  }
  return (payload, idempotencyKey) => {
    const rest = JSON.stringify({ ...options, idempotencyKey }).slice(1)
    return `{"payload":${payload.replace(/[\r\n]+/g, ' ')}${rest === '}' ? '' : ','}${rest}`
  }
}

/** Without a key a message whose outcome was lost could not be sent again. */
function drawKey(): string {
  return randomBytes(8).toString('hex')
}

async function publishOne(sender: Sender, line: Line, isJson: boolean, kind: 'queue' | 'topic'): Promise<number> {
  const [outcome] = await sender.send([line], createWaitNote(kind))
  if (outcome === undefined || !outcome.isStored) throw errorOf(outcome)
  const { receipt, isDuplicate } = outcome
  const place = kind === 'queue' ? String(receipt.id) : `offset ${receipt.offset}`
  process.stdout.write(
    isJson
      ? `${JSON.stringify({ ...receipt, duplicate: isDuplicate })}\n`
      : `${place}${isDuplicate ? ' (stored before)' : ''}\n`,
  )
  return 0
}

interface Totals {
  stored: number
  duplicates: number
  refused: number
}

async function publishLines(
  sender: Sender,
  wrap: Wrap,
  isJson: boolean,
  kind: 'queue' | 'topic',
  name: string,
): Promise<number> {
  const run = drawKey()
  const totals: Totals = { stored: 0, duplicates: 0, refused: 0 }
  const progress = createProgress(totals, kind)
  let batch: { number: number; line: Line }[] = []
  let chars = 0
  let number = 0
  async function flush(): Promise<void> {
    const sent = batch
    batch = []
    chars = 0
    const outcomes =
      sent.length === 0
        ? []
        : await sender.send(
            sent.map(({ line }) => line),
            (wait) => progress(wait),
          )
    for (const [i, outcome] of outcomes.entries()) count(totals, outcome, sent[i]?.number ?? 0)
    progress()
  }
  for await (const payload of createInterface({ input: process.stdin, crlfDelay: Number.POSITIVE_INFINITY })) {
    number++
    if (payload.trim() === '') continue
    try {
      checkJson(payload, `Line ${number}`, 'Every line is one JSON value; `jq -c` makes such lines')
    } catch (error) {
      count(
        totals,
        { isStored: false, code: 'INVALID_PAYLOAD', detail: (error as Error).message, retryAfterMs: null },
        number,
      )
      continue
    }
    const line = wrap(payload, `${run}-${number}`)
    batch.push({ number, line })
    chars += line.length
    if (batch.length >= MAX_LINES || chars >= MAX_CHARS) await flush()
  }
  await flush()
  progress('over')
  const { stored, duplicates, refused } = totals
  const more = `${duplicates > 0 ? `, ${duplicates.toLocaleString('en-US')} there before` : ''}${refused > 0 ? `, ${refused.toLocaleString('en-US')} refused` : ''}`
  process.stdout.write(
    isJson ? `${JSON.stringify(totals)}\n` : `${stored.toLocaleString('en-US')} stored in ${kind} '${name}'${more}\n`,
  )
  return refused > 0 ? 1 : 0
}

function count(totals: Totals, outcome: LineOutcome, number: number): void {
  if (outcome.isStored) {
    totals[outcome.isDuplicate ? 'duplicates' : 'stored']++
    return
  }
  totals.refused++
  if (totals.refused <= MAX_SHOWN) process.stderr.write(`line ${number}: ${outcome.code}: ${outcome.detail}\n`)
  if (totals.refused === MAX_SHOWN) process.stderr.write('Further refusals are only counted.\n')
}

/** Why nothing goes out for a while, and for how long. */
interface Wait {
  readonly code: string
  readonly ms: number
}

/** Sends a batch until every line has a final outcome. */
class Sender {
  readonly #target: Target
  readonly #giveUpMs: number
  /** Whether the target ever answered, or might have. */
  #isReached = false

  constructor(target: Target, giveUpMs: number) {
    this.#target = target
    this.#giveUpMs = giveUpMs
  }

  async send(lines: readonly Line[], onWait: (wait: Wait) => void): Promise<LineOutcome[]> {
    const outcomes: LineOutcome[] = new Array(lines.length)
    let open = lines.map((_, i) => i)
    let lastMs = Date.now()
    for (;;) {
      const { answers, error } = await this.#try(open.map((i) => lines[i] as Line))
      const again: number[] = []
      let waitMs = error === null ? 0 : retryMs(error)
      let code: string = error?.code ?? ''
      open.forEach((place, i) => {
        const answer = answers?.[i]
        if (answer !== undefined) outcomes[place] = answer
        if (answer === undefined) again.push(place)
        if (answer === undefined || answer.isStored || !isWorthRetry(answer.code)) return
        again.push(place)
        code = answer.code
        waitMs = Math.max(waitMs, answer.retryAfterMs ?? 0)
      })
      if (again.length === 0) return outcomes
      if (waitMs === 0) waitMs = RETRY_MS
      if (again.length < open.length) lastMs = Date.now()
      if (Date.now() - lastMs + waitMs > this.#giveUpMs) {
        if (error !== null) throw error
        return outcomes
      }
      open = again
      onWait({ code, ms: waitMs })
      // No sooner than it was told, and not together with others who were told the same.
      await sleep(waitMs * (1 + Math.random() / 4))
    }
  }

  async #try(lines: readonly Line[]): Promise<{ answers: readonly LineOutcome[] | null; error: SluiceError | null }> {
    try {
      const answers = await this.#target.send(lines)
      this.#isReached = true
      return { answers, error: null }
    } catch (error) {
      // A server that was there before is waited for; one that never was is a mistake in the address.
      const isUnreachable = error instanceof UnreachableError
      const isPassing = error instanceof SluiceError && isWorthRetry(error.code)
      if (!isPassing || (isUnreachable && !this.#isReached)) throw error
      this.#isReached = true
      return { answers: null, error }
    }
  }
}

/** A server that stops is worth waiting for: it comes back. */
function isWorthRetry(code: string): boolean {
  return code === 'CLOSED' || (Object.hasOwn(ERRORS, code) && ERRORS[code as ErrorCode].retryable)
}

function retryMs({ details }: SluiceError): number {
  return typeof details.retryAfterMs === 'number' ? details.retryAfterMs : RETRY_MS
}

function errorOf(outcome: LineOutcome | undefined): SluiceError {
  if (outcome === undefined || outcome.isStored) return new SluiceError('UNKNOWN')
  const code = Object.hasOwn(ERRORS, outcome.code) ? (outcome.code as ErrorCode) : 'UNKNOWN'
  return new SluiceError(
    code,
    outcome.detail,
    outcome.retryAfterMs === null ? {} : { retryAfterMs: outcome.retryAfterMs },
  )
}

function checkJson(payload: string, what: string, advice: string): void {
  try {
    JSON.parse(payload)
  } catch (error) {
    throw new SluiceError('INVALID_PAYLOAD', `${what} is not JSON (${(error as Error).message}). ${advice}.`)
  }
}

/** Says why nothing goes out, now and then. */
function createWaitNote(kind: 'queue' | 'topic'): (wait: Wait) => void {
  let shownMs = Number.NEGATIVE_INFINITY
  return (wait) => {
    const nowMs = Date.now()
    if (nowMs - shownMs < PROGRESS_LINE_MS) return
    shownMs = nowMs
    process.stderr.write(`${describeWait(kind, wait)}\n`)
  }
}

function describeWait(kind: 'queue' | 'topic', { code, ms }: Wait): string {
  const why =
    code === 'QUEUE_FULL' ? `${kind} is full` : code === 'DISK_FULL' ? 'the disk is full' : `the server says ${code}`
  return `${why}, waiting ${(ms / 1_000).toFixed(1)} s`
}

/** Shows how far it is: in place on a terminal, else a line now and then. The first wait is always told of. */
function createProgress(totals: Totals, kind: 'queue' | 'topic'): (event?: 'over' | Wait) => void {
  const { stderr } = process
  const startMs = Date.now()
  const everyMs = stderr.isTTY ? PROGRESS_MS : PROGRESS_LINE_MS
  let shownMs = startMs
  let hasWaited = false
  return (event) => {
    const isOver = event === 'over'
    const wait = typeof event === 'object' ? event : null
    const nowMs = Date.now()
    const isDue = nowMs - shownMs >= everyMs || (wait !== null && !hasWaited)
    if (isOver ? !stderr.isTTY || shownMs === startMs : !isDue) return
    shownMs = nowMs
    hasWaited ||= wait !== null
    const done = totals.stored + totals.duplicates
    const rate = Math.round((done / Math.max(nowMs - startMs, 1)) * 1_000)
    const why = wait === null ? '' : `; ${describeWait(kind, wait)}`
    const line = `${done.toLocaleString('en-US')} stored, ${rate.toLocaleString('en-US')}/s${why}`
    stderr.write(stderr.isTTY ? `\r\x1b[K${line}${isOver ? '\n' : ''}` : `${line}\n`)
  }
}
