/** Clients that are slow, silent or too many: each is cut in its time, the others are served, and nothing is kept of them. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { test } from 'node:test'
import { sendRaw } from '../server-harness.ts'
import { startTarget } from './hostile-server.ts'

/** Sends `start`, then `drip` again and again, until the server ends it; what it said last. */
function dripping(port: number, start: string, drip: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    let received = ''
    const timer = setInterval(() => socket.write(drip), 20)
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      received += chunk
    })
    socket.on('error', () => {})
    socket.on('close', () => {
      clearInterval(timer)
      resolve(received)
    })
    socket.write(start)
  })
}

test('headers and bodies that come a byte at a time are cut with 408, and others are served meanwhile', async (t) => {
  const { port, head, call, admin, unharmed } = await startTarget(t, { requestTimeoutMs: 500 })
  const json = 'Content-Type: application/json'
  const slow = [
    ...Array.from({ length: 30 }, () => dripping(port, 'GET /healthz HTTP/1.1\r\nHost: localhost\r\n', 'a: b\r\n')),
    ...Array.from({ length: 30 }, () => dripping(port, '', 'G')),
    ...Array.from({ length: 30 }, () =>
      dripping(port, `${head('POST /v1/queues/q/jobs', json, 'Content-Length: 900000')}\r\n`, '1'),
    ),
    ...Array.from({ length: 30 }, () =>
      dripping(port, `${head('POST /v1/queues/q/jobs', json, 'Transfer-Encoding: chunked')}\r\n`, '1\r\n1\r\n'),
    ),
    ...Array.from({ length: 30 }, () =>
      dripping(port, `${head('POST /v1/leases:settle', json, 'Content-Length: 900000')}\r\n`, ' '),
    ),
  ]
  assert.equal((await call('PUT', '/v1/queues/other', { headers: admin.headers })).status, 201)
  assert.equal((await call('POST', '/v1/queues/other/jobs', { body: 1, headers: admin.headers })).status, 202)
  for (const said of await Promise.all(slow)) assert.match(said, /^HTTP\/1\.1 (?:408|400) |^$/)
  await unharmed(1)
})

test('connections that say nothing, or close one half and wait, end', async (t) => {
  const { port, head, unharmed } = await startTarget(t, { requestTimeoutMs: 500 })
  const silent = Array.from({ length: 20 }, () => sendRaw(port, ''))
  const halves = Array.from({ length: 20 }, () => sendRaw(port, head('GET /v1/queues'), true))
  for (const said of await Promise.all(silent)) assert.match(said, /^HTTP\/1\.1 408 /)
  for (const said of await Promise.all(halves)) assert.match(said, /^HTTP\/1\.1 400 |^$/)
  // A whole request whose client then closes its half is served.
  assert.match(await sendRaw(port, `${head('GET /v1/queues')}\r\n`, true), /^HTTP\/1\.1 200 |^$/)
  await unharmed(0)
})

test('closing does not wait for connections that never said anything', async (t) => {
  const { server, port } = await startTarget(t, { drainMs: 3_600_000, requestTimeoutMs: 3_600_000 })
  const silent = connect(port, '127.0.0.1').on('error', () => {})
  await once(silent, 'connect')
  assert.match(
    await sendRaw(port, 'GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'),
    /^HTTP\/1\.1 200 /,
  )
  const ended = once(silent.resume(), 'close')
  await server.close()
  await ended
})

test('a client that asks much and reads nothing holds up nobody, and what it left is given back', async (t) => {
  const { port, head, admin, call, unharmed } = await startTarget(t)
  const text = 'x'.repeat(900_000)
  for (let i = 0; i < 4; i++)
    assert.equal(
      (
        await call('POST', '/v1/topics/t/messages', {
          body: JSON.stringify(text),
          type: 'application/json',
          headers: admin.headers,
        })
      ).status,
      201,
    )
  const greedy: Socket[] = []
  for (let i = 0; i < 10; i++) {
    const socket = connect(port, '127.0.0.1').on('error', () => {})
    await once(socket, 'connect')
    socket.pause().write(`${head('GET /v1/topics/t/messages?from=0')}\r\n`.repeat(20))
    greedy.push(socket)
  }
  assert.equal(
    (await call('GET', '/v1/topics/t/messages?from=3&limit=1', { headers: admin.headers })).json.messages.length,
    1,
  )
  for (const socket of greedy) socket.destroy()
  await unharmed(4)
})

