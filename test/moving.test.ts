import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { isSluiceError, moveQueue, open, type Sluice } from '../src/index.ts'
import { createSignal } from './support/open-each.ts'

async function openTwo(t: { after(end: () => Promise<void>): void }): Promise<[from: Sluice, to: Sluice]> {
  const [from, to] = await Promise.all([open(':memory:'), open(':memory:')])
  t.after(async () => {
    await from.close()
    await to.close()
  })
  return [from, to]
}

/** Works everything off, and says what came. */
async function drain(
  sluice: Sluice,
  name: string,
  count: number,
): Promise<{ payload: unknown; key: string | undefined }[]> {
  const seen: { payload: unknown; key: string | undefined }[] = []
  const all = createSignal()
  sluice.queue(name).work(async ({ payload, key }) => {
    seen.push({ payload, key })
    if (seen.length === count) all.resolve()
  })
  await all.promise
  return seen
}

describe('moving a queue', () => {
  test('takes everything that waits, in the order of each key, with headers, priority and settings', async (t) => {
    const [from, to] = await openTwo(t)
    const queue = from.queue<number>('work', { attempts: 7, limit: { messages: 5_000 } })
    await queue.addMany(Array.from({ length: 1_200 }, (_, i) => ({ payload: i, key: `k${i % 7}` })))
    await queue.add(-1, { headers: { a: 'b' }, priority: 'low' })
    const progress: number[] = []
    const moved = await moveQueue(from, to, { queue: 'work', onProgress: (done) => progress.push(done) })
    deepEqual(moved, { moved: 1_201, doubled: 0, dead: 0 })
    ok(progress.includes(500) && progress.at(-1) === 1_201)
    const [declared] = await to.engine.declare([{ kind: 'queue', name: 'work', settings: {} }])
    equal(declared?.status === 'declared' && (declared.settings as { attempts: number }).attempts, 7)
    const seen = await drain(to, 'work', 1_201)
    for (let k = 0; k < 7; k++) {
      const ofKey = seen.filter(({ key }) => key === `k${k}`).map(({ payload }) => payload as number)
      deepEqual(
        ofKey,
        ofKey.toSorted((a, b) => a - b),
      )
    }
    equal((await from.stats()).topics.find(({ name }) => name === 'work')?.depth.messages, 0)
  })

  test('leaves the queue refusing and paused, so that nothing new is taken in where nobody works', async (t) => {
    const [from, to] = await openTwo(t)
    await from.queue('work').add(1)
    await moveQueue(from, to, { queue: 'work' })
    await rejects(
      from.queue('work').add(2, { fullWaitMs: 0 }),
      (error) => isSluiceError(error, 'QUEUE_FULL') && error.message.includes('sluice move'),
    )
  })

  test('takes a queue back to where it came from, which has its limit again and hands out', async (t) => {
    const [from, to] = await openTwo(t)
    await from.queue('work', { limit: { messages: 10 } }).add(1)
    await moveQueue(from, to, { queue: 'work' })
    // A limit of messages alone would leave no room for a byte.
    await from.queue('work', { limit: { messages: 10 } }).declare()
    await rejects(moveQueue(to, from, { queue: 'work' }), (error) => isSluiceError(error, 'DECLARED_DIFFERENTLY'))
    await to.queue('work').add(2)
    deepEqual(await moveQueue(to, from, { queue: 'work', reopen: true }), { moved: 2, doubled: 0, dead: 0 })
    deepEqual(
      (await drain(from, 'work', 2)).map(({ payload }) => payload),
      [1, 2],
    )
  })

  test('opens a queue again only where there is one: else it is made as ever', async (t) => {
    const [from, to] = await openTwo(t)
    await from.queue('work').add(1)
    equal((await moveQueue(from, to, { queue: 'work', reopen: true })).moved, 1)
  })

  test('tells that there is no room, ends when there is none for long, and goes on when it is done again', async (t) => {
    const [from, to] = await openTwo(t)
    for (const payload of [1, 2]) await from.queue('work').add(payload)
    await to.queue('work', { limit: { messages: 1 } }).declare()
    const told: string[] = []
    const options = { queue: 'work', fullWaitMs: 0, onFull: (reason: string) => told.push(reason) }
    await rejects(moveQueue(from, to, options), (error) => isSluiceError(error, 'QUEUE_FULL'))
    equal(told[0], 'messages')
    await to.queue('work', { limit: { messages: 10 } }).declare()
    equal((await moveQueue(from, to, options)).moved, 2)
    deepEqual(
      (await drain(to, 'work', 2)).map(({ payload }) => payload),
      [1, 2],
    )
  })

  test('refuses to move a queue to itself or to where it was moved away from, and leaves it as it was', async (t) => {
    const [from, to] = await openTwo(t)
    await from.queue('work', { limit: { messages: 10 } }).add(1)
    await rejects(moveQueue(from, from, { queue: 'work' }), (error) => isSluiceError(error, 'DECLARED_DIFFERENTLY'))
    await from.queue('work').add(2)
    await moveQueue(from, to, { queue: 'work' })
    await rejects(moveQueue(to, from, { queue: 'work' }), (error) => isSluiceError(error, 'DECLARED_DIFFERENTLY'))
    await to.queue('work').add(3)
    deepEqual(
      (await drain(to, 'work', 3)).map(({ payload }) => payload),
      [1, 2, 3],
    )
  })

  test('keeps the time of what is delayed', async (t) => {
    const [from, to] = await openTwo(t)
    const dueAtMs = Date.now() + 3_600_000
    await from.queue('work').add('later', { delayMs: 3_600_000 })
    deepEqual(await moveQueue(from, to, { queue: 'work' }), { moved: 1, doubled: 0, dead: 0 })
    const page = await to.engine.command({ kind: 'unsettled', topic: 'work', max: 10 })
    ok(page.status === 'unsettled')
    const [one] = page.jobs
    equal(one?.job.status, 'scheduled')
    ok(Math.abs((one?.job.dueAtMs ?? 0) - dueAtMs) < 60_000)
  })

  test('broken off between the copy and the end of what was copied, it goes on and stores nothing twice', async (t) => {
    const [from, to] = await openTwo(t)
    await from.queue('work').addMany(Array.from({ length: 10 }, (_, payload) => ({ payload, key: 'k' })))
    const command = from.engine.command.bind(from.engine)
    let cancels = 0
    from.engine.command = (one) => {
      if (one.kind === 'cancel' && ++cancels > 4) return Promise.reject(new Error('the process died here'))
      return command(one)
    }
    await rejects(moveQueue(from, to, { queue: 'work' }), /died here/)
    from.engine.command = command
    deepEqual(await moveQueue(from, to, { queue: 'work' }), { moved: 6, doubled: 6, dead: 0 })
    deepEqual(
      (await drain(to, 'work', 10)).map(({ payload }) => payload),
      Array.from({ length: 10 }, (_, i) => i),
    )
  })

  test('waits for what runs, and says so where it does not end', async (t) => {
    const [from, to] = await openTwo(t)
    const started = createSignal()
    const goOn = createSignal()
    const job = await from.queue<number, string>('work').add(1)
    from.queue<number, string>('work').work(async () => {
      started.resolve()
      await goOn.promise
      return 'done here'
    })
    await started.promise
    await rejects(moveQueue(from, to, { queue: 'work', drainMs: 1 }), (error) => isSluiceError(error, 'DEADLINE'))
    goOn.resolve()
    deepEqual(await moveQueue(from, to, { queue: 'work' }), { moved: 0, doubled: 0, dead: 0 })
    equal((await job.status()).status, 'completed')
  })

  test('goes on where the destination is full, as soon as there is room, in order', async (t) => {
    const [from, to] = await openTwo(t)
    await to.queue('work', { limit: { messages: 3 } }).declare()
    await from.queue('work').addMany(Array.from({ length: 20 }, (_, payload) => ({ payload, key: 'k' })))
    const moving = moveQueue(from, to, { queue: 'work' })
    const seen = await drain(to, 'work', 20)
    deepEqual(await moving, { moved: 20, doubled: 0, dead: 0 })
    deepEqual(
      seen.map(({ payload }) => payload),
      Array.from({ length: 20 }, (_, i) => i),
    )
  })

  test('tells no receiver of a callback that the job ended where it only moved', async (t) => {
    const [from, to] = await openTwo(t)
    await from.queue('work').add(1, { callbackUrl: 'https://example.com/hook?secret=1' })
    await moveQueue(from, to, { queue: 'work' })
    const callbacks = (await from.stats()).topics.filter(({ name }) => name.includes('callback'))
    for (const { depth } of callbacks) equal(depth.messages, 0)
    const page = await to.engine.command({ kind: 'unsettled', topic: 'work', max: 1 })
    equal(page.status === 'unsettled' && page.jobs[0]?.callbackUrl, 'https://example.com/hook?secret=1')
  })

  test('refuses a queue that is not there, and changes nothing', async (t) => {
    const [from, to] = await openTwo(t)
    await rejects(moveQueue(from, to, { queue: 'nope' }), (error) => isSluiceError(error, 'QUEUE_NOT_FOUND'))
    deepEqual(
      (await to.stats()).topics.filter(({ name }) => name === 'nope'),
      [],
    )
  })
})
