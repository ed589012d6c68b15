import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readEvents, startServer } from './server-harness.ts'

/** Takes the next job of a queue over HTTP. */
async function takeOne(call: Awaited<ReturnType<typeof startServer>>['call'], queue: string) {
  const { json } = await call('POST', `/v1/queues/${queue}/leases`, { body: { max: 1, waitMs: 5_000 } })
  return json.leases[0]
}

test('a job is answered with 202, its place and its status, and the first use declares the queue', async (t) => {
  const { call } = await startServer(t)
  const added = await call('POST', '/v1/queues/email/jobs', { body: { to: 'a@b.c' } })
  assert.equal(added.status, 202)
  const { id, queue, status, duplicate, durability, copies } = added.json
  assert.deepEqual(
    { queue, status, duplicate, durability, copies },
    { queue: 'email', status: 'queued', duplicate: false, durability: 'memory', copies: 1 },
  )
  assert.equal(added.headers.get('location'), `/v1/jobs/${id}`)
  const found = await call('GET', `/v1/jobs/${id}`)
  assert.equal(found.status, 200)
  assert.equal(found.json.id, id)
  assert.equal(found.json.status, 'queued')
  assert.equal((await call('GET', '/v1/queues/email')).json.depth.messages, 1)
})

test('a job says why it waits, for programs and for people, until it runs', async (t) => {
  const { call } = await startServer(t)
  const { json: first } = await call('POST', '/v1/queues/q/jobs', { body: 1, headers: { 'sluice-key': 'a' } })
  const { json: second } = await call('POST', '/v1/queues/q/jobs', { body: 2, headers: { 'sluice-key': 'a' } })
  assert.deepEqual((await call('GET', `/v1/jobs/${first.id}`)).json.waits, [
    { kind: 'no-worker' },
    { kind: 'line', ahead: 0 },
  ])
  const held = await takeOne(call, 'q')
  const { json } = await call('GET', `/v1/jobs/${second.id}`)
  assert.deepEqual(json.waits, [{ kind: 'key', behind: first.id, behindStatus: 'active', ahead: 1 }])
  assert.equal(json.why, `It waits behind job ${first.id} of its key, which runs.`)
  const { json: running } = await call('GET', `/v1/jobs/${first.id}`)
  assert.deepEqual([running.status, running.waits, running.why], ['active', undefined, undefined])
  await call('POST', '/v1/leases:settle', { body: { items: [{ lease: held.lease, outcome: 'done' }] } })
})

test('a payload comes out as the bytes that went in, whatever JSON makes of them', async (t) => {
  const { call } = await startServer(t)
  const text = '{ "n": 12345678901234567890, "x": 1.0, "x": 1.00, "__proto__": {"a": 1}, "é": "\\u00e9" }\n'
  await call('POST', '/v1/queues/exact/jobs', { body: text, type: 'application/json' })
  const { text: answer } = await call('POST', '/v1/queues/exact/leases', { body: {} })
  assert.ok(answer.includes(`"payload":${text}`), answer)
})

test('bytes and text that is not JSON come out as base64', async (t) => {
  const { call } = await startServer(t)
  const bytes = Buffer.from([0, 255, 1, 254])
  await call('POST', '/v1/queues/raw/jobs', { body: bytes, type: 'application/octet-stream' })
  await call('POST', '/v1/queues/raw/jobs', { body: '{broken', type: 'application/json' })
  await call('POST', '/v1/queues/raw/jobs', { body: '{"json": true}', type: 'application/octet-stream' })
  const { json } = await call('POST', '/v1/queues/raw/leases', { body: { max: 3 } })
  assert.deepEqual(
    json.leases.map((lease: { payloadBase64: string }) =>
      Buffer.from(lease.payloadBase64, 'base64').toString('latin1'),
    ),
    [bytes.toString('latin1'), '{broken', '{"json": true}'],
  )
})

