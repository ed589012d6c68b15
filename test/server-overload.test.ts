import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { test } from 'node:test'
import { createServer } from '../src/server/server.ts'
import { readEvents, startServer } from './server-harness.ts'

test('a full queue answers 503 with an honest Retry-After and stores nothing', async (t) => {
  const { call } = await startServer(t)
  await call('PUT', '/v1/queues/q', { body: { limit: { messages: 2 } } })
  for (const n of [1, 2]) assert.equal((await call('POST', '/v1/queues/q/jobs', { body: n })).status, 202)
  const { status, json, headers } = await call('POST', '/v1/queues/q/jobs', { body: 3 })
  assert.equal(status, 503)
  assert.deepEqual([json.code, json.depth, json.limit], ['QUEUE_FULL', 2, 2])
  assert.ok(json.retryAfterMs > 0)
  assert.equal(headers.get('retry-after'), `${Math.ceil(json.retryAfterMs / 1_000)}`)
  assert.equal((await call('GET', '/v1/queues/q')).json.depth.messages, 2)
  assert.equal((await call('GET', '/v1/queues/q')).json.refused, 1)
})

test('a full queue accepts again once it was drained, and settling was never refused', async (t) => {
  const { call } = await startServer(t)
  await call('PUT', '/v1/queues/q', { body: { limit: { messages: 2 } } })
  for (const n of [1, 2, 3]) await call('POST', '/v1/queues/q/jobs', { body: n })
  const { json } = await call('POST', '/v1/queues/q/leases', { body: { max: 2 } })
  const items = json.leases.map(({ lease }: { lease: string }) => ({ lease, outcome: 'done' }))
  assert.equal((await call('POST', '/v1/leases:settle', { body: { items } })).json.outcomes.length, 2)
  assert.equal((await call('POST', '/v1/queues/q/jobs', { body: 4 })).status, 202)
})

test('Prefer: wait does not wait for a job that was refused', async (t) => {
  const { call } = await startServer(t)
  await call('PUT', '/v1/queues/q', { body: { limit: { messages: 0 } } })
  assert.equal((await call('POST', '/v1/queues/q/jobs', { body: 1, headers: { prefer: 'wait=60' } })).status, 503)
})

test('a batch that a queue has room for in part is answered line by line, one without any room with 503', async (t) => {
  const { call } = await startServer(t)
  await call('PUT', '/v1/queues/q', { body: { limit: { messages: 2 } } })
  const send = () =>
    call('POST', '/v1/queues/q/jobs', {
      body: '{"payload":1}\n{"payload":2}\n{"payload":3}\n',
      type: 'application/x-ndjson',
    })
  const part = await send()
  assert.equal(part.status, 200)
  const outcomes = part.text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  assert.deepEqual(
    outcomes.map(({ outcome }) => outcome),
    ['stored', 'stored', 'refused'],
  )
  assert.deepEqual([outcomes[2].problem.code, outcomes[2].problem.retryAfterMs > 0], ['QUEUE_FULL', true])
  const none = await send()
  assert.deepEqual([none.status, none.json.code, none.json.lines], [503, 'QUEUE_FULL', 3])
  assert.ok(Number(none.headers.get('retry-after')) >= 1)
})

test('a topic at its limit refuses publishers while a group holds its messages back', async (t) => {
  const { call } = await startServer(t)
  await call('PUT', '/v1/topics/t', { body: { limit: { messages: 1 } } })
  await call('PUT', '/v1/topics/t/groups/slow', { body: {} })
  assert.equal((await call('POST', '/v1/topics/t/messages', { body: 1 })).status, 201)
  const { status, json } = await call('POST', '/v1/topics/t/messages', { body: 2 })
  assert.deepEqual([status, json.code], [503, 'QUEUE_FULL'])
})

