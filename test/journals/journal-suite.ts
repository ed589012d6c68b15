/**
 * The suite of the journal contract (src/journals/contract.ts), which every journal passes: one function, a real broker, and
 * the faults that a network and a machine have. What a broker cannot be made to do is skipped with its reason.
 *
 * A test has a namespace of its own. A `process` is one opened journal: to the broker it is a client like any other.
 */
import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { before, describe, type TestContext, test } from 'node:test'
import { type Broker, waitUntil } from '../../scripts/brokers/broker.ts'
import { type ErrorCode, isSluiceError, SluiceError } from '../../src/errors.ts'
import { createRandom } from '../../src/host/host.ts'
import type { Grant, Journal, JournalOptions, Mailbox } from '../../src/journals/contract.ts'
import { openProxy, type Proxy as TcpProxy } from '../support/tcp-proxy.ts'

/** What the suite runs on. */
export interface JournalSubject {
  /** Of the broker; null: there is none, as for the journal in memory. */
  readonly url: URL | null
  /** May be killed and restarted; null: the broker is not ours to break. */
  readonly broker: Broker | null
  open(options: SuiteOptions): Promise<Journal>
  /** Something that is not of Sluice, where the journal of a namespace would be. Absent: there is no such place. */
  occupy?(namespace: string): Promise<void>
}

/** `url`: absent for a subject without one. */
export type SuiteOptions = Pick<JournalOptions, 'namespace' | 'connectMs'> & { readonly url: URL | undefined }

/** Generous: the machine is shared, and a grant is kept for seconds. */
const PATIENT_MS = 90_000

export const within = (ms = PATIENT_MS): AbortSignal => AbortSignal.timeout(ms)

export function isCode(code: ErrorCode): (error: unknown) => boolean {
  return (error) => {
    ok(isSluiceError(error), String(error))
    equal(error.code, code, error.message)
    return true
  }
}

/** Entries with the text first, filled up to a size. */
export function entry(text: string, size = text.length): Buffer {
  const bytes = Buffer.alloc(size, '.')
  bytes.write(text)
  return bytes
}

/** Takes the journal and claims it, as the log above does. */
export async function claim(journal: Journal, text = 'claim'): Promise<Grant> {
  const grant = await journal.own(within())
  const outcome = await journal.append(grant, [entry(text)])
  equal(outcome.status, 'durable')
  return grant
}

export async function readAll(journal: Journal, grant: Grant): Promise<string[]> {
  const texts: string[] = []
  for await (const { bytes } of journal.replay(grant)) texts.push(Buffer.from(bytes).toString('latin1'))
  return texts
}

export async function appendTexts(journal: Journal, grant: Grant, ...texts: readonly string[]): Promise<string[]> {
  const outcome = await journal.append(
    grant,
    texts.map((text) => entry(text)),
  )
  ok(outcome.status === 'durable', JSON.stringify(outcome))
  return [...outcome.places]
}

export async function ended(grant: Grant): Promise<unknown> {
  await waitUntil('the grant has ended', () => grant.signal.aborted, { withinMs: PATIENT_MS })
  return grant.signal.reason
}

/** A process of its own namespace, or of that of another. */
export class Scene {
  readonly namespace = `suite-${randomUUID().slice(0, 8)}`
  readonly #t: TestContext
  readonly #subject: JournalSubject

  constructor(t: TestContext, subject: JournalSubject) {
    this.#t = t
    this.#subject = subject
  }

  async open(options: Partial<SuiteOptions> = {}): Promise<Journal> {
    const { url } = this.#subject
    const journal = await this.#subject.open({
      namespace: this.namespace,
      url: url ?? undefined,
      connectMs: PATIENT_MS,
      ...options,
    })
    this.#t.after(() => journal.close())
    return journal
  }

  /** A process that reaches the broker through a network that can be broken. */
  async openBehind(): Promise<{ journal: Journal; proxy: TcpProxy }> {
    const target = this.#subject.url
    ok(target !== null)
    const proxy = await openProxy(target)
    this.#t.after(() => proxy.close())
    const url = new URL(target)
    url.hostname = '127.0.0.1'
    url.port = new URL(proxy.url).port
    return { journal: await this.open({ url }), proxy }
  }

  async openBox(journal: Journal): Promise<Box> {
    const letters: Buffer[] = []
    const mailbox = await journal.openMailbox((letter) => letters.push(Buffer.from(letter)))
    return { mailbox, letters }
  }
}

