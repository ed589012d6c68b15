import assert from 'node:assert/strict'
import { request } from 'node:http'
import { test } from 'node:test'
import { ERRORS, type ErrorCode } from '../src/errors.ts'
import { createServer } from '../src/server/server.ts'
import { type Answer, sendRaw, startServer } from './server-harness.ts'

/** Every refusal is a problem document of the table, and says something about this very call. */
function assertProblem({ status, headers, json }: Answer, code: ErrorCode, detail: RegExp): void {
  assert.equal(json.code, code, JSON.stringify(json))
  assert.equal(status, ERRORS[code].status)
  assert.equal(headers.get('content-type'), 'application/problem+json; charset=utf-8')
  assert.deepEqual([json.status, json.title, json.type], [status, ERRORS[code].title, `urn:sluice:error:${code}`])
  assert.match(json.detail, detail)
}

test('names outside the pattern are refused and make nothing', async (t) => {
  const { call } = await startServer(t)
  for (const name of [
    '-a',
    '.a',
    'a%2Fb',
    'a b',
    'a:b',
    '%00',
    'é',
    'x'.repeat(129),
    '%5F%5Fproto%5F%5F',
    '..%2f..%2fetc',
  ]) {
    const path = encodeURI(decodeURIComponent(name)) === name ? name : name.replace(' ', '%20')
    assertProblem(await call('POST', `/v1/queues/${path}/jobs`, { body: 1 }), 'INVALID_NAME', /cannot name a queue/)
    assertProblem(await call('PUT', `/v1/topics/${path}`, { body: {} }), 'INVALID_NAME', /cannot name a topic/)
  }
  assertProblem(await call('PUT', '/v1/topics/t/groups/-g', { body: {} }), 'INVALID_NAME', /cannot name a group/)
  assert.deepEqual((await call('GET', '/v1/queues')).json.queues, [])
  assert.deepEqual((await call('GET', '/v1/topics')).json.topics, [])
})

test('a body over the limit is refused, told by its length or found while it streams', async (t) => {
  const { call, port } = await startServer(t, { maxMessageBytes: 1_000, maxBatchBytes: 5_000 })
  assert.equal(
    (await call('POST', '/v1/queues/q/jobs', { body: 'x'.repeat(1_000), type: 'application/octet-stream' })).status,
    202,
  )
  assertProblem(
    await call('POST', '/v1/queues/q/jobs', { body: 'x'.repeat(1_001), type: 'application/octet-stream' }),
    'PAYLOAD_TOO_LARGE',
    /larger/,
  )
  const chunked = `POST /v1/queues/q/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n${`3e8\r\n${'1'.repeat(1_000)}\r\n`.repeat(2)}`
  const answer = await sendRaw(port, chunked)
  assert.match(answer, /^HTTP\/1\.1 413 /)
  assert.match(answer, /"code":"PAYLOAD_TOO_LARGE"/)
  const long = `{"payload":"${'x'.repeat(1_000)}"}`
  const batch = await call('POST', '/v1/queues/q/jobs', {
    body: `{"payload":1}\n${long}`,
    type: 'application/x-ndjson',
  })
  assert.equal(JSON.parse(batch.text.split('\n')[1] ?? '').problem.code, 'PAYLOAD_TOO_LARGE')
  assertProblem(
    await call('POST', '/v1/queues/q/jobs', { body: `${long}\n`.repeat(5), type: 'application/x-ndjson' }),
    'PAYLOAD_TOO_LARGE',
    /larger/,
  )
  assertProblem(await call('PUT', '/v1/queues/q', { body: ' '.repeat(5_001) }), 'PAYLOAD_TOO_LARGE', /larger/)
  assert.equal((await call('GET', '/v1/queues/q')).json.depth.messages, 2)
})

test('a batch of too many lines is refused whole', async (t) => {
  const { call } = await startServer(t)
  assertProblem(
    await call('POST', '/v1/queues/q/jobs', { body: '{"payload":1}\n'.repeat(65_537), type: 'application/x-ndjson' }),
    'PAYLOAD_TOO_LARGE',
    /65536 lines/,
  )
  assert.equal((await call('GET', '/v1/queues/q')).json.depth.messages, 0)
})

