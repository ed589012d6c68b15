/** What an operator sees and does: queues and topics with their figures, dead letters, redrive, pause and resume. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { BatchView, type Command, type TopicStats } from '../../index.ts'
import { fullError } from '../../outcomes.ts'
import { readControl, readsControl } from '../bodies.ts'
import { type Context, JSON_TYPE, pathPart } from '../context.ts'
import { notFound } from '../directory.ts'
import { list, optional, readMembers, readName, text, whole, wholeText } from '../members.ts'
import { formatDeadLetter } from '../views.ts'

const MAX_LISTED = 1_000
const MAX_LETTERS = 1_000
const MAX_REDRIVEN = 10_000
/** Queues of a list whose oldest message is looked up: each takes a read. */
const MAX_AGED = 100

const LIST_QUERY = { limit: wholeText(1, MAX_LISTED, MAX_LISTED), after: optional(text(128)) }
const DEAD_QUERY = { limit: wholeText(1, MAX_LETTERS, 100), after: optional(text(1_000)) }
const REDRIVE_BODY = { ids: optional(list(MAX_REDRIVEN)), max: whole(1, MAX_REDRIVEN, MAX_REDRIVEN) }

export function operateRoutes(app: FastifyInstance, context: Context): void {
  readsControl(app, context.settings)
  app.get('/v1/queues', (request, reply) => showAll(context, request, reply, 'queue'))
  app.get('/v1/topics', (request, reply) => showAll(context, request, reply, 'topic'))
  app.get('/v1/queues/:name', (request, reply) => showOne(context, request, reply, 'queue'))
  app.get('/v1/topics/:name', (request, reply) => showOne(context, request, reply, 'topic'))
  app.get('/v1/queues/:name/dead', (request, reply) => showDead(context, request, reply))
  app.post('/v1/queues/:name/dead::redrive', (request, reply) => redrive(context, request, reply))
  app.post('/v1/queues/:name(^[^:/]*)::pause', (request, reply) => switchQueue(context, request, reply, 'pause'))
  app.post('/v1/queues/:name(^[^:/]*)::resume', (request, reply) => switchQueue(context, request, reply, 'resume'))
}

async function showAll(
  { engine }: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  kind: 'queue' | 'topic',
): Promise<FastifyReply> {
  const { limit, after = '' } = readMembers(request.query, LIST_QUERY, 'the query')
  const { topics } = await engine.stats()
  const rest = topics
    .filter((topic) => topic.kind === kind && topic.name > after)
    .sort((a, b) => (a.name < b.name ? -1 : 1))
  const page = rest.slice(0, limit)
  let aged = 0
  const views = await Promise.all(
    page.map((topic) => show(engine, topic, topic.depth.messages > 0 && aged++ < MAX_AGED)),
  )
  const next = rest.length > limit ? (page.at(-1)?.name ?? null) : null
  return reply.type(JSON_TYPE).send(JSON.stringify({ [`${kind}s`]: views, next }))
}

async function showOne(
  { engine }: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  kind: 'queue' | 'topic',
): Promise<FastifyReply> {
  const name = readName(pathPart(request, 'name'), kind)
  const { topics } = await engine.stats()
  const found = topics.find((topic) => topic.kind === kind && topic.name === name)
  if (found === undefined) throw notFound(kind, name)
  return reply.type(JSON_TYPE).send(JSON.stringify(await show(engine, found, found.depth.messages > 0)))
}

/** A queue has one group, whose figures stand with its own; a topic lists its groups. */
async function show(engine: Context['engine'], topic: TopicStats, isAged: boolean): Promise<object> {
  const { kind, groups, ...common } = topic
  if (kind === 'topic') return { ...common, groups }
  const jobs = groups[0]
  if (jobs === undefined) return common
  const { name: _name, depth: _depth, ...figures } = jobs
  const oldestAtMs = isAged ? await findOldest(engine, topic.name, jobs.floor) : undefined
  return { ...common, ...figures, oldestAtMs }
}

/** When the oldest job that is not settled was stored; undefined where only delayed jobs are left. */
async function findOldest(engine: Context['engine'], queue: string, floor: number): Promise<number | undefined> {
  const outcome = await engine.read({ topic: queue, from: floor, max: 1, waitMs: 0 })
  return outcome.status === 'read' ? outcome.messages[0]?.timestampMs : undefined
}

async function showDead(context: Context, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const name = await queueOf(context, request)
  const { limit, after } = readMembers(request.query, DEAD_QUERY, 'the query')
  const outcome = await run(
    context,
    { kind: 'dead', topic: name, group: '', max: limit, ...(after === undefined ? {} : { after }) },
    name,
  )
  const letters =
    outcome.status === 'dead-letters'
      ? outcome.letters.map((letter) => formatDeadLetter(letter, new BatchView(letter.batch)))
      : []
  const next = outcome.status === 'dead-letters' ? outcome.next : null
  return reply.type(JSON_TYPE).send(`{"letters":[${letters.join(',')}],"next":${JSON.stringify(next)}}`)
}

async function redrive(context: Context, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const name = await queueOf(context, request)
  const { ids, max } = readMembers(readControl(request).value, REDRIVE_BODY, 'a redrive')
  const wanted = ids?.map((id, i) => text(256)(id, `ids[${i}]`))
  const outcome = await run(
    context,
    { kind: 'redrive', topic: name, group: '', max, ...(wanted === undefined ? {} : { ids: wanted }) },
    name,
  )
  const { ids: made = [], count = made.length } = outcome.status === 'done' ? outcome : {}
  return reply.type(JSON_TYPE).send(JSON.stringify({ queue: name, count, ids: made }))
}

async function switchQueue(
  context: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  kind: 'pause' | 'resume',
): Promise<FastifyReply> {
  const name = await queueOf(context, request)
  await run(context, { kind, topic: name, group: '' }, name)
  return reply.type(JSON_TYPE).send(JSON.stringify({ queue: name, paused: kind === 'pause' }))
}

async function queueOf({ directory }: Context, request: FastifyRequest): Promise<string> {
  return (await directory.find('queue', readName(pathPart(request, 'name'), 'queue'))).name
}

async function run(
  { engine }: Context,
  command: Command,
  name: string,
): Promise<Awaited<ReturnType<typeof engine.command>>> {
  const outcome = await engine.command(command)
  if (outcome.status === 'not-found') throw notFound('queue', name)
  if (outcome.status === 'full') throw fullError('queue', name, outcome)
  return outcome
}
