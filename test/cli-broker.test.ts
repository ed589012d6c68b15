/** The command line on a broker: a real Redis, by its URL alone. */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { findRedis, type RedisBroker, startRedis } from '../scripts/brokers/redis.ts'
import { runCli } from './cli-harness.ts'

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
})
