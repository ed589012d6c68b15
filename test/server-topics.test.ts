import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readEvents, startServer } from './server-harness.ts'

test('a message is answered with 201 and its receipt, and the first use declares the topic', async (t) => {
  const { call } = await startServer(t)
  const { status, json } = await call('POST', '/v1/topics/orders/messages', {
    body: { total: 3 },
    headers: { 'sluice-key': 'c7' },
  })
  assert.equal(status, 201)
  const { timestampMs, ...rest } = json
  assert.deepEqual(rest, {
    topic: 'orders',
    partition: 0,
    offset: 0,
    durability: 'memory',
    copies: 1,
    duplicate: false,
  })
  assert.ok(Math.abs(timestampMs - Date.now()) < 60_000)
})

test('a page of a topic has its messages as they were sent, and where to go on', async (t) => {
  const { call } = await startServer(t)
  for (const n of [0, 1, 2, 3])
    await call('POST', '/v1/topics/p/messages', { body: { n }, headers: { 'sluice-key': `k${n}` } })
  const first = await call('GET', '/v1/topics/p/messages?from=earliest&limit=3')
  assert.equal(first.status, 200)
  assert.deepEqual(
    first.json.messages.map(({ offset, key, payload }: Record<string, unknown>) => [offset, key, payload]),
    [
      [0, 'k0', { n: 0 }],
      [1, 'k1', { n: 1 }],
      [2, 'k2', { n: 2 }],
    ],
  )
  assert.deepEqual([first.json.next, first.json.earliest, first.json.head], [3, 0, 4])
  const second = await call('GET', `/v1/topics/p/messages?from=${first.json.next}`)
  assert.deepEqual(
    second.json.messages.map(({ payload }: Record<string, unknown>) => payload),
    [{ n: 3 }],
  )
  assert.equal(second.json.next, 4)
})

test('a page can begin at the end or at a time', async (t) => {
  const { call } = await startServer(t)
  await call('POST', '/v1/topics/p/messages', { body: 1 })
  assert.deepEqual((await call('GET', '/v1/topics/p/messages?from=latest')).json.messages, [])
  assert.equal((await call('GET', '/v1/topics/p/messages?from=2001-01-01T00:00:00Z')).json.messages.length, 1)
  assert.equal((await call('GET', '/v1/topics/p/messages?from=2101-01-01')).json.messages.length, 0)
})

test('a page waits at the end of the topic for the next message', async (t) => {
  const { call } = await startServer(t)
  await call('PUT', '/v1/topics/w')
  const waiting = call('GET', '/v1/topics/w/messages?waitMs=30000')
  await call('POST', '/v1/topics/w/messages', { body: '"late"' })
  assert.equal((await waiting).json.messages[0].payload, 'late')
})

test('an offset beyond the end is an error that says where the end is', async (t) => {
  const { call } = await startServer(t)
  await call('POST', '/v1/topics/p/messages', { body: 1 })
  for (const accept of ['application/json', 'text/event-stream']) {
    const { status, json } = await call('GET', '/v1/topics/p/messages?from=9', { headers: { accept } })
    assert.equal(status, 400)
    assert.equal(json.code, 'OFFSET_OUT_OF_RANGE')
    assert.equal(json.head, 1)
  }
})

test('a live stream gives what is there and what comes, and goes on behind Last-Event-ID', async (t) => {
  const { call, url } = await startServer(t)
  for (const n of [0, 1]) await call('POST', '/v1/topics/live/messages', { body: n })
  const seen: [string | undefined, unknown][] = []
  for await (const { id, name, data } of readEvents(`${url}/v1/topics/live/messages`)) {
    if (name === 'comment') continue
    seen.push([id, data.payload])
    if (seen.length === 2) await call('POST', '/v1/topics/live/messages', { body: 2 })
    if (seen.length === 3) break
  }
  assert.deepEqual(seen, [
    ['0', 0],
    ['1', 1],
    ['2', 2],
  ])
  await call('POST', '/v1/topics/live/messages', { body: 3 })
  const resumed: unknown[] = []
  for await (const { name, data } of readEvents(`${url}/v1/topics/live/messages?from=earliest`, {
    'last-event-id': '1',
  })) {
    if (name === 'comment') continue
    resumed.push(data.payload)
    if (resumed.length === 2) break
  }
  assert.deepEqual(resumed, [2, 3])
})

