import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import { createRandom } from '../../src/host/host.ts'
import type { Commit, StoredBatch } from '../../src/logs/contract.ts'
import { MemoryMedium, openMemoryLog } from '../../src/logs/memory.ts'
import { BatchBuilder } from '../../src/message-batch.ts'

const TOPIC = { id: 1, name: 't', partitions: 1 }
const NOTHING: Commit = { outputs: [], changes: new Map() }

function batchAt(baseOffset: number, count: number, startBytes = 0): StoredBatch {
  const builder = new BatchBuilder()
  for (let i = 0; i < count; i++) builder.add({ payload: `"${baseOffset + i}"` })
  return { topic: 1, partition: 0, baseOffset, count, timestampMs: 1_000, startBytes, bytes: builder.finish() }
}

const put = (...pairs: readonly (readonly [string, string | null])[]): Commit => ({
  ...NOTHING,
  changes: new Map(pairs.map(([key, value]) => [key, value === null ? null : Buffer.from(value)])),
})

const textOf = (entries: readonly (readonly [string, Uint8Array])[]) =>
  entries.map(([key, value]) => `${key}=${Buffer.from(value)}`)

describe('the memory log', () => {
  test('what was committed is there after opening again, in the same places', () => {
    const medium = new MemoryMedium()
    const log = openMemoryLog(medium)
    const owner = log.own()
    const first = batchAt(0, 3)
    const outcome = log.commit(owner, {
      ...put(['a', '1']),
      outputs: [first, batchAt(3, 2, first.bytes.byteLength - 16)],
    })
    assert.deepEqual(outcome, { status: 'durable', offsets: [0, 3] })
    const again = openMemoryLog(medium)
    const [extent] = again.declare([TOPIC])
    assert.deepEqual([extent?.earliest, extent?.head], [0, 5])
    assert.deepEqual(
      again.read(1, 0, 4, 1).map(({ baseOffset }) => baseOffset),
      [3],
    )
    assert.deepEqual(textOf(again.own().state.range('', '\x7f', 10)), ['a=1'])
  })

  test('a crash leaves all of a commit, or nothing of it', () => {
    for (const kind of ['lost', 'torn', 'kept'] as const) {
      const medium = new MemoryMedium()
      const log = openMemoryLog(medium)
      const owner = log.own()
      log.commit(owner, put(['a', '1']))
      medium.crashNext = kind
      assert.throws(() => log.commit(owner, { ...put(['a', '2']), outputs: [batchAt(0, 1)] }), {
        code: 'ENGINE_FAILED',
      })
      assert.throws(() => log.commit(owner, put(['a', '3'])), { code: 'ENGINE_FAILED' }, 'the process is dead')
      const again = openMemoryLog(medium)
      assert.deepEqual(textOf(again.own().state.range('', '\x7f', 10)), [kind === 'kept' ? 'a=2' : 'a=1'])
      assert.equal(again.declare([TOPIC])[0]?.head, kind === 'kept' ? 1 : 0)
    }
  })

  test('epochs rise, and a commit of an earlier owner is lost without effect', () => {
    const medium = new MemoryMedium()
    const log = openMemoryLog(medium)
    const first = log.own()
    const other = openMemoryLog(medium)
    const second = other.own()
    assert.ok(second.epoch > first.epoch)
    assert.deepEqual(log.commit(first, put(['a', '1'])), { status: 'lost' })
    assert.equal(openMemoryLog(medium).own().state.get('a'), undefined)
  })

  test('says whether the owner before gave it up in good order', () => {
    const medium = new MemoryMedium()
    const log = openMemoryLog(medium)
    assert.equal(log.own().clean, true, 'nobody had it')
    const crashed = openMemoryLog(medium)
    assert.equal(crashed.own().clean, false)
    crashed.close()
    assert.equal(openMemoryLog(medium).own().clean, true)
  })

  test('when full it refuses outputs, applies nothing of them, and still keeps changes', () => {
    const medium = new MemoryMedium()
    const log = openMemoryLog(medium)
    const owner = log.own()
    medium.full = true
    assert.deepEqual(log.commit(owner, { ...put(['a', '1']), outputs: [batchAt(0, 1)] }), { status: 'full' })
    assert.equal(owner.state.get('a'), undefined)
    assert.equal(log.commit(owner, put(['b', '1'])).status, 'durable')
    assert.equal(log.declare([TOPIC])[0]?.head, 0)
  })

  test('trims whole batches below an offset, but never the newest', () => {
    const log = openMemoryLog()
    const owner = log.own()
    for (let i = 0; i < 4; i++) log.commit(owner, { ...NOTHING, outputs: [batchAt(i * 10, 10)] })
    log.trim(1, 0, 19)
    assert.equal(log.declare([TOPIC])[0]?.earliest, 10)
    log.trim(1, 0, 1_000)
    const [extent] = log.declare([TOPIC])
    assert.deepEqual([extent?.earliest, extent?.head], [30, 40])
    log.trim(2, 0, 5)
  })

  test('reads at least one batch, and about as many bytes as asked', () => {
    const log = openMemoryLog()
    const owner = log.own()
    for (let i = 0; i < 10; i++) log.commit(owner, { ...NOTHING, outputs: [batchAt(i * 10, 10)] })
    const { byteLength } = batchAt(0, 10).bytes
    assert.equal(log.read(1, 0, 5, 1).length, 1)
    assert.equal(log.read(1, 0, 5, byteLength * 3).length, 3)
    assert.equal(log.read(1, 0, 95, 1e9).length, 1)
    assert.equal(log.read(1, 0, 100, 1e9).length, 0)
    assert.equal(log.read(7, 0, 0, 1e9).length, 0)
  })

  test('a flipped bit is an error, never data (P13)', () => {
    const log = openMemoryLog()
    const owner = log.own()
    const batch = batchAt(0, 3)
    log.commit(owner, { ...NOTHING, outputs: [batch] })
    batch.bytes[30] = (batch.bytes[30] as number) ^ 4
    assert.throws(() => log.read(1, 0, 0, 100), { code: 'CORRUPT' })
  })

  test('places are contiguous: a batch elsewhere is a bug', () => {
    const log = openMemoryLog()
    const owner = log.own()
    log.commit(owner, { ...NOTHING, outputs: [batchAt(0, 3)] })
    assert.throws(() => log.commit(owner, { ...NOTHING, outputs: [batchAt(4, 1)] }), /contiguous/)
  })
})

