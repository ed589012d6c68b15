/** Jobs: add one or a batch, ask for one, follow one, cancel one. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { SluiceError } from '../../errors.ts'
import { isTerminal, type JobView, parseJobId, type StoreReceipt } from '../../index.ts'
import { type Accepted, acceptedJob, createAcceptedWriter } from '../accepted.ts'
import { noJob } from '../access/route-access.ts'
import { describe, json, type Operation, readParams, readQuery } from '../api/operation.ts'
import { ref } from '../api/schemas.ts'
import type { Appended, Sink } from '../appender.ts'
import { BATCH_TYPE, isBatch, payloadBody, readPayload, readsPayloads } from '../bodies.ts'
import { ANSWERS_LATER, type Context, JSON_TYPE, MAX_PATH_CHARS, MAX_WAIT_MS, waiting } from '../context.ts'
import type { Entry } from '../directory.ts'
import { LAST_EVENT_ID, streamAnswer, streamEvents, wantsEvents } from '../event-stream.ts'
import { HEADERS_NOTE, type Incoming, JOB_HEADERS, readRequest } from '../incoming.ts'
import type { Visit } from '../load.ts'
import { PAYLOAD_TYPES, refuseOtherTypes } from '../media-types.ts'
import { about, named, optional, text, wholeText } from '../members.ts'
import { validate } from '../validation.ts'
import { formatJob } from '../views.ts'
import { appendLines } from './batch.ts'

const JOB_QUERY = { waitMs: about('How long to wait for its end', wholeText(0, MAX_WAIT_MS, 0)) }
const QUEUE = { queue: named('queue') }
/** Any text: what is no id is that of no job. */
const JOB = { id: text(MAX_PATH_CHARS) }
const APPLIED = {
  'Preference-Applied': { description: '`wait=N`: how long was waited for', schema: { type: 'string' } },
}
const writeStored = createAcceptedWriter()
const PREFER_WAIT = /(?:^|[,;\s])wait\s*=\s*"?(\d{1,9})/i

const ADD: Operation = {
  id: 'addJob',
  access: { scope: 'publish', of: 'queue' },
  tag: 'jobs',
  summary: 'Adds a job to a queue, or a batch of them as lines.',
  description: HEADERS_NOTE,
  params: QUEUE,
  headers: {
    ...JOB_HEADERS,
    Prefer: about('`wait=N`: wait up to N seconds (at most 60) for the result', optional(text(1_000))),
  },
  body: payloadBody('JobLine'),
  answers: {
    202: json('The job is stored, as `durability` says', ref('JobAccepted'), {
      ...APPLIED,
      Location: { description: 'Where to ask for the job', schema: { type: 'string' } },
    }),
    200: {
      description: 'With `Prefer: wait`: the job, settled. Of a batch: an outcome for each line',
      content: { 'application/json': ref('Job'), [BATCH_TYPE]: ref('JobOutcome') },
      headers: APPLIED,
    },
  },
  errors: [
    'UNSUPPORTED',
    'INVALID_PAYLOAD',
    'SCHEMA_MISMATCH',
    'QUEUE_FULL',
    'WAIT_TOO_LONG',
    'DISK_FULL',
    'IDEMPOTENCY_MISMATCH',
    'QUEUE_NOT_FOUND',
    'TOPIC_NOT_FOUND',
    'DECLARED_DIFFERENTLY',
  ],
}
const SHOW: Operation = {
  id: 'showJob',
  access: { scopes: ['publish', 'consume', 'read'], of: 'job' },
  tag: 'jobs',
  summary: 'Shows a job as it is now, once it is settled, or each change of it as an event.',
  params: JOB,
  query: JOB_QUERY,
  headers: LAST_EVENT_ID,
  answers: {
    200: streamAnswer('The job; with `Accept: text/event-stream` each change of it as an event', ref('Job')),
    204: { description: 'A stream that has seen the end' },
  },
  errors: ['JOB_NOT_FOUND'],
}
const CANCEL: Operation = {
  id: 'cancelJob',
  access: { scopes: ['publish'], of: 'job' },
  tag: 'jobs',
  summary: 'Cancels a job that is not settled; whoever works on it loses the lease.',
  params: JOB,
  answers: { 200: json('It is cancelled', ref('Job')) },
  errors: ['JOB_NOT_FOUND', 'JOB_SETTLED'],
}

export function jobRoutes(app: FastifyInstance, context: Context): void {
  readsPayloads(app, context.settings)
  refuseOtherTypes(app, PAYLOAD_TYPES)
  app.post('/v1/queues/:queue/jobs', describe(ADD), (request, reply) => addJob(context, request, reply))
  app.get('/v1/jobs/:id', describe(SHOW), (request, reply) => showJob(context, request, reply))
  app.delete('/v1/jobs/:id', describe(CANCEL), (request, reply) => cancelJob(context, request, reply))
}

