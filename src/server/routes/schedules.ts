/**
 * Schedules: declare one whose payload is stored, list, remove. This server fires them (`sluice.runSchedules()`), as every
 * other server of the same data does; each tick has one job.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { SluiceError } from '../../errors.ts'
import { SCHEDULE_RULES, type ScheduleInfo, type ScheduleOptions } from '../../index.ts'
import { type JsonSchema, objectSchema } from '../../json-schema.ts'
import { checkOptions, createRules, type Rule, rule } from '../../options-check.ts'
import { describe, json, type Operation, readParams } from '../api/operation.ts'
import { atMs, flag, listOf, nameText, shape, text } from '../api/schemas.ts'
import { readControl, readsControl } from '../bodies.ts'
import { type Context, JSON_TYPE } from '../context.ts'
import { refuseOtherTypes } from '../media-types.ts'
import { named } from '../members.ts'

const QUEUE = { queue: named('queue') }
const PLACE = { queue: named('queue'), schedule: named('schedule') }
const BODY = createRules({
  ...(SCHEDULE_RULES as Record<string, Rule>),
  payload: rule({ description: 'Any JSON: the payload of each job' }, () => {}),
})

const orNull = (schema: JsonSchema): JsonSchema => ({ anyOf: [schema, { type: 'null' }] })
const option = (name: string): JsonSchema => BODY[name]?.schema ?? {}
const VIEW = shape(
  {
    queue: nameText,
    name: nameText,
    missed: option('missed'),
    isFromCode: flag,
    createdAtMs: atMs,
    nextAtMs: orNull(atMs),
    firedAtMs: orNull(atMs),
    jobId: orNull(text),
  },
  {
    ...Object.fromEntries(
      ['cron', 'everyMs', 'timeZone', 'key', 'headers', 'priority', 'deadlineMs', 'payload'].map((name) => [
        name,
        option(name),
      ]),
    ),
    hasCallback: flag,
  },
)
const LIST = { 200: json('All of them, by queue and name', shape({ schedules: listOf(VIEW) })) }

const PUT: Operation = {
  id: 'putSchedule',
  tag: 'schedules',
  access: { scope: 'publish', of: 'queue' },
  summary: 'Adds a job at each tick of a cron or an interval; declared again it is changed.',
  params: PLACE,
  body: { isRequired: true, content: { 'application/json': objectSchema(BODY, ['payload']) } },
  answers: { 200: json('The schedule as it is now', VIEW) },
  errors: ['QUEUE_NOT_FOUND', 'DECLARED_DIFFERENTLY', 'UNSUPPORTED', 'INVALID_PAYLOAD'],
}
const REMOVE: Operation = {
  id: 'removeSchedule',
  tag: 'schedules',
  access: { scope: 'publish', of: 'queue' },
  summary: 'Removes a schedule. Jobs that it has added go on.',
  params: PLACE,
  answers: { 200: json('Whether it was there', shape({ queue: nameText, name: nameText, removed: flag })) },
  errors: ['DECLARED_DIFFERENTLY'],
}
const OF_QUEUE: Operation = {
  id: 'listSchedulesOfQueue',
  tag: 'schedules',
  access: { scope: 'read', of: 'queue' },
  summary: 'Lists the schedules of a queue, with their next ticks.',
  params: QUEUE,
  answers: LIST,
}
const ALL: Operation = {
  id: 'listSchedules',
  tag: 'schedules',
  access: 'named in the call',
  summary: 'Lists the schedules of all queues, with their next ticks.',
  answers: LIST,
}

export function scheduleRoutes(app: FastifyInstance, context: Context): void {
  readsControl(app, context.settings)
  refuseOtherTypes(app, ['application/json'])
  app.put('/v1/queues/:queue/schedules/:schedule', describe(PUT), (request, reply) => put(context, request, reply))
  app.delete('/v1/queues/:queue/schedules/:schedule', describe(REMOVE), (request, reply) =>
    remove(context, request, reply),
  )
  app.get('/v1/queues/:queue/schedules', describe(OF_QUEUE), async (request, reply) => {
    const { queue } = readParams(request, QUEUE)
    return list(context, reply, (schedule) => schedule.queue === queue)
  })
  app.get('/v1/schedules', describe(ALL), (request, reply) =>
    list(context, reply, (schedule) => request.caller.sees(schedule.queue)),
  )
}

async function put(context: Context, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const { queue, schedule: name } = readParams(request, PLACE)
  const { value } = readControl(request)
  checkOptions(value, BODY, `the schedule '${name}'`)
  const { payload, ...options } = value as ScheduleOptions & { readonly payload?: unknown }
  const { sluice, directory } = context
  await directory.use('queue', queue)
  const schedule = sluice.queue(queue).schedule(name, options, payload)
  await schedule.ready
  // From here on it is one of those that are stored.
  await schedule.close()
  await context.schedules?.refresh()
  const kept = (await sluice.schedules()).find((one) => one.queue === queue && one.name === name)
  if (kept === undefined) throw new SluiceError('DECLARED_DIFFERENTLY', `The schedule '${name}' was removed meanwhile.`)
  return reply.type(JSON_TYPE).send(JSON.stringify(show(kept)))
}

async function remove(
  { sluice, schedules }: Context,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  const { queue, schedule: name } = readParams(request, PLACE)
  const removed = await sluice.queue(queue).unschedule(name)
  await schedules?.refresh()
  return reply.type(JSON_TYPE).send(JSON.stringify({ queue, name, removed }))
}

async function list(
  { sluice }: Context,
  reply: FastifyReply,
  isShown: (schedule: ScheduleInfo) => boolean,
): Promise<FastifyReply> {
  const schedules = (await sluice.schedules()).filter(isShown).map(show)
  return reply.type(JSON_TYPE).send(JSON.stringify({ schedules }))
}

/** The URL of a callback may have a secret in it, which whoever may read the queue need not know. */
function show({ callbackUrl, ...rest }: ScheduleInfo): object {
  return callbackUrl === undefined ? rest : { ...rest, hasCallback: true }
}
