/**
 * How entries, grants and turns stand in Kafka's records, and how they are written and read.
 *
 *     key of a record in NAMESPACE.journal and NAMESPACE.owner, 12 bytes
 *     0  2  'SL'
 *     2  1  the version of this format, 1
 *     3  1  kind: 'e' entry, 'g' grant (journal); 't' take, 'b' beat, 'r' release (owner)
 *     4  8  the epoch of who wrote it, big-endian; 0 where it has none yet
 *
 * The value is the entry, byte for byte; of the others, the address of who wrote it. The checksum of Kafka's batches covers
 * both, and is verified on every read.
 */
import type { Connection, Reader } from '@platformatic/kafka'
import { SluiceError } from '../../errors.ts'
import type { Answer } from './answer.ts'
import { readFailure } from './answer.ts'

/** What the client library exports; loaded by name, as it is an optional peer. */
export type KafkaLibrary = typeof import('@platformatic/kafka')

export type RecordKind = 'entry' | 'grant' | 'take' | 'beat' | 'release'

const KINDS: Readonly<Record<RecordKind, number>> = { entry: 0x65, grant: 0x67, take: 0x74, beat: 0x62, release: 0x72 }
const KIND_OF = new Map(Object.entries(KINDS).map(([kind, byte]) => [byte, kind as RecordKind]))
const KEY_BYTES = 12
const MARK = 0x53_4c_01

export interface RecordHead {
  readonly kind: RecordKind
  readonly epoch: number
}

export function encodeKey(kind: RecordKind, epoch: number): Buffer {
  const key = Buffer.allocUnsafe(KEY_BYTES)
  key.writeUIntBE(MARK, 0, 3)
  key[3] = KINDS[kind]
  key.writeBigUInt64BE(BigInt(epoch), 4)
  return key
}

/** null: it is not one of ours. */
export function decodeKey(key: Buffer | null): RecordHead | null {
  if (key === null || key.byteLength !== KEY_BYTES || key.readUIntBE(0, 3) !== MARK) return null
  const kind = KIND_OF.get(key[3] as number)
  return kind === undefined ? null : { kind, epoch: Number(key.readBigUInt64BE(4)) }
}

/** A view of bytes as the client library wants them. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

export interface StoredRecord {
  readonly offset: bigint
  /** When the broker took it, in milliseconds. */
  readonly timestampMs: number
  readonly key: Buffer | null
  readonly value: Buffer
}

export interface Produced {
  readonly baseOffset: bigint
  readonly timestampMs: number
}

export interface ProduceOptions {
  readonly topic: string
  /** -1: all replicas in sync; 1: the leader. */
  readonly acks: -1 | 1
  readonly timeoutMs: number
  /** Of an idempotent producer. */
  readonly producer?: { readonly id: bigint; readonly epoch: number; readonly sequence: number } | undefined
}

/** Writes one batch. */
export async function produce(
  library: KafkaLibrary,
  connection: Connection,
  records: readonly { readonly key: Buffer; readonly value: Buffer }[],
  { topic, acks, timeoutMs, producer }: ProduceOptions,
): Promise<Answer<Produced>> {
  const messages = records.map(({ key, value }) => ({ topic, partition: 0, key, value }))
  const identity =
    producer === undefined
      ? { producerId: -1n, producerEpoch: -1, firstSequence: -1 }
      : { producerId: producer.id, producerEpoch: producer.epoch, firstSequence: producer.sequence }
  // The library takes the first sequence number from a map of those of all partitions.
  const sequences = { getWithDefault: () => identity.firstSequence }
  try {
    const answer = await library.produceV11.api.async(connection, acks, timeoutMs, messages, {
      ...identity,
      compression: 'none',
      sequences: sequences as never,
    })
    const [one] = typeof answer === 'boolean' ? [] : (answer.responses[0]?.partitionResponses ?? [])
    if (one === undefined) return { ok: false, code: 'OTHER', wasSent: true, text: 'the answer has no partition' }
    return { ok: true, value: { baseOffset: one.baseOffset, timestampMs: Number(one.logAppendTimeMs) } }
  } catch (error) {
    return readFailure(error, true)
  }
}

export interface FetchOptions {
  readonly topicId: string
  readonly offset: bigint
  /** How long the broker waits for a first byte. */
  readonly waitMs: number
  readonly maxBytes: number
}

export interface Fetched {
  readonly records: readonly StoredRecord[]
  /** Where the next fetch begins. */
  readonly next: bigint
  readonly highWatermark: bigint
  /** Bytes of all records that came, of which those returned are views. */
  readonly bytes: number
}

