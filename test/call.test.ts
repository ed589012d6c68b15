/** Calls: work that somebody waits for, in process and over HTTP, over a network that breaks. */
import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { isSluiceError, open, type SluiceError } from '../src/index.ts'
import { startServer } from './server-harness.ts'
import { createSignal, onEachEngine } from './support/open-each.ts'
import { openProxy } from './support/tcp-proxy.ts'

const isCode = (code: string) => (error: unknown) => isSluiceError(error, code as 'UNKNOWN')

onEachEngine('a call', (openSluice) => {
  test('gets a result that was there before it began to wait (P11)', async (t) => {
    await using sluice = await openSluice()
    const queue = sluice.queue<number, string>('q')
    const ended = createSignal()
    queue.work(async () => 'early')
    const { engine } = sluice
    const watch = engine.watch.bind(engine)
    t.mock.method(engine, 'watch', async (...args: Parameters<typeof watch>) => {
      await ended.promise
      return watch(...args)
    })
    const called = queue.call(1)
    for (;;) {
      const [topic] = (await sluice.stats()).topics
      if (topic?.head === 1 && topic.depth.messages === 0) break
    }
    ended.resolve()
    equal(await called, 'early')
  })

  test('ends with the reason of its signal, and its job goes on', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue<number, string>('q')
    const started = createSignal()
    const gate = createSignal()
    queue.work(async () => {
      started.resolve()
      await gate.promise
      return 'done'
    })
    const abort = new AbortController()
    const called = queue.call(1, { signal: abort.signal })
    await started.promise
    abort.abort(new Error('not wanted'))
    await rejects(called, /not wanted/)
    gate.resolve()
    for (;;) if ((await sluice.stats()).topics[0]?.depth.messages === 0) break
  })

  test('is refused at once where the measured wait is past its deadline, and stored where it is not (P11)', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue<number, string>('q', { limit: { messages: 10_000 } })
    await queue.addMany(Array.from({ length: 3_000 }, (_, payload) => ({ payload })))
    queue.work(async () => {
      await new Promise((resolve) => setTimeout(resolve, 20))
      return 'done'
    })
    // 3,000 jobs of 20 ms: a minute. It is known once the line has been drained for a second.
    let refusal: SluiceError | null = null
    while (refusal === null) {
      refusal = await queue.call(0, { timeoutMs: 300 }).then(
        () => null,
        (error: SluiceError) => (error.code === 'WAIT_TOO_LONG' ? error : null),
      )
    }
    const { waitMs, limitMs, retryAfterMs } = refusal.details as Record<string, number>
    ok((waitMs as number) > 300 && (limitMs as number) <= 300 && (retryAfterMs as number) > 0, JSON.stringify(refusal))
    equal(refusal.retryable, true)
  })
})

/** A Sluice over HTTP, through a proxy. */
async function openThrough(t: TestContext) {
  const served = await startServer(t)
  const proxy = await openProxy(new URL(served.url))
  const sluice = await open(proxy.url)
  t.after(async () => {
    await sluice.close({ drainMs: 0 })
    await proxy.close()
  })
  return { ...served, proxy, remote: sluice }
}

test('a call survives that its connection breaks: before it is stored, while it is, and while it waits (P2, P11)', async (t) => {
  const { proxy, remote, sluice } = await openThrough(t)
  const queue = remote.queue<string, string>('q')
  await queue.declare()
  const gate = createSignal()
  const started = createSignal()
  const seen: string[] = []
  sluice.queue<string, string>('q').work(async ({ payload }) => {
    seen.push(payload)
    if (payload !== 'waits') return payload
    started.resolve()
    await gate.promise
    return payload
  })
  for (const fault of ['cut-request', 'cut-answer', 'cut-within-answer'] as const) {
    proxy.next(fault)
    equal(await queue.call(fault), fault)
  }
  const waits = queue.call('waits')
  await started.promise
  proxy.cutAll()
  gate.resolve()
  equal(await waits, 'waits')
  deepEqual(seen, ['cut-request', 'cut-answer', 'cut-within-answer', 'waits'], 'each ran once')
})

test('a call over a network that swallows everything ends a second after its deadline, as UNKNOWN or with its id', async (t) => {
  const { proxy, remote } = await openThrough(t)
  const queue = remote.queue<string, string>('q')
  await queue.declare()
  proxy.next('swallow')
  await rejects(queue.call('gone', { timeoutMs: 100 }), isCode('UNKNOWN'))
  const called = queue.call('unanswered', { timeoutMs: 2_000 })
  // The answer to the append comes; that to the wait does not.
  while ((await remote.stats()).topics[0]?.head === 0) {}
  proxy.hold()
  await rejects(called, (error) => isSluiceError(error, 'DEADLINE') && typeof error.details['id'] === 'string')
})

test('Prefer: wait gives a result that was there before the wait began, and one after a wait', async (t) => {
  const { call, sluice } = await startServer(t)
  const queue = sluice.queue<number, number>('q')
  queue.work(async ({ payload }) => payload * 2)
  const { engine } = sluice
  const watch = engine.watch.bind(engine)
  const mocked = t.mock.method(engine, 'watch', async (...args: Parameters<typeof watch>) => {
    for (;;) if ((await sluice.stats()).topics[0]?.depth.messages === 0) return watch(...args)
  })
  const headers = { prefer: 'wait=30' }
  equal((await call('POST', '/v1/queues/q/jobs', { body: 21, headers })).json.result, 42)
  mocked.mock.restore()
  equal((await call('POST', '/v1/queues/q/jobs', { body: 4, headers })).json.result, 8)
})

test('Prefer: wait with a deadline is skipped past it, and refused with 503 where the measured wait is longer', async (t) => {
  const { call, sluice } = await startServer(t)
  const queue = sluice.queue<number, string>('q')
  const headers = { prefer: 'wait=10', 'sluice-deadline-ms': '50' }
  const skipped = await call('POST', '/v1/queues/q/jobs', { body: -1, headers })
  deepEqual([skipped.status, skipped.json.status], [200, 'expired'])
  await queue.addMany(Array.from({ length: 3_000 }, (_, payload) => ({ payload })))
  const seen: number[] = []
  queue.work(async ({ payload }) => {
    seen.push(payload)
    await new Promise((resolve) => setTimeout(resolve, 20))
    return 'done'
  })
  for (;;) {
    const { status, json, headers: answered } = await call('POST', '/v1/queues/q/jobs', { body: 1, headers })
    if (status !== 503) continue
    equal(json.code, 'WAIT_TOO_LONG')
    ok(json.waitMs > json.limitMs)
    equal(answered.get('retry-after'), `${Math.ceil(json.retryAfterMs / 1_000)}`)
    break
  }
  ok(!seen.includes(-1))
})
