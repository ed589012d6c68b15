import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { isSluiceError, RetryLater, type SluiceError } from '../src/index.ts'
import { createSluice } from '../src/sluice.ts'
import { FakeEngine } from './support/fake-engine.ts'
import { FakeHost, settled } from './support/fake-host.ts'
import { createSignal, onEachEngine } from './support/open-each.ts'

onEachEngine('a job', (openSluice) => {
  test('gives its result to any who have its id', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue<number, number>('q')
    const { id } = await queue.add(21)
    queue.work(({ payload }) => payload * 2)
    const job = await queue.get(id)
    equal(await job.result(), 42)
    deepEqual([(await job.status()).result, job.id], [42, id])
  })

  test('that returned nothing has the result undefined', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue('q')
    queue.work(() => {})
    equal(await queue.call(1), undefined)
  })

  test('shows its progress while it runs', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue<number, void>('q')
    const gate = createSignal()
    const started = createSignal()
    queue.work(async (_job, { progress }) => {
      progress({ percent: 50 })
      started.resolve()
      await gate.promise
    })
    const job = await queue.add(1)
    await started.promise
    let info = await job.status()
    while (info.progress === undefined) {
      await sluice.engine.watch({ id: job.id, version: info.version, untilTerminal: false, waitMs: 1_000 })
      info = await job.status()
    }
    deepEqual([info.status, info.progress, info.attempts], ['active', { percent: 50 }, 1])
    gate.resolve()
    await job.result()
  })

  test('wait for which is over answers DEADLINE, and the job goes on', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue<number, number>('q')
    const job = await queue.add(1)
    for (const timeoutMs of [0, 20]) {
      await rejects(job.result({ timeoutMs }), (error) => {
        ok(isSluiceError(error, 'DEADLINE'))
        deepEqual([error.details.id, error.details.status, error.details.timeoutMs], [job.id, 'queued', timeoutMs])
        return true
      })
    }
    queue.work(({ payload }) => payload)
    equal(await job.result(), 1)
  })

  test('wait for which is aborted rejects with the reason', async () => {
    await using sluice = await openSluice()
    const job = await sluice.queue('q').add(1)
    const stop = new AbortController()
    const waiting = job.result({ signal: stop.signal })
    stop.abort(new Error('enough'))
    await rejects(waiting, /enough/)
    await rejects(job.result({ signal: stop.signal }), /enough/)
  })

  test('that waits is cancelled, once and for all', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue('q')
    const job = await queue.add(1)
    const later = await queue.add(2, { delayMs: 60_000 })
    await job.cancel()
    await job.cancel()
    await later.cancel()
    for (const one of [job, later]) {
      equal((await one.status()).status, 'cancelled')
      await rejects(one.result(), (error) => isSluiceError(error, 'JOB_CANCELLED'))
    }
  })

  test('that runs is cancelled: its handler is told, and what it does has no effect (P10)', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue<number, string>('q')
    const out = sluice.topic('out')
    const started = createSignal()
    const told = createSignal<unknown>()
    const worker = queue.work(async (_job, { signal, publish }) => {
      await publish(out, 'never')
      signal.addEventListener('abort', () => told.resolve(signal.reason))
      started.resolve()
      await told.promise
      return 'never'
    })
    const job = await queue.add(1)
    await started.promise
    await queue.cancel(job.id)
    ok(isSluiceError(await told.promise, 'LEASE_LOST'))
    await worker.close()
    const { status, result } = await job.status()
    deepEqual([status, result], ['cancelled', undefined])
    for await (const _ of out.read({ follow: false })) ok(false, 'nothing is published')
  })

  test('that ended is not cancelled any more', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue<number, number>('q')
    queue.work(() => 1)
    const job = await queue.add(1)
    await job.result()
    await rejects(job.cancel(), (error) => isSluiceError(error, 'JOB_SETTLED') && error.details.status === 'completed')
  })

  test('that was delayed runs when it falls due, not before', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue<number, number>('q')
    queue.work(({ payload }) => payload)
    const startMs = performance.now()
    const job = await queue.add(7, { delayMs: 120 })
    equal(await job.result(), 7)
    ok(performance.now() - startMs >= 118)
  })

  test('that is retried keeps its id and counts its attempts', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue<number, number>('q', { backoff: { baseMs: 0 } })
    queue.work((_job, { attempt }) => {
      if (attempt === 1) throw new Error('first')
      if (attempt === 2) throw new RetryLater({ delayMs: 5 })
      return attempt
    })
    const job = await queue.add(1)
    equal(await job.result(), 3)
    equal((await job.status()).attempts, 3)
  })

  test('whose attempts are used up has failed, with its last error', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue('q', { attempts: 2, backoff: { baseMs: 0 } })
    queue.work((_job, { attempt }) => {
      throw new RangeError(`attempt ${attempt}`)
    })
    await rejects(queue.call(1), (error) => {
      ok(isSluiceError(error, 'JOB_FAILED'))
      deepEqual([error.details.attempts, error.details.error], [2, 'RangeError: attempt 2'])
      return true
    })
  })

  test('called but not started in time is expired and never started (P11)', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue<string, string>('q')
    const gate = createSignal()
    const seen: string[] = []
    queue.work(async ({ payload }) => {
      seen.push(payload)
      if (payload === 'blocks') await gate.promise
      return payload
    })
    const blocking = queue.add('blocks')
    await blocking
    const error = (await queue.call('late', { timeoutMs: 50 }).catch((one) => one)) as SluiceError
    ok(['JOB_EXPIRED', 'DEADLINE'].includes(error.code), error.code)
    gate.resolve()
    equal(await queue.call('after'), 'after')
    deepEqual(seen, ['blocks', 'after'])
    equal((await (await queue.get(error.details.id as string)).status()).status, 'expired')
  })

  test('called and started, but not done in time, keeps its outcome to be fetched (P11)', async () => {
    await using sluice = await openSluice()
    const queue = sluice.queue<number, string>('q')
    const gate = createSignal()
    queue.work(async ({ payload }) => {
      if (payload === 1) await gate.promise
      return 'done after all'
    })
    await queue.call(0)
    const error = (await queue.call(1, { timeoutMs: 1_000 }).catch((one) => one)) as SluiceError
    equal(error.code, 'DEADLINE')
    gate.resolve()
    equal(await (await queue.get(error.details.id as string)).result(), 'done after all')
  })
})

describe('a wait for a result', () => {
  test('asks again and again until its end, and survives the close of the engine with CLOSED', async () => {
    const engine = new FakeEngine()
    const host = new FakeHost()
    const sluice = createSluice(engine, {}, { host })
    const job = await sluice.queue('q').add(1)
    const view = { id: job.id, queue: 'q', status: 'active', attempts: 1, version: 1, createdAtMs: 0 } as const
    const waits: number[] = []
    engine.onWatch = ({ waitMs }) => {
      waits.push(waitMs)
      host.nowMs += waitMs
      return { status: 'found', job: view }
    }
    await rejects(job.result({ timeoutMs: 50_000 }), (error) => isSluiceError(error, 'DEADLINE'))
    deepEqual(waits, [20_000, 20_000, 10_000])

    engine.onWatch = async () => {
      await engine.close()
      return { status: 'found', job: view }
    }
    await rejects(job.result(), (error) => isSluiceError(error, 'CLOSED'))
    await settled()
  })
})
