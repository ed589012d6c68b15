/** What callers hear when an owner goes in bad order, takes members for dead, or cannot be reached: nothing twice, nothing for ever. */
import { equal, ok, rejects } from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { openJournalEngine } from '../../../src/broker/local-engine.ts'
import { isSluiceError, SluiceError } from '../../../src/errors.ts'
import { type Host, realHost } from '../../../src/host/host.ts'
import { MemoryBroker, type MemoryJournal, openMemoryJournal } from '../../../src/journals/memory.ts'
import { createSluice, type Sluice } from '../../../src/sluice.ts'
import { FakeHost, settled } from '../../support/fake-host.ts'

interface Process {
  readonly sluice: Sluice
  readonly journal: MemoryJournal
}

async function start(t: TestContext, broker: MemoryBroker, host: Host = realHost): Promise<Process> {
  const journal = openMemoryJournal(broker)
  const sluice = createSluice(await openJournalEngine(journal, { host }), { onError: () => {} }, { holder: 'token' })
  t.after(async () => {
    const closing = sluice.close({ drainMs: 0 })
    if (host instanceof FakeHost) await settled().then(() => host.advance(2_000))
    await closing
  })
  return { sluice, journal }
}

async function headOf(sluice: Sluice): Promise<number | undefined> {
  const { topics } = await sluice.stats()
  return topics.find(({ name }) => name === 'work')?.head
}

/** Its appends wait until it is opened. */
function gate(journal: MemoryJournal): { readonly reached: Promise<void>; open(): void } {
  const { promise: reached, resolve: reach } = Promise.withResolvers<void>()
  const { promise: opened, resolve: open } = Promise.withResolvers<void>()
  const append = journal.append.bind(journal)
  journal.append = async (...given) => {
    reach()
    await opened
    return append(...given)
  }
  return { reached, open }
}

const isUnknown = (error: unknown) => isSluiceError(error, 'UNKNOWN')

describe('doubt', () => {
  test('an owner that another one has followed, and that hears nothing of it, answers nothing that is older (P6)', async (t) => {
    const broker = new MemoryBroker()
    const [old, next] = [await start(t, broker), await start(t, broker)]
    await old.sluice.queue<number>('work').add(1)
    equal(await headOf(old.sluice), 1)
    broker.losesLetter = () => true
    old.journal.breakOff(null)
    await next.sluice.queue<number>('work').add(2)
    broker.losesLetter = () => false
    equal(await headOf(old.sluice), 2)
  })

  test('what an owner that stops committed without hearing of it is not asked again as if it had not been', async (t) => {
    const broker = new MemoryBroker()
    const [owner, other, member] = [await start(t, broker), await start(t, broker), await start(t, broker)]
    await member.sluice.queue('work').declare()
    const held = gate(owner.journal)
    const refused = rejects(member.sluice.queue<number>('work').add(1), isUnknown)
    await held.reached
    const closing = owner.sluice.close({ drainMs: 0 })
    await settled()
    broker.breakNext = 'kept'
    held.open()
    await Promise.all([refused, closing])
    equal(await headOf(other.sluice), 1)
  })

  test('a member that was silent, and taken for dead, is not told that what it asked had no effect', async (t) => {
    const broker = new MemoryBroker()
    const host = new FakeHost()
    const owner = await start(t, broker, host)
    const member = await start(t, broker)
    await member.sluice.queue('work').declare()
    const held = gate(owner.journal)
    const refused = rejects(member.sluice.queue<number>('work').add(1), isUnknown)
    await held.reached
    // The answer is lost, and so is whatever the member says after it.
    broker.losesLetter = () => true
    held.open()
    await settled()
    await host.advance(20_000)
    broker.losesLetter = () => false
    const closing = owner.sluice.close({ drainMs: 0 })
    await settled()
    await host.advance(2_000)
    await Promise.all([refused, closing])
    equal(await headOf(member.sluice), 1)
  })

  test('a member that was taken for dead asks again what came too late, without a doubt', async (t) => {
    const broker = new MemoryBroker()
    const host = new FakeHost()
    await start(t, broker, host)
    const member = await start(t, broker)
    const queue = member.sluice.queue<number>('work')
    await queue.declare()
    const stop = new AbortController()
    const waiting = member.sluice.engine
      .lease(
        { topic: 'work', group: '', max: 1, leaseMs: 1_000, waitMs: 25_000, holder: { kind: 'token', token: 'one' } },
        stop.signal,
      )
      .catch(() => {})
    await settled()
    await host.advance(20_000)
    const job = await queue.add(1)
    equal((await job.status()).id, job.id)
    stop.abort()
    await waiting
    equal(await headOf(member.sluice), 1)
  })

  test('a member that has nothing to ask for minutes adds without a doubt', async (t) => {
    const broker = new MemoryBroker()
    const host = new FakeHost()
    await start(t, broker, host)
    const member = await start(t, broker)
    const queue = member.sluice.queue<number>('work')
    await queue.declare()
    await host.advance(60_000)
    await queue.add(1)
    await host.advance(3_600_000)
    await queue.add(2)
    equal(await headOf(member.sluice), 2)
  })

  test('a member that left is written to no more', async (t) => {
    const broker = new MemoryBroker()
    const host = new FakeHost()
    await start(t, broker, host)
    const member = await start(t, broker)
    await member.sluice.queue('work').declare()
    void member.sluice.engine
      .lease({
        topic: 'work',
        group: '',
        max: 1,
        leaseMs: 1_000,
        waitMs: 25_000,
        holder: { kind: 'token', token: 'one' },
      })
      .catch(() => {})
    await settled()
    await member.sluice.close({ drainMs: 0 })
    await host.advance(60_000)
    let letters = 0
    broker.losesLetter = () => ++letters < 0
    await host.advance(600_000)
    equal(letters, 0)
  })
})

