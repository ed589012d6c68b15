/** What can happen to processes and to their disk, for real: stopped and continued, killed, poisoned, a sync that fails or is slow. */
import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createInterface, type Interface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { describe, type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { findRedis, startRedis } from '../../scripts/brokers/redis.ts'
import { History } from '../../src/conformance/history.ts'
import { formatJudgements, Judge } from '../../src/conformance/judge.ts'
import { recordEngine } from '../../src/conformance/recorder.ts'
import { createRandom } from '../../src/host/host.ts'
import { createSluice, isSluiceError, open } from '../../src/index.ts'
import { openRemoteEngine } from '../../src/remote/remote-engine.ts'
import { startCli } from '../cli-harness.ts'
import { startServer, temporaryFolder } from '../server-harness.ts'
import { findStrace } from '../support/power-loss/recorder.ts'

const CHILD = fileURLToPath(new URL('./child.ts', import.meta.url))
const SEED = Number(process.env['SLUICE_SEED'] ?? Date.now() % 1_000_000)
const KILLS = Number(process.env['SLUICE_SERVER_KILLS'] ?? 5)
const noStrace = findStrace() ?? false

interface Started {
  readonly child: ChildProcessByStdio<Writable, Readable, null>
  readonly lines: string[]
  readonly reader: Interface
  /** Resolves with the first line that begins so. */
  saw(start: string): Promise<string>
}

function start(t: TestContext, args: readonly string[], before: readonly string[] = []): Started {
  const [command = '', ...rest] = [...before, process.execPath, CHILD, ...args]
  const child = spawn(command, rest, {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, NODE_TEST_CONTEXT: undefined },
  })
  t.after(() => child.kill('SIGKILL'))
  const lines: string[] = []
  const reader = createInterface({ input: child.stdout })
  reader.on('line', (line) => lines.push(line))
  const saw = async (wanted: string): Promise<string> => {
    for (;;) {
      const found = lines.find((line) => line.startsWith(wanted))
      if (found !== undefined) return found
      const [line] = await Promise.race([once(reader, 'line'), once(child, 'close')])
      if (typeof line !== 'string' && !lines.some((one) => one.startsWith(wanted)))
        throw new Error(`the child ended (${line}) without '${wanted}': ${lines.join(', ')}`)
    }
  }
  return { child, lines, reader, saw }
}

test('a worker that stood still beyond its lease changes nothing when it goes on (P5, P9)', async (t) => {
  const { url, sluice } = await startServer(t)
  const queue = sluice.queue<number, string>('work')
  const events = sluice.topic<string>('events')
  await events.declare()
  const job = await queue.add(1)
  const stuck = start(t, ['work', url])
  await stuck.saw('started 1')
  stuck.child.kill('SIGSTOP')
  queue.work(async (_job, { attempt, publish }) => {
    publish(events, 'fresh')
    return `fresh, attempt ${attempt}`
  })
  equal(await job.result({ timeoutMs: 30_000 }), 'fresh, attempt 2')
  stuck.child.kill('SIGCONT')
  await stuck.saw('ended 1')
  stuck.child.stdin.write('end\n')
  await stuck.saw('closed')
  equal((await job.status()).result, 'fresh, attempt 2')
  const seen: string[] = []
  for await (const { payload } of events.read({ from: 0, follow: false })) seen.push(payload)
  deepEqual(seen, ['fresh'])
})

/** Where a worker can be away from the ledger, or have it in its broker thread. */
const PLACES = ['over HTTP', 'over Redis', 'over Redis, whose data its own process owns'] as const

const redis = findRedis()
if (redis === null && process.env['CI'] === 'true') throw new Error('Redis is missing, and CI needs it')

/** A worker that blocks its thread, in a process of its own, and a Sluice here over the same data. */
async function startBlocked(t: TestContext, place: (typeof PLACES)[number], blockMs: number) {
  if (place === 'over HTTP') {
    const { url, sluice } = await startServer(t)
    return { sluice, blocked: start(t, ['block', url, `${blockMs}`]) }
  }
  const broker = await startRedis()
  t.after(() => broker[Symbol.asyncDispose]())
  const url = `${broker.url}?namespace=${randomUUID()}`
  if (place === 'over Redis') {
    const sluice = await open(url)
    t.after(() => sluice.close({ drainMs: 0 }))
    return { sluice, blocked: start(t, ['block', url, `${blockMs}`]) }
  }
  const blocked = start(t, ['block', url, `${blockMs}`])
  await blocked.saw('open')
  const sluice = await open(url)
  t.after(() => sluice.close({ drainMs: 0 }))
  return { sluice, blocked }
}

