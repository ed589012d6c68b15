import { strict as assert } from 'node:assert'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { describe, type TestContext, test } from 'node:test'
import { createAddressPolicy } from '../../src/callbacks/addresses.ts'
import type { Address } from '../../src/callbacks/lookup.ts'
import { type Posted, type PostOptions, post } from '../../src/callbacks/post.ts'
import { openReceiver } from '../support/receiver.ts'

const LOOPBACK = createAddressPolicy(['127.0.0.0/8'])
const BODY = Buffer.from('{"a":1}')

function send(url: string, options: Partial<PostOptions> = {}): Promise<Posted> {
  return post(
    { url: new URL(url), headers: { 'content-type': 'application/json' }, body: BODY },
    { policy: LOOPBACK, timeoutMs: 10_000, signal: new AbortController().signal, ...options },
  )
}

/** A server that does with a connection what it likes, and tells when all of them are closed. */
async function openRaw(t: TestContext, onSocket: (socket: Socket) => void) {
  const sockets = new Set<Socket>()
  let closed = Promise.withResolvers<void>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => {
      sockets.delete(socket)
      closed.resolve()
      closed = Promise.withResolvers()
    })
    socket.resume()
    onSocket(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    return new Promise<void>((resolve) => server.close(() => resolve()))
  })
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    async waitForQuiet() {
      while (sockets.size > 0) await closed.promise
    },
  }
}

