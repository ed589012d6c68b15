/** The clock that the engine goes by, beside the clock of this process. */
import { deepEqual, equal } from 'node:assert/strict'
import { test } from 'node:test'
import { openLocalEngine } from '../src/broker/local-engine.ts'
import { createSluice } from '../src/sluice.ts'
import { FakeHost, settled } from './support/fake-host.ts'

const HOUR_MS = 3_600_000

test("an engine's clock that goes back, since another owner's is behind, stands still for the nouns instead", async (t) => {
  const host = new FakeHost()
  let aheadMs = 0
  const sluice = createSluice(await openLocalEngine(':memory:', { host }), {}, { host, clockAheadMs: () => aheadMs })
  t.after(() => sluice.close())
  const startMs = host.now()
  const readings: number[] = []
  for (aheadMs of [0, 100, 40, -HOUR_MS, 0, 250]) {
    host.nowMs += 10
    readings.push(sluice.engineNow() - startMs)
  }
  deepEqual(readings, [10, 120, 120, 120, 120, 310])
})

test("an engine's clock that jumps by an hour ends no handler, wait or lease of this process", async (t) => {
  const host = new FakeHost()
  let aheadMs = 0
  const parts = { host, holder: 'token', clockAheadMs: () => aheadMs } as const
  const sluice = createSluice(await openLocalEngine(':memory:', { host }), {}, parts)
  t.after(() => sluice.close({ drainMs: 0 }))
  const queue = sluice.queue<number, string>('work')
  const gate = Promise.withResolvers<void>()
  const signals: AbortSignal[] = []
  queue.work(
    async (_job, { attempt, signal }) => {
      signals.push(signal)
      await gate.promise
      return `attempt ${attempt}`
    },
    { timeoutMs: 60_000, leaseMs: 30_000 },
  )
  const job = await queue.add(1)
  const result = job.result({ timeoutMs: 60_000 })
  await settled()
  aheadMs = HOUR_MS
  await host.advance(29_000)
  deepEqual(
    signals.map(({ aborted }) => aborted),
    [false],
  )
  gate.resolve()
  equal(await result, 'attempt 1')
})
