/** Work done now: in order, with one deadline. */
import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { isSluiceError } from '../../index.ts'
import type { Scenario } from '../scenario.ts'
import { createSignal } from '../signals.ts'

export const CALL_SCENARIOS: readonly Scenario[] = [
  {
    id: 'call-result',
    noun: 'call',
    title: 'a call gives the result of its handler, or its failure, typed',
    promises: ['P11'],
    async run(stage) {
      const queue = stage.queue<number, number>({ attempts: 1 })
      queue.work(async ({ payload }) => {
        if (payload < 0) throw new Error('negative')
        return payload * 2
      })
      deepEqual(await Promise.all([1, 2, 3].map((n) => queue.call(n, { timeoutMs: 10_000 }))), [2, 4, 6])
      await rejects(queue.call(-1), (error) => isSluiceError(error, 'JOB_FAILED'))
    },
  },
  {
    id: 'call-order',
    noun: 'call',
    title: 'calls are served in the order of their arrival within their lane',
    promises: ['P11', 'P4'],
    async run(stage) {
      const queue = stage.queue<number, number>({ strict: true })
      const order: number[] = []
      const calls = []
      for (let n = 0; n < 20; n++) {
        calls.push(queue.call(n, { timeoutMs: 20_000 }))
        await Promise.resolve()
      }
      queue.work(async ({ payload }) => {
        order.push(payload)
        return payload
      })
      deepEqual(
        await Promise.all(calls),
        Array.from({ length: 20 }, (_, i) => i),
      )
      deepEqual(
        order,
        Array.from({ length: 20 }, (_, i) => i),
      )
    },
  },
  {
    id: 'call-skipped',
    noun: 'call',
    title: 'a call whose deadline passed before it started is skipped, and never runs',
    promises: ['P11'],
    async run(stage) {
      const queue = stage.queue<string, string>()
      await rejects(
        queue.call('gone', { timeoutMs: 1_000 }),
        (error) => isSluiceError(error, 'JOB_EXPIRED') || isSluiceError(error, 'DEADLINE'),
      )
      const seen: string[] = []
      queue.work(async ({ payload }) => {
        seen.push(payload)
        return payload
      })
      equal(await queue.call('next', { timeoutMs: 10_000 }), 'next')
      deepEqual(seen, ['next'])
    },
  },
  {
    id: 'call-kept',
    noun: 'call',
    title: 'the outcome of a call that had started is kept past its deadline, under the id in the error',
    promises: ['P11'],
    async run(stage) {
      const queue = stage.queue<number, string>()
      const gate = createSignal()
      queue.work(async () => {
        await gate.promise
        return 'kept'
      })
      let id = ''
      await rejects(queue.call(1, { timeoutMs: 2_000 }), (error) => {
        ok(isSluiceError(error, 'DEADLINE'), String(error))
        id = error.details['id'] as string
        return true
      })
      gate.resolve()
      equal(await (await queue.get(id)).result(), 'kept')
    },
  },
  {
    id: 'call-full',
    noun: 'call',
    title: 'a call to a full queue is refused at once',
    promises: ['P7', 'P11'],
    async run(stage) {
      const queue = stage.queue<number>({ limit: { messages: 1 } })
      await queue.add(1)
      const startedAt = performance.now()
      await rejects(queue.call(2, { timeoutMs: 30_000 }), (error) => isSluiceError(error, 'QUEUE_FULL'))
      ok(performance.now() - startedAt < 15_000)
    },
  },
]