interface Box {
  readonly mailbox: Mailbox
  readonly letters: Buffer[]
}

/** Letters are best effort, so one is sent until it has come. */
async function sendUntil(from: Box, to: string, letter: Buffer, boxes: readonly Box[]): Promise<void> {
  await waitUntil(`the letter for ${to} came`, async () => {
    await from.mailbox.send(to, letter)
    await waitUntil('it came', () => boxes.every(hasIt), { withinMs: 1_000 })
    return true
  })
  function hasIt({ letters }: Box): boolean {
    return letters.some((one) => one.equals(letter))
  }
}

export function journalSuite(name: string, start: () => Promise<JournalSubject>, skip: string | false = false): void {
  describe(`the journal contract on ${name}`, { skip }, () => {
    let subject: JournalSubject
    before(async () => {
      subject = await start()
    })
    const scene = (t: TestContext): Scene => new Scene(t, subject)
    const needsNetwork = (t: TestContext): boolean =>
      subject.url !== null || skipTest(t, 'there is no network to break')
    const needsBroker = (t: TestContext): boolean =>
      subject.broker !== null || skipTest(t, 'the broker is not ours to break')

    orderTests(scene)
    ownershipTests(scene)
    letterTests(scene)
    networkTests(scene, needsNetwork)
    openingTests(scene, () => subject, needsNetwork)
    // Last, as they restart the broker.
    brokerTests(scene, () => subject, needsBroker)
  })
}

function skipTest(t: TestContext, reason: string): false {
  t.skip(reason)
  return false
}

type MakeScene = (t: TestContext) => Scene

function orderTests(scene: MakeScene): void {
  test('entries of any size come back byte for byte, in the order of their appends, each at its place', async (t) => {
    const journal = await scene(t).open()
    const grant = await claim(journal)
    const { maxEntryBytes } = journal.abilities
    ok(maxEntryBytes >= 262_144, 'rule of the contract')
    const seed = Math.trunc(Math.random() * 2 ** 31)
    t.diagnostic(`seed ${seed}`)
    const random = createRandom(seed)
    const sizes = [0, 1, 2, 100, 65_535, 65_536, maxEntryBytes]
    const entries = sizes.map((size) => Buffer.from(Array.from({ length: size }, () => random() * 256)))
    const first = await journal.append(grant, entries.slice(0, 3))
    const second = await journal.append(grant, entries.slice(3))
    ok(first.status === 'durable' && second.status === 'durable')
    const read = []
    for await (const one of journal.replay(grant)) read.push(one)
    equal(read.length, entries.length + 1)
    for (const [i, bytes] of entries.entries())
      ok(bytes.equals(read[i + 1]?.bytes ?? Buffer.of()), `entry of ${sizes[i]}`)
    deepEqual(
      read.slice(1).map(({ place }) => place),
      [...first.places, ...second.places],
    )
  })

  test('a replay ends with what was the end when it began, and takes any number of entries', async (t) => {
    const journal = await scene(t).open()
    const grant = await claim(journal)
    for (let i = 0; i < 20; i++) await appendTexts(journal, grant, ...numbered(i * 20, 20))
    const read: string[] = []
    for await (const { bytes } of journal.replay(grant)) {
      if (read.length === 1) await appendTexts(journal, grant, 'later')
      read.push(Buffer.from(bytes).toString())
    }
    deepEqual(read, ['claim', ...numbered(0, 400)])
  })

  test('an append of nothing is durable, and leaves nothing', async (t) => {
    const journal = await scene(t).open()
    const grant = await claim(journal)
    deepEqual(await journal.append(grant, []), { status: 'durable', places: [] })
    deepEqual(await readAll(journal, grant), ['claim'])
  })

  test('truncating keeps the entry at the place and all after it, for this owner and for the next', async (t) => {
    const stage = scene(t)
    const journal = await stage.open()
    const grant = await claim(journal)
    const before = await appendTexts(journal, grant, ...numbered(0, 150))
    const places = [...before, ...(await appendTexts(journal, grant, ...numbered(150, 150)))]
    await journal.truncate(grant, places[290] ?? '')
    await appendTexts(journal, grant, 'after')
    const kept = [...numbered(290, 10), 'after']
    deepEqual((await readAll(journal, grant)).slice(-11), kept)
    await journal.close()
    const next = await stage.open()
    const nextGrant = await claim(next, 'claim of the next')
    deepEqual((await readAll(next, nextGrant)).slice(-12), [...kept, 'claim of the next'])
  })

  test('health is ok, says how much is stored, and names the facts', async (t) => {
    const journal = await scene(t).open()
    const grant = await claim(journal)
    await journal.append(grant, [entry('large', 200_000)])
    const health = await journal.health()
    equal(health.status, 'ok', health.reasons.join())
    deepEqual(health.reasons, [])
    ok(health.storedBytes >= 200_000, `${health.storedBytes}`)
  })
}

