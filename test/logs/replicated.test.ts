/** The log over a journal: what it keeps, gives back, sweeps and refuses. */
import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type ErrorCode, isSluiceError } from '../../src/errors.ts'
import { createRandom } from '../../src/host/host.ts'
import type { Grant } from '../../src/journals/contract.ts'
import { MemoryBroker, type MemoryJournal, openMemoryJournal } from '../../src/journals/memory.ts'
import type { Ownership, StoredBatch } from '../../src/logs/contract.ts'
import { encodeEntry } from '../../src/logs/replicated/entry.ts'
import { openReplicatedLog, type ReplicatedLog } from '../../src/logs/replicated.ts'
import { BatchBuilder, BatchView } from '../../src/message-batch.ts'

const SEED = Number(process.env['SLUICE_SEED'] ?? Date.now() % 1_000_000)
const NEVER = new AbortController().signal

interface Owned {
  readonly journal: MemoryJournal
  readonly grant: Grant
  readonly log: ReplicatedLog
  readonly ownership: Ownership
}

async function own(broker: MemoryBroker, options: { sweepBytes?: number; engineId?: string } = {}): Promise<Owned> {
  const journal = openMemoryJournal(broker)
  const grant = await journal.own(NEVER)
  const log = openReplicatedLog(journal, grant, { stateDir: null, engineId: null, ...options })
  return { journal, grant, log, ownership: await log.own() }
}

async function leave({ journal, log }: Owned): Promise<void> {
  log.close()
  await journal.close()
}

function batchOf(...payloads: readonly string[]): Uint8Array {
  const builder = new BatchBuilder()
  for (const payload of payloads) builder.add({ payload: JSON.stringify(payload) })
  return builder.finish()
}

/** A batch at the end of topic 1, which has been declared. */
function next({ log }: Owned, ...payloads: readonly string[]): StoredBatch {
  const [extent] = log.declare([{ id: 1, name: 'one', partitions: 1 }])
  ok(extent)
  return {
    topic: 1,
    partition: 0,
    baseOffset: extent.head,
    count: payloads.length,
    timestampMs: 1_000,
    startBytes: extent.headBytes,
    bytes: batchOf(...payloads),
  }
}

const commit = (owned: Owned, outputs: readonly StoredBatch[], changes: Readonly<Record<string, string | null>> = {}) =>
  owned.log.commit(owned.ownership, {
    outputs,
    changes: new Map(Object.entries(changes).map(([key, value]) => [key, value === null ? null : Buffer.from(value)])),
  })

const stateOf = ({ ownership }: Owned) =>
  Object.fromEntries(
    ownership.state.range('', '\x7f', 10_000).map(([key, value]) => [key, Buffer.from(value).toString()]),
  )

const read = ({ log }: Owned, from = 0) => {
  const [extent] = log.declare([{ id: 1, name: 'one', partitions: 1 }])
  const found: string[] = []
  let offset = Math.max(from, extent?.earliest ?? 0)
  while (offset < (extent?.head ?? 0)) {
    for (const batch of log.read(1, 0, offset, 1)) {
      const view = new BatchView(batch.bytes)
      for (let i = offset - batch.baseOffset; i < batch.count; i++) found.push(view.payloadText(i))
      offset = batch.baseOffset + batch.count
    }
  }
  return found.map((text) => JSON.parse(text) as string)
}

function flip(bytes: Uint8Array): void {
  bytes[60] = (bytes[60] as number) ^ 1
}

/** Opens after a change to what the broker keeps. */
const refused = (broker: MemoryBroker, code: ErrorCode) =>
  rejects(own(broker), (error) => {
    equal(isSluiceError(error) && error.code, code, String(error))
    return true
  })

