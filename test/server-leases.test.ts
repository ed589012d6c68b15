import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { call as callUrl, startServer, temporaryFolder } from './server-harness.ts'

const MAIN = fileURLToPath(new URL('../src/cli/main.ts', import.meta.url))

interface Lease {
  readonly lease: string
  readonly id: string
  readonly attempt: number
  readonly fence: number
  readonly expiresAtMs: number
  readonly payload: unknown
}

test('a lease names its job, its attempt and its end, and settling it ends the job', async (t) => {
  const { call } = await startServer(t)
  const { json: added } = await call('POST', '/v1/queues/q/jobs', { body: { a: 1 }, headers: { 'sluice-key': 'k' } })
  const { json } = await call('POST', '/v1/queues/q/leases', { body: { max: 5, leaseMs: 60_000 } })
  const [lease] = json.leases
  assert.equal(json.leases.length, 1)
  assert.deepEqual([lease.id, lease.queue, lease.attempt, lease.key, lease.payload], [added.id, 'q', 1, 'k', { a: 1 }])
  assert.ok(lease.expiresAtMs > Date.now() + 50_000)
  assert.ok(Number.isSafeInteger(lease.fence))
  const settled = await call('POST', '/v1/leases:settle', {
    body: { items: [{ lease: lease.lease, outcome: 'done', result: { n: 1 } }] },
  })
  assert.deepEqual(settled.json, { outcomes: [{ outcome: 'settled' }] })
  const { json: job } = await call('GET', `/v1/jobs/${added.id}`)
  assert.deepEqual([job.status, job.result, job.attempts], ['completed', { n: 1 }, 1])
})

test('a large number in a result is kept digit by digit', async (t) => {
  const { call } = await startServer(t)
  const { json: added } = await call('POST', '/v1/queues/q/jobs', { body: 1 })
  const { json } = await call('POST', '/v1/queues/q/leases', { body: {} })
  const body = `{"items": [ {"lease": "${json.leases[0].lease}", "result": {"big": 12345678901234567890, "__proto__": 1}, "outcome": "done"} ]}`
  await call('POST', '/v1/leases:settle', { body, type: 'application/json' })
  const { text } = await call('GET', `/v1/jobs/${added.id}`)
  assert.ok(text.includes('"result":{"big": 12345678901234567890, "__proto__": 1}'), text)
})

test('a call for leases waits until there is a job', async (t) => {
  const { call } = await startServer(t)
  const waiting = call('POST', '/v1/queues/q/leases', { body: { waitMs: 30_000 } })
  await call('POST', '/v1/queues/q/jobs', { body: '"come"' })
  assert.equal((await waiting).json.leases[0].payload, 'come')
})

test('each item of a settle has its own outcome, in its place', async (t) => {
  const { call } = await startServer(t)
  for (let n = 0; n < 6; n++) await call('POST', '/v1/queues/q/jobs', { body: n })
  const { json } = await call('POST', '/v1/queues/q/leases', { body: { max: 6 } })
  const leases: Lease[] = json.leases
  const of = (n: number) => (leases[n] as Lease).lease
  const items = [
    { lease: of(0), outcome: 'done' },
    { lease: of(1), outcome: 'retry', error: 'later', delayMs: 3_600_000 },
    { lease: of(2), outcome: 'release' },
    { lease: of(3), outcome: 'dead', error: 'never' },
    { lease: 'forged', outcome: 'done' },
    { lease: of(4), outcome: 'finish' },
    { lease: of(4), outcome: 'done', reslt: 1 },
    { lease: of(0), outcome: 'done' },
    { lease: of(5), outcome: 'release', error: 'what for' },
  ]
  const settled = await call('POST', '/v1/leases:settle', { body: { items } })
  assert.equal(settled.status, 200)
  assert.deepEqual(
    settled.json.outcomes.map(
      ({ outcome, problem }: { outcome: string; problem?: { code: string } }) => problem?.code ?? outcome,
    ),
    [
      'settled',
      'settled',
      'settled',
      'settled',
      'BAD_REQUEST',
      'INVALID_OPTION',
      'INVALID_OPTION',
      'LEASE_LOST',
      'INVALID_OPTION',
    ],
  )
  assert.match(settled.json.outcomes[6].problem.detail, /reslt.*result/)
  const statuses = await Promise.all(leases.map(async ({ id }) => (await call('GET', `/v1/jobs/${id}`)).json.status))
  assert.deepEqual(statuses, ['completed', 'retrying', 'retrying', 'failed', 'active', 'active'])
})

