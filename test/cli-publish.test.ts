import assert from 'node:assert/strict'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { runCli, serveCli, startCli } from './cli-harness.ts'
import { call, startServer, temporaryFolder } from './server-harness.ts'

test('a message is published to a topic of a server, a job to a queue', async (t) => {
  const { url, call } = await startServer(t)
  const message = await runCli(t, ['publish', 'orders', '{"n": 12345678901234567890}', '--key', 'k', '--url', url])
  assert.deepEqual([message.code, message.stdout], [0, 'offset 0\n'])
  const { text: page } = await call('GET', '/v1/topics/orders/messages')
  assert.match(page, /"key":"k".*"payload":\{"n": 12345678901234567890\}/)
  const job = await runCli(t, [
    'publish',
    '--queue',
    'email',
    '"hi"',
    '--priority',
    'high',
    '--delay-ms',
    '3600000',
    '--url',
    url,
    '--json',
  ])
  assert.equal(job.code, 0)
  assert.equal(JSON.parse(job.stdout).status, 'scheduled')
})

test('a payload that is not JSON is refused before anything is sent, with what to write instead', async (t) => {
  const { url } = await startServer(t)
  const { code, stderr } = await runCli(t, ['publish', 'orders', 'hello', '--url', url])
  assert.equal(code, 1)
  assert.match(stderr, /INVALID_PAYLOAD.*not JSON.*double quotes/)
})

test('the same idempotency key stores a message once', async (t) => {
  const { url, call } = await startServer(t)
  for (const stored of ['offset 0\n', 'offset 0 (stored before)\n']) {
    assert.equal((await runCli(t, ['publish', 'orders', '1', '--idempotency-key', 'a', '--url', url])).stdout, stored)
  }
  assert.equal((await call('GET', '/v1/topics/orders')).json.head, 1)
})

test('lines of the input are published in order, byte by byte, and those that are not JSON are named', async (t) => {
  const { url, call } = await startServer(t)
  const lines = Array.from({ length: 1_300 }, (_, n) => (n === 700 ? '{broken' : `{"n": ${n}.0}`))
  const { code, stdout, stderr } = await runCli(
    t,
    ['publish', 'rows', '-', '--key', 'one', '--url', url],
    `${lines.join('\r\n')}\n\n`,
  )
  assert.equal(code, 1)
  assert.equal(stdout, "1,299 stored in topic 'rows', 1 refused\n")
  assert.match(stderr, /line 701: INVALID_PAYLOAD/)
  let from = 0
  const stored: string[] = []
  while (from < 1_299) {
    const { text: page, json } = await call('GET', `/v1/topics/rows/messages?from=${from}&limit=1000`)
    stored.push(...[...page.matchAll(/"payload":(\{[^}]*\})/g)].map((match) => match[1] as string))
    from = json.next
  }
  assert.deepEqual(
    stored,
    lines.filter((line) => line !== '{broken'),
  )
})

test('a full queue is waited for as long as the server says, and everything arrives in order', async (t) => {
  const { url, call } = await startServer(t)
  await call('PUT', '/v1/queues/small', { body: { limit: { messages: 10 } } })
  const publishing = runCli(
    t,
    ['publish', '--queue', 'small', '--url', url, '--json'],
    Array.from({ length: 35 }, (_, n) => `${n}\n`).join(''),
  )
  const worked: number[] = []
  while (worked.length < 35) {
    const { json } = await call('POST', '/v1/queues/small/leases', { body: { max: 10, waitMs: 30_000 } })
    worked.push(...json.leases.map(({ payload }: { payload: number }) => payload))
    const items = json.leases.map(({ lease }: { lease: string }) => ({ lease, outcome: 'done' }))
    if (items.length > 0) await call('POST', '/v1/leases:settle', { body: { items } })
  }
  const { code, stdout } = await publishing
  assert.equal(code, 0)
  assert.deepEqual(JSON.parse(stdout), { stored: 35, duplicates: 0, refused: 0 })
  assert.deepEqual(
    worked,
    Array.from({ length: 35 }, (_, n) => n),
  )
})

test('a queue that stays full is given up, with its code and how much was stored', async (t) => {
  const { url, call } = await startServer(t)
  await call('PUT', '/v1/queues/small', { body: { limit: { messages: 2 } } })
  const { code, stdout, stderr } = await runCli(
    t,
    ['publish', '--queue', 'small', '--retry-ms', '0', '--url', url],
    '1\n2\n3\n',
  )
  assert.equal(code, 1)
  assert.match(stdout, /^2 stored in queue 'small', 1 refused$/m)
  assert.match(stderr, /line 3: QUEUE_FULL/)
  const single = await runCli(t, ['publish', '--queue', 'small', '4', '--retry-ms', '0', '--url', url, '--json'])
  assert.deepEqual([single.code, JSON.parse(single.stderr).code], [1, 'QUEUE_FULL'])
})

