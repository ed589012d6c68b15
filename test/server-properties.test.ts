/**
 * Every route of the OpenAPI document under generated requests: whatever comes, the server answers in time, never with a
 * bug of its own (500), always as the document says, and keeps nothing of it afterwards.
 *
 * The seed is printed; SLUICE_SEED=… replays a run.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Agent, type IncomingMessage, request as sendRequest } from 'node:http'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { encodeWire } from '../src/engine/wire.ts'
import { startServer } from './server-harness.ts'
import { AnswerChecks, type Document, type OperationObject } from './support/answer-checks.ts'
import { junk, type Known, type Schema, valuesOf } from './support/schema-values.ts'

const RUNS_EACH = 40
/** What takes longer hangs: no generated wait is longer than a second. */
const DEADLINE_MS = 30_000
const MAX_WAIT_MS = 200
const BATCH = 'application/x-ndjson'
const WIRE = 'application/vnd.sluice.engine'
const METHODS = [
  'declare',
  'append',
  'read',
  'lease',
  'extend',
  'settle',
  'find',
  'watch',
  'command',
  'stats',
  'nonsense',
]

interface Generated {
  readonly method: string
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer | null
}

interface Answered {
  readonly status: number
  readonly type: string | null
  readonly retryAfter: string | undefined
  readonly text: string
  /** A stream that goes on; only its status and its first bytes were read. */
  readonly isStream: boolean
}

function drawSeed(t: TestContext): number {
  const seed = Number(process.env.SLUICE_SEED ?? Math.floor(Math.random() * 2 ** 31))
  t.diagnostic(`seed ${seed}`)
  return seed
}

/** A value of a parameter as text, with no wait that outlasts the test. */
function parameterText(name: string, value: unknown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return name === 'waitMs' && Number(text) > MAX_WAIT_MS ? `${MAX_WAIT_MS}` : text
}

function withShortWaits(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withShortWaits)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([name, one]) => [
      name,
      name === 'waitMs' && Number(one) > MAX_WAIT_MS ? MAX_WAIT_MS : withShortWaits(one),
    ]),
  )
}

/** Null `nulls` times as often as not. */
function rarely<T>(some: fc.Arbitrary<T>, nulls: number): fc.Arbitrary<T | null> {
  return fc.oneof({ weight: 1, arbitrary: some }, { weight: nulls, arbitrary: fc.constant(null) })
}

/** Half a surrogate pair cannot be part of a URL. */
function encodePart(text: string): string {
  return encodeURIComponent(text.toWellFormed())
}

/** What HTTP lets stand in a header; Node refuses to send the rest. */
function headerText(text: string): string {
  return Buffer.from(text.toWellFormed())
    .toString('latin1')
    .replace(/[^\t\x20-\x7e\x80-\xff]/g, '?')
    .trim()
}

