/** What first use may make is bounded, also where one call asks for much and many calls ask at once. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { open } from '../../src/index.ts'
import { startServer } from '../server-harness.ts'

const code = (expected: string) => (error: { code?: string }) => error.code === expected

test('a Sluice on another machine makes no more names than maxQueues, by one long call or by many at once', async (t) => {
  const { url, sluice: local } = await startServer(t, { maxQueues: 20 })
  await using sluice = await open(url)
  const { engine } = sluice
  const names = (from: number, count: number) =>
    Array.from({ length: count }, (_, i) => ({ kind: 'queue', name: `q${from + i}`, settings: {} }) as const)
  await assert.rejects(engine.declare(names(0, 5_000)), code('QUEUE_NOT_FOUND'))
  assert.equal((await local.stats()).topics.length, 0)
  const burst = await Promise.allSettled(Array.from({ length: 60 }, (_, i) => engine.declare(names(i, 1))))
  assert.equal(burst.filter(({ status }) => status === 'fulfilled').length, 20)
  assert.equal((await local.stats()).topics.length, 20)
})

test('a call that is refused takes no place from those that come after it', async (t) => {
  const { url, call } = await startServer(t, { maxQueues: 2 })
  await using sluice = await open(url)
  const queue = (name: string) => ({ kind: 'queue', name, settings: {} }) as const
  await assert.rejects(sluice.engine.declare([queue('a'), queue('b'), queue('c')]), code('QUEUE_NOT_FOUND'))
  for (const name of ['d', 'e']) assert.equal((await call('POST', `/v1/queues/${name}/jobs`, { body: 1 })).status, 202)
})

test('a topic has at most 1,000 groups, however they come; one that is forgotten makes room', async (t) => {
  const { url, call, sluice: local } = await startServer(t)
  await using sluice = await open(url)
  const group = (i: number, topic = 't') =>
    ({ kind: 'group', topic, name: `g${i}`, settings: {}, from: 'latest' }) as const
  const groups = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => group(from + i))
  await assert.rejects(
    sluice.engine.declare([{ kind: 'topic', name: 't', settings: {} }, ...groups(0, 1_001)]),
    code('GROUP_NOT_FOUND'),
  )
  await call('PUT', '/v1/topics/t')
  await sluice.engine.declare(groups(0, 990))
  const burst = await Promise.all(
    Array.from({ length: 30 }, (_, i) => call('PUT', `/v1/topics/t/groups/b${i}`, { body: {} })),
  )
  assert.deepEqual(
    [burst.filter(({ status }) => status === 201).length, burst.filter(({ status }) => status === 404).length],
    [10, 20],
  )
  assert.equal((await local.stats()).topics[0]?.groups.length, 1_000)
  assert.equal((await call('PUT', '/v1/topics/t/groups/g5', { body: {} })).status, 200)
  assert.equal((await call('DELETE', '/v1/topics/t/groups/g5')).status, 204)
  assert.equal((await call('PUT', '/v1/topics/t/groups/last', { body: {} })).status, 201)
})
