/** The cache of a journal, which writes a commit only when the thread comes to rest or somebody reads. */
import { deepEqual, equal, ok, throws } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { createRandom } from '../../src/host/host.ts'
import type { StoredBatch } from '../../src/logs/contract.ts'
import { Cache } from '../../src/logs/replicated/cache.ts'
import { BatchBuilder } from '../../src/message-batch.ts'

const SEED = Number(process.env['SLUICE_SEED'] ?? Date.now() % 1_000_000)
const TOPIC = { id: 1, name: 'one', partitions: 1 }

function openCache(): Cache {
  const cache = new Cache(null)
  cache.endFilling()
  cache.declare(TOPIC)
  return cache
}

function batch(text: string, baseOffset: number, startBytes: number): StoredBatch {
  const builder = new BatchBuilder()
  builder.add({ payload: JSON.stringify(text) })
  return { topic: 1, partition: 0, baseOffset, count: 1, timestampMs: 1_000, startBytes, bytes: builder.finish() }
}

/** The next batch of the topic, without a look into the cache, which would make it write. */
class Head {
  #offset = 0
  #bytes = 0

  next(text: string): StoredBatch {
    const made = batch(text, this.#offset, this.#bytes)
    this.#offset++
    this.#bytes += made.bytes.byteLength - 16
    return made
  }
}

describe('the cache of a journal', () => {
  test('what was put is read at once, whether it was written or not', () => {
    const cache = openCache()
    const head = new Head()
    cache.put([head.next('a')], new Map([['x', Buffer.from('1')]]))
    equal(Buffer.from(cache.state.get('x') ?? []).toString(), '1')
    cache.put([head.next('b')], new Map([['x', null]]))
    equal(cache.read(1, 0, 1_000_000).length, 2)
    cache.put([], new Map([['y', Buffer.from('2')]]))
    deepEqual(
      cache.state.range('', '\x7f', 10).map(([key]) => key),
      ['y'],
    )
    cache.put([head.next('c')], new Map())
    equal(cache.declare(TOPIC).head, 3)
    cache.close()
  })

  test(`putting, trimming and reading in any order shows the same as a cache that writes at once (seed ${SEED})`, () => {
    const random = createRandom(SEED)
    const [late, prompt] = [openCache(), openCache()]
    const head = new Head()
    let count = 0
    const bigText = 'x'.repeat(20_000)
    for (let step = 0; step < 600; step++) {
      const what = random()
      if (what < 0.5) {
        const batches = random() < 0.8 ? [head.next(`${step} ${bigText}`)] : []
        count += batches.length
        const changes = new Map([[`k${step % 7}`, random() < 0.3 ? null : Buffer.from(String(step))]])
        late.put(batches, changes)
        prompt.put(batches, changes)
        prompt.catchUp()
      } else if (what < 0.7) {
        const offset = Math.floor(random() * (count + 1))
        equal(late.trim(1, offset), prompt.trim(1, offset))
      } else if (what < 0.8) late.catchUp()
      else if (what < 0.9) {
        deepEqual(late.declare(TOPIC), prompt.declare(TOPIC))
        const { earliest } = prompt.declare(TOPIC)
        if (count > earliest) deepEqual(late.read(1, earliest, 1_000_000), prompt.read(1, earliest, 1_000_000))
      } else deepEqual(late.state.range('', '\x7f', 100), prompt.state.range('', '\x7f', 100))
    }
    deepEqual([...late.topics], [...prompt.topics])
    ok(late.declare(TOPIC).earliest > 0, 'something was trimmed')
    late.close()
    prompt.close()
  })

  test('what the next step wants to be trimmed stays until that step is put', () => {
    const cache = openCache()
    const head = new Head()
    for (const text of ['a', 'b', 'c']) cache.put([head.next(text)], new Map())
    cache.trim(1, 3)
    cache.catchUp()
    equal(cache.declare(TOPIC).earliest, 0)
    cache.put([head.next('d')], new Map())
    equal(cache.declare(TOPIC).earliest, 3)
    cache.close()
  })

  test('once writing has failed, whoever reads or puts gets the reason', () => {
    const cache = openCache()
    cache.put([batch('not at the end', 7, 0)], new Map())
    const isTold = (error: unknown) => String(error).includes('goes on at 0, not at 7')
    throws(() => cache.catchUp(), isTold)
    throws(() => cache.state.get('x'), isTold)
    throws(() => cache.put([], new Map()), isTold)
    cache.close()
  })
})
