/** Broadcast, offsets, replay, groups. */
import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { isSluiceError, type Message, type Topic } from '../../index.ts'
import type { Scenario } from '../scenario.ts'
import { createCount, createSignal } from '../signals.ts'

async function readAll<P>(
  topic: Topic<P>,
  from: Parameters<Topic<P>['read']>[0] = { from: 'earliest' },
): Promise<Message<P>[]> {
  const messages: Message<P>[] = []
  for await (const message of topic.read({ ...from, follow: false })) messages.push(message)
  return messages
}

export const TOPIC_SCENARIOS: readonly Scenario[] = [
  {
    id: 'broadcast',
    noun: 'topic',
    title: 'each group gets every message once, and the members of a group share them',
    promises: ['P6', 'P3'],
    needs: ['replay'],
    async run(stage) {
      const topic = stage.topic<number>()
      await topic.declare()
      const other = (await stage.other()).topic<number>(topic.name)
      const all = createCount(300)
      const seen = new Map<string, number[]>([
        ['a', []],
        ['b', []],
        ['c', []],
      ])
      for (const group of ['a', 'b', 'c'])
        for (const one of [topic, other])
          await one.subscribe(
            group,
            async ({ payload }) => {
              seen.get(group)?.push(payload)
              all.reach()
            },
            { from: 'earliest' },
          ).ready
      await topic.publishMany(Array.from({ length: 100 }, (_, payload) => ({ payload })))
      await all.reached
      const expected = Array.from({ length: 100 }, (_, i) => i)
      for (const got of seen.values())
        deepEqual(
          got.toSorted((x, y) => x - y),
          expected,
        )
    },
  },
  {
    id: 'offsets',
    noun: 'topic',
    title: 'offsets rise without gaps, and two readers see the same messages at the same ones',
    promises: ['P6'],
    needs: ['replay'],
    async run(stage) {
      const topic = stage.topic<number>()
      const receipts = await Promise.all(Array.from({ length: 200 }, (_, i) => topic.publish(i, { key: `k${i % 3}` })))
      const other = (await stage.other()).topic<number>(topic.name)
      const [one, two] = await Promise.all([readAll(topic), readAll(other)])
      deepEqual(
        one.map(({ offset }) => offset),
        Array.from({ length: 200 }, (_, i) => i),
      )
      deepEqual(
        two.map(({ offset, payload, key }) => [offset, payload, key]),
        one.map(({ offset, payload, key }) => [offset, payload, key]),
      )
      for (const [i, { offset }] of receipts.entries()) equal(one[offset as number]?.payload, i)
    },
  },
  {
    id: 'follow',
    noun: 'topic',
    title: 'a reader at the end gets what is published later, as it comes',
    promises: ['P6'],
    needs: ['replay'],
    async run(stage) {
      const topic = stage.topic<number>()
      await topic.publish(0)
      const seen: number[] = []
      const first = createSignal()
      const reading = (async () => {
        for await (const { payload } of topic.read({ from: 0 })) {
          seen.push(payload)
          first.resolve()
          if (seen.length === 4) return
        }
      })()
      await first.promise
      for (const payload of [1, 2, 3]) await topic.publish(payload)
      await reading
      deepEqual(seen, [0, 1, 2, 3])
    },
  },
  {
    id: 'read-from',
    noun: 'topic',
    title:
      'a reader starts at an offset, a time, the earliest or the latest; an offset that is not there is an error that says what is',
    promises: ['P6'],
    needs: ['replay'],
    async run(stage) {
      const topic = stage.topic<number>()
      for (let i = 0; i < 5; i++) await topic.publish(i)
      deepEqual(
        (await readAll(topic, { from: 3 })).map(({ payload }) => payload),
        [3, 4],
      )
      deepEqual((await readAll(topic, { from: 'latest' })).length, 0)
      deepEqual((await readAll(topic, { from: { timeMs: 0 } })).length, 5)
      deepEqual(
        (await readAll(topic, { from: 'earliest', limit: 2 })).map(({ payload }) => payload),
        [0, 1],
      )
      await rejects(readAll(topic, { from: 99 }), (error) => isSluiceError(error) && error.code.startsWith('OFFSET_'))
    },
  },
  {
    id: 'group-start',
    noun: 'topic',
    title: 'a group sees every message from where it started',
    promises: ['P6'],
    needs: ['replay'],
    async run(stage) {
      const topic = stage.topic<number>()
      await topic.publishMany([0, 1, 2].map((payload) => ({ payload })))
      const seen: Record<string, number[]> = { early: [], late: [], middle: [] }
      const all = createCount(4 + 1 + 3)
      const listen = (group: string, from: 'earliest' | 'latest' | number) =>
        topic.subscribe(
          group,
          async ({ payload }) => {
            seen[group]?.push(payload)
            all.reach()
          },
          { from, concurrency: 1 },
        ).ready
      await Promise.all([listen('early', 'earliest'), listen('late', 'latest'), listen('middle', 1)])
      await topic.publish(3)
      await all.reached
      deepEqual(seen, { early: [0, 1, 2, 3], late: [3], middle: [1, 2, 3] })
    },
  },
  {
    id: 'group-order',
    noun: 'topic',
    title: 'within a group messages of a key come in order and one at a time, with retries in between',
    promises: ['P4'],
    async run(stage) {
      const topic = stage.topic<number>()
      const done: number[] = []
      const all = createCount(60)
      await topic.subscribe(
        'g',
        async ({ payload }, { attempt }) => {
          if (payload % 5 === 0 && attempt < 3) throw new Error('planted')
          done.push(payload)
          all.reach()
        },
        { from: 'earliest', concurrency: 16, backoff: { baseMs: 0 } },
      ).ready
      await topic.publishMany(Array.from({ length: 60 }, (_, payload) => ({ payload, key: `${payload % 3}` })))
      await all.reached
      for (const key of [0, 1, 2])
        deepEqual(
          done.filter((n) => n % 3 === key),
          Array.from({ length: 20 }, (_, i) => i * 3 + key),
        )
    },
  },
  {
    id: 'seek',
    noun: 'topic',
    title: 'a group that is moved back sees everything from there again, and other groups nothing',
    promises: ['P6'],
    needs: ['replay'],
    async run(stage) {
      const topic = stage.topic<number>()
      await topic.publishMany([0, 1, 2, 3].map((payload) => ({ payload })))
      const seen: number[] = []
      let count = createCount(4)
      const others: number[] = []
      const both = createCount(4)
      await topic.subscribe(
        'other',
        async ({ payload }) => {
          others.push(payload)
          both.reach()
        },
        { from: 'earliest' },
      ).ready
      const worker = topic.subscribe(
        'g',
        async ({ payload }) => {
          seen.push(payload)
          count.reach()
        },
        { from: 'earliest', concurrency: 1 },
      )
      await Promise.all([count.reached, both.reached])
      await worker.close()
      count = createCount(3)
      await topic.seek('g', 1)
      topic.subscribe(
        'g',
        async ({ payload }) => {
          seen.push(payload)
          count.reach()
        },
        { concurrency: 1 },
      )
      await count.reached
      deepEqual(seen, [0, 1, 2, 3, 1, 2, 3])
      equal(others.length, 4)
    },
  },
  {
    id: 'group-dead',
    noun: 'topic',
    title: "a group's dead letter is its own: it is listed there, and every other group has the message as usual",
    promises: ['P4', 'P6'],
    async run(stage) {
      const topic = stage.topic<number>()
      const good = createSignal<number>()
      const dead = createSignal()
      await topic.subscribe('good', async ({ payload }) => good.resolve(payload), { from: 'earliest' }).ready
      await topic.subscribe(
        'bad',
        async () => {
          dead.resolve()
          throw new Error('no')
        },
        { from: 'earliest', attempts: 1 },
      ).ready
      await topic.publish(7)
      equal(await good.promise, 7)
      await dead.promise
      await topic.publish(8)
      for (;;) {
        const { messages: letters } = await topic.dead('bad')
        if (letters.length < 2) continue
        deepEqual(
          letters.map(({ message }) => message.payload),
          [7, 8],
        )
        break
      }
      deepEqual((await topic.dead('good')).messages, [])
    },
  },
  {
    id: 'slow-group-refuses',
    noun: 'topic',
    title: 'a group that falls behind keeps the topic full for publishers, who are refused and lose nothing',
    promises: ['P2', 'P7'],
    async run(stage) {
      const topic = stage.topic<number>({ limit: { messages: 5 }, fullWaitMs: 0 })
      await topic.declare()
      const gate = createSignal()
      const seen: number[] = []
      const all = createCount(6)
      await topic.subscribe(
        'slow',
        async ({ payload }) => {
          await gate.promise
          seen.push(payload)
          all.reach()
        },
        { from: 'earliest', concurrency: 1 },
      ).ready
      for (let i = 0; i < 5; i++) await topic.publish(i)
      await rejects(
        topic.publish(5),
        (error) => isSluiceError(error, 'QUEUE_FULL') && (error.details['retryAfterMs'] as number) > 0,
      )
      gate.resolve()
      for (;;) {
        try {
          await topic.publish(5)
          break
        } catch (error) {
          ok(isSluiceError(error, 'QUEUE_FULL'))
        }
      }
      await all.reached
      deepEqual(seen, [0, 1, 2, 3, 4, 5])
    },
  },
  {
    id: 'slow-group-detached',
    noun: 'topic',
    title: 'where a topic detaches, the slow group is told which range it lost and goes on behind it',
    promises: ['P2'],
    async run(stage) {
      const topic = stage.topic<number>({ limit: { messages: 10 }, onSlowGroup: 'detach' })
      await topic.declare()
      const { engine } = stage.sluice
      const at = { topic: topic.name, group: 'slow', max: 100, leaseMs: 10_000, waitMs: 1_000 }
      const holder = { kind: 'token', token: 'w' } as const
      await engine.declare([{ kind: 'group', topic: topic.name, name: 'slow', settings: {}, from: 'earliest' }])
      for (let i = 0; i < 12; i++) await topic.publish(i)
      const told = await engine.lease({ ...at, holder })
      ok(told.status === 'truncated')
      equal(told.offset, 0)
      ok(told.earliest > 0)
      const rest = await engine.lease({ ...at, holder })
      ok(rest.status === 'leased')
      deepEqual(
        rest.offsets,
        Array.from({ length: 12 - told.earliest }, (_, i) => told.earliest + i),
      )
    },
  },
  {
    id: 'forget-group',
    noun: 'topic',
    title: 'a group that is forgotten frees what only it had kept',
    promises: ['P2', 'P7'],
    async run(stage) {
      const topic = stage.topic<number>({ limit: { messages: 2 }, fullWaitMs: 0 })
      await topic.declare()
      const { engine } = stage.sluice
      await engine.declare([{ kind: 'group', topic: topic.name, name: 'gone', settings: {}, from: 'earliest' }])
      await topic.publish(1)
      await topic.publish(2)
      await rejects(topic.publish(3), (error) => isSluiceError(error, 'QUEUE_FULL'))
      await topic.forget('gone')
      equal((await topic.publish(3)).offset, 2)
    },
  },
  {
    id: 'topic-idempotency',
    noun: 'topic',
    title: 'a message published again under its key has the receipt of the first',
    promises: ['P8'],
    needs: ['idempotency'],
    async run(stage) {
      const topic = stage.topic<number>()
      const one = await topic.publish(1, { idempotencyKey: 'k' })
      const two = await topic.publish(1, { idempotencyKey: 'k' })
      deepEqual([two.offset, two.duplicate], [one.offset, true])
      equal((await readAll(topic)).length, 1)
    },
  },
  {
    id: 'partial-batch',
    noun: 'topic',
    title: 'a batch of which a part finds no room stores that which does, in order, and says so for each',
    promises: ['P2', 'P7'],
    async run(stage) {
      const topic = stage.topic<number>({ limit: { messages: 3 }, fullWaitMs: 0 })
      await topic.declare()
      await stage.sluice.engine.declare([
        { kind: 'group', topic: topic.name, name: 'g', settings: {}, from: 'earliest' },
      ])
      const outcomes = await topic.publishMany([0, 1, 2, 3, 4].map((payload) => ({ payload })))
      deepEqual(
        outcomes.map((outcome) => (isSluiceError(outcome) ? outcome.code : outcome.offset)),
        [0, 1, 2, 'QUEUE_FULL', 'QUEUE_FULL'],
      )
      deepEqual(
        (await readAll(topic)).map(({ payload }) => payload),
        [0, 1, 2],
      )
    },
  },
]
