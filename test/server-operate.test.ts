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

test('dead letters of a queue are discarded, and ids that are none of its jobs are refused', async (t) => {
  const { call } = await startServer(t)
  const ids: string[] = []
  for (const body of [1, 2]) ids.push((await call('POST', '/v1/queues/q/jobs', { body })).json.id)
  const other = (await call('POST', '/v1/queues/other/jobs', { body: 1 })).json.id
  const { json } = await call('POST', '/v1/queues/q/leases', { body: { max: 2 } })
  const items = json.leases.map(({ lease }: { lease: string }) => ({ lease, outcome: 'dead', error: 'no' }))
  await call('POST', '/v1/leases:settle', { body: { items } })
  for (const act of ['redrive', 'discard']) {
    for (const id of ['nonsense', other, 'q:zzzzzz:0']) {
      const refused = await call('POST', `/v1/queues/q/dead:${act}`, { body: { ids: [ids[0], id] } })
      assert.deepEqual([act, id, refused.status, refused.json.code], [act, id, 404, 'JOB_NOT_FOUND'])
    }
  }
  const misplaced = await call('GET', '/v1/queues/q/dead?after=yesterday')
  assert.deepEqual([misplaced.status, misplaced.json.code], [400, 'INVALID_OPTION'])
  const { json: first } = await call('GET', '/v1/queues/q/dead?limit=1')
  const { json: rest } = await call('GET', `/v1/queues/q/dead?after=${first.next}`)
  assert.deepEqual([first.letters[0].id, rest.letters[0].id, rest.next], [ids[0], ids[1], null])
  const discarded = await call('POST', '/v1/queues/q/dead:discard', { body: { ids: [ids[0]] } })
  assert.deepEqual([discarded.status, discarded.json], [200, { queue: 'q', count: 1 }])
  assert.deepEqual((await call('POST', '/v1/queues/q/dead:discard')).json, { queue: 'q', count: 1 })
  assert.deepEqual((await call('GET', '/v1/queues/q/dead')).json, { letters: [], next: null })
  assert.equal((await call('GET', `/v1/jobs/${ids[0]}`)).json.status, 'failed')
})

test('a group of a topic is operated as a queue is', async (t) => {
  const { call } = await startServer(t)
  const group = '/v1/topics/t/groups/g'
  await call('PUT', '/v1/topics/t')
  await call('PUT', group)
  await call('POST', '/v1/topics/t/messages', { body: { order: 1 } })
  assert.deepEqual((await call('POST', `${group}:pause`)).json, { topic: 't', group: 'g', paused: true })
  assert.deepEqual((await call('POST', `${group}/leases`, { body: {} })).json.leases, [])
  assert.deepEqual((await call('POST', `${group}:resume`)).json, { topic: 't', group: 'g', paused: false })
  const { json } = await call('POST', `${group}/leases`, { body: {} })
  const items = [{ lease: json.leases[0].lease, outcome: 'dead', error: 'no' }]
  await call('POST', '/v1/leases:settle', { body: { items } })
  const { json: dead } = await call('GET', `${group}/dead`)
  assert.deepEqual([dead.letters.length, dead.letters[0].payload, dead.next], [1, { order: 1 }, null])
  assert.equal((await call('GET', `${group}/dead?after=x`)).json.code, 'INVALID_OPTION')
  assert.equal((await call('POST', `${group}/dead:redrive`)).json.code, 'UNSUPPORTED')
  assert.equal((await call('POST', `${group}/dead:discard`, { body: { ids: ['x'] } })).json.code, 'JOB_NOT_FOUND')
  const discarded = await call('POST', `${group}/dead:discard`, { body: { ids: [dead.letters[0].id] } })
  assert.deepEqual(discarded.json, { topic: 't', group: 'g', count: 1 })
  assert.deepEqual((await call('GET', `${group}/dead`)).json.letters, [])
})