describe('its state', () => {
  test('is a map whose keys are in order, however it came about', async () => {
    for (let seed = 1; seed <= 5; seed++) {
      const random = createRandom(seed)
      const medium = new MemoryMedium()
      const log = openMemoryLog(medium)
      const owner = log.own()
      const plain = new Map<string, string>()
      for (let i = 0; i < 60; i++) {
        const changes = Array.from({ length: 1 + Math.floor(random() * 80) }, (): [string, string | null] => {
          const key = `k/${Math.floor(random() * 1_500)
            .toString(16)
            .padStart(3, '0')}`
          return [key, random() < (i % 20 < 12 ? 0.2 : 0.9) ? null : `${i}`]
        })
        log.commit(owner, put(...changes))
        for (const [key, value] of changes) {
          if (value === null) plain.delete(key)
          else plain.set(key, value)
        }
        const keys = [...plain.keys()].sort()
        const from = `k/${Math.floor(random() * 1_500)
          .toString(16)
          .padStart(3, '0')}`
        const to = `k/${Math.floor(random() * 1_500)
          .toString(16)
          .padStart(3, '0')}`
        const limit = Math.floor(random() * 30)
        const expected = keys.filter((key) => key >= from && key < to).slice(0, limit)
        assert.deepEqual(
          owner.state.range(from, to, limit).map(([key]) => key),
          expected,
          `seed ${seed}`,
        )
        assert.deepEqual(
          textOf(owner.state.range('', '\x7f', 10_000)),
          keys.map((key) => `${key}=${plain.get(key)}`),
        )
      }
      const copied = []
      for await (const entry of log.changes(owner)) copied.push(entry)
      assert.deepEqual(textOf(copied), textOf(openMemoryLog(medium).own().state.range('', '\x7f', 10_000)))
    }
  })
})
