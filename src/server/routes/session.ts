/** The session of a browser: begins with a key, says whose it is, ends. */
import type { FastifyInstance } from 'fastify'
import { SluiceError } from '../../errors.ts'
import type { Identity } from '../access/gate.ts'
import { formatGrant } from '../access/scopes.ts'
import { type Context, JSON_TYPE } from '../context.ts'

export function sessionRoutes(app: FastifyInstance, { gate, keys, sessions }: Context): void {
  function show({ caller, by }: Identity): string {
    if (by === 'nobody') return '{"guarded":false}'
    const { id, grants } = caller
    const key = { id, name: keys?.nameOf(id) ?? '', scopes: grants.map(formatGrant) }
    return JSON.stringify({ guarded: true, by, key })
  }
  app.get('/session', { config: { access: 'open' } }, async (request, reply) =>
    reply
      .type(JSON_TYPE)
      .header('cache-control', 'no-store')
      .send(show(gate.identify(request))),
  )
  app.post('/session', { config: { access: 'open' } }, async (request, reply) => {
    const identity = gate.identify(request)
    if (identity.by === 'session')
      throw new SluiceError('UNAUTHENTICATED', 'A session begins with a key: send Authorization: Bearer.')
    if (identity.by === 'key') {
      const { setCookie } = sessions.begin(identity.caller.id, keys?.expiryOf(identity.caller.id) ?? null)
      reply.header('set-cookie', setCookie)
    }
    return reply.code(201).type(JSON_TYPE).header('cache-control', 'no-store').send(show(identity))
  })
  app.delete('/session', { config: { access: 'open' } }, async (request, reply) =>
    reply.header('set-cookie', sessions.end(request.headers.cookie)).code(204).send(),
  )
}