describe('an end to everything', () => {
  test('a process that stops does not wait for ever for a commit that the broker says nothing of', async (t) => {
    const broker = new MemoryBroker()
    const host = new FakeHost()
    const { sluice, journal } = await start(t, broker, host)
    await sluice.queue('work').declare()
    const held = gate(journal)
    const adding = rejects(sluice.queue<number>('work').add(1), isUnknown)
    await held.reached
    const closing = sluice.engine.close()
    await settled()
    await host.advance(31_000)
    await Promise.all([closing, adding])
    held.open()
    await settled()
  })

  test('opening ends with UNREACHABLE where the broker goes away before letters arrive', async () => {
    const host = new FakeHost()
    const journal = openMemoryJournal(new MemoryBroker())
    journal.openMailbox = () => new Promise(() => {})
    const refused = rejects(openJournalEngine(journal, { host }), (error) => isSluiceError(error, 'UNREACHABLE'))
    await host.advance(31_000)
    await refused
    equal(host.timers, 0)
  })

  test('an owner that does not hear what is for the owner is found all the same', async (t) => {
    const broker = new MemoryBroker()
    await start(t, broker)
    for (const box of broker.boxes) box.isOwner = false
    const host = new FakeHost()
    const opening = start(t, broker, host)
    await host.advance(20_000)
    const { sluice } = await opening
    await sluice.queue<number>('work').add(1)
  })

  test('data of others in the journal stops who meets it, and is not asked for again and again', async (t) => {
    const broker = new MemoryBroker()
    const { sluice, journal } = await start(t, broker)
    await sluice.queue('work').declare()
    let asked = 0
    journal.own = async () => {
      asked++
      throw new SluiceError('FOREIGN_DATA', 'There is something that Sluice did not write.')
    }
    journal.breakOff(new SluiceError('UNREACHABLE', 'The connection broke.'))
    await rejects(sluice.queue<number>('work').add(1), (error) => isSluiceError(error, 'FOREIGN_DATA'))
    equal(asked, 1)
  })

  test('who cannot become the owner tries less and less often, and says why', async (t) => {
    const broker = new MemoryBroker()
    const host = new FakeHost()
    const { sluice, journal } = await start(t, broker, host)
    let asked = 0
    journal.own = async () => {
      asked++
      throw new SluiceError('UNREACHABLE', 'The broker has no room for a claim.')
    }
    journal.breakOff(new SluiceError('UNREACHABLE', 'The connection broke.'))
    const saysWhy = (error: unknown) =>
      isSluiceError(error, 'UNREACHABLE') && error.message.includes('no room for a claim')
    const refused = rejects(sluice.queue<number>('work').add(1), saysWhy)
    await host.advance(300_000)
    await refused
    ok(asked > 20 && asked < 120, `${asked} attempts within 5 minutes`)
  })
})
