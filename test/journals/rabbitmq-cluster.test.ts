/** The journal on a cluster of three: it says on how many nodes a commit is, and loses nothing with one of them. */
import { deepEqual, equal, ok } from 'node:assert/strict'
import { after, before, describe, type TestContext, test } from 'node:test'
import { waitUntil } from '../../scripts/brokers/broker.ts'
import { findRabbitmq, type Rabbitmq, startRabbitmq } from '../../scripts/brokers/rabbitmq.ts'
import type { Journal } from '../../src/journals/contract.ts'
import { openRabbitmqJournal } from '../../src/journals/rabbitmq.ts'

const skip =
  findRabbitmq() === null
    ? 'RabbitMQ is missing'
    : process.env['SLUICE_RABBITMQ_URL'] !== undefined
      ? 'nodes of a RabbitMQ that is not ours are not killed'
      : false
const NEVER = new AbortController().signal

describe('the journal on three nodes of RabbitMQ', { skip }, () => {
  let cluster: Rabbitmq
  before(async () => {
    cluster = await startRabbitmq({ nodes: 3 })
  })
  after(() => cluster.stop())

  async function openJournal(t: TestContext, namespace: string): Promise<Journal> {
    const url = new URL(cluster.fullUrl)
    const journal = await openRabbitmqJournal({ url, namespace, copies: 2, connectMs: 60_000 })
    t.after(() => journal.close())
    return journal
  }

  test('the node that leads the stream is killed under appends: nothing durable is lost, and it goes on without it', async (t) => {
    const journal = await openJournal(t, 'cluster')
    equal(journal.abilities.copies, 2)
    let grant = await journal.own(NEVER)
    equal((await journal.append(grant, [Buffer.from('claim')])).status, 'durable')
    const durable: string[] = ['claim']
    const unknown = new Set<string>()
    let isOver = false
    const appending = (async () => {
      for (let number = 0; !isOver; number++) {
        const text = `entry ${number}`
        const outcome = await journal.append(grant, [Buffer.from(text)]).catch(() => null)
        if (outcome?.status === 'durable') durable.push(text)
        else {
          unknown.add(text)
          grant = await journal.own(NEVER)
        }
      }
    })()
    await waitUntil('some are durable', () => durable.length > 100)
    const { leader } = (await journal.health()).facts
    const node = cluster.nodes.find(({ name }) => name === leader)
    ok(node !== undefined, `${leader} leads`)
    await node.kill()
    const before = durable.length
    await waitUntil('it goes on', () => durable.length > before + 100, { withinMs: 120_000 })
    const health = await journal.health()
    await node.restart()
    const alone = durable.length
    await waitUntil('it goes on with all', () => durable.length > alone + 20, { withinMs: 120_000 })
    isOver = true
    await appending
    const read: string[] = []
    for await (const { bytes } of journal.replay(grant)) read.push(Buffer.from(bytes).toString())
    deepEqual(
      read.filter((text) => !unknown.has(text)),
      durable,
    )
    // The node that was killed may be the one whose management API is asked.
    equal(health.status, 'degraded', health.reasons.join(' '))
    t.diagnostic(`${durable.length} durable, ${unknown.size} unknown`)
  })
})
