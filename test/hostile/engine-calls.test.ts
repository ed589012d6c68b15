/**
 * The calls of the engine contract by somebody who speaks their format and means harm. What they could break is the engine
 * itself, for everybody: it trusts what the server lets through.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { crc32 } from 'node:zlib'
import { encodeWire, WIRE_TYPE } from '../../src/engine/wire.ts'
import { open } from '../../src/index.ts'
import { BatchBuilder, type MessageFields } from '../../src/message-batch.ts'
import { createServer } from '../../src/server/server.ts'
import { call as callServer, startServer, temporaryFolder } from '../server-harness.ts'
import { makeKey } from '../support/keys.ts'

const MAGIC = 0x01454c53

/** A body whose JSON is that text, whatever it is. */
function frame(json: string, pieces: readonly Uint8Array[] = []): Buffer {
  const text = Buffer.from(`{"value":${json},"lengths":[${pieces.map(({ byteLength }) => byteLength)}]}`)
  const head = Buffer.alloc(8)
  head.writeUInt32LE(MAGIC, 0)
  head.writeUInt32LE(text.byteLength, 4)
  return Buffer.concat([head, text, ...pieces])
}

function batchOf(fields: MessageFields = { payload: '1' }): Buffer {
  const builder = new BatchBuilder()
  builder.add(fields)
  return Buffer.from(builder.finish())
}

/** The same with other bytes at a place, and its checksum right again. */
function changed(batch: Buffer, change: (bytes: Buffer) => void): Buffer {
  const bytes = Buffer.from(batch)
  change(bytes)
  bytes.writeUInt32LE(crc32(bytes.subarray(8)), 4)
  return bytes
}

async function post(url: string, method: string, body: Uint8Array, headers: Record<string, string> = {}) {
  const answer = await fetch(`${url}/v1/engine/${method}`, {
    method: 'POST',
    headers: { 'content-type': WIRE_TYPE, ...headers },
    body: body as unknown as string,
  })
  const bytes = Buffer.from(await answer.arrayBuffer())
  const code = answer.status === 200 ? '' : (JSON.parse(bytes.toString()) as { code: string }).code
  return { status: answer.status, code, bytes }
}

/** A server over a folder, whose engine runs in a thread of its own, and who may do no more than publish to `q`. */
async function startGuarded(t: import('node:test').TestContext) {
  const folder = await temporaryFolder(t)
  const keyFile = join(folder, 'keys.json')
  const publisher = await makeKey(keyFile, ['publish:q', 'read:q'])
  const admin = await makeKey(keyFile, ['admin'])
  const harness = await startServer(t, { keys: keyFile }, join(folder, 'data'))
  await harness.sluice.queue('q').add(1)
  const ask = (method: string, body: Uint8Array) => post(harness.url, method, body, publisher.headers)
  const works = async () => {
    const added = await harness.call('POST', '/v1/queues/q/jobs', { headers: publisher.headers, body: 1 })
    assert.equal(added.status, 202)
    const shown = await harness.call('GET', added.headers.get('location') as string, { headers: publisher.headers })
    assert.equal(shown.json.status, 'queued')
    assert.equal((await harness.call('GET', '/v1/schedules', { headers: admin.headers })).status, 200)
  }
  return { ...harness, admin, publisher, ask, works }
}

test('a member that is a prototype is refused: it would pass every check and be gone in the thread of the engine', async (t) => {
  const { ask, works } = await startGuarded(t)
  const hidden = (json: string) => `{"__proto__":${json}}`
  const requests: readonly (readonly [string, string])[] = [
    ['append', `[${hidden('{"topic":"q","batch":{"~":0}}')}]`],
    ['append', `[{"topic":"q","batch":{"~":0},"wishes":[${hidden('{"index":0}')}]}]`],
    ['declare', `[${hidden('{"kind":"queue","name":"q","settings":{}}')}]`],
    ['declare', `[{"kind":"queue","name":"q","settings":${hidden('{"attempts":1}')}}]`],
    ['read', hidden('{"topic":"q","from":0,"max":1,"waitMs":0}')],
    ['watch', hidden('{"id":"q:a:0","version":0,"untilTerminal":true,"waitMs":0}')],
    ['command', hidden('{"kind":"cancel","id":"q:a:0"}')],
    ['command', hidden('{"kind":"fire","queue":"q","name":"s","revision":0,"fromMs":0,"toMs":1,"append":null}')],
  ]
  for (const [method, json] of requests) {
    const { status, code } = await ask(method, frame(json, json.includes('~') ? [batchOf()] : []))
    assert.deepEqual([status, code], [400, 'BAD_REQUEST'], `${method} ${json}`)
    await works()
  }
})