test('the headers of a request become the key, the delay, the priority and the trace of the job', async (t) => {
  const { call } = await startServer(t)
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
  await call('POST', '/v1/queues/h/jobs', { body: 1, headers: { 'sluice-priority': 'low' } })
  await call('POST', '/v1/queues/h/jobs', {
    body: 2,
    headers: { 'sluice-priority': 'high', 'sluice-key': Buffer.from('schlüssel').toString('latin1'), traceparent },
  })
  const delayed = await call('POST', '/v1/queues/h/jobs', { body: 3, headers: { 'sluice-delay-ms': '3600000' } })
  assert.equal(delayed.json.status, 'scheduled')
  assert.ok(delayed.json.dueAtMs > Date.now() + 3_000_000)
  const { json } = await call('POST', '/v1/queues/h/leases', { body: { max: 3 } })
  assert.deepEqual(
    json.leases.map((lease: { payload: number }) => lease.payload),
    [2, 1],
  )
  assert.equal(json.leases[0].key, 'schlüssel')
  assert.deepEqual(json.leases[0].headers, { traceparent })
})

test('a job whose deadline passed before it was started is expired, not handed out', async (t) => {
  const { call } = await startServer(t)
  const { json } = await call('POST', '/v1/queues/d/jobs', { body: 1, headers: { 'sluice-deadline-ms': '1' } })
  const waited = await call('GET', `/v1/jobs/${json.id}?waitMs=10000`)
  if (waited.json.status !== 'expired') await call('POST', '/v1/queues/d/leases', { body: {} })
  assert.equal((await call('GET', `/v1/jobs/${json.id}`)).json.status, 'expired')
})

test('whoever waited for a job that has not begun hears why it waits', async (t) => {
  const { call } = await startServer(t)
  const { json } = await call('POST', '/v1/queues/idle/jobs', { body: 1 })
  const [asked, waited] = [await call('GET', `/v1/jobs/${json.id}`), await call('GET', `/v1/jobs/${json.id}?waitMs=1`)]
  assert.ok(asked.json.waits.length > 0)
  assert.deepEqual(waited.json.waits, asked.json.waits)
})

test('the same idempotency key gives the same job, and another payload under it is refused', async (t) => {
  const { call } = await startServer(t)
  const headers = { 'idempotency-key': 'once' }
  const first = await call('POST', '/v1/queues/pay/jobs', { body: { cents: 5 }, headers })
  const again = await call('POST', '/v1/queues/pay/jobs', { body: { cents: 5 }, headers })
  assert.equal(again.status, 202)
  assert.equal(again.json.id, first.json.id)
  assert.deepEqual([first.json.duplicate, again.json.duplicate], [false, true])
  const other = await call('POST', '/v1/queues/pay/jobs', { body: { cents: 6 }, headers })
  assert.equal(other.status, 409)
  assert.equal(other.json.code, 'IDEMPOTENCY_MISMATCH')
})

test('Prefer: wait answers 200 with the result once the job is settled', async (t) => {
  const { call } = await startServer(t)
  const waiting = call('POST', '/v1/queues/sum/jobs', { body: [1, 2], headers: { prefer: 'wait=30' } })
  const { lease, payload } = await takeOne(call, 'sum')
  await call('POST', '/v1/leases:settle', {
    body: { items: [{ lease, outcome: 'done', result: payload[0] + payload[1] }] },
  })
  const { status, json, headers } = await waiting
  assert.equal(status, 200)
  assert.equal(headers.get('preference-applied'), 'wait=30')
  assert.deepEqual(
    { status: json.status, result: json.result, attempts: json.attempts },
    { status: 'completed', result: 3, attempts: 1 },
  )
})

test('Prefer: wait answers 200 with the status of a job that failed', async (t) => {
  const { call } = await startServer(t)
  const waiting = call('POST', '/v1/queues/sum/jobs', { body: 1, headers: { prefer: 'respond-async, wait=30' } })
  const { lease } = await takeOne(call, 'sum')
  await call('POST', '/v1/leases:settle', { body: { items: [{ lease, outcome: 'dead', error: 'no such account' }] } })
  const { status, json } = await waiting
  assert.equal(status, 200)
  assert.equal(json.status, 'failed')
  assert.match(json.error, /no such account/)
})

test('Prefer: wait answers 202 when the time is over first', async (t) => {
  const { call } = await startServer(t)
  const { status, json, headers } = await call('POST', '/v1/queues/slow/jobs', {
    body: 1,
    headers: { prefer: 'wait=0' },
  })
  assert.equal(status, 202)
  assert.equal(headers.get('preference-applied'), 'wait=0')
  assert.equal(json.status, 'queued')
})

