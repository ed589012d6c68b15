/** Limits, reserve, rates, closing, bad input. */
import { deepEqual, equal, ok, rejects, throws } from 'node:assert/strict'
import { isSluiceError } from '../../index.ts'
import type { Scenario } from '../scenario.ts'
import { createCount, createSignal } from '../signals.ts'

export const FLOW_SCENARIOS: readonly Scenario[] = [
  {
    id: 'limit',
    noun: 'flow control',
    title: 'depth never passes the limit under concurrent publishers, and what is refused was not stored',
    promises: ['P7', 'P2'],
    needs: ['admission'],
    async run(stage) {
      const queue = stage.queue<number>({ limit: { messages: 50 }, fullWaitMs: 0 })
      await queue.declare()
      const other = (await stage.other()).queue<number>(queue.name, { fullWaitMs: 0 })
      const results = await Promise.allSettled(
        Array.from({ length: 200 }, (_, i) => (i % 2 === 0 ? queue : other).add(i)),
      )
      const stored = results.filter(({ status }) => status === 'fulfilled').length
      const topic = (await stage.sluice.stats()).topics.find(({ name }) => name === queue.name)
      const overshoot = stored - 50
      if (stage.abilities.admission === 'native') equal(stored, 50)
      ok(stored >= 50)
      deepEqual([topic?.head, topic?.depth.messages], [stored, stored])
      for (const result of results) {
        if (result.status === 'fulfilled') continue
        if (!isSluiceError(result.reason, 'QUEUE_FULL')) throw result.reason
        ok((result.reason.details['retryAfterMs'] as number) > 0)
      }
      if (stage.abilities.admission === 'emulated') return `overshoot ${overshoot} of 50`
      return undefined
    },
  },
  {
    id: 'limit-bytes',
    noun: 'flow control',
    title: 'the limit holds in bytes as well',
    promises: ['P7'],
    needs: ['admission'],
    async run(stage) {
      const queue = stage.queue<string>({ limit: { bytes: 10_000 }, fullWaitMs: 0 })
      const results = await Promise.allSettled(Array.from({ length: 40 }, () => queue.add('x'.repeat(1_000))))
      const { depth } = (await stage.sluice.stats()).topics.find(({ name }) => name === queue.name) ?? {}
      ok(depth !== undefined && depth.bytes <= 10_000 && depth.bytes > 8_000)
      equal(results.filter(({ status }) => status === 'fulfilled').length, depth.messages)
    },
  },
  {
    id: 'accepts-again',
    noun: 'flow control',
    title: 'a full queue accepts again once it was worked off, and who waits for room gets it',
    promises: ['P7'],
    async run(stage) {
      const queue = stage.queue<number>({ limit: { messages: 10 } })
      for (let i = 0; i < 10; i++) await queue.add(i)
      const waiting = Promise.all([10, 11, 12].map((payload) => queue.add(payload, { fullWaitMs: 20_000 })))
      const all = createCount(13)
      queue.work(async () => all.reach())
      equal((await waiting).length, 3)
      await all.reached
    },
  },
  {
    id: 'reserve',
    noun: 'flow control',
    title: 'what a handler publishes may use a reserve; beyond it the settle waits for room and loses nothing',
    promises: ['P7', 'P9'],
    async run(stage) {
      const source = stage.queue<number>({}, 'source')
      const target = stage.queue<number>({ limit: { messages: 10 }, fullWaitMs: 0 }, 'target')
      await target.declare()
      for (let i = 0; i < 10; i++) await target.add(i)
      await rejects(target.add(99), (error) => isSluiceError(error, 'QUEUE_FULL'))
      const published = createCount(2)
      source.work(async ({ payload }, { publish }) => {
        publish(target, payload)
        published.reach()
      })
      const jobs = [await source.add(100), await source.add(101)]
      await published.reached
      const seen: number[] = []
      const all = createCount(12)
      target.work(async ({ payload }) => {
        seen.push(payload)
        all.reach()
      })
      await all.reached
      for (const job of jobs) await job.result()
      deepEqual(
        seen.toSorted((a, b) => a - b),
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 100, 101],
      )
    },
  },
  {
    id: 'settle-frees',
    noun: 'flow control',
    title: 'a plain settle is never refused, and frees its place before its outputs take theirs',
    promises: ['P7', 'P9'],
    async run(stage) {
      const queue = stage.queue<number, string>({ limit: { messages: 1 }, fullWaitMs: 0 })
      const job = await queue.add(1)
      const end = createSignal()
      queue.work(async ({ payload }, { publish }) => {
        if (payload < 5) publish(queue, payload + 1)
        else end.resolve()
        return 'done'
      })
      equal(await job.result(), 'done')
      await end.promise
    },
  },
  {
    id: 'dead-bound',
    noun: 'flow control',
    title: 'dead letters have a bound of their own, at which the queue blocks instead',
    promises: ['P7', 'P4'],
    async run(stage) {
      const queue = stage.queue<number>({ attempts: 1, deadLetters: 2 })
      queue.work(
        async () => {
          throw new Error('no')
        },
        { concurrency: 1 },
      )
      const jobs = [await queue.add(1), await queue.add(2), await queue.add(3)]
      for (const job of jobs.slice(0, 2)) await job.result().catch(() => {})
      for (;;) if ((await (jobs[2] as (typeof jobs)[0]).status()).status === 'blocked') break
      equal((await queue.dead()).jobs.length, 2)
    },
  },
  {
    id: 'rate',
    noun: 'flow control',
    title: 'a rate bounds hand-outs over all workers',
    promises: ['P7'],
    async run(stage) {
      const queue = stage.queue<number>({ rate: { messages: 10, perMs: 500 } })
      await queue.declare()
      const other = (await stage.other()).queue<number>(queue.name)
      const times: number[] = []
      const all = createCount(25)
      for (const one of [queue, other])
        one.work(async () => {
          times.push(performance.now())
          all.reach()
        })
      await queue.addMany(Array.from({ length: 25 }, (_, payload) => ({ payload })))
      await all.reached
      // 25 at 10 in any 500 ms: the first and the last are at least two such times apart, less the travel of one answer.
      ok((times[24] as number) - (times[0] as number) >= 600)
    },
  },
  {
    id: 'close-under-load',
    noun: 'flow control',
    title: 'closing under load takes nothing new, finishes what is held, and answers everybody',
    promises: ['P12'],
    async run(stage) {
      const queue = stage.queue<number>()
      const handled = new Set<number>()
      let running = 0
      const started = createCount(20)
      queue.work(
        async ({ payload }) => {
          running++
          started.reach()
          await new Promise((resolve) => setImmediate(resolve))
          handled.add(payload)
          running--
        },
        { concurrency: 4 },
      )
      const adds = Array.from({ length: 500 }, (_, i) => queue.add(i))
      const settled = Promise.allSettled(adds)
      await started.reached
      await stage.sluice.close()
      equal(running, 0)
      for (const result of await settled)
        if (result.status === 'rejected')
          ok(isSluiceError(result.reason, 'CLOSED') || isSluiceError(result.reason, 'UNKNOWN'))
      await rejects(queue.add(1), (error) => isSluiceError(error, 'CLOSED'))
      throws(
        () => queue.work(async () => {}),
        (error) => isSluiceError(error, 'CLOSED'),
      )
    },
  },
  {
    id: 'worker-close',
    noun: 'flow control',
    title: 'a worker that is closed gives back what it cannot finish, and another does it',
    promises: ['P12', 'P3'],
    async run(stage) {
      const queue = stage.queue<number, string>({ backoff: { baseMs: 0 } })
      const started = createSignal()
      const first = queue.work(async (_job, { signal }): Promise<string> => {
        started.resolve()
        return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(new Error('aborted'))))
      })
      const job = await queue.add(1)
      await started.promise
      await first.close({ drainMs: 0 })
      queue.work(async (_job, { attempt }) => `attempt ${attempt}`)
      equal(await job.result(), 'attempt 2')
    },
  },
  {
    id: 'bad-input',
    noun: 'flow control',
    title: 'bad input has its code, says what is allowed, and stores nothing',
    promises: ['P2'],
    async run(stage) {
      const queue = stage.queue<unknown>()
      await queue.declare()
      const cases: readonly (readonly [string, () => unknown])[] = [
        ['INVALID_NAME', () => stage.sluice.queue('../etc')],
        ['INVALID_NAME', () => stage.sluice.topic('')],
        ['INVALID_OPTION', () => stage.sluice.queue('x', { atempts: 3 } as object)],
        ['INVALID_OPTION', () => stage.sluice.queue('x', { attempts: 0 })],
        ['INVALID_OPTION', () => queue.add(1, { delayMs: -1 })],
        ['INVALID_OPTION', () => queue.add(1, { priority: 'urgent' as 'high' })],
        ['INVALID_OPTION', () => queue.add(1, { key: 'x'.repeat(2_000) })],
        ['INVALID_PAYLOAD', () => queue.add(undefined)],
        ['INVALID_PAYLOAD', () => queue.add(1n)],
        ['PAYLOAD_TOO_LARGE', () => queue.add('x'.repeat(2_000_000))],
      ]
      for (const [code, act] of cases)
        await rejects(
          async () => act(),
          (error) => isSluiceError(error) && error.code === code,
          code,
        )
      const strict = stage.queue({ strict: true }, 'strict')
      await strict.declare()
      strict.use({ strict: false })
      await rejects(strict.declare(), (error) => isSluiceError(error, 'DECLARED_DIFFERENTLY'))
      // The store may hold others' queues, but none of the names that were refused.
      const { topics } = await stage.sluice.stats()
      const heads = topics.filter(({ name }) => name === queue.name || name === strict.name).map(({ head }) => head)
      deepEqual(heads, [0, 0])
      ok(topics.every(({ name }) => name !== 'x' && name !== ''))
    },
  },
]
