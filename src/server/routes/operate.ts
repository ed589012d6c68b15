/**
 * What an operator sees and does: queues and topics with their figures; of a queue, or of a group on a topic, the dead
 * letters, redrive, discard, pause and resume; of a group also seek and forget. What changes anything goes through the
 * nouns, which check ids and stop the handlers of this process whose messages were taken from them.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { BatchView, type Discarded, type Redriven, type RedriveOptions, type TopicStats } from '../../index.ts'
import { deadCursor } from '../../setting-rules.ts'
import { readControl, readsControl } from '../bodies.ts'
import { type Context, JSON_TYPE, pathPart } from '../context.ts'
import { notFound } from '../directory.ts'
import { refuseOtherTypes } from '../media-types.ts'
import { list, optional, type Reader, readMembers, readName, text, whole, wholeText } from '../members.ts'
import { formatDeadLetter } from '../views.ts'
import { noGroup } from './leases.ts'
import { readFrom } from './messages.ts'

const MAX_LISTED = 1_000
const MAX_LETTERS = 1_000
const MAX_REDRIVEN = 10_000
/** Queues of a list whose oldest message is looked up: each takes a read. */
const MAX_AGED = 100

const LIST_QUERY = { limit: wholeText(1, MAX_LISTED, MAX_LISTED), after: optional(text(128)) }
const readCursor: Reader<string> = (value, name) => {
  deadCursor(value, name)
  return value as string
}
const DEAD_QUERY = { limit: wholeText(1, MAX_LETTERS, 100), after: optional(readCursor) }
const LETTERS_BODY = { ids: optional(list(MAX_REDRIVEN)), max: whole(1, MAX_REDRIVEN, MAX_REDRIVEN) }
const SEEK_BODY = { from: readFrom }

/** Whose messages are operated on: a queue's, or those of a group. */
interface Place {
  readonly topic: string
  /** '' for a queue. */
  readonly group: string
  /** As answers name it. */
  readonly shown: object
}

/** What the nouns of queues and groups do alike. */
interface Operated {
  redrive(options: RedriveOptions): Promise<Redriven>
  discard(options: RedriveOptions): Promise<Discarded>
  pause(): Promise<void>
  resume(): Promise<void>
}

export function operateRoutes(app: FastifyInstance, context: Context): void {
  readsControl(app, context.settings)
  refuseOtherTypes(app, ['application/json'])
  app.get('/v1/queues', { config: { access: 'named in the call' } }, (request, reply) =>
    showAll(context, request, reply, 'queue'),
  )
  app.get('/v1/topics', { config: { access: 'named in the call' } }, (request, reply) =>
    showAll(context, request, reply, 'topic'),
  )
  app.get('/v1/queues/:name', { config: { access: { scope: 'read', of: 'name' } } }, (request, reply) =>
    showOne(context, request, reply, 'queue'),
  )
  app.get('/v1/topics/:name', { config: { access: { scope: 'read', of: 'name' } } }, (request, reply) =>
    showOne(context, request, reply, 'topic'),
  )
  for (const [base, end, of] of [
    ['/v1/queues/:name', '/v1/queues/:name(^[^:/]*)', 'name'],
    ['/v1/topics/:topic/groups/:group', '/v1/topics/:topic/groups/:group(^[^:/]*)', 'topic'],
  ] as const) {
    const read = { config: { access: { scope: 'read', of } } } as const
    const admin = { config: { access: { scope: 'admin', of } } } as const
    app.get(`${base}/dead`, read, (request, reply) => showDead(context, request, reply))
    app.post(`${base}/dead::redrive`, admin, (request, reply) => useLetters(context, request, reply, 'redrive'))
    app.post(`${base}/dead::discard`, admin, (request, reply) => useLetters(context, request, reply, 'discard'))
    app.post(`${end}::pause`, admin, (request, reply) => switchPlace(context, request, reply, 'pause'))
    app.post(`${end}::resume`, admin, (request, reply) => switchPlace(context, request, reply, 'resume'))
  }
  app.patch(
    '/v1/topics/:topic/groups/:group',
    { config: { access: { scope: 'admin', of: 'topic' } } },
    (request, reply) => seek(context, request, reply),
  )
  app.delete(
    '/v1/topics/:topic/groups/:group',
    { config: { access: { scope: 'admin', of: 'topic' } } },
    (request, reply) => forget(context, request, reply),
  )
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
  const { topic, group } = await placeOf(context, request)
  const { limit, after } = readMembers(request.query, DEAD_QUERY, 'the query')
  const cursor = after === undefined ? {} : { after }
  const outcome = await context.engine.command({ kind: 'dead', topic, group, max: limit, ...cursor })
  if (outcome.status !== 'dead-letters') throw group === '' ? notFound('queue', topic) : noGroup(topic, group)
  const letters = outcome.letters.map((letter) => formatDeadLetter(letter, new BatchView(letter.batch)))
  return reply.type(JSON_TYPE).send(`{"letters":[${letters.join(',')}],"next":${JSON.stringify(outcome.next)}}`)
}

async function useLetters(
  context: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  kind: 'redrive' | 'discard',
): Promise<FastifyReply> {
  const place = await placeOf(context, request)
  const { ids, max } = readMembers(readControl(request).value, LETTERS_BODY, `a ${kind}`)
  const wanted = ids?.map((id, i) => text(256)(id, `ids[${i}]`))
  const done = await operated(context, place)[kind]({ max, ids: wanted })
  return reply.type(JSON_TYPE).send(JSON.stringify({ ...place.shown, ...done }))
}

async function switchPlace(
  context: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  kind: 'pause' | 'resume',
): Promise<FastifyReply> {
  const place = await placeOf(context, request)
  await operated(context, place)[kind]()
  return reply.type(JSON_TYPE).send(JSON.stringify({ ...place.shown, paused: kind === 'pause' }))
}

async function seek(context: Context, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const { topic, group, shown } = await placeOf(context, request)
  const { from } = readMembers(readControl(request).value, SEEK_BODY, 'a seek')
  await context.sluice.topic(topic).seek(group, from)
  return reply.type(JSON_TYPE).send(JSON.stringify({ ...shown, from }))
}

async function forget(context: Context, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const { topic, group } = await placeOf(context, request)
  await context.sluice.topic(topic).forget(group)
  return reply.code(204).send()
}

async function placeOf({ directory }: Context, request: FastifyRequest): Promise<Place> {
  const queue = pathPart(request, 'name')
  if (queue !== '') {
    const { name } = await directory.find('queue', readName(queue, 'queue'))
    return { topic: name, group: '', shown: { queue: name } }
  }
  const topic = readName(pathPart(request, 'topic'), 'topic')
  const group = readName(pathPart(request, 'group'), 'group')
  await directory.find('topic', topic)
  return { topic, group, shown: { topic, group } }
}

function operated({ sluice }: Context, { topic, group }: Place): Operated {
  if (group === '') return sluice.queue(topic)
  const noun = sluice.topic(topic)
  return {
    redrive: (options) => noun.redrive(group, options),
    discard: (options) => noun.discard(group, options),
    pause: () => noun.pause(group),
    resume: () => noun.resume(group),
  }
}
