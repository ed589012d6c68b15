/**
 * The journal on Kafka 4: three topics of one partition each.
 *
 *     NAMESPACE.journal   entries, in the order that the partition has; what was truncated is deleted (DeleteRecords)
 *     NAMESPACE.owner     whose turn it is to own the journal: kafka/turn.ts
 *     NAMESPACE.letters   letters: kafka/mailbox.ts
 *
 * How entries are fenced and outcomes found out: kafka/writer.ts. What is demanded of the cluster: kafka/check.ts and
 * docs/kafka.md. Everything goes over single attempts with deadlines of our own: kafka/cluster.ts.
 *
 *     opened ──own──> waiting for the turn ──> granted ──> ended (lost, unknown, silence, close)
 *                            └──────────────<──own────────────┘
 */
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
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
import { readAddress } from './kafka/address.ts'
import { type Answer, readFailure } from './kafka/answer.ts'
import { type Checked, inspect, listOffset } from './kafka/check.ts'
import { backOffMs, Cluster, describeFailure, type Line, pause } from './kafka/cluster.ts'
import { describeHealth } from './kafka/health.ts'
import { type KafkaMailbox, openMailbox } from './kafka/mailbox.ts'
import { decodeKey, fetchRecords, type KafkaLibrary, type StoredRecord } from './kafka/records.ts'
import { createTopics, nameTopics, type Topics, waitForTopics } from './kafka/topics.ts'
import { LEASE_MS, type Turn, Turns } from './kafka/turn.ts'
import { Fence, PATIENCE_MS, Writer } from './kafka/writer.ts'

const CONNECT_MS = 10_000
const MAX_ENTRY_BYTES = 4 * 1024 ** 2
const MAX_LETTER_BYTES = 16 * 1024 ** 2
/** Read at once in a replay; twice that is in memory. */
const PIECE_BYTES = 4 * 1024 ** 2
const TRUNCATE_MS = 5_000

interface Held {
  readonly grant: Grant
  readonly writer: Writer
  readonly turn: Turn
  readonly end: (reason: SluiceError, release: boolean) => Promise<void>
}

/** Rejects with UNSUPPORTED, UNREACHABLE, UNAUTHENTICATED, FOREIGN_DATA or INVALID_OPTION. */
export async function openKafkaJournal(options: JournalOptions): Promise<Journal> {
  const { cluster, topics } = await reach(options)
  try {
    const signal = AbortSignal.timeout(options.connectMs ?? CONNECT_MS)
    let checked = await insist(cluster, signal, () => inspect(cluster, topics, wishesOf(options)))
    refuse(checked)
    if (checked.missing.length > 0) {
      const { missing, view } = checked
      await create(cluster, topics, missing, view.brokers.length, options)
      if (!(await waitForTopics(cluster, topics, AbortSignal.timeout(options.connectMs ?? CONNECT_MS))))
        throw new SluiceError('UNREACHABLE', `The topics of Sluice on Kafka at ${cluster.address.text} have no leader.`)
      // What somebody else made at the same time may be other than what was planned.
      checked = await insist(cluster, AbortSignal.timeout(CONNECT_MS), () =>
        inspect(cluster, topics, wishesOf(options)),
      )
      refuse(checked)
    }
    cluster.patienceMs = Number.POSITIVE_INFINITY
    cluster.disconnect()
    return new KafkaJournal(cluster, topics, checked)
  } catch (error) {
    cluster.close()
    throw error
  }
}

/** What opening would look at, and what came of it. Makes nothing. Rejects where the broker cannot be asked. */
export async function checkKafka(options: JournalOptions): Promise<Finding[]> {
  const { cluster, topics } = await reach(options)
  try {
    const signal = AbortSignal.timeout(options.connectMs ?? CONNECT_MS)
    const { findings } = await insist(cluster, signal, () => inspect(cluster, topics, wishesOf(options)))
    return [...findings]
  } finally {
    cluster.close()
  }
}