function requestsOf(path: string, method: string, operation: OperationObject, known: Known): fc.Arbitrary<Generated> {
  const { parameters = [], requestBody } = operation
  const isCall = path === '/v1/engine/{method}'
  const parts = parameters.map(({ name, in: place, required, schema }) => {
    const values = name === 'method' ? fc.constantFrom(...METHODS) : valuesOf(schema as Schema, known)
    const meant = name === 'Prefer' ? ['wait=0', 'wait=1', 'respond-async', 'wait="0", a=b'] : known.parameters[name]
    const some =
      meant === undefined
        ? values
        : fc.oneof({ weight: 8, arbitrary: fc.constantFrom(...meant) }, { weight: 1, arbitrary: values })
    const text = some.map((value) => parameterText(name, value))
    return required
      ? text.map((one) => ({ place, name, text: one }))
      : rarely(
          text.map((one) => ({ place, name, text: one })),
          1,
        )
  })
  const bodies = requestBody === undefined ? fc.constant(null) : bodiesOf(requestBody.content, isCall, known)
  const extra = rarely(
    fc.constantFrom<Record<string, string>>(
      { accept: 'text/event-stream' },
      { 'content-encoding': 'gzip' },
      { origin: 'https://evil.example' },
      { 'sluice-header-x': 'y' },
      { 'sluice-nonsense': '1' },
      { 'last-event-id': '-5' },
      { authorization: 'Bearer nonsense' },
      { cookie: '__Host-sluice=nonsense' },
      { traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' },
    ),
    3,
  )
  const unknownQuery = rarely(fc.constantFrom('nonsense=1', '__proto__=1', 'waitMs=1&waitMs=2', '%', '[]=1'), 9)
  return fc.tuple(fc.tuple(...parts), bodies, extra, unknownQuery).map(([given, body, more, query]) => {
    let url = path
    const queries: string[] = query === null ? [] : [query]
    const headers: Record<string, string> = {}
    for (const part of given) {
      if (part === null) continue
      if (part.place === 'path') url = url.replace(`{${part.name}}`, encodePart(part.text))
      else if (part.place === 'query') queries.push(`${part.name}=${encodePart(part.text)}`)
      else headers[part.name] = headerText(part.text)
    }
    return {
      method: method.toUpperCase(),
      path: queries.length === 0 ? url : `${url}?${queries.join('&')}`,
      headers: { ...headers, ...(body?.type === undefined ? {} : { 'content-type': body.type }), ...more },
      body: body?.bytes ?? null,
    }
  })
}

function bodiesOf(
  content: Readonly<Record<string, { schema: object }>>,
  isCall: boolean,
  known: Known,
): fc.Arbitrary<{ readonly type: string | undefined; readonly bytes: Buffer } | null> {
  const declared = Object.entries(content).map(([type, { schema }]) => {
    const values = valuesOf(schema as Schema, known).map(withShortWaits)
    const bytes = isCall
      ? fc.oneof(junk, callArguments(known)).map((value) => encodeWire(withShortWaits(value)))
      : type === BATCH
        ? fc
            .array(values, { minLength: 1, maxLength: 5 })
            .map((lines) => Buffer.from(lines.map((line) => JSON.stringify(line)).join('\n')))
        : type === 'application/octet-stream'
          ? fc.uint8Array({ maxLength: 50 }).map((some) => Buffer.from(some))
          : values.map((value) => Buffer.from(JSON.stringify(value)))
    return bytes.map((some) => ({ type: isCall ? WIRE : type, bytes: some }))
  })
  const broken = fc
    .tuple(
      fc.constantFrom(...Object.keys(content), 'text/plain', '', 'application/json; charset=latin1'),
      fc.uint8Array({ maxLength: 60 }),
    )
    .map(([type, bytes]) => ({ type, bytes: Buffer.from(bytes) }))
  return fc.oneof(
    { weight: 8, arbitrary: fc.oneof(...declared) },
    { weight: 2, arbitrary: broken },
    { weight: 1, arbitrary: fc.constant(null) },
  )
}

/** Arguments of the engine's methods that get past the first checks. */
function callArguments({ texts }: Known): fc.Arbitrary<unknown> {
  const name = fc.constantFrom(...texts)
  const whole = fc.constantFrom(0, 1, 5, 2 ** 53)
  return fc.oneof(
    fc.array(fc.record({ kind: fc.constantFrom('queue', 'topic'), name, settings: fc.constant({}) }), { maxLength: 2 }),
    fc.record({ topic: name, from: fc.oneof(whole, fc.constantFrom('earliest', 'latest')), max: whole, waitMs: whole }),
    fc.record({
      topic: name,
      group: fc.constantFrom('', 'g'),
      max: whole,
      leaseMs: whole,
      waitMs: whole,
      holder: fc.constant({ kind: 'token', token: 't' }),
    }),
    fc.array(
      fc.record({ topic: name, group: fc.constant(''), fence: whole, offsets: fc.array(whole), leaseMs: whole }),
      { maxLength: 2 },
    ),
    fc.array(name, { maxLength: 3 }),
    fc.record({ id: name, version: whole, untilTerminal: fc.boolean(), waitMs: whole }),
    fc.record({
      kind: fc.constantFrom('cancel', 'pause', 'resume', 'dead', 'explain', 'seek'),
      id: name,
      topic: name,
      group: fc.constantFrom('', 'g'),
      max: whole,
    }),
    fc.array(fc.record({ topic: name, batch: fc.uint8Array({ maxLength: 80 }) }), { maxLength: 2 }),
  )
}

function send(port: number, agent: Agent, { method, path, headers, body }: Generated): Promise<Answered> {
  return new Promise((resolve, reject) => {
    const request = sendRequest({
      port,
      host: '127.0.0.1',
      agent,
      method,
      path,
      headers,
      signal: AbortSignal.timeout(DEADLINE_MS),
    })
    request.once('error', reject)
    request.once('response', (answer: IncomingMessage) => {
      const type = answer.headers['content-type'] ?? null
      const isStream = type?.startsWith('text/event-stream') ?? false
      let text = ''
      const finish = () =>
        resolve({ status: answer.statusCode ?? 0, type, retryAfter: answer.headers['retry-after'], text, isStream })
      if (isStream) {
        request.destroy()
        finish()
        return
      }
      answer.setEncoding('utf8')
      answer.on('data', (chunk: string) => {
        text += chunk
      })
      answer.once('end', finish)
      answer.once('error', reject)
    })
    request.end(body ?? undefined)
  })
}

async function gauge(port: number, agent: Agent, name: string): Promise<number> {
  const { text } = await send(port, agent, { method: 'GET', path: '/metrics', headers: {}, body: null })
  return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1])
}

