/**
 * The journal on RabbitMQ (3.10 or newer, AMQP 0-9-1): a chain of streams, read back by the one who writes it.
 *
 *   NAMESPACE.catalog      a stream: grants, and which segments there are       rabbitmq/catalog.ts
 *   NAMESPACE.journal.N    streams: the entries, in segments                    rabbitmq/tail.ts, order.ts
 *   NAMESPACE.owner        a quorum queue: whose turn it is to own              rabbitmq/election.ts
 *   NAMESPACE.entries      an exchange: the way to the last segment             rabbitmq/tail.ts
 *   NAMESPACE.letters      an exchange, and a queue for each mailbox            rabbitmq/letters.ts
 *
 * Two connections: RabbitMQ does not read from one that publishes while it is short of memory or disk, and then hears neither
 * acknowledgements nor anything else on it. So one publishes (the writer), and all else is done on the other (the reader).
 *
 * A grant goes from the election (calm) over the catalog (its epoch) to the claim in the last segment (exact). It ends when a
 * later claim comes back, when a connection stays away for long, or with `close`. Another process may have the election
 * meanwhile: nothing that matters depends on it.
 *
 * A segment that has grown long is followed by a new one: declare it and note that in the catalog, while the old one still
 * grows; seal the old one and, once the seal has come back and counts, go on. After a crash between any two of these the next owner finds either no seal, and
 * claims in the old one, or the seal, and claims in the new one. Truncation notes the first segment that is kept and deletes
 * those before it; the next owner deletes what was left.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { ChannelModel, ConfirmChannel } from 'amqplib'
import { SluiceError } from '../errors.ts'
import type {
  Grant,
  Journal,
  JournalAbilities,
  JournalEntry,
  JournalHealth,
  JournalOptions,
  JournalOutcome,
  Mailbox,
} from './contract.ts'
import { readTarget, type Target } from './rabbitmq/address.ts'
import { CATALOG_ID, type CatalogNote, type CatalogState, encodeNote, readCatalog } from './rabbitmq/catalog.ts'
import { declareTopology, inspect, look, majorityOf, refuseIfNeeded, troubleOf } from './rabbitmq/check.ts'
import { Election } from './rabbitmq/election.ts'
import { Letters } from './rabbitmq/letters.ts'
import { type AmqpLibrary, codeOf, Link, loadAmqp, openChannel } from './rabbitmq/link.ts'
import { Management } from './rabbitmq/management.ts'
import { replaySegments } from './rabbitmq/replay.ts'
import { catalogOf, declareQueue, deleteQueue, hasQueue, STREAM_ARGUMENTS, segmentOf } from './rabbitmq/streams.ts'
import { Tail } from './rabbitmq/tail.ts'

export { checkRabbitmq } from './rabbitmq/check.ts'

const MAX_ENTRY_BYTES = 1_048_576
/** What RabbitMQ 4 takes as one message by default; 3 takes 128 MiB. */
const MAX_LETTER_BYTES = 16_777_216
/** Without a connection for so long, the grant is over: others have it by then. */
const AWAY_MS = 20_000
const TRUNCATE_MS = 2_000
/**
 * RabbitMQ 3.10.8 that was killed within half a second after it declared a stream or a quorum queue did not find them again. So the very first grant of a namespace waits that long.
 */
const REGISTERED_MS = 750

export async function openRabbitmqJournal(options: JournalOptions): Promise<Journal> {
  const amqp = await loadAmqp()
  const target = readTarget(options.url)
  const { findings, copies, version } = await inspect(amqp, target, options)
  refuseIfNeeded(findings)
  const journal = new RabbitmqJournal(amqp, target, { namespace: options.namespace, copies, version })
  try {
    await journal.connect(options.connectMs ?? 10_000)
  } catch (error) {
    await journal.close()
    throw error
  }
  return journal
}

interface Settings {
  readonly namespace: string
  readonly copies: number
  readonly version: string
}

interface Granted {
  readonly grant: Grant
  readonly tail: Tail
  /** Once it aborts, nothing is done for this grant any more. */
  readonly signal: AbortSignal
  /** Segments before this one are not needed. */
  first: number
  /** The highest segment that is made, so that the one before may be sealed. */
  prepared: number
  isPreparing: boolean
}