test('a group is moved to another place, and forgotten', async (t) => {
  const { call } = await startServer(t)
  const group = '/v1/topics/t/groups/g'
  await call('POST', '/v1/topics/t/messages', { body: 1 })
  await call('PUT', group, { body: { from: 'latest' } })
  assert.deepEqual((await call('POST', `${group}/leases`, { body: {} })).json.leases, [])
  const moved = await call('PATCH', group, { body: { from: 'earliest' } })
  assert.deepEqual([moved.status, moved.json], [200, { topic: 't', group: 'g', from: 'earliest' }])
  assert.equal((await call('POST', `${group}/leases`, { body: {} })).json.leases[0].offset, 0)
  assert.equal((await call('PATCH', group, { body: { from: 9 } })).json.code, 'OFFSET_OUT_OF_RANGE')
  for (const body of [{}, { from: 'yesterday' }, { form: 0 }])
    assert.equal((await call('PATCH', group, { body })).json.code, 'INVALID_OPTION')
  assert.deepEqual([(await call('DELETE', group)).status, (await call('GET', '/v1/topics/t')).json.groups], [204, []])
  for (const [method, path] of [
    ['DELETE', group],
    ['PATCH', group],
    ['GET', `${group}/dead`],
    ['POST', `${group}/dead:redrive`],
    ['POST', `${group}/dead:discard`],
    ['POST', `${group}:pause`],
    ['POST', `${group}:resume`],
  ] as const) {
    const options = method === 'PATCH' ? { body: { from: 0 } } : {}
    const gone = await call(method, path, options)
    assert.deepEqual([method, path, gone.status, gone.json.code], [method, path, 404, 'GROUP_NOT_FOUND'])
    const none = await call(method, path.replace('/t/', '/none/'), options)
    assert.deepEqual([method, path, none.status, none.json.code], [method, path, 404, 'TOPIC_NOT_FOUND'])
  }
})

test('a misspelt header of ours is refused with the nearest one, and nothing is stored', async (t) => {
  const { call } = await startServer(t)
  const headers = { 'Sluice-Dealy-Ms': '5' }
  const { status, json } = await call('POST', '/v1/queues/q/jobs', { body: 1, headers })
  assert.deepEqual([status, json.code, json.nearest], [400, 'INVALID_OPTION', 'Sluice-Delay-Ms'])
  const published = await call('POST', '/v1/topics/t/messages', { body: 1, headers: { 'Sluice-Keys': 'a' } })
  assert.deepEqual([published.json.code, published.json.nearest], ['INVALID_OPTION', 'Sluice-Key'])
  assert.deepEqual((await call('GET', '/v1/queues')).json.queues, [])
})

test('a header of the message that cannot be kept is refused rather than lost', async (t) => {
  const { call, sluice } = await startServer(t)
  const { status, json } = await call('POST', '/v1/queues/q/jobs', {
    body: 1,
    headers: { 'Sluice-Header-__proto__': 'x' },
  })
  assert.deepEqual([status, json.code], [400, 'INVALID_OPTION'])
  assert.equal((await sluice.stats()).topics.length, 0)
})