test('of a body that is cut short nothing is stored', async (t) => {
  const { call, port } = await startServer(t)
  await call('PUT', '/v1/queues/q')
  for (const type of ['application/json', 'application/x-ndjson']) {
    const answer = await sendRaw(
      port,
      `POST /v1/queues/q/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: ${type}\r\nContent-Length: 100\r\n\r\n{"payload":1}\n`,
      true,
    )
    assert.ok(answer === '' || answer.startsWith('HTTP/1.1 400 '), answer)
  }
  assert.equal((await call('GET', '/v1/queues/q')).json.appended, 0)
})

test('a body that does not come is not waited for', async (t) => {
  const { port } = await startServer(t, { requestTimeoutMs: 100 })
  const slow = await sendRaw(
    port,
    'POST /v1/queues/q/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{',
  )
  assert.match(slow, /^HTTP\/1\.1 408 /)
  assert.match(slow, /application\/problem\+json/)
  assert.match(slow, /"code":"BAD_REQUEST"/)
})

test('what is not HTTP, and headers without end, are answered with a problem', async (t) => {
  const { port } = await startServer(t)
  assert.match(await sendRaw(port, 'nonsense\r\n\r\n'), /^HTTP\/1\.1 400 [\s\S]*"code":"BAD_REQUEST"/)
  assert.match(
    await sendRaw(port, `GET / HTTP/1.1\r\nHost: localhost\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`),
    /^HTTP\/1\.1 431 [\s\S]*"code":"BAD_REQUEST"/,
  )
  const smuggled =
    'POST /v1/queues/q/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'
  assert.match(await sendRaw(port, smuggled), /^HTTP\/1\.1 400 /)
})

test('other content types are refused', async (t) => {
  const { call } = await startServer(t)
  for (const type of [
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'application/xml',
    'application/jsonp',
    'application/json; charset=utf-16',
  ]) {
    assertProblem(await call('POST', '/v1/queues/q/jobs', { body: '1', type }), 'UNSUPPORTED_MEDIA_TYPE', /./)
    assertProblem(await call('POST', '/v1/topics/t/messages', { body: '1', type }), 'UNSUPPORTED_MEDIA_TYPE', /./)
    assertProblem(await call('PUT', '/v1/queues/q', { body: '{}', type }), 'UNSUPPORTED_MEDIA_TYPE', /./)
  }
  assertProblem(
    await call('PUT', '/v1/queues/q', { body: '{}', type: 'application/octet-stream' }),
    'UNSUPPORTED_MEDIA_TYPE',
    /./,
  )
  assertProblem(
    await call('POST', '/v1/queues/q/jobs', {
      body: 'x',
      headers: { 'content-encoding': 'gzip' },
      type: 'application/json',
    }),
    'UNSUPPORTED_MEDIA_TYPE',
    /Content-Encoding/,
  )
  assertProblem(await call('POST', '/v1/queues/q/jobs'), 'UNSUPPORTED_MEDIA_TYPE', /body is missing/)
  assertProblem(
    await call('POST', '/v1/queues/q/jobs', { body: '', type: 'application/json' }),
    'INVALID_PAYLOAD',
    /empty/,
  )
  assert.equal(
    (await call('POST', '/v1/queues/q/jobs', { body: '1', type: 'Application/JSON; charset=UTF-8' })).status,
    202,
  )
})

test('__proto__ in a control body is an unknown member, and changes nothing', async (t) => {
  const { call } = await startServer(t)
  assertProblem(
    await call('PUT', '/v1/queues/q', { body: '{"__proto__": {"attempts": 9}}' }),
    'INVALID_OPTION',
    /__proto__/,
  )
  assertProblem(
    await call('PUT', '/v1/queues/q', { body: '{"limit": {"__proto__": {"messages": 9}}}' }),
    'INVALID_OPTION',
    /__proto__/,
  )
  assertProblem(
    await call('PUT', '/v1/queues/q', { body: '{"constructor": {"prototype": {}}}' }),
    'INVALID_OPTION',
    /constructor/,
  )
  assertProblem(
    await call('POST', '/v1/queues/q/leases', { body: '{"__proto__": {"max": 5}}' }),
    'INVALID_OPTION',
    /__proto__/,
  )
  assertProblem(
    await call('POST', '/v1/leases:settle', { body: '{"items": [], "__proto__": {}}' }),
    'INVALID_OPTION',
    /__proto__/,
  )
  assertProblem(await call('GET', '/v1/queues?__proto__=1'), 'INVALID_OPTION', /__proto__/)
  const { text } = await call('POST', '/v1/queues/q/jobs', {
    body: '{"payload": 1, "headers": {"__proto__": "x"}}',
    type: 'application/x-ndjson',
  })
  assert.match(text, /INVALID_OPTION.*__proto__/)
  assert.equal(({} as Record<string, unknown>).attempts, undefined)
})

