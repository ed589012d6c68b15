import { deepEqual, equal, notEqual, ok, rejects, throws } from 'node:assert/strict'
import { test } from 'node:test'
import { z } from 'zod'
import { isSluiceError, type JobInfo, type SluiceError, Unrecoverable } from '../src/index.ts'
import { createSignal, onEachEngine } from './support/open-each.ts'

const codeOf = (error: unknown): string => (error as SluiceError).code

onEachEngine('a queue', (openSluice) => {
  test('answers add once the job is durable, and says how durable that is (P1)', async () => {
    await using sluice = await openSluice()
    const job = await sluice.queue('q').add({ a: 1 })
    const { durability, copies } = sluice.engine.abilities
    deepEqual(
      [job.receipt.partition, job.receipt.offset, job.receipt.durability, job.receipt.copies, job.duplicate],
      [0, 0, durability, copies, false],
    )
    ok(Math.abs(job.receipt.timestampMs - Date.now()) < 60_000)
    equal((await job.status()).status, 'queued')
  })

  test('gives a handler the payload, key and headers that were added, and the result to who waits', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue<{ n: number }, unknown>('q')
    const job = await queue.add({ n: 20 }, { key: 'k', headers: { h: 'ü' }, priority: 'high' })
    queue.work(({ payload, key, headers, priority, id }) => ({ payload, key, headers, priority, id }))
    deepEqual(await job.result(), { payload: { n: 20 }, key: 'k', headers: { h: 'ü' }, priority: 'high', id: job.id })
    const { status, attempts } = await job.status()
    deepEqual([status, attempts], ['completed', 1])
  })

  test('keeps bytes as bytes', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue<Uint8Array, number[]>('q')
    queue.work(({ payload, isBytes }) => [...payload, isBytes ? 1 : 0])
    deepEqual(await queue.call(new Uint8Array([0, 200, 255])), [0, 200, 255, 1])
  })

  test('keeps the order of a key, and the places of all in the order of adding (P4)', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue<number>('q')
    const jobs = await Promise.all(Array.from({ length: 200 }, (_, i) => queue.add(i, { key: `k${i % 7}` })))
    deepEqual(
      jobs.map(({ receipt }) => receipt.offset),
      Array.from({ length: 200 }, (_, i) => i),
    )
    const seen = new Map<string, number[]>()
    const running = new Set<string>()
    const worker = queue.work(
      async ({ payload, key = '' }) => {
        ok(!running.has(key), 'two of one key at once')
        running.add(key)
        await null
        running.delete(key)
        seen.set(key, [...(seen.get(key) ?? []), payload])
      },
      { concurrency: 20 },
    )
    for (const job of jobs) await job.result()
    for (const payloads of seen.values())
      deepEqual(
        payloads,
        payloads.toSorted((a, b) => a - b),
      )
    equal([...seen.values()].flat().length, 200)
    await worker.close()
  })

  test('rejects beyond its limit with QUEUE_FULL, and nothing was stored (P7)', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue<number>('q', { limit: { messages: 3 } })
    const outcomes = await queue.addMany(Array.from({ length: 5 }, (_, i) => ({ payload: i })))
    deepEqual(
      outcomes.map((one) => (one instanceof Error ? one.code : one.receipt.offset)),
      [0, 1, 2, 'QUEUE_FULL', 'QUEUE_FULL'],
    )
    const { details } = outcomes[3] as SluiceError
    deepEqual([details.queue, details.reason, details.depth, details.limit], ['q', 'messages', 3, 3])
    ok((details.retryAfterMs as number) > 0)
    equal((await sluice.stats()).topics[0]?.head, 3)
  })

  test('stores an idempotency key once (P8)', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue('q')
    const first = await queue.add({ a: 1 }, { idempotencyKey: 'x' })
    const again = await queue.add({ a: 1 }, { idempotencyKey: 'x' })
    deepEqual([again.id, again.duplicate, first.duplicate], [first.id, true, false])
    await rejects(queue.add({ a: 2 }, { idempotencyKey: 'x' }), (error) => isSluiceError(error, 'IDEMPOTENCY_MISMATCH'))
    const delayed = await queue.add(1, { idempotencyKey: 'y', delayMs: 60_000 })
    equal((await queue.add(1, { idempotencyKey: 'y', delayMs: 60_000 })).id, delayed.id)
    deepEqual([delayed.receipt.offset, (await delayed.status()).status], [null, 'scheduled'])
  })

  test('gives each of many its own outcome, in their order', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue('q', { schema: z.string() })
    const outcomes = await queue.addMany([
      { payload: 'a', key: 'k' },
      { payload: 5 as never },
      { payload: 'b', delayMs: -1 },
      { payload: 'c', colour: 'red' } as never,
      null as never,
      { payload: 'd' },
    ])
    deepEqual(
      outcomes.map((one) => (one instanceof Error ? one.code : one.receipt.offset)),
      [0, 'SCHEMA_MISMATCH', 'INVALID_OPTION', 'INVALID_OPTION', 'INVALID_OPTION', 1],
    )
    await rejects(queue.addMany('many' as never), (error) => isSluiceError(error, 'INVALID_OPTION'))
    deepEqual(await queue.addMany([]), [])
  })

  test('validates with its schema before it stores, and hands out the output', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue('q', { schema: z.object({ to: z.string(), times: z.number().default(1) }) })
    queue.work(({ payload }) => payload)
    deepEqual(await queue.call({ to: 'x' }), { to: 'x', times: 1 })
    await rejects(queue.add({ to: 1 } as never), (error) => isSluiceError(error, 'SCHEMA_MISMATCH'))
    equal((await sluice.stats()).topics[0]?.head, 1)
  })

  test('refuses payloads that are too large or cannot be encoded, storing nothing', async () => {
    await using sluice = await openSluice({ maxPayloadBytes: 100 })
    const queue = sluice.queue('q')
    await queue.add('x'.repeat(98))
    await rejects(queue.add('x'.repeat(99)), (error) => isSluiceError(error, 'PAYLOAD_TOO_LARGE'))
    await rejects(queue.add(new Uint8Array(101)), (error) => isSluiceError(error, 'PAYLOAD_TOO_LARGE'))
    await rejects(queue.add(undefined), (error) => isSluiceError(error, 'INVALID_PAYLOAD'))
    await rejects(queue.add(1, null as never), (error) => isSluiceError(error, 'INVALID_OPTION'))
    equal((await sluice.stats()).topics[0]?.head, 1)
  })

  test('does not reset the settings of an existing queue when it is named without them', async () => {
    await using sluice = await openSluice()
    await sluice.queue('q', { attempts: 3, limit: { messages: 7 } }).declare()
    const { created, settings } = await sluice.queue('q', { limit: { bytes: 5_000 } }).declare()
    equal(created, false)
    const { attempts, limit } = settings as { attempts: number; limit: unknown }
    deepEqual([attempts, limit], [3, { messages: 7, bytes: 5_000 }])
    // Set by somebody else meanwhile: what this process gave before is not sent again.
    await sluice.engine.declare([{ kind: 'queue', name: 'q', settings: { attempts: 9 } }])
    const now = (await sluice.queue('q', { idempotencyMs: 5 }).declare()).settings as { attempts: number }
    equal(now.attempts, 9)
  })

  test('is refused where it exists with a setting that may not change, and can be used again without it', async () => {
    await using sluice = await openSluice()
    await sluice.queue('q', { strict: true }).declare()
    await rejects(sluice.queue('q', { strict: false }).add(1), (error) => isSluiceError(error, 'DECLARED_DIFFERENTLY'))
    await sluice.queue('q', { strict: true }).add(1)
    throws(
      () => sluice.topic('q'),
      (error) => isSluiceError(error, 'DECLARED_DIFFERENTLY'),
    )
  })

  test('runs a strict queue one job at a time, in order', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue<number, void>('q', { strict: true })
    const seen: number[] = []
    let running = 0
    queue.work(
      async ({ payload }) => {
        equal(++running, 1)
        await null
        running--
        seen.push(payload)
      },
      { concurrency: 10 },
    )
    await Promise.all(Array.from({ length: 30 }, (_, i) => queue.call(i)))
    deepEqual(
      seen,
      Array.from({ length: 30 }, (_, i) => i),
    )
  })

  test('hands nothing out while it is paused', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue<number, number>('q')
    await queue.pause()
    queue.work(({ payload }) => payload)
    const job = await queue.add(5)
    await rejects(job.result({ timeoutMs: 20 }), (error) => isSluiceError(error, 'DEADLINE'))
    await queue.resume()
    equal(await job.result(), 5)
  })

  test('calls back once when a job has ended, however it ended', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue<string, string>('q')
    const ended = createSignal<JobInfo<string>>()
    const failed = createSignal<JobInfo<string>>()
    await queue.add('good', { onSettled: ended.resolve })
    await queue.add('bad', { onSettled: failed.resolve })
    queue.work(({ payload }) => {
      if (payload === 'bad') throw new Unrecoverable('no')
      return 'fine'
    })
    const good = await ended.promise
    deepEqual([good.status, good.result], ['completed', 'fine'])
    const bad = await failed.promise
    deepEqual([bad.status, bad.error], ['failed', 'Unrecoverable: no'])
  })

  test('reports an onSettled that throws, and goes on', async () => {
    const thrown = createSignal<unknown>()
    await using sluice = await openSluice({ onError: thrown.resolve })
    const queue = sluice.queue<number, number>('q')
    queue.work(() => 1)
    await queue.add(1, {
      onSettled: () => {
        throw new Error('in the callback')
      },
    })
    equal(((await thrown.promise) as Error).message, 'in the callback')
    equal(await queue.call(2), 1)
  })

  test('refuses more than 10,000 onSettled at once, before anything is stored', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue('q')
    const onSettled = (): void => {}
    const outcomes = await queue.addMany(Array.from({ length: 10_001 }, () => ({ payload: 1, onSettled })))
    equal(codeOf(outcomes.at(-1)), 'OVERLOADED')
    equal(outcomes.filter((one) => one instanceof Error).length, 1)
    equal((await sluice.stats()).topics[0]?.head, 10_000)
  })

  test('runs an effect given to once() a single time over all attempts of a job (P9)', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue<number, number>('q', { backoff: { baseMs: 0 } })
    let charges = 0
    queue.work(async (_job, { attempt, once }) => {
      const { charge } = await once('charge', async () => ({ charge: ++charges }))
      if (attempt < 3) throw new Error('after the charge')
      return charge
    })
    deepEqual([await queue.call(1), charges], [1, 1])
    deepEqual([await queue.call(2), charges], [2, 2])
  })

  test('settles a job only when what its handler published has room (P7, P9)', async () => {
    await using sluice = await openSluice()
    const small = sluice.queue<string, string>('small', { limit: { messages: 10 } })
    const queue = sluice.queue<string, string>('q')
    await small.addMany(Array.from({ length: 10 }, (_, i) => ({ payload: `before ${i}` })))
    const published = createSignal()
    queue.work(async ({ payload }, { publish }) => {
      for (let i = 0; i < 2; i++) await publish(small, `${payload} ${i}`)
      published.resolve()
      return 'published'
    })
    const job = await queue.add('after')
    await published.promise
    await rejects(
      job.result({ timeoutMs: 30 }),
      (error) => isSluiceError(error, 'DEADLINE') && error.details.status === 'active',
    )
    const seen: string[] = []
    small.work(({ payload }) => {
      seen.push(payload)
      return payload
    })
    equal(await job.result(), 'published')
    equal(await small.call('last'), 'last')
    deepEqual(seen.slice(-3), ['after 0', 'after 1', 'last'])
    equal(seen.length, 13)
  })

  test('makes new jobs of dead letters, which name the old ones (P10)', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue<string, string>('q', { attempts: 1 })
    let isMended = false
    queue.work(({ payload }) => {
      if (!isMended) throw new Error('broken')
      return payload
    })
    const jobs = await Promise.all(['a', 'b', 'c'].map((payload) => queue.add(payload, { headers: { h: payload } })))
    for (const job of jobs)
      await rejects(
        job.result(),
        (error) => isSluiceError(error, 'JOB_FAILED') && error.details.error === 'Error: broken',
      )
    const first = await queue.dead({ limit: 2 })
    deepEqual(
      first.jobs.map(({ id, message, error, attempts }) => [id, message.payload, message.headers, error, attempts]),
      [
        [jobs[0]?.id, 'a', { h: 'a' }, 'Error: broken', 1],
        [jobs[1]?.id, 'b', { h: 'b' }, 'Error: broken', 1],
      ],
    )
    const rest = await queue.dead({ after: first.next as string })
    deepEqual([rest.jobs.length, rest.next], [1, null])

    isMended = true
    const one = await queue.redrive({ ids: [jobs[1]?.id as string] })
    equal(one.count, 1)
    const again = await queue.get(one.ids[0] as string)
    equal(await again.result(), 'b')
    equal((await again.status()).redriveOf, jobs[1]?.id)
    equal((await jobs[1]?.status())?.status, 'failed')
    equal((await queue.redrive()).count, 2)
    equal((await queue.dead()).jobs.length, 0)
  })

  test('knows no job of another queue, data folder or shape of id', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue('q')
    const other = await sluice.queue('other').add(1)
    const job = await queue.add(1)
    const foreign = `q:zzzzz0:${job.receipt.offset}`
    for (const id of [
      other.id,
      foreign,
      'q:abc123:99',
      '',
      'nonsense',
      '../q',
      5 as never,
      `q:${'x'.repeat(5_000)}:1`,
    ]) {
      for (const use of [() => queue.get(id), () => queue.cancel(id), () => queue.redrive({ ids: [id] })]) {
        await rejects(use(), (error) => isSluiceError(error, 'JOB_NOT_FOUND') && error.message.length < 500)
      }
    }
    equal((await other.status()).status, 'queued')
    equal((await job.status()).status, 'queued')
    notEqual(other.id, job.id)
  })
})
