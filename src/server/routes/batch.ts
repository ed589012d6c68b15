/**
 * A batch of lines, for jobs and for topics: every line is a message with its own outcome, in the order of the lines.
 * Where a line was stored the answer is 200; where none was it is the error that a single message would have had, so
 * that 503 always means that nothing was stored (P2).
 */
import { setImmediate as nextRound } from 'node:timers/promises'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { SluiceError } from '../../errors.ts'
import type { StoreReceipt } from '../../index.ts'
import { createStoredWriter } from '../accepted.ts'
import type { Appended, Sink } from '../appender.ts'
import { BATCH_TYPE, splitLines } from '../bodies.ts'
import type { Context } from '../context.ts'
import type { Entry } from '../directory.ts'
import { type Incoming, readDefaults, readMessageObject } from '../incoming.ts'
import { parseJson } from '../members.ts'
import { formatProblem, type Problem, problemOf } from '../problem.ts'
import type { ServerSettings } from '../settings.ts'
import { validate } from '../validation.ts'

/** Time between two rounds of the event loop, so that a long batch does not hold up the other requests. */
const ROUND_MS = 10
/** How many lines are taken between two looks at the clock. */
const CLOCK_LINES = 16
/** Characters of a line behind which it is looked at in any case. */
const LONG_LINE = 4_096

/** Stores the lines and answers. `show` makes an outcome of what was stored, or throws. */
export async function appendLines(
  context: Context,
  entry: Entry,
  request: FastifyRequest,
  reply: FastifyReply,
  show: (appended: Appended) => object,
): Promise<FastifyReply> {
  const lines = splitLines(request.body as Buffer)
  if (lines.length === 0) throw new SluiceError('BAD_REQUEST', 'The batch has no line.')
  const answers = new Answers(lines.length, request.caller.id, show)
  const batch: Batch = {
    entry,
    lines,
    answers,
    defaultsOf: readDefaults(request.headers, entry.kind),
    nowMs: context.now(),
  }
  for (let at = 0; at < lines.length; ) {
    if (at > 0) await nextRound()
    at = entry.noun.schema === undefined ? pushLines(context, batch, at) : await validateLines(context, batch, at)
  }
  const problems = await answers.all
  if (problems.length === lines.length) throw nothingStored(problems)
  return reply.type(BATCH_TYPE).send(answers.print())
}

interface Batch {
  readonly entry: Entry
  readonly lines: readonly (string | null)[]
  readonly answers: Answers
  /** What the headers of the request say for a line, by its number. */
  readonly defaultsOf: (number: number) => object
  readonly nowMs: number
}

/** Takes lines from `at` on for as long as a round may last; the answer is where to go on. */
function pushLines({ appender, settings }: Context, batch: Batch, at: number): number {
  const { entry, lines, answers } = batch
  const roundEndMs = performance.now() + ROUND_MS
  const { stackTraceLimit } = Error
  // A refusal of a line is an answer, not a failure of ours, and a stack costs more than the line.
  Error.stackTraceLimit = 0
  try {
    for (let i = at; i < lines.length; i++) {
      try {
        appender.push(entry.name, readLine(settings, batch, i), answers, i)
      } catch (error) {
        answers.failed(i, error)
      }
      const isDue = i % CLOCK_LINES === 0 || (lines[i]?.length ?? 0) >= LONG_LINE
      if (isDue && performance.now() >= roundEndMs) return i + 1
    }
    return lines.length
  } finally {
    Error.stackTraceLimit = stackTraceLimit
  }
}

/** The same with a schema: one that takes its time holds up the lines behind it, which keep their order. */
async function validateLines({ appender, settings }: Context, batch: Batch, at: number): Promise<number> {
  const { entry, lines, answers } = batch
  const roundEndMs = performance.now() + ROUND_MS
  for (let i = at; i < lines.length; i++) {
    try {
      const line = readLine(settings, batch, i)
      const incoming = validate(entry.noun.schema, line, settings.maxMessageBytes)
      appender.push(entry.name, incoming instanceof Promise ? await incoming : incoming, answers, i)
    } catch (error) {
      answers.failed(i, error)
    }
    if (performance.now() >= roundEndMs) return i + 1
  }
  return lines.length
}

/** The answers of a batch by line, as JSON text. */
class Answers implements Sink {
  readonly scope: string
  /** The refusals, once every line has its answer. */
  readonly all: Promise<readonly Problem[]>
  readonly #texts: string[]
  readonly #problems: Problem[] = []
  readonly #show: (appended: Appended) => object
  readonly #writeStored: (offset: number, receipt: StoreReceipt) => string
  #open: number
  #resolve: (problems: readonly Problem[]) => void = () => {}

  constructor(lines: number, scope: string, show: (appended: Appended) => object) {
    this.scope = scope
    this.#texts = new Array(lines)
    this.#open = lines
    this.#show = show
    this.#writeStored = createStoredWriter(show)
    this.all = new Promise((resolve) => {
      this.#resolve = resolve
    })
  }

  stored(number: number, offset: number, receipt: StoreReceipt): void {
    this.#take(number, this.#writeStored(offset, receipt))
  }

  other(number: number, appended: Appended): void {
    try {
      this.#take(number, JSON.stringify({ outcome: appended.outcome.status, ...this.#show(appended) }))
    } catch (refusal) {
      this.failed(number, refusal)
    }
  }

  failed(number: number, error: unknown): void {
    const problem = problemOf(error)
    this.#problems.push(problem)
    this.#take(number, `{"outcome":"refused","problem":${formatProblem(problem)}}`)
  }

  print(): string {
    return `${this.#texts.join('\n')}\n`
  }

  #take(number: number, text: string): void {
    this.#texts[number] = text
    if (--this.#open === 0) this.#resolve(this.#problems)
  }
}

function readLine(settings: ServerSettings, { entry: { kind }, lines, defaultsOf, nowMs }: Batch, i: number): Incoming {
  const where = `line ${i + 1}`
  const source = lines[i] as string | null
  if (source === null) throw new SluiceError('INVALID_PAYLOAD', `${where} is not UTF-8.`)
  const value = parseJson(source, where, 'INVALID_PAYLOAD')
  return readMessageObject({ source, value, kind, where, defaults: defaultsOf(i + 1) }, nowMs, settings.maxMessageBytes)
}

/**
 * The error of a batch of which nothing was stored, as far as anybody knows: what says that nobody does goes before all
 * else, then a full queue, since it says when to come again.
 */
function nothingStored(problems: readonly Problem[]): SluiceError {
  const worst =
    problems.find(({ status }) => status === 500) ??
    problems.find(({ status }) => status === 503) ??
    (problems[0] as Problem)
  const { code, detail, type: _type, title: _title, status: _status, ...values } = worst
  return new SluiceError(code, detail, { ...values, lines: problems.length })
}