function ownershipTests(scene: MakeScene): void {
  test('epochs rise with every grant, over processes', async (t) => {
    const stage = scene(t)
    const epochs: number[] = []
    for (let i = 0; i < 3; i++) {
      const journal = await stage.open()
      epochs.push((await claim(journal)).epoch)
      await journal.close()
    }
    deepEqual(
      epochs,
      epochs.toSorted((a, b) => a - b),
    )
    equal(new Set(epochs).size, 3)
  })

  test('one process at a time has the journal, and the next has it when the first closes', async (t) => {
    const stage = scene(t)
    const [first, second] = [await stage.open(), await stage.open()]
    const grant = await claim(first)
    await appendTexts(first, grant, 'of the first')
    let hasIt = false
    const owning = second.own(within()).then((taken) => {
      hasIt = true
      return taken
    })
    await appendTexts(first, grant, 'still of the first')
    equal(hasIt, false)
    await first.close()
    const taken = await owning
    ok(taken.epoch > grant.epoch)
    ok(isSluiceError(grant.signal.reason, 'CLOSED'))
    await appendTexts(second, taken, 'claim of the second')
    deepEqual(await readAll(second, taken), ['claim', 'of the first', 'still of the first', 'claim of the second'])
  })

  test('who waits for the journal can leave off, with the reason that was given', async (t) => {
    const stage = scene(t)
    const [first, second] = [await stage.open(), await stage.open()]
    await claim(first)
    const leaving = new AbortController()
    const owning = second.own(leaving.signal)
    const reason = new SluiceError('DEADLINE')
    leaving.abort(reason)
    await rejects(owning, (error) => error === reason)
    await rejects(second.own(AbortSignal.abort(reason)), (error) => error === reason)
  })

  test('a process that asks for the journal again has a new grant, and the old one is lost', async (t) => {
    const journal = await scene(t).open()
    const old = await claim(journal)
    const grant = await claim(journal, 'claim again')
    ok(grant.epoch > old.epoch)
    ok(old.signal.aborted)
    deepEqual(await journal.append(old, [entry('too late')]), { status: 'lost' })
    await journal.truncate(old, 'no place')
    await appendTexts(journal, grant, 'in time')
    deepEqual(await readAll(journal, grant), ['claim', 'claim again', 'in time'])
  })

  test('closing ends the grant and everything else, and may be done twice', async (t) => {
    const journal = await scene(t).open()
    const grant = await claim(journal)
    await journal.openMailbox(() => {})
    await Promise.all([journal.close(), journal.close()])
    await journal.close()
    ok(isSluiceError(grant.signal.reason, 'CLOSED'))
    deepEqual(await journal.append(grant, [entry('too late')]), { status: 'lost' })
    await rejects(journal.own(within()), isCode('CLOSED'))
    await journal.health()
  })

  test('journals of other namespaces have entries, owners and letters of their own', async (t) => {
    const [stage, other] = [scene(t), scene(t)]
    const [journal, stranger] = [await stage.open(), await other.open()]
    const [grant, othersGrant] = [await claim(journal), await claim(stranger, 'claim of another')]
    const [box, othersBox] = [await stage.openBox(journal), await other.openBox(stranger)]
    await Promise.all([box.mailbox.serveOwner(true), othersBox.mailbox.serveOwner(true)])
    await sendUntil(box, 'owner', entry('for the owner'), [box])
    deepEqual(await readAll(journal, grant), ['claim'])
    deepEqual(await readAll(stranger, othersGrant), ['claim of another'])
    deepEqual(othersBox.letters, [])
  })
}