test('a refused content type is named, and so is what to send', async (t) => {
  const { call, url } = await startServer(t)
  for (const [method, path, wanted] of [
    ['POST', '/v1/queues/q/jobs', /application\/json or application\/octet-stream or application\/x-ndjson/],
    ['POST', '/v1/topics/t/messages', /application\/x-ndjson/],
    ['POST', '/v1/queues/q/leases', /Send application\/json\./],
    ['PUT', '/v1/queues/q', /Send application\/json\./],
    ['POST', '/v1/queues/q/dead:redrive', /Send application\/json\./],
  ] as const) {
    const sent = await call(method, path, { body: '1', type: 'text/plain' })
    assert.deepEqual([path, sent.status], [path, 415])
    assert.match(sent.json.detail, /'text\/plain'/)
    assert.match(sent.json.detail, wanted)
    const untyped = await fetch(`${url}${path}`, { method, body: Buffer.from('1') })
    assert.deepEqual([path, untyped.status], [path, 415])
    assert.match(((await untyped.json()) as { detail: string }).detail, /has no content type\. Send /)
  }
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

/** The value of a series, as Prometheus reads it. */
function sample(text: string, series: string): number {
  const line = text.split('\n').find((one) => one.startsWith(`${series} `))
  assert.ok(line !== undefined, `${series} is not in\n${text}`)
  return Number(line.slice(series.length + 1))
}

test('metrics tell of rates, waits, holds, ages, workers and refusals', async (t) => {
  const { call } = await startServer(t)
  const metrics = async () => (await call('GET', '/metrics')).text
  await call('PUT', '/v1/queues/q', { body: { limit: { messages: 3 }, backoff: { baseMs: 0 }, attempts: 2 } })
  for (const body of [1, 2, 3, 4]) await call('POST', '/v1/queues/q/jobs', { body })
  const before = await metrics()
  const q = 'kind="queue",name="q"'
  assert.equal(sample(before, `sluice_published_messages_total{${q}}`), 3)
  assert.equal(sample(before, `sluice_refused_messages_total{${q},reason="messages"}`), 1)
  assert.equal(sample(before, 'sluice_http_problems_total{code="QUEUE_FULL"}'), 1)
  assert.equal(sample(before, `sluice_wait_seconds_count{${q}}`), 0)
  assert.ok(sample(before, `sluice_oldest_seconds{${q}}`) < 60)
  assert.ok(Date.now() - (await call('GET', '/v1/queues/q')).json.oldestAtMs < 60_000)
  const { json } = await call('POST', '/v1/queues/q/leases', { body: { max: 3 } })
  const held = await metrics()
  assert.equal(sample(held, `sluice_wait_seconds_count{${q}}`), 3)
  assert.equal(sample(held, `sluice_wait_seconds_bucket{${q},le="+Inf"}`), 3)
  assert.equal(sample(held, `sluice_worker_utilisation{${q}}`), 1)
  const [done, retry, dead] = json.leases.map(({ lease }: { lease: string }) => lease)
  await call('POST', '/v1/leases:settle', {
    body: {
      items: [
        { lease: done, outcome: 'done' },
        { lease: retry, outcome: 'retry', error: 'no', delayMs: 3_600_000 },
        { lease: dead, outcome: 'dead', error: 'no' },
      ],
    },
  })
  const after = await metrics()
  for (const [outcome, count] of Object.entries({ done: 1, failed: 1, died: 1, expired: 0 }))
    assert.equal(sample(after, `sluice_attempts_total{${q},outcome="${outcome}"}`), count, outcome)
  assert.equal(sample(after, `sluice_held_seconds_count{${q}}`), 3)
  const slots = after.split('\n').filter((line) => line.startsWith(`sluice_held_seconds_bucket{${q},`))
  const counts = slots.map((line) => Number(line.split(' ').at(-1)))
  assert.deepEqual(
    counts,
    counts.toSorted((a, b) => a - b),
    'buckets are cumulative',
  )
  const shown = (await call('GET', '/v1/queues/q')).json
  assert.deepEqual([shown.done, shown.failed, shown.died, shown.expired], [1, 1, 1, 0])
  const asking = new AbortController()
  const waits = call('POST', '/v1/queues/q/leases', { body: { waitMs: 60_000 }, signal: asking.signal })
  while (sample(await metrics(), `sluice_asking_workers{${q}}`) === 0);
  assert.equal(sample(await metrics(), `sluice_worker_utilisation{${q}}`), 0)
  asking.abort()
  await assert.rejects(waits)
})

test('the age and lag of a group are shown, and every metric is told what it is', async (t) => {
  const { call } = await startServer(t)
  await call('PUT', '/v1/topics/t/groups/g')
  await call('POST', '/v1/topics/t/messages', { body: 1 })
  const { text } = await call('GET', '/metrics')
  assert.equal(sample(text, 'sluice_group_behind_messages{topic="t",group="g"}'), 1)
  assert.ok(sample(text, 'sluice_group_oldest_seconds{topic="t",group="g"}') < 60)
  const typed = new Set(
    [...text.matchAll(/^# TYPE (\S+) (?:gauge|counter|histogram|summary)$/gm)].map(([, name]) => name),
  )
  const helped = new Set([...text.matchAll(/^# HELP (\S+) \S/gm)].map(([, name]) => name))
  for (const line of text.split('\n').filter((one) => one !== '' && !one.startsWith('#'))) {
    const [, name = ''] = /^([a-z0-9_]+)(?:\{(?:[a-z_]+="[^"]*",?)*\})? (?:-?[\d.e+-]+|nan|\+inf)$/i.exec(line) ?? []
    const family = name.replace(/_(?:bucket|sum|count)$/, '')
    assert.ok((typed.has(name) && helped.has(name)) || (typed.has(family) && helped.has(family)), line)
  }
})

test('a name keeps its counters when others become deeper', async (t) => {
  const { call, sluice } = await startServer(t)
  await call('POST', '/v1/queues/first/jobs', { body: 1 })
  await call('GET', '/metrics')
  const names = Array.from({ length: 250 }, (_, i) => `q${i}`)
  await sluice.engine.declare(names.map((name) => ({ kind: 'queue' as const, name, settings: {} })))
  await Promise.all(names.map((name) => sluice.queue(name).addMany([{ payload: 1 }, { payload: 2 }])))
  const { text } = await call('GET', '/metrics')
  assert.equal(sample(text, 'sluice_published_messages_total{kind="queue",name="first"}'), 1)
  const rest = sample(text, 'sluice_published_messages_total{kind="queue",name="_rest"}')
  assert.equal(rest, 2 * 51)
  const series = (name: string) => text.split('\n').filter((line) => line.startsWith(`${name}{`)).length
  assert.equal(series('sluice_published_messages_total'), 201)
  assert.equal(series('sluice_wait_seconds_count'), 51)
  assert.equal(series('sluice_oldest_seconds'), 201)
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
