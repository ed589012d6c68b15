/** What `verify` finds in brokers that are set up such that something would be lost, with why and what to do. */
import { equal, match, ok } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { findKafka, startKafka } from '../scripts/brokers/kafka.ts'
import { findRabbitmq, startRabbitmq } from '../scripts/brokers/rabbitmq.ts'
import { findRedis, startRedis } from '../scripts/brokers/redis.ts'
import { type Finding, open, verify } from '../src/index.ts'

/** A reason to skip, but where everything must be there. */
function need(name: string, version: string | null, variable: string): string | false {
  if (version === null && process.env['CI'] === 'true') throw new Error(`${name} is missing, and CI needs it`)
  if (version === null) return `${name} is missing`
  return process.env[variable] === undefined ? false : 'needs a broker of its own'
}

function find(findings: readonly Finding[], pattern: RegExp): Finding {
  const found = findings.find(({ severity, title, reason }) => severity !== 'ok' && pattern.test(`${title} ${reason}`))
  ok(found, `${pattern} is among ${JSON.stringify(findings.filter(({ severity }) => severity !== 'ok'))}`)
  ok(found.reason.length > 20 && found.remedy.length > 10, 'it says why, and what to do')
  return found
}

const kafkaVersion = await findKafka()

describe('verify finds', () => {
  const noRedis = need('Redis', findRedis(), 'SLUICE_REDIS_URL')
  for (const [what, settings, pattern] of [
    ['a Redis without its append-only file', { appendonly: 'no' }, /appendonly/],
    ['a Redis that evicts', { 'maxmemory-policy': 'allkeys-lru' }, /maxmemory-policy/],
    ['a Redis that syncs every second where a power cut must lose nothing', { appendfsync: 'everysec' }, /everysec/],
  ] as const) {
    test(what, { skip: noRedis }, async () => {
      const redis = await startRedis({ settings })
      try {
        const { isGood, findings } = await verify(redis.url, { durability: 'disk' })
        equal(isGood, false)
        equal(find(findings, pattern).severity, 'refuse')
      } finally {
        await redis.stop()
      }
    })
  }

  test('a Redis that is as it must be, and then only that', { skip: noRedis }, async () => {
    const redis = await startRedis()
    try {
      const { isGood, findings } = await verify(redis.url, { durability: 'disk' })
      equal(isGood, true, JSON.stringify(findings))
    } finally {
      await redis.stop()
    }
  })

  const noRabbit = need('RabbitMQ', findRabbitmq(), 'SLUICE_RABBITMQ_URL')
  test('a RabbitMQ with a policy that drops', { skip: noRabbit }, async () => {
    const rabbit = await startRabbitmq()
    try {
      await (await open(rabbit.fullUrl)).close()
      await rabbit.control('set_policy', 'keep-little', '.*', '{"max-length-bytes": 1000000}', '--apply-to', 'queues')
      const { isGood, findings } = await verify(rabbit.fullUrl)
      equal(isGood, false)
      match(JSON.stringify(find(findings, /keep-little/)), /policy/)
    } finally {
      await rabbit.stop()
    }
  })

  const noKafka = need('Kafka', kafkaVersion, 'SLUICE_KAFKA_URL')
  test('a Kafka with one replica where two were asked for, and one that takes writes with too few in sync', {
    skip: noKafka,
  }, async () => {
    const kafka = await startKafka({ properties: ['min.insync.replicas=1'] })
    try {
      const { isGood, findings } = await verify(kafka.url, { copies: 2 })
      equal(isGood, false)
      find(findings, /replica|copies/i)
      const alone = await verify(kafka.url)
      find(alone.findings, /replica|copies|copy/i)
    } finally {
      await kafka.stop()
    }
  })
})
