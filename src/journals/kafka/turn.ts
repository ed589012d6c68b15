/**
 * Whose turn it is to own the journal. The topic NAMESPACE.owner is a sequence of small records, and everybody who reads it
 * comes to the same answer:
 *
 *     take     makes its writer the holder, if there is none, or the last beat of the holder is LEASE_MS older
 *     beat     the holder says that it is alive; anybody else's is overlooked
 *     release  the holder gives the turn up
 *
 * The time of a record is the broker's (LogAppendTime), so nobody's clock matters. Who wants the turn reads the last records,
 * waits until there is no holder or until it was silent for long, writes a `take`, and looks whether that made it the holder.
 *
 * A turn is not what makes the journal safe: that is the grant record and the places of entries (writer.ts), which hold
 * though two processes believe that it is their turn. It only keeps them from taking the journal from each other all the time.
 * A consumer group would do the same, but dies no faster than its smallest session (6 s), stops for every member that
 * comes, and needs two more topics and rights.
 */
import type { Answer } from './answer.ts'
import { listOffset } from './check.ts'
import { backOffMs, type Cluster, type Line, pause } from './cluster.ts'
import { decodeKey, encodeKey, fetchRecords, type Produced, produce, type RecordKind } from './records.ts'

/** How long a holder may be silent. */
export const LEASE_MS = 8_000
const BEAT_MS = 1_000
/** How long the holder goes on without a word from the broker, where nobody else took the turn. */
const PATIENCE_MS = 60_000
/** A holder beats within a few of these, however many wait for its end. */
const LAST_RECORDS = 500n
const POLL_MS = 1_000
const REQUEST_MS = 5_000

export interface Turn {
  /** Of the grant, for who looks at the topic. */
  setEpoch(epoch: number): void
  /** Gives it up, so that another has it at once, or just stops. */
  end(release: boolean): Promise<void>
}

/** Aborts with `closing`. What ended it, otherwise, goes to `onEnd`, once. */
export class Turns {
  readonly #cluster: Cluster
  readonly #topic: string
  readonly #address: string
  readonly #line: Line
  /** Where the next record that was not read stands; null: where the reading begins is not known. */
  #next: bigint | null = null
  /** null: nobody. undefined: what was read so far does not tell. */
  #holder: { readonly address: string; readonly lastMs: number } | null | undefined = undefined
  /** By the clock of this process, when the holder was last heard of. */
  #heardMs = performance.now()

  constructor(cluster: Cluster, topic: string, address: string) {
    this.#cluster = cluster
    this.#topic = topic
    this.#address = address
    this.#line = cluster.openLine(topic)
  }

  /** Waits for the turn and takes it; null when `signal` aborts. */
  async take(signal: AbortSignal, onEnd: (text: string) => void): Promise<Turn | null> {
    this.#next = null
    const hurry = () => this.#line.close()
    signal.addEventListener('abort', hurry, { once: true })
    try {
      return await this.#wait(signal, onEnd)
    } finally {
      signal.removeEventListener('abort', hurry)
    }
  }

