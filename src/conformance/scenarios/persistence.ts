/** What survives a restart and a crash. */
import { deepEqual, equal, ok } from 'node:assert/strict'
import type { Scenario } from '../scenario.ts'
import { createCount, createSignal } from '../signals.ts'

const needs = ['persistence'] as const

export const PERSISTENCE_SCENARIOS: readonly Scenario[] = [
  {
    id: 'durability-said',
    noun: 'persistence',
    title: 'each receipt says the durability that was reached, and it is that of the engine',
    promises: ['P1'],
    async run(stage) {
      const { receipt } = await stage.queue<number>().add(1)
      deepEqual([receipt.durability, receipt.copies], [stage.abilities.durability, stage.abilities.copies])
      const published = await stage.topic<number>().publish(1)
      deepEqual([published.durability, published.copies], [stage.abilities.durability, stage.abilities.copies])
    },
  },
  {
    id: 'survives-restart',
    noun: 'persistence',
    title: 'jobs, results, settings, dead letters and idempotency keys survive a restart',
    promises: ['P2', 'P8', 'P10'],
    needs,
    async run(stage) {
      const settings = { attempts: 1, limit: { messages: 77 } }
      const queue = stage.queue<number, string>(settings)
      const worker = queue.work(async ({ payload }) => {
        if (payload === 2) throw new Error('no')
        return 'kept'
      })
      const done = await queue.add(1, { idempotencyKey: 'k' })
      const dead = await queue.add(2)
      await done.result()
      await dead.result().catch(() => {})
      await worker.close()
      const waiting = await queue.add(3, { key: 'x' })
      await stage.restart()
      const again = stage.queue<number, string>()
      const get = async (id: string) => (await again.get(id)).status()
      deepEqual(
        [(await get(done.id)).status, (await get(done.id)).result, (await get(dead.id)).status],
        ['completed', 'kept', 'failed'],
      )
      // A wait of the worker that was just closed may have had it, and given it back.
      ok(['queued', 'retrying'].includes((await get(waiting.id)).status))
      equal((await again.dead()).jobs.length, 1)
      const twice = await again.add(1, { idempotencyKey: 'k' })
      deepEqual([twice.id, twice.duplicate], [done.id, true])
      equal((await stage.sluice.stats()).topics[0]?.limit.messages, 77)
    },
  },
  {
    id: 'survives-crash',
    noun: 'persistence',
    title: 'nothing acknowledged is lost in a crash, and what was running ends: under its lease, or as another attempt',
    promises: ['P1', 'P2', 'P3'],
    needs,
    async run(stage) {
      const settings = { backoff: { baseMs: 0 } }
      const queue = stage.queue<number, number>(settings)
      const started = createSignal()
      const gate = createSignal()
      queue.work(
        async ({ payload }) => {
          started.resolve()
          await gate.promise
          return payload
        },
        { concurrency: 1, leaseMs: 1_000 },
      )
      const jobs = await Promise.all(Array.from({ length: 100 }, (_, i) => queue.add(i, { key: `k${i % 7}` })))
      await started.promise
      await stage.crash()
      gate.resolve()
      const after = stage.queue<number, number>(settings)
      after.work(async ({ payload }) => payload)
      for (const [i, { id }] of jobs.entries()) equal(await (await after.get(id)).result({ timeoutMs: 40_000 }), i)
    },
  },
  {
    id: 'order-survives',
    noun: 'persistence',
    title: 'the order of a key holds over a crash, with its head parked for a retry',
    promises: ['P4'],
    needs,
    async run(stage) {
      const settings = { backoff: { baseMs: 300, factor: 1 } }
      const failed = createSignal()
      const order: number[] = []
      const all = createCount(3)
      const work = () =>
        stage.queue<number>(settings).work(
          async ({ payload }, { attempt }) => {
            if (payload === 1 && attempt === 1) {
              failed.resolve()
              throw new Error('the first attempt')
            }
            if (order.includes(payload)) return
            order.push(payload)
            all.reach()
          },
          { concurrency: 1, leaseMs: 1_000 },
        )
      work()
      await stage.queue<number>().addMany([1, 2, 3].map((payload) => ({ payload, key: 'k' })))
      await failed.promise
      await stage.crash()
      work()
      await all.reached
      deepEqual(order, [1, 2, 3])
    },
  },
  {
    id: 'fences-survive',
    noun: 'persistence',
    title: 'fences rise over a crash: a hold from before it has no effect once another has the message',
    promises: ['P5'],
    needs,
    async run(stage) {
      const queue = stage.queue<number>()
      await queue.add(1)
      const at = { topic: queue.name, group: '', max: 1, leaseMs: 200, waitMs: 20_000 }
      const one = await stage.sluice.engine.lease({ ...at, holder: { kind: 'token', token: 'one' } })
      ok(one.status === 'leased')
      await stage.crash()
      const { engine } = stage.sluice
      const two = await engine.lease({ ...at, leaseMs: 20_000, holder: { kind: 'token', token: 'two' } })
      ok(two.status === 'leased' && two.fence > one.fence && two.attempts[0] === 2)
      const hold = { topic: queue.name, group: '', offsets: [0], outcome: { kind: 'done' } as const }
      const [stale] = await engine.settle([{ ...hold, fence: one.fence, token: 'one' }])
      ok(stale?.status === 'settled' && stale.lost.length === 1)
      const [good] = await engine.settle([{ ...hold, fence: two.fence, token: 'two' }])
      ok(good?.status === 'settled' && good.lost.length === 0)
    },
  },
  {
    id: 'token-lease-survives',
    noun: 'persistence',
    title: 'a lease by token goes on over a crash of the engine, and can be settled',
    promises: ['P5'],
    needs,
    async run(stage) {
      const queue = stage.queue<number, string>()
      const job = await queue.add(1)
      const held = await stage.sluice.engine.lease({
        ...{ topic: queue.name, group: '', max: 1, leaseMs: 60_000, waitMs: 1_000 },
        holder: { kind: 'token', token: 'w' },
      })
      ok(held.status === 'leased')
      await stage.crash()
      const [settled] = await stage.sluice.engine.settle([
        {
          topic: queue.name,
          group: '',
          fence: held.fence,
          offsets: [0],
          token: 'w',
          outcome: { kind: 'done', result: '"kept"' },
        },
      ])
      ok(settled?.status === 'settled' && settled.lost.length === 0)
      equal((await (await stage.queue<number, string>().get(job.id)).status()).result, 'kept')
    },
  },
  {
    id: 'delayed-survives',
    noun: 'persistence',
    title: 'delayed jobs and retries come due after a crash as they would have',
    promises: ['P2', 'P4'],
    needs,
    async run(stage) {
      const queue = stage.queue<string>()
      const jobs = [await queue.add('soon', { delayMs: 50 }), await queue.add('later', { delayMs: 400 })]
      await stage.crash()
      const order: string[] = []
      const all = createCount(2)
      stage.queue<string>().work(
        async ({ payload }) => {
          order.push(payload)
          all.reach()
        },
        { concurrency: 1 },
      )
      await all.reached
      deepEqual(order, ['soon', 'later'])
      equal(jobs.length, 2)
    },
  },
  {
    id: 'groups-survive',
    noun: 'persistence',
    title: 'a group goes on after a restart where it stopped, and messages keep their offsets',
    promises: ['P6', 'P2'],
    needs,
    async run(stage) {
      const topic = stage.topic<number>()
      const first = createCount(3)
      const worker = topic.subscribe('g', async () => first.reach(), { from: 'earliest' })
      await topic.publishMany([0, 1, 2].map((payload) => ({ payload })))
      await first.reached
      await worker.close()
      await topic.publish(3)
      await stage.restart()
      const again = stage.topic<number>()
      const rest = createSignal<number>()
      again.subscribe('g', async ({ payload }) => rest.resolve(payload))
      equal(await rest.promise, 3)
      const seen: unknown[] = []
      for await (const { offset, payload } of again.read({ from: 0, follow: false })) seen.push([offset, payload])
      deepEqual(seen, [
        [0, 0],
        [1, 1],
        [2, 2],
        [3, 3],
      ])
    },
  },
  {
    id: 'once-survives',
    noun: 'persistence',
    title: 'what once recorded is not done again after a crash',
    promises: ['P9'],
    needs,
    async run(stage) {
      const queue = stage.queue<number>()
      await queue.add(1)
      const { engine } = stage.sluice
      const at = { topic: queue.name, group: '' }
      const lease = (token: string) =>
        stage.sluice.engine.lease({ ...at, max: 1, leaseMs: 300, waitMs: 20_000, holder: { kind: 'token', token } })
      const one = await lease('one')
      ok(one.status === 'leased')
      const hold = { ...at, fence: one.fence, offsets: [0], token: 'one' }
      equal((await engine.command({ kind: 'remember', hold, name: 'charge', value: '"charged"' })).status, 'done')
      await stage.crash()
      const two = await lease('two')
      ok(two.status === 'leased')
      const again = { ...at, fence: two.fence, offsets: [0], token: 'two' }
      const recalled = await stage.sluice.engine.command({ kind: 'recall', hold: again, name: 'charge' })
      ok(recalled.status === 'done')
      equal(recalled.value, '"charged"')
    },
  },
]
