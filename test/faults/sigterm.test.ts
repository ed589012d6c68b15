/** P12 over real processes: SIGTERM at any instant, to the server or to a worker, while others publish and work. */
import { deepEqual, ok } from 'node:assert/strict'
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { createRandom } from '../../src/host/host.ts'
import { isSluiceError, open, type Sluice } from '../../src/index.ts'
import { startCli } from '../cli-harness.ts'
import { temporaryFolder } from '../server-harness.ts'

const CHILD = fileURLToPath(new URL('./child.ts', import.meta.url))
const ROUNDS = Number(process.env['SLUICE_SIGTERM_ROUNDS'] ?? 3)
const SEED = Number(process.env['SLUICE_SEED'] ?? Date.now() % 1_000_000)
/** How long after the end of the drain a lease may still be held. Far below the lease itself, a minute. */
const RELEASE_MS = Number(process.env['SLUICE_SIGTERM_RELEASE_MS'] ?? 20_000)
const DRAIN_MS = 100
const PUBLISHERS = 8
/** One job of so many is held by its worker until it is told to stop. */
const HELD_SHARE = 20

test(`after ${ROUNDS} SIGTERMs at random instants under load everything acknowledged is there, and leases were given back (P2, P12)`, async (t) => {
  t.diagnostic(`SLUICE_SEED=${SEED}`)
  const random = createRandom(SEED)
  const folder = await temporaryFolder(t)
  let server = await serve(t, folder, 0)
  const client = await open(server.url, { onError: () => {} })
  t.after(() => client.close())
  // Releases do not count as attempts, and nothing here fails.
  const queue = client.queue<number, number>('work', { attempts: 3, backoff: { baseMs: 1, maxMs: 5 } })
  await queue.declare()
  const acknowledged = new Map<number, string>()
  let next = 1
  let isOver = false
  const publishers = Array.from({ length: PUBLISHERS }, async () => {
    while (!isOver) {
      const n = next++
      try {
        const job = await queue.add(n % HELD_SHARE === 0 ? -n : n)
        acknowledged.set(n, job.id)
      } catch (error) {
        // It may be stored or not, and nobody was told that it is.
        if (!isSluiceError(error)) throw error
        await delay(5)
      }
    }
  })
  let worker = await startWorker(t, server.url)
  let slowestMs = 0
  for (let round = 0; round < ROUNDS; round++) {
    const before = acknowledged.size
    while (acknowledged.size < before + 20 || worker.held.size === 0) await delay(1)
    await delay(random() * 200)
    if (random() < 0.5) {
      server.child.kill('SIGTERM')
      const [code] = (await once(server.child, 'close')) as [number | null]
      deepEqual([code, server.lines.at(-1)?.includes('stopped')], [0, true], 'the server ends by itself')
      server = await serve(t, folder, server.port)
    } else {
      const sentAtMs = performance.now()
      worker.child.kill('SIGTERM')
      const held = await heldAtTheEnd(worker, acknowledged)
      await waitUntilReleased(client, held)
      const tookMs = performance.now() - sentAtMs - DRAIN_MS
      slowestMs = Math.max(slowestMs, tookMs)
      ok(tookMs <= RELEASE_MS, `leases were held for ${tookMs} ms after the end of the drain, SLUICE_SEED=${SEED}`)
      worker = await startWorker(t, server.url)
    }
  }
  isOver = true
  await Promise.all(publishers)
  worker.child.kill('SIGTERM')
  await once(worker.child, 'close')
  // What was held is done by one that does not hold.
  const done = new Set<string>()
  const last = queue.work(({ payload }) => payload, { concurrency: 64 })
  const ids = [...acknowledged.values()]
  while (done.size < ids.length) {
    const open = ids.filter((id) => !done.has(id)).slice(0, 1_000)
    const found = await client.engine.find(open)
    for (const [i, one] of found.entries()) {
      ok(one.status === 'found', `${open[i]} was acknowledged and is lost, SLUICE_SEED=${SEED}`)
      if (one.job.status === 'completed') done.add(one.job.id)
      else ok(one.job.status !== 'failed', `${one.job.id}: ${one.job.error}`)
    }
  }
  await last.close()
  t.diagnostic(`${ids.length} acknowledged, slowest release ${slowestMs.toFixed(0)} ms after the end of the drain`)
})

interface Server {
  readonly child: ReturnType<typeof startCli>
  readonly url: string
  readonly port: number
  readonly lines: string[]
}

async function serve(t: TestContext, folder: string, port: number): Promise<Server> {
  const child = startCli(t, ['serve', '--port', `${port}`, '--data', folder, '--json'])
  const lines: string[] = []
  const reader = createInterface({ input: child.stdout })
  reader.on('line', (line) => lines.push(line))
  const [line] = (await once(reader, 'line')) as [string]
  const { url } = JSON.parse(line) as { url: string }
  return { child, url, port: Number(new URL(url).port), lines }
}

interface WorkerProcess {
  readonly child: ChildProcessByStdio<null, Readable, null>
  /** Payloads that it took and never ends. */
  readonly held: Set<number>
}

async function startWorker(t: TestContext, url: string): Promise<WorkerProcess> {
  const child = spawn(process.execPath, [CHILD, 'drain', url, `${DRAIN_MS}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, NODE_TEST_CONTEXT: undefined },
  })
  t.after(() => child.kill('SIGKILL'))
  const held = new Set<number>()
  const reader = createInterface({ input: child.stdout })
  const opened = Promise.withResolvers<void>()
  reader.on('line', (line) => {
    if (line === 'open') opened.resolve()
    if (line.startsWith('held ')) held.add(-Number(line.slice(5)))
  })
  child.once('close', () => opened.reject(new Error('the worker ended before it was open')))
  await opened.promise
  opened.promise.catch(() => {})
  return { child, held }
}

/** The ids of what a worker held when it ended, of those that were acknowledged. */
async function heldAtTheEnd({ child, held }: WorkerProcess, acknowledged: ReadonlyMap<number, string>) {
  const [code] = (await once(child, 'close')) as [number | null]
  deepEqual(code, 0, 'the worker ends by itself')
  return [...held].flatMap((n) => acknowledged.get(n) ?? [])
}

/** Nobody works, so what is given back waits. */
async function waitUntilReleased(client: Sluice, ids: readonly string[]): Promise<void> {
  for (;;) {
    const found = await client.engine.find(ids)
    if (found.every((one) => one.status === 'found' && one.job.status !== 'active')) return
    await delay(5)
  }
}
