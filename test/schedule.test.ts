import { strict as assert } from 'node:assert'
import { describe, type TestContext, test } from 'node:test'
import { z } from 'zod'
import { openLocalEngine } from '../src/broker/local-engine.ts'
import {
  createSluice,
  isSluiceError,
  open,
  type Schedule,
  type ScheduleOptions,
  type Sluice,
  type SluiceError,
} from '../src/index.ts'
import { startServer } from './server-harness.ts'
import { FakeHost, settled } from './support/fake-host.ts'

const HOUR_MS = 3_600_000
const HOURLY: ScheduleOptions = { cron: '0 * * * *' }

/** Processes that share an engine, and a clock that stands still until it is told to go on. */
async function openProcesses(t: TestContext, count = 1) {
  const host = new FakeHost()
  host.nowMs = Date.parse('2026-06-01T00:30:00Z')
  const engine = await openLocalEngine(':memory:', { host })
  const errors: SluiceError[] = []
  const processes = Array.from({ length: count }, () =>
    createSluice(engine, { onError: (error) => errors.push(error as SluiceError) }, { host }),
  )
  t.after(() => Promise.all(processes.map((sluice) => sluice.close())))
  return { host, processes, errors, first: processes[0] as Sluice }
}

/** The jobs that schedules have added, by tick, each with its payload. */
async function jobsOf(sluice: Sluice, queue = 'q') {
  const { topics } = await sluice.stats()
  const head = topics.find(({ name }) => name === queue)?.head ?? 0
  const jobs: { readonly tick: string; readonly schedule: string; readonly payload: unknown }[] = []
  if (head === 0) return jobs
  const worker = sluice.queue(queue).work((job) => {
    const { 'sluice-tick-ms': tick, 'sluice-schedule': schedule } = job.headers
    jobs.push({ tick: new Date(Number(tick)).toISOString(), schedule: schedule as string, payload: job.payload })
  })
  while (jobs.length < head) await settled()
  await worker.close()
  return jobs
}

