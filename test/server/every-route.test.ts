/** Every call of the OpenAPI document, those to come as well: closed without a key, and silent about what a key may not see. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { call, startServer, temporaryFolder } from '../server-harness.ts'
import { makeKey } from '../support/keys.ts'

interface Listed {
  readonly method: string
  readonly path: string
  readonly access: string
  readonly types: readonly string[]
}

const PUBLIC = ['/', '/dashboard.css', '/dashboard.js', '/healthz', '/openapi.json', '/readyz', '/session']

async function listCalls(url: string): Promise<readonly Listed[]> {
  const { paths } = (await call(url, 'GET', '/openapi.json')).json as {
    paths: Record<string, Record<string, { 'x-sluice-access': string; requestBody?: { content: object } }>>
  }
  return Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { 'x-sluice-access': access, requestBody }]) => ({
      method: method.toUpperCase(),
      path,
      access,
      types: Object.keys(requestBody?.content ?? {}),
    })),
  )
}

test('of all calls only health, the dashboard’s files, the document and the session answer without a key', async (t) => {
  const keys = join(await temporaryFolder(t), 'keys.json')
  await makeKey(keys, ['admin'])
  const { url } = await startServer(t, { keys })
  const calls = await listCalls(url)
  assert.deepEqual(
    [...new Set(calls.filter(({ access }) => access === 'nothing').map(({ path }) => path))].sort(),
    PUBLIC,
  )
  for (const { method, path, access } of calls) {
    if (access === 'nothing') continue
    const filled = path.replace(/\{\w+\}/g, 'x')
    const { status, json } = await call(url, method, filled)
    assert.deepEqual([method, path, status, json.code], [method, path, 401, 'UNAUTHENTICATED'])
  }
})

test('no call tells or changes anything of names that its key does not see', async (t) => {
  const keys = join(await temporaryFolder(t), 'keys.json')
  const admin = await makeKey(keys, ['admin'])
  const stranger = await makeKey(keys, ['admin:mine'])
  const { url, sluice } = await startServer(t, { keys })
  const as = admin.headers
  const { id } = (
    await call(url, 'POST', '/v1/queues/hiddenq/jobs', {
      body: 'TOPSECRET',
      headers: as,
      type: 'application/octet-stream',
    })
  ).json
  await call(url, 'POST', '/v1/topics/hiddent/messages', { body: { TOPSECRET: 1 }, headers: as })
  await call(url, 'PUT', '/v1/topics/hiddent/groups/hiddeng', { body: {}, headers: as })
  await call(url, 'PUT', '/v1/queues/hiddenq/schedules/hiddens', {
    body: { everyMs: 86_400_000, payload: 'TOPSECRET' },
    headers: as,
  })
  await call(url, 'POST', '/v1/queues/mine/jobs', { body: 1, headers: as })
  const before = JSON.stringify((await sluice.stats()).topics.filter(({ name }) => name.startsWith('hidden')))
  const values: Record<string, string> = {
    queue: 'hiddenq',
    topic: 'hiddent',
    group: 'hiddeng',
    schedule: 'hiddens',
    id,
    method: 'stats',
  }
  let refused = 0
  for (const { method, path, access, types } of await listCalls(url)) {
    const filled = path.replace(/\{(\w+)\}/g, (_whole, name: string) => {
      assert.ok(values[name] !== undefined, `say what {${name}} of ${path} is`)
      return encodeURIComponent(values[name])
    })
    for (const type of [undefined, ...types]) {
      const body = type === undefined ? {} : { body: type === 'application/json' ? '{}' : '{"payload":1}\n', type }
      const { status, text } = await call(url, method, filled, { headers: stranger.headers, ...body })
      const isNamed = path.includes('{queue}') || path.includes('{topic}') || path.includes('{id}')
      const where = `${method} ${filled} ${type}: ${status} ${text.slice(0, 200)}`
      if (isNamed || /on every name/.test(access)) {
        assert.ok(status === 403 || status === 404, where)
        refused++
        // Its own words may stand in the refusal, and nothing else.
        assert.doesNotMatch(text, /TOPSECRET|hiddens/, where)
      } else assert.doesNotMatch(text, /TOPSECRET|hidden[qtgs]/, where)
    }
  }
  assert.ok(refused > 20)
  const after = JSON.stringify((await sluice.stats()).topics.filter(({ name }) => name.startsWith('hidden')))
  assert.equal(after.replace(/"waitMs":.*?\]/g, ''), before.replace(/"waitMs":.*?\]/g, ''))
})
