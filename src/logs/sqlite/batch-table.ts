/**
 * The batches of every topic, in order, and where each topic begins and ends.
 *
 * Where a topic ends is known in memory from the moment it is declared, so that a read can tell a batch that is missing
 * from one that was never written: what lies between the two ends is there, whole and without a gap, or it is damage
 * (P13). The checksum of a row binds the batch's own one to its place; the batch's own covers its bytes.
 *
 * Trimming deletes in slices that ride on later commits, so that none of them stalls: what a commit adds is the measure
 * of what it may take away, twice over, so that the store does not grow while it is drained as fast as it is filled.
 */
import { strict as assert } from 'node:assert'
import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { crc32 } from 'node:zlib'
import { SluiceError } from '../../errors.ts'
import { findBatchDamage } from '../../message-batch.ts'
import type { LogExtent, LogTopic, StoredBatch } from '../contract.ts'
import { MAX_TOPIC_ID, prepareRows, TOPIC_SPAN } from './database.ts'

/** The size of a batch's header, which no message's size counts (see message-batch.ts). */
const BATCH_HEADER_BYTES = 16
/** What a commit may trim at least, in bytes and in batches, whatever it adds. */
const TRIM_BYTES = 131_072
const TRIM_BATCHES = 64

type Row = [base: number, count: number, at: number, startBytes: number, sum: number, bytes: Uint8Array]
type TopicRow = [name: string, earliest: number, trimTo: number, sum: number]

/** Where a topic begins and ends, as far as committed. */
interface Place {
  readonly id: number
  readonly name: string
  earliest: number
  head: number
  headBytes: number
  lastAtMs: number
  trimTo: number
}

const NOWHERE: Place = { id: 0, name: '', earliest: 0, head: 0, headBytes: 0, lastAtMs: 0, trimTo: 0 }

export class BatchTable {
  rowsRead = 0
  readonly #places = new Map<number, Place>()
  /** Topics with batches that may be deleted. */
  readonly #trimming = new Set<Place>()
  /** What the open transaction changed, to be forgotten when it fails: copies of places as they were. */
  readonly #before = new Map<Place, Place>()
  readonly #added: Place[] = []
  readonly #damaged: (what: string) => never
  readonly #findTopic: StatementSync
  readonly #putTopic: StatementSync
  readonly #insert: StatementSync
  readonly #first: StatementSync
  readonly #holding: StatementSync
  readonly #after: StatementSync
  readonly #oldest: StatementSync
  readonly #deleteBelow: StatementSync
  readonly #sumCounts: StatementSync
  readonly #sumBytes = Buffer.alloc(48)

