import { strict as assert } from 'node:assert'
import { chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { Webhook } from 'standardwebhooks'
import { generateSecret, readSecretFile, writeSecretFile } from '../../src/callbacks/secrets.ts'
import {
  type CallbackOptions,
  isSluiceError,
  open,
  type Sluice,
  sendCallbacks,
  Unrecoverable,
} from '../../src/index.ts'
import { startServer, temporaryFolder } from '../server-harness.ts'
import { type Delivery, openReceiver } from '../support/receiver.ts'

const SECRET = generateSecret()
const CALLBACKS = 'sluice.callbacks'
const OPTIONS: CallbackOptions = { secrets: [SECRET], allow: ['127.0.0.0/8'] }

async function openSending(t: TestContext, options: CallbackOptions = OPTIONS): Promise<Sluice> {
  const sluice = await open(':memory:', { callbacks: options })
  t.after(() => sluice.close())
  // Tried again at once, so that nobody waits.
  await sluice.queue(CALLBACKS, { backoff: { baseMs: 0 } }).declare()
  return sluice
}

/** Throws where the signature is not that of the secret, as any receiver of Standard Webhooks does. */
function verify({ body, headers }: Delivery, secret = SECRET): unknown {
  return new Webhook(secret).verify(body, headers as Record<string, string>)
}

describe('callbacks, to a receiver that verifies them', () => {
  test('a job that is done is told with its result, signed, once its end is stored', async (t) => {
    const receiver = await openReceiver(t)
    const sluice = await openSending(t)
    const queue = sluice.queue<{ to: string }, { sent: string }>('email')
    receiver.behave = (reply) => {
      void job.status().then(({ status }) => {
        assert.equal(status, 'completed', 'the end is there before the callback is')
        reply.writeHead(200).end()
      })
    }
    const job = await queue.add({ to: 'a@b.c' }, { callbackUrl: `${receiver.url}/hooks?tenant=7` })
    queue.work(({ payload }) => ({ sent: payload.to }))
    const [delivery] = (await receiver.waitFor(1)) as [Delivery]
    assert.equal(delivery.path, '/hooks?tenant=7')
    assert.equal(delivery.headers['content-type'], 'application/json')
    const verified = verify(delivery) as { type: string; data: Record<string, unknown> }
    assert.equal(verified.type, 'job.completed')
    const { createdAtMs, endedAtMs, ...rest } = verified.data
    assert.deepEqual(rest, { id: job.id, queue: 'email', status: 'completed', attempts: 1, result: { sent: 'a@b.c' } })
    assert.ok((endedAtMs as number) >= (createdAtMs as number))
  })

  test('every end is told: failed, cancelled and expired, also of jobs that a handler published and of many at once', async (t) => {
    const receiver = await openReceiver(t)
    const sluice = await openSending(t)
    const callbackUrl = receiver.url
    const queue = sluice.queue<string>('ends', { attempts: 1 })
    await queue.pause()
    const cancelled = await queue.add('cancelled', { callbackUrl })
    const later = await queue.add('later', { callbackUrl, delayMs: 3_600_000 })
    await queue.addMany([
      { payload: 'expired', callbackUrl, deadlineMs: 1 },
      { payload: 'failed', callbackUrl },
      { payload: 'publishes', callbackUrl },
    ])
    await cancelled.cancel()
    await later.cancel()
    await receiver.waitFor(2)
    queue.work(async ({ payload }, { publish }) => {
      if (payload === 'failed') throw new Unrecoverable('no such address')
      if (payload === 'publishes') await publish(queue, 'published', { callbackUrl })
      return payload
    })
    await queue.resume()
    const deliveries = await receiver.waitFor(6)
    for (const delivery of deliveries) verify(delivery)
    const told = deliveries.map(({ json }) => `${json.type} ${json.data.result ?? json.data.error ?? ''}`.trim())
    assert.deepEqual(told.toSorted(), [
      'job.cancelled',
      'job.cancelled',
      'job.completed published',
      'job.completed publishes',
      'job.expired',
      'job.failed Unrecoverable: no such address',
    ])
    assert.ok(deliveries.some(({ json }) => json.data.id === later.id))
  })

  test('a callback is sent again after a 500, a reset and no answer, with the same id and bytes, each attempt signed anew', async (t) => {
    const receiver = await openReceiver(t, (reply, _delivery, count) => {
      if (count === 0) reply.writeHead(500).end('{"secret":"of the receiver"}')
      else if (count === 1) reply.socket?.resetAndDestroy()
      else if (count > 2) reply.writeHead(204).end()
    })
    const sluice = await openSending(t, { ...OPTIONS, timeoutMs: 300 })
    const queue = sluice.queue('q')
    await queue.add(1, { callbackUrl: receiver.url })
    queue.work(() => 'done')
    const deliveries = await receiver.waitFor(4)
    for (const delivery of deliveries) verify(delivery)
    assert.equal(new Set(deliveries.map(({ headers }) => headers['webhook-id'])).size, 1)
    assert.equal(new Set(deliveries.map(({ body }) => body)).size, 1)
    assert.match(String(deliveries[0]?.headers['webhook-id']), /^msg_[0-9a-f]{32}$/)
    await receiver.waitForQuiet()
    const { depth } = await statsOf(sluice, CALLBACKS)
    assert.ok(depth.messages <= 1)
  })

  test('a receiver that answers 410 is not tried again; the dead letter is shown, redriven, and has the same id', async (t) => {
    const receiver = await openReceiver(t, (reply) => reply.writeHead(410).end())
    const { call, sluice } = await startServer(t)
    const sender = sendCallbacks(sluice, OPTIONS)
    t.after(() => sender.close())
    const queue = sluice.queue('q')
    const added = await call('POST', '/v1/queues/q/jobs', {
      body: { a: 1 },
      headers: { 'sluice-callback-url': `${receiver.url}/gone` },
    })
    assert.equal(added.status, 202)
    queue.work(() => 'done')
    const [first] = (await receiver.waitFor(1)) as [Delivery]
    const letters = await untilDead(call)
    assert.equal(letters.length, 1)
    assert.equal(letters[0].attempts, 1)
    assert.match(letters[0].error, /answered 410/)
    assert.ok(!letters[0].error.includes('/gone'), 'an error names the origin only')
    assert.equal(letters[0].headers['sluice-callback-url'], `${receiver.url}/gone`)
    assert.equal(letters[0].payload.data.id, added.json.id)
    receiver.behave = (reply) => reply.writeHead(200).end()
    const redriven = await call('POST', `/v1/queues/${CALLBACKS}/dead:redrive`, { body: {} })
    assert.equal(redriven.json.count, 1)
    const [, second] = (await receiver.waitFor(2)) as [Delivery, Delivery]
    verify(second)
    assert.equal(second.headers['webhook-id'], first.headers['webhook-id'])
    assert.equal(second.body, first.body)
    assert.equal((await call('GET', `/v1/queues/${CALLBACKS}/dead`)).json.letters.length, 0)
  })

  test('a callback that is out of attempts is a dead letter, with the last answer', async (t) => {
    const receiver = await openReceiver(t, (reply) => reply.writeHead(302, { location: 'http://127.0.0.1/' }).end())
    const { call, sluice } = await startServer(t)
    await sluice.queue(CALLBACKS, { attempts: 3, backoff: { baseMs: 0 } }).declare()
    const sender = sendCallbacks(sluice, OPTIONS)
    t.after(() => sender.close())
    await call('POST', '/v1/queues/q/jobs', {
      body: `${JSON.stringify({ payload: 1, callbackUrl: receiver.url })}\n`,
      type: 'application/x-ndjson',
    })
    sluice.queue('q').work(() => {})
    const [letter] = await untilDead(call)
    assert.equal(letter.attempts, 3)
    assert.match(letter.error, /answered 302, and redirects are not followed/)
    assert.equal(receiver.deliveries.length, 3)
  })

  test('a receiver at an address that is not public gets nothing, and the dead letter says how to allow it', async (t) => {
    const receiver = await openReceiver(t)
    const { call, sluice } = await startServer(t)
    const sender = sendCallbacks(sluice, { secrets: [SECRET] })
    t.after(() => sender.close())
    await sluice.queue('q').add(1, { callbackUrl: `http://0x7f000001:${receiver.port}/` })
    sluice.queue('q').work(() => {})
    const [letter] = await untilDead(call)
    assert.match(letter.error, /127\.0\.0\.1 is not public \(loopback\)/)
    assert.equal(letter.attempts, 1)
    assert.equal(receiver.deliveries.length, 0)
  })

  test('two senders on one server do not send a callback at the same time, and one goes on when the other is closed', async (t) => {
    const { url, sluice } = await startServer(t)
    const waiting = new Map<string, number>()
    const receiver = await openReceiver(t, (reply, { headers }) => {
      const id = String(headers['webhook-id'])
      assert.equal(waiting.get(id) ?? 0, 0, 'nobody else is sending it')
      waiting.set(id, 1)
      setImmediate(() => {
        waiting.set(id, 0)
        reply.writeHead(204).end()
      })
    })
    const senders = await Promise.all(
      [1, 2].map(async () => {
        const remote = await open(url, { callbacks: OPTIONS })
        t.after(() => remote.close())
        return remote
      }),
    )
    const queue = sluice.queue('q')
    queue.work(() => {}, { concurrency: 10 })
    for (let round = 0; round < 2; round++) {
      await queue.addMany(Array.from({ length: 100 }, (_, i) => ({ payload: i, callbackUrl: receiver.url })))
      await receiver.waitFor((round + 1) * 100)
      await senders[round]?.close()
    }
    const ids = receiver.deliveries.map(({ headers }) => headers['webhook-id'])
    assert.equal(new Set(ids).size, 200)
  })
})

describe('where callbacks cannot go', () => {
  test('a URL that no callback can have is refused before anything is stored, and is not shown', async (t) => {
    const { call, sluice } = await startServer(t)
    const bad = [
      'ftp://example.com/s3cret',
      'file:///etc/passwd?s3cret',
      'javascript:s3cret',
      '/s3cret',
      's3cret',
      'https://user:s3cret@example.com/',
      'https://s3cret@example.com/',
      `https://example.com/s3cret${'x'.repeat(2_048)}`,
      'http://[::1/s3cret',
      'http://256.256.256.256/s3cret',
    ]
    for (const callbackUrl of bad) {
      await assert.rejects(sluice.queue('q').add(1, { callbackUrl }), (error) => {
        assert.ok(isSluiceError(error, 'INVALID_OPTION'), callbackUrl)
        assert.ok(!JSON.stringify(error).includes('s3cret'), callbackUrl)
        return true
      })
      const answer = await call('POST', '/v1/queues/q/jobs', {
        body: { payload: 1 },
        headers: { 'sluice-callback-url': callbackUrl },
      })
      assert.equal(answer.status, 400, callbackUrl)
      assert.ok(!answer.text.includes('s3cret'))
    }
    const { topics } = await sluice.stats()
    assert.equal(topics.find(({ name }) => name === 'q')?.head ?? 0, 0)
    assert.ok(
      topics.every(({ name }) => name !== CALLBACKS),
      'the queue of callbacks is made by the first that is taken',
    )
  })

  test('nothing but the ledger adds to the queue of callbacks: not a noun, not a handler, not a request', async (t) => {
    const { call, sluice, url } = await startServer(t)
    const queue = sluice.queue(CALLBACKS)
    await assert.rejects(queue.add(1), (error) => isSluiceError(error, 'UNSUPPORTED'))
    const [many] = await queue.addMany([{ payload: 1 }])
    assert.ok(isSluiceError(many, 'UNSUPPORTED'))
    assert.equal((await call('POST', `/v1/queues/${CALLBACKS}/jobs`, { body: {} })).status, 400)
    const line = await call('POST', `/v1/queues/${CALLBACKS}/jobs`, {
      body: '{"payload":1}\n',
      type: 'application/x-ndjson',
    })
    assert.equal(line.json.code, 'UNSUPPORTED')
    const remote = await open(url)
    t.after(() => remote.close())
    await assert.rejects(remote.queue(CALLBACKS).add(1), (error) => isSluiceError(error, 'UNSUPPORTED'))
    assert.equal((await call('PUT', '/v1/queues/sluice.mine', { body: {} })).status, 409)
    assert.equal((await call('PUT', `/v1/topics/${CALLBACKS}`, { body: {} })).status, 409)
    assert.equal((await statsOf(sluice, CALLBACKS)).head, 0)
  })

  test('a job with a callback is refused with 503 while the queue of callbacks is full, and says which queue that is', async (t) => {
    const { call } = await startServer(t)
    await call('PUT', `/v1/queues/${CALLBACKS}`, { body: { limit: { messages: 1 } } })
    const headers = { 'sluice-callback-url': 'https://receiver.example/' }
    assert.equal((await call('POST', '/v1/queues/q/jobs', { body: {}, headers })).status, 202)
    const refused = await call('POST', '/v1/queues/q/jobs', { body: {}, headers })
    assert.equal(refused.status, 503)
    assert.deepEqual([refused.json.code, refused.json.full, refused.json.limit], ['QUEUE_FULL', CALLBACKS, 1])
    assert.ok(Number(refused.headers.get('retry-after')) > 0)
    assert.equal((await call('POST', '/v1/queues/q/jobs', { body: {} })).status, 202)
  })
})

describe('the secrets of callbacks', () => {
  test('a data folder keeps one of its own, which only its owner reads, and it stays the same', async (t) => {
    const folder = await temporaryFolder(t)
    const file = join(folder, 'webhook-secret')
    for (let i = 0; i < 2; i++) {
      const sluice = await open(folder, { callbacks: {} })
      await sluice.close()
      assert.equal(statSync(file).mode & 0o777, 0o600)
    }
    const [secret, ...more] = readSecretFile(file)
    assert.match(String(secret), /^whsec_[A-Za-z0-9+/]{43}=$/)
    assert.deepEqual(more, [])
    assert.equal(readFileSync(file, 'utf8'), `${secret}\n`)
  })

  test('during a rotation a callback verifies with the old and with the new secret, and a running sender takes the file over', async (t) => {
    const receiver = await openReceiver(t)
    const folder = await temporaryFolder(t)
    const secretFile = join(folder, 'secrets')
    writeSecretFile(secretFile, [SECRET])
    const sluice = await openSending(t, { secretFile, allow: ['127.0.0.0/8'] })
    const queue = sluice.queue('q')
    queue.work(() => {})
    await queue.add(1, { callbackUrl: receiver.url })
    verify((await receiver.waitFor(1))[0] as Delivery)
    const next = generateSecret()
    writeSecretFile(secretFile, [next, SECRET])
    await queue.add(1, { callbackUrl: receiver.url })
    const second = (await receiver.waitFor(2))[1] as Delivery
    verify(second, SECRET)
    verify(second, next)
    writeSecretFile(secretFile, [next])
    await queue.add(1, { callbackUrl: receiver.url })
    const third = (await receiver.waitFor(3))[2] as Delivery
    verify(third, next)
    assert.throws(() => verify(third, SECRET))
  })

  test('a secret that cannot be one, or is not there, is refused at the start, and is not shown', async (t) => {
    const folder = await temporaryFolder(t)
    const file = join(folder, 'secrets')
    const bad = [
      's3cret',
      'whsec_',
      'whsec_c2hvcnQ=',
      `whsec_${Buffer.alloc(65).toString('base64')}`,
      'whsec_%%%%s3cret%%%%',
    ]
    for (const secret of bad) {
      await assert.rejects(open(':memory:', { callbacks: { secrets: [secret] } }), refusesQuietly)
      writeFileSync(file, `# a comment\n${secret}\n`)
      chmodSync(file, 0o600)
      await assert.rejects(open(':memory:', { callbacks: { secretFile: file } }), refusesQuietly)
    }
    await assert.rejects(open(':memory:', { callbacks: {} }), refusesQuietly)
    await assert.rejects(open(':memory:', { callbacks: { secrets: [] } }), refusesQuietly)
    await assert.rejects(open(':memory:', { callbacks: { secretFile: join(folder, 'none') } }), refusesQuietly)
    await assert.rejects(open(':memory:', { callbacks: { secrets: [SECRET], allow: ['10.0.0.0/99'] } }), refusesQuietly)
  })
})

function refusesQuietly(error: unknown): boolean {
  assert.ok(isSluiceError(error, 'INVALID_OPTION'), String(error))
  assert.ok(!JSON.stringify(error).includes('s3cret'))
  return true
}

async function statsOf(sluice: Sluice, name: string) {
  const { topics } = await sluice.stats()
  const found = topics.find((topic) => topic.name === name)
  assert.ok(found !== undefined, `${name} is there`)
  return found
}

/** The dead letters of the queue of callbacks, once there are some. */
// biome-ignore lint/suspicious/noExplicitAny: what an answer has
async function untilDead(call: Awaited<ReturnType<typeof startServer>>['call']): Promise<any[]> {
  for (;;) {
    const { json, status } = await call('GET', `/v1/queues/${CALLBACKS}/dead`)
    if (status === 200 && json.letters.length > 0) return json.letters
    await new Promise((resolve) => setImmediate(resolve))
  }
}
