import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startServer } from './server-harness.ts'

test('declaring a queue answers 201, then 200, with the settings in force', async (t) => {
  const { call } = await startServer(t)
  const first = await call('PUT', '/v1/queues/q', { body: { limit: { messages: 7 }, attempts: 2 } })
  assert.equal(first.status, 201)
  assert.deepEqual(
    [first.json.queue, first.json.created, first.json.settings.limit.messages, first.json.settings.attempts],
    ['q', true, 7, 2],
  )
  const again = await call('PUT', '/v1/queues/q')
  assert.equal(again.status, 200)
  assert.equal(again.json.settings.limit.messages, 7, 'what is not named stays')
})

test('a live setting that may change does, one that may not answers 409', async (t) => {
  const { call } = await startServer(t)
  await call('PUT', '/v1/queues/q')
  assert.equal((await call('PUT', '/v1/queues/q', { body: { attempts: 9 } })).json.settings.attempts, 9)
  const refused = await call('PUT', '/v1/queues/q', { body: { strict: true } })
  assert.equal(refused.status, 409)
  assert.equal(refused.json.code, 'DECLARED_DIFFERENTLY')
  const other = await call('PUT', '/v1/topics/q')
  assert.equal(other.status, 409, 'a queue is not a topic')
})

test('topics and groups are declared with their own settings', async (t) => {
  const { call } = await startServer(t)
  const topic = await call('PUT', '/v1/topics/t', { body: { onSlowGroup: 'detach' } })
  assert.deepEqual([topic.status, topic.json.topic, topic.json.settings.onSlowGroup], [201, 't', 'detach'])
  const group = await call('PUT', '/v1/topics/t/groups/g', { body: { from: 'latest', attempts: 3 } })
  assert.deepEqual([group.status, group.json.topic, group.json.group, group.json.settings.attempts], [201, 't', 'g', 3])
  assert.equal((await call('PUT', '/v1/topics/t/groups/g', { body: {} })).status, 200)
})

test('a job is not added to a topic, nor a message to a queue', async (t) => {
  const { call } = await startServer(t)
  await call('PUT', '/v1/topics/t')
  await call('PUT', '/v1/queues/q')
  for (const [path, word] of [
    ['/v1/queues/t/jobs', 'topic'],
    ['/v1/topics/q/messages', 'queue'],
  ] as const) {
    const { status, json } = await call('POST', path, { body: 1 })
    assert.equal(status, 409)
    assert.match(json.detail, new RegExp(`is a ${word}`))
  }
})

test('queues and topics are listed by name, in pages', async (t) => {
  const { call } = await startServer(t)
  for (const name of ['c', 'a', 'b']) await call('POST', `/v1/queues/${name}/jobs`, { body: 1 })
  await call('PUT', '/v1/topics/t')
  const first = await call('GET', '/v1/queues?limit=2')
  assert.deepEqual(
    first.json.queues.map(({ name }: { name: string }) => name),
    ['a', 'b'],
  )
  assert.equal(first.json.next, 'b')
  const rest = await call('GET', '/v1/queues?after=b')
  assert.deepEqual([rest.json.queues.map(({ name }: { name: string }) => name), rest.json.next], [['c'], null])
  const [queue] = first.json.queues
  assert.ok(Math.abs(queue.oldestAtMs - Date.now()) < 60_000)
  assert.deepEqual([queue.depth.messages, queue.leased, queue.dead, queue.paused, queue.appended], [1, 0, 0, false, 1])
  assert.deepEqual(
    (await call('GET', '/v1/topics')).json.topics.map(({ name }: { name: string }) => name),
    ['t'],
  )
})

test('reading about what is not there makes nothing', async (t) => {
  const { call } = await startServer(t)
  for (const [method, path, code] of [
    ['GET', '/v1/queues/none', 'QUEUE_NOT_FOUND'],
    ['GET', '/v1/queues/none/dead', 'QUEUE_NOT_FOUND'],
    ['POST', '/v1/queues/none:pause', 'QUEUE_NOT_FOUND'],
    ['POST', '/v1/queues/none/dead:redrive', 'QUEUE_NOT_FOUND'],
    ['GET', '/v1/topics/none', 'TOPIC_NOT_FOUND'],
    ['GET', '/v1/topics/none/messages', 'TOPIC_NOT_FOUND'],
    ['POST', '/v1/topics/none/groups/g/leases', 'TOPIC_NOT_FOUND'],
    ['GET', '/v1/jobs/none:abcdef:0', 'JOB_NOT_FOUND'],
  ] as const) {
    const { status, json } = await call(method, path)
    assert.deepEqual([path, status, json.code], [path, 404, code])
  }
  assert.deepEqual((await call('GET', '/v1/queues')).json, { queues: [], next: null })
})

