/** Order, attempts, retries, delays, priorities, deduplication of a queue. */
import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { isSluiceError, RetryLater, Unrecoverable } from '../../index.ts'
import type { Scenario } from '../scenario.ts'
import { createCount, createSignal } from '../signals.ts'

const NO_WAIT = { backoff: { baseMs: 0 } }

export const QUEUE_SCENARIOS: readonly Scenario[] = [
  {
    id: 'same-bytes',
    noun: 'queue',
    title: 'what is added comes out the same, with key, headers and attempt',
    promises: ['P13'],
    async run(stage) {
      const queue = stage.queue()
      const seen = createSignal<unknown>()
      const payload = { text: 'ünï\u0000 "quoted" \u2028', list: [1, 2.5, null, true], deep: { a: { b: '' } } }
      const headers = { 'x-one': '1', ünï: 'ö' }
      queue.work(async (job, { attempt }) => seen.resolve([job.payload, job.key, job.headers, attempt]))
      await queue.add(payload, { key: 'käy', headers })
      deepEqual(await seen.promise, [payload, 'käy', headers, 1])
    },
  },
  {
    id: 'each-once',
    noun: 'queue',
    title: 'each of a thousand jobs is handed to one of several competing workers, once',
    promises: ['P2', 'P3', 'P5'],
    async run(stage) {
      const seen = new Map<number, number>()
      const all = createCount(1_000)
      const handler = async ({ payload }: { payload: unknown }) => {
        seen.set(payload as number, (seen.get(payload as number) ?? 0) + 1)
        all.reach()
      }
      const queue = stage.queue()
      await queue.declare()
      const other = (await stage.other()).queue(queue.name)
      for (const one of [queue, queue, other, other]) one.work(handler, { concurrency: 8 })
      await queue.addMany(Array.from({ length: 1_000 }, (_, payload) => ({ payload })))
      await all.reached
      equal(seen.size, 1_000)
      ok([...seen.values()].every((count) => count === 1))
    },
  },
  {
    id: 'key-order',
    noun: 'queue',
    title: 'jobs of one key are handled one at a time and in order by competing workers, with retries in between',
    promises: ['P4'],
    async run(stage) {
      const queue = stage.queue<{ key: string; n: number }>({ attempts: 5, ...NO_WAIT })
      await queue.declare()
      const other = (await stage.other()).queue<{ key: string; n: number }>(queue.name)
      const all = createCount(200)
      const done = new Map<string, number[]>()
      const running = new Set<string>()
      const overlaps: string[] = []
      for (const one of [queue, other, other])
        one.work(
          async ({ payload: { key, n } }, { attempt }) => {
            if (running.has(key)) overlaps.push(`${key} ${n}`)
            running.add(key)
            await new Promise((resolve) => setImmediate(resolve))
            running.delete(key)
            if (n % 7 === 3 && attempt < 3) throw new Error('planned')
            done.set(key, [...(done.get(key) ?? []), n])
            all.reach()
          },
          { concurrency: 8 },
        )
      const keys = ['a', 'b', 'c', 'd']
      await queue.addMany(
        Array.from({ length: 200 }, (_, i) => {
          const key = keys[i % 4] as string
          return { payload: { key, n: Math.floor(i / 4) }, key }
        }),
      )
      await all.reached
      deepEqual(overlaps, [])
      for (const key of keys)
        deepEqual(
          done.get(key),
          Array.from({ length: 50 }, (_, n) => n),
        )
    },
  },
  {
    id: 'parked-key',
    noun: 'queue',
    title: 'a delayed retry parks its key, and other keys go on',
    promises: ['P4'],
    async run(stage) {
      const queue = stage.queue<string>()
      const order: string[] = []
      const all = createCount(3)
      queue.work(async ({ payload }, { attempt }) => {
        if (payload === 'a1' && attempt === 1) throw new RetryLater({ delayMs: 1_500 })
        order.push(payload)
        all.reach()
      })
      await queue.addMany(['a1', 'a2', 'b1'].map((payload) => ({ payload, key: payload[0] as string })))
      await all.reached
      deepEqual(order, ['b1', 'a1', 'a2'])
    },
  },
  {
    id: 'strict',
    noun: 'queue',
    title: 'on a strict queue the next starts only after the current one completes, whoever works',
    promises: ['P4'],
    async run(stage) {
      const queue = stage.queue<number>({ strict: true })
      await queue.declare()
      const other = (await stage.other()).queue<number>(queue.name)
      const all = createCount(40)
      let running = 0
      let most = 0
      const order: number[] = []
      for (const one of [queue, other, other])
        one.work(
          async ({ payload }) => {
            most = Math.max(most, ++running)
            await new Promise((resolve) => setImmediate(resolve))
            order.push(payload)
            running--
            all.reach()
          },
          { concurrency: 4 },
        )
      await queue.addMany(Array.from({ length: 40 }, (_, payload) => ({ payload, key: `${payload}` })))
      await all.reached
      equal(most, 1)
      deepEqual(
        order,
        Array.from({ length: 40 }, (_, i) => i),
      )
    },
  },
  {
    id: 'attempts',
    noun: 'queue',
    title: 'a job is tried as often as the queue says, each attempt with its number, and then is a dead letter',
    promises: ['P3', 'P4'],
    async run(stage) {
      const queue = stage.queue<number>({ attempts: 3, ...NO_WAIT })
      const attempts: number[] = []
      queue.work(async (_job, { attempt }) => {
        attempts.push(attempt)
        throw new Error(`no ${attempt}`)
      })
      const job = await queue.add(1)
      await rejects(job.result(), (error) => isSluiceError(error, 'JOB_FAILED'))
      deepEqual(attempts, [1, 2, 3])
      const { jobs: letters } = await queue.dead()
      deepEqual(
        letters.map(({ id, attempts: count, message }) => [id, count, message.payload]),
        [[job.id, 3, 1]],
      )
      ok(letters[0]?.error.includes('no 3'))
    },
  },
  {
    id: 'unrecoverable',
    noun: 'queue',
    title: 'an unrecoverable failure is a dead letter at once, and the next of its key goes on',
    promises: ['P3', 'P4'],
    async run(stage) {
      const queue = stage.queue<number, string>()
      queue.work(async ({ payload }) => {
        if (payload === 1) throw new Unrecoverable('never')
        return 'done'
      })
      const [first, second] = [await queue.add(1, { key: 'k' }), await queue.add(2, { key: 'k' })]
      equal(await second.result(), 'done')
      const { status, attempts } = await first.status()
      deepEqual([status, attempts], ['failed', 1])
    },
  },
  {
    id: 'block',
    noun: 'queue',
    title: 'a queue that blocks holds the key of what is out of attempts until it is redriven',
    promises: ['P4'],
    async run(stage) {
      const queue = stage.queue<string, string>({ attempts: 1, onExhausted: 'block' })
      let isMended = false
      queue.work(async ({ payload }) => {
        if (payload === 'a1' && !isMended) throw new Error('broken')
        return payload
      })
      const [a1, a2, b1] = [
        await queue.add('a1', { key: 'a' }),
        await queue.add('a2', { key: 'a' }),
        await queue.add('b1', { key: 'b' }),
      ]
      equal(await b1.result(), 'b1')
      equal((await a1.status()).status, 'blocked')
      equal((await a2.status()).status, 'queued')
      isMended = true
      equal((await queue.redrive()).count, 1)
      equal(await a2.result(), 'a2')
      equal((await a1.status()).status, 'completed')
    },
  },
  {
    id: 'redrive',
    noun: 'queue',
    title: 'a redriven dead letter is a new job that says which it was, and the old one stays as it ended',
    promises: ['P10'],
    async run(stage) {
      const queue = stage.queue<number, string>({ attempts: 1 })
      let isMended = false
      queue.work(async () => {
        if (!isMended) throw new Error('broken')
        return 'mended'
      })
      const job = await queue.add(1, { key: 'k' })
      await rejects(job.result(), (error) => isSluiceError(error, 'JOB_FAILED'))
      isMended = true
      const { ids } = await queue.redrive()
      equal(ids.length, 1)
      const again = await queue.get(ids[0] as string)
      equal(await again.result(), 'mended')
      equal((await again.status()).redriveOf, job.id)
      equal((await job.status()).status, 'failed')
      deepEqual((await queue.dead()).jobs, [])
    },
  },
  {
    id: 'discard',
    noun: 'queue',
    title: 'dead letters are listed in pages and discarded for good',
    promises: ['P10'],
    async run(stage) {
      const queue = stage.queue<number>({ attempts: 1 })
      queue.work(async () => {
        throw new Error('no')
      })
      const jobs = await queue.addMany([1, 2, 3].map((payload) => ({ payload })))
      for (const job of jobs) {
        ok(!isSluiceError(job))
        await job.result().catch(() => {})
      }
      const first = await queue.dead({ limit: 2 })
      equal(first.jobs.length, 2)
      const second = await queue.dead({ limit: 2, after: first.next as string })
      equal(second.jobs.length, 1)
      equal((await queue.discard()).count, 3)
      deepEqual((await queue.dead()).jobs, [])
    },
  },
  {
    id: 'delay',
    noun: 'queue',
    title: 'a delayed job is scheduled, starts no sooner than it is due, and takes its place then',
    promises: ['P4'],
    needs: ['delay'],
    async run(stage) {
      const queue = stage.queue<string>()
      const startedAtMs = new Map<string, number>()
      const all = createCount(3)
      const addedAtMs = Date.now()
      const far = await queue.add('far', { delayMs: 3_600_000 })
      equal((await far.status()).status, 'scheduled')
      await queue.cancel(far.id)
      await queue.add('late', { delayMs: 300 })
      await queue.add('later', { delayMs: 400 })
      await queue.add('now')
      queue.work(async ({ payload }) => {
        startedAtMs.set(payload, Date.now())
        all.reach()
      })
      await all.reached
      deepEqual([...startedAtMs.keys()], ['now', 'late', 'later'])
      ok((startedAtMs.get('late') as number) - addedAtMs >= 299)
      ok((startedAtMs.get('later') as number) - addedAtMs >= 399)
    },
  },
  {
    id: 'priority',
    noun: 'queue',
    title: 'a higher class goes first among the heads of lanes, and never within a key',
    promises: ['P4'],
    needs: ['priority'],
    async run(stage) {
      const queue = stage.queue<string>()
      await queue.addMany([
        { payload: 'low', priority: 'low' },
        { payload: 'normal' },
        { payload: 'k1', key: 'k', priority: 'low' },
        { payload: 'k2', key: 'k', priority: 'high' },
        { payload: 'high', priority: 'high' },
      ])
      const order: string[] = []
      const all = createCount(5)
      queue.work(
        async ({ payload }) => {
          order.push(payload)
          all.reach()
        },
        { concurrency: 1 },
      )
      await all.reached
      equal(order[0], 'high')
      equal(order[1], 'normal')
      ok(order.indexOf('k1') < order.indexOf('k2'))
    },
  },
  {
    id: 'deadline',
    noun: 'queue',
    title: 'a job that was not started by its deadline is expired and never starts',
    promises: ['P11', 'P10'],
    async run(stage) {
      const queue = stage.queue<string>()
      const gone = await queue.add('gone', { deadlineMs: 1 })
      await queue.add('stays', { deadlineMs: 60_000 })
      while ((await gone.status()).status !== 'expired');
      const seen: string[] = []
      const all = createCount(1)
      queue.work(async ({ payload }) => {
        seen.push(payload)
        all.reach()
      })
      await all.reached
      await rejects(gone.result(), (error) => isSluiceError(error, 'JOB_EXPIRED'))
      equal((await gone.status()).status, 'expired')
      deepEqual(seen, ['stays'])
    },
  },
  {
    id: 'idempotency',
    noun: 'queue',
    title: 'an idempotency key stores once and gives the first receipt again; another payload under it is refused',
    promises: ['P8'],
    needs: ['idempotency'],
    async run(stage) {
      const queue = stage.queue<number>()
      await queue.declare()
      const other = (await stage.other()).queue<number>(queue.name)
      const adds = await Promise.all(
        Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? queue : other).add(7, { idempotencyKey: 'k' })),
      )
      equal(new Set(adds.map(({ id }) => id)).size, 1)
      equal(adds.filter(({ duplicate }) => !duplicate).length, 1)
      await rejects(queue.add(8, { idempotencyKey: 'k' }), (error) => isSluiceError(error, 'IDEMPOTENCY_MISMATCH'))
      const [one, two] = await queue.addMany([
        { payload: 1, idempotencyKey: 'x' },
        { payload: 1, idempotencyKey: 'x' },
      ])
      ok(!isSluiceError(one) && !isSluiceError(two))
      equal(one?.id, two?.id)
      equal((await stage.sluice.stats()).topics.find(({ name }) => name === queue.name)?.head, 2)
    },
  },
  {
    id: 'lease-expiry',
    noun: 'queue',
    title: 'a message whose lease expired is handed out again under a higher fence, and the old one has no effect',
    promises: ['P3', 'P5'],
    async run(stage) {
      const queue = stage.queue<number>()
      await queue.add(1)
      const { engine } = stage.sluice
      const take = (token: string, leaseMs: number, waitMs: number) =>
        engine.lease({ topic: queue.name, group: '', max: 1, leaseMs, waitMs, holder: { kind: 'token', token } })
      const first = await take('one', 100, 1_000)
      const second = await take('two', 30_000, 10_000)
      ok(first.status === 'leased' && second.status === 'leased')
      ok(second.fence > first.fence)
      deepEqual([first.attempts, second.attempts], [[1], [2]])
      const hold = { topic: queue.name, group: '', offsets: [0] }
      const stale = { ...hold, fence: first.fence, token: 'one' }
      const [extended] = await engine.extend([{ ...stale, leaseMs: 1_000 }])
      ok(extended?.status === 'extended' && extended.lost.length === 1)
      const [settled] = await engine.settle([{ ...stale, outcome: { kind: 'done', result: '"stale"' } }])
      ok(settled?.status === 'settled' && settled.lost.length === 1)
      const [stolen] = await engine.settle([{ ...stale, fence: second.fence, outcome: { kind: 'done' } }])
      ok(stolen?.status === 'settled' && stolen.lost.length === 1, 'a fence without its token is nothing')
      equal((await engine.command({ kind: 'remember', hold: stale, name: 'x', value: '1' })).status, 'lost')
      const [done] = await engine.settle([
        { ...hold, fence: second.fence, token: 'two', outcome: { kind: 'done', result: '"mine"' } },
      ])
      deepEqual(done, { status: 'settled', lost: [], outputs: [] })
    },
  },
  {
    id: 'release',
    noun: 'queue',
    title: 'what is given back unstarted keeps its place and does not count against the attempts',
    promises: ['P3', 'P4'],
    async run(stage) {
      const queue = stage.queue<number>({ attempts: 1 })
      await queue.addMany([
        { payload: 1, key: 'k' },
        { payload: 2, key: 'k' },
      ])
      const { engine } = stage.sluice
      const holder = { kind: 'token', token: 'w' } as const
      for (let round = 1; round <= 3; round++) {
        const held = await engine.lease({
          topic: queue.name,
          group: '',
          max: 5,
          leaseMs: 10_000,
          waitMs: 5_000,
          holder,
        })
        ok(held.status === 'leased')
        deepEqual([held.offsets, held.attempts], [[0], [round]])
        const { fence, offsets } = held
        await engine.settle([
          { topic: queue.name, group: '', fence, offsets, token: 'w', outcome: { kind: 'release' } },
        ])
      }
    },
  },
  {
    id: 'worker-dies',
    noun: 'queue',
    title: 'what a worker held that went away without a word is done by another',
    promises: ['P2', 'P3'],
    async run(stage) {
      const queue = stage.queue<number>(NO_WAIT)
      const { engine } = stage.sluice
      await queue.addMany([1, 2, 3].map((payload) => ({ payload, key: 'k' })))
      const gone = await engine.lease({
        ...{ topic: queue.name, group: '', max: 5, leaseMs: 150, waitMs: 1_000 },
        holder: { kind: 'token', token: 'gone' },
      })
      equal(gone.status, 'leased')
      const order: unknown[] = []
      const all = createCount(3)
      queue.work(async ({ payload }, { attempt }) => {
        order.push([payload, attempt])
        all.reach()
      })
      await all.reached
      deepEqual(order, [
        [1, 2],
        [2, 1],
        [3, 1],
      ])
    },
  },
  {
    id: 'pause',
    noun: 'queue',
    title: 'a paused queue takes work in and hands none out until it is resumed',
    promises: ['P7'],
    async run(stage) {
      const queue = stage.queue<number, string>()
      await queue.declare()
      await queue.pause()
      let started = 0
      queue.work(async () => {
        started++
        return 'done'
      })
      const job = await queue.add(1)
      await rejects(job.result({ timeoutMs: 100 }), (error) => isSluiceError(error, 'DEADLINE'))
      equal(started, 0)
      await queue.resume()
      equal(await job.result(), 'done')
    },
  },
]
