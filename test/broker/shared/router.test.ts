/** Processes that share one ledger: who owns it, who takes over, and what callers hear of that. */
import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { createAwakeHost } from '../../../src/awake-host.ts'
import { openJournalEngine } from '../../../src/broker/local-engine.ts'
import { decodeLetter, encodeLetter, LETTER_VERSION } from '../../../src/broker/shared/letters.ts'
import { isSluiceError, SluiceError } from '../../../src/errors.ts'
import { RetryLater } from '../../../src/handler-errors.ts'
import { type Host, realHost } from '../../../src/host/host.ts'
import { MemoryBroker, type MemoryJournal, openMemoryJournal } from '../../../src/journals/memory.ts'
import { createSluice, type Sluice } from '../../../src/sluice.ts'
import { FakeHost } from '../../support/fake-host.ts'

interface Process {
  readonly sluice: Sluice
  readonly journal: MemoryJournal
}

/** `aheadMs`: of the clock of its machine, before that of the others. */
async function start(t: TestContext, broker: MemoryBroker, aheadMs = 0): Promise<Process> {
  const journal = openMemoryJournal(broker)
  const host: Host = { ...createAwakeHost(realHost), now: () => realHost.now() + aheadMs }
  const engine = await openJournalEngine(journal, { host })
  const parts = { host, holder: 'token', clockAheadMs: () => engine.clockAheadMs } as const
  const sluice = createSluice(engine, { onError: () => {} }, parts)
  t.after(() => sluice.close({ drainMs: 0 }))
  return { sluice, journal }
}

const BROKEN = new SluiceError('UNREACHABLE', 'The connection broke.')

