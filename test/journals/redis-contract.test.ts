/** The journal contract on a real redis-server. What is special about Redis: redis.test.ts. */
import { after } from 'node:test'
import { createClient } from '@redis/client'
import { findRedis, type RedisBroker, startRedis } from '../../scripts/brokers/redis.ts'
import { openRedisJournal } from '../../src/journals/redis.ts'
import { journalSuite } from './journal-suite.ts'

let redis: RedisBroker | null = null
after(async () => redis?.[Symbol.asyncDispose]())

async function start() {
  redis = await startRedis()
  const { url, isOurs } = redis
  return {
    url: new URL(url),
    broker: isOurs ? redis : null,
    // Shorter than by default: the suite waits for an owner to be given up.
    open: ({
      namespace,
      url: through,
      connectMs,
    }: {
      namespace: string
      url?: URL | undefined
      connectMs?: number | undefined
    }) => openRedisJournal({ url: through ?? new URL(url), namespace, connectMs, leaseMs: 3_000 }),
    async occupy(namespace: string) {
      const client = createClient({ url })
      await client.connect()
      await client.set(`sluice:{${namespace}}:entries`, 'somebody else’s')
      client.destroy()
    },
  }
}

journalSuite('Redis', start, findRedis() === null ? 'redis-server is missing' : false)
