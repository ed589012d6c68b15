/**
 * What an operator sees and does: queues and topics with their figures; of a queue, or of a group on a topic, the dead
 * letters, redrive, discard, pause and resume; of a group also seek and forget. What changes anything goes through the
 * nouns, which check ids and stop the handlers of this process whose messages were taken from them.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import {
  BatchView,
  type Discarded,
  type GroupStats,
  type Redriven,
  type RedriveOptions,
  type TopicStats,
} from '../../index.ts'
import { describe, readBody, readParams, readQuery } from '../api/operation.ts'
import { readsControl } from '../bodies.ts'
import { type Context, JSON_TYPE } from '../context.ts'
import { notFound } from '../directory.ts'
import { refuseOtherTypes } from '../media-types.ts'
import { text } from '../members.ts'
import { formatDeadLetter } from '../views.ts'
import { noGroup } from './leases.ts'
import {
  DEAD_QUERY,
  FORGET,
  GROUP,
  LETTERS_BODY,
  LIST_QUERY,
  listing,
  listingDead,
  NO_MEMBERS,
  PLACES,
  type PlaceKind,
  QUEUE,
  SEEK,
  SEEK_BODY,
  showing,
  switching,
  TOPIC,
  usingLetters,
} from './operate-api.ts'

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
  for (const kind of ['queue', 'topic'] as const) {
    app.get(`/v1/${kind}s`, describe(listing(kind)), (request, reply) => showAll(context, request, reply, kind))
    app.get(`/v1/${kind}s/:${kind}`, describe(showing(kind)), (request, reply) =>
      showOne(context, request, reply, kind),
    )
  }
  for (const kind of ['queue', 'group'] as const) {
    const { base, end } = PLACES[kind]
    app.get(`${base}/dead`, describe(listingDead(kind)), (request, reply) => showDead(context, request, reply, kind))
    for (const act of ['redrive', 'discard'] as const) {
      app.post(`${base}/dead::${act}`, describe(usingLetters(kind, act)), (request, reply) =>
        useLetters(context, request, reply, kind, act),
      )
    }
    for (const act of ['pause', 'resume'] as const) {
      app.post(`${end}::${act}`, describe(switching(kind, act)), (request, reply) =>
        switchPlace(context, request, reply, kind, act),
      )
    }
  }
  app.patch('/v1/topics/:topic/groups/:group', describe(SEEK), (request, reply) => seek(context, request, reply))
  app.delete('/v1/topics/:topic/groups/:group', describe(FORGET), (request, reply) => forget(context, request, reply))
}

async function showAll(
  { engine }: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  kind: 'queue' | 'topic',
): Promise<FastifyReply> {
  const { limit, after = '' } = readQuery(request, LIST_QUERY)
  const { topics } = await engine.stats()
  const rest = topics
    .filter((topic) => topic.kind === kind && topic.name > after && request.caller.sees(topic.name))
    .sort((a, b) => (a.name < b.name ? -1 : 1))
  const page = rest.slice(0, limit)
  const views = page.map(show)
  const next = rest.length > limit ? (page.at(-1)?.name ?? null) : null
  return reply.type(JSON_TYPE).send(JSON.stringify({ [`${kind}s`]: views, next }))
}

async function showOne(
  { engine }: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  kind: 'queue' | 'topic',
): Promise<FastifyReply> {
  const name = kind === 'queue' ? readParams(request, QUEUE).queue : readParams(request, TOPIC).topic
  const { topics } = await engine.stats()
  const found = topics.find((topic) => topic.kind === kind && topic.name === name)
  if (found === undefined) throw notFound(kind, name)
  return reply.type(JSON_TYPE).send(JSON.stringify(show(found)))
}

/** A queue has one group, whose figures stand with its own; a topic lists its groups. Histograms are for /metrics. */
function show(topic: TopicStats): object {
  const { kind, groups, refusedBy: _refusedBy, ...common } = topic
  if (kind === 'topic') return { ...common, groups: groups.map((group) => ({ name: group.name, ...figuresOf(group) })) }
  const [jobs] = groups
  if (jobs === undefined) return common
  const { depth: _depth, ...figures } = figuresOf(jobs)
  return { ...common, ...figures }
}

function figuresOf({ name: _name, work, oldestAtMs, ...figures }: GroupStats) {
  const { done, failed, died, expired } = work
  return { ...figures, ...(oldestAtMs === null ? {} : { oldestAtMs }), done, failed, died, expired }
}

async function showDead(
  context: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  kind: PlaceKind,
): Promise<FastifyReply> {
  const { topic, group } = await placeOf(context, request, kind)
  const { limit, after } = readQuery(request, DEAD_QUERY)
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
  kind: PlaceKind,
  act: 'redrive' | 'discard',
): Promise<FastifyReply> {
  const place = await placeOf(context, request, kind)
  const { ids, max } = readBody(request, LETTERS_BODY, `a ${act}`)
  const wanted = ids?.map((id, i) => text(256)(id, `ids[${i}]`))
  const done = await operated(context, place)[act]({ max, ids: wanted })
  return reply.type(JSON_TYPE).send(JSON.stringify({ ...place.shown, ...done }))
}

async function switchPlace(
  context: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  kind: PlaceKind,
  act: 'pause' | 'resume',
): Promise<FastifyReply> {
  const place = await placeOf(context, request, kind)
  readBody(request, NO_MEMBERS, `a ${act}`)
  await operated(context, place)[act]()
  return reply.type(JSON_TYPE).send(JSON.stringify({ ...place.shown, paused: act === 'pause' }))
}

async function seek(context: Context, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const { topic, group, shown } = await placeOf(context, request, 'group')
  const { from } = readBody(request, SEEK_BODY, 'a seek')
  await context.sluice.topic(topic).seek(group, from)
  return reply.type(JSON_TYPE).send(JSON.stringify({ ...shown, from }))
}

async function forget(context: Context, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const { topic, group } = await placeOf(context, request, 'group')
  await context.sluice.topic(topic).forget(group)
  return reply.code(204).send()
}

async function placeOf({ directory }: Context, request: FastifyRequest, kind: PlaceKind): Promise<Place> {
  if (kind === 'queue') {
    const { name } = await directory.find('queue', readParams(request, QUEUE).queue)
    return { topic: name, group: '', shown: { queue: name } }
  }
  const { topic, group } = readParams(request, GROUP)
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
