/** Redis that is out of memory, under the whole engine: publishers are told, workers go on, and that makes room (P7). */
import { equal, ok } from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { test } from 'node:test'
import { waitUntil } from '../../scripts/brokers/broker.ts'
import { findRedis, startRedis } from '../../scripts/brokers/redis.ts'
import { isSluiceError, open } from '../../src/index.ts'

const skip = findRedis() === null ? 'redis-server is missing' : false

test('a Redis without memory refuses jobs with its reason; workers settle all the same, another takes over, and jobs are taken again', {
  skip,
}, async () => {
  await using redis = await startRedis({ settings: { maxmemory: '160mb' } })
  const namespace = `full-${randomUUID().slice(0, 8)}`
  const first = await open(redis.url, { namespace })
  const payload = 'x'.repeat(500_000)
  const added: string[] = []
  let refused = ''
  const queue = first.queue<string, number>('work', { fullWaitMs: 0 })
  while (refused === '') {
    try {
      added.push((await queue.add(payload)).id)
    } catch (error) {
      ok(isSluiceError(error), String(error))
      refused = error.code
    }
  }
  ok(['DISK_FULL', 'QUEUE_FULL'].includes(refused), refused)
  ok(added.length > 50)
  await first.close()
  // Who takes over claims, settles and sweeps although there is no room.
  await using second = await open(redis.url, { namespace })
  const again = second.queue<string, number>('work', { fullWaitMs: 0 })
  const handled = new Set<string>()
  const worker = again.work(async (job) => {
    handled.add(job.id)
    return job.payload.length
  })
  await waitUntil('everything is done', () => handled.size === added.length, { withinMs: 120_000 })
  equal(await (await again.get(added.at(-1) as string)).result({ timeoutMs: 60_000 }), payload.length)
  await waitUntil('jobs are taken again', () =>
    again.add(payload).then(
      () => true,
      () => false,
    ),
  )
  await worker.close()
})