describe('schedules', () => {
  test('each tick has one job over any number of processes, with its schedule and its tick', async (t) => {
    const { host, processes, first } = await openProcesses(t, 3)
    let made = 0
    for (const sluice of processes) {
      const schedule = sluice.queue<{ n: number }>('q').schedule('report', HOURLY, ({ atMs, schedule: name }) => {
        made++
        assert.equal(name, 'report')
        return { n: atMs }
      })
      await schedule.ready
    }
    for (let i = 0; i < 5; i++) await host.advance(HOUR_MS)
    assert.ok(made >= 5)
    const jobs = await jobsOf(first)
    assert.deepEqual(
      jobs,
      [1, 2, 3, 4, 5].map((hour) => ({
        tick: `2026-06-01T0${hour}:00:00.000Z`,
        schedule: 'report',
        payload: { n: Date.parse(`2026-06-01T0${hour}:00:00Z`) },
      })),
    )
  })

  test('several clients of one server fire an interval once a tick', async (t) => {
    const { url, sluice } = await startServer(t)
    const remotes = await Promise.all([1, 2, 3].map(() => open(url)))
    const ticks: string[] = []
    const { promise, resolve } = Promise.withResolvers<void>()
    sluice.queue('q').work((job) => {
      ticks.push(job.headers['sluice-tick-ms'] as string)
      if (ticks.length === 3) resolve()
    })
    for (const remote of remotes) await remote.queue('q').schedule('tick', { everyMs: 1_000 }, () => 1).ready
    await promise
    await Promise.all(remotes.map((remote) => remote.close()))
    assert.equal(new Set(ticks).size, ticks.length)
    for (const tick of ticks) assert.equal(Number(tick) % 1_000, 0)
  })

  for (const [missed, expected] of [
    ['skip', []],
    ['one', ['04:00']],
    ['all', ['01:00', '02:00', '03:00', '04:00']],
  ] as const) {
    test(`ticks that came while nobody was there, with missed '${missed}'`, async (t) => {
      const { host, first } = await openProcesses(t)
      const declare = async (): Promise<Schedule> => {
        const schedule = first.queue('q').schedule('s', { ...HOURLY, missed }, () => null)
        await schedule.ready
        return schedule
      }
      await (await declare()).close()
      await host.advance(4 * HOUR_MS)
      assert.deepEqual(await jobsOf(first), [])
      const after = await declare()
      for (let i = 0; i < 10; i++) await settled()
      await after.close()
      const ticks = (await jobsOf(first)).map(({ tick }) => tick.slice(11, 16))
      assert.deepEqual(ticks, expected)
    })
  }

  test('all fires at most the last hundred', async (t) => {
    const { host, first } = await openProcesses(t)
    const declare = () => first.queue('q').schedule('s', { everyMs: 60_000, missed: 'all' }, () => null)
    const before = declare()
    await before.ready
    await before.close()
    await host.advance(300 * 60_000)
    await declare().ready
    for (let i = 0; i < 200; i++) await settled()
    const jobs = await jobsOf(first)
    assert.equal(jobs.length, 100)
    assert.equal(jobs.at(-1)?.tick, new Date(host.nowMs).toISOString())
  })

  test('the first declaration fires nothing that was due before it', async (t) => {
    const { host, first } = await openProcesses(t)
    await first.queue('q').schedule('s', { ...HOURLY, missed: 'all' }, () => null).ready
    await host.advance(1_000)
    assert.deepEqual(await jobsOf(first), [])
  })

  test('a full queue delays a firing and does not lose it', async (t) => {
    const { host, first } = await openProcesses(t)
    const queue = first.queue('q', { limit: { messages: 1 } })
    await queue.add('in the way')
    await queue.schedule('s', HOURLY, () => 'fired').ready
    await host.advance(HOUR_MS)
    assert.equal((await first.schedules())[0]?.firedAtMs, null)
    queue.use({ limit: { messages: 10 } })
    await queue.declare()
    await host.advance(60_000)
    const [info] = await first.schedules()
    assert.equal(info?.firedAtMs, Date.parse('2026-06-01T01:00:00Z'))
    assert.equal((await queue.get(info?.jobId as string)).queue, 'q')
  })

  test('a payload that cannot be made is reported and made again, and a schema holds for it', async (t) => {
    const { host, first, errors } = await openProcesses(t)
    const queue = first.queue('q', { schema: z.object({ n: z.number() }) })
    let calls = 0
    await queue.schedule('s', HOURLY, () => {
      calls++
      if (calls === 1) throw new Error('not yet')
      return calls === 2 ? ({ n: 'no number' } as never) : { n: calls }
    }).ready
    await host.advance(HOUR_MS + 60_000)
    assert.equal(calls, 3)
    assert.equal((errors[0] as Error).message, 'not yet')
    assert.ok(isSluiceError(errors[1], 'SCHEMA_MISMATCH'))
    assert.deepEqual(
      (await jobsOf(first)).map(({ tick, payload }) => [tick, payload]),
      [['2026-06-01T01:00:00.000Z', { n: 3 }]],
    )
  })

  test('options of the jobs go with them, and so does a callback', async (t) => {
    const { host, first } = await openProcesses(t)
    const options = {
      ...HOURLY,
      key: 'k',
      priority: 'high',
      headers: { a: 'b' },
      callbackUrl: 'https://a.example/',
    } as const
    const queue = first.queue('q')
    await queue.schedule('s', options, { fixed: true }).ready
    await host.advance(HOUR_MS)
    const { topics } = await first.stats()
    assert.equal(topics.find(({ name }) => name === 'sluice.callbacks')?.depth.messages, 1)
    const [info] = await first.schedules()
    assert.deepEqual(
      [info?.queue, info?.name, info?.cron, info?.key, info?.priority, info?.payload, info?.isFromCode],
      ['q', 's', '0 * * * *', 'k', 'high', { fixed: true }, false],
    )
    assert.equal(info?.nextAtMs, Date.parse('2026-06-01T02:00:00Z'))
    const { promise, resolve } = Promise.withResolvers<readonly unknown[]>()
    queue.work((job) => resolve([job.key, job.priority, job.headers.a]))
    assert.deepEqual(await promise, ['k', 'high', 'b'])
  })

  test('other times that are declared elsewhere hold, and whoever fired the old ones hears of it', async (t) => {
    const { host, processes, first, errors } = await openProcesses(t, 2)
    const [one, two] = processes as [Sluice, Sluice]
    await one.queue('q').schedule('s', HOURLY, () => 'old').ready
    await host.advance(HOUR_MS)
    await two.queue('q').schedule('s', { cron: '30 * * * *' }, () => 'new').ready
    await host.advance(2 * HOUR_MS)
    assert.deepEqual(
      (await jobsOf(first)).map(({ tick, payload }) => [tick.slice(11, 16), payload]),
      [
        ['01:00', 'old'],
        ['02:30', 'new'],
        ['03:30', 'new'],
      ],
    )
    assert.deepEqual(
      errors.map(({ code }) => code),
      ['DECLARED_DIFFERENTLY'],
    )
  })

  test('a schedule that is removed fires no more, anywhere', async (t) => {
    const { host, processes, first } = await openProcesses(t, 2)
    for (const sluice of processes) await sluice.queue('q').schedule('s', HOURLY, () => 1).ready
    await host.advance(HOUR_MS)
    assert.equal(await first.queue('q').unschedule('s'), true)
    assert.equal(await first.queue('q').unschedule('s'), false)
    await host.advance(3 * HOUR_MS)
    assert.equal((await jobsOf(first)).length, 1)
    assert.deepEqual(await first.schedules(), [])
  })

  test('a stored payload is fired by whoever runs schedules, though who declared it is gone, until it is changed or removed', async (t) => {
    const { host, processes, first } = await openProcesses(t, 3)
    const [declarer, ...runners] = processes as [Sluice, Sluice, Sluice]
    for (const sluice of runners) await sluice.runSchedules().refresh()
    const schedule = declarer.queue('q').schedule('s', HOURLY, { v: 1 })
    await schedule.ready
    await schedule.close()
    await host.advance(HOUR_MS)
    const changed = declarer.queue('q').schedule('s', HOURLY, { v: 2 })
    await changed.ready
    await changed.close()
    await host.advance(HOUR_MS)
    await declarer.queue('q').unschedule('s')
    await host.advance(2 * HOUR_MS)
    assert.deepEqual(
      (await jobsOf(first)).map(({ tick, payload }) => [tick.slice(11, 16), payload]),
      [
        ['01:00', { v: 1 }],
        ['02:00', { v: 2 }],
      ],
    )
  })

  test('what cannot be a schedule is refused at once, with nothing kept', async (t) => {
    const { first } = await openProcesses(t)
    const queue = first.queue<unknown>('q')
    const bad: [string, object, unknown][] = [
      ['s', {}, 1],
      ['s', { cron: 'whenever' }, 1],
      ['s', { everyMs: 10 }, 1],
      ['s', { everyMs: 1_000, cron: '* * * * *' }, 1],
      ['s', { ...HOURLY, timeZone: 'Mars/X' }, 1],
      ['s', { ...HOURLY, missed: 'some' }, 1],
      ['s', { ...HOURLY, delayMs: 5 }, 1],
      ['s', { ...HOURLY, idempotencyKey: 'k' }, 1],
      ['s', HOURLY, undefined],
      ['s', HOURLY, new Uint8Array(1)],
    ]
    for (const [name, options, payload] of bad)
      assert.throws(
        () => queue.schedule(name, options, payload),
        (error) => isSluiceError(error, 'INVALID_OPTION'),
      )
    assert.throws(
      () => queue.schedule('no/name', HOURLY, 1),
      (error) => isSluiceError(error, 'INVALID_NAME'),
    )
    const large = 'x'.repeat(20_000)
    assert.throws(
      () => queue.schedule('s', HOURLY, large),
      (error) => isSluiceError(error, 'PAYLOAD_TOO_LARGE'),
    )
    assert.deepEqual(await first.schedules(), [])
    await first.close()
    assert.throws(
      () => queue.schedule('s', HOURLY, 1),
      (error) => isSluiceError(error, 'CLOSED'),
    )
  })
})
