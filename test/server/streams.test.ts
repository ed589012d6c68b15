import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import type { Engine } from '../../src/index.ts'
import { readEvents, startServer } from '../server-harness.ts'

const READERS = 150

test('streams at one place of a topic share one read, and each gets every message, whoever else leaves', async (t) => {
  // With a log the framework waits for the end of answers, so that both ways are walked.
  const { call, sluice, url } = await startServer(t, { log: { write: () => {} } })
  await call('PUT', '/v1/topics/shared')
  const reads = countReads(sluice.engine)
  const published = 5
  const streams = Array.from({ length: READERS }, () => readEvents(`${url}/v1/topics/shared/messages?from=latest`))
  // Each has its first comment, so each is at the end of the topic.
  for (const stream of streams) assert.equal((await stream.next()).value?.name, 'comment')
  assert.ok(reads() < 2 * READERS, `${reads()} reads: one for the first page of each, and a few that wait`)
  const [leaving, staying] = [streams.slice(0, READERS / 3), streams.slice(READERS / 3)]
  for (const stream of leaving) await stream.return(undefined)
  const before = reads()
  for (let n = 0; n < published; n++) await call('POST', '/v1/topics/shared/messages', { body: n })
  await Promise.all(
    staying.map(async (stream) => {
      const seen: number[] = []
      for await (const { name, data } of stream) {
        if (name !== 'comment') seen.push(data.payload)
        if (seen.length === published) break
      }
      assert.deepEqual(seen, [0, 1, 2, 3, 4])
    }),
  )
  assert.ok(reads() - before < staying.length, `${reads() - before} reads for ${staying.length} streams`)
})

test('a reader that stops reading holds up nobody, and gets all of it when it goes on', async (t) => {
  const { call, port, url } = await startServer(t)
  await call('PUT', '/v1/topics/slow')
  const socket = connect(port, '127.0.0.1')
  t.after(() => socket.destroy())
  socket.write('GET /v1/topics/slow/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n')
  await once(socket, 'readable')
  // More than the buffers between the two.
  const lines = 2_000
  const payload = 'x'.repeat(8_000)
  const body = Array.from({ length: lines / 4 }, () => JSON.stringify({ payload })).join('\n')
  for (let i = 0; i < 4; i++) await call('POST', '/v1/topics/slow/messages', { body, type: 'application/x-ndjson' })
  let quick = 0
  for await (const { name } of readEvents(`${url}/v1/topics/slow/messages`)) {
    if (name !== 'comment') quick++
    if (quick === lines) break
  }
  socket.setEncoding('latin1')
  const chunks: string[] = []
  for await (const chunk of socket) {
    chunks.push(chunk)
    if (
      chunks
        .slice(-2)
        .join('')
        .includes(`id: ${lines - 1}\n`)
    )
      break
  }
  const offsets = [...chunks.join('').matchAll(/^id: (\d+)$/gm)].map(([, id]) => Number(id))
  assert.deepEqual(
    offsets,
    Array.from({ length: lines }, (_, n) => n),
  )
})

test('idle streams get a beat each, and a stream whose reader left is counted once', async (t) => {
  const { call, url } = await startServer(t, { heartbeatMs: 20 })
  await call('PUT', '/v1/topics/beats')
  const streams = Array.from({ length: 70 }, () => readEvents(`${url}/v1/topics/beats/messages`))
  for (const stream of streams) {
    for (let beats = 0; beats < 3; beats++) assert.equal((await stream.next()).value?.name, 'comment')
  }
  for (const stream of streams) await stream.return(undefined)
  const route = 'method="GET",route="/v1/topics/:topic/messages",status="200"'
  for (;;) {
    const { text } = await call('GET', '/metrics')
    if (
      text.includes(`sluice_http_requests_total{${route}} ${streams.length}\n`) &&
      text.includes('sluice_http_waiting 0\n')
    )
      return
    await turn()
  }
})

/** How many reads of the engine there were since. */
function countReads(engine: Engine): () => number {
  const read = engine.read.bind(engine)
  let count = 0
  Object.assign(engine, {
    read: (...given: Parameters<Engine['read']>) => {
      count++
      return read(...given)
    },
  })
  return () => count
}