test('an unknown option is named, with the nearest that there is', async (t) => {
  const { call } = await startServer(t)
  for (const [method, path, body, detail] of [
    ['PUT', '/v1/queues/q', { atempts: 3 }, /atempts.*attempts/],
    ['PUT', '/v1/queues/q', { limit: { mesages: 3 } }, /mesages.*messages/],
    ['PUT', '/v1/queues/q', { schema: {} }, /schema/],
    ['PUT', '/v1/topics/t', { onSlowGrup: 'detach' }, /onSlowGrup.*onSlowGroup/],
    ['PUT', '/v1/topics/t/groups/g', { form: 'latest' }, /form.*from/],
    ['POST', '/v1/queues/q/leases', { leasMs: 5 }, /leasMs.*leaseMs/],
    ['POST', '/v1/leases:settle', { itms: [] }, /itms.*items/],
    ['POST', '/v1/leases:extend', { itms: [] }, /itms.*items/],
    ['POST', '/v1/queues/q/dead:redrive', { id: [] }, /id.*ids/],
    ['GET', '/v1/topics/t/messages?form=0', undefined, /form.*from/],
    ['GET', '/v1/queues?limt=5', undefined, /limt.*limit/],
    ['GET', '/v1/jobs/q:abcdef:0?wait=5', undefined, /wait.*waitMs/],
  ] as const) {
    if (path.includes('redrive')) await call('PUT', '/v1/queues/q')
    assertProblem(await call(method, path, body === undefined ? {} : { body }), 'INVALID_OPTION', detail)
  }
})

test('negative, absurd and mistyped numbers are refused with their value and what is allowed', async (t) => {
  const { call } = await startServer(t)
  for (const [method, path, body, detail] of [
    ['PUT', '/v1/queues/q', { attempts: 0 }, /attempts is 0.*from 1/],
    ['PUT', '/v1/queues/q', { attempts: '3' }, /attempts is '3'/],
    ['PUT', '/v1/queues/q', { limit: { messages: -1 } }, /limit\.messages is -1/],
    ['PUT', '/v1/queues/q', { limit: { bytes: 1.5 } }, /limit\.bytes is 1\.5/],
    ['PUT', '/v1/queues/q', { retention: { ms: 1e300 } }, /retention\.ms is 1e\+300/],
    ['POST', '/v1/queues/q/leases', { max: 0 }, /max is 0.*from 1/],
    ['POST', '/v1/queues/q/leases', { max: 1e9 }, /max is 1000000000/],
    ['POST', '/v1/queues/q/leases', { leaseMs: -5 }, /leaseMs is -5/],
    ['POST', '/v1/queues/q/leases', { waitMs: 999_999_999 }, /waitMs is 999999999/],
    ['GET', '/v1/queues?limit=-1', undefined, /limit is (-1|'-1')/],
    ['GET', '/v1/jobs/q:abcdef:0?waitMs=1e9', undefined, /waitMs is '1e9'/],
  ] as const) {
    assertProblem(await call(method, path, body === undefined ? {} : { body }), 'INVALID_OPTION', detail)
  }
  for (const [header, value] of [
    ['sluice-delay-ms', '-1'],
    ['sluice-delay-ms', '1e9'],
    ['sluice-delay-ms', '99999999999999'],
    ['sluice-deadline-ms', 'soon'],
    ['sluice-priority', 'urgent'],
    ['sluice-key', 'x'.repeat(1_025)],
    ['idempotency-key', 'x'.repeat(1_025)],
  ] as const) {
    const answer = await call('POST', '/v1/queues/q/jobs', { body: 1, headers: { [header]: value } })
    assertProblem(answer, 'INVALID_OPTION', /it must be/)
  }
  await call('PUT', '/v1/topics/t')
  for (const from of ['-1', 'yesterday', '99999999999999999999', '2026-13-45']) {
    assertProblem(await call('GET', `/v1/topics/t/messages?from=${from}`), 'INVALID_OPTION', /from is/)
  }
})

