import assert from 'node:assert/strict'
import { test } from 'node:test'
import { z } from 'zod'
import { startServer } from './server-harness.ts'

const ORDER = z.object({ id: z.number(), lines: z.array(z.object({ sku: z.string() })).default([]) })

test('where this process gave the queue a schema, what comes over HTTP is checked with it, and its output is stored', async (t) => {
  const { call, sluice } = await startServer(t)
  sluice.queue('orders', { schema: ORDER })
  assert.equal((await call('POST', '/v1/queues/orders/jobs', { body: '{"id": 1, "extra": true}' })).status, 202)
  const { json } = await call('POST', '/v1/queues/orders/leases', { body: {} })
  assert.deepEqual(json.leases[0].payload, { id: 1, lines: [] })
})

test('a payload that does not match is refused with the path, and nothing is stored', async (t) => {
  const { call, sluice } = await startServer(t)
  sluice.queue('orders', { schema: ORDER })
  const { status, json } = await call('POST', '/v1/queues/orders/jobs', {
    body: { id: 1, lines: [{ sku: 'a' }, { sku: 5 }] },
  })
  assert.deepEqual([status, json.code, json.issues[0].path], [422, 'SCHEMA_MISMATCH', ['lines', 1, 'sku']])
  assert.match(json.detail, /lines\.1\.sku/)
  const bytes = await call('POST', '/v1/queues/orders/jobs', { body: '{"id": 1}', type: 'application/octet-stream' })
  assert.equal(bytes.json.code, 'SCHEMA_MISMATCH')
  assert.equal((await call('GET', '/v1/queues/orders')).json.appended, 0)
})

test('where there is a schema, JSON that is broken, not UTF-8 or 10,000 levels deep is refused', async (t) => {
  const { call, sluice } = await startServer(t)
  sluice.queue('orders', { schema: z.unknown() })
  for (const body of ['{"id": 1', Buffer.from([0x22, 0xff, 0x22]), `${'['.repeat(10_000)}${']'.repeat(10_000)}`]) {
    const { status, json } = await call('POST', '/v1/queues/orders/jobs', { body, type: 'application/json' })
    assert.deepEqual([status, json.code], [400, 'INVALID_PAYLOAD'])
  }
  const proto = await call('POST', '/v1/queues/orders/jobs', { body: '{"__proto__": {"admin": true}}' })
  assert.ok(proto.status === 202 || proto.json.code === 'SCHEMA_MISMATCH')
  assert.equal(({} as Record<string, unknown>).admin, undefined)
})

test('without a schema the same payloads are kept as they came, and come out so', async (t) => {
  const { call } = await startServer(t)
  const deep = `${'['.repeat(10_000)}${']'.repeat(10_000)}`
  assert.equal((await call('POST', '/v1/queues/any/jobs', { body: deep })).status, 202)
  const { text } = await call('POST', '/v1/queues/any/leases', { body: {} })
  assert.ok(text.includes(deep))
})

test('lines of a batch, messages of a topic and outputs of a settle are checked as well', async (t) => {
  const { call, sluice } = await startServer(t)
  sluice.queue('orders', { schema: ORDER })
  sluice.topic('news', { schema: z.string() })
  const { text } = await call('POST', '/v1/queues/orders/jobs', {
    body: '{"payload": {"id": 1}}\n{"payload": {"id": "x"}}\n',
    type: 'application/x-ndjson',
  })
  assert.deepEqual(
    text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line).problem?.code),
    [undefined, 'SCHEMA_MISMATCH'],
  )
  assert.equal((await call('POST', '/v1/topics/news/messages', { body: 5 })).json.code, 'SCHEMA_MISMATCH')
  const { json } = await call('POST', '/v1/queues/orders/leases', { body: {} })
  const settle = (payload: unknown) =>
    call('POST', '/v1/leases:settle', {
      body: { items: [{ lease: json.leases[0].lease, outcome: 'done', outputs: [{ topic: 'news', payload }] }] },
    })
  assert.equal((await settle(5)).json.outcomes[0].problem.code, 'SCHEMA_MISMATCH')
  assert.equal((await settle('ok')).json.outcomes[0].outcome, 'settled')
})
