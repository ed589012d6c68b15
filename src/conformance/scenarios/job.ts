/** Status, result, cancel, progress, once, outputs. */
import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { isSluiceError, RetryLater } from '../../index.ts'
import type { Scenario } from '../scenario.ts'
import { createCount, createSignal } from '../signals.ts'

export const JOB_SCENARIOS: readonly Scenario[] = [
  {
    id: 'status',
    noun: 'job',
    title: 'a job is queued, active and completed with its result, for any process that asks',
    promises: ['P10'],
    async run(stage) {
      const queue = stage.queue<number, { n: number }>()
      const job = await queue.add(1)
      const other = await (await stage.other()).queue<number, { n: number }>(queue.name).get(job.id)
      equal((await other.status()).status, 'queued')
      const started = createSignal()
      const gate = createSignal()
      queue.work(async ({ payload }) => {
        started.resolve()
        await gate.promise
        return { n: payload }
      })
      await started.promise
      equal((await other.status()).status, 'active')
      gate.resolve()
      deepEqual(await other.result(), { n: 1 })
      const { status, attempts } = await other.status()
      deepEqual([status, attempts], ['completed', 1])
    },
  },
  {
    id: 'phase-rises',
    noun: 'job',
    title: 'the version of a job only rises through retries and progress, and a terminal status never changes',
    promises: ['P10'],
    async run(stage) {
      const queue = stage.queue<number, string>({ backoff: { baseMs: 0 } })
      const job = await queue.add(1)
      const versions: number[] = []
      const note = async () => versions.push((await job.status()).version)
      await note()
      queue.work(async (_job, { attempt, progress }) => {
        await note()
        progress({ attempt })
        if (attempt < 3) throw new Error('again')
        return 'done'
      })
      equal(await job.result(), 'done')
      await note()
      await note()
      deepEqual(
        versions,
        versions.toSorted((a, b) => a - b),
      )
      equal(versions.at(-1), versions.at(-2))
      await rejects(job.cancel(), (error) => isSluiceError(error, 'JOB_SETTLED'))
      equal((await job.status()).status, 'completed')
    },
  },
  {
    id: 'cancel-waiting',
    noun: 'job',
    title: 'a cancelled job that waits never starts, and the next of its key goes on',
    promises: ['P10'],
    async run(stage) {
      const queue = stage.queue<string, string>()
      const [gone, stays, later] = [
        await queue.add('gone', { key: 'k' }),
        await queue.add('stays', { key: 'k' }),
        await queue.add('later', { delayMs: 60_000 }),
      ]
      await gone.cancel()
      await later.cancel()
      const seen: string[] = []
      queue.work(async ({ payload }) => {
        seen.push(payload)
        return payload
      })
      equal(await stays.result(), 'stays')
      deepEqual(seen, ['stays'])
      for (const job of [gone, later]) {
        equal((await job.status()).status, 'cancelled')
        await rejects(job.result(), (error) => isSluiceError(error, 'JOB_CANCELLED'))
      }
    },
  },
  {
    id: 'cancel-running',
    noun: 'job',
    title: 'cancelling a running job revokes its fence: its handler is told, and what it returns has no effect',
    promises: ['P5', 'P10'],
    async run(stage) {
      const queue = stage.queue<number, string>()
      const topic = stage.topic<string>()
      await topic.declare()
      const started = createSignal()
      const aborted = createSignal()
      const worker = queue.work(
        async (_job, { signal, publish }) => {
          started.resolve()
          await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
          publish(topic, 'never')
          aborted.resolve()
          return 'late'
        },
        { leaseMs: 1_000 },
      )
      const job = await queue.add(1)
      await started.promise
      await job.cancel()
      await aborted.promise
      await worker.close()
      const { status, result } = await job.status()
      deepEqual([status, result], ['cancelled', undefined])
      for await (const message of topic.read({ from: 0, follow: false }))
        throw new Error(`${message.payload} was published`)
    },
  },
  {
    id: 'progress',
    noun: 'job',
    title: 'progress that a handler reports is seen while it runs',
    promises: ['P10'],
    async run(stage) {
      const queue = stage.queue<number>()
      const seen = createSignal()
      queue.work(async (_job, { progress }) => {
        progress({ percent: 50 })
        await seen.promise
      })
      const job = await queue.add(1)
      for (;;) {
        const { progress } = await job.status()
        if (progress === undefined) continue
        deepEqual(progress, { percent: 50 })
        break
      }
      seen.resolve()
      await job.result()
    },
  },
  {
    id: 'on-settled',
    noun: 'job',
    title: 'onSettled hears how the job ended, after it is so',
    promises: ['P10'],
    async run(stage) {
      const queue = stage.queue<number, number>({ attempts: 1 })
      queue.work(async ({ payload }) => {
        if (payload === 2) throw new Error('no')
        return payload * 10
      })
      const ended = new Map<number, string>()
      const all = createCount(2)
      for (const payload of [1, 2])
        await queue.add(payload, {
          onSettled: (info) => {
            ended.set(payload, `${info.status} ${info.result}`)
            all.reach()
          },
        })
      await all.reached
      deepEqual([...ended].toSorted(), [
        [1, 'completed 10'],
        [2, 'failed undefined'],
      ])
    },
  },
  {
    id: 'atomic-outputs',
    noun: 'job',
    title: 'what a handler publishes appears with its settle, once, and not at all where the attempt failed',
    promises: ['P9'],
    async run(stage) {
      const queue = stage.queue<number, string>({ backoff: { baseMs: 0 } })
      const topic = stage.topic<string>()
      const next = stage.queue<string>({}, 'next')
      await topic.declare()
      await next.declare()
      queue.work(async (_job, { attempt, publish }) => {
        publish(topic, `attempt ${attempt}`)
        publish(next, `attempt ${attempt}`)
        if (attempt < 3) throw new Error('planted')
        return 'done'
      })
      await (await queue.add(1)).result()
      const seen: string[] = []
      for await (const { payload } of topic.read({ from: 0, follow: false })) seen.push(payload)
      deepEqual(seen, ['attempt 3'])
      const handled = createSignal<string>()
      next.work(async ({ payload }) => handled.resolve(payload))
      equal(await handled.promise, 'attempt 3')
      equal((await stage.sluice.stats()).topics.find(({ name }) => name === next.name)?.head, 1)
    },
  },
  {
    id: 'once',
    noun: 'job',
    title: 'once runs an effect once over several attempts and gives its result again',
    promises: ['P9'],
    async run(stage) {
      const queue = stage.queue<number, string>({ backoff: { baseMs: 0 } })
      let effects = 0
      queue.work(async (_job, { attempt, once }) => {
        const charge = await once('charge', async () => `charge ${++effects}`)
        const mail = await once('mail', async () => `mail ${++effects}`)
        if (attempt < 3) throw new Error('planted')
        return `${charge}, ${mail}`
      })
      equal(await (await queue.add(1)).result(), 'charge 1, mail 2')
      equal(effects, 2)
    },
  },
  {
    id: 'result-deadline',
    noun: 'job',
    title: 'waiting for a result ends in DEADLINE, and the job goes on',
    promises: ['P10'],
    async run(stage) {
      const queue = stage.queue<number, string>()
      const job = await queue.add(1)
      await rejects(job.result({ timeoutMs: 50 }), (error) => isSluiceError(error, 'DEADLINE'))
      queue.work(async () => 'done')
      equal(await job.result(), 'done')
    },
  },
  {
    id: 'not-found',
    noun: 'job',
    title: 'a job that is not there is JOB_NOT_FOUND, whatever its id looks like',
    promises: ['P10'],
    async run(stage) {
      const queue = stage.queue<number>()
      const job = await queue.add(1)
      const [, tag] = job.id.split(':')
      for (const id of [
        `${queue.name}:${tag}:99`,
        `${queue.name}:zzzzzz:0`,
        `${queue.name}:${tag}:s1-1`,
        'nothing:aaaaaa:0',
      ])
        await rejects(
          queue.get(id).then((one) => one.status()),
          (error) => isSluiceError(error) && ['JOB_NOT_FOUND', 'INVALID_OPTION'].includes(error.code),
          id,
        )
    },
  },
  {
    id: 'retry-later',
    noun: 'job',
    title: 'a handler says when to try again, and it is not sooner',
    promises: ['P4'],
    async run(stage) {
      const queue = stage.queue<number, number>()
      const times: number[] = []
      queue.work(async (_job, { attempt }) => {
        times.push(Date.now())
        if (attempt === 1) throw new RetryLater({ delayMs: 200 })
        return attempt
      })
      equal(await (await queue.add(1)).result(), 2)
      ok((times[1] as number) - (times[0] as number) >= 199)
    },
  },
  {
    id: 'explain',
    noun: 'job',
    title:
      'a job says why it waits: nobody works, it is delayed, its queue is paused, or which job of its key is before it',
    promises: ['P4', 'P10'],
    async run(stage) {
      const queue = stage.queue<number, number>()
      const first = await queue.add(1, { key: 'a' })
      const second = await queue.add(2, { key: 'a' })
      const later = await queue.add(3, { delayMs: 3_600_000 })
      const kinds = async (job: typeof first) => (await job.explain()).waits.map(({ kind }) => kind)
      deepEqual((await kinds(first))[0], 'no-worker')
      deepEqual(await kinds(later), ['delayed'])
      await queue.pause()
      deepEqual((await kinds(first))[0], 'paused')
      await queue.resume()
      const started = createSignal()
      const gate = createSignal()
      queue.work(async ({ payload }) => {
        started.resolve()
        await gate.promise
        return payload
      })
      await started.promise
      deepEqual((await first.explain()).waits, [])
      const { waits, why } = await second.explain()
      deepEqual(waits, [{ kind: 'key', behind: first.id, behindStatus: 'active', ahead: 1 }])
      ok(why.includes(first.id))
      gate.resolve()
      equal(await second.result(), 2)
      deepEqual((await second.explain()).waits, [])
      await rejects(stage.sluice.queue(queue.name).get(`${first.id}9`), (error) =>
        isSluiceError(error, 'JOB_NOT_FOUND'),
      )
    },
  },
]