test('control bodies that are not what they must be are refused', async (t) => {
  const { call } = await startServer(t)
  for (const body of ['{', '[1', 'nul', '{"a":1}x', Buffer.from([0x7b, 0xff, 0x7d]), '[]', '1', 'null', '"text"']) {
    const { status, json } = await call('PUT', '/v1/queues/q', { body, type: 'application/json' })
    assert.equal(status, 400, JSON.stringify(json))
  }
  for (const items of [[], 'x', {}, null, Array.from({ length: 10_001 }, () => ({}))]) {
    assertProblem(await call('POST', '/v1/leases:settle', { body: { items } }), 'INVALID_OPTION', /items/)
  }
  const deep = await call('POST', '/v1/leases:settle', {
    body: `{"items": ${'['.repeat(10_000)}${']'.repeat(10_000)}}`,
  })
  assertProblem(deep, 'BAD_REQUEST', /deeper/)
  assert.deepEqual((await call('GET', '/v1/queues')).json.queues, [])
})

test('a job id of another folder, or none at all, is not found', async (t) => {
  const { call } = await startServer(t)
  const { json } = await call('POST', '/v1/queues/q/jobs', { body: 1 })
  const [queue, tag, place] = json.id.split(':')
  for (const id of [
    'nonsense',
    `${queue}:aaaaaa:${place}`,
    `${queue}:${tag}:99`,
    `other:${tag}:${place}`,
    `${json.id}x`,
    'a%20b',
    '%5F%5Fproto%5F%5F',
    'x'.repeat(1_000),
  ]) {
    for (const method of ['GET', 'DELETE'])
      assertProblem(await call(method, `/v1/jobs/${id}`), 'JOB_NOT_FOUND', /There is no job/)
  }
})

test('unknown routes answer 404, and wrong methods 405 with those that are right', async (t) => {
  const { call } = await startServer(t)
  for (const path of ['/v2', '/v1/queue', '/v1/queues/q/job', '/v1/leases:ack', '/dashboard', '/v1/queues/']) {
    const { status, json } = await call('POST', path, { body: '<x>', type: 'text/xml' })
    assert.deepEqual(
      [path, status, ['NOT_FOUND', 'INVALID_NAME', 'METHOD_NOT_ALLOWED'].includes(json.code)],
      [path, status === 405 ? 405 : status === 400 ? 400 : 404, true],
    )
  }
  for (const [method, path, allow] of [
    ['GET', '/v1/queues/q/jobs', 'POST'],
    ['POST', '/v1/queues', 'GET'],
    ['PATCH', '/v1/queues/q', 'PUT, GET'],
    ['PUT', '/v1/jobs/q:abcdef:0', 'GET, DELETE'],
    ['GET', '/v1/leases:settle', 'POST'],
    ['GET', '/v1/queues/q:pause', 'POST'],
    ['OPTIONS', '/v1/topics/t/messages', 'POST, GET'],
    ['DELETE', '/healthz', 'GET, HEAD'],
  ] as const) {
    const answer = await call(method, path)
    assertProblem(answer, 'METHOD_NOT_ALLOWED', new RegExp(`${method} is not a method`))
    assert.deepEqual(answer.headers.get('allow')?.split(', ').sort(), allow.split(', ').sort())
  }
  assertProblem(await call('GET', '/v1/queues/%zz'), 'BAD_REQUEST', /percent/)
})

