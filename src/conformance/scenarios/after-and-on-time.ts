/** What happens after a job has ended, and by the clock: callbacks and schedules, as the engine keeps them. */
import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { isSluiceError, type Sluice } from '../../index.ts'
import type { Scenario } from '../scenario.ts'
import { createSignal } from '../signals.ts'

const CALLBACKS = 'sluice.callbacks'
const CALLBACK_URL = 'https://receiver.example/hook'

interface Told {
  readonly type: string
  readonly id: unknown
  readonly to: string | undefined
  readonly webhookId: string | undefined
}

/** Takes callbacks as a sender does, until there are `count`. */
async function takeCallbacks(sluice: Sluice, count: number): Promise<readonly Told[]> {
  const told: Told[] = []
  const { promise, resolve } = createSignal()
  const worker = sluice.queue<{ type: string; data: { id: string } }>(CALLBACKS).work(({ payload, headers }) => {
    const { 'sluice-callback-url': to, 'sluice-callback-id': webhookId } = headers
    told.push({ type: payload.type, id: payload.data.id, to, webhookId })
    if (told.length === count) resolve()
  })
  await promise
  await worker.close()
  return told
}

export const CLOCK_SCENARIOS: readonly Scenario[] = [
  {
    id: 'callback-each-end',
    noun: 'job',
    title:
      'each end of a job that asked for it is in the queue of callbacks, once: completed, failed, cancelled, expired',
    promises: ['P2', 'P10'],
    async run(stage) {
      const queue = stage.queue<string>({ attempts: 1 })
      await queue.pause()
      const callbackUrl = CALLBACK_URL
      const jobs = [
        await queue.add('completed', { callbackUrl }),
        await queue.add('failed', { callbackUrl }),
        await queue.add('cancelled', { callbackUrl }),
        await queue.add('expired', { callbackUrl, deadlineMs: 1 }),
        await queue.add('later', { callbackUrl, delayMs: 3_600_000 }),
      ]
      await jobs[2]?.cancel()
      await jobs[4]?.cancel()
      // All of this may take less than a millisecond.
      while ((await jobs[3]?.status())?.status !== 'expired') {}
      queue.work(({ payload }) => {
        if (payload === 'failed') throw new Error('no')
      })
      await queue.resume()
      const told = await takeCallbacks(stage.sluice, jobs.length)
      const types = ['job.completed', 'job.failed', 'job.cancelled', 'job.expired', 'job.cancelled']
      const expected = jobs.map(({ id }, i) => `${id} ${types[i]} ${CALLBACK_URL}`)
      deepEqual(told.map(({ id, type, to }) => `${id} ${type} ${to}`).sort(), expected.sort())
      equal(new Set(told.map(({ webhookId }) => webhookId)).size, jobs.length)
    },
  },
  {
    id: 'callback-survives-crash',
    noun: 'persistence',
    title: 'a job that had ended before the crash has its callback after it, and one that had not gets it when it ends',
    promises: ['P2'],
    needs: ['persistence'],
    async run(stage) {
      const queue = stage.queue<string>()
      const first = await queue.add('ends before', { callbackUrl: CALLBACK_URL })
      const worker = queue.work(() => 'done')
      await first.result({ timeoutMs: 20_000 })
      await worker.close()
      const second = await queue.add('ends after', { callbackUrl: CALLBACK_URL })
      await stage.crash()
      stage.queue<string>().work(() => 'done')
      const told = await takeCallbacks(stage.sluice, 2)
      deepEqual(told.map(({ id }) => id).sort(), [first.id, second.id].sort())
    },
  },
  {
    id: 'callback-bounded',
    noun: 'flow control',
    title: 'where callbacks find no room, jobs that ask for one are refused, others are not, and what is there can end',
    promises: ['P7'],
    async run(stage) {
      await stage.sluice.queue(CALLBACKS, { limit: { messages: 1 } }).declare()
      const queue = stage.queue<number>()
      const held = await queue.add(1, { callbackUrl: CALLBACK_URL })
      await rejects(queue.add(2, { callbackUrl: CALLBACK_URL }), (error) => isSluiceError(error, 'QUEUE_FULL'))
      await queue.add(3)
      queue.work(() => 'done')
      equal(await held.result({ timeoutMs: 20_000 }), 'done')
      await takeCallbacks(stage.sluice, 1)
      await queue.add(4, { callbackUrl: CALLBACK_URL, fullWaitMs: 20_000 })
    },
  },
  {
    id: 'schedule-once',
    noun: 'queue',
    title: 'each tick of a schedule has one job, whichever of its processes fires it',
    promises: ['P8'],
    async run(stage) {
      const queue = stage.queue<number>()
      const ticks: number[] = []
      const { promise, resolve } = createSignal()
      queue.work(({ headers }) => {
        ticks.push(Number(headers['sluice-tick-ms']))
        if (ticks.length === 3) resolve()
      })
      const other = await stage.other()
      const name = queue.name
      const schedules = [stage.sluice, other, stage.sluice].map((sluice) =>
        sluice.queue<number>(name).schedule('tick', { everyMs: 1_000 }, () => 1),
      )
      await Promise.all(schedules.map(({ ready }) => ready))
      await promise
      await Promise.all(schedules.map((schedule) => schedule.close()))
      equal(new Set(ticks).size, ticks.length)
      ok(ticks.every((tick) => tick % 1_000 === 0))
    },
  },
  {
    id: 'schedule-survives-crash',
    noun: 'persistence',
    title:
      'a schedule and the place where it stands survive a crash: no tick fires twice, and what was missed is made up for',
    promises: ['P2', 'P8'],
    needs: ['persistence'],
    async run(stage) {
      const options = { everyMs: 1_000, missed: 'all' } as const
      const ticks: number[] = []
      const takeUntil = async (count: number): Promise<void> => {
        const { promise, resolve } = createSignal()
        const worker = stage.queue<number>().work(({ headers }) => {
          ticks.push(Number(headers['sluice-tick-ms']))
          if (ticks.length >= count) resolve()
        })
        await promise
        await worker.close()
      }
      await stage.queue<number>().schedule('tick', options, 1).ready
      await takeUntil(1)
      await stage.crash()
      ok((await stage.sluice.schedules()).some(({ name }) => name === 'tick'))
      stage.sluice.runSchedules()
      await takeUntil(4)
      const sorted = [...new Set(ticks)].sort((a, b) => a - b)
      // A job whose worker died may come twice (P3); a tick between two others is never left out.
      sorted.forEach((tick, i) => {
        ok(i === 0 || tick - (sorted[i - 1] as number) === 1_000, `each tick is there: ${sorted}`)
      })
    },
  },
]
