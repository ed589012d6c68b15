import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import { crc32 } from 'node:zlib'
import { createRandom } from '../src/host/host.ts'
import {
  BatchBuilder,
  BatchView,
  findBatchDamage,
  gatherBatch,
  type Headers,
  laneOfKey,
  MAX_BATCH_MESSAGES,
  MAX_HEADER_BYTES,
  MAX_KEY_BYTES,
  type MessageFields,
} from '../src/message-batch.ts'

const EDGE_TEXTS = ['', 'a', 'é', '漢字', '😀', '\0', 'x'.repeat(5_000), '"\\"', '\u{10ffff}']
const ENTRY_BYTES = 24
/** The lanes of some keys in format version 1. */
const LANES = [2029232479575493, 7047813230504236, 6630604844608958, 5537588260817654, 8320506112623800]

function randomMessage(random: () => number): MessageFields & { payload: string | Uint8Array } {
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T
  const text = pick(EDGE_TEXTS)
  const message: { -readonly [K in keyof MessageFields]: MessageFields[K] } = {
    payload: random() < 0.7 ? text : Uint8Array.from({ length: Math.floor(random() * 40) }, () => random() * 256),
    priority: Math.floor(random() * 3),
  }
  if (random() < 0.5) message.key = pick([...EDGE_TEXTS.filter((one) => one.length < 100), 'k'.repeat(MAX_KEY_BYTES)])
  if (random() < 0.4)
    message.headers = pick<Headers>([
      {},
      { a: 'b' },
      { 漢: '😀', __proto__x: '' },
      { long: 'v'.repeat(MAX_HEADER_BYTES - 100) },
    ])
  if (random() < 0.3) message.deadlineMs = Math.floor(random() * 2e12)
  return message
}

function check(view: BatchView, index: number, message: MessageFields): void {
  const { payload, key, headers, priority = 1, deadlineMs = 0 } = message
  const bytes = typeof payload === 'string' ? Buffer.from(payload) : payload
  assert.deepEqual(Buffer.from(view.payload(index)), Buffer.from(bytes))
  assert.equal(view.payloadText(index), Buffer.from(bytes).toString())
  assert.deepEqual([view.key(index), view.priority(index), view.deadlineMs(index)], [key, priority, deadlineMs])
  assert.deepEqual(view.headers(index), headers)
  assert.equal(view.isBytes(index), message.isBytes ?? typeof payload !== 'string')
  assert.equal(view.lane(index), key === undefined ? 0 : laneOfKey(key))
  const headBytes =
    key === undefined && headers === undefined
      ? 0
      : 2 + Buffer.byteLength(key ?? '') + (headers === undefined ? 0 : Buffer.byteLength(JSON.stringify(headers)))
  assert.equal(view.size(index), bytes.byteLength + headBytes + ENTRY_BYTES)
}

function build(messages: readonly MessageFields[], builder = new BatchBuilder()): Uint8Array<ArrayBuffer> {
  for (const message of messages) builder.add(message)
  const length = builder.byteLength
  const bytes = builder.finish()
  assert.equal(bytes.byteLength, length)
  return bytes
}

