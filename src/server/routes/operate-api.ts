/** What the routes of an operator say of themselves: see operate.ts. */
import { schemaOf } from '../../json-schema.ts'
import { deadCursor } from '../../setting-rules.ts'
import { controlBody, json, type Operation } from '../api/operation.ts'
import { text as anyText, count, flag, listOf, nameText, ref, shape } from '../api/schemas.ts'
import { about, list, named, optional, reader, text, whole, wholeText } from '../members.ts'
import { readFrom } from './messages.ts'

const MAX_LISTED = 1_000
const MAX_LETTERS = 1_000
const MAX_REDRIVEN = 10_000

export const LIST_QUERY = {
  limit: about('The most of them', wholeText(1, MAX_LISTED, MAX_LISTED)),
  after: about('The name behind which to go on: the `next` of a page', optional(text(128))),
}
const readCursor = reader(schemaOf(deadCursor), (value, name) => {
  deadCursor(value, name)
  return value as string
})
export const DEAD_QUERY = {
  limit: about('The most of them', wholeText(1, MAX_LETTERS, 100)),
  after: about('The `next` of an earlier page', optional(readCursor)),
}
export const LETTERS_BODY = {
  ids: about('Which; without them all, the oldest first', optional(list(MAX_REDRIVEN, anyText))),
  max: about('The most of them', whole(1, MAX_REDRIVEN, MAX_REDRIVEN)),
}
export const SEEK_BODY = { from: about('`earliest`, `latest`, an offset, or a time', readFrom) }
export const NO_MEMBERS = {}
export const QUEUE = { queue: named('queue') }
export const TOPIC = { topic: named('topic') }
export const GROUP = { topic: named('topic'), group: named('group') }

/** The two kinds of place whose messages are operated on, and how their routes differ. */
export const PLACES = {
  queue: {
    params: QUEUE,
    base: '/v1/queues/:queue',
    end: '/v1/queues/:queue(^[^:/]*)',
    of: 'a queue',
    shown: { queue: nameText },
    errors: ['QUEUE_NOT_FOUND', 'DECLARED_DIFFERENTLY'],
  },
  group: {
    params: GROUP,
    base: '/v1/topics/:topic/groups/:group',
    end: '/v1/topics/:topic/groups/:group(^[^:/]*)',
    of: 'a group on a topic',
    shown: { topic: nameText, group: nameText },
    errors: ['TOPIC_NOT_FOUND', 'GROUP_NOT_FOUND', 'DECLARED_DIFFERENTLY'],
  },
} as const
export type PlaceKind = keyof typeof PLACES

export function listing(kind: 'queue' | 'topic'): Operation {
  const view = kind === 'queue' ? ref('Queue') : ref('Topic')
  return {
    id: kind === 'queue' ? 'listQueues' : 'listTopics',
    access: 'named in the call',
    tag: 'operate',
    summary: `Lists the ${kind}s by name, with their figures.`,
    query: LIST_QUERY,
    answers: {
      200: json('A page', shape({ [`${kind}s`]: listOf(view), next: { type: ['string', 'null'] } })),
    },
  }
}

export function showing(kind: 'queue' | 'topic'): Operation {
  return {
    id: kind === 'queue' ? 'showQueue' : 'showTopic',
    access: { scope: 'any', of: kind },
    tag: 'operate',
    summary: `Shows the figures of a ${kind}.`,
    params: kind === 'queue' ? QUEUE : TOPIC,
    answers: { 200: json('Its figures', kind === 'queue' ? ref('Queue') : ref('Topic')) },
    errors: [kind === 'queue' ? 'QUEUE_NOT_FOUND' : 'TOPIC_NOT_FOUND'],
  }
}

/** An operation on one of the two kinds of place: `pauseQueue`, `pauseGroup`. */
function operating(
  kind: PlaceKind,
  verb: string,
  scope: 'read' | 'admin',
  summary: string,
  rest: Omit<Operation, 'id' | 'tag' | 'access' | 'summary' | 'params'>,
): Operation {
  const { params, errors } = PLACES[kind]
  return {
    id: `${verb}${kind === 'queue' ? 'Queue' : 'Group'}`,
    tag: 'operate',
    access: { scope, of: kind === 'queue' ? 'queue' : 'topic' },
    summary,
    params,
    ...rest,
    errors: [...errors, ...(rest.errors ?? [])],
  }
}

export function listingDead(kind: PlaceKind): Operation {
  const page = shape({ letters: listOf(ref('DeadLetter')), next: { type: ['string', 'null'] } })
  return operating(kind, 'listDeadOf', 'read', `Lists the dead letters of ${PLACES[kind].of}, the oldest first.`, {
    query: DEAD_QUERY,
    answers: { 200: json('A page', page) },
  })
}

export function usingLetters(kind: PlaceKind, act: 'redrive' | 'discard'): Operation {
  const what = act === 'redrive' ? 'Tries dead letters again, as new jobs' : 'Removes dead letters for good'
  const done = shape({ ...PLACES[kind].shown, count }, act === 'redrive' ? { ids: listOf(anyText) } : {})
  return operating(kind, `${act}DeadOf`, 'admin', `${what}: all of ${PLACES[kind].of}, or those of \`ids\`.`, {
    body: controlBody(LETTERS_BODY),
    answers: { 200: json('How many', done) },
    errors: ['JOB_NOT_FOUND', ...(act === 'redrive' ? (['UNSUPPORTED', 'QUEUE_FULL', 'DISK_FULL'] as const) : [])],
  })
}

export function switching(kind: PlaceKind, act: 'pause' | 'resume'): Operation {
  const what = act === 'pause' ? 'Hands nothing of it out' : 'Hands messages out again'
  return operating(kind, act, 'admin', `${what}: ${PLACES[kind].of}.`, {
    body: controlBody(NO_MEMBERS),
    answers: { 200: json('As it is now', shape({ ...PLACES[kind].shown, paused: flag })) },
  })
}

export const SEEK = operating(
  'group',
  'seek',
  'admin',
  'Moves a group to another place; what its members hold is lost to them.',
  {
    body: controlBody(SEEK_BODY),
    answers: {
      200: json(
        'Where it goes on',
        shape({ ...PLACES.group.shown, from: { anyOf: [anyText, count, shape({ timeMs: count })] } }),
      ),
    },
    errors: ['OFFSET_TRUNCATED', 'OFFSET_OUT_OF_RANGE'],
  },
)
export const FORGET = operating('group', 'forget', 'admin', 'Removes a group with its place and its dead letters.', {
  answers: { 204: { description: 'It is gone' } },
})
