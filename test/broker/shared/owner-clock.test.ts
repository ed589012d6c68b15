/** The clock of a namespace, over changes of owner. */
import { equal, ok } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { OwnerClock } from '../../../src/broker/shared/owner-clock.ts'
import { createRandom, measureAheadMs } from '../../../src/host/host.ts'
import { FakeHost } from '../../support/fake-host.ts'

const HOUR_MS = 3_600_000
const SEED = Number(process.env['SLUICE_SEED'] ?? Date.now() % 1_000_000)

test('a difference no larger than what the answer took says nothing, beside what is known', () => {
  equal(measureAheadMs(10_000, 1_000, 1_200), 8_900)
  equal(measureAheadMs(1_150, 1_000, 1_200), 0)
  equal(measureAheadMs(10_050, 1_000, 1_200, 8_900), 8_900)
  equal(measureAheadMs(12_000, 1_000, 1_200, 8_900), 10_900)
})

describe('the clock of a namespace', () => {
  test('is that of the owner, and stays so when this process takes over', () => {
    for (const aheadMs of [HOUR_MS, -HOUR_MS]) {
      const host = new FakeHost()
      const clock = new OwnerClock(host)
      clock.learn(host.now() + aheadMs, host.now())
      equal(clock.now(), host.now() + aheadMs)
      clock.lead()
      equal(clock.aheadMs, aheadMs)
      // What is told while it leads is of somebody who leads no more.
      clock.learn(host.now(), host.now())
      equal(clock.aheadMs, aheadMs)
    }
  })

  test("goes to the owner's own clock, by 3 s in a minute, and no further", () => {
    for (const sign of [1, -1]) {
      const host = new FakeHost()
      const clock = new OwnerClock(host)
      clock.learn(host.now() + sign * 10_000, host.now())
      clock.lead()
      host.nowMs += 60_000
      equal(clock.aheadMs, sign * 7_000)
      clock.follow()
      host.nowMs += 60_000
      equal(clock.aheadMs, sign * 7_000, 'only an owner goes to its own')
      clock.lead()
      host.nowMs += HOUR_MS
      equal(Math.abs(clock.aheadMs), 0)
      equal(clock.now(), host.now())
    }
  })

  test('never goes back, whoever leads, and stands still where another owner is behind', (t) => {
    t.diagnostic(`SLUICE_SEED=${SEED}`)
    const random = createRandom(SEED)
    const host = new FakeHost()
    const clock = new OwnerClock(host)
    let last = clock.now()
    for (let i = 0; i < 2_000; i++) {
      const dice = random()
      host.nowMs += Math.floor(random() * 1_000)
      if (dice < 0.3)
        clock.learn(host.now() + Math.round((random() - 0.5) * HOUR_MS), host.now() - Math.floor(random() * 20))
      else if (dice < 0.5) clock.lead()
      else if (dice < 0.7) clock.follow()
      const now = clock.now()
      ok(now >= last, `${now} after ${last} (SLUICE_SEED=${SEED})`)
      last = now
    }
  })
})
