/** Whether the server lives and can store, its figures for Prometheus, and the dashboard. */
import { readFileSync } from 'node:fs'
import type { FastifyInstance } from 'fastify'
import { isSluiceError, SluiceError } from '../../errors.ts'
import type { EngineStats } from '../../index.ts'
import { makeDocument, OPENAPI_TYPE, type Route } from '../api/document.ts'
import { describe, json, type Operation } from '../api/operation.ts'
import { listOf, shape, text } from '../api/schemas.ts'
import { type Context, JSON_TYPE } from '../context.ts'
import type { Metrics } from '../metrics.ts'
import { PAGE, PAGE_POLICY, SCRIPT, STYLE } from '../ui/page.ts'

const ALIVE: Operation = {
  id: 'showHealth',
  access: 'open',
  tag: 'health',
  summary: 'Whether the process lives.',
  answers: { 200: json('It lives', shape({ status: { const: 'ok' } })) },
}
const HEALTH = shape({ status: { enum: ['ok', 'degraded', 'failed'] }, reasons: listOf(text) })
const READY: Operation = {
  id: 'showReadiness',
  access: 'open',
  tag: 'health',
  summary: 'Whether it can store.',
  answers: { 200: json('It can', HEALTH), 503: json('It cannot', HEALTH) },
}
const METRICS: Operation = {
  id: 'showMetrics',
  access: { scope: 'read', of: 'everything' },
  tag: 'health',
  summary: 'Figures for Prometheus, with a bounded number of series.',
  answers: { 200: { description: 'Text in the format of Prometheus', content: { 'text/plain': text } } },
}
const DOCUMENT: Operation = {
  id: 'showOpenApi',
  access: 'open',
  tag: 'health',
  summary: 'This document.',
  answers: { 200: { description: 'OpenAPI 3.1', content: { 'application/vnd.oai.openapi+json': { type: 'object' } } } },
}

function showingFile(id: string, type: string): Operation {
  return {
    id,
    tag: 'dashboard',
    access: 'open',
    summary: 'A part of the dashboard, which is a client of the calls of this document.',
    answers: { 200: { description: 'The file', content: { [type]: text } } },
  }
}

const { version: VERSION } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as {
  version: string
}

/** A broker that is away is waited for by calls, but not by who asks whether it is there. */
const HEALTH_MS = 2_000

/** What the log says of itself. An engine that cannot be asked has failed. */
async function readHealth({ engine }: Context): Promise<Pick<EngineStats['log'], 'status' | 'reasons'>> {
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(
    () => late.reject(new SluiceError('UNREACHABLE', `The engine did not answer within ${HEALTH_MS} ms.`)),
    HEALTH_MS,
  )
  try {
    return (await Promise.race([engine.stats(), late.promise])).log
  } catch (error) {
    return { status: 'failed', reasons: [isSluiceError(error) ? error.message : 'The engine does not answer.'] }
  } finally {
    clearTimeout(timer)
  }
}

export function healthRoutes(app: FastifyInstance, context: Context, metrics: Metrics, routes: readonly Route[]): void {
  app.get('/healthz', { exposeHeadRoute: true, ...describe(ALIVE) }, async (_request, reply) =>
    reply.type(JSON_TYPE).send('{"status":"ok"}'),
  )
  app.get('/readyz', { exposeHeadRoute: true, ...describe(READY) }, async (request, reply) => {
    const { status, reasons: all } = await readHealth(context)
    // Whether it can store is everybody's to know; why not may name folders and hosts.
    const reasons = context.gate.lets(request) ? all : []
    return reply
      .code(status === 'failed' ? 503 : 200)
      .type(JSON_TYPE)
      .send(JSON.stringify({ status, reasons }))
  })
  app.get('/metrics', describe(METRICS), async (_request, reply) =>
    reply.type(metrics.contentType).send(await metrics.print()),
  )
  let document: string | undefined
  app.get('/openapi.json', describe(DOCUMENT), async (_request, reply) => {
    document ??= JSON.stringify(makeDocument(routes, VERSION))
    return reply.type(OPENAPI_TYPE).send(document)
  })
  const files = [
    ['/', 'showDashboard', 'text/html', PAGE],
    ['/dashboard.js', 'showDashboardScript', 'text/javascript', SCRIPT],
    ['/dashboard.css', 'showDashboardStyle', 'text/css', STYLE],
  ] as const
  for (const [url, id, type, content] of files) {
    app.get(url, { exposeHeadRoute: true, ...describe(showingFile(id, type)) }, async (_request, reply) =>
      reply
        .header('content-security-policy', PAGE_POLICY)
        .header('cache-control', 'no-cache')
        .type(`${type}; charset=utf-8`)
        .send(content),
    )
  }
}