test('a lease that was given up unstarted uses up no attempt, and what it left behind is stale', async (t) => {
  const { call } = await startServer(t)
  await call('PUT', '/v1/queues/q', { body: { attempts: 1 } })
  await call('POST', '/v1/queues/q/jobs', { body: 1 })
  const take = async (): Promise<Lease> => (await call('POST', '/v1/queues/q/leases', { body: {} })).json.leases[0]
  const first = await take()
  await call('POST', '/v1/leases:settle', { body: { items: [{ lease: first.lease, outcome: 'release' }] } })
  const second = await take()
  assert.equal(second.id, first.id)
  assert.ok(second.fence > first.fence)
  const settle = (lease: string) => call('POST', '/v1/leases:settle', { body: { items: [{ lease, outcome: 'done' }] } })
  assert.equal((await settle(first.lease)).json.outcomes[0].problem.code, 'LEASE_LOST')
  assert.equal((await settle(second.lease)).json.outcomes[0].outcome, 'settled')
})

test('an extended lease outlives its first end, one that is not extended is handed out again', async (t) => {
  const { call } = await startServer(t)
  for (const n of [1, 2]) await call('POST', '/v1/queues/q/jobs', { body: n })
  const take = async (body: object): Promise<Lease> =>
    (await call('POST', '/v1/queues/q/leases', { body })).json.leases[0]
  const kept = await take({ leaseMs: 1_000 })
  const left = await take({ leaseMs: 100 })
  const extended = await call('POST', '/v1/leases:extend', {
    body: { items: [{ lease: kept.lease, leaseMs: 60_000, progress: { at: 1 } }] },
  })
  assert.equal(extended.json.outcomes[0].outcome, 'extended')
  assert.ok(extended.json.outcomes[0].expiresAtMs > kept.expiresAtMs + 50_000)
  assert.deepEqual((await call('GET', `/v1/jobs/${kept.id}`)).json.progress, { at: 1 })
  const again = await take({ waitMs: 30_000 })
  assert.deepEqual([again.id, again.attempt], [left.id, 2])
  const settled = await call('POST', '/v1/leases:settle', {
    body: {
      items: [
        { lease: kept.lease, outcome: 'done' },
        { lease: left.lease, outcome: 'done' },
      ],
    },
  })
  assert.deepEqual(
    settled.json.outcomes.map(({ problem }: { problem?: { code: string } }) => problem?.code),
    [undefined, 'LEASE_LOST'],
  )
  const lost = await call('POST', '/v1/leases:extend', {
    body: { items: [{ lease: left.lease }, { lease: again.lease }] },
  })
  assert.deepEqual(
    lost.json.outcomes.map(
      ({ outcome, problem }: { outcome: string; problem?: { code: string } }) => problem?.code ?? outcome,
    ),
    ['LEASE_LOST', 'extended'],
  )
})

test('what a worker publishes with its settle appears with it, in queues and topics', async (t) => {
  const { call } = await startServer(t)
  await call('POST', '/v1/queues/in/jobs', { body: 1 })
  const { json } = await call('POST', '/v1/queues/in/leases', { body: {} })
  const outputs = [
    { queue: 'out', payload: { big: 1 }, key: 'k' },
    { topic: 'news', payload: 'done', headers: { a: 'b' } },
    { queue: 'out', payloadBase64: 'AAE=', delayMs: 3_600_000 },
  ]
  const settled = await call('POST', '/v1/leases:settle', {
    body: { items: [{ lease: json.leases[0].lease, outcome: 'done', outputs }] },
  })
  assert.deepEqual(settled.json, { outcomes: [{ outcome: 'settled' }] })
  const { json: out } = await call('POST', '/v1/queues/out/leases', { body: { max: 9 } })
  assert.deepEqual(
    out.leases.map(({ payload, key }: Record<string, unknown>) => [payload, key]),
    [[{ big: 1 }, 'k']],
  )
  assert.equal((await call('GET', '/v1/queues/out')).json.scheduled, 1)
  const { json: page } = await call('GET', '/v1/topics/news/messages')
  assert.deepEqual([page.messages[0].payload, page.messages[0].headers], ['done', { a: 'b' }])
})