test('past the cap of waits a long poll is refused, and Prefer: wait answers at once instead', async (t) => {
  const { call } = await startServer(t, { maxWaiting: 1 })
  await call('PUT', '/v1/queues/q')
  const abort = new AbortController()
  const waiting = call('POST', '/v1/queues/q/leases', { body: { waitMs: 60_000 }, signal: abort.signal })
  while (!(await call('GET', '/metrics')).text.includes('sluice_http_waiting 1')) {}
  const refused = await call('POST', '/v1/queues/q/leases', { body: { waitMs: 60_000 } })
  assert.deepEqual([refused.status, refused.json.code], [503, 'OVERLOADED'])
  assert.equal(refused.headers.get('retry-after'), `${Math.ceil(refused.json.retryAfterMs / 1_000)}`)
  const added = await call('POST', '/v1/queues/other/jobs', { body: 1, headers: { prefer: 'wait=60' } })
  assert.deepEqual([added.status, added.headers.get('preference-applied')], [202, null])
  assert.deepEqual(
    (await call('POST', '/v1/queues/q/leases', { body: {} })).json.leases,
    [],
    'what does not wait goes on',
  )
  abort.abort()
  await assert.rejects(waiting)
  while (!(await call('GET', '/metrics')).text.includes('sluice_http_waiting 0')) {}
})

test('past the cap of requests in flight the answer is 503, but health is still answered', async (t) => {
  const { call, sluice } = await startServer(t, { maxInFlight: 1 })
  const { promise: held, resolve: release } = Promise.withResolvers<void>()
  const { promise: entered, resolve: enter } = Promise.withResolvers<void>()
  const { engine } = sluice
  const append = engine.append.bind(engine)
  t.mock.method(engine, 'append', async (requests: Parameters<typeof append>[0]) => {
    enter()
    await held
    return append(requests)
  })
  const first = call('POST', '/v1/queues/q/jobs', { body: 1 })
  await entered
  const { status, json, headers } = await call('GET', '/v1/queues')
  assert.deepEqual([status, json.code], [503, 'OVERLOADED'])
  assert.equal(headers.get('retry-after'), `${Math.ceil(json.retryAfterMs / 1_000)}`)
  assert.equal((await call('GET', '/healthz')).status, 200)
  release()
  assert.equal((await first).status, 202)
  assert.equal((await call('GET', '/v1/queues')).status, 200)
})

test('as a server fills up, reads are refused first, then publishing, then leasing, settling last, and health never', async (t) => {
  const { call, sluice } = await startServer(t, { maxInFlight: 10, maxLoopDelayMs: 0 })
  await call('PUT', '/v1/queues/q')
  await call('POST', '/v1/queues/q/jobs', { body: 0 })
  const [{ lease }] = (await call('POST', '/v1/queues/q/leases', { body: {} })).json.leases
  const { promise: held, resolve: release } = Promise.withResolvers<void>()
  let entered = 0
  const { engine } = sluice
  const extend = engine.extend.bind(engine)
  t.mock.method(engine, 'extend', async (requests: Parameters<typeof extend>[0]) => {
    entered++
    await held
    return extend(requests)
  })
  const extendOne = () => call('POST', '/v1/leases:extend', { body: { items: [{ lease, leaseMs: 60_000 }] } })
  const isServed = async (method: string, path: string, body?: unknown): Promise<boolean> => {
    const { status } = await call(method, path, { body })
    return status !== 503
  }
  const served = async () => [
    await isServed('GET', '/healthz'),
    await isServed('POST', '/v1/queues/q/leases', { max: 1 }),
    await isServed('POST', '/v1/queues/q/jobs', 1),
    await isServed('GET', '/v1/queues'),
  ]
  const held1: Promise<unknown>[] = []
  const fillTo = async (count: number) => {
    while (held1.length < count) held1.push(extendOne())
    while (entered < count) await new Promise((resolve) => setImmediate(resolve))
  }
  assert.deepEqual(await served(), [true, true, true, true])
  await fillTo(6)
  assert.deepEqual(await served(), [true, true, true, false])
  await fillTo(8)
  assert.deepEqual(await served(), [true, true, false, false])
  await fillTo(9)
  assert.deepEqual(await served(), [true, false, false, false])
  await fillTo(10)
  assert.deepEqual(await served(), [true, false, false, false])
  const settle = await call('POST', '/v1/leases:settle', { body: { items: [{ lease, outcome: 'done' }] } })
  assert.deepEqual([settle.status, settle.json.code], [503, 'OVERLOADED'])
  release()
  await Promise.all(held1)
  assert.deepEqual(await served(), [true, true, true, true])
})

test('while the event loop is late fewer requests are let in, and as many as before once it is in time again', async (t) => {
  const { call } = await startServer(t, { maxInFlight: 5_000 })
  const readLimit = async (): Promise<number> =>
    Number(/^sluice_http_limit (\d+)$/m.exec((await call('GET', '/metrics')).text)?.[1])
  assert.equal(await readLimit(), 5_000)
  const still = new Int32Array(new SharedArrayBuffer(4))
  let isBlocking = true
  const block = (): void => {
    Atomics.wait(still, 0, 0, 400)
    if (isBlocking) setTimeout(block, 1)
  }
  block()
  while ((await readLimit()) === 5_000) {}
  isBlocking = false
  while ((await readLimit()) < 5_000) {}
})