function addJob(
  context: Context,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> | typeof ANSWERS_LATER {
  const { queue } = readParams(request, QUEUE)
  const isLines = isBatch(request)
  const incoming = isLines ? null : readRequest(request.headers, readPayload(request), 'queue', context.now())
  const entry = context.directory.peek('queue', queue)
  const isPlain = entry !== undefined && entry.noun.schema === undefined && request.headers.prefer === undefined
  if (incoming === null || !isPlain) return addWithCare(context, queue, incoming, request, reply)
  context.appender.push(queue, incoming, new AddedJob(context, entry, incoming, request, reply), 0)
  return ANSWERS_LATER
}

/**
 * Answers a call that adds one job and asks for nothing else, as nearly all do, when the engine has: without the promises
 * that would stand between the two.
 */
class AddedJob implements Sink {
  readonly scope: string
  readonly #context: Context
  readonly #entry: Entry
  readonly #idempotencyKey: string | undefined
  readonly #visit: Visit
  readonly #reply: FastifyReply

  constructor(context: Context, entry: Entry, { wish }: Incoming, request: FastifyRequest, reply: FastifyReply) {
    this.scope = request.caller.id
    this.#context = context
    this.#entry = entry
    this.#idempotencyKey = wish?.idempotencyKey
    this.#visit = request.visit
    this.#reply = reply
  }

  stored(_number: number, offset: number, receipt: StoreReceipt): void {
    const { id, text } = writeStored(this.#entry, offset, receipt)
    sendAccepted(this.#reply, id, text)
    this.#visit.endHandler()
  }

  other(_number: number, appended: Appended): void {
    this.#answer(appended).catch((error: unknown) => this.#fail(error))
  }

  failed(_number: number, error: unknown): void {
    this.#fail(error)
  }

  async #answer(appended: Appended): Promise<void> {
    const accepted = acceptedJob(this.#entry, { ...appended, idempotencyKey: this.#idempotencyKey })
    sendAccepted(this.#reply, accepted.id, await describeAccepted(this.#context, accepted))
    this.#visit.endHandler()
  }

  #fail(error: unknown): void {
    this.#reply.send(error)
    this.#visit.endHandler()
  }
}

/** A batch, a call that waits, a first use, or a queue with a schema. */
async function addWithCare(
  context: Context,
  queue: string,
  incoming: Incoming | null,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  const entry = context.directory.peek('queue', queue) ?? (await context.directory.use('queue', queue))
  if (incoming === null) return appendLines(context, entry, request, reply, (appended) => acceptedJob(entry, appended))
  const { prefer } = request.headers
  const waitSeconds = prefer === undefined ? undefined : PREFER_WAIT.exec(String(prefer))?.[1]
  // Who waits, and named a deadline, hears at once that it cannot be kept (P11).
  const isCall = waitSeconds !== undefined && incoming.fields.deadlineMs !== undefined
  const wished = isCall ? { ...incoming, wish: { ...incoming.wish, inTime: true } } : incoming
  const checked = validate(entry.noun.schema, wished, context.settings.maxMessageBytes)
  const ready = checked instanceof Promise ? await checked : checked
  const accepted = acceptedJob(entry, await context.appender.append(queue, ready, request.caller.id))
  if (waitSeconds !== undefined) {
    // What waits holds no body.
    request.body = undefined
    request.visit.dropBody()
    const settled = await waitForResult(context, request, reply, accepted.id, {
      seconds: Number(waitSeconds),
      deadlineMs: incoming.fields.deadlineMs ?? Number.POSITIVE_INFINITY,
    })
    if (settled !== null) {
      return reply.header('location', locationOf(accepted.id)).type(JSON_TYPE).send(formatJob(settled))
    }
  }
  return sendAccepted(reply, accepted.id, await describeAccepted(context, accepted))
}

/** A job that was there already may have gone on since; what was just stored is where the outcome says. */
async function describeAccepted(context: Context, accepted: Accepted): Promise<string> {
  const known = accepted.duplicate ? await findJob(context, accepted.id) : null
  return JSON.stringify(
    known === null ? accepted : { ...accepted, status: known.status, createdAtMs: known.createdAtMs },
  )
}

function sendAccepted(reply: FastifyReply, id: string, text: string): FastifyReply {
  return reply.code(202).header('location', locationOf(id)).type(JSON_TYPE).send(text)
}

function locationOf(id: string): string {
  return `/v1/jobs/${id}`
}

interface ResultWait {
  readonly seconds: number
  /** Of the job, ms since 1970. */
  readonly deadlineMs: number
}

/** The job once it is settled, or null: too many wait, or it takes longer. It is stored in any case, so this never fails. */
async function waitForResult(
  { engine, now }: Context,
  { visit }: FastifyRequest,
  reply: FastifyReply,
  id: string,
  { seconds, deadlineMs }: ResultWait,
): Promise<JobView | null> {
  const waitMs = Math.min(seconds * 1_000, MAX_WAIT_MS)
  const signal = visit.tryWait()
  if (signal === null) return null
  reply.header('preference-applied', `wait=${waitMs / 1_000}`)
  try {
    const untilMs = now() + waitMs
    const watch = (ms: number) => engine.watch({ id, version: 0, untilTerminal: true, waitMs: Math.max(0, ms) }, signal)
    let found = await watch(Math.min(untilMs, deadlineMs) - now())
    if (deadlineMs < untilMs && found.status === 'found' && !isTerminal(found.job) && !signal.aborted) {
      // What was not started by its deadline is expired as soon as somebody asks; what was goes on.
      const [asked] = await engine.find([id])
      found = asked?.status === 'found' && isTerminal(asked.job) ? asked : await watch(untilMs - now())
    }
    return found.status === 'found' && isTerminal(found.job) ? found.job : null
  } catch {
    return null
  } finally {
    visit.endWait()
  }
}

async function showJob(context: Context, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const id = readJobId(request)
  const { waitMs } = readQuery(request, JOB_QUERY)
  if (wantsEvents(request.headers.accept)) return followJob(context, request, reply, id)
  const { job, waits } = await explainJob(context, id)
  if (waitMs === 0 || isTerminal(job)) return reply.type(JSON_TYPE).send(formatJob(job, waits, context.now()))
  const found = await waiting(request, waitMs, (signal) =>
    context.engine.watch({ id, version: job.version, untilTerminal: true, waitMs }, signal),
  )
  if (found.status === 'found' && isTerminal(found.job)) return reply.type(JSON_TYPE).send(formatJob(found.job))
  const now = await explainJob(context, id)
  return reply.type(JSON_TYPE).send(formatJob(now.job, now.waits, context.now()))
}

/** Each change of the job until it is terminal, its version as the id of the event. */
async function followJob(
  { engine, settings }: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  id: string,
): Promise<FastifyReply> {
  const first = await findJob({ engine }, id)
  if (first === null) throw noJob(id)
  const seen = Number(request.headers['last-event-id'] ?? -1)
  // 204 tells a reader that reconnects by itself to stop.
  if (isTerminal(first) && seen >= first.version) return reply.code(204).send()
  const signal = request.visit.wait()
  let job = first
  let version = Number.isSafeInteger(seen) ? seen : -1
  return streamEvents(reply, signal, async (events) => {
    for (;;) {
      if (job.version > version) {
        version = job.version
        await events.send(formatJob(job), version)
      } else await events.beat()
      if (isTerminal(job) || signal.aborted) return
      const found = await engine.watch({ id, version, untilTerminal: false, waitMs: settings.heartbeatMs }, signal)
      if (found.status === 'not-found') throw noJob(id)
      job = found.job
    }
  })
}

async function cancelJob(context: Context, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const id = readJobId(request)
  if (parseJobId(id) === null) throw noJob(id)
  const outcome = await context.engine.command({ kind: 'cancel', id })
  if (outcome.status === 'not-found') throw noJob(id)
  if (outcome.status === 'terminal' && outcome.job.status !== 'cancelled') {
    throw new SluiceError(
      'JOB_SETTLED',
      `The job '${id}' is ${outcome.job.status} already; its status never changes.`,
      { jobStatus: outcome.job.status },
    )
  }
  const job = await findJob(context, id)
  if (job === null) throw noJob(id)
  return reply.type(JSON_TYPE).send(formatJob(job))
}

/** The job as it is now and why it waits, of one moment. */
async function explainJob({ engine }: Pick<Context, 'engine'>, id: string) {
  const outcome = parseJobId(id) === null ? null : await engine.command({ kind: 'explain', id })
  if (outcome?.status !== 'explained') throw noJob(id)
  return outcome
}

function readJobId(request: FastifyRequest): string {
  return readParams(request, JOB).id
}

async function findJob({ engine }: Pick<Context, 'engine'>, id: string): Promise<JobView | null> {
  if (parseJobId(id) === null) return null
  const [found] = await engine.find([id])
  return found?.status === 'found' ? found.job : null
}