/** Asks until the figure is no higher: a connection that was cut is noticed a moment later. */
async function untilAtMost(port: number, name: string, most: number): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const endMs = performance.now() + DEADLINE_MS
  let last = Number.NaN
  while (performance.now() < endMs) {
    last = await gauge(port, agent, name)
    if (last <= most) break
    await new Promise((resolve) => setImmediate(resolve))
  }
  agent.destroy()
  assert.ok(last <= most, `${name} is ${last}, not ${most}`)
}

test('whatever is asked of any route is answered in time, as the document says, and leaves nothing behind', async (t) => {
  const logged: string[] = []
  const { port, call, sluice } = await startServer(t, {
    maxQueues: 200,
    log: { write: (line) => void logged.push(line) },
  })
  const document = (await call('GET', '/openapi.json')).json as Document
  const checks = new AnswerChecks(document)
  const ids: string[] = []
  for (const body of [1, 2, 3]) ids.push((await call('POST', '/v1/queues/q/jobs', { body })).json.id)
  await call('POST', '/v1/topics/t/messages', { body: 1 })
  const { json } = await call('POST', '/v1/queues/q/leases', { body: { max: 2, leaseMs: 43_200_000 } })
  const leases = json.leases.map(({ lease }: { lease: string }) => lease)
  const known: Known = {
    texts: ['q', 't', 'g', 'other', ...ids, ...leases, 'earliest', 'latest', '0', '1', 'https://example.com/', 'AAEC'],
    parameters: { queue: ['q'], topic: ['t'], group: ['g'], id: ids },
    schemas: document.components.schemas as Readonly<Record<string, Schema>>,
  }
  const seed = drawSeed(t)
  const agent = new Agent({ keepAlive: true })
  // Those of the harness may stay.
  const before = await gauge(port, agent, 'sluice_http_connections')
  const seen = new Map<string, Set<number>>()
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      // The last one may have taken them away, or left no room.
      const limit = { messages: 100_000, bytes: 1e9 }
      for (const place of ['queues/q', 'topics/t']) await call('PUT', `/v1/${place}`, { body: { limit } })
      await call('PUT', '/v1/topics/t/groups/g')
      const property = fc.asyncProperty(requestsOf(path, method, operation, known), async (given) => {
        const answer = await send(port, agent, given)
        const what = `${given.method} ${given.path} ${answer.status} ${answer.text.slice(0, 400)}`
        assert.notEqual(answer.status, 500, what)
        if (answer.status === 503) assert.match(answer.retryAfter ?? '', /^[1-9]\d*$/, what)
        if (!answer.isStream) checks.check({ ...given, ...answer })
        seen.set(operation.operationId, (seen.get(operation.operationId) ?? new Set()).add(answer.status))
      })
      await fc.assert(property, { seed, numRuns: RUNS_EACH })
    }
  }
  agent.destroy()
  await untilAtMost(port, 'sluice_http_waiting', 0)
  await untilAtMost(port, 'sluice_http_body_bytes', 0)
  await untilAtMost(port, 'sluice_http_in_flight', 1)
  await untilAtMost(port, 'sluice_http_connections', before)
  assert.deepEqual(logged, [], 'the server logs failures of its own, and there are none')
  // Else the requests would say nothing of what is behind the first checks.
  const refused = [...seen].filter(([, statuses]) => ![...statuses].some((status) => status < 300)).map(([id]) => id)
  assert.ok(refused.length <= seen.size / 10, `never once let through: ${refused.join(', ')}`)
  const total = (await sluice.stats()).topics.length
  t.diagnostic(`${seen.size} operations, ${RUNS_EACH} requests each; ${total} queues and topics were made`)
})

