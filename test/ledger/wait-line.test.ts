import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import { createRandom } from '../../src/host/host.ts'
import { WaitLine } from '../../src/ledger/wait-line.ts'

interface Waiter {
  readonly id: number
  done: boolean
}

describe('a line of those who wait', () => {
  test('first come, first served; whose wait is over is passed over; nobody is forgotten', () => {
    for (let seed = 1; seed <= 20; seed++) {
      const random = createRandom(seed)
      const line = new WaitLine<Waiter>()
      let plain: Waiter[] = []
      let fresh: Waiter[] = []
      for (let i = 0; i < 5_000; i++) {
        const dice = random()
        if (dice < 0.5) {
          const waiter = { id: i, done: false }
          line.push(waiter)
          plain.push(waiter)
          fresh.push(waiter)
        } else if (dice < 0.75) {
          assert.equal(line.first(), plain[0])
          const served = plain.shift()
          if (served !== undefined) served.done = true
        } else if (dice < 0.98) {
          const over = plain[Math.floor(random() * plain.length)]
          if (over !== undefined) {
            over.done = true
            plain = plain.filter((one) => one !== over)
            line.noteEnd()
          }
        } else if (dice < 0.99) {
          assert.deepEqual(line.waiting(), plain, `seed ${seed}`)
        } else {
          assert.deepEqual(
            line.takeNew(),
            fresh.filter(({ done }) => !done),
          )
          fresh = []
        }
      }
      assert.deepEqual(line.waiting(), plain)
    }
  })

  test('the ends of many waits cost about the same each, however many wait', () => {
    const line = new WaitLine<Waiter>()
    const waiters = Array.from({ length: 100_000 }, (_, id) => ({ id, done: false }))
    for (const waiter of waiters) line.push(waiter)
    for (const waiter of waiters.toReversed()) {
      waiter.done = true
      line.noteEnd()
    }
    assert.equal(line.first(), undefined)
    assert.deepEqual(line.waiting(), [])
  })
})