test('lines that were sent while the server was killed and started again are stored once each', async (t) => {
  const folder = await temporaryFolder(t)
  const first = await serveCli(t, folder)
  const { port } = new URL(first.url)
  const publishing = startCli(t, ['publish', 'rows', '--url', first.url, '--json'])
  const done = Promise.all([text(publishing.stdout), text(publishing.stderr), once(publishing, 'close')])
  const line = (n: number) => `{"n":${n}}\n`
  publishing.stdin.write(Array.from({ length: 2_000 }, (_, n) => line(n)).join(''))
  while ((await call(first.url, 'GET', '/v1/topics')).json.topics[0]?.head === undefined) {}
  first.child.kill('SIGKILL')
  await once(first.child, 'close')
  publishing.stdin.end(Array.from({ length: 2_000 }, (_, n) => line(n + 2_000)).join(''))
  const second = await serveCli(t, folder, ['--port', port])
  const [stdout, stderr, [code]] = await done
  assert.equal(code, 0, stderr)
  const { stored, duplicates } = JSON.parse(stdout)
  assert.equal(stored + duplicates, 4_000)
  assert.equal((await call(second.url, 'GET', '/v1/topics/rows')).json.head, 4_000)
})

test('--data opens a folder without a server, and the server sees what was stored', async (t) => {
  const folder = await temporaryFolder(t)
  const lines = await runCli(t, ['publish', '--queue', 'import', '--data', folder], '{"a":1}\n{"a":2}\n')
  assert.deepEqual([lines.code, lines.stdout], [0, "2 stored in queue 'import'\n"])
  const one = await runCli(t, ['publish', 'orders', '{"b":1}', '--data', folder, '--json'])
  assert.equal(JSON.parse(one.stdout).offset, 0)
  const { url } = await serveCli(t, folder)
  const { json } = await call(url, 'POST', '/v1/queues/import/leases', { body: { max: 5 } })
  assert.deepEqual(
    json.leases.map(({ payload }: { payload: object }) => payload),
    [{ a: 1 }, { a: 2 }],
  )
  const busy = await runCli(t, ['publish', 'orders', '1', '--data', folder])
  assert.equal(busy.code, 1)
  assert.match(busy.stderr, /LOCKED/)
  const missing = await runCli(t, ['publish', 'orders', '1', '--data', `${folder}/none`])
  assert.equal(missing.code, 2)
  assert.match(missing.stderr, /not there/)
})

test('a payload or line that is no JSON value of its own is refused, whatever it would make of the message', async (t) => {
  const { url, call } = await startServer(t)
  const { code, stdout, stderr } = await runCli(
    t,
    ['publish', '--queue', 'q', '--url', url],
    '1\n1,"priority":"high"\n1,"delayMs":5000\n2} {"payload":3\n4\n',
  )
  assert.equal(code, 1)
  assert.equal(stdout, "2 stored in queue 'q', 3 refused\n")
  for (const line of [2, 3, 4]) assert.match(stderr, new RegExp(`line ${line}: INVALID_PAYLOAD`))
  assert.doesNotMatch(stderr, /"payload":[^3]|idempotencyKey/)
  const single = await runCli(t, ['publish', '--queue', 'q', '1,"delayMs":5000', '--url', url])
  assert.equal(single.code, 1)
  assert.match(single.stderr, /INVALID_PAYLOAD.*The payload is not JSON/)
  assert.doesNotMatch(single.stderr, /"payload"|idempotencyKey/)
  assert.equal((await call('GET', '/v1/queues/q')).json.head, 2)
})

test('a payload that is written over several lines is one message', async (t) => {
  const { url, call } = await startServer(t)
  const { code } = await runCli(t, ['publish', 'orders', '{\n  "a": "b\\nc"\r\n}', '--url', url])
  assert.equal(code, 0)
  const { json } = await call('GET', '/v1/topics/orders/messages')
  assert.deepEqual(json.messages[0].payload, { a: 'b\nc' })
})

test('while a queue is full, standard error says so and for how long', async (t) => {
  const { url, call } = await startServer(t)
  await call('PUT', '/v1/queues/small', { body: { limit: { messages: 1 } } })
  await call('POST', '/v1/queues/small/jobs', { body: 0 })
  for (const words of [['1'], []]) {
    const publishing = startCli(t, ['publish', '--queue', 'small', ...words, '--url', url])
    publishing.stdin.end('1\n')
    const [said] = (await once(publishing.stderr.setEncoding('utf8'), 'data')) as [string]
    assert.match(said, /queue is full, waiting [\d.]+ s\n/)
    const { json } = await call('POST', '/v1/queues/small/leases', { body: {} })
    await call('POST', '/v1/leases:settle', { body: { items: [{ lease: json.leases[0].lease, outcome: 'done' }] } })
    const [code] = await once(publishing, 'close')
    assert.equal(code, 0)
  }
})