test('what is no request at all is answered with a problem document, and its connection closed', async (t) => {
  const { port } = await startServer(t)
  const agent = new Agent()
  const before = await gauge(port, agent, 'sluice_http_connections')
  const { connect } = await import('node:net')
  const shapes: Readonly<Record<string, readonly [number, string]>> = {
    'nonsense\r\n\r\n': [400, 'BAD_REQUEST'],
    'GET / HTTP/9.9\r\nHost: localhost\r\n\r\n': [400, 'BAD_REQUEST'],
    'GET /%zz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n': [400, 'BAD_REQUEST'],
    'GET / HTTP/1.1\r\nConnection: close\r\n\r\n': [400, 'BAD_REQUEST'],
    'GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n': [403, 'FORBIDDEN_ORIGIN'],
    'BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n': [400, 'BAD_REQUEST'],
    'PROPFIND / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n': [405, 'METHOD_NOT_ALLOWED'],
    'GET /none HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n': [404, 'NOT_FOUND'],
    [`GET / HTTP/1.1\r\nHost: localhost\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`]: [431, 'BAD_REQUEST'],
    'POST /v1/queues/q/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n':
      [400, 'BAD_REQUEST'],
    'POST /v1/queues/q/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n':
      [400, 'BAD_REQUEST'],
    'POST /v1/queues/q/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 1\r\nConnection: close\r\n\r\n1':
      [415, 'UNSUPPORTED_MEDIA_TYPE'],
    'POST /v1/queues/q/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 999999999\r\nConnection: close\r\n\r\n1':
      [413, 'PAYLOAD_TOO_LARGE'],
  }
  for (const [bytes, [status, code]] of Object.entries(shapes)) {
    const socket = connect(port, '127.0.0.1')
    let received = ''
    socket.setEncoding('utf8')
    socket.on('data', (chunk: string) => {
      received += chunk
    })
    socket.on('error', () => {})
    socket.write(bytes)
    await once(socket, 'close', { signal: AbortSignal.timeout(DEADLINE_MS) }).catch(() =>
      assert.fail(`open: ${bytes.slice(0, 80)}`),
    )
    const what = `${JSON.stringify(bytes.slice(0, 80))} got ${received.slice(0, 300)}`
    const [head = '', body = ''] = received.split('\r\n\r\n')
    assert.equal(Number(/^HTTP\/1\.1 (\d+)/.exec(head)?.[1]), status, what)
    assert.match(head, /^content-type: application\/problem\+json/im, what)
    assert.equal(JSON.parse(body).code, code, what)
  }
  await untilAtMost(port, 'sluice_http_connections', before)
})
