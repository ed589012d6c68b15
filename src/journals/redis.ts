/**
 * A journal in Redis: a stream, in which every grant has an entry of its own, so that Redis itself refuses what an earlier
 * owner would append (redis/layout.ts draws what stands where).
 *
 *     own ──claimed──> held ──renewed, every 2 s──> held
 *                        └── taken over, out of patience, closed, another Redis ──> ended
 *
 * Invariants
 *  1. An entry is stored at most once, and only in its place: its id says grant and number, and ids only rise.
 *  2. What belongs to one `append` is stored together (one XADD, or one transaction) or not at all.
 *  3. `durable` is said when Redis has answered, which it does after the sync (`always`) or the write (else, see
 *     server.ts, `confirm`); or when, on a new connection, the last of the entries is found in its place.
 *  4. The lock only says when to claim. Whether a grant is still good is decided by the ids.
 *  5. A server whose journal has another id, a lower epoch or less than what was answered is not the one that it was:
 *     ENGINE_CHANGED. So is one that was a replica when this process last saw the journal: it may lack a tail that nobody
 *     here knows of. A restart is told from that by the replication id that a promoted server keeps of its past.
 */
import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { SluiceError } from '../errors.ts'
import type {
  Finding,
  Grant,
  Journal,
  JournalAbilities,
  JournalEntry,
  JournalHealth,
  JournalOptions,
  JournalOutcome,
  Mailbox,
} from './contract.ts'
import { inspectServer } from './redis/checks.ts'
import {
  type Argument,
  Broken,
  type Connection,
  describe,
  Link,
  type LinkOptions,
  Refused,
} from './redis/connection.ts'
import { ADD, CLAIM, compareIds, type Names, nameKeys, parseId, RELEASE, RENEW, TRIM } from './redis/layout.ts'
import { openRedisMailbox, type RedisMailbox } from './redis/mailbox.ts'
import { damaged, replayEntries } from './redis/replay.ts'
import { type Known, runScript, Server } from './redis/server.ts'

/** How long a lock holds that is not renewed. */
const LEASE_MS = 8_000
/** The share of it after which an owner is followed that is not even connected, as one that was killed. */
const GONE_SHARE = 0.25
const RENEW_MS = 2_000
/** How long an owner tries to reach Redis again. Nobody can take over through a Redis that is down. */
const PATIENCE_MS = 20_000
/** Who waits asks again after so long, if it is not told before. */
const LOOK_AGAIN_MS = 500
const CLOSE_MS = 2_000
const UNKNOWN_TEXT = 'Whether it is in the journal is not known: '
const MAX_ENTRY_BYTES = 1024 ** 2
const MAX_LETTER_BYTES = 24 * 1024 ** 2
const TRIM_ENTRIES = 1_000
const CONNECT_MS = 10_000

export interface RedisJournalOptions extends JournalOptions {
  /** How long an owner that does not answer is waited for; a quarter of it, if it is not even connected. At least 500. @default 8_000 */
  readonly leaseMs?: number | undefined
  /** How long an owner tries to reach Redis again. @default 20_000 */
  readonly patienceMs?: number | undefined
}

/** What was looked at before this Redis is trusted with a journal. Rejects where it cannot be reached. */
export async function checkRedis(options: JournalOptions): Promise<Finding[]> {
  const { url, connectMs = CONNECT_MS } = options
  const link = await Link.open({ url, name: 'sluice:check', prepare: async () => {} }, connectMs)
  try {
    return [...(await inspectServer(await link.ready(), options)).findings]
  } finally {
    link.close()
  }
}

export async function openRedisJournal(options: RedisJournalOptions): Promise<Journal> {
  const journal = new RedisJournal(options)
  await journal.open()
  return journal
}

/** What who waits knows of the holder of the lock. */
interface Waiting {
  lock: string
  connection: string
  /** Since when it is not connected. */
  goneMs: number | null
}

