import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import { createRandom } from '../../src/host/host.ts'
import { SettledSet } from '../../src/ledger/settled.ts'
import { type Held, openDriver } from '../support/ledger-driver.ts'

const CHUNK = 8_192

/** The set, the rows that it stored, and a plain set of numbers beside them. */
class Pair {
  set: SettledSet
  readonly rows = new Map<number, Uint8Array>()
  readonly plain = new Set<number>()
  floor: number

  constructor(floor: number) {
    this.set = new SettledSet(floor)
    this.floor = floor
  }

  add(offset: number): void {
    assert.equal(this.set.add(offset), offset >= this.floor && !this.plain.has(offset))
    if (offset >= this.floor) this.plain.add(offset)
  }

  save(): void {
    this.set.raiseFloor()
    while (this.plain.has(this.floor)) this.floor++
    this.set.takeChanges((chunk, bytes) => {
      if (bytes === null) this.rows.delete(chunk)
      else this.rows.set(chunk, bytes)
    })
  }

  reload(): void {
    this.set = new SettledSet(0)
    this.set.startAt(this.floor)
    for (const [chunk, bytes] of this.rows) this.set.load(chunk, bytes)
  }

  check(from: number, to: number): void {
    assert.equal(this.set.floor, this.floor)
    for (let offset = from; offset < to; offset++) {
      assert.equal(this.set.has(offset), offset < this.floor || this.plain.has(offset), `has ${offset}`)
    }
  }

  nextOpen(offset: number): number {
    let open = offset
    while (open < this.floor || this.plain.has(open)) open++
    return open
  }
}

describe('the set of settled offsets', () => {
  test('it is a set of numbers, whatever the order, over chunks and reloads', () => {
    for (let seed = 1; seed <= 30; seed++) {
      const random = createRandom(seed)
      const start = Math.floor(random() * 3) * CHUNK - Math.floor(random() * 40) + 40
      const pair = new Pair(start)
      const span = seed % 3 === 0 ? 3 * CHUNK : 300
      for (let i = 0; i < (seed % 3 === 0 ? 60 : 400); i++) {
        const dice = random()
        if (dice < 0.7) pair.add(start - 5 + Math.floor(random() * span))
        else if (dice < 0.85) pair.add(pair.floor)
        else if (dice < 0.95) pair.save()
        else {
          pair.save()
          pair.reload()
        }
        if (seed % 3 === 0 && dice > 0.9) {
          const from = pair.floor + Math.floor(random() * CHUNK)
          for (let offset = from; offset < from + 2 * CHUNK; offset++) pair.add(offset)
        }
        const at = start + Math.floor(random() * span)
        assert.equal(pair.set.nextOpen(at), pair.nextOpen(at), `seed ${seed}, the next open from ${at}`)
      }
      pair.save()
      pair.check(start - 50, start + span + 3 * CHUNK)
      pair.reload()
      pair.check(start - 50, start + span + 3 * CHUNK)
    }
  })

  test('bits at the ends of words and chunks', () => {
    for (const offset of [
      0,
      1,
      30,
      31,
      32,
      33,
      63,
      64,
      CHUNK - 33,
      CHUNK - 32,
      CHUNK - 1,
      CHUNK,
      CHUNK + 1,
      2 * CHUNK - 1,
    ]) {
      const pair = new Pair(0)
      pair.add(offset)
      pair.save()
      pair.check(0, 3 * CHUNK)
      for (let below = 0; below < offset; below++) pair.add(below)
      pair.save()
      assert.equal(pair.set.floor, offset + 1)
      assert.deepEqual([...pair.rows], [], 'nothing is stored where nothing is out of order')
    }
  })

  test('a full chunk above a stuck floor is stored as one byte', () => {
    const pair = new Pair(0)
    for (let offset = 1; offset < 4 * CHUNK; offset++) pair.add(offset)
    pair.save()
    assert.deepEqual(
      [...pair.rows.values()].map(({ byteLength }) => byteLength),
      [CHUNK / 8, 1, 1, 1],
    )
    pair.reload()
    assert.equal(pair.set.nextOpen(1), 4 * CHUNK)
    pair.add(0)
    pair.save()
    assert.deepEqual([pair.set.floor, pair.rows.size], [4 * CHUNK, 0])
  })
})

describe('settling out of order, over more than one chunk', () => {
  test('what is settled above a floor that is held up is neither handed out again nor counted', async () => {
    const driver = await openDriver()
    await driver.queue('q', { retention: { ms: 0 } })
    const count = 20_000
    for (let i = 0; i < count; i += 2_000) await driver.add('q', ...Array.from({ length: 2_000 }, () => ({})))
    const stuck = (await driver.lease('q', { token: 't', leaseMs: 1e9 })) as Held
    for (let settled = 1; settled < count - 100; ) {
      const held = (await driver.lease('q', { max: 1_999 })) as Held
      const offsets = held.offsets.filter((offset) => offset < count - 100)
      await driver.settle({ ...held, offsets })
      settled += offsets.length
      if (offsets.length < held.offsets.length)
        await driver.settle({ ...held, offsets: held.offsets.slice(offsets.length) }, { kind: 'release' })
    }
    await driver.restart()
    const { depth, groups } = await driver.stats('q')
    assert.deepEqual([depth.messages, groups[0]?.floor], [101, 0])
    const rest = (await driver.lease('q', { max: 10_000 })) as Held
    assert.deepEqual([rest.offsets.length, Math.min(...rest.offsets)], [100, count - 100])
    await driver.settle(stuck)
    assert.equal((await driver.stats('q')).groups[0]?.floor, count - 100)
    await driver.advance(60_000)
    assert.ok((await driver.stats('q')).earliest >= count - 2_000)
    await driver.settle(rest)
    assert.equal((await driver.stats('q')).depth.messages, 0)
  })

  test('a backlog that is read from the log comes out whole and in order', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    const count = 3_000
    for (let i = 0; i < count; i += 10) {
      await driver.add(
        'q',
        ...Array.from({ length: 10 }, (_, j) => ({ payload: `"${i + j}${'x'.repeat(500)}"`, key: `k${(i + j) % 7}` })),
      )
    }
    await driver.restart()
    const before = driver.log.health().counters.rowsRead
    const next = new Map<string, number>()
    let seen = 0
    for (let held = await driver.lease('q', { max: 50 }); held; held = await driver.lease('q', { max: 50 })) {
      for (const payload of held.payloads) {
        const number = Number.parseInt(payload.slice(1), 10)
        const lane = `${number % 7}`
        assert.equal(number, next.get(lane) ?? number % 7)
        next.set(lane, number + 7)
        seen++
      }
      await driver.settle(held)
    }
    assert.equal(seen, count)
    const rows = driver.log.health().counters.rowsRead - before
    assert.ok(rows < 1_000, `${rows} batches read for 300`)
  })
})