test('a settle whose output finds no room has no effect and says when to try again', async (t) => {
  const { call } = await startServer(t)
  await call('PUT', '/v1/queues/tiny', { body: { limit: { messages: 0 } } })
  await call('POST', '/v1/queues/in/jobs', { body: 1 })
  const { json } = await call('POST', '/v1/queues/in/leases', { body: {} })
  const [{ lease, id }] = json.leases
  const settle = (outputs: object[]) =>
    call('POST', '/v1/leases:settle', { body: { items: [{ lease, outcome: 'done', outputs }] } })
  const { problem } = (await settle([{ queue: 'tiny', payload: 1 }])).json.outcomes[0]
  assert.equal(problem.code, 'QUEUE_FULL')
  assert.ok(problem.retryAfterMs > 0)
  assert.equal((await call('GET', `/v1/jobs/${id}`)).json.status, 'active')
  assert.equal((await settle([{ queue: 'other', payload: 1 }])).json.outcomes[0].outcome, 'settled')
})

test('a token with another secret, offset or fence is worth nothing', async (t) => {
  const { call } = await startServer(t)
  for (const n of [1, 2]) await call('POST', '/v1/queues/q/jobs', { body: n })
  const { json } = await call('POST', '/v1/queues/q/leases', { body: {} })
  const fields = Buffer.from(json.leases[0].lease, 'base64url').toString('latin1').split('|')
  const forge = (at: number, value: string) =>
    Buffer.from(fields.with(at, value).join('|'), 'latin1').toString('base64url')
  const items = [forge(5, 'A'.repeat(22)), forge(4, '1'), forge(3, '999'), forge(1, 'none')].map((lease) => ({
    lease,
    outcome: 'done',
  }))
  const settled = await call('POST', '/v1/leases:settle', { body: { items } })
  assert.deepEqual(
    settled.json.outcomes.map(({ problem }: { problem: { code: string } }) => problem.code),
    ['LEASE_LOST', 'LEASE_LOST', 'LEASE_LOST', 'LEASE_LOST'],
  )
  assert.equal((await call('GET', `/v1/jobs/${json.leases[0].id}`)).json.status, 'active')
})

test('a client that goes away while it waits for leases takes none with it', async (t) => {
  const { call } = await startServer(t)
  const abort = new AbortController()
  const gone = call('POST', '/v1/queues/q/leases', { body: { waitMs: 30_000 }, signal: abort.signal })
  await call('GET', '/v1/queues')
  abort.abort()
  await assert.rejects(gone)
  await call('POST', '/v1/queues/q/jobs', { body: 1 })
  const { json } = await call('POST', '/v1/queues/q/leases', { body: { waitMs: 30_000 } })
  assert.deepEqual([json.leases[0].payload, json.leases[0].attempt], [1, 1])
})

test('a lease survives a server that is killed: the next one settles it', async (t) => {
  const folder = await temporaryFolder(t)
  const first = await startProcess(t, folder)
  const { json: added } = await callUrl(first.url, 'POST', '/v1/queues/q/jobs', { body: 1 })
  const { json } = await callUrl(first.url, 'POST', '/v1/queues/q/leases', { body: { leaseMs: 600_000 } })
  first.child.kill('SIGKILL')
  await once(first.child, 'exit')
  const second = await startProcess(t, folder)
  const { json: held } = await callUrl(second.url, 'POST', '/v1/queues/q/leases', { body: {} })
  assert.deepEqual(held.leases, [], 'the job is still held')
  const items = [{ lease: json.leases[0].lease, outcome: 'done', result: 'over the restart' }]
  const settled = await callUrl(second.url, 'POST', '/v1/leases:settle', { body: { items } })
  assert.deepEqual(settled.json, { outcomes: [{ outcome: 'settled' }] })
  const { json: job } = await callUrl(second.url, 'GET', `/v1/jobs/${added.id}`)
  assert.deepEqual([job.status, job.result], ['completed', 'over the restart'])
})

/** A server in a process of its own. */
async function startProcess(t: TestContext, folder: string) {
  const child = spawn(process.execPath, [MAIN, 'serve', '--port', '0', '--data', folder, '--json'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.after(() => child.kill('SIGKILL'))
  const [line] = await once(createInterface({ input: child.stdout }), 'line')
  return { child, url: JSON.parse(line).url as string }
}
