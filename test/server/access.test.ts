/** Who may what over real sockets: each row of the table of routes, with keys that may it and keys that may not. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import Fastify from 'fastify'
import { demandAccess } from '../../src/server/access/route-access.ts'
import {
  type Answer,
  type CallOptions,
  type Harness,
  readEvents,
  startServer,
  temporaryFolder,
} from '../server-harness.ts'
import { makeKey, revokeKey, type TestKey } from '../support/keys.ts'

interface Guarded extends Harness {
  readonly path: string
  key(...scopes: string[]): Promise<TestKey>
  as(key: TestKey, method: string, path: string, options?: CallOptions): Promise<Answer>
}

async function startGuarded(t: TestContext): Promise<Guarded> {
  const path = join(await temporaryFolder(t), 'keys.json')
  await makeKey(path, ['read:none'])
  const harness = await startServer(t, { keys: path })
  return {
    ...harness,
    path,
    async key(...scopes) {
      const key = await makeKey(path, scopes)
      // The server looks at the file by itself; this waits until it has.
      while ((await harness.call('GET', '/session', { headers: key.headers })).status !== 200) {}
      return key
    },
    as: (key, method, url, options = {}) =>
      harness.call(method, url, { ...options, headers: { ...options.headers, ...key.headers } }),
  }
}

test('a route that does not say what it asks of its caller does not start', () => {
  const app = Fastify()
  demandAccess(app)
  assert.throws(() => app.get('/x', async () => ''), /GET \/x does not say/)
  app.get('/y', { config: { access: 'open' } }, async () => '')
})

test('without a key only health, the page and the session answer, whatever else is wrong with the call', async (t) => {
  const { call } = await startGuarded(t)
  for (const [method, path] of [
    ['GET', '/metrics'],
    ['GET', '/v1/queues'],
    ['GET', '/v1/topics'],
    ['GET', '/v1/queues/q'],
    ['PUT', '/v1/queues/q'],
    ['POST', '/v1/queues/q/jobs'],
    ['POST', '/v1/queues/q/leases'],
    ['POST', '/v1/queues/q:pause'],
    ['GET', '/v1/queues/q/dead'],
    ['POST', '/v1/queues/q/dead:redrive'],
    ['GET', '/v1/jobs/q:abcdef:0'],
    ['DELETE', '/v1/jobs/nonsense'],
    ['POST', '/v1/leases:settle'],
    ['POST', '/v1/leases:extend'],
    ['GET', '/v1/topics/t/messages'],
    ['POST', '/v1/topics/t/messages'],
    ['PUT', '/v1/topics/t/groups/g'],
    ['PATCH', '/v1/topics/t/groups/g'],
    ['DELETE', '/v1/topics/t/groups/g'],
    ['GET', '/v1/engine'],
    ['POST', '/v1/engine/append'],
    ['GET', '/session'],
    ['POST', '/session'],
  ] as const) {
    const answer = await call(
      method,
      path,
      method === 'POST' && path !== '/session' ? { body: '<x>', type: 'text/xml' } : {},
    )
    assert.deepEqual([method, path, answer.status, answer.json.code], [method, path, 401, 'UNAUTHENTICATED'])
    assert.equal(answer.headers.get('www-authenticate'), 'Bearer realm="sluice"')
  }
  for (const path of ['/healthz', '/readyz', '/', '/dashboard.js', '/dashboard.css'])
    assert.equal((await call('GET', path)).status, 200, path)
})

test('a credential of another form, of another server, or nearly right is refused, and no answer shows it', async (t) => {
  const { call, key } = await startGuarded(t)
  const { text } = await key('admin')
  const other = await makeKey(join(await temporaryFolder(t), 'other.json'), ['admin'])
  const flipped = text.slice(0, -1) + (text.endsWith('A') ? 'B' : 'A')
  for (const authorization of [
    'Bearer',
    'Bearer ',
    `Basic ${text}`,
    text,
    `Bearer ${text}x`,
    `Bearer ${text.slice(0, -1)}`,
    `Bearer ${flipped}`,
    `Bearer ${text.toUpperCase()}`,
    `Bearer ${other.text}`,
    `Bearer ${text}, Bearer ${text}`,
    `Bearer ${'x'.repeat(8_000)}`,
  ]) {
    const answer = await call('GET', '/v1/queues', { headers: { authorization } })
    assert.deepEqual([answer.status, answer.json.code], [401, 'UNAUTHENTICATED'], authorization)
    assert.ok(!answer.text.includes(text.slice(-20, -1)))
  }
  assert.equal((await call('GET', '/v1/queues', { headers: { authorization: `bearer  ${text}` } })).status, 200)
})

test('each scope does what it says on the names of its pattern, and nothing else', async (t) => {
  const { key, as } = await startGuarded(t)
  const admin = await key('admin')
  for (const path of ['/v1/queues/a.q', '/v1/queues/b.q', '/v1/topics/a.t', '/v1/topics/b.t'])
    assert.equal((await as(admin, 'PUT', path)).status, 201)
  for (const topic of ['a.t', 'b.t']) assert.equal((await as(admin, 'PUT', `/v1/topics/${topic}/groups/g`)).status, 201)
  const json = { type: 'application/json' }
  const calls = [
    ['publish', 'POST', '/v1/queues/N.q/jobs', { body: 1 }],
    ['publish', 'POST', '/v1/topics/N.t/messages', { body: 1 }],
    ['publish', 'POST', '/v1/queues/N.q/jobs', { body: '{"payload":1}\n', type: 'application/x-ndjson' }],
    ['consume', 'POST', '/v1/queues/N.q/leases', { body: '{}', ...json }],
    ['consume', 'POST', '/v1/topics/N.t/groups/g/leases', { body: '{}', ...json }],
    ['consume', 'PUT', '/v1/topics/N.t/groups/g', {}],
    ['read', 'GET', '/v1/topics/N.t/messages', {}],
    ['read', 'GET', '/v1/queues/N.q/dead', {}],
    ['read', 'GET', '/v1/topics/N.t/groups/g/dead', {}],
    ['any', 'GET', '/v1/queues/N.q', {}],
    ['any', 'GET', '/v1/topics/N.t', {}],
    ['admin', 'PUT', '/v1/queues/N.q', {}],
    ['admin', 'PUT', '/v1/topics/N.t', {}],
    ['admin', 'POST', '/v1/queues/N.q:pause', {}],
    ['admin', 'POST', '/v1/queues/N.q:resume', {}],
    ['admin', 'POST', '/v1/queues/N.q/dead:redrive', {}],
    ['admin', 'POST', '/v1/queues/N.q/dead:discard', {}],
    ['admin', 'POST', '/v1/topics/N.t/groups/g:pause', {}],
    ['admin', 'PATCH', '/v1/topics/N.t/groups/g', { body: { from: 'latest' } }],
  ] as const
  for (const scope of ['publish', 'consume', 'read', 'admin'] as const) {
    const caller = await key(`${scope}:a.*`)
    for (const [needs, method, path, options] of calls) {
      const own = await as(caller, method, path.replace('N', 'a'), options)
      const isAllowed = needs === scope || needs === 'any' || scope === 'admin'
      assert.equal(own.status < 300, isAllowed, `${scope} ${method} ${path}: ${own.status} ${own.text}`)
      if (!isAllowed)
        assert.deepEqual(
          [own.json.code, own.json.scope],
          ['FORBIDDEN', `${needs}:${path.split('/')[3]?.split(':')[0]?.replace('N', 'a')}`],
        )
      const others = await as(caller, method, path.replace('N', 'b'), options)
      assert.deepEqual([others.status, others.json.code], [403, 'FORBIDDEN'], `${scope} ${method} ${path}`)
    }
    const { queues } = (await as(caller, 'GET', '/v1/queues')).json
    const { topics } = (await as(caller, 'GET', '/v1/topics')).json
    assert.deepEqual(
      [...queues, ...topics].map(({ name }: { name: string }) => name),
      ['a.q', 'a.t'],
    )
    assert.equal((await as(caller, 'GET', '/metrics')).status, 403)
  }
  assert.equal((await as(await key('read'), 'GET', '/metrics')).status, 200)
})

test('a refusal for want of a scope is the same whether or not there is such a name, and makes none', async (t) => {
  const { key, as } = await startGuarded(t)
  const admin = await key('admin')
  const caller = await key('admin:mine')
  await as(admin, 'PUT', '/v1/queues/there')
  for (const [method, path] of [
    ['GET', '/v1/queues/N'],
    ['POST', '/v1/queues/N/jobs'],
    ['POST', '/v1/queues/N/leases'],
    ['PUT', '/v1/queues/N'],
  ] as const) {
    const [there, not] = await Promise.all(
      ['there', 'notok'].map((name) =>
        as(caller, method, path.replace('N', name), method === 'POST' ? { body: 1 } : {}),
      ),
    )
    assert.equal(there?.text.replaceAll('there', 'X'), not?.text.replaceAll('notok', 'X'))
    assert.equal(not?.status, 403)
  }
  assert.deepEqual(
    (await as(admin, 'GET', '/v1/queues')).json.queues.map(({ name }: { name: string }) => name),
    ['there'],
  )
})

test('a job of a queue that the key does not see is not found, as one that is not there', async (t) => {
  const { key, as } = await startGuarded(t)
  const owner = await key('publish:a', 'consume:a')
  const stranger = await key('admin:b')
  const reader = await key('read:a')
  const { id } = (await as(owner, 'POST', '/v1/queues/a/jobs', { body: 1 })).json
  const missing = id.replace(/\d+$/, '99')
  for (const [method, headers] of [
    ['GET', {}],
    ['GET', { accept: 'text/event-stream' }],
    ['DELETE', {}],
  ] as const) {
    const hidden = await as(stranger, method, `/v1/jobs/${id}`, { headers })
    const absent = await as(owner, method, `/v1/jobs/${missing}`, { headers })
    assert.deepEqual([hidden.status, hidden.json.code], [404, 'JOB_NOT_FOUND'])
    assert.equal(hidden.text.replaceAll(id, 'X'), absent.text.replaceAll(missing, 'X'))
  }
  assert.equal((await as(reader, 'GET', `/v1/jobs/${id}`)).json.status, 'queued')
  assert.equal((await as(reader, 'DELETE', `/v1/jobs/${id}`)).json.code, 'FORBIDDEN')
  assert.equal((await as(owner, 'DELETE', `/v1/jobs/${id}`)).json.status, 'cancelled')
})

test('a lease is of no use with another key, be it one of the same queue, and the rightful one goes on', async (t) => {
  const { key, as } = await startGuarded(t)
  const [owner, thief, stranger] = [
    await key('publish:q', 'consume:q'),
    await key('admin:q'),
    await key('consume:other'),
  ]
  await as(owner, 'POST', '/v1/queues/q/jobs', { body: 1 })
  const { lease } = (await as(owner, 'POST', '/v1/queues/q/leases', { body: {} })).json.leases[0]
  for (const caller of [thief, stranger]) {
    for (const [path, item] of [
      ['/v1/leases:settle', { lease, outcome: 'done' }],
      ['/v1/leases:extend', { lease }],
    ] as const) {
      const { outcomes } = (await as(caller, 'POST', path, { body: { items: [item] } })).json
      assert.equal(outcomes[0].problem.code, 'LEASE_LOST')
    }
  }
  const { outcomes } = (await as(owner, 'POST', '/v1/leases:settle', { body: { items: [{ lease, outcome: 'done' }] } }))
    .json
  assert.deepEqual(outcomes, [{ outcome: 'settled' }])
})

test('a settle publishes nothing where its key may not, and makes no queue there', async (t) => {
  const { key, as } = await startGuarded(t)
  const admin = await key('admin')
  const worker = await key('consume:q', 'publish:out')
  await as(admin, 'POST', '/v1/queues/q/jobs', { body: 1 })
  const { lease } = (await as(worker, 'POST', '/v1/queues/q/leases', { body: {} })).json.leases[0]
  const settle = async (queue: string) =>
    (
      await as(worker, 'POST', '/v1/leases:settle', {
        body: { items: [{ lease, outcome: 'done', outputs: [{ queue, payload: 1 }] }] },
      })
    ).json.outcomes[0]
  assert.equal((await settle('secret')).problem.code, 'FORBIDDEN')
  assert.equal((await as(admin, 'GET', '/v1/queues/secret')).status, 404)
  assert.deepEqual(await settle('out'), { outcome: 'settled' })
})

test('an idempotency key is its credential’s own: another one with it stores its own job', async (t) => {
  const { key, as } = await startGuarded(t)
  const [one, two] = [await key('publish:q'), await key('publish:q')]
  const headers = { 'idempotency-key': 'k' }
  const first = (await as(one, 'POST', '/v1/queues/q/jobs', { body: 1, headers })).json
  const again = (await as(one, 'POST', '/v1/queues/q/jobs', { body: 1, headers })).json
  const other = await as(two, 'POST', '/v1/queues/q/jobs', { body: 2, headers })
  assert.deepEqual([again.id, again.duplicate], [first.id, true])
  assert.deepEqual([other.status, other.json.duplicate], [202, false])
  const line = '{"payload":2,"idempotencyKey":"k"}\n'
  const batch = (caller: TestKey) =>
    as(caller, 'POST', '/v1/queues/q/jobs', { body: line, type: 'application/x-ndjson' })
  assert.equal(JSON.parse((await batch(two)).text).id, other.json.id)
  assert.equal((await batch(one)).json.code, 'IDEMPOTENCY_MISMATCH')
})

test('a key that is revoked is refused without a restart, and its stream and its long poll end', async (t) => {
  const { key, as, path, url } = await startGuarded(t)
  const [caller, other] = [await key('consume:q', 'read:t', 'publish:t'), await key('consume:q')]
  await as(caller, 'POST', '/v1/topics/t/messages', { body: 1 })
  const stream = readEvents(`${url}/v1/topics/t/messages`, caller.headers)
  assert.equal((await stream.next()).value?.name, 'message')
  const poll = as(caller, 'POST', '/v1/queues/q/leases', { body: { waitMs: 60_000 } })
  const kept = as(other, 'POST', '/v1/queues/q/leases', { body: { waitMs: 60_000 } })
  while (!(await as(await key('read'), 'GET', '/metrics')).text.includes('sluice_http_waiting 3')) {}
  await revokeKey(path, caller.id)
  assert.deepEqual((await poll).json, { leases: [] })
  for await (const { name } of stream) assert.equal(name, 'comment')
  assert.equal((await as(caller, 'GET', '/v1/queues')).status, 401)
  const publisher = await key('publish:q')
  await as(publisher, 'POST', '/v1/queues/q/jobs', { body: 7 })
  assert.equal((await kept).json.leases[0].payload, 7)
})

test('the first key that is made closes a server that runs', async (t) => {
  const path = join(await temporaryFolder(t), 'keys.json')
  const { call } = await startServer(t, { keys: path })
  assert.equal((await call('POST', '/v1/queues/q/jobs', { body: 1 })).status, 202)
  const { headers } = await makeKey(path, ['admin'])
  while ((await call('GET', '/v1/queues')).status !== 401) {}
  assert.equal((await call('GET', '/v1/queues/q', { headers })).json.depth.messages, 1)
})