async function reach({ url, namespace, connectMs = CONNECT_MS }: JournalOptions) {
  const address = readAddress(url)
  const cluster = new Cluster(await loadLibrary(), address, `sluice-${namespace}`)
  cluster.patienceMs = connectMs
  return { cluster, topics: nameTopics(namespace) }
}

async function loadLibrary(): Promise<KafkaLibrary> {
  try {
    return await import('@platformatic/kafka')
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw cause
    const message =
      'Kafka needs the package @platformatic/kafka, which is not installed. Run `npm install @platformatic/kafka@2`.'
    throw new SluiceError('UNSUPPORTED', message, {}, cause)
  }
}

/** Asks until there is an answer. What will not be better by asking again is told at once. */
async function insist<T>(cluster: Cluster, signal: AbortSignal, ask: () => Promise<Answer<T>>): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    const answer = await ask()
    if (answer.ok) return answer.value
    const error = describeFailure(answer, cluster.address)
    if (error.code !== 'UNREACHABLE' || answer.code === 'TLS' || signal.aborted) throw error
    await pause(backOffMs(attempt), signal)
  }
}

function wishesOf({ durability, copies }: JournalOptions) {
  return { durability, copies }
}

function refuse({ findings, isForeign }: Checked): void {
  const refused = findings.filter(({ severity }) => severity === 'refuse')
  if (refused.length === 0) return
  const text = refused.map(({ title, reason, remedy }) => `${title}: ${reason} ${remedy}`).join(' ')
  throw new SluiceError(isForeign ? 'FOREIGN_DATA' : 'UNSUPPORTED', `Kafka cannot be used so. ${text}`, { findings })
}

async function create(
  cluster: Cluster,
  topics: Topics,
  missing: readonly (keyof Topics)[],
  brokers: number,
  options: JournalOptions,
): Promise<void> {
  const signal = AbortSignal.timeout(options.connectMs ?? CONNECT_MS)
  for (let attempt = 0; ; attempt++) {
    const made = await createTopics(cluster, topics, missing, brokers, wishesOf(options))
    if (made.ok) return
    const names = missing.map((kind) => topics[kind]).join(', ')
    if (/AUTHORIZATION|POLICY|INVALID/.test(made.code)) {
      const remedy = 'Allow it, or make them as docs/kafka.md shows.'
      throw new SluiceError(
        'UNSUPPORTED',
        `Kafka does not make the topics ${names} (${made.code}): ${made.text} ${remedy}`,
      )
    }
    if (signal.aborted) throw describeFailure(made, cluster.address)
    await pause(backOffMs(attempt), signal)
  }
}

class KafkaJournal implements Journal {
  readonly abilities: JournalAbilities
  readonly #cluster: Cluster
  readonly #topics: Topics
  readonly #checked: Checked
  /** Unique: under it the turn is held, and letters arrive. */
  readonly #address = `k-${randomBytes(9).toString('hex')}`
  readonly #turns: Turns
  readonly #writing: Line
  readonly #reading: Line
  readonly #closing = new AbortController()
  #held: Held | null = null
  #box: KafkaMailbox | null = null
  #owning: Promise<unknown> = Promise.resolve()
  #closed: Promise<void> | null = null
  /** Why the journal was not truncated; null: it was. */
  #truncateProblem: string | null = null

  constructor(cluster: Cluster, topics: Topics, checked: Checked) {
    this.#cluster = cluster
    this.#topics = topics
    this.#checked = checked
    const { durability, copies } = checked
    this.abilities = { durability, copies, maxEntryBytes: MAX_ENTRY_BYTES, maxLetterBytes: MAX_LETTER_BYTES }
    this.#turns = new Turns(cluster, topics.owner, this.#address)
    this.#writing = cluster.openLine(topics.journal)
    this.#reading = cluster.openLine(topics.journal)
  }

