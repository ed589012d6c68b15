/** The journal on a real RabbitMQ: what is special about it, and what its server, its configuration and its neighbours can do to it. */
import { deepEqual, equal, match, ok, rejects } from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, before, describe, type TestContext, test } from 'node:test'
import { connect } from 'amqplib'
import { waitUntil } from '../../scripts/brokers/broker.ts'
import { findRabbitmq, type Rabbitmq, startRabbitmq } from '../../scripts/brokers/rabbitmq.ts'
import { isSluiceError } from '../../src/errors.ts'
import { createRandom } from '../../src/host/host.ts'
import type { Grant, Journal, JournalOptions } from '../../src/journals/contract.ts'
import { closeChannel, openChannel } from '../../src/journals/rabbitmq/link.ts'
import { writeMark } from '../../src/journals/rabbitmq/order.ts'
import { checkRabbitmq, openRabbitmqJournal } from '../../src/journals/rabbitmq.ts'
import { openProxy, type Proxy as TcpProxy } from '../support/tcp-proxy.ts'

const version = findRabbitmq()
const NEVER = new AbortController().signal
const isCode = (code: string) => (error: unknown) => isSluiceError(error, code as 'UNKNOWN')

let rabbitmq: Rabbitmq

/** A test of its own is a namespace of its own. */
function createNamespace(): string {
  return `test-${randomUUID().slice(0, 8)}`
}

async function openJournal(t: TestContext, options: Partial<JournalOptions> = {}): Promise<Journal> {
  const journal = await openRabbitmqJournal({
    url: new URL(rabbitmq.fullUrl),
    namespace: createNamespace(),
    ...options,
  })
  t.after(() => journal.close())
  return journal
}

async function openThrough(t: TestContext, namespace: string): Promise<{ journal: Journal; proxy: TcpProxy }> {
  const proxy = await openProxy(new URL(rabbitmq.url))
  t.after(() => proxy.close())
  const url = new URL(rabbitmq.fullUrl)
  url.port = new URL(proxy.url).port
  return { journal: await openJournal(t, { url, namespace }), proxy }
}

async function own(journal: Journal, claim = 'claim'): Promise<Grant> {
  const grant = await journal.own(NEVER)
  deepEqual((await journal.append(grant, [Buffer.from(claim)])).status, 'durable')
  return grant
}

async function replay(journal: Journal, grant: Grant): Promise<string[]> {
  const texts: string[] = []
  for await (const { bytes } of journal.replay(grant)) texts.push(Buffer.from(bytes).toString())
  return texts
}

