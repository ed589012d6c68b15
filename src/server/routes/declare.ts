/** Declares queues, topics and groups, with the option names that TypeScript has. 201 where it is new, else 200. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Declaration } from '../../index.ts'
import { checkOptions, createRules, type Rule, type Rules } from '../../options-check.ts'
import { QUEUE_RULES, SUBSCRIBE_RULES, TOPIC_RULES } from '../../setting-rules.ts'
import { readControl, readsControl } from '../bodies.ts'
import { type Context, JSON_TYPE, pathPart } from '../context.ts'
import { refuseOtherTypes } from '../media-types.ts'
import { readName } from '../members.ts'
import { readFrom } from './messages.ts'

/** Options that are a process's own: they mean something only where the handler or the publisher runs. */
const LOCAL = new Set(['schema', 'pace', 'fullWaitMs', 'concurrency', 'timeoutMs', 'leaseMs'])
export const QUEUE_SETTINGS = settingsOnly(QUEUE_RULES)
export const TOPIC_SETTINGS = settingsOnly(TOPIC_RULES)
export const GROUP_SETTINGS: Rules = createRules({
  ...settingsOnly(SUBSCRIBE_RULES),
  from: (value, name) => void readFrom(value, name),
} as Record<string, Rule>)

export function declareRoutes(app: FastifyInstance, context: Context): void {
  readsControl(app, context.settings)
  refuseOtherTypes(app, ['application/json'])
  app.put('/v1/queues/:name', { config: { access: { scope: 'admin', of: 'name' } } }, async (request, reply) => {
    const name = readName(pathPart(request, 'name'), 'queue')
    const settings = readSettings(request, QUEUE_SETTINGS, `the queue '${name}'`)
    return declare(context, reply, { kind: 'queue', name, settings })
  })
  app.put('/v1/topics/:name', { config: { access: { scope: 'admin', of: 'name' } } }, async (request, reply) => {
    const name = readName(pathPart(request, 'name'), 'topic')
    const settings = readSettings(request, TOPIC_SETTINGS, `the topic '${name}'`)
    return declare(context, reply, { kind: 'topic', name, settings })
  })
  app.put(
    '/v1/topics/:topic/groups/:group',
    { config: { access: { scope: 'consume', of: 'topic' } } },
    async (request, reply) => {
      const topic = readName(pathPart(request, 'topic'), 'topic')
      const name = readName(pathPart(request, 'group'), 'group')
      const { from = 'earliest', ...settings } = readSettings(request, GROUP_SETTINGS, `the group '${name}'`)
      await context.directory.use('topic', topic)
      return declare(context, reply, { kind: 'group', topic, name, settings, from: readFrom(from, 'from') })
    },
  )
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
