/** Messages of a topic: publish one or a batch, read a page, follow the topic as it grows. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { ReadFrom } from '../../index.ts'
import { schemaOf } from '../../json-schema.ts'
import { invalidOption } from '../../options-check.ts'
import { readFrom as checkFrom } from '../../setting-rules.ts'
import { publishedMessage } from '../accepted.ts'
import { describe, json, type Operation, readParams, readQuery } from '../api/operation.ts'
import { count, listOf, ref, shape } from '../api/schemas.ts'
import { BATCH_TYPE, isBatch, payloadBody, readPayload, readsPayloads } from '../bodies.ts'
import { type Context, JSON_TYPE, MAX_WAIT_MS, waiting } from '../context.ts'
import { EventStream, LAST_EVENT_ID, streamAnswer, wantsEvents } from '../event-stream.ts'
import { Follower, STREAM_PAGE } from '../follower.ts'
import { HEADERS_NOTE, MESSAGE_HEADERS, readRequest } from '../incoming.ts'
import { PAYLOAD_TYPES, refuseOtherTypes } from '../media-types.ts'
import { about, named, reader, wholeText } from '../members.ts'
import { takePage } from '../pages.ts'
import { validate } from '../validation.ts'
import { appendLines } from './batch.ts'

const MAX_PAGE = 1_000
const ISO_TIME = /^\d{4}-\d{2}-\d{2}(?:T[\d:.]+(?:Z|[+-]\d{2}:\d{2})?)?$/

/** `earliest`, `latest`, an offset, or a time in ISO 8601; in a body also `{"timeMs": …}`. */
export const readFrom = reader<ReadFrom>(
  { anyOf: [schemaOf(checkFrom), { type: 'string', format: 'date-time' }] },
  (value, name) => {
    if (value === 'earliest' || value === 'latest') return value
    if (typeof value !== 'string') {
      checkFrom(value, name)
      return value as ReadFrom
    }
    if (/^\d{1,16}$/.test(value) && Number.isSafeInteger(Number(value))) return Number(value)
    const timeMs = ISO_TIME.test(value) ? Date.parse(value) : Number.NaN
    if (Number.isFinite(timeMs)) return { timeMs }
    throw invalidOption(name, value, 'earliest, latest, an offset, or a time such as 2030-01-31T12:00:00Z')
  },
)

const PAGE_QUERY = {
  from: about(
    '`earliest`, `latest`, an offset, or a time in ISO 8601',
    reader<ReadFrom>({ type: 'string', default: 'earliest' }, (value, name) =>
      value === undefined ? 'earliest' : readFrom(value, name),
    ),
  ),
  limit: about('The most messages', wholeText(1, MAX_PAGE, 100)),
  waitMs: about('How long to wait at the end of the topic', wholeText(0, MAX_WAIT_MS, 0)),
}
const TOPIC = { topic: named('topic') }

const PUBLISH: Operation = {
  id: 'publishMessage',
  access: { scope: 'publish', of: 'topic' },
  tag: 'topics',
  summary: 'Stores a message on a topic, or a batch of them as lines.',
  description: HEADERS_NOTE,
  params: TOPIC,
  headers: MESSAGE_HEADERS,
  body: payloadBody('MessageLine'),
  answers: {
    201: json('It is stored, as `durability` says', ref('Receipt')),
    200: { description: 'A batch: an outcome for each line', content: { [BATCH_TYPE]: ref('MessageOutcome') } },
  },
  errors: [
    'INVALID_PAYLOAD',
    'SCHEMA_MISMATCH',
    'QUEUE_FULL',
    'DISK_FULL',
    'IDEMPOTENCY_MISMATCH',
    'TOPIC_NOT_FOUND',
    'DECLARED_DIFFERENTLY',
  ],
}
const READ: Operation = {
  id: 'readMessages',
  access: { scope: 'read', of: 'topic' },
  tag: 'topics',
  summary: 'Reads a page of a topic, or follows it as a stream of events.',
  params: TOPIC,
  query: PAGE_QUERY,
  headers: LAST_EVENT_ID,
  answers: {
    200: streamAnswer(
      'A page; with `Accept: text/event-stream` each message as an event whose id is its offset',
      shape({ messages: listOf(ref('Message')), next: count, earliest: count, head: count }),
    ),
  },
  errors: ['TOPIC_NOT_FOUND', 'DECLARED_DIFFERENTLY', 'OFFSET_TRUNCATED', 'OFFSET_OUT_OF_RANGE'],
}

export function messageRoutes(app: FastifyInstance, context: Context): void {
  readsPayloads(app, context.settings)
  refuseOtherTypes(app, PAYLOAD_TYPES)
  app.post('/v1/topics/:topic/messages', describe(PUBLISH), (request, reply) => publish(context, request, reply))
  app.get('/v1/topics/:topic/messages', describe(READ), (request, reply) => readPage(context, request, reply))
}

async function publish(context: Context, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const { topic } = readParams(request, TOPIC)
  const incoming = isBatch(request) ? null : readRequest(request.headers, readPayload(request), 'topic', context.now())
  const entry = context.directory.peek('topic', topic) ?? (await context.directory.use('topic', topic))
  if (incoming === null)
    return appendLines(context, entry, request, reply, (appended) => publishedMessage(topic, appended))
  const published = publishedMessage(
    topic,
    await context.appender.append(
      topic,
      await validate(entry.noun.schema, incoming, context.settings.maxMessageBytes),
      request.caller.id,
    ),
  )
  return reply.code(201).type(JSON_TYPE).send(JSON.stringify(published))
}

async function readPage(context: Context, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const { topic } = readParams(request, TOPIC)
  const { from, limit, waitMs } = readQuery(request, PAGE_QUERY)
  await context.directory.find('topic', topic)
  if (wantsEvents(request.headers.accept)) return follow(context, request, reply, topic, from)
  const { messages, next, earliest, head } = await waiting(request, waitMs, (signal) =>
    takePage(context.engine, { topic, from, limit, waitMs, budgetBytes: context.settings.maxAnswerBytes }, signal),
  )
  const list = messages.map(({ text }) => text).join(',')
  return reply.type(JSON_TYPE).send(`{"messages":[${list}],"next":${next},"earliest":${earliest},"head":${head}}`)
}

/** Every message from there on as an event, its offset as the id, so that `Last-Event-ID` goes on behind it. */
async function follow(
  { engine, tails }: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  topic: string,
  from: ReadFrom,
): Promise<FastifyReply> {
  const last = request.headers['last-event-id']
  const start = last === undefined ? from : nextOf(last)
  const follower = new Follower(tails, topic)
  holdFollower(request, follower)
  // The first page comes before the status goes out, so that a place that cannot be read is still a proper error.
  const page = await takePage(engine, { ...STREAM_PAGE, topic, from: start, waitMs: 0 })
  follower.start(new EventStream(reply), page)
  return reply
}

/** Apart from what knows the request: the function lives as long as the stream. */
function holdFollower({ visit }: FastifyRequest, follower: Follower): void {
  visit.hold(() => follower.stop())
}

function nextOf(lastEventId: string | string[]): number {
  const last = readFrom(lastEventId, 'Last-Event-ID')
  if (typeof last !== 'number') throw invalidOption('Last-Event-ID', lastEventId, 'the id of an event of this topic')
  return last + 1
}
