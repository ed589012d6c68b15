/** The journal in Redis: what its configuration, its memory, its replicas and its neighbours can do to it. */
import { deepEqual, equal, match, ok, rejects } from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, describe, type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { createClient } from '@redis/client'
import { waitUntil } from '../../scripts/brokers/broker.ts'
import { findRedis, type RedisBroker, type RedisOptions, startRedis } from '../../scripts/brokers/redis.ts'
import type { SluiceError } from '../../src/errors.ts'
import type { Grant, Journal } from '../../src/journals/contract.ts'
import { checkRedis, openRedisJournal, type RedisJournalOptions } from '../../src/journals/redis.ts'
import { makeCertificate } from '../support/certificate.ts'
import { openProxy, type Proxy as TcpProxy } from '../support/tcp-proxy.ts'
import { appendTexts, claim, ended, entry, isCode, readAll, within } from './journal-suite.ts'

const skip = findRedis() === null || process.env.SLUICE_REDIS_URL !== undefined
const child = fileURLToPath(new URL('./owner-child.ts', import.meta.url))

describe('the journal in Redis', { skip: skip ? 'needs a redis-server of its own' : false }, () => {
  /** As docs/redis.md asks for it. */
  let redis: RedisBroker
  before(async () => {
    redis = await startRedis()
  })
  after(() => redis[Symbol.asyncDispose]())

  const createNamespace = (): string => `redis-${randomUUID().slice(0, 8)}`

  async function open(t: TestContext, options: Partial<RedisJournalOptions> = {}): Promise<Journal> {
    const { url = new URL(redis.url), namespace = createNamespace() } = options
    const journal = await openRedisJournal({ leaseMs: 2_000, connectMs: 30_000, ...options, url, namespace })
    t.after(() => journal.close())
    return journal
  }

  async function startOther(t: TestContext, options: RedisOptions): Promise<RedisBroker> {
    const other = await startRedis(options)
    t.after(() => other[Symbol.asyncDispose]())
    return other
  }

  async function openBehind(t: TestContext, target: RedisBroker, options: Partial<RedisJournalOptions> = {}) {
    const proxy = await openProxy(new URL(target.url))
    t.after(() => proxy.close())
    const url = new URL(target.url)
    url.port = new URL(proxy.url).port
    return { journal: await open(t, { ...options, url }), proxy }
  }

  async function ask(url: string, ...args: readonly string[]): Promise<unknown> {
    const client = createClient({ url })
    await client.connect()
    try {
      return await client.sendCommand([...args])
    } finally {
      client.destroy()
    }
  }

  const refusals: readonly (readonly [string, Record<string, string>, Partial<RedisJournalOptions>, RegExp])[] = [
    ['without an append-only file', { appendonly: 'no' }, {}, /appendonly yes/],
    ['that evicts', { 'maxmemory-policy': 'allkeys-lru' }, {}, /noeviction/],
    ['that syncs every second', { appendfsync: 'everysec' }, {}, /appendfsync always/],
    [
      "that syncs every second where 'disk' was asked",
      { appendfsync: 'everysec' },
      { durability: 'disk' },
      /power cut/,
    ],
    ['that stops syncing during a rewrite', { 'no-appendfsync-on-rewrite': 'yes' }, {}, /no-appendfsync-on-rewrite no/],
    ['of a cluster', { 'cluster-enabled': 'yes' }, {}, /cluster/],
    ['that takes no large values', { 'proto-max-bulk-len': '4194304' }, {}, /proto-max-bulk-len/],
    ['with fewer copies than were asked', {}, { copies: 2 }, /2 copies were asked for, and there are 1/],
    ['that does not tell its configuration', { 'rename-command': 'CONFIG SECRET' }, {}, /`durability`/],
  ]
  for (const [what, settings, options, remedy] of refusals) {
    test(`a Redis ${what} is refused, with the reason and the remedy`, async (t) => {
      const [name, value = ''] = Object.entries(settings)[0] ?? ['', '']
      const other = await startOther(t, { settings: name === '' ? {} : { [name]: value } })
      const url = new URL(other.url)
      await rejects(open(t, { url, ...options }), (error: SluiceError) => {
        isCode('UNSUPPORTED')(error)
        match(error.message, remedy)
        return true
      })
      const findings = await checkRedis({ url, namespace: 'n', ...options })
      const refused = findings.filter(({ severity }) => severity === 'refuse')
      equal(refused.length, 1)
      ok(refused.every(({ reason, remedy: solve }) => reason !== '' && solve !== ''))
    })
  }

  test('a replica is refused, and the primary named', async (t) => {
    const replica = await startOther(t, { replicaOf: redis.port })
    await waitUntil('it follows', async () =>
      String(await ask(replica.url, 'INFO', 'replication')).includes('link_status:up'),
    )
    await rejects(open(t, { url: new URL(replica.url) }), (error: SluiceError) => {
      match(error.message, new RegExp(`127.0.0.1:${redis.port}`))
      return isCode('UNSUPPORTED')(error)
    })
  })

  test('a server that does not tell its configuration is taken at the word of who opens it', async (t) => {
    const other = await startOther(t, { settings: { 'rename-command': 'CONFIG SECRET' } })
    const url = new URL(other.url)
    const journal = await open(t, { url, durability: 'disk' })
    equal(journal.abilities.durability, 'disk')
    const findings = await checkRedis({ url, namespace: 'n', durability: 'disk' })
    match(
      findings.find(({ severity, title }) => severity === 'warn' && title.startsWith('CONFIG'))?.title ?? '',
      /trust/,
    )
  })

  test('credentials that are missing or wrong are refused, and the password is in no message', async (t) => {
    const other = await startOther(t, { password: 'geheim-1' })
    const url = new URL(other.url)
    await claim(await open(t, { url }))
    const wrong = new URL(url)
    wrong.password = 'geheim-2'
    const missing = new URL(url)
    missing.password = ''
    for (const bad of [wrong, missing]) {
      await rejects(open(t, { url: bad }), (error: SluiceError) => {
        ok(!`${error.message}${JSON.stringify(error.details)}${error.cause}`.includes('geheim'), error.message)
        return isCode('UNAUTHENTICATED')(error)
      })
    }
  })

  test('TLS, with a certificate that is checked', async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'sluice-redis-tls-'))
    t.after(() => rm(folder, { recursive: true }))
    const { cert, key } = await makeCertificate(folder)
    const other = await startOther(t, { tls: { cert, key }, password: 'geheim-1' })
    const url = new URL(other.url)
    await rejects(open(t, { url, connectMs: 1_000 }), (error: SluiceError) => {
      match(error.message, /certificate/)
      return isCode('UNREACHABLE')(error)
    })
    url.searchParams.set('ca', cert)
    const journal = await open(t, { url })
    const grant = await claim(journal)
    await appendTexts(journal, grant, 'over TLS')
    deepEqual(await readAll(journal, grant), ['claim', 'over TLS'])
    const plain = new URL(other.url.replace('rediss:', 'redis:'))
    await rejects(open(t, { url: plain, connectMs: 1_000 }), isCode('UNREACHABLE'))
  })

  test('a URL that cannot be meant is refused at once', async (t) => {
    const change = (text: string): URL => new URL(redis.url + text)
    for (const url of [change('/shop'), change('?tls=true'), change('?ca=/no/such/file'), change('?servername=x')]) {
      await rejects(open(t, { url }), isCode('INVALID_OPTION'))
    }
    const crooked = new URL(redis.url.replace('//', '//:geheim%zz@'))
    await rejects(open(t, { url: crooked }), (error: SluiceError) => {
      ok(!error.message.includes('geheim'))
      return isCode('INVALID_OPTION')(error)
    })
  })

  test('databases of one server have journals and letters of their own', async (t) => {
    const namespace = createNamespace()
    const urls = ['/1', '/2'].map((path) => new URL(redis.url + path))
    const [one, two] = (await Promise.all(urls.map((url) => open(t, { url, namespace })))) as [Journal, Journal]
    await claim(one, 'in database 1')
    const grant = await claim(two, 'in database 2')
    deepEqual(await readAll(two, grant), ['in database 2'])
    const letters: string[] = []
    const boxes = [await one.openMailbox(() => letters.push('1')), await two.openMailbox(() => letters.push('2'))]
    await boxes[1]?.send('all', Buffer.from('hello'))
    await waitUntil('it came', () => letters.length > 0)
    await boxes[0]?.send('all', Buffer.from('hello'))
    await waitUntil('it came, too', () => letters.length > 1)
    deepEqual(letters, ['2', '1'])
  })

  test('a user without the permissions is refused, and one with those of docs/redis.md can do everything', async (t) => {
    const rules = (user: string, ...rest: string[]) =>
      ask(redis.url, 'ACL', 'SETUSER', user, 'reset', 'on', '>pw', ...rest)
    const namespace = createNamespace()
    await rules('poor', '~other:*', '+@all')
    const poor = new URL(redis.url)
    Object.assign(poor, { username: 'poor', password: 'pw' })
    await rejects(open(t, { url: poor, namespace }), isCode('UNSUPPORTED'))
    await rules('fit', `~sluice:{${namespace}}:*`, `&sluice:{${namespace}}:*`, ...PERMISSIONS)
    const fit = new URL(redis.url)
    Object.assign(fit, { username: 'fit', password: 'pw' })
    const journal = await open(t, { url: fit, namespace })
    const grant = await claim(journal)
    const places = await appendTexts(journal, grant, 'a', 'b')
    await journal.truncate(grant, places[1] ?? '')
    await readAll(journal, grant)
    const letters: Uint8Array[] = []
    const box = await journal.openMailbox((letter) => letters.push(letter))
    await box.serveOwner(true)
    await box.send('owner', Buffer.alloc(3_000_000))
    await box.send('all', Buffer.alloc(3))
    await waitUntil('letters came', () => letters.length >= 2)
    await box.serveOwner(false)
    equal((await journal.health()).status, 'ok')
  })

  test("with `everysec` and 'os', what was answered survives a killed server", async (t) => {
    const other = await startOther(t, { settings: { appendfsync: 'everysec' } })
    const { journal } = await openBehind(t, other, { durability: 'os' })
    equal(journal.abilities.durability, 'os')
    const grant = await claim(journal)
    const texts = ['claim']
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 200; i++) {
        const text = `${round} ${i}`
        await appendTexts(journal, grant, text)
        texts.push(text)
      }
      await other.kill()
      await other.restart()
    }
    deepEqual(await readAll(journal, grant), texts)
  })

  test('a Redis that is out of memory answers full, keeps nothing of it, changes hands and shrinks, and takes more later', async (t) => {
    const other = await startOther(t, { settings: { maxmemory: '8mb' } })
    const namespace = createNamespace()
    const url = new URL(other.url)
    const first = await open(t, { url, namespace })
    const grant = await claim(first)
    let stored = 1
    let last = ''
    async function fill(journal: Journal, held: Grant): Promise<string> {
      for (;;) {
        const outcome = await journal.append(held, [entry('a', 200_000), entry('b', 1_000)])
        if (outcome.status === 'full') return outcome.reason
        ok(outcome.status === 'durable')
        last = outcome.places[1] ?? ''
        stored += 2
      }
    }
    match(await fill(first, grant), /maxmemory/)
    const health = await first.health()
    equal(health.status, 'degraded')
    match(health.reasons.join(), /% of maxmemory/)
    equal((await readAll(first, grant)).length, stored)
    // It changes hands all the same. What the first connection took is free then.
    const second = await open(t, { url, namespace })
    await first.close()
    const taken = await second.own(within())
    await fill(second, taken)
    equal((await readAll(second, taken)).length, stored)
    // What makes room is taken all the same: one entry, and several.
    for (const texts of [['settled'], ['settled', 'settled', 'settled']]) {
      const outcome = await second.append(
        taken,
        texts.map((text) => entry(text)),
        true,
      )
      equal(outcome.status, 'durable')
      stored += texts.length
    }
    equal((await readAll(second, taken)).length, stored)
    await second.truncate(taken, last)
    await waitUntil('there is room', async () => (await second.append(taken, [entry('room')])).status === 'durable')
    ok((await readAll(second, taken)).length < stored)
  })

  test('an append whose connection broke, and that finds Redis full then, may still arrive: it is UNKNOWN, and fenced', async (t) => {
    const other = await startOther(t, {})
    const { journal, proxy } = await openBehind(t, other)
    const grant = await claim(journal)
    await ask(other.url, 'CONFIG', 'SET', 'maxmemory', '100kb')
    proxy.next('cut-request')
    await rejects(journal.append(grant, [entry('a')]), isCode('UNKNOWN'))
    isCode('UNKNOWN')(await ended(grant))
    await ask(other.url, 'CONFIG', 'SET', 'maxmemory', '0')
    const again = await claim(journal, 'claim again')
    deepEqual(await readAll(journal, again), ['claim', 'claim again'])
  })

  test('two copies: without the replica an append is UNKNOWN in the end, and with it again the work goes on', async (t) => {
    const primary = await startOther(t, {})
    const replica = await startOther(t, { replicaOf: primary.port })
    await waitUntil('the replica follows', async () =>
      String(await ask(primary.url, 'INFO', 'replication')).includes('connected_slaves:1'),
    )
    const { journal, proxy } = await openBehind(t, primary, { copies: 2, patienceMs: 1_500 })
    const grant = await claim(journal)
    await replica.kill()
    await rejects(journal.append(grant, [entry('on one')]), isCode('UNKNOWN'))
    isCode('UNKNOWN')(await ended(grant))
    proxy.cutAll()
    const again = await journal.own(within())
    match((await journal.health()).reasons.join(), /2 copies were asked for/)
    await replica.restart()
    await appendTexts(journal, again, 'claim on both')
  })

  test('entries that somebody replaced by something else end the grant, though Redis goes on answering', async (t) => {
    const namespace = createNamespace()
    const journal = await open(t, { namespace, patienceMs: 3_000 })
    const grant = await claim(journal)
    await ask(redis.url, 'SET', `sluice:{${namespace}}:entries`, 'somebody was here')
    equal((await journal.append(grant, [entry('lost')])).status, 'lost')
    match(String(await ended(grant)), /WRONGTYPE/)
  })

  test('a Redis that refuses writes for want of replicas is full, with its reason', async (t) => {
    const other = await startOther(t, {})
    const journal = await open(t, { url: new URL(other.url) })
    const grant = await claim(journal)
    await ask(other.url, 'CONFIG', 'SET', 'min-replicas-to-write', '1')
    const outcome = await journal.append(grant, [entry('refused')])
    ok(outcome.status === 'full')
    match(outcome.reason, /min-replicas-to-write/)
    equal((await journal.append(grant, [entry('refused'), entry('refused')])).status, 'full')
    await ask(other.url, 'CONFIG', 'SET', 'min-replicas-to-write', '0')
    await appendTexts(journal, grant, 'taken')
    deepEqual(await readAll(journal, grant), ['claim', 'taken'])
  })

  test('entries that were removed by somebody else are noticed, wherever they stood', async (t) => {
    const damages: readonly ((entries: string, places: readonly string[]) => readonly string[])[] = [
      (key, places) => ['XDEL', key, places[2] ?? ''],
      (key, places) => ['XDEL', key, places.at(-1) ?? ''],
      (key) => ['XDEL', key, '1-0'],
      (key) => ['XTRIM', key, 'MAXLEN', '3'],
    ]
    for (const damage of damages) {
      const namespace = createNamespace()
      const journal = await open(t, { namespace })
      const places = await appendTexts(journal, await claim(journal), 'a', 'b', 'c', 'd')
      await journal.close()
      await ask(redis.url, ...damage(`sluice:{${namespace}}:entries`, places))
      const next = await open(t, { namespace })
      const grant = await claim(next)
      await rejects(readAll(next, grant), isCode('CORRUPT'))
    }
  })

  for (const who of ['the owner', 'who waits'] as const) {
    test(`a Redis that was emptied stops ${who} with ENGINE_CHANGED, and does not begin anew by itself`, async (t) => {
      const other = await startOther(t, {})
      const url = new URL(other.url)
      const namespace = createNamespace()
      const journal = await open(t, { url, namespace })
      const grant = await claim(journal)
      const waiting = (await open(t, { url, namespace })).own(within())
      waiting.catch(() => {})
      await ask(other.url, 'FLUSHALL')
      if (who === 'the owner') {
        await rejects(journal.append(grant, [entry('lost')]), isCode('ENGINE_CHANGED'))
        isCode('ENGINE_CHANGED')(await ended(grant))
        await rejects(journal.own(within()), isCode('ENGINE_CHANGED'))
        await rejects(journal.append(grant, [entry('lost')]).then(({ status }) => equal(status, 'durable')))
        equal((await journal.health()).status, 'failed')
      } else await rejects(waiting, isCode('ENGINE_CHANGED'))
      equal(await ask(other.url, 'EXISTS', `sluice:{${namespace}}:state`), 0)
    })
  }

  test('a Redis that comes back empty after a restart stops with ENGINE_CHANGED', async (t) => {
    const other = await startOther(t, {})
    const namespace = createNamespace()
    const { journal, proxy } = await openBehind(t, other, { namespace })
    const grant = await claim(journal)
    const empty = await startOther(t, {})
    move(proxy, empty)
    await rejects(journal.append(grant, [entry('lost')]), isCode('ENGINE_CHANGED'))
    isCode('ENGINE_CHANGED')(await ended(grant))
    // Opened anew, it is a journal of its own.
    equal((await claim(await open(t, { url: new URL(empty.url), namespace }))).epoch, 1)
  })

  test('a promoted replica stops with ENGINE_CHANGED, even if it lacks nothing; a restart does not', async (t) => {
    const primary = await startOther(t, {})
    const replica = await startOther(t, { replicaOf: primary.port })
    const { journal, proxy } = await openBehind(t, primary)
    const grant = await claim(journal)
    await primary.restart()
    await appendTexts(journal, grant, 'after the restart')
    await waitUntil('the replica has it', async () => (await ask(replica.url, 'DBSIZE')) !== 0)
    await ask(replica.url, 'REPLICAOF', 'NO', 'ONE')
    move(proxy, replica)
    await rejects(journal.append(grant, [entry('on the replica')]), isCode('ENGINE_CHANGED'))
    match(((await ended(grant)) as Error).message, /promoted/)
  })

  test('a restored older state stops the owner with ENGINE_CHANGED', async (t) => {
    const primary = await startOther(t, {})
    const { journal, proxy } = await openBehind(t, primary)
    const grant = await claim(journal)
    // A replica that is cut off, made a server of its own and restarted has no past to tell.
    const replica = await startOther(t, { replicaOf: primary.port })
    await waitUntil('the replica has it', async () => (await ask(replica.url, 'DBSIZE')) !== 0)
    await ask(replica.url, 'REPLICAOF', 'NO', 'ONE')
    await appendTexts(journal, grant, 'after the copy')
    const client = createClient({ url: replica.url })
    await client.connect()
    // Forgets its past, as a restart does.
    await client.sendCommand(['DEBUG', 'CHANGE-REPL-ID'])
    client.destroy()
    move(proxy, replica)
    await rejects(journal.append(grant, [entry('lost')]), isCode('ENGINE_CHANGED'))
    match(((await ended(grant)) as Error).message, /last entry/)
  })

  test('two copies: an append waits for the replica, and is never durable without', async (t) => {
    const primary = await startOther(t, {})
    const replica = await startOther(t, { replicaOf: primary.port })
    await waitUntil('the replica follows', async () =>
      String(await ask(primary.url, 'INFO', 'replication')).includes('connected_slaves:1'),
    )
    const namespace = createNamespace()
    const journal = await open(t, { url: new URL(primary.url), namespace, copies: 2, patienceMs: 3_000 })
    equal(journal.abilities.copies, 2)
    const grant = await claim(journal)
    await appendTexts(journal, grant, 'on both')
    equal(await ask(replica.url, 'XLEN', `sluice:{${namespace}}:entries`), 3)
    replica.pause()
    const waiting = journal.append(grant, [entry('on one')])
    let isTold = false
    waiting.finally(() => (isTold = true)).catch(() => {})
    await waitUntil(
      'it is on the primary',
      async () => (await ask(primary.url, 'XLEN', `sluice:{${namespace}}:entries`)) === 4,
    )
    equal(isTold, false)
    replica.resume()
    equal((await waiting).status, 'durable')
  })

  test('a configuration that is changed while it is used ends the grant, when it is looked at', async (t) => {
    const other = await startOther(t, {})
    const { journal, proxy } = await openBehind(t, other)
    const grant = await claim(journal)
    await ask(other.url, 'CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru')
    equal((await journal.health()).status, 'failed')
    proxy.cutAll()
    isCode('UNSUPPORTED')(await ended(grant))
  })

  test('an owner that is killed is followed, and everything that it was told to be durable is there', async (t) => {
    const namespace = createNamespace()
    const owner = spawn(process.execPath, [child, redis.url, namespace], { stdio: ['ignore', 'pipe', 'inherit'] })
    t.after(() => owner.kill('SIGKILL'))
    const told: string[] = []
    createInterface({ input: owner.stdout }).on('line', (line) => told.push(line))
    await waitUntil('the child appends', () => told.length > 20)
    const journal = await open(t, { namespace })
    owner.kill('SIGKILL')
    await once(owner, 'exit')
    const grant = await claim(journal)
    const read = await readAll(journal, grant)
    deepEqual(read.slice(0, told.length), ['claim of the child', ...told.slice(1)])
    ok(read.length - told.length <= 2, 'besides the one that was under way')
  })

  test('a letter of megabytes comes while Redis is out of memory: what settles travels in letters', async (t) => {
    const other = await startOther(t, {})
    const [url, namespace] = [new URL(other.url), createNamespace()]
    const heard: number[] = []
    const box = await (await open(t, { url, namespace })).openMailbox((letter) => heard.push(letter.byteLength))
    const from = await (await open(t, { url, namespace })).openMailbox(() => {})
    await ask(other.url, 'CONFIG', 'SET', 'maxmemory', '1mb')
    await from.send(box.address, Buffer.alloc(2 * 1024 ** 2))
    await waitUntil('the letter came', () => heard.length > 0, { withinMs: 5_000 })
    deepEqual(heard, [2 * 1024 ** 2])
  })

  test('an owner that is stopped and goes on later is lost, and what it says after that counts for nothing', async (t) => {
    const namespace = createNamespace()
    const owner = spawn(process.execPath, [child, redis.url, namespace], { stdio: ['ignore', 'pipe', 'pipe'] })
    t.after(() => owner.kill('SIGKILL'))
    const told: string[] = []
    createInterface({ input: owner.stdout }).on('line', (line) => told.push(line))
    let complaint = ''
    owner.stderr.on('data', (piece) => (complaint += piece))
    await waitUntil('the child appends', () => told.length > 20)
    owner.kill('SIGSTOP')
    const journal = await open(t, { namespace })
    const grant = await claim(journal)
    const atTheClaim = await readAll(journal, grant)
    const ending = once(owner, 'exit')
    owner.kill('SIGCONT')
    await ending
    match(complaint, /The append was lost/)
    deepEqual(await readAll(journal, grant), atTheClaim)
    deepEqual(told.slice(1), atTheClaim.slice(1, told.length))
  })

  function move(proxy: TcpProxy, to: RedisBroker): void {
    proxy.moveTo(new URL(to.url))
    proxy.cutAll()
  }
})

/** What docs/redis.md lists. */
const PERMISSIONS = [
  ...[
    '+eval',
    '+xadd',
    '+xrange',
    '+xtrim',
    '+xlen',
    '+xinfo',
    '+multi',
    '+exec',
    '+wait',
    '+exists',
    '+type',
    '+ping',
  ],
  ...['+get', '+set', '+getex', '+del', '+pttl', '+hget', '+hset', '+hmget', '+hincrby', '+memory|usage'],
  ...['+publish', '+subscribe', '+unsubscribe', '+info', '+config|get', '+client|setname', '+hello', '+select'],
  ...['+client|id', '+client|list'],
]