function letterTests(scene: MakeScene): void {
  test('letters reach the owner, one process by its address, or all', async (t) => {
    const stage = scene(t)
    const boxes = await Promise.all([0, 1, 2].map(async () => stage.openBox(await stage.open())))
    const [a, b, c] = boxes as [Box, Box, Box]
    equal(new Set(boxes.map(({ mailbox }) => mailbox.address)).size, 3)
    for (const { mailbox } of boxes) ok(/^[A-Za-z0-9._-]{1,100}$/.test(mailbox.address), mailbox.address)
    await b.mailbox.serveOwner(true)
    await sendUntil(a, 'owner', entry('for the owner'), [b])
    await sendUntil(a, c.mailbox.address, entry('for c'), [c])
    await sendUntil(c, c.mailbox.address, entry('for c itself'), [c])
    await sendUntil(b, 'all', entry('for all'), [a, b, c])
    ok(!c.letters.concat(a.letters).some((letter) => letter.equals(entry('for the owner'))))
    ok(!a.letters.concat(b.letters).some((letter) => letter.equals(entry('for c'))))
  })

  test('letters for the owner go to whoever serves it now', async (t) => {
    const stage = scene(t)
    const [a, b] = [await stage.openBox(await stage.open()), await stage.openBox(await stage.open())]
    await a.mailbox.serveOwner(true)
    await a.mailbox.serveOwner(true)
    await sendUntil(b, 'owner', entry('first'), [a])
    await a.mailbox.serveOwner(false)
    await b.mailbox.serveOwner(true)
    await sendUntil(b, 'owner', entry('second'), [b])
    ok(!a.letters.some((letter) => letter.equals(entry('second'))))
  })

  test('letters of any size arrive as they were', async (t) => {
    const stage = scene(t)
    const [a, b] = [await stage.openBox(await stage.open()), await stage.openBox(await stage.open())]
    for (const size of [0, 1, 1_000_000, 1024 ** 2, 1024 ** 2 + 1, 16 * 1024 ** 2]) {
      const letter = Buffer.alloc(size, `${size} and so on `)
      await sendUntil(a, b.mailbox.address, letter, [b])
      b.letters.length = 0
    }
    const large = Buffer.alloc(4 * 1024 ** 2, 'for everybody ')
    await sendUntil(a, 'all', large, [a, b])
  })

  test('a letter for nobody is no error, and none arrives after closing', async (t) => {
    const stage = scene(t)
    const journal = await stage.open()
    const [a, b] = [await stage.openBox(journal), await stage.openBox(await stage.open())]
    for (const to of ['owner', 'nobody-of-this-address']) await a.mailbox.send(to, entry('hello'))
    await sendUntil(b, a.mailbox.address, entry('before'), [a])
    await journal.close()
    const { length } = a.letters
    await b.mailbox.send(a.mailbox.address, entry('after'))
    await sendUntil(b, b.mailbox.address, entry('something later'), [b])
    equal(a.letters.length, length)
    await a.mailbox.send('all', entry('from the closed'))
  })
}

