import assert from 'node:assert/strict'
import { test } from 'node:test'
import { runCli, serveCli } from './cli-harness.ts'
import { call as callUrl, startServer, temporaryFolder } from './server-harness.ts'

test('a schedule is declared, listed with its next tick, changed and removed', async (t) => {
  const { call } = await startServer(t)
  const put = await call('PUT', '/v1/queues/report/schedules/nightly', {
    body: {
      cron: '30 2 * * *',
      timeZone: 'Europe/Zurich',
      payload: { kind: 'daily' },
      key: 'k',
      callbackUrl: 'https://receiver.example/s3cret',
    },
  })
  assert.equal(put.status, 200, put.text)
  assert.ok(put.json.nextAtMs > Date.now())
  assert.equal(new Date(put.json.nextAtMs).toLocaleTimeString('de', { timeZone: 'Europe/Zurich' }), '02:30:00')
  const { createdAtMs, nextAtMs, ...rest } = put.json
  assert.deepEqual(rest, {
    queue: 'report',
    name: 'nightly',
    cron: '30 2 * * *',
    timeZone: 'Europe/Zurich',
    missed: 'one',
    key: 'k',
    payload: { kind: 'daily' },
    isFromCode: false,
    firedAtMs: null,
    jobId: null,
    hasCallback: true,
  })
  assert.ok(createdAtMs <= Date.now() && nextAtMs > createdAtMs)
  await call('PUT', '/v1/queues/other/schedules/hourly', { body: { everyMs: 3_600_000, payload: null } })
  const all = await call('GET', '/v1/schedules')
  assert.deepEqual(
    all.json.schedules.map((one: { queue: string; name: string }) => [one.queue, one.name]),
    [
      ['other', 'hourly'],
      ['report', 'nightly'],
    ],
  )
  assert.ok(!all.text.includes('s3cret'))
  assert.equal((await call('GET', '/v1/queues/report/schedules')).json.schedules.length, 1)
  const changed = await call('PUT', '/v1/queues/report/schedules/nightly', { body: { cron: '@daily', payload: 1 } })
  assert.deepEqual([changed.json.cron, changed.json.payload, changed.json.createdAtMs], ['@daily', 1, createdAtMs])
  const removed = await call('DELETE', '/v1/queues/report/schedules/nightly')
  assert.deepEqual(removed.json, { queue: 'report', name: 'nightly', removed: true })
  assert.equal((await call('DELETE', '/v1/queues/report/schedules/nightly')).json.removed, false)
  assert.equal((await call('GET', '/v1/schedules')).json.schedules.length, 1)
})

test('the server fires a schedule whose payload is stored', async (t) => {
  const { call } = await startServer(t)
  await call('PUT', '/v1/queues/q/schedules/tick', { body: { everyMs: 1_000, payload: { a: 1 }, headers: { h: 'v' } } })
  const { json } = await call('POST', '/v1/queues/q/leases', { body: { waitMs: 20_000 } })
  const [lease] = json.leases
  assert.deepEqual(lease.payload, { a: 1 })
  const { 'sluice-tick-ms': tick, ...headers } = lease.headers
  assert.equal(Number(tick) % 1_000, 0)
  assert.deepEqual(headers, { h: 'v', 'sluice-schedule': 'tick' })
  const [schedule] = (await call('GET', '/v1/schedules')).json.schedules
  assert.ok(schedule.firedAtMs >= Number(tick))
})

test('what cannot be a schedule is refused with the reason, and nothing is kept', async (t) => {
  const { call } = await startServer(t)
  const bad: [unknown, string][] = [
    [{}, 'INVALID_OPTION'],
    [{ cron: '* * * * *' }, 'INVALID_OPTION'],
    [{ payload: 1 }, 'INVALID_OPTION'],
    [{ cron: 'never', payload: 1 }, 'INVALID_OPTION'],
    [{ cron: '* * * * *', everyMs: 5_000, payload: 1 }, 'INVALID_OPTION'],
    [{ everyMs: 1, payload: 1 }, 'INVALID_OPTION'],
    [{ cron: '* * * * *', timeZone: 'x', payload: 1 }, 'INVALID_OPTION'],
    [{ cron: '* * * * *', delayMs: 1, payload: 1 }, 'INVALID_OPTION'],
    [{ cron: '* * * * *', payload: 1, callbackUrl: 'ftp://x' }, 'INVALID_OPTION'],
    [{ cron: '* * * * *', payload: 'x'.repeat(20_000) }, 'PAYLOAD_TOO_LARGE'],
    [[], 'INVALID_OPTION'],
  ]
  for (const [body, code] of bad) {
    const answer = await call('PUT', '/v1/queues/q/schedules/s', { body })
    assert.equal(answer.json.code, code, `${JSON.stringify(body).slice(0, 80)}: ${answer.text}`)
  }
  const good = { everyMs: 60_000, payload: 1 }
  assert.equal((await call('PUT', '/v1/queues/q/schedules/no%2Fname', { body: good })).json.code, 'INVALID_NAME')
  assert.equal((await call('PUT', '/v1/queues/sluice.callbacks/schedules/s', { body: good })).json.code, 'UNSUPPORTED')
  assert.deepEqual((await call('GET', '/v1/schedules')).json, { schedules: [] })
})

test('a schedule outlives the server that is killed, misses nothing that it should make up for, and is listed by the command', async (t) => {
  const folder = await temporaryFolder(t)
  const before = await serveCli(t, folder)
  await callUrl(before.url, 'PUT', '/v1/queues/q/schedules/tick', {
    body: { everyMs: 1_000, missed: 'all', payload: 1 },
  })
  const first = await callUrl(before.url, 'POST', '/v1/queues/q/leases', { body: { waitMs: 20_000 } })
  const firstTick = Number(first.json.leases[0].headers['sluice-tick-ms'])
  const closed = new Promise((resolve) => before.child.once('close', resolve))
  before.child.kill('SIGKILL')
  await closed
  const after = await serveCli(t, folder)
  const ticks = [firstTick]
  while (ticks.length < 4) {
    const { json } = await callUrl(after.url, 'POST', '/v1/queues/q/leases', { body: { max: 10, waitMs: 20_000 } })
    for (const { headers } of json.leases) ticks.push(Number(headers['sluice-tick-ms']))
  }
  const steps = ticks.map((tick, i) => tick - (ticks[i - 1] ?? tick - 1_000))
  assert.ok(
    steps.every((step) => step === 1_000),
    `each tick once and in order: ${ticks}`,
  )
  const listed = await runCli(t, ['schedules', '--url', after.url, '--json'])
  assert.equal(listed.code, 0, listed.stderr)
  assert.equal(JSON.parse(listed.stdout)[0].name, 'tick')
  const table = await runCli(t, ['schedules', '--url', after.url])
  assert.match(table.stdout, /q +tick +every 1000 ms +all +stored/)
})