  async own(signal: AbortSignal): Promise<Grant> {
    const stop = AbortSignal.any([signal, this.#closing.signal])
    const before = this.#owning
    const owned = (async () => {
      await before.catch(() => {})
      return this.#own(stop)
    })()
    this.#owning = owned
    return owned
  }

  async #own(stop: AbortSignal): Promise<Grant> {
    await this.#held?.end(new SluiceError('UNREACHABLE', 'This process asked for the journal again.'), false)
    for (;;) {
      stop.throwIfAborted()
      const ended = new AbortController()
      const turn = await this.#turns.take(stop, (text) => ended.abort(new SluiceError('UNREACHABLE', text)))
      if (turn === null) continue
      const writer = await this.#fenceOff(AbortSignal.any([stop, ended.signal]))
      if (writer === null) {
        await turn.end(true)
        continue
      }
      turn.setEpoch(writer.epoch)
      const grant: Grant = { epoch: writer.epoch, signal: ended.signal }
      const held: Held = {
        grant,
        writer,
        turn,
        end: async (reason, release) => {
          if (this.#held === held) this.#held = null
          if (!ended.signal.aborted) ended.abort(reason)
          await turn.end(release)
        },
      }
      if (ended.signal.aborted || stop.aborted) {
        await held.end(new SluiceError('CLOSED'), true)
        continue
      }
      this.#held = held
      ended.signal.addEventListener('abort', () => void held.end(ended.signal.reason, true), { once: true })
      return grant
    }
  }

  async #fenceOff(signal: AbortSignal): Promise<Writer | null> {
    const [line, closing] = [this.#writing, this.#closing.signal]
    const options = { cluster: this.#cluster, line, topic: this.#topics.journal, address: this.#address, closing }
    for (let attempt = 0; !signal.aborted; attempt++) {
      const opened = await Writer.open(options)
      if (opened.ok) return opened.value
      await pause(backOffMs(attempt), signal)
    }
    return null
  }

  async append(grant: Grant, entries: readonly Uint8Array[]): Promise<JournalOutcome> {
    const held = this.#held
    if (held?.grant !== grant || grant.signal.aborted) return { status: 'lost' }
    try {
      const written = await held.writer.write(entries)
      if (written.status === 'lost')
        await held.end(new SluiceError('UNREACHABLE', 'Another process has taken the journal over.'), true)
      return written
    } catch (error) {
      if (error instanceof SluiceError) await held.end(error, true)
      throw error
    }
  }

  replay(grant: Grant): AsyncIterable<JournalEntry> {
    const least = this.#held?.grant === grant ? this.#held.writer.next : 0n
    const end = this.#find(-1n)
    // It is awaited with the first entry, if at all.
    end.catch(() => {})
    return this.#replay(end, least)
  }

  async *#replay(ending: Promise<bigint>, least: bigint): AsyncGenerator<JournalEntry> {
    const end = await ending
    if (end < least)
      throw new SluiceError('ENGINE_CHANGED', `The journal ends at offset ${end}, and had entries up to ${least}.`)
    const fence = new Fence()
    let next = await this.#find(-2n)
    let coming: Promise<readonly StoredRecord[]> | null = next < end ? this.#readPiece(next) : null
    while (coming !== null) {
      const records: readonly StoredRecord[] = await coming
      const last = records[records.length - 1]
      // The next piece comes while this one is worked on.
      coming = last !== undefined && last.offset + 1n < end ? this.#readPiece(last.offset + 1n) : null
      coming?.catch(() => {})
      for (const { offset, key, value } of records) {
        if (offset >= end) return
        // Nothing but entries and grants is ever written there, so no offset is left out.
        if (offset !== next) throw corrupt(`between offsets ${next} and ${offset} entries are missing`)
        const head = decodeKey(key)
        if (head === null) throw corrupt(`the record at offset ${offset} is not one that Sluice wrote`)
        next++
        if (fence.counts(head, offset)) yield { place: `${offset}`, bytes: value }
      }
    }
    if (next < end) throw corrupt(`entries from offset ${next} to ${end} are missing`)
  }

  #find(which: -1n | -2n): Promise<bigint> {
    return this.#insist(() => listOffset(this.#cluster, this.#reading, this.#topics.journal, which))
  }

  async #readPiece(offset: bigint): Promise<readonly StoredRecord[]> {
    const until = performance.now() + PATIENCE_MS
    for (let attempt = 0; ; attempt++) {
      const piece = await this.#insist(() =>
        this.#reading.call((connection, { topicId }) =>
          fetchRecords(this.#cluster.library, connection, { topicId, offset, waitMs: 1_000, maxBytes: PIECE_BYTES }),
        ),
      )
      // A leader that was just chosen gives nothing of what it does not know yet to be on all replicas: that is no damage.
      if (piece.records.length > 0 || performance.now() > until) return piece.records
      await pause(backOffMs(attempt), this.#closing.signal)
      this.#closing.signal.throwIfAborted()
    }
  }

