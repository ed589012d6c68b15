import { deepEqual, equal, ok } from 'node:assert/strict'
import { test } from 'node:test'
import { nextLimit, overloadRetryMs } from '../../src/policy/load-limit.ts'

const LIMITS = { maxDelayMs: 100, max: 10_000 }

test('while the event loop is in time the limit is back at its most within forty samples, from wherever it was', () => {
  let limit = 256
  let samples = 0
  while (limit < LIMITS.max) {
    limit = nextLimit(limit, { delayMs: 100, peak: 0 }, LIMITS)
    samples++
  }
  ok(samples <= 40, `${samples}`)
  equal(nextLimit(limit, { delayMs: 0, peak: 0 }, LIMITS), LIMITS.max)
})

test('while it is late the limit falls from what is in flight, in proportion, to a floor that keeps commits shared', () => {
  equal(nextLimit(10_000, { delayMs: 125, peak: 1_000 }, LIMITS), 800)
  equal(nextLimit(10_000, { delayMs: 100_000, peak: 1_000 }, LIMITS), 500, 'no sample takes more than half')
  equal(nextLimit(400, { delayMs: 1_000, peak: 5_000 }, LIMITS), 256)
  equal(nextLimit(256, { delayMs: 1_000, peak: 1 }, LIMITS), 256)
  equal(nextLimit(8, { delayMs: 1_000, peak: 8 }, { maxDelayMs: 100, max: 8 }), 8, 'a limit below the floor stays')
})

test('without a bound on the delay the limit is the most', () => {
  equal(nextLimit(64, { delayMs: 1_000, peak: 64 }, { maxDelayMs: 0, max: 500 }), 500)
})

test('a refused caller comes back after as many seconds as there are callers for each that is served, within bounds', () => {
  deepEqual(
    [overloadRetryMs(300, 100, 0), overloadRetryMs(300, 100, 1), overloadRetryMs(1, 100, 0), overloadRetryMs(9, 0, 0)],
    [3_000, 3_750, 250, 5_000],
  )
})