test('a job can be waited for by its id', async (t) => {
  const { call } = await startServer(t)
  const { json } = await call('POST', '/v1/queues/w/jobs', { body: 1 })
  const waiting = call('GET', `/v1/jobs/${json.id}?waitMs=30000`)
  const { lease } = await takeOne(call, 'w')
  await call('POST', '/v1/leases:settle', { body: { items: [{ lease, outcome: 'done' }] } })
  assert.equal((await waiting).json.status, 'completed')
})

test('an event stream shows each change of a job and ends with the last', async (t) => {
  const { call, url } = await startServer(t)
  const { json } = await call('POST', '/v1/queues/s/jobs', { body: 1 })
  const seen: string[] = []
  let lastId = ''
  for await (const { name, id, data } of readEvents(`${url}/v1/jobs/${json.id}`)) {
    if (name === 'comment') continue
    seen.push(data.status)
    lastId = id ?? ''
    if (seen.length === 1) {
      const { lease } = await takeOne(call, 's')
      await call('POST', '/v1/leases:extend', { body: { items: [{ lease, progress: { done: 1, of: 2 } }] } })
      await call('POST', '/v1/leases:settle', { body: { items: [{ lease, outcome: 'done', result: 'ok' }] } })
    }
    if (data.status === 'completed') assert.equal(data.result, 'ok')
  }
  assert.equal(seen[0], 'queued')
  assert.equal(seen.at(-1), 'completed')
  const resumed = await call('GET', `/v1/jobs/${json.id}`, {
    headers: { accept: 'text/event-stream', 'last-event-id': lastId },
  })
  assert.equal(resumed.status, 204, 'a reader that has seen the end is told to stop')
})

test('an idle event stream shows that it lives', async (t) => {
  const { call, url } = await startServer(t, { heartbeatMs: 10 })
  const { json } = await call('POST', '/v1/queues/s/jobs', { body: 1 })
  let comments = 0
  for await (const { name } of readEvents(`${url}/v1/jobs/${json.id}`))
    if (name === 'comment' && ++comments === 3) break
  assert.equal(comments, 3)
})

test('a job can be cancelled once, and not when it is settled otherwise', async (t) => {
  const { call } = await startServer(t)
  const { json: first } = await call('POST', '/v1/queues/c/jobs', { body: 1 })
  const cancelled = await call('DELETE', `/v1/jobs/${first.id}`)
  assert.equal(cancelled.status, 200)
  assert.equal(cancelled.json.status, 'cancelled')
  assert.equal((await call('DELETE', `/v1/jobs/${first.id}`)).status, 200)
  const { json: second } = await call('POST', '/v1/queues/c/jobs', { body: 2 })
  const { lease, payload } = await takeOne(call, 'c')
  assert.equal(payload, 2)
  await call('POST', '/v1/leases:settle', { body: { items: [{ lease, outcome: 'done' }] } })
  const refused = await call('DELETE', `/v1/jobs/${second.id}`)
  assert.equal(refused.status, 409)
  assert.equal(refused.json.code, 'JOB_SETTLED')
})

test('cancelling a job that is being worked on takes its lease away', async (t) => {
  const { call } = await startServer(t)
  const { json } = await call('POST', '/v1/queues/c/jobs', { body: 1 })
  const { lease } = await takeOne(call, 'c')
  await call('DELETE', `/v1/jobs/${json.id}`)
  const settled = await call('POST', '/v1/leases:settle', { body: { items: [{ lease, outcome: 'done' }] } })
  assert.equal(settled.json.outcomes[0].problem.code, 'LEASE_LOST')
  assert.equal((await call('GET', `/v1/jobs/${json.id}`)).json.status, 'cancelled')
})