describe('a request to a receiver', () => {
  test('reaches it under its name, with its body, and the connection is closed', async (t) => {
    const receiver = await openReceiver(t)
    const posted = await send(`http://receiver.example:${receiver.port}/hooks?a=b`, {
      lookup: async () => [{ address: '127.0.0.1', family: 4 }],
    })
    assert.deepEqual(posted, { status: 'answered', code: 204, retryAfterMs: null })
    const [delivery] = receiver.deliveries
    assert.equal(delivery?.headers.host, `receiver.example:${receiver.port}`)
    assert.equal(delivery?.path, '/hooks?a=b')
    assert.equal(delivery?.body, '{"a":1}')
    await receiver.waitForQuiet()
  })

  test('goes to an address that was judged: a name that stands for another one a moment later changes nothing', async (t) => {
    const wanted = await openReceiver(t, undefined, '127.0.0.2')
    const asked: string[] = []
    const answers: Address[][] = [[{ address: '127.0.0.2', family: 4 }], [{ address: '127.0.0.1', family: 4 }]]
    const posted = await send(`http://rebinding.example:${wanted.port}/`, {
      policy: createAddressPolicy(['127.0.0.2']),
      lookup: async (name) => {
        asked.push(name)
        return answers.shift() as Address[]
      },
    })
    assert.equal(posted.status, 'answered')
    assert.equal(wanted.deliveries.length, 1)
    assert.deepEqual(asked, ['rebinding.example'], 'it is asked once')
  })

  test('is not made where one of many addresses may not be called, and no connection is', async (t) => {
    const receiver = await openReceiver(t)
    let connections = 0
    const raw = await openRaw(t, () => connections++)
    const { port } = new URL(raw.url)
    for (const addresses of [
      [
        { address: '127.0.0.1', family: 4 },
        { address: '10.0.0.1', family: 4 },
      ],
      [
        { address: '169.254.169.254', family: 4 },
        { address: '127.0.0.1', family: 4 },
      ],
      [
        { address: '127.0.0.1', family: 4 },
        { address: '::ffff:10.0.0.1', family: 6 },
      ],
    ]) {
      const posted = await send(`http://mixed.example:${port}/`, { lookup: async () => addresses })
      assert.equal(posted.status, 'refused')
      assert.match(posted.status === 'refused' ? posted.reason : '', /^mixed\.example: .* is not public/)
    }
    assert.equal(connections, 0)
    assert.equal(receiver.deliveries.length, 0)
  })

  test('is refused for loopback by its real name, unless that is allowed', async (t) => {
    const receiver = await openReceiver(t)
    const url = `http://localhost:${receiver.port}/`
    assert.equal((await send(url, { policy: createAddressPolicy([]) })).status, 'refused')
    assert.equal(receiver.deliveries.length, 0)
    assert.equal((await send(url, { policy: createAddressPolicy(['127.0.0.0/8', '::1']) })).status, 'answered')
  })

  test('is an answer where it is redirected: nothing follows', async (t) => {
    const other = await openReceiver(t)
    const receiver = await openReceiver(t, (reply) => reply.writeHead(307, { location: other.url }).end())
    assert.deepEqual(await send(receiver.url), { status: 'answered', code: 307, retryAfterMs: null })
    assert.equal(other.deliveries.length, 0)
  })

  test('tells when the receiver wants to be asked again, within a day', async (t) => {
    const headers = ['7', new Date(Date.now() + 3_600_000).toUTCString(), '999999999', 'soon', '-1']
    const receiver = await openReceiver(t, (reply, _delivery, count) =>
      reply.writeHead(503, { 'retry-after': headers[count] as string }).end(),
    )
    const waits: (number | null)[] = []
    for (const _ of headers) {
      const posted = await send(receiver.url)
      assert.equal(posted.status, 'answered')
      waits.push(posted.status === 'answered' ? posted.retryAfterMs : null)
    }
    assert.equal(waits[0], 7_000)
    assert.ok((waits[1] as number) > 3_000_000 && (waits[1] as number) <= 3_600_000)
    assert.deepEqual([waits[2], waits[3]], [86_400_000, null])
    assert.ok(waits[4] === null || waits[4] === 0)
  })

  test('fails where there is no answer within its time, and closes the connection', async (t) => {
    const silent = await openRaw(t, () => {})
    const posted = await send(silent.url, { timeoutMs: 200 })
    assert.deepEqual(posted, { status: 'failed', reason: 'no answer within 200 ms' })
    await silent.waitForQuiet()
  })

  test('fails where the head of the answer trickles, however lively it is', async (t) => {
    const trickling = await openRaw(t, (socket) => {
      socket.write('HTTP/1.1 200 OK\r\nx: ')
      const timer = setInterval(() => socket.write('y'), 5)
      socket.on('close', () => clearInterval(timer))
    })
    const posted = await send(trickling.url, { timeoutMs: 300 })
    assert.equal(posted.status, 'failed')
    await trickling.waitForQuiet()
  })

  test('fails where the resolver is silent, within the same time', async () => {
    const posted = await send('http://silent.example/', { timeoutMs: 100, lookup: () => new Promise(() => {}) })
    assert.deepEqual(posted, { status: 'failed', reason: 'no answer within 100 ms' })
  })

  test('reads no more of an endless answer than it must, and closes the connection', async (t) => {
    let sent = 0
    const endless = await openRaw(t, (socket) => {
      socket.write('HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n')
      const chunk = Buffer.alloc(65_536, 'x')
      const pump = (): void => {
        while (!socket.destroyed && socket.write(chunk)) sent += chunk.byteLength
      }
      socket.on('drain', pump)
      pump()
    })
    assert.deepEqual(await send(endless.url), { status: 'answered', code: 200, retryAfterMs: null })
    await endless.waitForQuiet()
    assert.ok(sent < 64 * 1024 ** 2, `${sent} bytes were taken`)
  })

  test('is answered although the body of the answer never ends, since its status is known', async (t) => {
    const slow = await openRaw(t, (socket) => socket.write('HTTP/1.1 202 Accepted\r\ncontent-length: 100\r\n\r\nx'))
    assert.deepEqual(await send(slow.url), { status: 'answered', code: 202, retryAfterMs: null })
    await slow.waitForQuiet()
  })

  for (const [title, answer] of Object.entries({
    'a head without an end': `HTTP/1.1 200 OK\r\nx: ${'y'.repeat(40_000)}`,
    'many informational answers': 'HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(1_000),
    'another protocol': 'HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n',
    'what is no HTTP': 'SSH-2.0-OpenSSH_9.9\r\n',
    'two lengths': 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxy',
  })) {
    test(`fails at ${title}, and closes the connection`, async (t) => {
      const odd = await openRaw(t, (socket) => socket.write(answer))
      const posted = await send(odd.url, { timeoutMs: 500 })
      assert.equal(posted.status, 'failed')
      await odd.waitForQuiet()
    })
  }

  test('fails where the connection is reset or refused, and names the cause', async (t) => {
    const resetting = await openRaw(t, (socket) => socket.resetAndDestroy())
    assert.equal((await send(resetting.url)).status, 'failed')
    const receiver = await openReceiver(t)
    const free = await openRaw(t, () => {})
    assert.ok(receiver.port !== Number(new URL(free.url).port))
    const posted = await send('http://127.0.0.1:1/')
    assert.deepEqual(posted, { status: 'failed', reason: 'ECONNREFUSED' })
  })

  test('ends when it is told to, and closes the connection', async (t) => {
    const silent = await openRaw(t, () => end.abort(new Error('the sender closes')))
    const end = new AbortController()
    const posted = await send(silent.url, { signal: end.signal })
    assert.deepEqual(posted, { status: 'failed', reason: 'the sender closes' })
    await silent.waitForQuiet()
  })
})
