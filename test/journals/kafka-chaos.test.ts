/** Owners that come and go, networks that break and a Kafka that is killed: what was durable stays (journal-chaos.ts). */
import { randomInt, randomUUID } from 'node:crypto'
import { test } from 'node:test'
import { findKafka, startKafka } from '../../scripts/brokers/kafka.ts'
import { openKafkaJournal } from '../../src/journals/kafka.ts'
import { runChaos } from './journal-chaos.ts'

/** SLUICE_CHAOS_SEED replays the faults of a run, SLUICE_CHAOS_ROUNDS makes it longer. */
const seed = Number(process.env['SLUICE_CHAOS_SEED'] ?? randomInt(2 ** 31))
const rounds = Number(process.env['SLUICE_CHAOS_ROUNDS'] ?? 8)

const skip = (await findKafka()) === null ? 'Kafka is missing' : false

test('what was durable on Kafka stays, once and in order, whatever breaks', { skip }, async (t) => {
  await using kafka = await startKafka()
  const namespace = `chaos-${randomUUID().slice(0, 8)}`
  t.diagnostic(`seed ${seed}, ${rounds} faults`)
  const url = new URL(kafka.url)
  // Each process is behind a proxy, at another port than the one that Kafka gives of itself.
  url.searchParams.set('advertised', 'ignore')
  const figures = await runChaos({
    seed,
    rounds,
    url,
    broker: kafka.isOurs ? kafka : null,
    open: (through) => openKafkaJournal({ url: through, namespace, connectMs: 60_000 }),
  })
  t.diagnostic(JSON.stringify(figures))
})