/** A grant as its owner knows it. */
interface Held {
  readonly grant: Grant
  readonly holder: string
  readonly end: AbortController
  /** Aborted when there is no hope that Redis tells what became of an append: not by a take-over. */
  readonly hopeless: AbortController
  /** Of the last entry that is known to be stored. */
  number: number
  seenMs: number
}

class RedisJournal implements Journal {
  readonly #options: RedisJournalOptions
  readonly #names: Names
  readonly #server: Server
  readonly #leaseMs: number
  readonly #patienceMs: number
  #opened: Link | null = null
  #held: Held | null = null
  #mailbox: RedisMailbox | null = null
  #renewing: NodeJS.Timeout | null = null
  readonly #closing = new AbortController()
  #wake: () => void = () => {}
  #end: Promise<void> | null = null

  constructor(options: RedisJournalOptions) {
    this.#options = options
    this.#names = nameKeys(options.namespace)
    this.#server = new Server(options, this.#names)
    this.#leaseMs = Math.max(500, options.leaseMs ?? LEASE_MS)
    this.#patienceMs = options.patienceMs ?? PATIENCE_MS
  }

  async open(): Promise<void> {
    const { connectMs = CONNECT_MS } = this.#options
    const link: LinkOptions = {
      url: this.#options.url,
      name: this.#clientName('journal'),
      prepare: (connection) => this.#prepare(connection),
      onFailed: (error) => this.#lose(error),
    }
    this.#opened = await Link.open(link, connectMs)
  }

  get abilities(): JournalAbilities {
    return {
      durability: this.#server.inspection?.durability ?? 'memory',
      copies: this.#options.copies ?? 1,
      maxEntryBytes: MAX_ENTRY_BYTES,
      maxLetterBytes: MAX_LETTER_BYTES,
    }
  }

  get #link(): Link {
    if (this.#opened === null) throw new SluiceError('CLOSED')
    return this.#opened
  }

  // Owning

