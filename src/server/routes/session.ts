/** The session of a browser: begins with a key, says whose it is, ends. */
import type { FastifyInstance } from 'fastify'
import { SluiceError } from '../../errors.ts'
import type { Identity } from '../access/gate.ts'
import { formatGrant } from '../access/scopes.ts'
import { describe, json, type Operation } from '../api/operation.ts'
import { flag, listOf, shape, text } from '../api/schemas.ts'
import { type Context, JSON_TYPE } from '../context.ts'

const IDENTITY = {
  anyOf: [
    shape({ guarded: { const: false } }),
    shape({
      guarded: flag,
      by: { enum: ['key', 'session'] },
      key: shape({ id: text, name: text, scopes: listOf(text) }),
    }),
  ],
}
const SHOW: Operation = {
  id: 'showSession',
  tag: 'session',
  access: 'open',
  summary: 'Whose credential this is, if any is asked for.',
  answers: { 200: json('Who calls', IDENTITY) },
  errors: ['UNAUTHENTICATED'],
}
const BEGIN: Operation = {
  id: 'beginSession',
  tag: 'session',
  access: 'open',
  summary: 'Begins the session of a browser with an API key.',
  answers: {
    201: json('It has begun; the cookie is set', IDENTITY, {
      'Set-Cookie': { description: 'No script can read it', schema: text },
    }),
  },
  errors: ['UNAUTHENTICATED'],
}
const END: Operation = {
  id: 'endSession',
  tag: 'session',
  access: 'open',
  summary: 'Ends the session of a browser.',
  answers: { 204: { description: 'There is none any more' } },
}

export function sessionRoutes(app: FastifyInstance, { gate, keys, sessions }: Context): void {
  function show({ caller, by }: Identity): string {
    if (by === 'nobody') return '{"guarded":false}'
    const { id, grants } = caller
    const key = { id, name: keys?.nameOf(id) ?? '', scopes: grants.map(formatGrant) }
    return JSON.stringify({ guarded: true, by, key })
  }
  app.get('/session', describe(SHOW), async (request, reply) =>
    reply
      .type(JSON_TYPE)
      .header('cache-control', 'no-store')
      .send(show(gate.identify(request))),
  )
  app.post('/session', describe(BEGIN), async (request, reply) => {
    const identity = gate.identify(request)
    if (identity.by === 'session')
      throw new SluiceError('UNAUTHENTICATED', 'A session begins with a key: send Authorization: Bearer.')
    if (identity.by === 'key') {
      const { setCookie } = sessions.begin(identity.caller.id, keys?.expiryOf(identity.caller.id) ?? null)
      reply.header('set-cookie', setCookie)
    }
    return reply.code(201).type(JSON_TYPE).header('cache-control', 'no-store').send(show(identity))
  })
  app.delete('/session', describe(END), async (request, reply) =>
    reply.header('set-cookie', gate.endSession(request.headers.cookie)).code(204).send(),
  )
}