test('a batch of lines stores every line that can be read, and answers each in its place', async (t) => {
  const { call } = await startServer(t)
  const lines = [
    '{"payload": {"n": 12345678901234567890}, "key": "a", "priority": "high"}',
    'not json',
    '{"payload": 2, "prority": "low"}',
    '',
    '{"payloadBase64": "AAEC", "delayMs": 3600000}',
    '{"key": "a"}',
    '{"payload": 1, "__proto__": {"key": "x"}}',
  ]
  const { status, text, headers } = await call('POST', '/v1/queues/b/jobs', {
    body: lines.join('\n'),
    type: 'application/x-ndjson',
  })
  assert.equal(status, 200)
  assert.match(headers.get('content-type') ?? '', /^application\/x-ndjson/)
  const outcomes = text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  assert.deepEqual(
    outcomes.map(({ outcome, problem }) => problem?.code ?? outcome),
    ['stored', 'INVALID_PAYLOAD', 'INVALID_OPTION', 'scheduled', 'INVALID_PAYLOAD', 'INVALID_OPTION'],
  )
  assert.match(outcomes[2].problem.detail, /prority.*priority/)
  assert.equal((await call('GET', `/v1/jobs/${outcomes[0].id}`)).json.status, 'queued')
  const { text: leased } = await call('POST', '/v1/queues/b/leases', { body: { max: 10 } })
  assert.ok(leased.includes('"payload":{"n": 12345678901234567890}'), leased)
})

test('a batch of which no line can be read is refused with the first reason', async (t) => {
  const { call } = await startServer(t)
  const { status, json } = await call('POST', '/v1/queues/b/jobs', {
    body: '{"a":1}\n{"b":2}\n',
    type: 'application/x-ndjson',
  })
  assert.equal(status, 400)
  assert.equal(json.code, 'INVALID_PAYLOAD')
  assert.match(json.detail, /line 1/)
  assert.equal(json.lines, 2)
})

test('a header Sluice-Header-NAME travels with the job as its header, beside its trace', async (t) => {
  const { call } = await startServer(t)
  const headers = { 'Sluice-Header-Tenant': 'acme', 'Sluice-Header-Größe': 'x' }
  await assert.rejects(call('POST', '/v1/queues/h/jobs', { body: 1, headers }), 'HTTP knows no such name')
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
  const named = {
    'Sluice-Header-Tenant': 'acme',
    'sluice-header-city': 'K\u00c3\u00b6ln',
    traceparent,
    tracestate: 'a=b',
  }
  assert.equal((await call('POST', '/v1/queues/h/jobs', { body: 1, headers: named })).status, 202)
  const taken = await takeOne(call, 'h')
  assert.deepEqual(taken.headers, { tenant: 'acme', city: 'Köln', traceparent, tracestate: 'a=b' })
  for (const name of ['Sluice-Header-', 'Sluice-Header-Sluice-Redrive-Of']) {
    const refused = await call('POST', '/v1/queues/h/jobs', { body: 1, headers: { [name]: 'x' } })
    assert.deepEqual([name, refused.status, refused.json.code], [name, 400, 'INVALID_OPTION'])
  }
})

test('the headers of a batch hold for the lines that say nothing else', async (t) => {
  const { call } = await startServer(t)
  const batch = {
    body: '{"payload":1}\n{"payload":2,"key":"own","headers":{"tenant":"b"},"priority":"low"}\n',
    type: 'application/x-ndjson',
    headers: { 'Sluice-Key': 'all', 'Sluice-Header-Tenant': 'a', 'Sluice-Header-Z': 'z', 'Idempotency-Key': 'once' },
  }
  const stored = await call('POST', '/v1/queues/d/jobs', batch)
  const again = await call('POST', '/v1/queues/d/jobs', batch)
  const outcomes = (text: string) =>
    text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
  assert.deepEqual(
    outcomes(again.text).map(({ outcome }) => outcome),
    ['duplicate', 'duplicate'],
  )
  assert.deepEqual(
    outcomes(again.text).map(({ id }) => id),
    outcomes(stored.text).map(({ id }) => id),
  )
  const { json } = await call('POST', '/v1/queues/d/leases', { body: { max: 10 } })
  assert.deepEqual(
    json.leases.map(({ key, headers }: { key: string; headers: object }) => [key, headers]),
    [
      ['all', { tenant: 'a', z: 'z' }],
      ['own', { tenant: 'b', z: 'z' }],
    ],
  )
  const misspelt = await call('POST', '/v1/queues/d/jobs', { ...batch, headers: { 'Sluice-Keys': 'a' } })
  assert.deepEqual([misspelt.status, misspelt.json.nearest], [400, 'Sluice-Key'])
  const wrong = await call('POST', '/v1/queues/d/jobs', { ...batch, headers: { 'Sluice-Delay-Ms': 'soon' } })
  assert.deepEqual([wrong.status, wrong.json.code], [400, 'INVALID_OPTION'])
})