  async own(signal: AbortSignal): Promise<Grant> {
    const stop = AbortSignal.any([signal, this.#closing.signal])
    if (this.#held !== null)
      await this.#release(new SluiceError('UNREACHABLE', 'The grant was given up for another one.'))
    const holder = randomUUID()
    const seen: Waiting = { lock: '', connection: '', goneMs: null }
    for (;;) {
      try {
        stop.throwIfAborted()
        const connection = await this.#link.ready(stop)
        const isGone = seen.goneMs !== null && performance.now() - seen.goneMs > this.#leaseMs * GONE_SHARE
        const [status, value, other, by] = (await connection.ask([
          ...runScript(CLAIM, this.#names.state, this.#names.entries, this.#names.lock),
          this.#server.journalId,
          holder,
          String(this.#leaseMs),
          connection.id,
          ...(isGone ? [seen.lock, seen.connection] : ['', '']),
        ])) as [string, ...(string | number)[]]
        if (status === 'granted') {
          await this.#server.confirm(connection)
          const grant = this.#grant(Number(value), holder)
          if (stop.aborted) await this.#release(stop.reason)
          else return grant
        }
        stop.throwIfAborted()
        if (status === 'changed') throw this.#fail(this.#server.gone())
        if (status === 'broken') throw this.#fail(damaged(this.#names, `its last entry is ${value}, in epoch ${other}`))
        await this.#lookForHolder(connection, seen, String(other), String(by))
        await this.#waitForLock(Number(value), stop)
      } catch (error) {
        if (stop.aborted) throw stop.reason
        if (!(error instanceof Broken || error instanceof Refused)) throw error
        // Of what is refused nothing was done; such as by a full disk.
        await delay(250, undefined, { signal: stop }).catch(() => {})
      }
    }
  }

  /** A holder that was killed is disconnected at once; one that comes back from a broken connection says by which. */
  async #lookForHolder(connection: Connection, seen: Waiting, lock: string, by: string): Promise<void> {
    const isSame = seen.lock === lock && seen.connection === by
    if (!isSame) Object.assign(seen, { lock, connection: by, goneMs: null })
    if (by === '') return
    try {
      const found = String(await connection.ask(['CLIENT', 'LIST', 'ID', by]))
      if (found.trim() !== '') seen.goneMs = null
      else seen.goneMs ??= performance.now()
    } catch (error) {
      // Whoever may not ask waits for the lock to expire.
      if (!(error instanceof Refused)) throw error
    }
  }

  async #waitForLock(leftMs: number, stop: AbortSignal): Promise<void> {
    const woken = new AbortController()
    this.#wake = () => woken.abort()
    const ms = Math.min(LOOK_AGAIN_MS, Math.max(1, leftMs + 1))
    await delay(ms, undefined, { signal: AbortSignal.any([stop, woken.signal]) }).catch(() => {})
  }

  #grant(epoch: number, holder: string): Grant {
    const end = new AbortController()
    const grant: Grant = { epoch, signal: end.signal }
    this.#held = { grant, holder, end, hopeless: new AbortController(), number: 0, seenMs: performance.now() }
    this.#server.sawEpoch(epoch)
    this.#renewing = setInterval(() => this.#tick(), Math.min(RENEW_MS, this.#leaseMs / 4))
    return grant
  }

  #isRenewing = false

  async #tick(): Promise<void> {
    const held = this.#held
    if (held === null) return
    if (performance.now() - held.seenMs > this.#patienceMs) {
      const why = this.#link.cause === null ? 'no answer' : describe(this.#link.cause)
      return this.#lose(
        new SluiceError(
          'UNREACHABLE',
          `Redis did not answer for ${this.#patienceMs} ms: ${why}. The grant was given up.`,
        ),
      )
    }
    const connection = this.#link.current
    if (this.#isRenewing || connection === null) return
    this.#isRenewing = true
    try {
      await this.#renew(connection, held)
      await this.#server.checkAgain(connection)
    } catch (error) {
      if (error instanceof SluiceError) this.#fail(error)
      // It is there, and cannot write now: nobody can claim.
      else if (error instanceof Refused) held.seenMs = performance.now()
      else if (!(error instanceof Broken)) throw error
    } finally {
      this.#isRenewing = false
    }
  }

  async #renew(connection: Connection, held: Held): Promise<void> {
    const answer = await connection.ask([
      ...runScript(RENEW, this.#names.state, this.#names.lock),
      String(held.grant.epoch),
      held.holder,
      String(this.#leaseMs),
      connection.id,
    ])
    if (answer === 'held') held.seenMs = performance.now()
    else if (answer === 'lost') this.#loseTo(held)
    else throw this.#server.gone()
  }

  #loseTo(held: Held): void {
    if (this.#held === held)
      this.#lose(new SluiceError('UNREACHABLE', 'Another process has taken the journal over.'), false)
  }

  #loseGrant(held: Held, reason: SluiceError): void {
    if (this.#held === held) this.#release(reason).catch(() => {})
  }

  /** Ends the grant. What an append under way became can still be asked, unless it is hopeless. */
  #lose(reason: SluiceError, isHopeless = true): void {
    const held = this.#held
    if (held === null) return
    if (this.#renewing !== null) clearInterval(this.#renewing)
    this.#held = null
    if (isHopeless) held.hopeless.abort(reason)
    held.end.abort(reason)
  }

  /** Ends the grant in Redis as well, so that another can have it at once. */
  async #release(reason: SluiceError): Promise<void> {
    const held = this.#held
    this.#lose(reason)
    const connection = this.#opened?.current
    if (held === null || connection === null || connection === undefined) return
    const released = connection.ask([
      ...runScript(RELEASE, this.#names.state, this.#names.lock),
      String(held.grant.epoch),
      held.holder,
      this.#names.channel(this.#server.journalId, 'free'),
    ])
    const late = new AbortController()
    await Promise.race([released.catch(() => {}), delay(CLOSE_MS, undefined, { signal: late.signal }).catch(() => {})])
    late.abort()
  }

  /** It is over with this Redis: whoever asks for anything gets the error. */
  #fail(error: SluiceError): SluiceError {
    this.#opened?.fail(error)
    return error
  }

  // Appending

  async append(grant: Grant, entries: readonly Uint8Array[], mayUseReserve = false): Promise<JournalOutcome> {
    const held = this.#held
    if (held === null || held.grant !== grant) return { status: 'lost' }
    const first = held.number + 1
    const places = entries.map((_, i) => `${grant.epoch}-${first + i}`)
    if (places.length === 0) return { status: 'durable', places }
    let isDoubtful = false
    let refusedAtMs: number | null = null
    for (;;) {
      try {
        const connection = await this.#link.ready(held.hopeless.signal)
        const outcome =
          (isDoubtful ? await this.#findOut(connection, held, places) : null) ??
          (await this.#store(connection, held, places, entries, mayUseReserve))
        if (outcome === 'doubtful') {
          isDoubtful = true
          continue
        }
        // What was sent before may still arrive, when there is room: only the next grant fences it off.
        if (outcome.status === 'full' && isDoubtful) throw new SluiceError('UNKNOWN', UNKNOWN_TEXT + outcome.reason)
        if (outcome.status === 'durable') held.number += places.length
        if (outcome.status === 'lost') this.#loseTo(held)
        return outcome
      } catch (error) {
        if (held.hopeless.signal.aborted || error instanceof SluiceError)
          return this.#endAppend(held, error, isDoubtful)
        if (!(error instanceof Broken || error instanceof Refused)) throw error
        isDoubtful ||= error instanceof Broken
        if (error instanceof Broken) continue
        // A reason that is not known here, such as a permission, may be mended: for as long as silence would be borne.
        refusedAtMs ??= performance.now()
        if (performance.now() - refusedAtMs > this.#patienceMs) {
          const text = `Redis refused what was written for ${this.#patienceMs} ms: ${error.message}. The grant was given up.`
          const reason = new SluiceError('UNREACHABLE', text, {}, error)
          this.#loseGrant(held, reason)
          return this.#endAppend(held, reason, isDoubtful)
        }
        await delay(250, undefined, { signal: held.hopeless.signal }).catch(() => {})
      }
    }
  }

  /** There is no answer, and there will be none. */
  #endAppend(held: Held, error: unknown, isDoubtful: boolean): JournalOutcome {
    const { reason } = held.hopeless.signal
    const cause: unknown = error instanceof SluiceError ? error : reason
    if (!(cause instanceof SluiceError)) throw cause
    if (cause.code === 'ENGINE_CHANGED') throw this.#fail(cause)
    if (cause.code === 'UNREACHABLE' || cause.code === 'CLOSED') {
      if (!isDoubtful) return { status: 'lost' }
      throw new SluiceError('UNKNOWN', UNKNOWN_TEXT + cause.message, {}, cause)
    }
    this.#loseGrant(held, cause)
    throw cause
  }

  /** `doubtful`: something stands in their place, or after it. */
  async #store(
    connection: Connection,
    held: Held,
    places: readonly string[],
    entries: readonly Uint8Array[],
    mayUseReserve: boolean,
  ): Promise<JournalOutcome | 'doubtful'> {
    const added = await this.#send(connection, places, entries)
    const fate =
      mayUseReserve && isOutOfMemory(added) ? await this.#sendWithReserve(connection, places, entries) : added
    if (fate instanceof Refused) return explainRefusal(fate)
    if (fate === 'gone') throw this.#fail(this.#server.gone())
    await this.#server.confirm(connection)
    await this.#waitForCopies(connection, held)
    return { status: 'durable', places }
  }

  /** Past `maxmemory`: what settles makes room, and there is no other way to it. */
  async #sendWithReserve(
    connection: Connection,
    places: readonly string[],
    entries: readonly Uint8Array[],
  ): Promise<'added' | 'gone' | Refused> {
    try {
      const script = runScript(ADD, this.#names.entries)
      return (await connection.ask([...script, ...places, ...entries.map(viewBytes)])) as 'added' | 'gone'
    } catch (error) {
      if (error instanceof Refused) return error
      throw error
    }
  }

  async #send(
    connection: Connection,
    places: readonly string[],
    entries: readonly Uint8Array[],
  ): Promise<'added' | 'gone' | Refused> {
    const commands = places.map((place, i) => this.#add(place, entries[i] as Uint8Array))
    // All of it is sent in this turn, so nothing of another call comes between.
    const sent = commands.length === 1 ? commands : [['MULTI'], ...commands, ['EXEC']]
    const answers = await this.#sendAll(connection, sent as Argument[][])
    const failed = answers.find((answer) => answer instanceof Error)
    if (failed !== undefined) {
      if (failed instanceof Refused) return failed
      throw failed
    }
    // The answer to EXEC has those of its commands; one that failed there is an error among them.
    const added = commands.length === 1 ? answers : (answers.at(-1) as readonly unknown[])
    const broken = added.find((answer) => answer instanceof Error)
    if (broken !== undefined) {
      const explained = connection.explain(broken as Error)
      if (explained instanceof Refused) return explained
      throw explained
    }
    return added.includes(null) ? 'gone' : 'added'
  }

  #add(place: string, entry: Uint8Array): Argument[] {
    return ['XADD', this.#names.entries, 'NOMKSTREAM', place, 'e', viewBytes(entry)]
  }

  async #sendAll(connection: Connection, commands: readonly (readonly Argument[])[]): Promise<unknown[]> {
    const settled = await Promise.allSettled(commands.map((command) => connection.ask(command)))
    return settled.map((one) => (one.status === 'fulfilled' ? one.value : one.reason))
  }

