/** What is particular to Kafka: fencing by places, outcomes by sequence numbers, faults of a real broker. */
import { strict as assert } from 'node:assert'
import { readFileSync, writeFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import {
  Admin,
  ConfigResourceTypes,
  Connection,
  IncrementalAlterConfigOperationTypes,
  Producer,
} from '@platformatic/kafka'
import { findFreePort, waitUntil } from '../../scripts/brokers/broker.ts'
import { findKafka, type Kafka, startKafka } from '../../scripts/brokers/kafka.ts'
import type { Grant, Journal, JournalOptions } from '../../src/journals/contract.ts'
import { checkKafka, openKafkaJournal } from '../../src/journals/kafka.ts'
import { type KafkaProxy, openKafkaProxy } from './kafka-proxy.ts'

const version = await findKafka()
const isBorrowed = process.env['SLUICE_KAFKA_URL'] !== undefined
const skip = version === null ? 'Kafka is missing' : isBorrowed ? 'SLUICE_KAFKA_URL is somebody else’s' : false

const never = new AbortController().signal
const bytes = (text: string): Uint8Array => Buffer.from(text)

async function readAll(journal: Journal, grant: Grant): Promise<string[]> {
  const texts: string[] = []
  for await (const entry of journal.replay(grant)) texts.push(Buffer.from(entry.bytes).toString())
  return texts
}

async function appendDurably(journal: Journal, grant: Grant, ...texts: string[]): Promise<readonly string[]> {
  const outcome = await journal.append(grant, texts.map(bytes))
  assert.equal(outcome.status, 'durable')
  return outcome.status === 'durable' ? outcome.places : []
}

describe('the journal on Kafka', { skip }, () => {
  let kafka: Kafka
  let proxy: KafkaProxy
  let names = 0
  const optionsFor = (namespace: string, url = kafka.url): JournalOptions => ({
    url: new URL(url),
    namespace,
    connectMs: 30_000,
  })
  const freshName = () => `test-${++names}`
  const proxiedUrl = () => `kafka://127.0.0.1:${proxy.port}?advertised=ignore`

  before(async () => {
    kafka = await startKafka()
    proxy = await openKafkaProxy(Number(new URL(kafka.url).port))
  })

  after(async () => {
    await proxy?.close()
    await kafka?.[Symbol.asyncDispose]()
  })

  test('letters that are sent while the first connection is made go over it, and closing leaves none open', async () => {
    const journal = await openKafkaJournal(optionsFor(freshName(), proxiedUrl()))
    const box = await journal.openMailbox(() => {})
    const first = box.send('all', bytes('first'))
    // By now the first is under way, and so this one is not in its batch.
    await new Promise((resolve) => setImmediate(resolve))
    await Promise.all([first, box.send('all', bytes('second'))])
    const { connections } = proxy
    await journal.close()
    await waitUntil('all connections are closed', () => proxy.connections === 0, { withinMs: 10_000 })
    // One to read letters, one to write them.
    assert.equal(connections, 2)
  })

  test('an owner that froze and appends later is told that it lost, and what it left is overlooked', async () => {
    const namespace = freshName()
    const old = await openKafkaJournal(optionsFor(namespace, proxiedUrl()))
    const first = await old.own(never)
    await appendDurably(old, first, 'claim 1', 'a')
    proxy.freeze()
    const late = old.append(first, [bytes('late')])
    const next = await openKafkaJournal(optionsFor(namespace))
    const second = await next.own(never)
    assert.ok(second.epoch > first.epoch)
    await appendDurably(next, second, 'claim 2')
    proxy.thaw()
    assert.deepEqual(await late, { status: 'lost' })
    assert.ok(first.signal.aborted)
    assert.deepEqual(await old.append(first, [bytes('later')]), { status: 'lost' })
    await appendDurably(next, second, 'b')
    assert.ok(!second.signal.aborted)
    assert.deepEqual(await readAll(next, second), ['claim 1', 'a', 'claim 2', 'b'])
    await old.close()
    await next.close()
  })

  test('an idle owner that froze hears that another took the journal over', async () => {
    const namespace = freshName()
    const old = await openKafkaJournal(optionsFor(namespace, proxiedUrl()))
    const first = await old.own(never)
    proxy.freeze()
    const next = await openKafkaJournal(optionsFor(namespace))
    await next.own(never)
    proxy.thaw()
    await waitUntil('the grant ended', () => first.signal.aborted)
    await old.close()
    await next.close()
  })

  for (const fault of ['cut-request', 'cut-answer'] as const)
    test(`an append whose connection breaks (${fault}, three times) is stored once, and found out`, async () => {
      const journal = await openKafkaJournal(optionsFor(freshName(), proxiedUrl()))
      const grant = await journal.own(never)
      await appendDurably(journal, grant, 'claim')
      const before = proxy.hits
      proxy.hit('.journal', fault, 3)
      await appendDurably(journal, grant, 'a', 'b')
      assert.equal(proxy.hits, before + 3)
      await appendDurably(journal, grant, 'c')
      assert.deepEqual(await readAll(journal, grant), ['claim', 'a', 'b', 'c'])
      await journal.close()
    })

  test('letters go on after the connection broke', async () => {
    const journal = await openKafkaJournal(optionsFor(freshName(), proxiedUrl()))
    const letters: string[] = []
    const box = await journal.openMailbox((letter) => letters.push(Buffer.from(letter).toString()))
    proxy.hit('.letters', 'cut-answer')
    await box.send(box.address, bytes('one'))
    await box.send('all', bytes('two'))
    await box.send('owner', bytes('for nobody'))
    await waitUntil('letters came', () => letters.includes('one') && letters.includes('two'))
    assert.ok(!letters.includes('for nobody'))
    await journal.close()
  })

  test('entries that together are longer than a batch are appended in order', async () => {
    const journal = await openKafkaJournal(optionsFor(freshName()))
    const grant = await journal.own(never)
    const { maxEntryBytes } = journal.abilities
    const entries = Array.from({ length: 6 }, (_, at) => new Uint8Array(maxEntryBytes).fill(at))
    assert.equal((await journal.append(grant, entries)).status, 'durable')
    let at = 0
    for await (const entry of journal.replay(grant)) {
      assert.equal(entry.bytes.byteLength, maxEntryBytes)
      assert.ok(entry.bytes[0] === at && entry.bytes[maxEntryBytes - 1] === at)
      at++
    }
    assert.equal(at, 6)
    await journal.close()
  })

  test('a flipped byte in a segment is found by replay', async () => {
    const namespace = freshName()
    const journal = await openKafkaJournal(optionsFor(namespace))
    const grant = await journal.own(never)
    await appendDurably(journal, grant, 'claim', 'a text to be damaged')
    const file = `${kafka.folder}/1/data/${namespace}.journal-0/00000000000000000000.log`
    const segment = readFileSync(file)
    const at = segment.indexOf('to be damaged')
    segment[at] = 0x54
    writeFileSync(file, segment)
    await assert.rejects(readAll(journal, grant), { code: 'CORRUPT' })
    await journal.close()
  })

  test('nothing is acknowledged behind a record that somebody else wrote into the journal', async () => {
    const namespace = freshName()
    const journal = await openKafkaJournal(optionsFor(namespace))
    const grant = await journal.own(never)
    await appendDurably(journal, grant, 'claim')
    const producer = new Producer({ clientId: 'other', bootstrapBrokers: [new URL(kafka.url).host] })
    await producer.send({ messages: [{ topic: `${namespace}.journal`, value: Buffer.from('foreign') }], acks: -1 })
    await producer.close()
    await assert.rejects(journal.append(grant, [bytes('job')]), { code: 'FOREIGN_DATA' })
    assert.equal(grant.signal.aborted, true)
    await journal.close()
  })

  test('an answer without records, as of a leader that was just chosen, is not taken for damage', async (t) => {
    const journal = await openKafkaJournal(optionsFor(freshName()))
    const grant = await journal.own(never)
    await appendDurably(journal, grant, 'claim', 'one')
    let empty = 1
    const { send } = Connection.prototype
    t.mock.method(Connection.prototype, 'send', function (this: Connection, ...args: Parameters<typeof send>) {
      const [apiKey] = args
      const done = args.at(-1) as (error: null, value: unknown) => void
      if (apiKey === 1 && empty-- > 0) setImmediate(done, null, { highWatermark: 0n, batches: Buffer.alloc(0) })
      else send.apply(this, args)
    })
    assert.deepEqual(await readAll(journal, grant), ['claim', 'one'])
    await journal.close()
  })

  test('a topic that was deleted and made anew ends the grant', async () => {
    const namespace = freshName()
    const journal = await openKafkaJournal(optionsFor(namespace))
    const grant = await journal.own(never)
    await appendDurably(journal, grant, 'claim', 'a')
    await using admin = openAdmin(kafka)
    await admin.deleteTopics({ topics: [`${namespace}.journal`] })
    await waitUntil('the topic is there anew', async () => {
      await admin.createTopics({ topics: [`${namespace}.journal`], partitions: 1, replicas: 1 })
      return true
    })
    await assert.rejects(journal.append(grant, [bytes('b')]), { code: 'ENGINE_CHANGED' })
    assert.ok(grant.signal.aborted)
    await journal.close()
  })

  test('topics that cannot keep the promises are refused, each with its remedy', async () => {
    const namespace = freshName()
    await using admin = openAdmin(kafka)
    await admin.createTopics({
      topics: [`${namespace}.journal`],
      partitions: 1,
      replicas: 1,
      configs: [
        { name: 'retention.ms', value: '3600000' },
        { name: 'cleanup.policy', value: 'compact' },
        { name: 'max.message.bytes', value: '1000000' },
        { name: 'unclean.leader.election.enable', value: 'true' },
      ],
    })
    const findings = await checkKafka(optionsFor(namespace))
    const refused = findings.filter(({ severity }) => severity === 'refuse')
    for (const words of [
      'retention.ms=3600000',
      'cleanup.policy=compact',
      'max.message.bytes=1000000',
      'unclean.leader',
    ])
      assert.ok(
        refused.some(({ title, remedy }) => title.includes(words) && remedy !== ''),
        words,
      )
    await assert.rejects(openKafkaJournal(optionsFor(namespace)), { code: 'UNSUPPORTED', message: /retention\.ms=-1/ })
  })

  test('a topic of our name with other partitions or records is somebody else’s', async () => {
    const [parted, written] = [freshName(), freshName()]
    await using admin = openAdmin(kafka)
    await admin.createTopics({ topics: [`${parted}.letters`], partitions: 3, replicas: 1 })
    await assert.rejects(openKafkaJournal(optionsFor(parted)), { code: 'FOREIGN_DATA', message: /3 partitions/ })
    await admin.createTopics({ topics: [`${written}.journal`], partitions: 1, replicas: 1 })
    const producer = new Producer({ clientId: 'other', bootstrapBrokers: [new URL(kafka.url).host] })
    await producer.send({ messages: [{ topic: `${written}.journal`, value: Buffer.from('hello') }] })
    await producer.close()
    await assert.rejects(openKafkaJournal(optionsFor(written)), { code: 'FOREIGN_DATA', message: /did not|not one/ })
  })

  test('copies and durability that are not there are refused', async () => {
    const namespace = freshName()
    await assert.rejects(openKafkaJournal({ ...optionsFor(namespace), copies: 2 }), {
      code: 'UNSUPPORTED',
      message: /2 copies were asked for/,
    })
    const journal = await openKafkaJournal(optionsFor(namespace))
    assert.deepEqual([journal.abilities.durability, journal.abilities.copies], ['os', 1])
    await journal.close()
    const disk = { ...optionsFor(namespace), durability: 'disk' as const }
    await assert.rejects(openKafkaJournal(disk), { code: 'UNSUPPORTED', message: /flush\.messages=1/ })
    const other = await openKafkaJournal({ ...optionsFor(freshName()), durability: 'disk' })
    assert.equal(other.abilities.durability, 'disk')
    await other.close()
  })

  test('a setting that is changed on the live topic is refused at the next opening', async () => {
    const namespace = freshName()
    await (await openKafkaJournal(optionsFor(namespace))).close()
    await using admin = openAdmin(kafka)
    await admin.incrementalAlterConfigs({
      resources: [
        {
          resourceType: ConfigResourceTypes.TOPIC,
          resourceName: `${namespace}.journal`,
          configs: [
            { name: 'retention.bytes', configOperation: IncrementalAlterConfigOperationTypes.SET, value: '1000000' },
          ],
        },
      ],
      validateOnly: false,
    })
    await waitUntil('it is refused', async () =>
      (await checkKafka(optionsFor(namespace))).some(({ title }) => title.includes('retention.bytes=1000000')),
    )
    await assert.rejects(openKafkaJournal(optionsFor(namespace)), {
      code: 'UNSUPPORTED',
      message: /retention\.bytes=-1/,
    })
  })

  test('a broker that is not there is unreachable, within the time that was given', async () => {
    const port = await findFreePort()
    const url = `kafka://me:hush@127.0.0.1:${port}`
    await assert.rejects(openKafkaJournal({ url: new URL(url), namespace: 'none', connectMs: 500 }), (error: Error) => {
      assert.equal((error as { code?: string }).code, 'UNREACHABLE')
      assert.ok(!/hush/.test(`${error.message} ${error.stack} ${JSON.stringify(error)}`))
      return true
    })
  })

  test('a URL that says something else than Kafka knows is refused', async () => {
    for (const query of ['?retries=5', '?tls=maybe', '?mechanism=plain', '?tls=true&ca=/nowhere.pem'])
      await assert.rejects(openKafkaJournal(optionsFor('none', `kafka://127.0.0.1:1/${query}`)), {
        code: 'INVALID_OPTION',
      })
  })
})

describe('credentials and TLS of Kafka', { skip }, () => {
  test('credentials and the certificate are checked by both sides', async () => {
    await using kafka = await startKafka({ sasl: 'SCRAM-SHA-256', tls: true })
    const namespace = 'secret'
    const open = (change: (url: URL) => void): Promise<Journal> => {
      const url = new URL(kafka.url)
      change(url)
      return openKafkaJournal({ url, namespace, connectMs: 5_000 })
    }
    const journal = await open(() => {})
    const grant = await journal.own(never)
    await appendDurably(journal, grant, 'claim')
    await journal.close()
    await assert.rejects(
      open((url) => {
        url.password = 'not-it'
      }),
      (error: Error) => {
        assert.equal((error as { code?: string }).code, 'UNAUTHENTICATED')
        assert.ok(!/not-it/.test(`${error.message} ${error.stack} ${JSON.stringify(error)}`))
        return true
      },
    )
    await assert.rejects(
      open((url) => url.searchParams.delete('ca')),
      { code: 'UNREACHABLE', message: /TLS/ },
    )
    await assert.rejects(
      open((url) => url.searchParams.delete('tls')),
      { code: 'UNREACHABLE' },
    )
    await assert.rejects(
      open((url) => url.searchParams.set('mechanism', 'plain')),
      { code: 'UNAUTHENTICATED' },
    )
  })

  test('plain credentials are taken', async () => {
    await using kafka = await startKafka({ sasl: 'PLAIN' })
    const journal = await openKafkaJournal({ url: new URL(kafka.url), namespace: 'plain', connectMs: 30_000 })
    assert.equal((await journal.health()).status, 'ok')
    await journal.close()
    const url = new URL(kafka.url)
    url.username = ''
    url.password = ''
    url.search = ''
    await assert.rejects(openKafkaJournal({ url, namespace: 'plain', connectMs: 3_000 }), { code: 'UNREACHABLE' })
  })
})

function openAdmin(kafka: Kafka): Admin & AsyncDisposable {
  const admin = new Admin({ clientId: 'test', bootstrapBrokers: [new URL(kafka.url).host] })
  return Object.assign(admin, { [Symbol.asyncDispose]: () => admin.close() })
}