function networkTests(scene: MakeScene, needsNetwork: (t: TestContext) => boolean): void {
  for (const fault of ['cut-request', 'cut-answer', 'cut-within-answer'] as const) {
    test(`an append whose connection breaks (${fault}) is found out, and stored once`, async (t) => {
      if (!needsNetwork(t)) return
      const { journal, proxy } = await scene(t).openBehind()
      const grant = await claim(journal)
      const texts = ['claim']
      for (let round = 0; round < 5; round++) {
        proxy.next(fault)
        const several = round % 2 === 0 ? [`one ${round}`] : [`one ${round}`, `two ${round}`, `three ${round}`]
        await appendTexts(journal, grant, ...several)
        texts.push(...several)
      }
      proxy.next('none')
      deepEqual(await readAll(journal, grant), texts)
    })
  }

  test('letters and ownership come back by themselves after every connection broke', async (t) => {
    if (!needsNetwork(t)) return
    const stage = scene(t)
    const { journal, proxy } = await stage.openBehind()
    const grant = await claim(journal)
    const box = await stage.openBox(journal)
    await box.mailbox.serveOwner(true)
    const other = await stage.openBox(await stage.open())
    for (let round = 0; round < 3; round++) {
      proxy.cutAll()
      await sendUntil(other, 'owner', entry(`to the owner ${round}`), [box])
      await sendUntil(box, other.mailbox.address, entry(`to the other ${round}`), [other])
      await appendTexts(journal, grant, `round ${round}`)
    }
    equal(grant.signal.aborted, false)
  })

  test('an owner that is cut off loses the journal to another, and nothing that it appends after that counts', async (t) => {
    if (!needsNetwork(t)) return
    const stage = scene(t)
    const { journal: old, proxy } = await stage.openBehind()
    const grant = await claim(old)
    await appendTexts(old, grant, 'acknowledged')
    proxy.hold()
    // On its way, or waiting to be: it may not be told to be durable when it stands after the claim of the next.
    const late = old.append(grant, [entry('late')]).catch((error: unknown) => error)
    const next = await stage.open()
    const taken = await claim(next, 'claim of the next')
    const atTheClaim = await readAll(next, taken)
    proxy.release()
    const outcome = await late
    await appendTexts(next, taken, 'of the next')
    ok(isSluiceError(await ended(grant)))
    equal((await old.append(grant, [entry('later')])).status, 'lost')
    deepEqual(atTheClaim.slice(0, 2), ['claim', 'acknowledged'])
    equal(atTheClaim.at(-1), 'claim of the next')
    const isDurable = (outcome as { status?: string }).status === 'durable'
    if (isDurable) ok(atTheClaim.includes('late'), 'what was told to be durable stands before the claim')
    const all = await readAll(next, taken)
    deepEqual(all.slice(0, atTheClaim.length), atTheClaim)
    ok(all.includes('of the next'))
  })

  test('a slow network makes nothing wrong', async (t) => {
    if (!needsNetwork(t)) return
    const { journal, proxy } = await scene(t).openBehind()
    const grant = await claim(journal)
    proxy.delay(50)
    for (let i = 0; i < 5; i++) await appendTexts(journal, grant, `${i}`)
    deepEqual(await readAll(journal, grant), ['claim', '0', '1', '2', '3', '4'])
  })
}

