/** Work from any language: take messages of a queue or a group under leases, keep them, settle them. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { SluiceError } from '../../errors.ts'
import { BatchView, formatJobId } from '../../index.ts'
import { offsetError } from '../../outcomes.ts'
import { controlBody, describe, json, type Operation, readBody, readBodyText, readParams } from '../api/operation.ts'
import { listOf, ref, shape } from '../api/schemas.ts'
import { readsControl } from '../bodies.ts'
import { type Context, JSON_TYPE, MAX_WAIT_MS, waiting } from '../context.ts'
import { notFound } from '../directory.ts'
import { bindHolder, drawHolder, formatLeaseToken } from '../lease-token.ts'
import { refuseOtherTypes } from '../media-types.ts'
import { about, named, whole } from '../members.ts'
import { nextHelping } from '../paging.ts'
import { formatMessage } from '../views.ts'
import { EXTEND_BODY, extendLeases, leaseMsRule, SETTLE_BODY, settleLeases } from './settling.ts'

const MAX_LEASES = 1_000
const LEASE_BODY = {
  max: about('The most messages to take', whole(1, MAX_LEASES, 1)),
  leaseMs: about('How long they are held without being extended', leaseMsRule),
  waitMs: about('How long to wait for the first of them', whole(0, MAX_WAIT_MS, 0)),
}
const QUEUE = { queue: named('queue') }
const GROUP = { topic: named('topic'), group: named('group') }
const LEASES = json('What was taken; may be none', shape({ leases: listOf(ref('Lease')) }))
const OUTCOMES = json('An outcome for each item, in its place', shape({ outcomes: listOf(ref('LeaseOutcome')) }))

const LEASE_JOBS: Operation = {
  id: 'leaseJobs',
  access: { scope: 'consume', of: 'queue' },
  tag: 'work',
  summary: 'Takes jobs of a queue under leases, waiting for the first.',
  params: QUEUE,
  body: controlBody(LEASE_BODY),
  answers: { 200: LEASES },
  errors: ['QUEUE_NOT_FOUND', 'DECLARED_DIFFERENTLY'],
}
const LEASE_MESSAGES: Operation = {
  id: 'leaseMessages',
  access: { scope: 'consume', of: 'topic' },
  tag: 'work',
  summary: "Takes a group's share of a topic under leases, waiting for the first.",
  params: GROUP,
  body: controlBody(LEASE_BODY),
  answers: { 200: LEASES },
  errors: ['TOPIC_NOT_FOUND', 'GROUP_NOT_FOUND', 'DECLARED_DIFFERENTLY', 'OFFSET_TRUNCATED', 'OFFSET_OUT_OF_RANGE'],
}
const EXTEND: Operation = {
  id: 'extendLeases',
  access: 'named in the call',
  tag: 'work',
  summary: 'Keeps leases for longer and reports progress.',
  body: controlBody(EXTEND_BODY),
  answers: { 200: OUTCOMES },
}
const SETTLE: Operation = {
  id: 'settleLeases',
  access: 'named in the call',
  tag: 'work',
  summary: 'Ends leases: done, tried again, given back or dead; outputs take effect with it.',
  body: controlBody(SETTLE_BODY),
  answers: { 200: OUTCOMES },
}

interface Source {
  readonly topic: string
  readonly group: string
  /** Of a queue. */
  readonly tag?: string
}

interface Granted {
  readonly fence: number
  readonly offsets: readonly number[]
}

export function leaseRoutes(app: FastifyInstance, context: Context): void {
  readsControl(app, context.settings)
  refuseOtherTypes(app, ['application/json'])
  app.post('/v1/queues/:queue/leases', describe(LEASE_JOBS), async (request, reply) => {
    const { queue } = readParams(request, QUEUE)
    const { tag } = context.directory.peek('queue', queue) ?? (await context.directory.use('queue', queue))
    return lease(context, request, reply, { topic: queue, group: '', tag })
  })
  app.post('/v1/topics/:topic/groups/:group/leases', describe(LEASE_MESSAGES), async (request, reply) => {
    const { topic, group } = readParams(request, GROUP)
    await context.directory.find('topic', topic)
    return lease(context, request, reply, { topic, group })
  })
  // Lists of many leases, with progress or results.
  const long = { bodyLimit: context.settings.maxBatchBytes }
  app.post('/v1/leases::extend', { ...long, ...describe(EXTEND) }, async (request, reply) =>
    reply.type(JSON_TYPE).send(await extendLeases(context, request.caller, readBodyText(request, EXTEND_BODY))),
  )
  app.post('/v1/leases::settle', { ...long, ...describe(SETTLE) }, async (request, reply) =>
    reply.type(JSON_TYPE).send(await settleLeases(context, request.caller, readBodyText(request, SETTLE_BODY))),
  )
}