describe('processes that share a ledger', () => {
  test('a job that one adds is handed out by another, and its result is known to both', async (t) => {
    const broker = new MemoryBroker()
    const [one, two] = [await start(t, broker), await start(t, broker)]
    two.sluice.queue<number, number>('work').work(({ payload }) => payload * 2)
    const job = await one.sluice.queue<number, number>('work').add(21)
    equal(await job.result({ timeoutMs: 10_000 }), 42)
    equal((await (await two.sluice.queue('work').get(job.id)).status()).result, 42)
  })

  test('an owner that stops in good order leaves no call without an answer, keyed or not', async (t) => {
    const broker = new MemoryBroker()
    const [owner, member] = [await start(t, broker), await start(t, broker)]
    const queue = member.sluice.queue<number>('work')
    await queue.declare()
    const adds: Promise<unknown>[] = []
    const closing: Promise<void>[] = []
    for (let n = 0; n < 300; n++) {
      adds.push(queue.add(n))
      if (n % 10 === 0) await new Promise((resolve) => setImmediate(resolve))
      if (n === 150) closing.push(owner.sluice.close())
    }
    await Promise.all([...adds, ...closing])
    const { topics } = await member.sluice.stats()
    equal(topics.find(({ name }) => name === 'work')?.head, 300)
  })

  test('what an owner never committed is asked again of the next one, without a doubt', async (t) => {
    const broker = new MemoryBroker()
    const [, member] = [await start(t, broker), await start(t, broker)]
    const queue = member.sluice.queue<number>('work')
    await queue.declare()
    broker.breakNext = 'lost'
    const job = await queue.add(1)
    equal((await job.status()).status, 'queued')
    const { topics } = await member.sluice.stats()
    equal(topics.find(({ name }) => name === 'work')?.head, 1)
  })

  test('what an owner committed and could not answer is UNKNOWN, and stored once under its key', async (t) => {
    const broker = new MemoryBroker()
    const [, member] = [await start(t, broker), await start(t, broker)]
    const queue = member.sluice.queue<number>('work')
    await queue.declare()
    broker.breakNext = 'kept'
    await rejects(queue.add(1), (error) => isSluiceError(error, 'UNKNOWN'))
    broker.breakNext = 'kept'
    const job = await queue.add(2, { idempotencyKey: 'two' })
    equal((await job.status()).status, 'queued')
    const { topics } = await member.sluice.stats()
    equal(topics.find(({ name }) => name === 'work')?.head, 2)
  })

  test('an owner that lost the data without noticing answers nobody from them, once it has heard', async (t) => {
    const broker = new MemoryBroker()
    const [zombie, member] = [await start(t, broker), await start(t, broker)]
    await zombie.sluice.queue('work').declare()
    zombie.journal.breakOff(null)
    await member.sluice.queue<number>('work').add(1)
    await zombie.sluice.queue<number>('work').add(2)
    for (const { sluice } of [zombie, member]) {
      const { topics } = await sluice.stats()
      equal(topics.find(({ name }) => name === 'work')?.head, 2)
    }
  })

  test('a lease is kept, and its settle counts, over a change of owner', async (t) => {
    const broker = new MemoryBroker()
    const [owner, member] = [await start(t, broker), await start(t, broker)]
    await member.sluice.queue<number>('work').add(7)
    const leased = await member.sluice.engine.lease({
      topic: 'work',
      group: '',
      max: 1,
      leaseMs: 60_000,
      waitMs: 10_000,
      holder: { kind: 'token', token: 'a-token' },
    })
    ok(leased.status === 'leased')
    await owner.sluice.close()
    const { fence, offsets } = leased
    const settle = { topic: 'work', group: '', fence, offsets, token: 'a-token', outcome: { kind: 'done' } } as const
    deepEqual(await member.sluice.engine.settle([settle]), [{ status: 'settled', lost: [], outputs: [] }])
  })

  test('a broker that came back empty stops who worked on it, with ENGINE_CHANGED', async (t) => {
    const broker = new MemoryBroker()
    const { sluice, journal } = await start(t, broker)
    await sluice.queue<number>('work').add(1)
    broker.entries.length = 0
    journal.breakOff(BROKEN)
    await rejects(sluice.queue<number>('work').add(2), (error) => isSluiceError(error, 'ENGINE_CHANGED'))
    equal((await sluice.stats().catch((error: SluiceError) => error.code)) as unknown, 'ENGINE_CHANGED')
  })

  test('damage in the journal stops who takes over, and keeps nobody else from looking', async (t) => {
    const broker = new MemoryBroker()
    const { sluice, journal } = await start(t, broker)
    await sluice.queue<number>('work').add(1)
    const bytes = broker.entries.at(-1)?.bytes as Uint8Array
    bytes[bytes.byteLength - 1] = (bytes.at(-1) as number) ^ 1
    journal.breakOff(BROKEN)
    await rejects(sluice.queue<number>('work').add(2), (error) => isSluiceError(error, 'CORRUPT'))
    await rejects(start(t, broker), (error) => isSluiceError(error, 'CORRUPT'))
  })

  test('a journal in whose place something else has come stops who finds it, with FOREIGN_DATA', async (t) => {
    const broker = new MemoryBroker()
    const { sluice, journal } = await start(t, broker)
    await sluice.queue<number>('work').add(1)
    journal.own = () => Promise.reject(new SluiceError('FOREIGN_DATA', 'A key of that name is a set.'))
    journal.breakOff(BROKEN)
    await rejects(sluice.queue<number>('work').add(2), (error) => isSluiceError(error, 'FOREIGN_DATA'))
    const other = openMemoryJournal(broker)
    other.own = journal.own
    await rejects(openJournalEngine(other), (error) => isSluiceError(error, 'FOREIGN_DATA'))
  })

  test('a process of another version is refused, and told what to do', async () => {
    const broker = new MemoryBroker()
    const other = openMemoryJournal(broker)
    await other.own(new AbortController().signal)
    const mailbox = await other.openMailbox(() => {})
    const opening = openJournalEngine(openMemoryJournal(broker))
    const letter = { kind: 'owner', version: 99, address: 'x', epoch: 1, engineId: 'y' }
    await mailbox.send('all', encodeLetter(letter as never))
    await rejects(opening, (error) => isSluiceError(error, 'UNSUPPORTED') && error.message.includes('same release'))
    await other.close()
  })

  test('an owner answers the hello of another version, so that whoever comes knows why it cannot come in', async (t) => {
    const broker = new MemoryBroker()
    await start(t, broker)
    const other = openMemoryJournal(broker)
    const heard: unknown[] = []
    const mailbox = await other.openMailbox((letter) => heard.push(decodeLetter(letter)?.kind))
    const hello = { kind: 'hello', version: 99, from: mailbox.address, sentAtMs: 0 }
    await mailbox.send('owner', encodeLetter(hello as never))
    await new Promise((resolve) => setTimeout(resolve, 50))
    deepEqual(heard, ['owner'])
    await other.close()
  })

  test('an owner that never answers is UNREACHABLE within the time for opening', async () => {
    const broker = new MemoryBroker()
    const other = openMemoryJournal(broker)
    await other.own(new AbortController().signal)
    const host = new FakeHost()
    const opening = openJournalEngine(openMemoryJournal(broker), { host })
    const refused = rejects(opening, (error) => isSluiceError(error, 'UNREACHABLE'))
    await host.advance(31_000)
    await refused
    await other.close()
  })

  test('letters that lack what belongs to them are overlooked', async (t) => {
    const broker = new MemoryBroker()
    await start(t, broker)
    const heard: (string | undefined)[] = []
    const other = openMemoryJournal(broker)
    const mailbox = await other.openMailbox((letter) => heard.push(decodeLetter(letter)?.kind))
    const head = { version: LETTER_VERSION, epoch: broker.epoch, from: mailbox.address, session: 's' }
    const turns = [undefined, { number: 1, confirms: 0, payload: null }, { number: 1, confirms: 0, payload: [null] }]
    for (const turn of turns) await mailbox.send('owner', encodeLetter({ kind: 'asks', ...head, turn } as never))
    for (const kind of ['leaving', 'owner', 'tells', 'hello'])
      await mailbox.send('owner', encodeLetter({ kind, version: LETTER_VERSION, epoch: broker.epoch } as never))
    await mailbox.send('owner', encodeLetter({ kind: 'hello', ...head, sentAtMs: 0 } as never))
    await new Promise((resolve) => setTimeout(resolve, 50))
    deepEqual(heard, ['owner'])
    await other.close()
  })

  test('bytes that are no letter change nothing', async (t) => {
    const broker = new MemoryBroker()
    const { sluice } = await start(t, broker)
    const other = openMemoryJournal(broker)
    const mailbox = await other.openMailbox(() => {})
    for (const text of ['', 'hello', '{}', 'SLE\u0001\u0000\u0000\u0000\u0000'])
      await mailbox.send('owner', Buffer.from(text))
    const job = await sluice.queue<number>('work').add(1)
    equal((await job.status()).status, 'queued')
    await other.close()
  })
})