for (const place of PLACES) {
  const skip = place !== 'over HTTP' && redis === null && 'Redis is missing'

  test(`a worker whose handler blocks its thread for five times its lease keeps it, and is alone with the message (P5), ${place}`, {
    skip,
  }, async (t) => {
    const { sluice, blocked } = await startBlocked(t, place, 5_000)
    const queue = sluice.queue<number, string>('work')
    const job = await queue.add(1)
    equal(await blocked.saw('started'), 'started 1 1')
    // Whoever waits for the message gets it as soon as the lease is over.
    queue.work(async (_job, { attempt }) => `somebody else, attempt ${attempt}`)
    equal(await job.result({ timeoutMs: 60_000 }), 'blocked, attempt 1')
  })

  test(`a worker that blocks its thread and then stands still as a process loses its lease (P5), ${place}`, {
    skip,
  }, async (t) => {
    const { sluice, blocked } = await startBlocked(t, place, 60_000)
    const queue = sluice.queue<number, string>('work')
    const job = await queue.add(1)
    await blocked.saw('started')
    blocked.child.kill('SIGSTOP')
    queue.work(async (_job, { attempt }) => `somebody else, attempt ${attempt}`)
    equal(await job.result({ timeoutMs: 60_000 }), 'somebody else, attempt 2')
  })
}

/** `sluice serve` on a folder; its address stays the same over kills. */
async function serve(t: TestContext, folder: string, port: number) {
  const child = startCli(t, ['serve', '--port', `${port}`, '--data', folder, '--json'])
  const lines = createInterface({ input: child.stdout })
  const [line] = (await once(lines, 'line')) as [string]
  return { child, port: Number(new URL(JSON.parse(line).url).port) }
}

test('clients of a server that stands still wait, and go on with it, each thing done once (P2)', async (t) => {
  const { child, port } = await serve(t, await temporaryFolder(t), 0)
  const sluice = await open(`http://127.0.0.1:${port}`)
  t.after(() => sluice.close())
  const queue = sluice.queue<number, number>('work')
  await queue.declare()
  child.kill('SIGSTOP')
  const adds = [1, 2, 3].map((n) => queue.add(n, { idempotencyKey: `${n}` }))
  const handled: number[] = []
  queue.work(async ({ payload }) => {
    handled.push(payload)
    return payload
  })
  const timer = setTimeout(() => child.kill('SIGCONT'), 1_500)
  t.after(() => clearTimeout(timer))
  const jobs = await Promise.all(adds)
  deepEqual(await Promise.all(jobs.map((job) => job.result())), [1, 2, 3])
  deepEqual(handled.toSorted(), [1, 2, 3])
})