test('a paused queue hands nothing out until it is resumed', async (t) => {
  const { call } = await startServer(t)
  await call('POST', '/v1/queues/q/jobs', { body: 1 })
  assert.deepEqual((await call('POST', '/v1/queues/q:pause')).json, { queue: 'q', paused: true })
  assert.deepEqual((await call('POST', '/v1/queues/q/leases', { body: {} })).json.leases, [])
  assert.equal((await call('GET', '/v1/queues/q')).json.paused, true)
  const waiting = call('POST', '/v1/queues/q/leases', { body: { waitMs: 30_000 } })
  assert.deepEqual((await call('POST', '/v1/queues/q:resume')).json, { queue: 'q', paused: false })
  assert.equal((await waiting).json.leases.length, 1)
})

test('a dead letter is shown with its error and payload, and redriven as a new job', async (t) => {
  const { call } = await startServer(t)
  const { json: added } = await call('POST', '/v1/queues/q/jobs', {
    body: { card: 'x' },
    headers: { 'sluice-key': 'c1' },
  })
  const { json } = await call('POST', '/v1/queues/q/leases', { body: {} })
  await call('POST', '/v1/leases:settle', {
    body: { items: [{ lease: json.leases[0].lease, outcome: 'dead', error: 'card refused' }] },
  })
  const { json: dead } = await call('GET', '/v1/queues/q/dead')
  const [letter] = dead.letters
  assert.deepEqual(
    [letter.id, letter.attempts, letter.payload, letter.key, dead.next],
    [added.id, 1, { card: 'x' }, 'c1', null],
  )
  assert.match(letter.error, /card refused/)
  const { json: redriven } = await call('POST', '/v1/queues/q/dead:redrive', { body: { ids: [added.id] } })
  assert.equal(redriven.count, 1)
  assert.deepEqual((await call('GET', '/v1/queues/q/dead')).json.letters, [])
  const { json: again } = await call('POST', '/v1/queues/q/leases', { body: {} })
  const [lease] = again.leases
  assert.deepEqual([lease.payload, lease.attempt], [{ card: 'x' }, 1])
  assert.notEqual(lease.id, added.id)
  assert.equal((await call('GET', `/v1/jobs/${lease.id}`)).json.redriveOf, added.id)
})

test('a server that works says so to health checks', async (t) => {
  const { call } = await startServer(t)
  assert.deepEqual((await call('GET', '/healthz')).json, { status: 'ok' })
  const ready = await call('GET', '/readyz')
  assert.deepEqual([ready.status, ready.json.status], [200, 'ok'])
  assert.equal((await call('HEAD', '/healthz')).status, 200)
})

test('metrics tell of queues, groups and answers', async (t) => {
  const { call } = await startServer(t)
  await call('POST', '/v1/queues/q/jobs', { body: 1 })
  await call('POST', '/v1/topics/t/messages', { body: 1 })
  await call('PUT', '/v1/topics/t/groups/g')
  const { text, headers } = await call('GET', '/metrics')
  assert.match(headers.get('content-type') ?? '', /^text\/plain/)
  for (const line of [
    'sluice_depth_messages{kind="queue",name="q"} 1',
    'sluice_group_behind_messages{topic="t",group="g"} 1',
    'sluice_http_requests_total{method="POST",route="/v1/queues/:queue/jobs",status="202"} 1',
  ]) {
    assert.ok(text.includes(line), `${line} is not in\n${text}`)
  }
})

test('metrics have a bounded number of series, however many queues there are', async (t) => {
  const { call, sluice } = await startServer(t)
  await sluice.engine.declare(
    Array.from({ length: 300 }, (_, i) => ({ kind: 'queue' as const, name: `q${i}`, settings: {} })),
  )
  const { text } = await call('GET', '/metrics')
  assert.equal(text.split('\n').filter((line) => line.startsWith('sluice_depth_messages{')).length, 201)
  assert.match(text, /sluice_depth_messages\{kind="queue",name="_rest"\} 0/)
})

test('the dashboard is served under a policy that runs no script but its own', async (t) => {
  const { call } = await startServer(t)
  const page = await call('GET', '/')
  assert.equal(page.status, 200)
  assert.match(page.headers.get('content-type') ?? '', /^text\/html/)
  const policy = page.headers.get('content-security-policy') ?? ''
  assert.match(policy, /default-src 'none'; script-src 'self'; style-src 'self'/)
  assert.doesNotMatch(policy, /unsafe/)
  assert.doesNotMatch(page.text, /<script>|style=|onclick=/)
  for (const path of page.text.matchAll(/(?:src|href)="(\/[^"]+)"/g))
    assert.equal((await call('GET', path[1] as string)).status, 200)
  assert.equal(page.headers.get('x-content-type-options'), 'nosniff')
  const script = await call('GET', '/dashboard.js')
  assert.doesNotMatch(script.text, /innerHTML|insertAdjacentHTML|document\.write|eval\(/)
})
