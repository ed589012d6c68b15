import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import { createRandom } from '../../src/host/host.ts'
import { Lanes } from '../../src/policy/lanes.ts'
import { OffsetQueue } from '../../src/policy/offset-queue.ts'

describe('lanes', () => {
  test('each lane has one head, and its followers come in order', () => {
    const random = createRandom(3)
    const lanes = new Lanes()
    const plain = new Map<number, number[]>()
    for (let offset = 0; offset < 5_000; offset++) {
      const lane = 1 + Math.floor(random() * 20)
      const line = plain.get(lane) ?? []
      plain.set(lane, line)
      assert.equal(lanes.enter(lane, offset, 0), line.length === 0)
      line.push(offset)
      const other = 1 + Math.floor(random() * 20)
      const leaving = plain.get(other) ?? []
      if (leaving.length > 0 && random() < 0.95) {
        const head = leaving.shift() as number
        assert.ok(lanes.isBusy(other) && lanes.isHead(other, head))
        if (leaving[0] !== undefined) assert.equal(lanes.isHead(other, leaving[0]), false)
        assert.equal(lanes.leave(other), leaving[0] ?? -1)
      }
      assert.equal(lanes.isBusy(other), leaving.length > 0)
      assert.equal(
        lanes.followers,
        [...plain.values()].reduce((sum, { length }) => sum + Math.max(0, length - 1), 0),
      )
    }
  })

  test('lane 0 is no lane', () => {
    const lanes = new Lanes()
    assert.ok(lanes.enter(0, 1, 0) && lanes.enter(0, 2, 0))
    assert.equal(lanes.isBusy(0), false)
    assert.equal(lanes.isHead(0, 1), false)
    assert.equal(lanes.followers, 0)
  })

  test('an idle lane leaves nothing behind', () => {
    const lanes = new Lanes()
    for (let lane = 1; lane < 100; lane++) {
      lanes.enter(lane, lane, 0)
      lanes.enter(lane, lane + 1_000, 0)
      assert.equal(lanes.leave(lane), lane + 1_000)
      assert.equal(lanes.leave(lane), -1)
      assert.equal(lanes.isBusy(lane), false)
    }
  })
})

describe('a line of offsets', () => {
  test('comes out as it went in', () => {
    const random = createRandom(5)
    const line = new OffsetQueue()
    const plain: number[] = []
    for (let i = 0; i < 20_000; i++) {
      if (random() < (i % 4_000 < 2_000 ? 0.7 : 0.3)) {
        line.push(i)
        plain.push(i)
      } else {
        assert.equal(line.peek(), plain[0] ?? -1)
        assert.equal(line.shift(), plain.shift() ?? -1)
      }
      assert.equal(line.length, plain.length)
    }
  })
})
