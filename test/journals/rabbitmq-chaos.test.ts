/** Owners that come and go, networks that break and a RabbitMQ that is killed: what was durable stays (journal-chaos.ts). */
import { randomInt, randomUUID } from 'node:crypto'
import { test } from 'node:test'
import { findRabbitmq, startRabbitmq } from '../../scripts/brokers/rabbitmq.ts'
import { openRabbitmqJournal } from '../../src/journals/rabbitmq.ts'
import { runChaos } from './journal-chaos.ts'

/** SLUICE_CHAOS_SEED replays the faults of a run, SLUICE_CHAOS_ROUNDS makes it longer. */
const seed = Number(process.env['SLUICE_CHAOS_SEED'] ?? randomInt(2 ** 31))
const rounds = Number(process.env['SLUICE_CHAOS_ROUNDS'] ?? 10)

const skip = findRabbitmq() === null ? 'RabbitMQ is missing' : false

test('what was durable on RabbitMQ stays, once and in order, whatever breaks', { skip }, async (t) => {
  await using rabbitmq = await startRabbitmq()
  const namespace = `chaos-${randomUUID().slice(0, 8)}`
  t.diagnostic(`seed ${seed}, ${rounds} faults`)
  const url = new URL(rabbitmq.url)
  // Short segments, so that faults meet the steps from one to the next.
  url.searchParams.set('segmentBytes', '2000')
  const figures = await runChaos({
    seed,
    rounds,
    url,
    broker: rabbitmq.isOurs ? rabbitmq : null,
    open: (through) => openRabbitmqJournal({ url: through, namespace, connectMs: 60_000 }),
  })
  t.diagnostic(JSON.stringify(figures))
})
