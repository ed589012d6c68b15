/** Declares queues, topics and groups, with the option names that TypeScript has. 201 where it is new, else 200. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Declaration } from '../../index.ts'
import { type JsonSchema, objectSchema, schemaOf } from '../../json-schema.ts'
import { checkOptions, createRules, type Rule, type Rules, rule } from '../../options-check.ts'
import { QUEUE_RULES, SUBSCRIBE_RULES, TOPIC_RULES } from '../../setting-rules.ts'
import { type Body, describe, json, type Operation, readParams } from '../api/operation.ts'
import { flag, nameText, shape } from '../api/schemas.ts'
import { readControl, readsControl } from '../bodies.ts'
import { type Context, JSON_TYPE } from '../context.ts'
import { refuseOtherTypes } from '../media-types.ts'
import { named, type Readers } from '../members.ts'
import { readFrom } from './messages.ts'

/** Options that are a process's own: they mean something only where the handler or the publisher runs. */
const LOCAL = new Set(['schema', 'pace', 'fullWaitMs', 'concurrency', 'timeoutMs', 'leaseMs'])
export const QUEUE_SETTINGS = settingsOnly(QUEUE_RULES)
export const TOPIC_SETTINGS = settingsOnly(TOPIC_RULES)
export const GROUP_SETTINGS: Rules = createRules({
  ...settingsOnly(SUBSCRIBE_RULES),
  from: rule(schemaOf(readFrom), (value, name) => void readFrom(value, name)),
} as Record<string, Rule>)

const QUEUE = { queue: named('queue') }
const TOPIC = { topic: named('topic') }
const GROUP = { topic: named('topic'), group: named('group') }

export function declareRoutes(app: FastifyInstance, context: Context): void {
  readsControl(app, context.settings)
  refuseOtherTypes(app, ['application/json'])
  app.put('/v1/queues/:queue', describe(declares('queue', QUEUE, QUEUE_SETTINGS)), async (request, reply) => {
    const { queue: name } = readParams(request, QUEUE)
    const settings = readSettings(request, QUEUE_SETTINGS, `the queue '${name}'`)
    return declare(context, reply, { kind: 'queue', name, settings })
  })
  app.put('/v1/topics/:topic', describe(declares('topic', TOPIC, TOPIC_SETTINGS)), async (request, reply) => {
    const { topic: name } = readParams(request, TOPIC)
    const settings = readSettings(request, TOPIC_SETTINGS, `the topic '${name}'`)
    return declare(context, reply, { kind: 'topic', name, settings })
  })
  const declaresGroup = describe(declares('group', GROUP, GROUP_SETTINGS))
  app.put('/v1/topics/:topic/groups/:group', declaresGroup, async (request, reply) => {
    const { topic, group: name } = readParams(request, GROUP)
    const { from = 'earliest', ...settings } = readSettings(request, GROUP_SETTINGS, `the group '${name}'`)
    await context.directory.use('topic', topic)
    return declare(context, reply, { kind: 'group', topic, name, settings, from: readFrom(from, 'from') })
  })
}

function declares(kind: 'queue' | 'topic' | 'group', params: Readers, rules: Rules): Operation {
  const place: Record<string, JsonSchema> =
    kind === 'group' ? { topic: nameText, group: nameText } : { [kind]: nameText }
  const answer = shape({ ...place, created: flag, settings: { type: 'object' } })
  const body: Body = { isRequired: false, content: { 'application/json': objectSchema(rules) } }
  return {
    id: `declare${kind[0]?.toUpperCase()}${kind.slice(1)}`,
    tag: 'declare',
    access: kind === 'group' ? { scope: 'consume', of: 'topic' } : { scope: 'admin', of: kind },
    summary: `Declares a ${kind}, or changes its settings; what is left out stays as it is.`,
    params,
    body,
    answers: {
      200: json('It was there; the settings in force', answer),
      201: json('It is new; the settings in force', answer),
    },
    errors: [
      'DECLARED_DIFFERENTLY',
      ...(kind === 'group'
        ? (['TOPIC_NOT_FOUND', 'GROUP_NOT_FOUND', 'OFFSET_OUT_OF_RANGE', 'OFFSET_TRUNCATED'] as const)
        : []),
    ],
  }
}

function readSettings(request: FastifyRequest, rules: Rules, where: string): Record<string, unknown> {
  const { value } = readControl(request)
  checkOptions(value, rules, where)
  return value as Record<string, unknown>
}

async function declare({ directory }: Context, reply: FastifyReply, declaration: Declaration): Promise<FastifyReply> {
  const { created, settings } = await directory.declare(declaration)
  const { kind, name } = declaration
  const place = kind === 'group' ? { topic: declaration.topic, group: name } : { [kind]: name }
  return reply
    .code(created ? 201 : 200)
    .type(JSON_TYPE)
    .send(JSON.stringify({ ...place, created, settings }))
}

function settingsOnly(rules: Rules): Rules {
  return createRules(
    Object.fromEntries(Object.entries(rules).filter(([name]) => !LOCAL.has(name))) as Record<string, Rule>,
  )
}
