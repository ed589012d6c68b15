/**
 * A batch of lines, for jobs and for topics: every line is a message with its own outcome, in the order of the lines.
 * Where a line was stored the answer is 200; where none was it is the error that a single message would have had, so
 * that 503 always means that nothing was stored (P2).
 */
import { isUtf8 } from 'node:buffer'
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

/** Lines between two rounds of the event loop, so that a long batch does not hold up the other requests. */
const LINES_PER_ROUND = 500

type LineOutcome = { readonly text: string; readonly problem: Problem | null }

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
  const outcomes: Promise<LineOutcome>[] = []
  for (const line of lines) {
    outcomes.push(appendLine(context, entry, line, outcomes.length + 1, show))
    if (outcomes.length % LINES_PER_ROUND === 0) await nextRound()
  }
  const settled = await Promise.all(outcomes)
  if (settled.every(({ problem }) => problem !== null)) throw nothingStored(settled)
  return reply.type(BATCH_TYPE).send(`${settled.map(({ text }) => text).join('\n')}\n`)
}

async function appendLine(
  context: Context,
  entry: Entry,
  line: Buffer,
  number: number,
  show: (appended: Appended) => object,
): Promise<LineOutcome> {
  try {
    const incoming = readLine(context, entry, line, number)
    const { schema } = entry.noun
    const appended = await context.appender.append(
      entry.name,
      schema === undefined ? incoming : await validate(schema, incoming),
    )
    const shown = show(appended)
    return { text: JSON.stringify({ outcome: appended.outcome.status, ...shown }), problem: null }
  } catch (error) {
    const problem = problemOf(error)
    return { text: `{"outcome":"refused","problem":${formatProblem(problem)}}`, problem }
  }
}

function readLine({ settings, now }: Context, { kind }: Entry, line: Buffer, number: number): Incoming {
  const where = `line ${number}`
  if (!isUtf8(line)) throw new SluiceError('INVALID_PAYLOAD', `${where} is not UTF-8.`)
  const source = line.toString('utf8')
  return readMessageObject(
    { source, value: parseJson(source, where, 'INVALID_PAYLOAD'), kind, where },
    now(),
    settings.maxMessageBytes,
  )
}

/** The error of a batch of which nothing was stored: a full queue before all else, since it alone says when to come again. */
function nothingStored(outcomes: readonly LineOutcome[]): SluiceError {
  const problems = outcomes.map(({ problem }) => problem as Problem)
  const worst =
    problems.find(({ status }) => status === 503) ??
    problems.find(({ status }) => status >= 500) ??
    (problems[0] as Problem)
  const { code, detail, type: _type, title: _title, status: _status, ...values } = worst
  return new SluiceError(code, detail, { ...values, lines: outcomes.length })
}