describe('the journal on RabbitMQ', { skip: version === null ? 'RabbitMQ is missing' : false }, () => {
  before(async () => {
    rabbitmq = await startRabbitmq()
  })
  after(() => rabbitmq.stop())

  test('entries of any size come back as they were, in order, at the places that were told', async (t) => {
    const journal = await openJournal(t)
    const grant = await own(journal)
    const sizes = [0, 1, 2, 131_000, 131_072, journal.abilities.maxEntryBytes]
    const entries = sizes.map((size, at) => Buffer.alloc(size, at + 1))
    const outcome = await journal.append(grant, entries)
    ok(outcome.status === 'durable')
    const read = []
    for await (const entry of journal.replay(grant)) read.push(entry)
    deepEqual(
      read.slice(1).map(({ place }) => place),
      outcome.places,
    )
    for (const [at, entry] of entries.entries())
      ok(entry.equals(read[at + 1]?.bytes ?? Buffer.alloc(0)), `${sizes[at]}`)
  })

  test('what comes back with other bytes than were published is not taken for durable', async (t) => {
    const namespace = createNamespace()
    const journal = await openJournal(t, { namespace })
    const grant = await own(journal)
    // As a message that was taken back when the broker was full, and came late all the same: it has the number of the next.
    const model = await connect(rabbitmq.url)
    const channel = await model.createConfirmChannel()
    const messageId = writeMark({ kind: 'entry', epoch: grant.epoch, number: 1 })
    channel.sendToQueue(`${namespace}.journal.0`, Buffer.from('taken back'), { messageId, deliveryMode: 2 })
    await channel.waitForConfirms()
    const outcome = await journal.append(grant, [Buffer.from('another')]).catch((error) => error)
    ok(isCode('UNKNOWN')(outcome) || outcome.status === 'lost', JSON.stringify(outcome))
    ok(grant.signal.aborted)
    await model.close()
    deepEqual(await replay(journal, await own(journal, 'again')), ['claim', 'taken back', 'again'])
  })

  test('the exchange of letters, deleted by somebody, is made again, and letters come again', async (t) => {
    const namespace = createNamespace()
    let heard = 0
    const box = await (await openJournal(t, { namespace })).openMailbox(() => heard++)
    const from = await (await openJournal(t, { namespace })).openMailbox(() => {})
    const model = await connect(rabbitmq.url)
    await (await model.createChannel()).deleteExchange(`${namespace}.letters`)
    await model.close()
    await waitUntil(
      'a letter came',
      async () => {
        // Either side finds out when it sends.
        await Promise.all([from.send(box.address, Buffer.from('one')), box.send('all', Buffer.from('two'))])
        return heard > 1
      },
      { withinMs: 15_000 },
    )
  })

  test('whoever becomes the owner while its connection is made again hears what is for the owner', async (t) => {
    const namespace = createNamespace()
    const { journal, proxy } = await openThrough(t, namespace)
    const heard = new Set<string>()
    const mailbox = await journal.openMailbox((letter) => heard.add(Buffer.from(letter).toString()))
    const other = await openJournal(t, { namespace })
    const sender = await other.openMailbox(() => {})
    // Each piece takes a while, so that it falls into the setting up of the mailbox.
    proxy.delay(10)
    for (let round = 0; round < 14; round++) {
      await mailbox.serveOwner(false)
      proxy.cutAll()
      await new Promise((resolve) => setTimeout(resolve, 100 + round * 40))
      await mailbox.serveOwner(true)
      await waitUntil('a letter for the owner comes', async () => {
        await sender.send('owner', Buffer.from(`${round}`))
        return heard.has(`${round}`)
      })
    }
  })

  test('the end of a channel is not waited for once its connection is gone, and comes in good order else', async (t) => {
    const proxy = await openProxy(new URL(rabbitmq.url))
    t.after(() => proxy.close())
    const url = new URL(rabbitmq.url)
    url.port = new URL(proxy.url).port
    const model = await connect(url.href)
    model.on('error', () => {})
    await closeChannel(await openChannel(model))
    const channel = await openChannel(model)
    proxy.freeze()
    const closing = closeChannel(channel)
    proxy.cutAll()
    await rejects(closing, /connection was closed/)
  })

  test('segments follow one another, are deleted when nothing of them is needed, and the next owner goes on in the last', async (t) => {
    const namespace = createNamespace()
    const url = new URL(rabbitmq.fullUrl)
    url.searchParams.set('segmentBytes', '20000')
    const journal = await openJournal(t, { url, namespace })
    const grant = await own(journal)
    const places: string[] = []
    await waitUntil('there are five segments', async () => {
      const outcome = await journal.append(grant, [Buffer.alloc(1_000, places.length & 0xff)])
      ok(outcome.status === 'durable')
      places.push(...outcome.places)
      return places.at(-1)?.startsWith('4:') === true
    })
    const kept = places.findIndex((place) => place.startsWith('3:'))
    await journal.truncate(grant, places[kept + 2] ?? '')
    await journal.close()
    const next = await openJournal(t, { url, namespace })
    const nextGrant = await own(next)
    const read = []
    for await (const { place } of next.replay(nextGrant)) read.push(place)
    deepEqual(read.slice(0, -1), places.slice(kept), 'whole segments before the place are gone, and no more')
    equal(read.at(-1)?.split(':')[0], '4')
    const names = await listQueues(namespace)
    ok(!names.includes(`${namespace}.journal.2`) && names.includes(`${namespace}.journal.3`), names.join())
  })

  test('what a process left when it died between two steps is cleared away by the next owner', async (t) => {
    const namespace = createNamespace()
    const url = new URL(rabbitmq.fullUrl)
    url.searchParams.set('segmentBytes', '20000')
    const journal = await openJournal(t, { url, namespace })
    const grant = await own(journal)
    let place = ''
    await waitUntil('there are three segments', async () => {
      const outcome = await journal.append(grant, [Buffer.alloc(4_000)])
      ok(outcome.status === 'durable')
      place = outcome.places[0] ?? ''
      return place.startsWith('2:')
    })
    await journal.close()
    // As a truncation does it, up to before the deletes.
    await publish(`${namespace}.catalog`, { messageId: 'sluice1.catalog' }, JSON.stringify({ id: 'x', first: 2 }))
    const next = await openJournal(t, { url, namespace })
    const nextGrant = await own(next)
    await waitUntil('the segments are gone', async () => {
      const names = await listQueues(namespace)
      return !names.includes(`${namespace}.journal.0`) && !names.includes(`${namespace}.journal.1`)
    })
    const read = []
    for await (const entry of next.replay(nextGrant)) read.push(entry.place)
    ok(read.includes(place) && read.every((one) => one.startsWith('2:')))
  })

  test('a connection that breaks within an append: the outcome is found out, and it is stored once', async (t) => {
    const { journal, proxy } = await openThrough(t, createNamespace())
    const grant = await own(journal)
    const expected = ['claim']
    for (const fault of ['cut-answer', 'cut-request', 'cut-within-answer', 'cut-answer'] as const) {
      proxy.next(fault)
      const texts = [`${fault} ${expected.length}`, `${fault} ${expected.length + 1}`]
      const outcome = await journal.append(grant, texts.map(Buffer.from))
      equal(outcome.status, 'durable', fault)
      expected.push(...texts)
    }
    for (let round = 0; round < 3; round++) {
      const text = `all cut ${round}`
      const appending = journal.append(grant, [Buffer.from(text)])
      proxy.cutAll()
      equal((await appending).status, 'durable')
      expected.push(text)
    }
    equal(grant.signal.aborted, false, 'nobody else wanted it')
    deepEqual(await replay(journal, grant), expected)
  })

  test('owners that replace one another while connections break: what was durable is there once, in order, and nothing came after a later claim', async (t) => {
    const seed = Math.floor(Math.random() * 2 ** 31)
    t.diagnostic(`seed ${seed}`)
    const random = createRandom(seed)
    const namespace = createNamespace()
    const processes = await Promise.all([0, 1, 2].map(() => openThrough(t, namespace)))
    const stop = new AbortController()
    const durable: string[] = []
    const grants: number[] = []
    let lost = 0
    const live = async ({ journal, proxy }: { journal: Journal; proxy: TcpProxy }, name: number) => {
      while (!stop.signal.aborted) {
        const grant = await journal.own(stop.signal).catch(() => null)
        if (grant === null) return
        grants.push(grant.epoch)
        for (let number = 0; !stop.signal.aborted; number++) {
          const text = `${grant.epoch} ${name} ${number}`
          const appending = journal.append(grant, [Buffer.from(text)])
          if (random() < 0.05) proxy.cutAll()
          const outcome = await appending.catch(() => null)
          if (outcome?.status !== 'durable') {
            lost++
            break
          }
          durable.push(text)
        }
      }
    }
    const lives = processes.map(live)
    await waitUntil('there were thirty grants', () => grants.length >= 30, { withinMs: 120_000 })
    stop.abort(new Error('enough'))
    await Promise.all(lives)
    const judge = await openJournal(t, { namespace })
    for (const { journal } of processes) await journal.close()
    const read = await replay(judge, await own(judge, 'judge'))
    equal(new Set(read).size, read.length, 'nothing is there twice')
    const kept = new Set(read)
    deepEqual(
      durable.filter((text) => !kept.has(text)),
      [],
      'all that was durable is there',
    )
    const acknowledged = new Set(durable)
    const byEpoch = Map.groupBy(durable, (text) => text.split(' ')[0])
    for (const texts of byEpoch.values())
      deepEqual(
        read.filter((text) => acknowledged.has(text) && texts.includes(text)),
        texts,
      )
    const epochs = read.slice(0, -1).map((text) => Number(text.split(' ')[0]))
    deepEqual(
      epochs,
      epochs.toSorted((a, b) => a - b),
      'nothing of an earlier owner after a later one',
    )
    equal(new Set(grants).size, grants.length, 'no epoch was granted twice')
    t.diagnostic(`${durable.length} durable, ${grants.length} grants, ${lost} lost or unknown`)
  })

  describe('a server', { skip: process.env['SLUICE_RABBITMQ_URL'] !== undefined ? 'It is not ours' : false }, () => {
    for (const [what, short, roomy] of [
      ['memory', ['set_vm_memory_high_watermark', '0'], ['set_vm_memory_high_watermark', '0.6']],
      ['disk', ['set_disk_free_limit', '1000000GB'], ['set_disk_free_limit', '50MB']],
    ] as const) {
      test(`that is short of ${what} makes appends full, nothing of them is kept, and it goes on when there is room`, async (t) => {
        const journal = await openJournal(t)
        const grant = await own(journal)
        const box = await journal.openMailbox(() => {})
        await rabbitmq.control(...short)
        const tried: string[] = []
        try {
          await waitUntil('an append is full', async () => {
            const outcome = await journal.append(grant, [Buffer.from(`tried ${tried.length}`)])
            if (outcome.status === 'durable') tried.push(`tried ${tried.length}`)
            else ok(outcome.status === 'full' && outcome.reason.includes(what), JSON.stringify(outcome))
            return outcome.status === 'full'
          })
          const health = await journal.health()
          equal(health.status, 'degraded')
          match(health.reasons.join(' '), new RegExp(what))
          await box.send('all', Buffer.alloc(1_000))
        } finally {
          await rabbitmq.control(...roomy)
        }
        await waitUntil('an append is durable', async () => {
          return (await journal.append(grant, [Buffer.from('room')])).status === 'durable'
        })
        deepEqual(await replay(journal, grant), ['claim', ...tried, 'room'])
      })
    }

    test('whose alarm is on lets who waits for the journal leave off', async (t) => {
      const journal = await openJournal(t)
      const grant = await own(journal)
      await rabbitmq.control('set_vm_memory_high_watermark', '0')
      try {
        await waitUntil('an append is full', async () => {
          return (await journal.append(grant, [Buffer.from('tried')])).status === 'full'
        })
        const leaving = new AbortController()
        const owning = journal.own(leaving.signal)
        setImmediate(() => leaving.abort(new Error('enough')))
        await rejects(owning, /enough/)
      } finally {
        await rabbitmq.control('set_vm_memory_high_watermark', '0.6')
      }
      await own(journal, 'claim again')
    })

    test('that is killed under appends keeps all that was durable, and comes back to the same owner', async (t) => {
      const journal = await openJournal(t)
      const grant = await own(journal)
      const durable = ['claim']
      let isOver = false
      const appending = (async () => {
        for (let number = 0; !isOver; number++) {
          const outcome = await journal.append(grant, [Buffer.from(`entry ${number}`)])
          if (outcome.status !== 'durable') return outcome.status
          durable.push(`entry ${number}`)
        }
        return 'durable'
      })().catch((error: unknown) => error)
      await waitUntil('some are durable', () => durable.length > 200)
      await rabbitmq.kill()
      await rabbitmq.restart()
      const before = durable.length
      await waitUntil('more are durable, or it ended', () => durable.length > before + 20 || grant.signal.aborted)
      isOver = true
      const end = await appending
      const next = grant.signal.aborted ? await journal.own(NEVER) : grant
      if (next !== grant) equal((await journal.append(next, [Buffer.from('claim 2')])).status, 'durable')
      const read = await replay(journal, next)
      deepEqual(
        durable.filter((text) => !read.includes(text)),
        [],
        `ended with ${String(end)}`,
      )
      equal(new Set(read).size, read.length)
    })

    test('that is down at the start is UNREACHABLE within the time, and the password is in no message', async () => {
      const { url } = rabbitmq
      await rabbitmq.kill()
      const down = new URL(url)
      down.password = 'hidden-word'
      try {
        const started = performance.now()
        await rejects(
          openRabbitmqJournal({ url: down, namespace: createNamespace(), connectMs: 600 }),
          (error: Error) => isCode('UNREACHABLE')(error) && !JSON.stringify(error).includes('hidden-word'),
        )
        ok(performance.now() - started < 30_000)
      } finally {
        await rabbitmq.restart()
      }
    })
  })

  test('a URL that cannot be meant is INVALID_OPTION, and the password is in no message', async () => {
    for (const query of [
      'nonsense=1',
      'segmentBytes=few',
      'segmentBytes=10',
      'hosts=:::',
      'management=nowhere',
      'ca=/nowhere.pem',
    ]) {
      const url = new URL(`amqp://guest:hidden-word@127.0.0.1:1/?${query}`)
      await rejects(
        openRabbitmqJournal({ url, namespace: createNamespace() }),
        (error: Error) => isCode('INVALID_OPTION')(error) && !`${error.stack}`.includes('hidden-word'),
        query,
      )
    }
    const broken = new URL('amqps://guest:%zz@127.0.0.1:1/')
    await rejects(openRabbitmqJournal({ url: broken, namespace: createNamespace() }), isCode('INVALID_OPTION'))
  })

  test('wrong credentials, a virtual host that is not there, and rights that are missing are told as such', async (t) => {
    const wrong = new URL(rabbitmq.url)
    wrong.password = 'hidden-word'
    await rejects(
      openRabbitmqJournal({ url: wrong, namespace: createNamespace() }),
      (error: Error) => isCode('UNAUTHENTICATED')(error) && !`${error.message}${error.stack}`.includes('hidden-word'),
    )
    const elsewhere = new URL(rabbitmq.url)
    elsewhere.pathname = '/nowhere'
    await rejects(openRabbitmqJournal({ url: elsewhere, namespace: createNamespace() }), isCode('UNAUTHENTICATED'))
    if (!rabbitmq.isOurs) return t.diagnostic('rights are not tested on a RabbitMQ that is not ours')
    await rabbitmq.control('add_user', 'small', 'small')
    await rabbitmq.control('set_permissions', 'small', '^other', '^other', '^other')
    const small = new URL(rabbitmq.url)
    small.username = 'small'
    small.password = 'small'
    await rejects(openRabbitmqJournal({ url: small, namespace: createNamespace() }), isCode('UNAUTHENTICATED'))
  })

  test('what stands there under our names and is not ours is FOREIGN_DATA, and is left as it is', async () => {
    const cases: readonly [string, (namespace: string) => Promise<unknown>][] = [
      ['a queue of another kind', (namespace) => declare(`${namespace}.owner`, {})],
      [
        'a stream with other arguments',
        (namespace) => declare(`${namespace}.catalog`, { 'x-queue-type': 'stream', 'x-max-length-bytes': 1_000 }),
      ],
    ]
    for (const [what, make] of cases) {
      const namespace = createNamespace()
      await make(namespace)
      await rejects(openRabbitmqJournal({ url: new URL(rabbitmq.url), namespace }), isCode('FOREIGN_DATA'), what)
    }
    const namespace = createNamespace()
    const journal = await openRabbitmqJournal({ url: new URL(rabbitmq.url), namespace })
    await journal.close()
    await publish(`${namespace}.catalog`, {}, 'somebody else')
    await rejects(openRabbitmqJournal({ url: new URL(rabbitmq.url), namespace }), isCode('FOREIGN_DATA'), 'a message')
  })

  test('a message of somebody else within the journal stops it visibly', async (t) => {
    const namespace = createNamespace()
    const journal = await openJournal(t, { namespace })
    const grant = await own(journal)
    await publish(`${namespace}.journal.0`, {}, 'somebody else')
    await waitUntil('the grant ends', () => grant.signal.aborted)
    ok(isCode('FOREIGN_DATA')(grant.signal.reason))
  })

  test('a stream that is deleted under its owner ends the grant with ENGINE_CHANGED, and the next one cannot begin anew in silence', async (t) => {
    const namespace = createNamespace()
    const journal = await openJournal(t, { namespace })
    const grant = await own(journal)
    await deleteQueue(`${namespace}.journal.0`)
    await waitUntil('the grant ends', () => grant.signal.aborted)
    ok(isCode('ENGINE_CHANGED')(grant.signal.reason), String(grant.signal.reason))
    await rejects(journal.own(NEVER), isCode('ENGINE_CHANGED'))
  })

  test('what the configuration cannot keep is refused, with reason and remedy', async (t) => {
    const url = new URL(rabbitmq.fullUrl)
    await rejects(openJournal(t, { durability: 'disk' }), isCode('UNSUPPORTED'))
    await rejects(openJournal(t, { copies: 2 }), isCode('UNSUPPORTED'))
    await rejects(
      openJournal(t, { url: new URL(rabbitmq.url), copies: 2 }),
      isCode('UNSUPPORTED'),
      'unknown without management',
    )
    const blind = await checkRabbitmq({ url: new URL(rabbitmq.url), namespace: createNamespace() })
    deepEqual(
      blind.filter(({ severity }) => severity === 'warn').map(({ title }) => title),
      ['Copies', 'Policies'],
    )
    if (!rabbitmq.isOurs) return t.diagnostic('policies are not set on a RabbitMQ that is not ours')
    const namespace = createNamespace()
    const journal = await openJournal(t, { namespace })
    equal((await journal.health()).status, 'ok')
    for (const definition of ['{"max-age":"1h"}', '{"max-length-bytes":1000}', '{"message-ttl":5}']) {
      await rabbitmq.control('set_policy', 'drops', `^${namespace}`, definition)
      const findings = await checkRabbitmq({ url, namespace })
      const refused = findings.find(({ severity }) => severity === 'refuse')
      match(refused?.reason ?? '', /drops/, definition)
      ok((refused?.remedy ?? '') !== '')
      await rejects(openRabbitmqJournal({ url, namespace }), isCode('UNSUPPORTED'))
      const health = await journal.health()
      equal(health.status, 'failed')
      match(health.reasons.join(' '), /drops/)
    }
    await rabbitmq.control('clear_policy', 'drops')
    equal((await journal.health()).status, 'ok')
  })
})

