/**
 * A batch of lines, for jobs and for topics: every line is a message with its own outcome, in the order of the lines.
 * Where a line was stored the answer is 200; where none was it is the error that a single message would have had, so
 * that 503 always means that nothing was stored (P2).
 */
import { setImmediate as nextRound } from 'node:timers/promises'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { SluiceError } from '../../errors.ts'
import type { Appended } from '../appender.ts'
import { BATCH_TYPE, splitLines } from '../bodies.ts'
import type { Context } from '../context.ts'
import type { Entry } from '../directory.ts'
import { type Incoming, readMessageObject } from '../incoming.ts'
import { parseJson } from '../members.ts'
import { formatProblem, type Problem, problemOf } from '../problem.ts'
import { validate } from '../validation.ts'

/** Time between two rounds of the event loop, so that a long batch does not hold up the other requests. */
const ROUND_MS = 10

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
  const answers: string[] = new Array(lines.length)
  const problems: Problem[] = []
  let open = lines.length
  const { promise: answered, resolve } = Promise.withResolvers<void>()
  function refuse(i: number, error: unknown): void {
    const problem = problemOf(error)
    problems.push(problem)
    answers[i] = `{"outcome":"refused","problem":${formatProblem(problem)}}`
    if (--open === 0) resolve()
  }
  function settle(i: number, appended: Appended | null, error: unknown): void {
    try {
      if (appended === null) throw error
      answers[i] = JSON.stringify({ outcome: appended.outcome.status, ...show(appended) })
    } catch (refusal) {
      refuse(i, refusal)
      return
    }
    if (--open === 0) resolve()
  }
  const nowMs = context.now()
  let roundEndMs = performance.now() + ROUND_MS
  for (const [i, line] of lines.entries()) {
    try {
      const incoming = validate(
        entry.noun.schema,
        withoutStacks(() => readLine(context, entry, line, i + 1, nowMs)),
        context.settings.maxMessageBytes,
      )
      // A schema that takes its time holds up the lines behind it, which keep their order.
      const ready = incoming instanceof Promise ? await incoming : incoming
      context.appender.push(entry.name, ready, (appended, error) => settle(i, appended, error))
    } catch (error) {
      refuse(i, error)
    }
    if (performance.now() < roundEndMs) continue
    await nextRound()
    roundEndMs = performance.now() + ROUND_MS
  }
  await answered
  if (problems.length === lines.length) throw nothingStored(problems)
  return reply.type(BATCH_TYPE).send(`${answers.join('\n')}\n`)
}

/** A refusal of a line is an answer, not a failure of ours, and a stack costs more than the line. */
function withoutStacks<T>(read: () => T): T {
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = 0
  try {
    return read()
  } finally {
    Error.stackTraceLimit = stackTraceLimit
  }
}

function readLine(
  { settings }: Context,
  { kind }: Entry,
  source: string | null,
  number: number,
  nowMs: number,
): Incoming {
  const where = `line ${number}`
  if (source === null) throw new SluiceError('INVALID_PAYLOAD', `${where} is not UTF-8.`)
  const value = parseJson(source, where, 'INVALID_PAYLOAD')
  return readMessageObject({ source, value, kind, where }, nowMs, settings.maxMessageBytes)
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
