/** Traces from publisher to handler, as a real SDK of OpenTelemetry sees them. */
import { deepEqual, equal, match, ok } from 'node:assert/strict'
import { after, test } from 'node:test'
import { context, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-base'
import { open, Unrecoverable } from '../src/index.ts'
import { readTrace } from '../src/tracing.ts'
import { startServer } from './server-harness.ts'

const TRACEPARENT = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'

/** An SDK for one test; without it nothing is traced. */
function startSdk(): {
  tracer: ReturnType<typeof trace.getTracer>
  ended(name: string, count?: number): Promise<ReadableSpan[]>
} {
  const exporter = new InMemorySpanExporter()
  const told: (() => void)[] = []
  const provider = new BasicTracerProvider({
    spanProcessors: [
      new SimpleSpanProcessor(exporter),
      {
        onStart() {},
        onEnd() {
          for (const tell of told.splice(0)) tell()
        },
        forceFlush: async () => {},
        shutdown: async () => {},
      },
    ],
  })
  trace.setGlobalTracerProvider(provider)
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  return {
    tracer: trace.getTracer('test'),
    async ended(name, count = 1) {
      for (;;) {
        const spans = exporter.getFinishedSpans().filter((span) => span.name === name)
        if (spans.length >= count) return spans
        await new Promise<void>((resolve) => told.push(resolve))
      }
    },
  }
}

function stopSdk(): void {
  trace.disable()
  context.disable()
}

after(stopSdk)

test('without an SDK a message has the headers that were given and no others', async () => {
  await using sluice = await open(':memory:')
  const queue = sluice.queue<number, object>('plain')
  queue.work((job) => job.headers)
  deepEqual(await (await queue.add(1)).result(), {})
  deepEqual(await (await queue.add(1, { headers: { a: 'b' } })).result(), { a: 'b' })
})

test('the handler runs in a span of its own, a child of the publish and linked to it', async (t) => {
  t.after(stopSdk)
  const { tracer, ended } = startSdk()
  await using sluice = await open(':memory:')
  const queue = sluice.queue<object, object>('email')
  queue.work((job) => ({
    payload: job.payload,
    headers: job.headers,
    traceId: trace.getActiveSpan()?.spanContext().traceId,
  }))
  const job = await tracer.startActiveSpan('request', async (span) => {
    const added = await queue.add({ to: 'a@b.c' }, { headers: { tenant: 'x' }, key: 'k' })
    span.end()
    return added
  })
  const result = (await job.result()) as { payload: object; headers: Record<string, string>; traceId: string }
  const [request] = await ended('request')
  const [published] = await ended('publish email')
  const [handled] = await ended('process email')
  ok(request && published && handled)
  equal(published.kind, SpanKind.PRODUCER)
  equal(handled.kind, SpanKind.CONSUMER)
  equal(published.parentSpanContext?.spanId, request.spanContext().spanId)
  equal(handled.parentSpanContext?.spanId, published.spanContext().spanId)
  deepEqual(
    handled.links.map((link) => link.context.spanId),
    [published.spanContext().spanId],
  )
  equal(new Set([request, published, handled].map((span) => span.spanContext().traceId)).size, 1)
  equal(result.traceId, request.spanContext().traceId, 'the handler runs within its span')
  deepEqual(result.payload, { to: 'a@b.c' })
  const { traceparent = '', ...own } = result.headers
  deepEqual(own, { tenant: 'x' })
  equal(readTrace({ traceparent })?.spanId, published.spanContext().spanId)
  deepEqual(handled.attributes, {
    'messaging.system': 'sluice',
    'messaging.operation.type': 'process',
    'messaging.operation.name': 'process',
    'messaging.destination.name': 'email',
    'messaging.message.id': job.id,
    'messaging.sluice.offset': 0,
    'messaging.sluice.attempt': 1,
  })
  equal(published.attributes['messaging.message.id'], job.id)
})

test('what a handler publishes, and what a group of a topic gets, goes on in the same trace', async (t) => {
  t.after(stopSdk)
  const { ended } = startSdk()
  await using sluice = await open(':memory:')
  const queue = sluice.queue('orders')
  const topic = sluice.topic('events')
  const next = sluice.queue('next')
  topic.subscribe('audit', () => {})
  queue.work(async (_job, { publish }) => {
    await publish(topic, 'paid')
    await next.add(1)
  })
  await queue.add(1)
  const [first] = await ended('publish orders')
  const [audited] = await ended('process events')
  const [added] = await ended('publish next')
  const [handled] = await ended('process orders')
  ok(first && audited && added && handled)
  for (const span of [audited, added]) equal(span.spanContext().traceId, first.spanContext().traceId)
  equal(added.parentSpanContext?.spanId, handled.spanContext().spanId)
  equal(audited.attributes['messaging.consumer.group.name'], 'audit')
})

test('each attempt is a span, and one that failed says why', async (t) => {
  t.after(stopSdk)
  const { ended } = startSdk()
  await using sluice = await open(':memory:')
  const queue = sluice.queue('flaky', { backoff: { baseMs: 0 }, attempts: 3 })
  queue.work((_job, { attempt }) => {
    throw attempt === 1 ? new Error('busy') : new Unrecoverable('no such address')
  })
  await queue.add(1)
  const spans = await ended('process flaky', 2)
  deepEqual(
    spans.map(({ attributes }) => attributes['messaging.sluice.attempt']),
    [1, 2],
  )
  deepEqual(
    spans.map(({ status }) => status.code),
    [SpanStatusCode.ERROR, SpanStatusCode.ERROR],
  )
  match(spans[0]?.status.message ?? '', /busy/)
  match(spans[1]?.status.message ?? '', /no such address/)
})

test('a message that is refused is a span that failed', async (t) => {
  t.after(stopSdk)
  const { ended } = startSdk()
  await using sluice = await open(':memory:')
  const full = sluice.queue('full', { limit: { messages: 0 } })
  await full.add(1).catch(() => {})
  const [span] = await ended('publish full')
  equal(span?.status.code, SpanStatusCode.ERROR)
})

test('a traceparent that came over HTTP is the parent of the handler, and a traceparent of the caller stays', async (t) => {
  t.after(stopSdk)
  const { ended } = startSdk()
  const { call, sluice } = await startServer(t)
  const headers = { traceparent: TRACEPARENT, tracestate: 'vendor=1', 'Sluice-Header-Tenant': 'x' }
  const queue = sluice.queue<number, object>('http')
  const worker = queue.work((job) => job.headers)
  const { json } = await call('POST', '/v1/queues/http/jobs', { body: 1, headers: { ...headers, prefer: 'wait=30' } })
  deepEqual(json.result, { traceparent: TRACEPARENT, tracestate: 'vendor=1', tenant: 'x' })
  const [handled] = await ended('process http')
  equal(handled?.parentSpanContext?.spanId, 'b7ad6b7169203331')
  equal(handled?.parentSpanContext?.traceState?.get('vendor'), '1')
  const own = await (await queue.add(1, { headers: { traceparent: TRACEPARENT } })).result()
  deepEqual(own, { traceparent: TRACEPARENT })
  await worker.close()
  await queue.add(2)
  const { json: leased } = await call('POST', '/v1/queues/http/leases', { body: {} })
  const [published] = (await ended('publish http', 2)).slice(-1)
  equal(
    readTrace(leased.leases[0].headers)?.spanId,
    published?.spanContext().spanId,
    'a worker in any language gets it',
  )
})

test('a worker on another machine goes on in the trace', async (t) => {
  t.after(stopSdk)
  const { ended } = startSdk()
  const { url, sluice } = await startServer(t)
  await using remote = await open(url)
  remote.queue('far').work(() => {})
  await sluice.queue('far').add(1)
  const [published] = await ended('publish far')
  const [handled] = await ended('process far')
  equal(handled?.parentSpanContext?.spanId, published?.spanContext().spanId)
})

test('headers that are no trace are none', () => {
  for (const traceparent of [
    '',
    'x',
    '00-0-0-0',
    TRACEPARENT.replace('00-', 'ff-'),
    `00-${'0'.repeat(32)}-b7ad6b7169203331-01`,
    TRACEPARENT.toUpperCase(),
  ])
    equal(readTrace({ traceparent }), null, traceparent)
  equal(readTrace({}), null)
  equal(readTrace({ traceparent: TRACEPARENT })?.traceId, '0af7651916cd43dd8448eb211c80319c')
})