test(`a server that is killed ${KILLS} times under load keeps every promise to its clients`, async (t) => {
  t.diagnostic(`SLUICE_SEED=${SEED}`)
  const random = createRandom(SEED)
  const folder = await temporaryFolder(t)
  let { child, port } = await serve(t, folder, 0)
  const history = new History()
  const judge = new Judge({ skewMs: 2_000 })
  history.listen((event) => judge.observe(event))
  const engine = recordEngine(await openRemoteEngine(new URL(`http://127.0.0.1:${port}`)), history, 'client', Date.now)
  const sluice = createSluice(engine, { onError: () => {} }, { holder: 'token' })
  t.after(() => sluice.close())
  history.mark(Date.now(), 'open')
  const queue = sluice.queue<string, string>('work', { attempts: 100, backoff: { baseMs: 5, maxMs: 20 } })
  const events = sluice.topic<string>('events')
  await queue.declare()
  await events.declare()
  queue.work(
    async ({ payload }, { publish }) => {
      publish(events, `of ${payload}`)
      return payload
    },
    { leaseMs: 2_000, concurrency: 8 },
  )
  let isOver = false
  let stored = 0
  const publishers = [0, 1, 2].map(async (index) => {
    for (let n = 0; !isOver; n++) {
      for (;;) {
        try {
          await queue.add(`${index}.${n}`, { key: `${index}.${n % 5}`, idempotencyKey: `${index}.${n}` })
          stored++
          break
        } catch (error) {
          if (!isSluiceError(error)) throw error
        }
      }
    }
  })
  for (let kill = 0; kill < KILLS; kill++) {
    const before = stored
    while (stored < before + 20 + random() * 200) await new Promise((resolve) => setImmediate(resolve))
    child.kill('SIGKILL')
    await once(child, 'close')
    history.mark(Date.now(), 'crash')
    ;({ child } = await serve(t, folder, port))
    history.mark(Date.now(), 'open')
  }
  isOver = true
  await Promise.all(publishers)
  history.mark(Date.now(), 'healed')
  for (;;) {
    const { topics } = await sluice.stats()
    if (topics.every(({ depth }) => depth.messages === 0)) break
  }
  const { topics } = await sluice.stats()
  equal(topics.find(({ name }) => name === 'work')?.head, stored, 'each was stored once')
  equal(topics.find(({ name }) => name === 'events')?.head, stored, 'each has one event (P9)')
  const judgements = judge.finish()
  deepEqual(
    judgements.filter(({ verdict }) => verdict.status === 'violated').map(({ checker }) => checker),
    [],
    `SLUICE_SEED=${SEED}\n${formatJudgements(judgements)}`,
  )
  t.diagnostic(`${stored} acknowledged`)
})

test('on a strict queue the next starts only after the current one ended, with three worker processes, a killed worker and a killed server (P4)', async (t) => {
  const folder = await temporaryFolder(t)
  let { child: server, port } = await serve(t, folder, 0)
  const url = `http://127.0.0.1:${port}`
  const sluice = await open(url, { onError: () => {} })
  t.after(() => sluice.close())
  const queue = sluice.queue<number, number>('work', { strict: true, attempts: 20, backoff: { baseMs: 1, maxMs: 5 } })
  const jobs = await queue.addMany(Array.from({ length: 60 }, (_, payload) => ({ payload })))
  const workers = [1, 2, 3].map(() => start(t, ['strict', url]))
  const first = workers[0] as Started
  await first.saw('started')
  first.child.kill('SIGKILL')
  await (workers[1] as Started).saw('ended')
  server.kill('SIGKILL')
  await once(server, 'close')
  ;({ child: server } = await serve(t, folder, port))
  const last = jobs.at(-1)
  ok(last !== undefined && !isSluiceError(last))
  equal(await last.result({ timeoutMs: 60_000 }), 59)
  const spans = workers.flatMap(({ lines }) => {
    const found: { readonly n: number; readonly from: number; readonly to: number }[] = []
    for (const line of lines) {
      const [word, n, ms] = line.split(' ')
      const open = lines.find((one) => one.startsWith(`started ${n} `))
      if (word === 'ended' && open !== undefined)
        found.push({ n: Number(n), from: Number(open.split(' ')[2]), to: Number(ms) })
    }
    return found
  })
  const order = spans.toSorted((a, b) => a.from - b.from)
  for (const [i, span] of order.entries()) {
    const before = order[i - 1]
    if (before === undefined) continue
    ok(span.n >= before.n, `${span.n} after ${before.n}`)
    // A server that is killed while a settle is under way hands the message out again once its lease has ended.
    ok(span.from >= before.to, `${span.n} began at ${span.from}, before ${before.n} ended at ${before.to}`)
  }
  deepEqual([...new Set(order.map(({ n }) => n))].length >= 58, true)
})

test('a message that makes its worker spin ends as a dead letter, and its neighbours are done by others (P3)', async (t) => {
  const { url, sluice } = await startServer(t)
  const queue = sluice.queue<number, number>('work', { attempts: 2, backoff: { baseMs: 1, maxMs: 2 } })
  const spinning = [start(t, ['spin', url]), start(t, ['spin', url])]
  const bad = await queue.add(-1)
  const good = await queue.addMany([1, 2, 3].map((payload) => ({ payload })))
  await Promise.all(spinning.map((one) => one.saw('started')))
  queue.work(async ({ payload }) => {
    if (payload < 0) throw new Error('it is bad for everybody')
    return payload
  })
  for (const job of good) ok(!isSluiceError(job) && (await job.result({ timeoutMs: 30_000 })) > 0)
  await rejects(bad.result({ timeoutMs: 30_000 }), (error) => isSluiceError(error, 'JOB_FAILED'))
  const { status, attempts } = await bad.status()
  deepEqual([status, attempts], ['failed', 2])
})

