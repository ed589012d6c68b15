import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import { createRandom } from '../../src/host/host.ts'
import { Timers } from '../../src/policy/timers.ts'

describe('timers', () => {
  test('fall due in order of their times, none before its time, none lost', () => {
    for (let seed = 1; seed <= 20; seed++) {
      const random = createRandom(seed)
      const timers = new Timers<number>()
      const plain: { atMs: number; item: number }[] = []
      let nowMs = 0
      for (let i = 0; i < 500; i++) {
        const atMs = nowMs + Math.floor(random() * 50)
        timers.add(atMs, i)
        plain.push({ atMs, item: i })
        if (random() < 0.3) {
          nowMs += Math.floor(random() * 20)
          for (let item = timers.takeDue(nowMs), last = -1; item !== undefined; item = timers.takeDue(nowMs)) {
            const at = plain.findIndex((one) => one.item === item)
            const { atMs: dueMs } = plain.splice(at, 1)[0] as { atMs: number }
            assert.ok(dueMs <= nowMs && dueMs >= last)
            last = dueMs
          }
          assert.ok(plain.every((one) => one.atMs > nowMs))
        }
        assert.equal(timers.size, plain.length)
        assert.equal(timers.nextMs, Math.min(Number.POSITIVE_INFINITY, ...plain.map((one) => one.atMs)))
      }
    }
  })

  test('without any, the next is never due', () => {
    const timers = new Timers<string>()
    assert.equal(timers.nextMs, Number.POSITIVE_INFINITY)
    assert.equal(timers.takeDue(Number.MAX_SAFE_INTEGER), undefined)
    timers.add(5, 'a')
    timers.clear()
    assert.equal(timers.takeDue(10), undefined)
  })
})
