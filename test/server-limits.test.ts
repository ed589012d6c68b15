import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Schema, SluiceError } from '../src/index.ts'
import { startServer } from './server-harness.ts'

const making = (validate: () => { value: unknown }): Schema => ({
  '~standard': { version: 1, vendor: 'test', validate },
})

test('what a schema makes of a payload is checked as any payload is', async (t) => {
  const { call, sluice } = await startServer(t, { maxMessageBytes: 1_000 })
  const outputs: readonly (readonly [string, () => { value: unknown }, string])[] = [
    ['map', () => ({ value: new Map([[1, 2]]) }), 'INVALID_PAYLOAD'],
    ['bigint', () => ({ value: 1n }), 'INVALID_PAYLOAD'],
    ['long', () => ({ value: 'x'.repeat(1_001) }), 'PAYLOAD_TOO_LARGE'],
    [
      'throws',
      () => {
        throw new Error('broken')
      },
      'SCHEMA_MISMATCH',
    ],
  ]
  for (const [name, validate, code] of outputs) {
    sluice.queue(name, { schema: making(validate) })
    const answer = await call('POST', `/v1/queues/${name}/jobs`, { body: 1 })
    assert.equal(answer.json.code, code)
    assert.equal((await call('GET', `/v1/queues/${name}`)).json.appended, 0)
  }
})

test('a result over the limit of a message is refused for its own item, the others settle', async (t) => {
  const { call } = await startServer(t, { maxMessageBytes: 1_000 })
  await call('POST', '/v1/queues/q/jobs', { body: 1 })
  await call('POST', '/v1/queues/q/jobs', { body: 2 })
  const { json } = await call('POST', '/v1/queues/q/leases', { body: { max: 2 } })
  const [first, second] = json.leases
  const items = [
    { lease: first.lease, outcome: 'done', result: 'x'.repeat(999) },
    { lease: second.lease, outcome: 'done', result: 'x'.repeat(998) },
  ]
  const { outcomes } = (await call('POST', '/v1/leases:settle', { body: { items } })).json
  assert.deepEqual([outcomes[0].problem.code, outcomes[1].outcome], ['PAYLOAD_TOO_LARGE', 'settled'])
})

test('of an engine that does not answer /readyz says so, while calls still wait for it', async (t) => {
  const { call, sluice } = await startServer(t)
  const answers = Promise.withResolvers<never>()
  const { stats } = sluice.engine
  sluice.engine.stats = () => answers.promise
  const ready = await call('GET', '/readyz')
  assert.deepEqual([ready.status, ready.json.status], [503, 'failed'])
  assert.match(ready.json.reasons[0], /did not answer/)
  sluice.engine.stats = stats
  assert.equal((await call('GET', '/readyz')).status, 200)
})

test('of an engine that failed /readyz answers 503 with the reason, and /metrics still shows the process', async (t) => {
  const { call, sluice } = await startServer(t)
  assert.match((await call('GET', '/metrics')).text, /^sluice_up 1$/m)
  t.mock.method(sluice.engine, 'stats', async () => {
    throw new SluiceError('ENGINE_FAILED', 'A sync failed: EIO.')
  })
  const ready = await call('GET', '/readyz')
  assert.deepEqual([ready.status, ready.json], [503, { status: 'failed', reasons: ['A sync failed: EIO.'] }])
  const metrics = await call('GET', '/metrics')
  assert.equal(metrics.status, 200)
  assert.match(metrics.text, /^sluice_up 0$/m)
  assert.match(metrics.text, /^process_cpu_seconds_total /m)
})

test('a control body or line that is nested too deep is refused before it is parsed', async (t) => {
  const { call } = await startServer(t)
  const deep = '['.repeat(1_000_000)
  const parse = t.mock.method(JSON, 'parse')
  const settle = await fetchStatus(call('POST', '/v1/leases:settle', { body: `{"items":${deep}` }))
  const line = await fetchStatus(
    call('POST', '/v1/queues/q/jobs', { body: `{"payload":${deep}`, type: 'application/x-ndjson' }),
  )
  assert.deepEqual([settle, line], [400, 400])
  assert.ok(parse.mock.calls.every(({ arguments: [text] }) => text.length < 1_000_000))
})

test('a control body over 1 MiB is refused where it is not a list of leases', async (t) => {
  const { call } = await startServer(t)
  assert.equal((await call('PUT', '/v1/queues/q', { body: `{}${' '.repeat(1_048_575)}` })).status, 413)
  const long = await call('POST', '/v1/leases:settle', { body: `{"items":[{}]${' '.repeat(1_048_575)}}` })
  assert.equal(long.status, 200)
})

test('a batch of 65,000 broken lines lets other requests in', async (t) => {
  const { call } = await startServer(t)
  let isAnswered = false
  const batch = call('POST', '/v1/queues/q/jobs', { body: 'x\n'.repeat(65_000), type: 'application/x-ndjson' }).then(
    (answer) => {
      isAnswered = true
      return answer
    },
  )
  let others = 0
  while (!isAnswered) {
    assert.equal((await call('GET', '/healthz')).status, 200)
    if (!isAnswered) others++
  }
  assert.equal((await batch).status, 400)
  assert.ok(others >= 2, `${others} answers in between`)
})

test('the bytes of a body are held until its handler has ended, although its client is gone', async (t) => {
  const { call, sluice } = await startServer(t)
  const { promise: held, resolve: release } = Promise.withResolvers<void>()
  const { promise: entered, resolve: enter } = Promise.withResolvers<void>()
  const { engine } = sluice
  const append = engine.append.bind(engine)
  t.mock.method(engine, 'append', async (requests: Parameters<typeof append>[0]) => {
    enter()
    await held
    return append(requests)
  })
  const abort = new AbortController()
  const left = call('POST', '/v1/queues/q/jobs', { body: `"${'x'.repeat(988)}"`, signal: abort.signal })
  await entered
  abort.abort()
  await assert.rejects(left)
  const bytes = async (): Promise<string | undefined> =>
    /^sluice_http_body_bytes (\d+)$/m.exec((await call('GET', '/metrics')).text)?.[1]
  // In flight is the request for the figures alone: the server knows that the client is gone.
  while (!(await call('GET', '/metrics')).text.includes('sluice_http_in_flight 1\n')) {}
  assert.equal(await bytes(), '990')
  release()
  while ((await bytes()) !== '0') {}
})

async function fetchStatus(answer: Promise<{ status: number }>): Promise<number> {
  return (await answer).status
}