/** Reads a piece from an offset on. At least one batch comes, however long it is. Throws CORRUPT. */
export async function fetchRecords(
  library: KafkaLibrary,
  connection: Connection,
  { topicId, offset, waitMs, maxBytes }: FetchOptions,
): Promise<Answer<Fetched>> {
  const partition = {
    partition: 0,
    currentLeaderEpoch: -1,
    fetchOffset: offset,
    lastFetchedEpoch: -1,
    partitionMaxBytes: maxBytes,
  }
  const write = () =>
    library.fetchV17.createRequest(waitMs, 1, maxBytes, 0, 0, -1, [{ topicId, partitions: [partition] }], [], '')
  let raw: RawFetch
  try {
    raw = await new Promise<RawFetch>((resolve, reject) => {
      const read = (_: number, key: number, version: number, reader: Reader) => readFetch(library, key, version, reader)
      connection.send<RawFetch>(1, 17, write, read, true, true, (error, value) => {
        if (error == null && value !== undefined) resolve(value)
        else reject(error ?? new Error('no answer'))
      })
    })
  } catch (error) {
    return readFailure(error, true)
  }
  return { ok: true, value: { ...splitBatches(library, raw.batches, offset), highWatermark: raw.highWatermark } }
}

interface RawFetch {
  readonly highWatermark: bigint
  readonly batches: Buffer
}

/** The answer to a fetch of one partition. Its batches stay as they came, so that their checksums can be verified. */
function readFetch(library: KafkaLibrary, apiKey: number, apiVersion: number, reader: Reader): RawFetch {
  reader.readInt32() // throttle time
  const errorCode = reader.readInt16()
  reader.readInt32() // session
  const found: RawFetch[] = []
  const codes = errorCode === 0 ? [] : [errorCode]
  reader.readArray(
    () => {
      reader.readUUID()
      reader.readArray(
        () => {
          reader.readInt32() // partition
          const code = reader.readInt16()
          if (code !== 0) codes.push(code)
          const highWatermark = reader.readInt64()
          reader.readInt64() // last stable offset
          reader.readInt64() // start of the log
          reader.readNullableArray(() => {
            reader.readInt64()
            reader.readInt64()
          })
          reader.readInt32() // preferred replica
          const length = Math.max(0, reader.readUnsignedVarInt() - 1)
          const batches =
            length === 0 ? Buffer.alloc(0) : reader.buffer.slice(reader.position, reader.position + length)
          reader.skip(length)
          found.push({ highWatermark, batches })
        },
        true,
        true,
      )
    },
    true,
    true,
  )
  const [code] = codes
  if (code !== undefined) throw new library.ResponseError(apiKey, apiVersion, { '': [code, null] }, null)
  const [one] = found
  if (one === undefined) throw new Error('the answer has no partition')
  return one
}

const BATCH_HEAD = 12
/** The checksum covers everything behind itself. */
const CRC_AT = 17
const CRC_FROM = 21

function splitBatches(library: KafkaLibrary, batches: Buffer, from: bigint): Omit<Fetched, 'highWatermark'> {
  const records: StoredRecord[] = []
  let next = from
  // The last batch of a piece may be cut short: it comes whole with the next fetch.
  for (let at = 0; at + BATCH_HEAD < batches.byteLength; ) {
    const end = at + BATCH_HEAD + batches.readInt32BE(at + 8)
    if (end > batches.byteLength) break
    const bytes = batches.subarray(at, end)
    const base = bytes.readBigInt64BE(0)
    if (library.crc32c(bytes.subarray(CRC_FROM)) !== bytes.readUInt32BE(CRC_AT))
      throw new SluiceError('CORRUPT', `The checksum of the batch at offset ${base} does not match: it is damaged.`)
    const batch = library.readRecordsBatch(library.Reader.from(bytes))
    const isLogAppendTime = (batch.attributes & 8) !== 0
    for (const { key, value, offsetDelta, timestampDelta } of batch.records) {
      const offset = base + BigInt(offsetDelta)
      if (offset < from) continue
      const timestampMs = Number(isLogAppendTime ? batch.maxTimestamp : batch.firstTimestamp + timestampDelta)
      records.push({ offset, timestampMs, key, value: value ?? Buffer.alloc(0) })
    }
    next = base + BigInt(batch.lastOffsetDelta) + 1n
    at = end
  }
  return { records, next: next > from ? next : from, bytes: batches.byteLength }
}