test('a body that would unfold into much more than it is costs no more than it is', async (t) => {
  const { ask, works } = await startGuarded(t)
  const piece = Buffer.alloc(4_000_000)
  const many = (one: string, count: number) => `[${new Array(count).fill(one).join(',')}]`
  const before = process.memoryUsage().rss
  const bodies: readonly (readonly [string, Buffer])[] = [
    // 40 GB, were each a copy.
    ['one piece in many places', frame(many('{"topic":"q","batch":{"~":0}}', 10_000), [piece])],
    ['brackets beside each other', frame(many('[]', 4_000_000))],
    ['brackets within each other', frame('['.repeat(4_000_000))],
    ['a depth that a stack has no room for', frame('['.repeat(5_000) + ']'.repeat(5_000))],
    ['a piece that is none', frame('[{"~":"length"}]', [piece])],
  ]
  for (const [what, body] of bodies) {
    const { status, code } = await ask('append', body)
    assert.deepEqual([status, code], [400, 'BAD_REQUEST'], what)
  }
  assert.ok(process.memoryUsage().rss - before < 1_000_000_000)
  await works()
})

test('a batch that its readers would stumble over is refused before it is stored', async (t) => {
  const { ask, works, sluice } = await startGuarded(t)
  const withHead = batchOf({ payload: '1', key: 'kk', headers: { a: 'b' } })
  const headersAt = withHead.indexOf('{"a":"b"}')
  const overHeaders = (text: string) => changed(withHead, (bytes) => bytes.write(text.padEnd(9), headersAt, 'latin1'))
  const bad: readonly (readonly [string, Buffer])[] = [
    ['headers that are no JSON', overHeaders('[')],
    ['headers that are no object', overHeaders('[1]')],
    ['headers that are null', overHeaders('null')],
    ['a header that is no text', overHeaders('{"a":1}')],
    ['a lane beyond the numbers there are', changed(withHead, (bytes) => bytes.writeUInt32LE(0xffffffff, 16 + 8))],
    ['a lane of another key', changed(withHead, (bytes) => bytes.writeUInt32LE(7, 16 + 4))],
    ['a deadline that is no number', changed(withHead, (bytes) => bytes.writeDoubleLE(Number.NaN, 16 + 16))],
    ['a deadline beyond all time', changed(withHead, (bytes) => bytes.writeDoubleLE(1e300, 16 + 16))],
    ['a payload larger than one may be', batchOf({ payload: `"${'x'.repeat(1_100_000)}"` })],
  ]
  for (const [what, batch] of bad) {
    const { status, code } = await ask('append', encodeWire([{ topic: 'q', batch }]))
    assert.ok(status === 400 || status === 413, `${what}: ${status} ${code}`)
    await works()
  }
  for (const moment of ['1e300', '-1e300', '9e15']) {
    const json = `[{"topic":"q","batch":{"~":0},"wishes":[{"index":0,"dueAtMs":${moment}}]}]`
    assert.equal((await ask('append', frame(json, [batchOf()]))).code, 'INVALID_OPTION', moment)
  }
  assert.equal((await ask('append', encodeWire([{ topic: 'q', batch: withHead }]))).status, 200)
  assert.equal((await sluice.stats()).topics[0]?.scheduled, 0)
})