async function lease(
  context: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  source: Source,
): Promise<FastifyReply> {
  const { max, leaseMs, waitMs } = readBody(request, LEASE_BODY, 'a lease request')
  const holder = drawHolder()
  const token = bindHolder(holder, request.caller.id)
  const granted: Granted[] = []
  // A client that is gone cannot settle what it never saw, so that goes back to the queue.
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) giveBack(context, source, token, granted)
  })
  const leases = await waiting(request, waitMs, (signal) =>
    take(context, source, { max, leaseMs, waitMs, holder, token }, granted, signal),
  )
  if (request.visit.isOver) giveBack(context, source, token, granted)
  return reply.type(JSON_TYPE).send(`{"leases":[${leases.join(',')}]}`)
}

interface Wish {
  readonly max: number
  readonly leaseMs: number
  readonly waitMs: number
  readonly holder: string
  /** What the engine knows the holder by. */
  readonly token: string
}

/** Leases in helpings, so that the answer stays within a budget in bytes. Each lease as JSON text. */
async function take(
  { engine, settings }: Context,
  source: Source,
  wish: Wish,
  granted: Granted[],
  signal?: AbortSignal,
): Promise<string[]> {
  const { topic, group, tag } = source
  const leases: string[] = []
  let bytes = 0
  for (;;) {
    const max = nextHelping({
      wanted: wish.max,
      budgetBytes: settings.maxAnswerBytes,
      takenCount: leases.length,
      takenBytes: bytes,
    })
    if (max === 0) return leases
    const request = {
      topic,
      group,
      max,
      leaseMs: wish.leaseMs,
      waitMs: leases.length === 0 ? wish.waitMs : 0,
      holder: { kind: 'token', token: wish.token },
    } as const
    const outcome = await engine.lease(request, signal)
    if (outcome.status === 'empty' || (outcome.status !== 'leased' && leases.length > 0)) return leases
    if (outcome.status === 'not-found') throw group === '' ? notFound('queue', topic) : noGroup(topic, group)
    if (outcome.status !== 'leased') throw offsetError(topic, outcome)
    const { fence, offsets, attempts, timestampsMs, expiresAtMs } = outcome
    granted.push({ fence, offsets })
    const view = new BatchView(outcome.batch)
    offsets.forEach((offset, i) => {
      const text = formatMessage(view, i, {
        lease: formatLeaseToken({ topic, group, fence, offset, holder: wish.holder }),
        ...(tag === undefined ? { topic, group } : { id: formatJobId(topic, tag, offset), queue: topic }),
        offset,
        attempt: attempts[i],
        fence,
        expiresAtMs,
        timestampMs: timestampsMs[i],
      })
      leases.push(text)
      bytes += text.length
    })
    if (offsets.length < max) return leases
  }
}

function giveBack({ engine }: Context, { topic, group }: Source, token: string, granted: Granted[]): void {
  const requests = granted
    .splice(0)
    .map(({ fence, offsets }) => ({ topic, group, fence, offsets, token, outcome: { kind: 'release' } as const }))
  // Best effort: what cannot be given back now ends with its time.
  if (requests.length > 0) engine.settle(requests).catch(() => {})
}

export function noGroup(topic: string, group: string): SluiceError {
  return new SluiceError(
    'GROUP_NOT_FOUND',
    `There is no group '${group}' on the topic '${topic}'. Declare it with PUT /v1/topics/${topic}/groups/${group}, with the place where it starts.`,
  )
}
