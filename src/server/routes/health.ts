/** Whether the server lives and can store, its figures for Prometheus, and the dashboard. */
import type { FastifyInstance } from 'fastify'
import { isSluiceError } from '../../errors.ts'
import type { EngineStats } from '../../index.ts'
import { type Context, JSON_TYPE } from '../context.ts'
import type { Metrics } from '../metrics.ts'
import { PAGE, PAGE_POLICY, SCRIPT, STYLE } from '../ui/page.ts'

/** What the log says of itself. An engine that cannot be asked has failed. */
async function readHealth({ engine }: Context): Promise<Pick<EngineStats['log'], 'status' | 'reasons'>> {
  try {
    return (await engine.stats()).log
  } catch (error) {
    return { status: 'failed', reasons: [isSluiceError(error) ? error.message : 'The engine does not answer.'] }
  }
}

export function healthRoutes(app: FastifyInstance, context: Context, metrics: Metrics): void {
  app.get('/healthz', { exposeHeadRoute: true, config: { access: 'open' } }, async (_request, reply) =>
    reply.type(JSON_TYPE).send('{"status":"ok"}'),
  )
  app.get('/readyz', { exposeHeadRoute: true, config: { access: 'open' } }, async (_request, reply) => {
    const { status, reasons } = await readHealth(context)
    return reply
      .code(status === 'failed' ? 503 : 200)
      .type(JSON_TYPE)
      .send(JSON.stringify({ status, reasons }))
  })
  app.get('/metrics', { config: { access: { scope: 'read', of: 'everything' } } }, async (_request, reply) =>
    reply.type(metrics.contentType).send(await metrics.print()),
  )
  const files = [
    ['/', 'text/html; charset=utf-8', PAGE],
    ['/dashboard.js', 'text/javascript; charset=utf-8', SCRIPT],
    ['/dashboard.css', 'text/css; charset=utf-8', STYLE],
  ] as const
  for (const [url, type, content] of files) {
    app.get(url, { exposeHeadRoute: true, config: { access: 'open' } }, async (_request, reply) =>
      reply.header('content-security-policy', PAGE_POLICY).header('cache-control', 'no-cache').type(type).send(content),
    )
  }
}
