/**
 * The engine contract over HTTP, for `open('http://…')`: one POST a method, with bodies of engine/wire.ts. What any language
 * uses is in the other routes; here both ends are Sluice, so a batch travels as it is stored.
 *
 * A call that must not be carried out twice has a number, and asked again it is answered as before (answer-memory.ts).
 *
 * Nothing is taken on trust: each argument is checked by a table before the engine sees it. A lease that a client did not
 * live to see is given back.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import {
  CALL_HEADER,
  decodeWire,
  encodeWire,
  MAX_CALL_VALUES,
  PROCESS_HEADER,
  SENT_TO_HEADER,
  WIRE_TYPE,
  WIRE_VERSION,
} from '../../engine/wire.ts'
import { SluiceError } from '../../errors.ts'
import type {
  Command,
  Declaration,
  Engine,
  FindOutcome,
  LeaseOutcome,
  LeaseRequest,
  ReadRequest,
  WatchRequest,
} from '../../index.ts'
import { isHiddenJob } from '../access/route-access.ts'
import { type Caller, SCOPES } from '../access/scopes.ts'
import { AnswerMemory } from '../answer-memory.ts'
import { describe, json, type Operation, readParams } from '../api/operation.ts'
import { text as anyText, atMs, count, shape } from '../api/schemas.ts'
import { type Context, JSON_TYPE, MAX_PATH_CHARS, MAX_WAIT_MS, waiting } from '../context.ts'
import { refuseOtherTypes } from '../media-types.ts'
import { text } from '../members.ts'
import { bindArgument } from './engine-access.ts'
import { checkArgument, type EngineMethod, isEngineMethod } from './engine-arguments.ts'

const METHOD = { method: text(MAX_PATH_CHARS) }
const GREET: Operation = {
  id: 'greetEngine',
  access: 'named in the call',
  tag: 'engine',
  summary: "What the engine promises, and the version that both ends must share. For Sluice's own clients.",
  answers: {
    200: json(
      'What it is',
      shape({
        product: anyText,
        version: count,
        nowMs: atMs,
        abilities: { type: 'object' },
        maxWaitMs: count,
        maxBodyBytes: count,
      }),
    ),
  },
}
const CALL: Operation = {
  id: 'callEngine',
  access: 'named in the call',
  tag: 'engine',
  summary: "One call of the engine contract. For Sluice's own clients; changes with the release.",
  params: METHOD,
  body: { isRequired: true, content: { [WIRE_TYPE]: { description: 'Drawn in src/engine/wire.ts' } } },
  answers: { 200: { description: 'The outcome', content: { [WIRE_TYPE]: {} } } },
  errors: ['NOT_FOUND', 'INVALID_NAME', 'QUEUE_NOT_FOUND', 'TOPIC_NOT_FOUND', 'DECLARED_DIFFERENTLY', 'UNSUPPORTED'],
}

export function engineRoutes(app: FastifyInstance, context: Context): void {
  const { settings } = context
  const memory = new AnswerMemory(() => performance.now())
  app.addHook('onSend', (_request, reply, _payload, done) => {
    reply.header(PROCESS_HEADER, memory.processId)
    done()
  })
  app.get('/v1/engine', describe(GREET), async (_request, reply) =>
    reply.type(JSON_TYPE).send(
      JSON.stringify({
        product: 'sluice',
        version: WIRE_VERSION,
        nowMs: context.now(),
        abilities: context.engine.abilities,
        maxWaitMs: MAX_WAIT_MS,
        maxBodyBytes: settings.maxBatchBytes,
      }),
    ),
  )
  app.register(async (scope) => {
    refuseOtherTypes(scope, [WIRE_TYPE])
    scope.addContentTypeParser(
      WIRE_TYPE,
      { parseAs: 'buffer', bodyLimit: settings.maxBatchBytes },
      (_request, body, done) => done(null, body),
    )
    scope.post('/v1/engine/:method', describe(CALL), async (request, reply) => {
      const { method } = readParams(request, METHOD)
      if (!isEngineMethod(method))
        throw new SluiceError('NOT_FOUND', `The engine has no method '${method.slice(0, 40)}'.`)
      if (!Buffer.isBuffer(request.body)) throw new SluiceError('BAD_REQUEST', `The call has no body of ${WIRE_TYPE}.`)
      const argument = decodeWire(request.body, MAX_CALL_VALUES)
      checkArgument(method, argument, settings.maxMessageBytes)
      const bound = await bindArgument(method, argument, request.caller, context.directory)
      const carryOut = async () => encodeWire(await call(context, request, reply, method, bound))
      const { [CALL_HEADER]: id, [SENT_TO_HEADER]: sentTo = null } = request.headers
      // What was answered to one caller is not for another that guesses the number.
      const answer =
        id === undefined
          ? await carryOut()
          : await memory.take(
              { id: `${request.caller.id}-${id}`, sentTo: sentTo === null ? null : String(sentTo) },
              carryOut,
            )
      return reply.type(WIRE_TYPE).send(answer)
    })
  })
}

async function call(
  { engine, directory }: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  method: EngineMethod,
  argument: unknown,
): Promise<unknown> {
  const { caller } = request
  switch (method) {
    case 'declare':
      return directory.declareForRemote(argument as readonly Declaration[])
    case 'lease':
      return lease(engine, request, reply, argument as LeaseRequest)
    case 'read': {
      const wanted = argument as ReadRequest
      return waiting(request, wanted.waitMs, (signal) => engine.read(wanted, signal))
    }
    case 'watch': {
      const wanted = argument as WatchRequest
      if (isHiddenJob(wanted.id, caller, SCOPES)) return { status: 'not-found' }
      return waiting(request, wanted.waitMs, (signal) => engine.watch(wanted, signal))
    }
    case 'find':
      return find(engine, caller, argument as readonly string[])
    case 'command': {
      const command = argument as Command
      const isOfHidden =
        (command.kind === 'cancel' && isHiddenJob(command.id, caller, ['publish'])) ||
        (command.kind === 'explain' && isHiddenJob(command.id, caller, SCOPES))
      return isOfHidden ? { status: 'not-found' } : engine.command(command)
    }
    case 'stats': {
      const stats = await engine.stats()
      return { ...stats, topics: stats.topics.filter(({ name }) => caller.sees(name)) }
    }
    default:
      // The table says that the argument is that of the method.
      return (engine[method] as (argument: unknown) => Promise<unknown>)(argument)
  }
}

async function find(engine: Engine, caller: Caller, ids: readonly string[]): Promise<readonly FindOutcome[]> {
  const shown = ids.filter((id) => !isHiddenJob(id, caller, SCOPES))
  const found = (await engine.find(shown)).values()
  return ids.map((id) =>
    isHiddenJob(id, caller, SCOPES) ? { status: 'not-found' } : (found.next().value as FindOutcome),
  )
}

async function lease(
  engine: Engine,
  request: FastifyRequest,
  reply: FastifyReply,
  wanted: LeaseRequest,
): Promise<LeaseOutcome> {
  let granted: LeaseOutcome | null = null
  const giveBack = () => {
    if (granted?.status !== 'leased' || wanted.holder.kind !== 'token') return
    const { fence, offsets } = granted
    granted = null
    const { topic, group } = wanted
    // Best effort: what cannot be given back now ends with its time.
    engine
      .settle([{ topic, group, fence, offsets, token: wanted.holder.token, outcome: { kind: 'release' } }])
      .catch(() => {})
  }
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) giveBack()
  })
  const outcome = await waiting(request, wanted.waitMs, (signal) => engine.lease(wanted, signal))
  granted = outcome
  if (request.visit.isOver) giveBack()
  return outcome
}