test('a payload with line breaks arrives whole in an event', async (t) => {
  const { call, url } = await startServer(t)
  await call('POST', '/v1/topics/nl/messages', { body: '{\r\n  "a": "b\\nc"\n}', type: 'application/json' })
  for await (const { name, data } of readEvents(`${url}/v1/topics/nl/messages`)) {
    if (name === 'comment') continue
    assert.deepEqual(data.payload, { a: 'b\nc' })
    break
  }
})

test('a batch of lines is published in order, a receipt for each', async (t) => {
  const { call } = await startServer(t)
  const body = Array.from({ length: 1_200 }, (_, n) =>
    JSON.stringify({ payload: { n }, key: `k${n % 3}`, headers: { n: `${n}` } }),
  ).join('\n')
  const { status, text } = await call('POST', '/v1/topics/many/messages', { body, type: 'application/x-ndjson' })
  assert.equal(status, 200)
  const offsets = text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line).offset)
  assert.deepEqual(
    offsets,
    Array.from({ length: 1_200 }, (_, n) => n),
  )
  const { json } = await call('GET', '/v1/topics/many/messages?from=1100&limit=1000')
  assert.deepEqual(
    json.messages.map(({ payload }: { payload: { n: number } }) => payload.n),
    offsets.slice(1_100),
  )
  assert.deepEqual(json.messages[0].headers, { n: '1100' })
})

test('a page stays within its budget of bytes and says where to go on', async (t) => {
  const { call } = await startServer(t, { maxAnswerBytes: 20_000 })
  const big = 'x'.repeat(5_000)
  for (let n = 0; n < 70; n++)
    await call('POST', '/v1/topics/big/messages', { body: `"${n}${big}"`, type: 'application/json' })
  const { json } = await call('GET', '/v1/topics/big/messages?limit=1000')
  assert.ok(json.messages.length < 70, `${json.messages.length} messages`)
  assert.equal(json.next, json.messages.length)
})

test('every group of a topic gets every message under leases of its own', async (t) => {
  const { call } = await startServer(t)
  for (const n of [1, 2]) await call('POST', '/v1/topics/cast/messages', { body: n })
  for (const group of ['billing', 'stock']) {
    assert.equal((await call('PUT', `/v1/topics/cast/groups/${group}`, { body: { from: 'earliest' } })).status, 201)
    const { json } = await call('POST', `/v1/topics/cast/groups/${group}/leases`, { body: { max: 10 } })
    assert.deepEqual(
      json.leases.map(({ payload }: { payload: number }) => payload),
      [1, 2],
    )
    assert.deepEqual([json.leases[0].topic, json.leases[0].group], ['cast', group])
    const items = json.leases.map(({ lease }: { lease: string }) => ({ lease, outcome: 'done' }))
    assert.deepEqual((await call('POST', '/v1/leases:settle', { body: { items } })).json, {
      outcomes: [{ outcome: 'settled' }, { outcome: 'settled' }],
    })
  }
  const { json } = await call('GET', '/v1/topics/cast')
  assert.deepEqual(json.groups.map(({ name, depth }: Record<string, unknown>) => [name, depth]).sort(), [
    ['billing', 0],
    ['stock', 0],
  ])
})

test('a group that was not declared is not made by asking for its messages', async (t) => {
  const { call } = await startServer(t)
  await call('POST', '/v1/topics/cast/messages', { body: 1 })
  const { status, json } = await call('POST', '/v1/topics/cast/groups/nobody/leases', { body: {} })
  assert.equal(status, 404)
  assert.equal(json.code, 'GROUP_NOT_FOUND')
})
