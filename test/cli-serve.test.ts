import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { runCli, serveCli, startCli } from './cli-harness.ts'
import { call, temporaryFolder } from './server-harness.ts'

test('serve tells people what it serves, where the data is and what an acknowledgement means', async (t) => {
  const folder = join(await temporaryFolder(t), 'new')
  const child = startCli(t, ['serve', '--port', '0', '--data', folder])
  const said: string[] = []
  for await (const line of createInterface({ input: child.stdout })) {
    said.push(line)
    if (line.includes('Ctrl-C')) break
  }
  const all = said.join('\n')
  const url = /Sluice serves (http:\/\/127\.0\.0\.1:\d+)/.exec(all)?.[1] ?? ''
  assert.ok(all.includes(`dashboard  ${url}/`), all)
  assert.ok(all.includes(folder), all)
  assert.match(all, /durability 'disk': .*power cut/)
  assert.equal((await call(url, 'GET', '/readyz')).status, 200)
  assert.ok(existsSync(folder))
})

test('SIGTERM ends long polls, keeps what was acknowledged and exits with 0', async (t) => {
  const folder = await temporaryFolder(t)
  const { child, url, lines } = await serveCli(t, folder)
  const { json: job } = await call(url, 'POST', '/v1/queues/q/jobs', { body: { kept: true } })
  const poll = call(url, 'POST', '/v1/queues/empty/leases', { body: { waitMs: 60_000 } })
  while (!(await call(url, 'GET', '/metrics')).text.includes('sluice_http_waiting 1')) {}
  const said: string[] = []
  lines.on('line', (line) => said.push(JSON.parse(line).event))
  child.kill('SIGTERM')
  assert.deepEqual((await poll).json, { leases: [] })
  const [code] = await once(child, 'close')
  assert.equal(code, 0)
  assert.deepEqual(said, ['stopping', 'stopped'])
  const again = await serveCli(t, folder)
  assert.equal((await call(again.url, 'GET', `/v1/jobs/${job.id}`)).json.status, 'queued')
})

test('a second Ctrl-C exits at once', async (t) => {
  const { child, url, lines } = await serveCli(t, await temporaryFolder(t))
  // A body that never ends holds the stop up.
  const held = connect(Number(new URL(url).port), '127.0.0.1')
  held.on('error', () => {})
  held.write(
    'POST /v1/queues/q/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n1',
  )
  while (!(await call(url, 'GET', '/metrics')).text.includes('sluice_http_in_flight 2')) {}
  child.kill('SIGINT')
  await once(lines, 'line')
  child.kill('SIGINT')
  const [code] = await once(child, 'close')
  assert.equal(code, 130)
  held.destroy()
})

test('a folder that is in use is refused with the process that has it', async (t) => {
  const folder = await temporaryFolder(t)
  const { child } = await serveCli(t, folder)
  const { code, stderr } = await runCli(t, ['serve', '--port', '0', '--data', folder])
  assert.equal(code, 1)
  assert.match(stderr, /LOCKED/)
  assert.match(stderr, new RegExp(`${child.pid}`))
})

test('a port that is taken is refused, and the folder is free again', async (t) => {
  const { url } = await serveCli(t, await temporaryFolder(t))
  const folder = await temporaryFolder(t)
  const { code, stderr } = await runCli(t, ['serve', '--port', new URL(url).port, '--data', folder])
  assert.equal(code, 1)
  assert.match(stderr, /another program listens there/)
  await serveCli(t, folder)
})

test('an address that other machines reach is refused without --behind-proxy', async (t) => {
  const folder = await temporaryFolder(t)
  const { code, stderr } = await runCli(t, ['serve', '--port', '0', '--host', '0.0.0.0', '--data', folder])
  assert.equal(code, 1)
  assert.match(stderr, /INVALID_OPTION.*--behind-proxy/)
  const { url } = await serveCli(t, folder, [
    '--host',
    '0.0.0.0',
    '--behind-proxy',
    '--allowed-host',
    'queue.example.com',
  ])
  assert.equal((await call(`http://127.0.0.1:${new URL(url).port}`, 'GET', '/healthz')).status, 200)
})

test('serve can keep everything in memory', async (t) => {
  const { url } = await serveCli(t, ':memory:')
  assert.equal((await call(url, 'POST', '/v1/queues/q/jobs', { body: 1 })).json.durability, 'memory')
})
