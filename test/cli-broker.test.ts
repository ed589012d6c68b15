/** The command line on a broker: a real Redis, by its URL alone. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { after, before, describe, test } from 'node:test'
import { findRedis, type RedisBroker, startRedis } from '../scripts/brokers/redis.ts'
import { runCli, serveCli, startCli } from './cli-harness.ts'
import { call } from './server-harness.ts'

describe('the command line on Redis', { skip: findRedis() === null ? 'there is no redis-server' : false }, () => {
  let redis: RedisBroker
  before(async () => {
    redis = await startRedis()
  })
  after(() => redis[Symbol.asyncDispose]())

  test('jobs are published, explained, worked on and found, one command after the other', async (t) => {
    const at = ['--url', `${redis.url}?namespace=cli`]
    const published = await runCli(t, ['publish', '--queue', 'email', '{"to":"a@b.c"}', '--key', 'a', '--json', ...at])
    assert.equal(published.code, 0, published.stderr)
    const { id } = JSON.parse(published.stdout)
    const explained = await runCli(t, ['jobs', 'explain', id, ...at])
    assert.equal(explained.stdout, 'queued: No worker asks for jobs of this queue. It is next.\n')
    const worked = await runCli(t, ['work', 'email', '--exec', 'cat', '--max-jobs', '1', '--json', ...at])
    assert.equal(worked.code, 0, worked.stderr)
    const found = await runCli(t, ['jobs', 'wait', id, ...at])
    assert.equal(found.stdout, '{"to":"a@b.c"}\n')
    const tailed = await runCli(t, ['tail', '--queue', 'email', '--from', 'earliest', '--no-follow', '--json', ...at])
    assert.deepEqual(JSON.parse(tailed.stdout).payload, { to: 'a@b.c' })
    assert.match((await runCli(t, ['queues', ...at])).stdout, /^email +0 /m)
  })

  test('verify tells what of its configuration keeps a promise, and a backup says that it is not for brokers', async (t) => {
    const { code, stdout, stderr } = await runCli(t, ['verify', redis.url, '--json'])
    assert.equal(code, 0, stderr)
    const { kind, isGood, findings } = JSON.parse(stdout)
    assert.deepEqual([kind, isGood], ['broker', true])
    assert.ok(findings.length > 3, stdout)
    assert.ok(
      findings.some(({ title }: { title: string }) => /appendfsync|AOF|append/i.test(title)),
      stdout,
    )
    const refused = await runCli(t, ['backup', '/nonexistent/copy', '--url', `${redis.url}?namespace=cli`])
    assert.equal(refused.code, 1)
  })

  test('scenarios of the suite hold on it, on names of their own', async (t) => {
    const { code, stdout, stderr } = await runCli(t, [
      'verify',
      `${redis.url}?namespace=suite`,
      '--suite',
      '--grep',
      'a job says why',
    ])
    assert.equal(code, 0, `${stdout}\n${stderr}`)
    assert.match(stdout, /^1 scenarios hold, 0 do not/m)
  })

  test('two servers share it: what one accepted the other leases and settles, also once the first was killed', async (t) => {
    const place = `${redis.url.replace('://', '://default:@')}?namespace=served`
    const [first, second] = [await serveCli(t, place), await serveCli(t, place)]
    const { json: job } = await call(first.url, 'POST', '/v1/queues/email/jobs', { body: { to: 'a@b.c' } })
    const { json: leased } = await call(second.url, 'POST', '/v1/queues/email/leases', {
      body: { leaseMs: 60_000, waitMs: 10_000 },
    })
    assert.equal(leased.leases[0]?.id, job.id)
    const ended = once(first.child, 'close')
    first.child.kill('SIGKILL')
    await ended
    const settled = await call(second.url, 'POST', '/v1/leases:settle', {
      body: { items: [{ lease: leased.leases[0].lease, outcome: 'done', result: 'sent' }] },
    })
    assert.equal(settled.json.outcomes[0].outcome, 'settled', settled.text)
    const third = await serveCli(t, place)
    const found = await call(third.url, 'GET', `/v1/jobs/${job.id}`)
    assert.deepEqual([found.json.status, found.json.result], ['completed', 'sent'])
    const backup = await call(third.url, 'GET', '/v1/backup')
    assert.deepEqual([backup.status, backup.json.code], [400, 'UNSUPPORTED'])
  })

  test('serve shows no password of it, and serves no other server', async (t) => {
    const child = startCli(t, ['serve', '--port', '0', '--data', `${redis.url.replace('://', '://default:s3cret@')}`])
    const said: string[] = []
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (piece) => said.push(String(piece)))
    // A Redis without passwords takes any.
    while (!said.join('').includes('Ctrl-C')) await once(child.stdout, 'data')
    assert.match(said.join(''), /data +redis:\/\/127\.0\.0\.1/)
    assert.doesNotMatch(said.join(''), /s3cret/)
    const { code, stderr } = await runCli(t, ['serve', '--data', 'http://127.0.0.1:8787'])
    assert.equal(code, 2)
    assert.match(stderr, /--data names a server/)
  })
})
