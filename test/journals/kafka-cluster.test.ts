/** Three brokers, one journal: a leader that is killed or paused costs time, and nothing that was durable. */
import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { after, before, describe, type TestContext, test } from 'node:test'
import { Admin } from '@platformatic/kafka'
import { waitUntil } from '../../scripts/brokers/broker.ts'
import { findKafka, type Kafka, type KafkaNode, startKafka } from '../../scripts/brokers/kafka.ts'
import { isSluiceError } from '../../src/errors.ts'
import type { Journal } from '../../src/journals/contract.ts'
import { checkKafka, openKafkaJournal } from '../../src/journals/kafka.ts'
import { appendTexts, claim, entry, readAll, within } from './journal-suite.ts'

const version = await findKafka()
const isBorrowed = process.env['SLUICE_KAFKA_URL'] !== undefined
const skip = version === null ? 'Kafka is missing' : isBorrowed ? 'SLUICE_KAFKA_URL is somebody else’s' : false

describe('the journal on three Kafka brokers', { skip }, () => {
  let kafka: Kafka

  before(async () => {
    kafka = await startKafka({ nodes: 3 })
  })
  after(async () => kafka?.[Symbol.asyncDispose]())

  async function open(t: TestContext, namespace: string, copies?: number): Promise<Journal> {
    const journal = await openKafkaJournal({ url: new URL(kafka.url), namespace, copies, connectMs: 60_000 })
    t.after(() => journal.close())
    return journal
  }

  async function leaderOf(journal: Journal): Promise<KafkaNode> {
    let leader: KafkaNode | undefined
    await waitUntil('all replicas are in sync', async () => {
      const { status, facts } = await journal.health()
      leader = kafka.nodes.find(({ id }) => `${id}` === facts['leader'])
      return status === 'ok' && leader !== undefined
    })
    ok(leader)
    return leader
  }

  test('two copies are kept, more than there are brokers are refused, and the check says so', async (t) => {
    const journal = await open(t, 'copies')
    equal(journal.abilities.copies, 2)
    const findings = await checkKafka({ url: new URL(kafka.url), namespace: 'copies' })
    ok(findings.some(({ severity, title }) => severity === 'ok' && title.includes('3 replicas, min.insync.replicas=2')))
    await journal.close()
    const three = { url: new URL(kafka.url), namespace: 'copies', copies: 3 }
    await rejects(openKafkaJournal(three), { code: 'UNSUPPORTED', message: /acknowledges with 2/ })
    await rejects(openKafkaJournal({ ...three, namespace: 'four', copies: 4 }), {
      code: 'UNSUPPORTED',
      message: /3 brokers/,
    })
  })

  for (const fault of ['kill', 'pause'] as const)
    test(`nothing durable is lost when the leader of the journal stops (${fault}) under appends`, async (t) => {
      const journal = await open(t, `leader-${fault}`)
      const box = await journal.openMailbox(() => {})
      await box.serveOwner(true)
      const grant = await claim(journal)
      const durable: string[] = []
      let isOver = false
      const appending = (async () => {
        while (!isOver)
          durable.push(
            ...(await appendTexts(journal, grant, `entry ${durable.length}`)).map(() => `entry ${durable.length}`),
          )
      })()
      await waitUntil('appends are under way', () => durable.length > 20)
      const leader = await leaderOf(journal)
      const sofar = durable.length
      const began = performance.now()
      if (fault === 'kill') await leader.kill()
      else leader.pause()
      await waitUntil('another broker leads, and appends go on', () => durable.length > sofar + 20)
      t.diagnostic(`appends went on after ${Math.round(performance.now() - began)} ms`)
      await waitUntil('health says what is away', async () => (await journal.health()).status === 'degraded')
      isOver = true
      await appending
      deepEqual(await readAll(journal, grant), ['claim', ...durable])
      ok(!grant.signal.aborted)
      if (fault === 'kill') await leader.restart()
      else leader.resume()
      await leaderOf(journal)
      await journal.close()
    })

  test('with fewer replicas in sync than promised nothing is kept, and it says that it is full', async (t) => {
    const [journal, strict] = [await open(t, 'short'), await open(t, 'strict', 3)]
    const [grant, strictGrant] = [await claim(journal), await claim(strict)]
    const leads = [await leaderOf(journal), await leaderOf(strict)]
    // A majority of the controllers stays, and so do both leaders.
    const other = kafka.nodes.find((node) => !leads.includes(node)) as KafkaNode
    await other.kill()
    t.after(() => other.restart())
    // Until then an append may reach a replica too few, and nobody knows what comes of it.
    const leader = new URL(leads[1]?.url ?? '')
    await waitUntil('the leader knows', async () => (await countInSync(leader, 'strict.journal')) === 2)
    equal((await strict.health()).status, 'failed')
    const outcome = await strict.append(strictGrant, [entry('a')])
    ok(outcome.status === 'full' && outcome.reason.includes('in sync'), JSON.stringify(outcome))
    ok(!strictGrant.signal.aborted)
    equal((await journal.append(grant, [entry('b')])).status, 'durable')
    await other.restart()
    await waitUntil(
      'there is room again',
      async () => (await strict.append(strictGrant, [entry('c')])).status === 'durable',
    )
    deepEqual(await readAll(strict, strictGrant), ['claim', 'c'])
    await strict.close()
    await journal.close()
  })

  test('a journal is handed over while a broker is away', async (t) => {
    const [first, second] = [await open(t, 'handed'), await open(t, 'handed')]
    const grant = await claim(first)
    await appendTexts(first, grant, 'a')
    const leader = await leaderOf(first)
    await leader.kill()
    t.after(() => leader.restart())
    const taking = second.own(within())
    await first.close()
    const taken = await taking
    ok(isSluiceError(grant.signal.reason, 'CLOSED'))
    await appendTexts(second, taken, 'claim 2')
    deepEqual(await readAll(second, taken), ['claim', 'a', 'claim 2'])
  })
})

/** As a broker sees it. */
async function countInSync(broker: URL, topic: string): Promise<number> {
  const admin = new Admin({ clientId: 'test', bootstrapBrokers: [broker.host] })
  try {
    const { topics } = await admin.metadata({ topics: [topic] })
    return topics.get(topic)?.partitions[0]?.isr.length ?? 0
  } finally {
    await admin.close()
  }
}