  constructor(database: DatabaseSync, damaged: (what: string) => never) {
    this.#damaged = damaged
    // Shifts and not products: numbers are bound as doubles, which a row id of 63 bits does not fit into.
    const base = `id & ${TOPIC_SPAN - 1}`
    const within = (from: string, to: string) => `id >= ((?1 << 45) | ${from}) AND id < ((?1 << 45) + ${to})`
    const row = `${base}, count, at, start_bytes, sum, bytes`
    this.#findTopic = prepareRows(database, 'SELECT name, earliest, trim_to, sum FROM topic WHERE id = ?')
    this.#putTopic = database.prepare(
      'INSERT INTO topic VALUES(?, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE SET earliest = excluded.earliest, trim_to = excluded.trim_to, sum = excluded.sum',
    )
    this.#insert = database.prepare(`INSERT INTO batch VALUES((?1 << 45) | ?2, ?3, ?4, ?5, ?6, ?7)`)
    this.#first = prepareRows(
      database,
      `SELECT ${row} FROM batch WHERE ${within('0', String(TOPIC_SPAN))} ORDER BY id LIMIT 1`,
    )
    this.#holding = prepareRows(
      database,
      `SELECT ${row} FROM batch WHERE ${within('0', '(?2 + 1)')} ORDER BY id DESC LIMIT 1`,
    )
    this.#after = prepareRows(
      database,
      `SELECT ${row} FROM batch WHERE ${within('?2', String(TOPIC_SPAN))} ORDER BY id`,
    )
    this.#oldest = prepareRows(
      database,
      `SELECT ${base}, count, length(bytes) FROM batch WHERE ${within('0', '?2')} ORDER BY id LIMIT ?3`,
    )
    this.#deleteBelow = database.prepare(`DELETE FROM batch WHERE ${within('0', '?2')}`)
    this.#sumCounts = prepareRows(
      database,
      `SELECT coalesce(sum(count), 0) FROM batch WHERE ${within('0', String(TOPIC_SPAN))}`,
    )
  }

  /** Whether `declare` will write, so that it needs a transaction. */
  isNew(topic: LogTopic): boolean {
    return !this.#places.has(topic.id) && this.#findTopic.get(topic.id) === undefined
  }

  declare(topic: LogTopic): LogExtent {
    const place = this.#places.get(topic.id) ?? this.#load(topic)
    assert(place.name === topic.name, `topic ${topic.id} is ${place.name}, not ${topic.name}`)
    return { topic: place.id, partition: 0, earliest: place.earliest, head: place.head, headBytes: place.headBytes }
  }

  /** Appends at the head, within the transaction of the caller. */
  append(batch: StoredBatch): void {
    const place = this.#place(batch.topic)
    assert(batch.baseOffset === place.head, `topic ${place.name} goes on at ${place.head}, not at ${batch.baseOffset}`)
    assert(
      batch.startBytes === place.headBytes,
      `topic ${place.name} has ${place.headBytes} bytes, not ${batch.startBytes}`,
    )
    assert(batch.timestampMs >= place.lastAtMs, `the time of topic ${place.name} does not fall`)
    assert(
      batch.partition === 0 && batch.count > 0 && place.head + batch.count < TOPIC_SPAN,
      'a batch is within its bounds',
    )
    const { topic, baseOffset, count, timestampMs, startBytes, bytes } = batch
    this.#insert.run(
      topic,
      baseOffset,
      count,
      timestampMs,
      startBytes,
      this.#sumOf(topic, baseOffset, count, timestampMs, startBytes, bytes),
      bytes,
    )
    this.#remember(place)
    place.head += count
    place.headBytes += bytes.byteLength - BATCH_HEADER_BYTES
    place.lastAtMs = timestampMs
  }

  read(topic: number, offset: number, maxBytes: number): readonly StoredBatch[] {
    const place = this.#place(topic)
    if (offset >= place.head) return []
    const found: StoredBatch[] = []
    let next = Math.max(offset, place.earliest)
    let row = this.#holding.get(topic, next) as unknown as Row | undefined
    if (row === undefined || next >= row[0] + row[1]) this.#missing(place, next)
    found.push(this.#verify(place, row as Row))
    next = (row as Row)[0] + (row as Row)[1]
    let bytes = (row as Row)[5].byteLength
    if (bytes < maxBytes && next < place.head) {
      // Leaving the loop early resets the statement: an open one would keep a checkpoint from finishing.
      for (const later of this.#after.iterate(topic, next)) {
        row = later as unknown as Row
        if (row[0] !== next) this.#missing(place, next)
        found.push(this.#verify(place, row))
        next = row[0] + row[1]
        bytes += row[5].byteLength
        if (bytes >= maxBytes || next >= place.head) break
      }
      if (bytes < maxBytes && next < place.head) this.#missing(place, next)
    }
    if (next > place.head) this.#damaged(`topic ${place.name} goes on past its end at ${place.head}`)
    this.rowsRead += found.length
    return found
  }

  trim(topic: number, offset: number): void {
    const place = this.#place(topic)
    place.trimTo = Math.max(place.trimTo, Math.min(offset, place.head))
    if (place.trimTo > place.earliest) this.#trimming.add(place)
  }

  /** Deletes a slice of what may go, within the transaction of the caller, which adds `addedBytes`. */
  trimSlice(addedBytes: number): void {
    let bytes = TRIM_BYTES + 2 * addedBytes
    for (const place of this.#trimming) {
      if (bytes <= 0) return
      const rows = this.#oldest.all(place.id, place.trimTo, TRIM_BATCHES) as unknown as [number, number, number][]
      let below = place.earliest
      let isDone = rows.length < TRIM_BATCHES
      for (const [base, count, length] of rows) {
        if (base !== below) this.#missing(place, below)
        // Whole batches only, and never the newest: the place where the topic goes on is told by it.
        if (base + count > place.trimTo || base + count === place.head || bytes <= 0) {
          isDone = bytes > 0
          break
        }
        below = base + count
        bytes -= length
      }
      if (isDone) this.#trimming.delete(place)
      if (below === place.earliest) continue
      this.#remember(place)
      this.#deleteBelow.run(place.id, below)
      place.earliest = below
      this.#put(place)
    }
  }

  /** Puts a batch where it belongs, before its topic is declared, in whatever order they come and however often. */
  restore({ topic, baseOffset, count, timestampMs, startBytes, bytes }: StoredBatch): void {
    const held = this.#holding.get(topic, baseOffset) as unknown as Row | undefined
    if (held !== undefined && held[0] === baseOffset) return
    const sum = this.#sumOf(topic, baseOffset, count, timestampMs, startBytes, bytes)
    this.#insert.run(topic, baseOffset, count, timestampMs, startBytes, sum, bytes)
  }

  /** Declares a topic whose batches were all restored: drops those below `trimTo`, and what is left is without a gap. */
  declareRestored(id: number, name: string, trimTo: number): LogExtent {
    const last = this.#holding.get(id, TOPIC_SPAN - 1) as unknown as Row | undefined
    const keep = this.#holding.get(id, Math.min(trimTo, last?.[0] ?? 0)) as unknown as Row | undefined
    if (keep !== undefined) this.#deleteBelow.run(id, keep[0])
    const first = this.#first.get(id) as unknown as Row | undefined
    const earliest = first?.[0] ?? 0
    const head = last === undefined ? 0 : last[0] + last[1]
    const [count] = this.#sumCounts.get(id) as unknown as [number]
    if (count !== head - earliest || earliest > trimTo) this.#missing({ ...NOWHERE, id, name }, earliest)
    this.#put({ ...NOWHERE, id, name, earliest, trimTo })
    return this.declare({ id, name, partitions: 1 })
  }

  /** The transaction was committed: what it changed is so. */
  keep(): void {
    this.#before.clear()
    this.#added.length = 0
  }

  /** The transaction had no effect. */
  undo(): void {
    for (const [place, before] of this.#before) {
      Object.assign(place, before)
      if (place.trimTo > place.earliest) this.#trimming.add(place)
    }
    for (const place of this.#added) this.#places.delete(place.id)
    this.keep()
  }

  #load(topic: LogTopic): Place {
    assert(
      Number.isSafeInteger(topic.id) && topic.id > 0 && topic.id <= MAX_TOPIC_ID,
      `${topic.id} is the id of a topic`,
    )
    if (topic.partitions !== 1) {
      throw new SluiceError(
        'UNSUPPORTED',
        `A topic in a data folder has one partition; ${topic.name} asks for ${topic.partitions}.`,
      )
    }
    const stored = this.#findTopic.get(topic.id) as unknown as TopicRow | undefined
    const place: Place = { ...NOWHERE, id: topic.id, name: topic.name }
    if (stored === undefined) {
      this.#put(place)
      this.#added.push(place)
    } else {
      const [name, earliest, trimTo, sum] = stored
      Object.assign(place, { name, earliest, trimTo })
      if (sum !== sumOfTopic(place)) this.#damaged(`the checksum of topic ${topic.id} does not match`)
      const last = this.#holding.get(topic.id, TOPIC_SPAN - 1) as unknown as Row | undefined
      const first = this.#first.get(topic.id) as unknown as Row | undefined
      if ((first?.[0] ?? 0) !== earliest) this.#missing(place, earliest)
      if (last !== undefined) {
        const batch = this.#verify(place, last)
        place.head = batch.baseOffset + batch.count
        place.headBytes = batch.startBytes + batch.bytes.byteLength - BATCH_HEADER_BYTES
        place.lastAtMs = batch.timestampMs
      }
      if (place.trimTo > place.earliest) this.#trimming.add(place)
    }
    this.#places.set(topic.id, place)
    return place
  }

  #put(place: Place): void {
    this.#putTopic.run(place.id, place.name, place.earliest, place.trimTo, sumOfTopic(place))
  }

  #place(topic: number): Place {
    const place = this.#places.get(topic)
    assert(place !== undefined, `topic ${topic} is declared before it is used`)
    return place
  }

  #remember(place: Place): void {
    if (!this.#before.has(place)) this.#before.set(place, { ...place })
  }

  #verify(place: Place, [base, count, at, startBytes, sum, bytes]: Row): StoredBatch {
    if (bytes.byteLength < BATCH_HEADER_BYTES || sum !== this.#sumOf(place.id, base, count, at, startBytes, bytes)) {
      this.#damaged(`the checksum of the batch at offset ${base} of topic ${place.name} does not match`)
    }
    const damage = findBatchDamage(bytes)
    if (damage !== null) this.#damaged(`topic ${place.name} at offset ${base}: ${damage}`)
    return { topic: place.id, partition: 0, baseOffset: base, count, timestampMs: at, startBytes, bytes }
  }

  #missing(place: Place, offset: number): never {
    this.#damaged(`the batch at offset ${offset} of topic ${place.name} is missing`)
  }

  #sumOf(topic: number, base: number, count: number, at: number, startBytes: number, bytes: Uint8Array): number {
    const sum = this.#sumBytes
    sum.writeUInt32LE(topic, 0)
    sum.writeUInt32LE(count, 4)
    sum.writeDoubleLE(base, 8)
    sum.writeDoubleLE(at, 16)
    sum.writeDoubleLE(startBytes, 24)
    sum.writeUInt32LE(bytes.byteLength, 32)
    // The batch's own checksum covers all of its bytes.
    sum.set(bytes.subarray(0, 12), 36)
    return crc32(sum)
  }
}

function sumOfTopic(place: Place): number {
  return crc32(JSON.stringify([place.id, place.name, place.earliest, place.trimTo]))
}