test('of answers that nobody takes so much is kept as maxSendingBytes says: the oldest are cut, and who reads is answered', async (t) => {
  const maxSendingBytes = 3_000_000
  const { port, head, admin, call, unharmed } = await startTarget(t, { maxSendingBytes })
  const { headers } = admin
  const figure = async (name: string) => {
    const { text } = await call('GET', '/metrics', { headers })
    return Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text)?.[1])
  }
  // Larger than what the kernel keeps for a client, so that an answer stays with the server.
  const body = JSON.stringify('x'.repeat(1_000_000))
  for (let i = 0; i < 12; i++) await call('POST', '/v1/topics/t/messages', { body, type: 'application/json', headers })
  const greedy: Socket[] = []
  let cuts = 0
  // How much the kernel takes for a client that reads nothing is its own affair.
  for (let i = 0; i < 60 && cuts < 4; i++) {
    const socket = connect(port, '127.0.0.1').on('error', () => {})
    await once(socket, 'connect')
    const accept = i % 2 === 0 ? 'text/event-stream' : 'application/json'
    socket
      .pause()
      .write(`${head('GET /v1/topics/t/messages?from=0', `Accept: ${accept}`)}\r\n`.repeat(i % 2 === 0 ? 1 : 4))
    greedy.push(socket)
    assert.ok((await figure('sluice_http_answer_bytes')) <= Math.max(maxSendingBytes, 5_000_000))
    cuts = await figure('sluice_http_cut_answers_total')
  }
  assert.ok(cuts >= 4, `${cuts} were cut`)
  const page = await call('GET', '/v1/topics/t/messages?from=0&limit=1', { headers })
  assert.equal(page.json.messages[0].payload.length, 1_000_000)
  for (const socket of greedy) socket.destroy()
  await unharmed(12)
})

test('connections beyond maxConnections are closed unanswered; those that are there go on', async (t) => {
  const { port, unharmed } = await startTarget(t, { maxConnections: 20 })
  const held = connect(port, '127.0.0.1')
  await once(held, 'connect')
  const more = Array.from({ length: 100 }, () =>
    connect(port, '127.0.0.1')
      .on('error', () => {})
      .resume(),
  )
  const closings = more.map((socket) => once(socket, 'close'))
  let closed = 0
  const { promise: dropped, resolve } = Promise.withResolvers<void>()
  for (const closing of closings) closing.then(() => ++closed === 80 && resolve())
  await dropped
  held.write('GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
  assert.match(String(await once(held, 'data')), /^HTTP\/1\.1 200 /)
  for (const socket of more) socket.destroy()
  held.destroy()
  await Promise.all(closings)
  await unharmed(0)
})

test('names without end make as many queues as maxQueues and no more, and no more series', async (t) => {
  const { port, head, call, admin, sluice, unharmed } = await startTarget(t, { maxQueues: 40 })
  const BATCH = 500
  let stored = 0
  for (let from = 0; from < 10_000; from += BATCH) {
    const requests = Array.from({ length: BATCH }, (_, i) => {
      const path = i % 2 === 0 ? `/v1/queues/n${from + i}/jobs` : `/v1/topics/n${from + i}/messages`
      const last = i === BATCH - 1 ? ['Connection: close'] : []
      return `${head(`POST ${path}`, 'Content-Type: application/json', 'Content-Length: 1', ...last)}\r\n1`
    })
    const answer = await sendRaw(port, requests.join(''))
    stored += answer.split('"durability"').length - 1
    assert.equal(answer.split('HTTP/1.1 ').length - 1, BATCH)
  }
  assert.equal(stored, 40)
  assert.equal((await sluice.stats()).topics.length, 40)
  const { text } = await call('GET', '/metrics', { headers: admin.headers })
  assert.ok(!text.includes('n5000'))
  await unharmed(40)
})

test('a guesser of keys costs little, learns nothing and fills no log', async (t) => {
  const { port, admin, log, unharmed } = await startTarget(t)
  const COUNT = 3_000
  const guesses = Array.from({ length: COUNT }, (_, i) => {
    const secret = `${admin.text.slice(0, 20)}${String(i).padStart(43, 'A')}`
    return `GET /v1/queues HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${secret}\r\n${i === COUNT - 1 ? 'Connection: close\r\n' : ''}\r\n`
  })
  const answer = await sendRaw(port, guesses.join(''))
  assert.equal(answer.split('HTTP/1.1 401 ').length - 1, COUNT)
  assert.equal(new Set([...answer.matchAll(/"detail":"([^"]*)"/g)].map(([, detail]) => detail)).size, 1)
  assert.ok(log.length >= 1 && log.length <= 5, `${log.length} lines for ${COUNT} guesses`)
  await unharmed(0)
})

test('a body or line of more values than anybody means is refused before it is parsed', async (t) => {
  const { admin, call, unharmed } = await startTarget(t)
  const { headers } = admin
  const many = '[],'.repeat(1_000_001)
  const settle = await call('POST', '/v1/leases:settle', {
    body: `{"items":[${many}[]]}`,
    type: 'application/json',
    headers,
  })
  assert.deepEqual([settle.status, settle.json.code, settle.json.limit], [400, 'BAD_REQUEST', 1_000_000])
  const lines = `{"payload":1}\n{"payload":[${many}[]]}\n`
  const batch = await call('POST', '/v1/queues/q/jobs', { body: lines, type: 'application/x-ndjson', headers })
  assert.match(batch.text.split('\n')[1] as string, /INVALID_PAYLOAD.*1000000/)
  // What stands in a text is no value, however it looks.
  const quoted = `${JSON.stringify({ payload: `\\"${'[,'.repeat(510_000)}` })}\n${JSON.stringify({ payload: 1 })}\n`
  const fine = await call('POST', '/v1/queues/q/jobs', { body: quoted, type: 'application/x-ndjson', headers })
  assert.equal(fine.text.split('\n').filter((line) => line.includes('"stored"')).length, 2)
  await unharmed(3)
})
