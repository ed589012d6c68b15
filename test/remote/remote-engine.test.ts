/** The engine over HTTP: what a network can do to it. The nouns over it are tested with the others (support/open-each.ts). */
import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { once } from 'node:events'
import { createServer as createHttpServer } from 'node:http'
import { describe, type TestContext, test } from 'node:test'
import { decodeWire, encodeWire, WIRE_TYPE, WIRE_VERSION } from '../../src/engine/wire.ts'
import { type Engine, isSluiceError, open } from '../../src/index.ts'
import { BatchBuilder } from '../../src/message-batch.ts'
import { openRemoteEngine } from '../../src/remote/remote-engine.ts'
import { createServer } from '../../src/server/server.ts'
import { startServer, temporaryFolder } from '../server-harness.ts'
import { type Fault, openProxy } from '../support/tcp-proxy.ts'

async function openThrough(t: TestContext, url: string): Promise<{ engine: Engine; fault: (next: Fault) => void }> {
  const proxy = await openProxy(new URL(url))
  const engine = await openRemoteEngine(new URL(proxy.url))
  t.after(async () => {
    await engine.close()
    await proxy.close()
  })
  return { engine, fault: (next) => proxy.next(next) }
}

function batchOf(...payloads: string[]): Uint8Array {
  const builder = new BatchBuilder()
  for (const payload of payloads) builder.add({ payload })
  return builder.finish()
}

const isCode = (code: string) => (error: unknown) => isSluiceError(error, code as 'UNKNOWN')
const TOKEN = { kind: 'token', token: 'w' } as const
const lease = { topic: 'q', group: '', max: 10, leaseMs: 30_000, waitMs: 0, holder: TOKEN } as const

describe('a lost answer', () => {
  test('of an append is asked for again, and stored once, with an idempotency key and without (P2, P8)', async (t) => {
    const { url } = await startServer(t)
    const { engine, fault } = await openThrough(t, url)
    await engine.declare([{ kind: 'queue', name: 'q', settings: {} }])
    for (const one of ['cut-answer', 'cut-within-answer', 'cut-request'] as const) {
      fault(one)
      const [stored] = await engine.append([{ topic: 'q', batch: batchOf(one) }])
      equal(stored?.status, 'stored', one)
    }
    fault('cut-answer')
    const [keyed] = await engine.append([
      { topic: 'q', batch: batchOf('2'), wishes: [{ index: 0, idempotencyKey: 'k' }] },
    ])
    equal(keyed?.status === 'mixed' && keyed.outcomes[0]?.status, 'duplicate', 'it was sent again by itself')
    equal((await engine.stats()).topics[0]?.head, 4)
  })

  test('of an append is UNKNOWN where the server was restarted before it could be asked again (P2)', async (t) => {
    const served = await startServer(t)
    const proxy = await openProxy(new URL(served.url))
    t.after(() => proxy.close())
    const engine = await openRemoteEngine(new URL(proxy.url))
    t.after(() => engine.close())
    await engine.declare([{ kind: 'queue', name: 'q', settings: {} }])
    const other = createServer(served.sluice, { port: 0 })
    t.after(() => other.close())
    proxy.next('cut-answer', () => proxy.moveTo(new URL(other.url)))
    await other.listen()
    await rejects(engine.append([{ topic: 'q', batch: batchOf('1') }]), isCode('UNKNOWN'))
    equal((await engine.stats()).topics[0]?.head, 1, 'it was stored, and not once more')
  })

  test('of a redrive is asked for again, and makes one new job of each dead letter', async (t) => {
    const { url, sluice } = await startServer(t)
    const { engine, fault } = await openThrough(t, url)
    const queue = sluice.queue('q', { attempts: 1 })
    const job = await queue.add(1)
    const worker = queue.work(() => {
      throw new Error('planned')
    })
    await rejects(job.result(), isCode('JOB_FAILED'))
    await worker.close()
    fault('cut-answer')
    const outcome = await engine.command({ kind: 'redrive', topic: 'q', group: '', max: 10 })
    equal(outcome.status, 'done')
    equal((await engine.stats()).topics[0]?.head, 2)
  })

  test('of a settle is never told as a lease that was lost (P2, P5)', async (t) => {
    const { url } = await startServer(t)
    const { engine, fault } = await openThrough(t, url)
    await engine.declare([{ kind: 'queue', name: 'q', settings: {} }])
    await engine.append([{ topic: 'q', batch: batchOf('1', '2') }])
    const held = await engine.lease(lease)
    ok(held.status === 'leased')
    const hold = { topic: 'q', group: '', fence: held.fence, token: 'w', outcome: { kind: 'done' } } as const
    fault('cut-answer')
    deepEqual(await engine.settle([{ ...hold, offsets: [0] }]), [{ status: 'settled', lost: [], outputs: [] }])
    fault('cut-request')
    deepEqual(await engine.settle([{ ...hold, offsets: [1] }]), [{ status: 'settled', lost: [], outputs: [] }])
    equal((await engine.stats()).topics[0]?.depth.messages, 0)
  })

  test('of a question is asked again, and that of a lease is UNKNOWN (P2)', async (t) => {
    const { url } = await startServer(t)
    const { engine, fault } = await openThrough(t, url)
    await engine.declare([{ kind: 'queue', name: 'q', settings: {} }])
    await engine.append([{ topic: 'q', batch: batchOf('1') }])
    fault('cut-request')
    equal((await engine.stats()).topics.length, 1)
    fault('cut-request')
    await rejects(engine.lease({ ...lease, waitMs: 5_000 }), isCode('UNKNOWN'))
    const held = await engine.lease({ ...lease, waitMs: 5_000 })
    ok(held.status === 'leased' && held.offsets.length === 1)
  })
})