class RabbitmqJournal implements Journal {
  readonly abilities: JournalAbilities
  readonly #target: Target
  readonly #settings: Settings
  readonly #reader: Link
  readonly #writer: Link
  readonly #election: Election
  readonly #closing = new AbortController()
  /** For entries and notes, and for letters: long letters then do not stand in the way of confirms. */
  #out: ConfirmChannel | null = null
  #lettersOut: ConfirmChannel | null = null
  #letters: Letters | null = null
  #granted: Granted | null = null
  #seenEpoch = 0
  #awayTimer: NodeJS.Timeout | null = null
  #upWaiters: (() => void)[] = []

  constructor(amqp: AmqpLibrary, target: Target, settings: Settings) {
    this.#target = target
    this.#settings = settings
    this.abilities = {
      durability: 'os',
      copies: settings.copies,
      maxEntryBytes: MAX_ENTRY_BYTES,
      maxLetterBytes: MAX_LETTER_BYTES,
    }
    const onDown = () => this.#down()
    this.#reader = new Link(amqp, target, `${settings.namespace} reader`, {
      onUp: (model) => this.#setUpReader(model),
      onReady: () => this.#up(),
      onDown,
    })
    this.#writer = new Link(amqp, target, `${settings.namespace} writer`, {
      onUp: (model) => this.#setUpWriter(model),
      onReady: () => {
        this.#granted?.tail.publish()
        this.#up()
      },
      onDown,
      onBlocked: () => this.#block(),
    })
    this.#election = new Election(
      settings.namespace,
      (queue) => this.#ring(queue),
      (reason) => this.#reader.reset(reason),
    )
  }

  async connect(patienceMs: number): Promise<void> {
    await this.#reader.connect(patienceMs)
    await this.#writer.connect(patienceMs)
  }

  async own(signal: AbortSignal): Promise<Grant> {
    this.#granted?.tail.end(new SluiceError('UNREACHABLE', 'The grant was given up for another one.'))
    const stop = AbortSignal.any([signal, this.#closing.signal])
    stop.throwIfAborted()
    const { promise: aborted, reject } = Promise.withResolvers<never>()
    aborted.catch(() => {})
    const leave = () => reject(stop.reason)
    stop.addEventListener('abort', leave, { once: true })
    try {
      // What is under way with the broker may take until an alarm is over.
      return await Promise.race([this.#ownNow(stop), aborted])
    } catch (error) {
      this.#election.leave()
      throw stop.aborted ? stop.reason : error
    } finally {
      stop.removeEventListener('abort', leave)
    }
  }

  async #ownNow(stop: AbortSignal): Promise<Grant> {
    const { promise: chosen, resolve } = Promise.withResolvers<void>()
    this.#election.stand(resolve)
    // A connection that ends meanwhile is set up again, with the election on it.
    const { model } = this.#reader
    if (model !== null) this.#attachElection(model)
    await chosen
    const state = await this.#takeEpoch(stop)
    return this.#take(state, stop)
  }

  async append(grant: Grant, entries: readonly Uint8Array[]): Promise<JournalOutcome> {
    const granted = this.#granted
    if (granted?.grant !== grant || grant.signal.aborted) return { status: 'lost' }
    const full = this.#fullReason()
    if (full !== null) return { status: 'full', reason: full }
    const { tail } = granted
    const isHalfFull = tail.isClaimed && tail.segmentBytes * 2 >= this.#target.segmentBytes
    if (isHalfFull) this.#prepare(granted)
    if (tail.segmentBytes >= this.#target.segmentBytes && granted.prepared > tail.segment) {
      const rolled = await this.#roll(granted)
      if (rolled.status !== 'durable') return rolled
    }
    return tail.store(entries)
  }

  replay(grant: Grant): AsyncIterable<JournalEntry> {
    const granted = this.#granted
    const last = granted?.grant === grant ? granted.tail.last : null
    if (granted === null || last === null)
      return replayNothing(new SluiceError('UNREACHABLE', 'The grant is over, or nothing was claimed under it.'))
    return replaySegments({
      namespace: this.#settings.namespace,
      first: granted.first,
      last,
      model: () => this.#untilUp(granted.signal).then(({ model }) => model),
    })
  }

  async truncate(grant: Grant, place: string): Promise<void> {
    const granted = this.#granted
    const segment = Number(place.split(':')[0])
    if (granted?.grant !== grant || !(segment > granted.first)) return
    const cutting = this.#retry(granted.signal, async () => {
      await this.#note({ first: segment })
      await this.#deleteSegments(granted.first, segment)
      granted.first = segment
    })
    // In an alarm it takes until that is over, and nobody needs to wait for it.
    await Promise.race([cutting.catch(() => {}), delay(TRUNCATE_MS, undefined, { ref: false })])
  }

  async openMailbox(onLetter: (letter: Uint8Array) => void): Promise<Mailbox> {
    const letters = new Letters(this.#settings.namespace, onLetter, {
      channel: () => (this.#writer.blocked === null ? this.#publishingChannel(this.#lettersOut) : null),
      onTrouble: (reason) => this.#reader.reset(reason),
      onClose: () => {
        this.#letters = null
      },
    })
    this.#letters = letters
    await this.#retry(this.#closing.signal, async (model) => {
      if (this.#letters === letters) await letters.attach(model)
    })
    return letters
  }

  async health(): Promise<JournalHealth> {
    const { namespace, version, copies } = this.#settings
    const reasons: string[] = []
    let status: JournalHealth['status'] = 'ok'
    const worsen = (to: 'degraded' | 'failed', reason: string) => {
      if (reasons.length < 20) reasons.push(reason)
      if (status !== 'failed') status = to
    }
    if (this.#reader.model === null || this.#writer.model === null)
      worsen('failed', 'RabbitMQ is not connected; it is tried again and again. Start the broker or mend the network.')
    const full = this.#fullReason()
    if (full !== null) worsen('degraded', full)
    const seen = await look(this.#target, namespace)
    const facts: Record<string, string> = { version, copies: String(copies) }
    if (typeof seen === 'string') {
      Object.assign(facts, { nodes: 'unknown', members: 'unknown', policies: 'unknown', management: seen })
      if (this.#target.management !== null) worsen('degraded', seen)
      return { status, reasons, facts, storedBytes: this.#storedBytes() }
    }
    for (const { severity, reason, remedy } of troubleOf(seen))
      worsen(severity === 'refuse' ? 'failed' : 'degraded', `${reason} ${remedy}`)
    Object.assign(facts, { nodes: seen.nodes.join(', '), members: seen.members.join(', ') })
    await this.#describeSegment(facts)
    return { status, reasons, facts, storedBytes: this.#storedBytes() }
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return
    const closed = new SluiceError('CLOSED')
    this.#closing.abort(closed)
    this.#granted?.tail.end(closed)
    this.#election.leave()
    this.#wakeWaiters()
    if (this.#awayTimer !== null) clearTimeout(this.#awayTimer)
    await Promise.all([this.#reader.close(), this.#writer.close()])
  }

  // -- connections

  async #setUpReader(model: ChannelModel): Promise<void> {
    await declareTopology(model, this.#settings.namespace)
    await this.#granted?.tail.attach(model)
    await this.#letters?.attach(model)
    this.#attachElection(model)
  }

  /** Not waited for: an owner goes on without its queue. */
  #attachElection(model: ChannelModel): void {
    this.#election.attach(model).catch(async () => {
      await delay(1_000, undefined, { signal: this.#closing.signal }).catch(() => {})
      if (this.#reader.model === model && !this.#closing.signal.aborted) this.#attachElection(model)
    })
  }

  #ring(queue: string): void {
    try {
      this.#publishingChannel(this.#out)?.publish('', queue, Buffer.alloc(0), { deliveryMode: 2 })
    } catch {
      // The channel has just ended. It is rung again.
    }
  }

  async #setUpWriter(model: ChannelModel): Promise<void> {
    const out = await openChannel(model, (reason) => this.#out === out && this.#writer.reset(reason))
    out.on(
      'return',
      ({ fields }: { fields: { routingKey: string } }) => void this.#granted?.tail.returned(fields.routingKey),
    )
    this.#lettersOut = await openChannel(model, (reason) => {
      if (this.#out !== out) return
      this.#writer.reset(reason)
      // Somebody deleted the exchange of letters: whoever sets the reader up declares it, and binds the mailbox, again.
      if (codeOf(reason) === 404) this.#reader.reset(reason)
    })
    this.#out = out
  }

  #up(): void {
    if (this.#reader.model === null || this.#writer.model === null) return
    if (this.#awayTimer !== null) clearTimeout(this.#awayTimer)
    this.#awayTimer = null
    this.#wakeWaiters()
  }

  #down(): void {
    if (this.#writer.model === null) this.#out = null
    this.#awayTimer ??= setTimeout(() => {
      this.#awayTimer = null
      const reason = `RabbitMQ could not be reached for ${AWAY_MS} ms, and gave the journal to others.`
      this.#granted?.tail.end(new SluiceError('UNREACHABLE', reason))
    }, AWAY_MS).unref()
  }

  #wakeWaiters(): void {
    const waiters = this.#upWaiters
    this.#upWaiters = []
    for (const wake of waiters) wake()
  }

  async #untilUp(signal: AbortSignal): Promise<{ readonly model: ChannelModel; readonly out: ConfirmChannel }> {
    for (;;) {
      signal.throwIfAborted()
      const { model } = this.#reader
      const out = this.#publishingChannel(this.#out)
      if (model !== null && out !== null) return { model, out }
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#upWaiters.push(resolve)
      signal.addEventListener('abort', () => resolve(), { once: true })
      await promise
    }
  }

  /** Does it again on new connections, until it succeeds or fails for a reason that stays. */
  async #retry<T>(signal: AbortSignal, act: (model: ChannelModel) => Promise<T>): Promise<T> {
    for (;;) {
      const { model } = await this.#untilUp(signal)
      try {
        return await act(model)
      } catch (error) {
        signal.throwIfAborted()
        if (error instanceof SluiceError) throw error
        await delay(100, undefined, { signal }).catch(() => {})
      }
    }
  }

  #publishingChannel(channel: ConfirmChannel | null): ConfirmChannel | null {
    return this.#writer.model === null ? null : channel
  }

  #fullReason(): string | null {
    const { blocked } = this.#writer
    if (blocked === null) return null
    return `RabbitMQ holds publishers back (${blocked}). Free disk or memory on its nodes, or raise disk_free_limit or vm_memory_high_watermark.`
  }

  // -- owning

  async #takeEpoch(stop: AbortSignal): Promise<CatalogState> {
    const note = encodeNote({ grant: true })
    const state = await this.#retry(stop, async (model) => {
      await this.#publishNote(note)
      return readCatalog(model, catalogOf(this.#settings.namespace), note.id)
    })
    if (state.epoch <= this.#seenEpoch)
      throw new SluiceError('ENGINE_CHANGED', undefined, { epoch: state.epoch, seenEpoch: this.#seenEpoch })
    this.#seenEpoch = state.epoch
    return state
  }

  async #take({ epoch, made, sealed, first, gone }: CatalogState, stop: AbortSignal): Promise<Grant> {
    const segment = Math.max(first, sealed + 1)
    if (made < 0) await delay(REGISTERED_MS, undefined, { signal: stop })
    await this.#retry(stop, (model) =>
      segment > made ? this.#makeSegment(model, segment) : this.#checkSegment(model, segment),
    )
    stop.throwIfAborted()
    const end = new AbortController()
    const tail = new Tail(this.#settings.namespace, epoch, segment, {
      channel: () => this.#publishingChannel(this.#out),
      reset: (reason) => {
        this.#reader.reset(reason)
        this.#writer.reset(reason)
      },
      onEnd: (reason) => {
        if (this.#granted?.tail === tail) {
          this.#granted = null
          this.#election.leave()
          this.#letters?.serveOwner(false)
        }
        end.abort(reason)
      },
    })
    const grant: Grant = { epoch, signal: end.signal }
    const signal = AbortSignal.any([end.signal, this.#closing.signal])
    this.#granted = { grant, tail, signal, first, prepared: segment, isPreparing: false }
    const { model } = this.#reader
    if (model !== null) await tail.attach(model).catch((error) => this.#reader.reset(error))
    if (gone < first) this.#retry(signal, () => this.#deleteSegments(gone, first)).catch(() => {})
    return grant
  }

  async #makeSegment(model: ChannelModel, segment: number): Promise<void> {
    const name = segmentOf(this.#settings.namespace, segment)
    await declareQueue(model, name, { arguments: STREAM_ARGUMENTS })
    await this.#checkCopies(name)
    await this.#note({ made: segment })
  }

  async #checkSegment(model: ChannelModel, segment: number): Promise<void> {
    const name = segmentOf(this.#settings.namespace, segment)
    if (await hasQueue(model, name)) return
    throw new SluiceError('ENGINE_CHANGED', `The stream '${name}' is not in RabbitMQ any more: it was deleted.`, {
      stream: name,
    })
  }

  /** A stream that was declared while nodes were down has fewer members than what was promised. */
  async #checkCopies(name: string): Promise<void> {
    const { management: url, vhost } = this.#target
    if (url === null || this.#settings.copies === 1) return
    const management = new Management(url, vhost)
    const members = await management.membersOf(name, await management.nodes())
    if (majorityOf(members.length) < this.#settings.copies)
      throw new Error(`'${name}' has too few members: ${members.join(', ')}`)
  }

  /** Has the next segment made, while this one still grows. */
  #prepare(granted: Granted): void {
    const segment = granted.tail.segment + 1
    if (granted.prepared >= segment || granted.isPreparing) return
    const { model } = this.#reader
    if (model === null) return
    granted.isPreparing = true
    this.#makeSegment(model, segment)
      .then(
        () => (granted.prepared = segment),
        // It is tried again with the next append.
        () => {},
      )
      .finally(() => (granted.isPreparing = false))
  }

  async #roll({ tail, signal }: Granted): Promise<JournalOutcome> {
    const { segment } = tail
    const outcome = await tail.seal()
    if (outcome.status === 'durable') this.#retry(signal, () => this.#note({ sealed: segment })).catch(() => {})
    return outcome
  }

  async #deleteSegments(from: number, until: number): Promise<void> {
    const { model } = await this.#untilUp(this.#closing.signal)
    for (let segment = from; segment < until; segment++)
      await deleteQueue(model, segmentOf(this.#settings.namespace, segment))
    await this.#note({ gone: until })
  }

  #note(note: CatalogNote): Promise<void> {
    return this.#publishNote(encodeNote(note))
  }

  #publishNote({ bytes }: { readonly bytes: Buffer }): Promise<void> {
    const channel = this.#publishingChannel(this.#out)
    if (channel === null) return Promise.reject(new Error('There is no connection to RabbitMQ'))
    return new Promise((resolve, reject) => {
      channel.publish(
        '',
        catalogOf(this.#settings.namespace),
        bytes,
        { messageId: CATALOG_ID, deliveryMode: 2, mandatory: true },
        (error) => (error ? reject(error) : resolve()),
      )
    })
  }

  #block(): void {
    const full = this.#fullReason()
    if (full === null) return
    this.#letters?.giveUp()
    void this.#granted?.tail.giveUp(full)
  }

  /** RabbitMQ does not tell. Of the owner: whole segments, and what is in the last one. */
  #storedBytes(): number {
    if (this.#granted === null) return 0
    const { tail, first } = this.#granted
    return (tail.segment - first) * this.#target.segmentBytes + tail.segmentBytes
  }

  async #describeSegment(facts: Record<string, string>): Promise<void> {
    const { management, vhost } = this.#target
    const tail = this.#granted?.tail
    if (management === null || tail === undefined) return
    facts['segment'] = String(tail.segment)
    try {
      const queue = await new Management(management, vhost).queue(segmentOf(this.#settings.namespace, tail.segment))
      facts['leader'] = queue?.leader ?? 'unknown'
    } catch {
      facts['leader'] = 'unknown'
    }
  }
}

// biome-ignore lint/correctness/useYield: it has nothing to give but the error.
async function* replayNothing(error: SluiceError): AsyncGenerator<JournalEntry> {
  throw error
}