test('a call under another host name is refused, so that a page cannot rebind its name to loopback', async (t) => {
  const { port } = await startServer(t, { allowedHosts: ['queue.example.com'] })
  const get = (host: string) => sendRaw(port, `GET /healthz HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
  for (const host of [
    'localhost',
    `127.0.0.1:${port}`,
    '[::1]',
    'LOCALHOST:1',
    'queue.example.com',
    'queue.example.com.:443',
  ]) {
    assert.match(await get(host), /^HTTP\/1\.1 200 /, host)
  }
  for (const host of [
    'evil.example',
    `evil.example:${port}`,
    'localhost.evil.example',
    '127.0.0.1.nip.io',
    'localhost@evil.example',
    '',
    '192.0.2.1',
  ]) {
    const answer = await get(host)
    assert.match(answer, /^HTTP\/1\.1 403 [\s\S]*"code":"FORBIDDEN_ORIGIN"/, host)
  }
  assert.match(await sendRaw(port, 'GET /healthz HTTP/1.0\r\n\r\n'), /^HTTP\/1\.1 403 /)
})

test('a write from a page of another site is refused, one from our own page is not', async (t) => {
  const { port } = await startServer(t)
  const post = (headers: Record<string, string>) =>
    new Promise<number>((resolve, reject) => {
      const sent = request(
        {
          port,
          host: '127.0.0.1',
          method: 'POST',
          path: '/v1/queues/q/jobs',
          headers: { 'content-type': 'application/json', ...headers },
        },
        (answer) => {
          answer.resume().on('end', () => resolve(answer.statusCode ?? 0))
        },
      )
      sent.on('error', reject).end('1')
    })
  const own = `http://127.0.0.1:${port}`
  assert.equal(await post({ origin: own }), 202)
  assert.equal(await post({ origin: own, 'sec-fetch-site': 'same-origin' }), 202)
  assert.equal(await post({ 'sec-fetch-site': 'none' }), 202)
  const refused: Record<string, string>[] = [
    { origin: 'https://evil.example' },
    { origin: 'null' },
    { origin: 'http://127.0.0.1:1' },
    { origin: `${own}.evil.example` },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
    { origin: own, 'sec-fetch-site': 'cross-site' },
  ]
  for (const headers of refused) assert.equal(await post(headers), 403, JSON.stringify(headers))
})

test('first use makes no more queues than maxQueues; a declaration still does', async (t) => {
  const { call } = await startServer(t, { maxQueues: 2 })
  assert.equal((await call('POST', '/v1/queues/a/jobs', { body: 1 })).status, 202)
  assert.equal((await call('POST', '/v1/topics/b/messages', { body: 1 })).status, 201)
  assertProblem(await call('POST', '/v1/queues/c/jobs', { body: 1 }), 'QUEUE_NOT_FOUND', /maxQueues/)
  assertProblem(await call('POST', '/v1/queues/c/leases', { body: {} }), 'QUEUE_NOT_FOUND', /maxQueues/)
  assertProblem(await call('POST', '/v1/topics/c/messages', { body: 1 }), 'TOPIC_NOT_FOUND', /maxQueues/)
  assert.equal((await call('POST', '/v1/queues/a/jobs', { body: 1 })).status, 202)
  assert.equal((await call('PUT', '/v1/queues/c')).status, 201)
  assert.equal((await call('POST', '/v1/queues/c/jobs', { body: 1 })).status, 202)
})

test('a burst of new names at once does not pass maxQueues', async (t) => {
  const { call } = await startServer(t, { maxQueues: 5 })
  await Promise.all(Array.from({ length: 40 }, (_, i) => call('POST', `/v1/queues/n${i}/jobs`, { body: 1 })))
  assert.equal((await call('GET', '/v1/queues')).json.queues.length, 5)
})

test('an address that other machines reach is refused unless a proxy is said to stand in front', async (t) => {
  const { sluice } = await startServer(t)
  for (const host of ['0.0.0.0', '::', '192.0.2.1', 'example.com']) {
    assert.throws(() => createServer(sluice, { host }), { code: 'INVALID_OPTION', message: /behindProxy/ })
  }
  for (const host of ['127.0.0.1', '::1', 'localhost', '127.1.2.3']) createServer(sluice, { host })
  createServer(sluice, { host: '0.0.0.0', behindProxy: true })
  assert.throws(() => createServer(sluice, { prot: 1 } as object), { code: 'INVALID_OPTION', message: /prot.*port/ })
  assert.throws(() => createServer(sluice, { port: 70_000 }), { code: 'INVALID_OPTION', message: /port is 70000/ })
})
