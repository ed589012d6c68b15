import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import { DrainRate, isBelowLowWater, lowWater, retryAfterMs } from '../../src/policy/admission.ts'

describe('when to come back', () => {
  test('as long as the excess takes at the measured rate, up to a tenth longer', () => {
    assert.equal(retryAfterMs(100, 50, 0), 2_000)
    assert.equal(retryAfterMs(100, 50, 0.999), 2_200)
  })

  test('within bounds, and defined for a rate of zero and an excess of none', () => {
    assert.equal(retryAfterMs(1_000_000, 1, 0), 60_000)
    assert.equal(retryAfterMs(1, 1_000_000, 0), 50)
    assert.equal(retryAfterMs(0, 1_000_000, 0), 50)
    assert.equal(retryAfterMs(-5, 1, 0), 1_000)
    for (const random of [0, 0.5, 0.999]) {
      const wait = retryAfterMs(10, 0, random)
      assert.ok(wait >= 2_000 && wait <= 2_200)
    }
  })
})

describe('low water', () => {
  test('is a tenth below the limit, in messages and in bytes', () => {
    assert.deepEqual([lowWater(0), lowWater(1), lowWater(10), lowWater(100)], [0, 0, 9, 90])
    const limit = { messages: 10, bytes: 100 }
    assert.ok(isBelowLowWater({ messages: 9, bytes: 90 }, limit))
    assert.equal(isBelowLowWater({ messages: 10, bytes: 0 }, limit), false)
    assert.equal(isBelowLowWater({ messages: 0, bytes: 91 }, limit), false)
  })
})

describe('the drain rate', () => {
  test('is the number a second, while it is steady', () => {
    for (const perSecond of [4, 100, 5_000]) {
      const rate = new DrainRate()
      for (let ms = 0; ms < 20_000; ms += 50) rate.add(1_700_000_000_000 + ms, perSecond / 20)
      const measured = rate.perSecond(1_700_000_020_000)
      assert.ok(Math.abs(measured - perSecond) < perSecond * 0.06, `${measured} for ${perSecond}`)
    }
  })

  test('follows a change within seconds, and forgets a burst', () => {
    const rate = new DrainRate()
    rate.add(0, 10_000)
    assert.ok(rate.perSecond(1_000) > 5_000)
    assert.equal(rate.perSecond(6_000), 0)
    for (let ms = 10_000; ms < 15_000; ms += 100) rate.add(ms, 10)
    assert.ok(Math.abs(rate.perSecond(15_000) - 100) < 10)
    for (let ms = 15_000; ms < 20_000; ms += 100) rate.add(ms, 1)
    assert.ok(Math.abs(rate.perSecond(20_000) - 10) < 2)
  })

  test('is zero before anything was settled, and high at once after it', () => {
    const rate = new DrainRate()
    assert.equal(rate.perSecond(1_000), 0)
    rate.add(1_000, 50)
    assert.equal(rate.perSecond(1_000), 200)
  })
})