function openingTests(
  scene: MakeScene,
  subjectOf: () => JournalSubject,
  needsNetwork: (t: TestContext) => boolean,
): void {
  test('something of the same name that is not ours is refused, and left as it is', async (t) => {
    const subject = subjectOf()
    if (subject.occupy === undefined) return t.skip('there is no place where something else could stand')
    const stage = scene(t)
    await subject.occupy(stage.namespace)
    await rejects(stage.open(), isCode('FOREIGN_DATA'))
    await rejects(stage.open(), isCode('FOREIGN_DATA'))
  })

  test('a broker that is not there is said to be unreachable, within the time that was given', async (t) => {
    if (!needsNetwork(t)) return
    const stage = scene(t)
    const { url } = subjectOf()
    ok(url !== null)
    const proxy = await openProxy(url)
    const gone = new URL(url)
    gone.hostname = '127.0.0.1'
    gone.port = new URL(proxy.url).port
    await proxy.close()
    await rejects(stage.open({ url: gone, connectMs: 500 }), isCode('UNREACHABLE'))
  })

  test('a broker that takes connections and says nothing is unreachable, too', async (t) => {
    if (!needsNetwork(t)) return
    const stage = scene(t)
    const { url } = subjectOf()
    ok(url !== null)
    const proxy = await openProxy(url)
    t.after(() => proxy.close())
    proxy.hold()
    const silent = new URL(url)
    silent.hostname = '127.0.0.1'
    silent.port = new URL(proxy.url).port
    await rejects(stage.open({ url: silent, connectMs: 1_000 }), isCode('UNREACHABLE'))
  })
}

function brokerTests(
  scene: MakeScene,
  subjectOf: () => JournalSubject,
  needsBroker: (t: TestContext) => boolean,
): void {
  test('a broker that was restarted has everything, and the process goes on', async (t) => {
    if (!needsBroker(t)) return
    const stage = scene(t)
    const journal = await stage.open()
    let grant = await claim(journal)
    await appendTexts(journal, grant, 'before')
    await subjectOf().broker?.restart()
    // The grant may have ended meanwhile: then it is taken again.
    const outcome = await journal.append(grant, [entry('after')])
    if (outcome.status !== 'durable') {
      grant = await claim(journal, 'claim again')
      await appendTexts(journal, grant, 'after')
    }
    const read = (await readAll(journal, grant)).filter((text) => text !== 'claim again')
    deepEqual(read, ['claim', 'before', 'after'])
  })

  test('a broker that is killed in the middle of appends keeps what it was told to be durable, in order and once', async (t) => {
    if (!needsBroker(t)) return
    const { broker } = subjectOf()
    ok(broker !== null)
    const stage = scene(t)
    const journal = await stage.open()
    let grant = await claim(journal)
    const durable: string[] = []
    const unknown = new Set<string>()
    let next = 0
    for (let round = 0; round < 3; round++) {
      const before = durable.length
      let isDone = false
      const appending = (async () => {
        while (!isDone) {
          const text = `entry ${next++}`
          try {
            const { status } = await journal.append(grant, [entry(text)])
            if (status === 'durable') durable.push(text)
            else if (status === 'lost') grant = await claim(journal)
          } catch (error) {
            ok(isSluiceError(error, 'UNKNOWN'), String(error))
            unknown.add(text)
          }
        }
      })()
      await waitUntil('some are durable', () => durable.length > before + 5)
      await broker.kill()
      await broker.restart()
      const sofar = durable.length
      await waitUntil('it goes on', () => durable.length > sofar + 5)
      isDone = true
      await appending
    }
    const read = (await readAll(journal, grant)).filter((text) => text !== 'claim' && !unknown.has(text))
    deepEqual(read, durable)
    t.diagnostic(`${durable.length} durable, ${unknown.size} unknown`)
  })

  test('a broker that was stopped for a while is found again, whoever owns the journal then', async (t) => {
    if (!needsBroker(t)) return
    const { broker } = subjectOf()
    ok(broker !== null)
    const stage = scene(t)
    const journal = await stage.open()
    const grant = await claim(journal)
    broker.pause()
    const appending = journal.append(grant, [entry('while it was stopped')]).catch((error: unknown) => error)
    const health = await journal.health()
    broker.resume()
    ok(health.status === 'failed' || health.status === 'degraded', 'health says so')
    const outcome = (await appending) as { status?: string }
    const now = grant.signal.aborted ? await claim(journal, 'claim again') : grant
    const isThere = (await readAll(journal, now)).includes('while it was stopped')
    if (outcome.status === 'durable') ok(isThere)
    else ok(isSluiceError(outcome, 'UNKNOWN'), String(outcome))
  })
}

function numbered(from: number, count: number): string[] {
  return Array.from({ length: count }, (_, i) => `entry ${from + i}`)
}
