import assert from 'node:assert/strict'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { COOKIE, SESSION_MS, Sessions } from '../../src/server/access/sessions.ts'
import { readEvents, startServer, temporaryFolder } from '../server-harness.ts'
import { makeKey, revokeKey } from '../support/keys.ts'

async function startGuarded(t: TestContext) {
  const path = join(await temporaryFolder(t), 'keys.json')
  const key = await makeKey(path, ['read:q', 'publish:q'])
  return { ...(await startServer(t, { keys: path })), path, key }
}

test('a key is exchanged for a cookie that only this host, its pages and no script get, and that ends', async (t) => {
  const { call, key } = await startGuarded(t)
  const begun = await call('POST', '/session', { headers: key.headers })
  assert.equal(begun.status, 201)
  assert.deepEqual(begun.json, {
    guarded: true,
    by: 'key',
    key: { id: key.id, name: 'test', scopes: ['read:q', 'publish:q'] },
  })
  const setCookie = begun.headers.get('set-cookie') ?? ''
  assert.match(
    setCookie,
    /^__Host-sluice=[A-Za-z0-9_-]{43}; Path=\/; Secure; HttpOnly; SameSite=Strict; Max-Age=43200$/,
  )
  assert.equal(begun.headers.get('cache-control'), 'no-store')
  const cookie = setCookie.split(';')[0] as string
  assert.ok(!setCookie.includes(key.text.slice(20)))
  const shown = await call('GET', '/session', { headers: { cookie: `a=b; ${cookie}; c=d` } })
  assert.equal(shown.json.by, 'session')
  assert.deepEqual((await call('GET', '/v1/queues', { headers: { cookie } })).json, { queues: [], next: null })
  // It may what its key may.
  assert.equal((await call('GET', '/v1/queues/other', { headers: { cookie } })).status, 403)
  const ended = await call('DELETE', '/session', { headers: { cookie } })
  assert.deepEqual([ended.status, /Max-Age=0$/.test(ended.headers.get('set-cookie') ?? '')], [204, true])
  assert.equal((await call('GET', '/v1/queues', { headers: { cookie } })).status, 401)
})

test('a session begins with a key only, and not where nobody needs one', async (t) => {
  const { call, key } = await startGuarded(t)
  const cookie = ((await call('POST', '/session', { headers: key.headers })).headers.get('set-cookie') ?? '').split(
    ';',
  )[0] as string
  assert.equal((await call('POST', '/session', { headers: { cookie, 'sec-fetch-site': 'same-origin' } })).status, 401)
  assert.equal((await call('POST', '/session')).status, 401)
  const open = await startServer(t)
  const begun = await open.call('POST', '/session')
  assert.deepEqual([begun.json, begun.headers.get('set-cookie')], [{ guarded: false }, null])
})

test('a write by a session must say that a page of this server made it, and no other page may use it', async (t) => {
  const { call, key, url } = await startGuarded(t)
  const cookie = ((await call('POST', '/session', { headers: key.headers })).headers.get('set-cookie') ?? '').split(
    ';',
  )[0] as string
  const add = async (headers: Record<string, string>) =>
    (await call('POST', '/v1/queues/q/jobs', { body: 1, headers: { cookie, ...headers } })).json.code
  // fetch sends `sec-fetch-mode` of itself, but neither of these two.
  assert.equal(await add({}), 'FORBIDDEN_ORIGIN')
  assert.equal(await add({ origin: 'https://evil.example' }), 'FORBIDDEN_ORIGIN')
  assert.equal(await add({ origin: url, 'sec-fetch-site': 'cross-site' }), 'FORBIDDEN_ORIGIN')
  assert.equal(await add({ 'sec-fetch-site': 'none' }), 'FORBIDDEN_ORIGIN')
  assert.equal((await call('GET', '/v1/queues', { headers: key.headers })).json.queues.length, 0)
  assert.equal(await add({ origin: url }), undefined)
  assert.equal(await add({ 'sec-fetch-site': 'same-origin' }), undefined)
})

test('a key that is revoked ends its sessions, with no restart', async (t) => {
  const { call, key, path } = await startGuarded(t)
  const cookie = ((await call('POST', '/session', { headers: key.headers })).headers.get('set-cookie') ?? '').split(
    ';',
  )[0] as string
  assert.equal((await call('GET', '/v1/queues', { headers: { cookie } })).status, 200)
  await revokeKey(path, key.id)
  while ((await call('GET', '/v1/queues', { headers: { cookie } })).status !== 401) {}
})

test('signing out ends the streams of that session, and those of others go on', async (t) => {
  const { call, key, url } = await startGuarded(t)
  await call('POST', '/v1/topics/q/messages', { body: 1, headers: key.headers })
  const cookies = await Promise.all(
    [1, 2].map(
      async () =>
        ((await call('POST', '/session', { headers: key.headers })).headers.get('set-cookie') ?? '').split(
          ';',
        )[0] as string,
    ),
  )
  const [one, two] = cookies.map((cookie) => readEvents(`${url}/v1/topics/q/messages`, { cookie })) as [
    AsyncGenerator,
    AsyncGenerator,
  ]
  await Promise.all([one.next(), two.next()])
  assert.equal((await call('DELETE', '/session', { headers: { cookie: cookies[0] as string } })).status, 204)
  for await (const _event of one) {
  }
  await call('POST', '/v1/topics/q/messages', { body: 2, headers: key.headers })
  for await (const { data } of two as AsyncGenerator<{ data: { payload: number } | null }>)
    if (data?.payload === 2) break
})

test('cookies that are not sessions are as if there were none', async (t) => {
  const { call } = await startGuarded(t)
  for (const cookie of [
    `${COOKIE}=`,
    `${COOKIE}=${'A'.repeat(43)}`,
    `${COOKIE}=${'A'.repeat(5_000)}`,
    `${COOKIE}`,
    `x${COOKIE}=${'A'.repeat(43)}`,
    ';;;=',
    '__proto__=1',
  ])
    assert.equal((await call('GET', '/v1/queues', { headers: { cookie } })).json.code, 'UNAUTHENTICATED', cookie)
})

test('sessions end by time, with their key, and are bounded for each key and in all; the oldest make room', () => {
  let nowMs = 0
  const sessions = new Sessions(() => nowMs)
  const begin = (keyId: string, keyEndsAtMs: number | null = null) =>
    sessions.begin(keyId, keyEndsAtMs).setCookie.split(';')[0] as string
  const first = begin('a')
  assert.equal(sessions.find(first)?.keyId, 'a')
  const short = begin('b', 5_000)
  nowMs = 5_000
  assert.deepEqual([sessions.find(short), sessions.find(first)?.keyId], [null, 'a'])
  for (let i = 0; i < 50; i++) begin('a')
  assert.equal(sessions.find(first), null)
  for (let i = 0; i < 3_000; i++) begin(`k${i}`)
  assert.ok(sessions.size <= 1_000)
  const last = begin('c')
  nowMs += SESSION_MS
  assert.equal(sessions.find(last), null)
  begin('d')
  assert.equal(sessions.size, 1)
})

test('why a server cannot store is told to those with a key only', async (t) => {
  const { call, key, sluice } = await startGuarded(t)
  t.mock.method(sluice.engine, 'stats', async () => {
    throw new Error('boom')
  })
  assert.deepEqual((await call('GET', '/readyz')).json, { status: 'failed', reasons: [] })
  assert.deepEqual((await call('GET', '/readyz', { headers: key.headers })).json.reasons, [
    'The engine does not answer.',
  ])
})