  /** WAIT speaks of what this connection wrote: also when it only finds out, as it renewed the lock when it was prepared. */
  async #waitForCopies(connection: Connection, held: Held): Promise<void> {
    const { copies = 1 } = this.#options
    if (copies === 1) return
    const untilMs = performance.now() + this.#patienceMs
    while (Number(await connection.ask(['WAIT', String(copies - 1), '1000'])) < copies - 1) {
      held.hopeless.signal.throwIfAborted()
      if (performance.now() > untilMs)
        throw new SluiceError('UNKNOWN', `It is in the journal, but not on ${copies} servers: bring the replicas back.`)
    }
  }

  /** What became of entries that were sent before; null: they are not there. */
  async #findOut(connection: Connection, held: Held, places: readonly string[]): Promise<JournalOutcome | null> {
    const look = await this.#server.look(connection, knownOf(held))
    const end = parseId(places.at(-1) ?? '')
    if (compareIds(look.last, end) >= 0) {
      if (compareIds(look.floor, end) > 0)
        throw new SluiceError(
          'UNKNOWN',
          'Whether it was in the journal is not known: a later owner has cut off that part.',
        )
      // They were stored before what came after (invariants 1 and 2), or never will be.
      const found = (await connection.ask([
        'XRANGE',
        this.#names.entries,
        places.at(-1) ?? '',
        places.at(-1) ?? '',
      ])) as []
      if (found.length === 0) return { status: 'lost' }
      if (this.#held !== held && this.abilities.copies > 1)
        throw new SluiceError('UNKNOWN', 'It is in the journal. On how many copies, only its owner can ask.')
      await this.#server.confirm(connection)
      await this.#waitForCopies(connection, held)
      if (look.epoch !== held.grant.epoch) this.#loseTo(held)
      return { status: 'durable', places }
    }
    return look.epoch === held.grant.epoch && look.holder === held.holder ? null : { status: 'lost' }
  }

  // Reading

  async *replay(grant: Grant): AsyncIterable<JournalEntry> {
    const look = await this.#read(grant, (connection) => this.#server.look(connection, null))
    yield* replayEntries(this.#names, look, (ask) => this.#read(grant, ask))
  }

  async truncate(grant: Grant, place: string): Promise<void> {
    const held = this.#held
    if (held === null || held.grant !== grant) return
    for (;;) {
      const removed = await this.#read(grant, (connection) =>
        connection.ask([
          ...runScript(TRIM, this.#names.state, this.#names.entries),
          String(grant.epoch),
          held.holder,
          place,
          String(TRIM_ENTRIES),
        ]),
      )
      if (removed === 'changed') throw this.#fail(this.#server.gone())
      if (removed === 'lost') return this.#loseTo(held)
      if (removed === 0) return
    }
  }

  /** Asks again when a connection breaks, as long as the grant is good. */
  async #read<T>(grant: Grant, ask: (connection: Connection) => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await ask(await this.#link.ready(grant.signal))
      } catch (error) {
        if (!(error instanceof Broken)) throw error
      }
    }
  }

  // Everything else

  async openMailbox(onLetter: (letter: Uint8Array) => void): Promise<Mailbox> {
    const { url, connectMs = CONNECT_MS } = this.#options
    this.#mailbox = await openRedisMailbox({
      url,
      name: this.#clientName('mailbox'),
      names: this.#names,
      journalId: this.#server.journalId,
      connectMs,
      onLetter,
      onFree: () => this.#wake(),
    })
    if (this.#closing.signal.aborted) await this.#mailbox.close()
    return this.#mailbox
  }

  async health(): Promise<JournalHealth> {
    const { describeHealth } = await import('./redis/health.ts')
    return describeHealth({
      connection: this.#opened?.current ?? null,
      cause: this.#opened?.cause ?? null,
      mailboxCause: this.#mailbox?.cause ?? null,
      names: this.#names,
      wanted: this.#options,
      isOwner: this.#held !== null,
    })
  }

  close(): Promise<void> {
    this.#end ??= this.#close()
    return this.#end
  }

  async #close(): Promise<void> {
    const closed = new SluiceError('CLOSED')
    this.#closing.abort(closed)
    await Promise.all([this.#release(closed), this.#mailbox?.close()])
    this.#opened?.close()
  }

  /** Asked of each connection before it is used. */
  async #prepare(connection: Connection): Promise<void> {
    const held = this.#held
    await this.#server.check(connection, held && knownOf(held))
    if (held === null) return
    try {
      await this.#renew(connection, held)
    } catch (error) {
      // One that cannot write now, as its disk is full, can be asked all the same.
      if (!(error instanceof Refused)) throw error
    }
  }

  /** As `CLIENT LIST` shows it. */
  #clientName(part: string): string {
    return `sluice:${this.#options.namespace}:${part}`
  }
}

function knownOf({ grant, holder, number }: Held): Known {
  return { epoch: grant.epoch, holder, number }
}

function viewBytes({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength)
}

function isOutOfMemory(fate: unknown): boolean {
  return fate instanceof Refused && fate.code === 'OOM'
}

/** What was not stored, and why. */
function explainRefusal(refused: Refused): JournalOutcome | 'doubtful' {
  const { code, message } = refused
  if (isOutOfMemory(refused))
    return { status: 'full', reason: 'Redis is out of memory: raise `maxmemory`, or let workers catch up.' }
  if (message.includes('equal or smaller than the target stream top item')) return 'doubtful'
  if (code === 'MISCONF')
    return { status: 'full', reason: `Redis cannot write to its disk: free or mend it. It says: ${message}` }
  if (code === 'NOREPLICAS')
    return { status: 'full', reason: 'Redis has fewer replicas than `min-replicas-to-write`: bring them back.' }
  throw refused
}