  async #wait(signal: AbortSignal, onEnd: (text: string) => void): Promise<Turn | null> {
    // The first attempt costs nothing, and the time of its record tells whether the holder is long gone.
    let isDue = true
    for (let failures = 0; !signal.aborted; ) {
      const began = performance.now()
      const came = isDue ? await this.#tryToTake() : await this.#read(POLL_MS)
      // A broker that was away or frozen took nobody's beats: that is not the silence of the holder.
      if (!came.ok || performance.now() - began > 2 * POLL_MS) this.#heardMs = performance.now()
      if (!came.ok) {
        await pause(backOffMs(failures++), signal)
        continue
      }
      failures = 0
      if (this.#holder?.address === this.#address) {
        if (!signal.aborted) return this.#keep(onEnd)
        await this.#write('release', 0)
        break
      }
      const isSilent = performance.now() - this.#heardMs > LEASE_MS
      isDue = this.#holder === null || isSilent
      // One attempt for each silence: the next comes after another one.
      if (isSilent) this.#heardMs = performance.now()
    }
    return null
  }

  async #tryToTake(): Promise<Answer<null>> {
    if (this.#next === null) {
      const begun = await this.#begin()
      if (!begun.ok) return begun
    }
    const written = await this.#write('take', 0)
    return written.ok ? this.#readTo(written.value.baseOffset) : written
  }

  #keep(onEnd: (text: string) => void): Turn {
    let epoch = 0
    const ended = new AbortController()
    const finish = (text: string) => {
      if (ended.signal.aborted) return
      ended.abort()
      onEnd(text)
    }
    const beating = (async () => {
      let lastMs = performance.now()
      while (!ended.signal.aborted) {
        await pause(BEAT_MS, ended.signal)
        if (ended.signal.aborted) return
        const expected = this.#next
        const beat = await this.#write('beat', epoch)
        let read: Answer<unknown> = beat
        if (beat.ok && beat.value.baseOffset === expected) this.#next = expected + 1n
        else if (beat.ok) read = await this.#readTo(beat.value.baseOffset)
        if (read.ok) lastMs = performance.now()
        if (this.#holder?.address !== this.#address) finish('Another process has taken the journal over.')
        else if (performance.now() - lastMs > PATIENCE_MS)
          finish(`Kafka did not answer for ${PATIENCE_MS / 1_000} s${read.ok ? '' : `: ${read.text}`}.`)
      }
    })().catch((error: unknown) => finish(`Whose turn it is cannot be read: ${error}`))
    return {
      setEpoch: (value) => {
        epoch = value
      },
      end: async (release) => {
        ended.abort()
        await beating
        if (release && this.#holder?.address === this.#address) await this.#write('release', epoch)
      },
    }
  }

  #write(kind: RecordKind, epoch: number): Promise<Answer<Produced>> {
    const record = { key: encodeKey(kind, epoch), value: Buffer.from(this.#address) }
    const { library } = this.#cluster
    return this.#line.call((connection) =>
      produce(library, connection, [record], { topic: this.#topic, acks: -1, timeoutMs: REQUEST_MS }),
    )
  }

  /** Reads the last records. */
  async #begin(): Promise<Answer<null>> {
    const latest = await listOffset(this.#cluster, this.#line, this.#topic, -1n)
    if (!latest.ok) return latest
    const earliest = await listOffset(this.#cluster, this.#line, this.#topic, -2n)
    if (!earliest.ok) return earliest
    const from = latest.value - LAST_RECORDS
    this.#holder = from > 0n ? undefined : null
    this.#next = from > earliest.value ? from : earliest.value
    const read = await this.#readTo(latest.value - 1n)
    // Nobody beats among so many records: then nobody holds the turn.
    this.#holder ??= null
    return read
  }

  async #readTo(last: bigint): Promise<Answer<null>> {
    while (this.#next === null || this.#next <= last) {
      const read = await this.#read(POLL_MS)
      if (!read.ok) return read
    }
    return { ok: true, value: null }
  }

  async #read(waitMs: number): Promise<Answer<null>> {
    if (this.#next === null) return this.#begin()
    const offset = this.#next
    const { library } = this.#cluster
    const piece = await this.#line.call((connection, { topicId }) =>
      fetchRecords(library, connection, { topicId, offset, waitMs, maxBytes: 1024 ** 2 }),
    )
    if (!piece.ok) {
      // Its records were removed meanwhile, or the topic is another one: begin anew.
      if (piece.code === 'OFFSET_OUT_OF_RANGE') this.#next = null
      return piece
    }
    for (const { key, value, timestampMs } of piece.value.records) {
      const head = decodeKey(key)
      if (head !== null) this.#apply(head.kind, value.toString(), timestampMs)
    }
    this.#next = piece.value.next
    return { ok: true, value: null }
  }

  #apply(kind: RecordKind, address: string, timeMs: number): void {
    const holder = this.#holder
    if (kind === 'release') {
      if (holder?.address === address) this.#holder = null
      return
    }
    const isHolder = holder?.address === address
    // Where the reading began after the take of the holder, its beats tell who it is.
    const isBeat = kind === 'beat' && (holder === undefined || isHolder)
    const isFree = holder === null || (holder !== undefined && timeMs - holder.lastMs >= LEASE_MS)
    const isTake = kind === 'take' && (isFree || isHolder)
    if (!isBeat && !isTake) return
    this.#holder = { address, lastMs: timeMs }
    this.#heardMs = performance.now()
  }
}