test('a message that kills its worker ends as a dead letter, and its neighbours are done (P3)', async (t) => {
  const folder = await temporaryFolder(t)
  {
    await using sluice = await open(folder)
    const queue = sluice.queue<number>('work', { attempts: 3, backoff: { baseMs: 1, maxMs: 2 } })
    await queue.addMany([1, 2, -1, 3, 4, 5, 6, 7, 8].map((payload) => ({ payload })))
  }
  let deaths = 0
  const attempts = new Map<string, number>()
  for (;;) {
    const life = start(t, ['poison', folder])
    const [code] = (await once(life.child, 'close')) as [number]
    for (const line of life.lines) {
      const [, payload = '', attempt = '0'] = line.split(' ')
      if (line.startsWith('started')) attempts.set(payload, Math.max(attempts.get(payload) ?? 0, Number(attempt)))
    }
    if (code === 0) break
    equal(code, 7)
    ok(++deaths <= 3, 'it kills no more workers than it has attempts')
  }
  equal(deaths, 3)
  await using sluice = await open(folder)
  const { jobs } = await sluice.queue<number>('work').dead()
  deepEqual(
    jobs.map(({ message, attempts: count }) => [message.payload, count]),
    [[-1, 3]],
  )
  attempts.delete('-1')
  deepEqual([...attempts.keys()].toSorted(), ['1', '2', '3', '4', '5', '6', '7', '8'])
  ok(
    [...attempts.values()].every((count) => count <= 2),
    'a neighbour pays at most once, for the first death',
  )
})

describe('a disk', { skip: noStrace }, () => {
  const SYNCS = 'fsync,fdatasync,sync_file_range'

  test('whose sync fails ends the engine: nothing more is acknowledged, and what was is there (P1, P13)', async (t) => {
    for (const nth of [60, 90]) {
      const folder = await temporaryFolder(t)
      const strace = ['strace', '-f', '-o', '/dev/null', '-e', `inject=${SYNCS}:error=EIO:when=${nth}+`]
      const { child, lines } = start(t, ['add', folder, '200'], strace)
      await once(child, 'close')
      const acknowledged = lines.filter((line) => line.startsWith('ack')).map((line) => Number(line.split(' ')[1]))
      ok(acknowledged.length > 0 && acknowledged.length < 200, `${acknowledged.length} at sync ${nth}`)
      ok(['error UNKNOWN', 'error ENGINE_FAILED'].includes(lines.at(-2) ?? ''), lines.at(-2))
      equal(lines.at(-1), 'then ENGINE_FAILED')
      await using sluice = await open(folder)
      const seen: number[] = []
      const queue = sluice.queue<number>('work')
      const [topic] = (await sluice.stats()).topics
      const all = Promise.withResolvers<void>()
      queue.work(async ({ payload }) => {
        seen.push(payload)
        if (seen.length === topic?.head) all.resolve()
      })
      await all.promise
      deepEqual(seen.toSorted((a, b) => a - b).slice(0, acknowledged.length), acknowledged)
    }
  })

  test('whose sync is slow delays each acknowledgement by as much: none is given before it (P1)', async (t) => {
    const folder = await temporaryFolder(t)
    const slowMs = 150
    const strace = ['strace', '-f', '-o', '/dev/null', '-e', `inject=${SYNCS}:delay_enter=${slowMs * 1_000}`]
    const { child, lines } = start(t, ['add', folder, '6'], strace)
    await once(child, 'close')
    const tookMs = lines.filter((line) => line.startsWith('ack')).map((line) => Number(line.split(' ')[2]))
    equal(tookMs.length, 6)
    ok(
      tookMs.every((ms) => ms >= slowMs - 1),
      `${tookMs}`,
    )
  })
})
