/** Refuses bodies of a content type that a route does not read, naming what was sent and what to send. */
import type { FastifyInstance } from 'fastify'
import { SluiceError } from '../errors.ts'

export const PAYLOAD_TYPES = ['application/json', 'application/octet-stream', 'application/x-ndjson']
const MAX_SHOWN = 100

/** For the routes of `app`, which read `types`. */
export function refuseOtherTypes(app: FastifyInstance, types: readonly string[]): void {
  app.addContentTypeParser('*', ({ headers }, _payload, done) => {
    const sent = headers['content-type']
    const what =
      sent === undefined || sent === ''
        ? 'The body has no content type'
        : `The body has the content type '${sent.slice(0, MAX_SHOWN)}', which this route does not read`
    done(new SluiceError('UNSUPPORTED_MEDIA_TYPE', `${what}. Send ${types.join(' or ')}.`, { types }))
  })
}