const HOUR_MS = 3_600_000

describe('processes on machines whose clocks disagree', () => {
  for (const aheadMs of [HOUR_MS, -HOUR_MS]) {
    const how = `${Math.abs(aheadMs) / HOUR_MS} h ${aheadMs > 0 ? 'ahead' : 'behind'}`

    test(`delays and deadlines of one that is ${how} are told by the clock of the owner (P4)`, async (t) => {
      const broker = new MemoryBroker()
      const [owner, member] = [await start(t, broker), await start(t, broker, aheadMs)]
      const seen: string[] = []
      owner.sluice.queue<string, number>('work', { attempts: 2 }).work(({ payload }, { attempt }) => {
        seen.push(payload)
        return attempt
      })
      const queue = member.sluice.queue<string, number>('work')
      const inTime = await queue.add('in time', { deadlineMs: 60_000 })
      const soon = await queue.add('soon', { delayMs: 50 })
      const later = await queue.add('later', { delayMs: HOUR_MS / 2 })
      equal(await inTime.result({ timeoutMs: 20_000 }), 1)
      equal(await soon.result({ timeoutMs: 20_000 }), 1)
      equal((await later.status()).status, 'scheduled')
      deepEqual(seen.toSorted(), ['in time', 'soon'])
    })

    test(`a handler of one that is ${how} says when to retry, by the clock of the owner`, async (t) => {
      const broker = new MemoryBroker()
      const [owner, member] = [await start(t, broker), await start(t, broker, aheadMs)]
      member.sluice.queue<number, number>('work').work((_job, { attempt }) => {
        if (attempt === 1) throw new RetryLater({ delayMs: 50 })
        return attempt
      })
      const job = await owner.sluice.queue<number, number>('work').add(1)
      equal(await job.result({ timeoutMs: 20_000 }), 2)
    })

    test(`an owner that is ${how} goes on with the clock of the one before: a lease holds, a delay stays`, async (t) => {
      const broker = new MemoryBroker()
      const [owner, next] = [await start(t, broker), await start(t, broker, aheadMs)]
      const member = await start(t, broker)
      const queue = member.sluice.queue<string, string>('work')
      const delayed = await queue.add('delayed', { delayMs: HOUR_MS / 2 })
      const started = Promise.withResolvers<void>()
      const gate = Promise.withResolvers<void>()
      queue.work(async (_job, { attempt }) => {
        started.resolve()
        await gate.promise
        return `attempt ${attempt}`
      })
      const held = await queue.add('held')
      await started.promise
      const before = member.sluice.engineNow()
      await owner.sluice.close()
      // Answered by the next owner.
      equal((await delayed.status()).status, 'scheduled')
      const soon = await next.sluice.queue<string, string>('work').add('soon', { deadlineMs: 60_000, delayMs: 50 })
      gate.resolve()
      equal(await held.result({ timeoutMs: 20_000 }), 'attempt 1')
      equal(await soon.result({ timeoutMs: 20_000 }), 'attempt 1')
      for (const { sluice } of [member, next]) {
        const passed = sluice.engineNow() - before
        ok(passed >= 0 && passed < HOUR_MS / 4, `${passed}`)
      }
    })
  }
})