describe('the log over a journal', () => {
  test('the next owner finds every message and every key that was committed, under a later epoch', async () => {
    const broker = new MemoryBroker('os')
    const first = await own(broker)
    equal((await commit(first, [next(first, 'a', 'b')], { x: '1', y: '2' })).status, 'durable')
    equal((await commit(first, [next(first, 'c')], { x: '3', y: null })).status, 'durable')
    await leave(first)
    const second = await own(broker)
    ok(second.ownership.epoch > first.ownership.epoch)
    equal(second.log.engineId, first.log.engineId)
    deepEqual(stateOf(second), { x: '3' })
    deepEqual(read(second), ['a', 'b', 'c'])
    equal((await commit(second, [next(second, 'd')])).status, 'durable')
    deepEqual(read(second), ['a', 'b', 'c', 'd'])
    await leave(second)
  })

  test('a commit of several entries that was cut off in the middle is none', async () => {
    const broker = new MemoryBroker('os', 256)
    const first = await own(broker)
    equal((await commit(first, [next(first, 'x'.repeat(2_000))], { kept: '1' })).status, 'durable')
    broker.breakNext = 'half'
    await rejects(commit(first, [next(first, 'y'.repeat(2_000))], { kept: '2' }), (error) =>
      isSluiceError(error, 'UNKNOWN'),
    )
    first.log.close()
    const second = await own(broker)
    deepEqual([stateOf(second), read(second).length], [{ kept: '1' }, 1])
    equal((await commit(second, [next(second, 'z')], { kept: '3' })).status, 'durable')
    await leave(second)
    const third = await own(broker)
    deepEqual([stateOf(third), read(third).length], [{ kept: '3' }, 2])
    await leave(third)
  })

  test('an owner that was replaced without noticing commits nothing that counts', async () => {
    const broker = new MemoryBroker('os')
    const first = await own(broker)
    await commit(first, [], { x: '1' })
    first.journal.breakOff(null)
    const second = await own(broker)
    equal((await commit(first, [], { x: 'stale' })).status, 'lost')
    equal(first.log.signal.aborted, true)
    await commit(second, [], { y: '2' })
    deepEqual(stateOf(second), { x: '1', y: '2' })
    await leave(first)
    await leave(second)
    const third = await own(broker)
    deepEqual(stateOf(third), { x: '1', y: '2' })
    await leave(third)
  })

  test('entries that an earlier owner left behind a later claim are overlooked', async () => {
    const broker = new MemoryBroker('os')
    const first = await own(broker)
    await commit(first, [], { x: '1' })
    await leave(first)
    const second = await own(broker)
    const stale = {
      epoch: first.ownership.epoch,
      number: 99,
      engineId: first.log.engineId,
      kind: 'last',
      part: 0,
    } as const
    broker.keep(first.ownership.epoch, encodeEntry({ ...stale, body: Buffer.from('anything') }))
    await commit(second, [], { y: '2' })
    await leave(second)
    const third = await own(broker)
    deepEqual(stateOf(third), { x: '1', y: '2' })
    await leave(third)
  })

  test('the journal stays within three times what is alive, and nothing that is alive is ever lost, over owners that come and go', async (t) => {
    t.diagnostic(`SLUICE_SEED=${SEED}`)
    const random = createRandom(SEED)
    const broker = new MemoryBroker('os', 1_024)
    const state = new Map<string, string>()
    let messages: string[] = []
    let trimmed = 0
    for (let life = 0; life < 8; life++) {
      const owned = await own(broker, { sweepBytes: 20_000 })
      deepEqual(
        stateOf(owned),
        Object.fromEntries([...state].sort(([a], [b]) => (a < b ? -1 : 1))),
        `SLUICE_SEED=${SEED}`,
      )
      deepEqual(read(owned, trimmed), messages.slice(trimmed), `SLUICE_SEED=${SEED}`)
      for (let n = 0; n < 150; n++) {
        const changes: Record<string, string | null> = {}
        for (let i = 0; i < 4; i++) {
          const key = `k${Math.floor(random() * 60)}`
          const value = random() < 0.2 ? null : `${life}.${n}.${'v'.repeat(random() * 100)}`
          changes[key] = value
          if (value === null) state.delete(key)
          else state.set(key, value)
        }
        const payloads = random() < 0.7 ? [`${life}.${n}`, 'p'.repeat(random() * 300)] : []
        equal((await commit(owned, payloads.length > 0 ? [next(owned, ...payloads)] : [], changes)).status, 'durable')
        messages = messages.concat(payloads)
        if (random() < 0.1 && messages.length - trimmed > 20) {
          trimmed = messages.length - 20
          owned.log.trim(1, 0, trimmed)
        }
      }
      const bytes = broker.entries.reduce((sum, entry) => sum + entry.bytes.byteLength, 0)
      ok(bytes < 80_000, `${bytes} bytes are kept, SLUICE_SEED=${SEED}`)
      if (random() < 0.5) await leave(owned)
      else {
        // It dies in a commit: whether that counts is for the next one to find out.
        broker.breakNext = 'lost'
        await rejects(commit(owned, [], { dying: '1' }))
        owned.log.close()
      }
    }
  })

  for (const [what, damage] of [
    ['a flipped byte', (entries) => flip(entries[4]?.bytes as Uint8Array)],
    ['an entry that is missing between two others', (entries) => entries.splice(4, 1)],
    ['a beginning that somebody has cut off', (entries) => entries.splice(0, 4)],
    [
      'an entry of somebody else',
      (entries) => entries.splice(4, 0, { place: 'x', epoch: 1, bytes: Buffer.from('hello') }),
    ],
  ] as [string, (entries: { place: string; epoch: number; bytes: Uint8Array }[]) => unknown][]) {
    test(`${what} is found at the take-over, and nothing is served (P13)`, async () => {
      const broker = new MemoryBroker('os')
      const first = await own(broker)
      for (let i = 0; i < 6; i++) await commit(first, [next(first, `${i}`)], { [`k${i}`]: 'x'.repeat(50) })
      await leave(first)
      const before = broker.entries.length
      damage(broker.entries)
      await refused(broker, 'CORRUPT')
      ok(broker.entries.length >= before - 4, 'nothing is cleaned up')
    })
  }

  test('an entry of a newer format is refused as such', async () => {
    const broker = new MemoryBroker('os')
    const first = await own(broker)
    await commit(first, [], { x: '1' })
    await leave(first)
    const bytes = broker.entries[2]?.bytes as Uint8Array
    bytes[3] = 2
    await refused(broker, 'FORMAT_NEWER')
  })

  test('a broker that came back empty, or with the data of another, is an error for who worked on it before', async () => {
    const broker = new MemoryBroker('os')
    const first = await own(broker)
    await commit(first, [], { x: '1' })
    await leave(first)
    broker.entries.length = 0
    await rejects(own(broker, { engineId: first.log.engineId }), (error) => isSluiceError(error, 'ENGINE_CHANGED'))
  })

  test('a broker without room refuses messages at once, and settling waits for room', async () => {
    const broker = new MemoryBroker('os')
    const owned = await own(broker)
    broker.fullReason = 'out of memory'
    equal((await commit(owned, [next(owned, 'a')])).status, 'full')
    const settling = commit(owned, [], { settled: '1' })
    broker.fullReason = null
    equal((await settling).status, 'durable')
    equal((await commit(owned, [next(owned, 'a')])).status, 'durable')
    await leave(owned)
  })

  test('a journal that cannot be cut off now is written on, and cut off later', async () => {
    const broker = new MemoryBroker('os')
    const owned = await own(broker, { sweepBytes: 10_000 })
    const { journal } = owned
    const truncate = journal.truncate.bind(journal)
    let refusals = 0
    journal.truncate = async (...given) => {
      if (++refusals < 3) throw new Error('The disk is full.')
      return truncate(...given)
    }
    for (let i = 0; refusals < 4; i++) {
      ok(i < 2_000, 'it is swept again and again')
      equal((await commit(owned, [], { key: 'x'.repeat(1_000) })).status, 'durable')
    }
    ok(broker.entries.length < 100, `${broker.entries.length} entries are left`)
    await leave(owned)
  })

  test('how far members were heard takes a bounded room, and what had to go is not taken for never heard', async () => {
    const broker = new MemoryBroker('os')
    const first = await own(broker, { sweepBytes: 50_000 })
    first.log.noteHeard('early', 7)
    for (let i = 0; i < 3_000; i++) {
      first.log.noteHeard(`member-${i}`, 1)
      if (i % 100 === 0) await commit(first, [], { key: 'x'.repeat(1_000) })
    }
    await commit(first, [], { last: '1' })
    await leave(first)
    const second = await own(broker)
    const { since, turns } = second.log.heardBefore()
    ok(Object.keys(turns).length <= 2_048)
    equal(turns['early'], undefined)
    equal(since, first.grant.epoch + 1)
    // A later owner knows it as well, though the beginning is cut off by then.
    second.log.noteHeard('another', 3)
    await commit(second, [], { last: '2' })
    await leave(second)
    const third = await own(broker)
    equal(third.log.heardBefore().since, first.grant.epoch + 1)
    equal(third.log.heardBefore().turns['another'], 3)
    await leave(third)
  })

  test('members that stop leave nothing behind', async () => {
    const broker = new MemoryBroker('os')
    const first = await own(broker)
    for (let i = 0; i < 3_000; i++) {
      first.log.noteHeard(`member-${i}`, 1)
      if (i % 100 === 0) await commit(first, [], { key: `${i}` })
      first.log.forgetHeard(`member-${i}`)
    }
    first.log.noteHeard('one that stays', 2)
    await commit(first, [], { last: '1' })
    await leave(first)
    const second = await own(broker)
    const { since, turns } = second.log.heardBefore()
    equal(turns['one that stays'], 2)
    ok(Object.keys(turns).length < 40)
    ok(since <= first.grant.epoch)
    await leave(second)
  })
})
