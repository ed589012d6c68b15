import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import { Window, WindowBudget } from '../../src/ledger/window.ts'
import type { StoredBatch } from '../../src/logs/contract.ts'
import { BatchBuilder } from '../../src/message-batch.ts'

const MIB = 1024 ** 2

/** A log of batches of `count` messages, and how often it was read. */
class Source {
  readonly batches: StoredBatch[] = []
  reads = 0

  add(count: number, payloadBytes = 10): StoredBatch {
    const builder = new BatchBuilder()
    for (let i = 0; i < count; i++) builder.add({ payload: 'x'.repeat(payloadBytes) })
    const last = this.batches.at(-1)
    const baseOffset = last === undefined ? 0 : last.baseOffset + last.count
    const batch = { topic: 1, partition: 0, baseOffset, count, timestampMs: 1, startBytes: 0, bytes: builder.finish() }
    this.batches.push(batch)
    return batch
  }

  readonly fetch = (_: number, offset: number): readonly StoredBatch[] => {
    this.reads++
    const from = this.batches.findIndex(({ baseOffset, count }) => offset < baseOffset + count)
    return this.batches.slice(from, from + 4)
  }
}

describe('the window of a topic', () => {
  test('what is fresh is handed out without a read, what is older is read once and kept for a while', () => {
    const source = new Source()
    for (let i = 0; i < 20; i++) source.add(10)
    const window = new Window(1, source.fetch, new WindowBudget())
    for (let i = 0; i < 20; i++) window.push(source.add(10))
    for (let offset = 200; offset < 400; offset++)
      assert.equal(window.at(offset)?.baseOffset, Math.floor(offset / 10) * 10)
    assert.equal(source.reads, 0)
    for (let offset = 0; offset < 200; offset++)
      assert.equal(window.at(offset)?.baseOffset, Math.floor(offset / 10) * 10)
    assert.equal(source.reads, 5)
    assert.equal(window.at(7)?.baseOffset, 0)
    assert.equal(source.reads, 5)
  })

  test('it is bounded in bytes, alone and with others', () => {
    const budget = new WindowBudget()
    const windows = Array.from({ length: 8 }, () => {
      const source = new Source()
      return { source, window: new Window(1, source.fetch, budget) }
    })
    for (const { source, window } of windows) {
      // Thirty steps of one message; between two steps nothing is more than the bound.
      for (let i = 0; i < 30; i++) {
        window.push(source.add(1, MIB))
        budget.trim()
        assert.ok(budget.bytes <= 48 * MIB, `${budget.bytes} bytes`)
        assert.ok(window.freshBytes <= 16 * MIB, `${window.freshBytes} bytes`)
      }
    }
    for (const { source, window } of windows) {
      for (let offset = 0; offset < 30; offset++) assert.equal(window.at(offset)?.baseOffset, offset)
      assert.ok(source.reads > 0)
    }
  })

  test('within a step nothing is dropped, however much it appends', () => {
    const budget = new WindowBudget()
    const source = new Source()
    const window = new Window(1, source.fetch, budget)
    for (let i = 0; i < 60; i++) window.push(source.add(1, MIB))
    for (let offset = 0; offset < 60; offset++) assert.equal(window.at(offset)?.baseOffset, offset)
    assert.equal(source.reads, 0)
  })

  test('released and cleared bytes are given back', () => {
    const budget = new WindowBudget()
    const source = new Source()
    const window = new Window(1, source.fetch, budget)
    for (let i = 0; i < 10; i++) window.push(source.add(10))
    const all = budget.bytes
    window.release(50)
    assert.equal(budget.bytes, all / 2)
    window.release(55)
    assert.equal(budget.bytes, all / 2, 'a batch goes whole')
    window.clear()
    assert.equal(budget.bytes, 0)
    assert.equal(window.at(99)?.baseOffset, 90)
  })

  test('what the log holds and does not give is a bug, not a message', () => {
    const source = new Source()
    source.add(10)
    const window = new Window(1, () => [], new WindowBudget())
    assert.throws(() => window.at(3), /a log holds/)
  })

  test('what is not here yet is null', () => {
    const window = new Window(1, () => null, new WindowBudget())
    assert.equal(window.at(3), null)
  })
})