  async #insist<T>(ask: () => Promise<Answer<T>>): Promise<T> {
    const signal = this.#closing.signal
    const until = performance.now() + PATIENCE_MS
    for (let attempt = 0; ; attempt++) {
      const answer = await ask()
      if (answer.ok) return answer.value
      signal.throwIfAborted()
      if (answer.code === 'OFFSET_OUT_OF_RANGE') throw corrupt('entries were removed while they were read')
      if (answer.code === 'OTHER' && /checksum|CORRUPT/.test(answer.text)) throw corrupt(answer.text)
      if (performance.now() > until) throw describeFailure(answer, this.#cluster.address)
      await pause(backOffMs(attempt), signal)
    }
  }

  async truncate(grant: Grant, place: string): Promise<void> {
    if (this.#held?.grant !== grant || grant.signal.aborted) return
    const { library } = this.#cluster
    const name = this.#topics.journal
    const answer = await this.#reading.call(async (connection) => {
      const partitions = [{ partitionIndex: 0, offset: BigInt(place) }]
      try {
        await library.deleteRecordsV2.api.async(connection, [{ name, partitions }], TRUNCATE_MS)
        return { ok: true, value: null }
      } catch (error) {
        return readFailure(error, true)
      }
    })
    // The next one does it as well, so only what lasts is a problem.
    this.#truncateProblem = answer.ok ? null : `The journal was not truncated: ${answer.text}`
  }

  async openMailbox(onLetter: (letter: Uint8Array) => void): Promise<Mailbox> {
    const box = await openMailbox(this.#cluster, this.#topics.letters, this.#address, onLetter)
    this.#box = box
    if (this.#closing.signal.aborted) await box.close()
    return box
  }

  health(): Promise<JournalHealth> {
    const { copies } = this.abilities
    const problems = [this.#truncateProblem, this.#box?.problem ?? null].filter((one) => one !== null)
    return describeHealth(this.#cluster, this.#topics, {
      copies,
      problems,
      metadataLevel: this.#checked.metadataLevel,
      appendedBytes: this.#held?.writer.appendedBytes ?? 0,
    })
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    const closed = new SluiceError('CLOSED')
    this.#closing.abort(closed)
    const gentle = new AbortController()
    const ends = [this.#held?.end(closed, true), this.#owning.catch(() => {}), this.#box?.close()]
    // Kafka may be gone: whoever waits for the turn takes it when it was silent for LEASE_MS.
    const late = sleep(Math.min(2_000, LEASE_MS), undefined, { signal: gentle.signal }).catch(() => {})
    await Promise.race([Promise.all(ends), late])
    gentle.abort()
    this.#cluster.close()
    await Promise.all(ends)
  }
}

function corrupt(what: string): SluiceError {
  return new SluiceError('CORRUPT', `The journal in Kafka is damaged: ${what}.`)
}