test('a schedule that no process could read is refused, and one that is stored keeps no other from being listed', async (t) => {
  const { ask, works, sluice, call, admin } = await startGuarded(t)
  const good = { timing: '{"everyMs":60000}', job: '{"options":{},"payload":1}' }
  const bad: readonly Partial<typeof good>[] = [
    ...['null', '1', '[]', '{}', '{"everyMs":0}', '{"everyMs":1}', '{"everyMs":1e-9}', '{"cron":5}'].map((timing) => ({
      timing,
    })),
    ...['{"cron":"* * * * *","timeZone":7}', '{"cron":"* * * * * *"}', '{"everyMs":60000,"more":1}'].map((timing) => ({
      timing,
    })),
    ...['null', '1', '[]', '{}', '{"options":null,"payload":1}', '{"options":{"priority":"x"},"payload":1}'].map(
      (job) => ({ job }),
    ),
    { job: '{"options":{"callbackUrl":"file:///etc/passwd"},"payload":1}' },
    { job: '{"options":{"headers":{"a":1}},"payload":1}' },
  ]
  for (const [i, part] of bad.entries()) {
    const command = { kind: 'schedule', queue: 'q', name: `s${i}`, ...good, ...part }
    const { status, code } = await ask('command', encodeWire(command))
    assert.equal(status, 400, `${JSON.stringify(part)}: ${status} ${code}`)
  }
  // As an older server may have let one in.
  await sluice.engine.command({ kind: 'schedule', queue: 'q', name: 'broken', timing: 'null', job: 'null' })
  assert.equal((await ask('command', encodeWire({ kind: 'schedule', queue: 'q', name: 'good', ...good }))).status, 200)
  await works()
  const { schedules } = (await call('GET', '/v1/schedules', { headers: admin.headers })).json
  assert.deepEqual(
    schedules.map(({ name, nextAtMs }: { name: string; nextAtMs: number | null }) => [name, nextAtMs !== null]),
    [
      ['broken', false],
      ['good', true],
    ],
  )
})

test('what a Sluice declares of schedules from another machine is what is stored here', async (t) => {
  const { url } = await startServer(t)
  await using remote = await open(url)
  const options = { cron: '0 8 * * MON-FRI', timeZone: 'Europe/Zurich', missed: 'all', priority: 'high' } as const
  await remote
    .queue('q')
    .schedule('payload', { ...options, key: 'k', headers: { b: '1', a: 'ü' } }, { z: 1, a: [1e21, 'x'] }).ready
  await remote.queue('q').schedule('code', { everyMs: 3_600_000 }, () => 1).ready
  await remote.queue('q').schedule('plain', { everyMs: 1_000 }, null).ready
  assert.deepEqual(
    (await remote.schedules()).map(({ name }) => name),
    ['code', 'payload', 'plain'],
  )
})

test('no answer has a stack of ours in it, also where the engine has stopped', async (t) => {
  const sluice = await open(':memory:')
  t.after(() => sluice.close())
  const { SluiceError } = await import('../../src/errors.ts')
  const log: string[] = []
  const failing = {
    ...sluice,
    queue: (name: string) => sluice.queue(name),
    runSchedules: () => sluice.runSchedules(),
    engine: {
      ...sluice.engine,
      abilities: sluice.engine.abilities,
      stats: () =>
        Promise.reject(new SluiceError('ENGINE_FAILED', 'The engine stopped: x', { stack: 'at secret.ts:1' })),
    },
  } as unknown as typeof sluice
  await using server = createServer(failing, { port: 0, log: { write: (line) => log.push(line) } })
  const url = await server.listen()
  const answer = await callServer(url, 'GET', '/v1/queues/q')
  assert.deepEqual([answer.status, answer.json.code], [500, 'ENGINE_FAILED'])
  assert.doesNotMatch(answer.text, /secret\.ts/)
  // It is for whoever runs the server, once.
  await callServer(url, 'GET', '/v1/queues/q')
  assert.equal(log.filter((line) => /secret\.ts/.test(line)).length, 1)
})

test('a firing of a tick that is not due is refused, and one at the end of time that is stored stops no process', async (t) => {
  const { ask, works, sluice, call, admin } = await startGuarded(t)
  const put = (name: string) =>
    call('PUT', `/v1/queues/q/schedules/${name}`, { headers: admin.headers, body: { cron: '* * * * *', payload: 1 } })
  const { createdAtMs } = (await put('s')).json
  const fire = { kind: 'fire', queue: 'q', name: 's', revision: 1, fromMs: createdAtMs, append: null } as const
  for (const toMs of [8.64e15, 1e15, createdAtMs + 200_000_000, 1e300])
    assert.equal((await ask('command', encodeWire({ ...fire, toMs }))).code, 'INVALID_OPTION', `${toMs}`)
  // As an older server may have let it in: whoever runs the schedule meets it.
  await sluice.engine.command({ ...fire, toMs: 8.64e15 })
  const other = sluice.runSchedules()
  await other.refresh()
  await other.close()
  assert.equal((await put('fine')).status, 200)
  await works()
})