// -- what others do to the broker

async function withChannel<T>(
  act: (channel: Awaited<ReturnType<Awaited<ReturnType<typeof connect>>['createConfirmChannel']>>) => Promise<T>,
): Promise<T> {
  const model = await connect(rabbitmq.url)
  model.on('error', () => {})
  try {
    const channel = await model.createConfirmChannel()
    return await act(channel)
  } finally {
    await model.close()
  }
}

function declare(name: string, args: Record<string, unknown>): Promise<unknown> {
  return withChannel((channel) => channel.assertQueue(name, { durable: true, arguments: args }))
}

function deleteQueue(name: string): Promise<unknown> {
  return withChannel((channel) => channel.deleteQueue(name))
}

function publish(queue: string, properties: Record<string, unknown>, text: string): Promise<void> {
  return withChannel(async (channel) => {
    channel.sendToQueue(queue, Buffer.from(text), properties)
    await channel.waitForConfirms()
  })
}

async function listQueues(namespace: string): Promise<string[]> {
  const answer = await fetch(`${rabbitmq.management}/api/queues?disable_stats=true&enable_queue_totals=true`, {
    headers: { authorization: `Basic ${btoa('guest:guest')}` },
  })
  const queues = (await answer.json()) as { name: string }[]
  return queues.map(({ name }) => name).filter((name) => name.startsWith(`${namespace}.`))
}