test('a server that refuses is asked again no sooner than it said, and no more often than the retry budget allows', async (t) => {
  const RETRY_MS = 30
  const arrivals: number[] = []
  const server = createHttpServer((request, response) => {
    if (request.method === 'GET') {
      response.end(`{"product":"sluice","version":${WIRE_VERSION},"nowMs":${Date.now()},"maxWaitMs":1,"abilities":{}}`)
      return
    }
    arrivals.push(performance.now())
    response.writeHead(503, { 'content-type': 'application/problem+json' })
    response.end(`{"code":"OVERLOADED","detail":"planned","retryAfterMs":${RETRY_MS}}`)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const engine = await openRemoteEngine(new URL(`http://127.0.0.1:${port}`))
  t.after(async () => {
    await engine.close()
    server.closeAllConnections()
    server.close()
  })
  const startedAt = performance.now()
  const calls = 100
  for (let i = 0; i < calls; i++) await rejects(engine.stats(), isCode('OVERLOADED'))
  const seconds = (performance.now() - startedAt) / 1_000
  const retries = arrivals.length - calls
  ok(retries >= 10, `${retries} retries`)
  ok(retries <= 10 + calls * 0.1 + seconds + 1, `${retries} retries of ${calls} calls in ${seconds} s`)
  // The first call uses the reserve up, one retry after the other.
  const gaps = arrivals.slice(1, 10).map((at, i) => at - (arrivals[i] as number))
  ok(
    gaps.every((gap) => gap >= RETRY_MS - 1),
    `${gaps}`,
  )
})

test('a worker goes on through a restart of its server, and its lease with it (P5)', async (t) => {
  const folder = await temporaryFolder(t)
  const start = async (port: number) => {
    const sluice = await open(folder)
    const server = createServer(sluice, { port, drainMs: 100 })
    await server.listen()
    return { port: Number(new URL(server.url).port), close: () => server.close().then(() => sluice.close()) }
  }
  const before = await start(0)
  const remote = await open(`http://127.0.0.1:${before.port}`)
  const queue = remote.queue<number, string>('q')
  const { promise: started, resolve: hasStarted } = Promise.withResolvers<void>()
  const { promise: gate, resolve: goOn } = Promise.withResolvers<void>()
  const attempts: number[] = []
  queue.work(async (_job, { attempt }) => {
    attempts.push(attempt)
    hasStarted()
    await gate
    return 'done'
  })
  const job = await queue.add(1)
  await started
  await before.close()
  const after = await start(before.port)
  t.after(async () => {
    await remote.close()
    await after.close()
  })
  goOn()
  equal(await job.result({ timeoutMs: 20_000 }), 'done')
  deepEqual(attempts, [1])
})

describe('the handshake', () => {
  test('tells a server that is no Sluice, one of another version, and one that is not there', async (t) => {
    let answer = '<html>'
    const other = createHttpServer((_request, response) => response.end(answer)).listen(0, '127.0.0.1')
    await once(other, 'listening')
    t.after(() => other.close())
    const { port } = other.address() as { port: number }
    await rejects(
      open(`http://127.0.0.1:${port}`),
      (error) => isCode('UNSUPPORTED')(error) && /not a Sluice/.test(`${error}`),
    )
    answer = '{"product":"sluice","version":99}'
    await rejects(
      open(`http://127.0.0.1:${port}`),
      (error) => isCode('UNSUPPORTED')(error) && /version 99/.test(`${error}`),
    )
    other.closeAllConnections()
    other.close()
    await once(other, 'close')
    await rejects(
      open(`http://127.0.0.1:${port}`),
      (error) => isCode('UNKNOWN')(error) && /sluice serve/.test(`${error}`),
    )
  })

  test('refuses credentials without showing them, paths, and a durability that the server does not keep', async (t) => {
    const { url } = await startServer(t)
    await rejects(
      open('http://me:secret@127.0.0.1:1'),
      (error) => isCode('UNSUPPORTED')(error) && !`${error}`.includes('secret'),
    )
    await rejects(open(`${url}/data`), isCode('INVALID_OPTION'))
    await rejects(open(url, { durability: 'disk' }), isCode('UNSUPPORTED'))
  })
})

describe('hostile bytes', () => {
  const post = async (url: string, method: string, body: Uint8Array) => {
    const answer = await fetch(`${url}/v1/engine/${method}`, {
      method: 'POST',
      headers: { 'content-type': WIRE_TYPE },
      body: body as unknown as string,
    })
    return { status: answer.status, code: ((await answer.json()) as { code: string }).code }
  }

  test('in a body are refused, and the engine goes on (P13)', async (t) => {
    const { url, sluice } = await startServer(t)
    await sluice.queue('q').add(1)
    const whole = encodeWire([{ topic: 'q', batch: batchOf('1') }])
    for (let at = 0; at < whole.byteLength; at++) {
      const broken = Buffer.from(whole)
      broken[at] = (broken[at] as number) ^ 0x55
      const { status } = await post(url, 'append', broken)
      ok(status >= 400 && status < 500, `byte ${at} flipped: ${status}`)
      equal((await post(url, 'append', whole.subarray(0, at))).status, 400, `cut at ${at}`)
    }
    equal((await sluice.stats()).topics[0]?.head, 1)
  })

  test('in an argument are refused by name', async (t) => {
    const { url, sluice } = await startServer(t)
    await sluice.queue('q').add(1)
    const hold = { topic: 'q', group: '', fence: 1, offsets: [0], token: 'w' }
    const bad: readonly (readonly [string, unknown])[] = [
      ['append', [{ topic: 'q', batch: 'text' }]],
      ['append', [{ topic: '../q', batch: batchOf('1') }]],
      ['append', [{ topic: ['q'], batch: batchOf('1') }]],
      ['append', [{ topic: 'q', batch: batchOf('1'), wishes: [{ index: 1 }] }]],
      ['append', [{ topic: 'q', batch: batchOf('1', '2'), wishes: [{ index: 1 }, { index: 0 }] }]],
      ['lease', { ...lease, holder: { kind: 'process' } }],
      ['lease', { ...lease, max: 1e9 }],
      ['lease', { ...lease, waitMs: -1 }],
      ['lease', { ...lease, more: 1 }],
      ['settle', [{ ...hold, outcome: { kind: 'no' } }]],
      ['settle', [{ ...hold, outcome: { kind: 'constructor' } }]],
      ['settle', [{ ...hold, outcome: { kind: 'done', result: 'not json' } }]],
      ['settle', [{ ...hold, offsets: [0.5], outcome: { kind: 'done' } }]],
      ['settle', { ...hold }],
      ['extend', [{ ...hold, leaseMs: 1e99 }]],
      ['find', [7]],
      ['watch', { id: 'x', version: null, untilTerminal: true, waitMs: 0 }],
      ['read', { topic: 'q', from: -1, max: 1, waitMs: 0 }],
      ['read', { topic: 'q', from: { timeMs: 'x' }, max: 1, waitMs: 0 }],
      ['command', { kind: 'toString' }],
      ['command', { kind: 'dead', topic: 'q', group: '', after: '\u007f', max: 1 }],
      ['command', { kind: 'remember', hold, name: 'x', value: 'not json' }],
      ['declare', [{ kind: 'queue', name: 'q', settings: { attempts: -1 } }]],
      ['declare', [{ kind: 'queue', name: 'q', settings: { nothing: 1 } }]],
      ['declare', [{ kind: 'other', name: 'q', settings: {} }]],
      ['stats', {}],
    ]
    for (const [method, argument] of bad) {
      const { status, code } = await post(url, method, encodeWire(argument))
      ok(status >= 400 && status < 500, `${method} ${JSON.stringify(argument)}: ${status} ${code}`)
    }
    equal((await post(url, 'nothing', encodeWire(null))).code, 'NOT_FOUND')
    equal((await post(url, 'close', encodeWire(null))).code, 'NOT_FOUND')
    equal((await sluice.stats()).log.status, 'ok')
  })
})

test('a value with bytes in it comes out as it went in', () => {
  const value = { a: [new Uint8Array([1, 2]), { b: new Uint8Array(0), c: 'ü', d: null, e: 1.5 }], f: [] }
  deepEqual(decodeWire(encodeWire(value)), value)
  deepEqual(decodeWire(encodeWire(Buffer.from('x'))), new Uint8Array([120]))
  equal(decodeWire(encodeWire(undefined)), null)
})