describe('a batch', () => {
  test('gives back every message as it was put in, and has no damage', () => {
    const builder = new BatchBuilder()
    for (let seed = 1; seed <= 60; seed++) {
      const random = createRandom(seed)
      const messages = Array.from({ length: 1 + Math.floor(random() * (seed % 10 === 0 ? 600 : 12)) }, () =>
        randomMessage(random),
      )
      const bytes = build(messages, builder)
      assert.equal(findBatchDamage(bytes), null, `seed ${seed}`)
      const view = new BatchView(bytes)
      assert.equal(view.count, messages.length)
      for (const [i, message] of messages.entries()) check(view, i, message)
      assert.equal(
        messages.reduce((sum, _, i) => sum + view.size(i), 0),
        bytes.byteLength - 16,
      )
    }
  })

  test('runs of several batches make a new one, in their order', () => {
    for (let seed = 1; seed <= 60; seed++) {
      const random = createRandom(seed)
      const sources = Array.from({ length: 3 }, () =>
        Array.from({ length: 1 + Math.floor(random() * 20) }, () => randomMessage(random)),
      )
      const views = sources.map((messages) => new BatchView(build(messages)))
      const runs = Array.from({ length: 1 + Math.floor(random() * 6) }, () => {
        const source = Math.floor(random() * 3)
        const messages = sources[source] as MessageFields[]
        const from = Math.floor(random() * messages.length)
        return { source, from, to: from + 1 + Math.floor(random() * (messages.length - from)) }
      })
      const expected = runs.flatMap(({ source, from, to }) => (sources[source] as MessageFields[]).slice(from, to))
      const given = runs.map(({ source, from, to }) => ({ batch: views[source] as BatchView, from, to }))
      const bytes = gatherBatch(given)
      assert.equal(findBatchDamage(bytes), null)
      const view = new BatchView(bytes)
      for (const [i, message] of expected.entries()) check(view, i, message)
      const unsealed = new BatchView(gatherBatch(given, false))
      for (const [i, message] of expected.entries()) check(unsealed, i, message)
      assert.match(findBatchDamage(unsealed.bytes) ?? '', /checksum/)
    }
  })

  test('can lie anywhere in a buffer', () => {
    const bytes = build([{ payload: '"a"', key: 'k', headers: { h: '1' } }, { payload: '2' }])
    const padded = new Uint8Array(bytes.byteLength + 7)
    padded.set(bytes, 3)
    const inside = padded.subarray(3, 3 + bytes.byteLength)
    assert.equal(findBatchDamage(inside), null)
    const view = new BatchView(inside)
    assert.deepEqual([view.key(0), view.headers(0), view.payloadText(1)], ['k', { h: '1' }, '2'])
    assert.equal(new BatchView(gatherBatch([{ batch: view, from: 1, to: 2 }])).payloadText(0), '2')
  })

  test('the bytes are the only thing in their buffer, so that they can be moved to another thread', () => {
    const bytes = build([{ payload: '1' }])
    assert.deepEqual([bytes.byteOffset, bytes.buffer.byteLength], [0, bytes.byteLength])
  })

  test('holds as many messages as it may', () => {
    const builder = new BatchBuilder()
    for (let i = 0; i < MAX_BATCH_MESSAGES; i++) builder.add({ payload: `${i}` })
    const bytes = builder.finish()
    assert.equal(findBatchDamage(bytes), null)
    assert.equal(new BatchView(bytes).payloadText(MAX_BATCH_MESSAGES - 1), `${MAX_BATCH_MESSAGES - 1}`)
    assert.equal(builder.count, 0)
  })
})

describe('damage (P13)', () => {
  const messages = [
    { payload: '"one"', key: 'k' },
    { payload: 'x'.repeat(30), headers: { a: 'b' }, deadlineMs: 5 },
    { payload: new Uint8Array([1, 2, 3]), priority: 2 },
  ]

  test('every flipped bit is found', () => {
    const bytes = build(messages)
    for (let bit = 0; bit < bytes.byteLength * 8; bit++) {
      const damaged = bytes.slice()
      damaged[bit >>> 3] = (damaged[bit >>> 3] as number) ^ (1 << (bit & 7))
      assert.notEqual(findBatchDamage(damaged), null, `bit ${bit}`)
    }
  })

  test('every cut and every addition is found', () => {
    const bytes = build(messages)
    for (let length = 0; length < bytes.byteLength; length++)
      assert.notEqual(findBatchDamage(bytes.subarray(0, length)), null)
    const longer = new Uint8Array(bytes.byteLength + 1)
    longer.set(bytes)
    assert.notEqual(findBatchDamage(longer), null)
  })

  test('a batch that is malformed under a good checksum is found, and nothing is read past its end', () => {
    const random = createRandom(11)
    for (let i = 0; i < 3_000; i++) {
      const bytes = build(messages)
      const at = 8 + Math.floor(random() * (bytes.byteLength - 8))
      bytes[at] = Math.floor(random() * 256)
      if (random() < 0.5) bytes[8 + Math.floor(random() * 90)] = Math.floor(random() * 256)
      new DataView(bytes.buffer).setUint32(4, crc32(bytes.subarray(8)), true)
      if (findBatchDamage(bytes) !== null) continue
      const view = new BatchView(bytes)
      for (let index = 0; index < view.count; index++) {
        assert.ok(view.size(index) >= ENTRY_BYTES)
        assert.ok(view.payload(index).byteLength <= bytes.byteLength)
        view.key(index)
      }
      gatherBatch([{ batch: view, from: 0, to: view.count }])
    }
  })

  test('an empty batch is none', () => {
    assert.notEqual(findBatchDamage(new BatchBuilder().finish()), null)
    assert.notEqual(findBatchDamage(new Uint8Array(0)), null)
  })
})

describe('the lane of a key', () => {
  test('never changes: it is stored', () => {
    const lanes = ['', 'a', 'customer-42', '漢字', '😀'].map(laneOfKey)
    assert.deepEqual(lanes, LANES)
  })

  test('is a safe integer, never 0, and apart for a million keys', () => {
    const seen = new Set<number>()
    for (let i = 0; i < 1_000_000; i++) {
      const lane = laneOfKey(`key-${i}`)
      if (!Number.isSafeInteger(lane) || lane <= 0) assert.fail(`${lane}`)
      seen.add(lane)
    }
    assert.ok(seen.size >= 999_999, `${seen.size} lanes`)
  })
})