test('what is refused as too many is counted by what it was for', async (t) => {
  const { call } = await startServer(t, { maxWaiting: 0 })
  await call('PUT', '/v1/queues/q')
  const { status } = await call('POST', '/v1/queues/q/leases', { body: { waitMs: 1_000 } })
  assert.equal(status, 503)
  const { text } = await call('GET', '/metrics')
  assert.match(text, /^sluice_http_refused_total\{class="lease"\} 1$/m)
  assert.match(text, /^sluice_http_refused_total\{class="settle"\} 0$/m)
})

test('bodies that are still to come are counted by what they announce', async (t) => {
  const { call, port } = await startServer(t, { maxBodyBytes: 1_000 })
  const socket = connect(port, '127.0.0.1')
  t.after(() => socket.destroy())
  socket.write(
    'POST /v1/queues/q/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 990\r\n\r\n1',
  )
  while (!(await call('GET', '/metrics')).text.includes('sluice_http_body_bytes 990')) {}
  const refused = await call('POST', '/v1/queues/q/jobs', { body: 'x'.repeat(20) })
  assert.deepEqual([refused.status, refused.json.code], [503, 'OVERLOADED'])
  assert.equal((await call('POST', '/v1/queues/q/jobs', { body: 1 })).status, 202)
  socket.destroy()
  while (!(await call('GET', '/metrics')).text.includes('sluice_http_body_bytes 0')) {}
  assert.equal(
    (await call('POST', '/v1/queues/q/jobs', { body: 'x'.repeat(2_000), type: 'application/octet-stream' })).status,
    202,
  )
})

test('an outcome that nobody can know is UNKNOWN, never a refusal', async (t) => {
  const { call, sluice } = await startServer(t)
  await call('PUT', '/v1/queues/q')
  const lines: string[] = []
  const server = createServer(sluice, { port: 0, log: { write: (line) => lines.push(line) } })
  t.after(() => server.close())
  const url = await server.listen()
  t.mock.method(sluice.engine, 'append', async () => {
    throw new TypeError('secret internals')
  })
  const answer = await fetch(`${url}/v1/queues/q/jobs`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: '1',
  })
  const text = await answer.text()
  assert.equal(answer.status, 500)
  assert.equal(JSON.parse(text).code, 'UNKNOWN')
  assert.doesNotMatch(text, /secret/)
  assert.match(lines.join(''), /secret internals/)
})

test('closing ends long polls and streams at once, and refuses what comes later', async (t) => {
  const { call, url, server } = await startServer(t)
  await call('PUT', '/v1/topics/t')
  const poll = call('POST', '/v1/queues/q/leases', { body: { waitMs: 60_000 } })
  const { json } = await call('POST', '/v1/queues/other/jobs', { body: 1 })
  const preferring = call('POST', '/v1/queues/other/jobs', { body: 1, headers: { prefer: 'wait=60' } })
  const events: string[] = []
  const stream = (async () => {
    for await (const { name } of readEvents(`${url}/v1/jobs/${json.id}`)) events.push(name)
  })()
  while (!(await call('GET', '/metrics')).text.includes('sluice_http_waiting 3')) {}
  await server.close()
  assert.deepEqual((await poll).json.leases, [])
  assert.equal((await preferring).status, 202)
  await stream
  assert.ok(events.includes('message'))
  await assert.rejects(call('GET', '/healthz'))
})

test('a job that was accepted before the stop is there after it', async (t) => {
  const { call, server, sluice } = await startServer(t)
  const adds = Array.from({ length: 50 }, (_, n) =>
    call('POST', '/v1/queues/q/jobs', { body: n }).then(
      ({ status }) => status,
      () => 0,
    ),
  )
  const [first] = await Promise.all([adds[0], server.close()])
  const accepted = (await Promise.all(adds)).filter((status) => status === 202).length
  assert.ok(first === 202 || first === 503 || first === 0)
  const { topics } = await sluice.engine.stats()
  assert.equal(topics.find(({ name }) => name === 'q')?.depth.messages ?? 0, accepted)
})
