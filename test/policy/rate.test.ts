import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import { createRandom } from '../../src/host/host.ts'
import { createRate } from '../../src/policy/rate.ts'
import { backoffMs } from '../../src/policy/retry.ts'

describe('a rate', () => {
  test('never lets more through than it says, but for what catching up allows, however it is asked', () => {
    for (let seed = 1; seed <= 40; seed++) {
      const random = createRandom(seed)
      const settings = {
        messages: 1 + Math.floor(random() * (seed % 2 === 0 ? 20 : 3_000)),
        perMs: [1_000, 60_000, 100][seed % 3] as number,
      }
      const rate = createRate(settings, 0)
      const taken: { atMs: number; count: number }[] = []
      for (let nowMs = 0; nowMs < settings.perMs * 3; nowMs += Math.floor(random() ** 3 * settings.perMs * 0.3)) {
        const available = rate.available(nowMs)
        const count = rate.take(nowMs, 1 + Math.floor(random() * 50))
        assert.ok(count <= available)
        if (count > 0) taken.push({ atMs: nowMs, count })
        if (taken.length > 2_000) break
      }
      const catchUp = Math.ceil((10 * settings.messages) / settings.perMs)
      for (const { atMs } of taken) {
        const within = taken.filter((one) => one.atMs >= atMs && one.atMs < atMs + settings.perMs)
        const count = within.reduce((sum, one) => sum + one.count, 0)
        assert.ok(count <= settings.messages + 1 + catchUp, `seed ${seed}: ${count} of ${settings.messages}`)
      }
    }
  })

  test('is reached by who asks when it says', () => {
    for (const settings of [
      { messages: 7, perMs: 1_000 },
      { messages: 1, perMs: 3_600_000 },
      { messages: 5_000, perMs: 1_000 },
    ]) {
      const rate = createRate(settings, 0)
      let nowMs = 0
      let count = 0
      while (nowMs < settings.perMs * 10) {
        count += rate.take(nowMs, 1_000)
        nowMs += Math.max(1, rate.nextMs(nowMs))
      }
      assert.ok(count >= settings.messages * 10 * 0.97, `${count} of ${settings.messages * 10}`)
    }
  })

  test('what is not used is not saved up', () => {
    const rate = createRate({ messages: 10, perMs: 1_000 }, 0)
    assert.equal(rate.available(1_000_000), 1)
    assert.equal(rate.take(1_000_000, 100), 1)
    assert.equal(rate.take(1_000_000, 100), 0)
    assert.equal(rate.nextMs(1_000_000), 100)
  })
})

describe('the back-off', () => {
  const settings = { baseMs: 100, factor: 2, maxMs: 1_000 }

  test('is a random time up to a bound that grows, and not beyond its maximum', () => {
    const bounds = [1, 2, 3, 4, 5, 50].map((attempt) => backoffMs(settings, attempt, 0.999_999))
    assert.deepEqual(bounds, [99, 199, 399, 799, 999, 999])
    assert.equal(backoffMs(settings, 3, 0), 0)
  })

  test('a base of 0 retries at once, a factor of 1 keeps the mean, any number of attempts is defined', () => {
    assert.equal(backoffMs({ ...settings, baseMs: 0 }, 9, 0.9), 0)
    assert.equal(backoffMs({ ...settings, factor: 1 }, 9, 0.5), 50)
    assert.equal(backoffMs(settings, 100_000, 0.5), 500)
    assert.equal(backoffMs({ ...settings, baseMs: 0 }, 100_000, 0.5), 0)
  })
})
