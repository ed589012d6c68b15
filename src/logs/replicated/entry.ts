/**
 * What stands in a journal, entry by entry. Little endian:
 *
 *     at  size  what
 *      0     4  0x014A4C53 ("SLJ", version 1)
 *      4     4  CRC-32 (zlib) of all bytes from 8 on
 *      8     8  epoch of the owner that wrote it, a double
 *     16     8  number within its epoch: 0, 1, 2, …, a double
 *     24     8  engine id: 8 bytes of chance, made with the first base; 0 in a claim
 *     32     1  kind: 0 claim, 1 base, 2 part of a commit, 3 last part of a commit
 *     33     3  0
 *     36     4  part: 0, 1, 2, … of the commit that it belongs to
 *     40     …  body
 *
 * A claim (number 0) says that an owner begins; its body is empty. A base (number 1) follows when the owner has read all
 * up to its claim: JSON {after: [epoch, number], first: [epoch, number]}, the last entry that it went by and the first one
 * that must be kept, each null where there was none. A commit is the bodies of its parts, one behind the other:
 *
 *      0     4  length n of the JSON text
 *      4     n  JSON {f: first, h: heard, t: topics, c: copied batches, b: batches, s: copied state, k: state}
 *                 h  [session, epoch, turn], …     how many turns of a member's session this commit and those before may hold;
 *                                                  turn -1: it has stopped; session '': see heard.ts
 *                 f  [epoch, number] of the first entry that must be kept from now on; null: as before
 *                 t  [id, name, trimTo], …         topics that are new or were trimmed, or all at the start of a sweep
 *                 c, b  [topic, baseOffset, count, timestampMs, startBytes, length], …
 *                 s, k  [key, length], …           length -1: the key was deleted
 *    4+n     …  the bytes of c, b, s and k, in this order
 *
 * What is copied was so before the commit (see the sweep in ../replicated.ts), so it is applied first.
 */
import { crc32 } from 'node:zlib'
import { SluiceError } from '../../errors.ts'
import type { StoredBatch } from '../contract.ts'

const MAGIC = 0x014a4c53
export const ENTRY_HEAD_BYTES = 40
const KINDS = ['claim', 'base', 'part', 'last'] as const

export type EntryKind = (typeof KINDS)[number]

export interface Entry {
  readonly epoch: number
  readonly number: number
  /** 16 hexadecimal digits; all zeros in a claim. */
  readonly engineId: string
  readonly kind: EntryKind
  readonly part: number
  readonly body: Uint8Array
}

export const NO_ENGINE = '0'.repeat(16)

export function encodeEntry({ epoch, number, engineId, kind, part, body }: Entry): Uint8Array {
  const bytes = Buffer.allocUnsafe(ENTRY_HEAD_BYTES + body.byteLength)
  bytes.fill(0, 0, ENTRY_HEAD_BYTES)
  bytes.writeUInt32LE(MAGIC, 0)
  bytes.writeDoubleLE(epoch, 8)
  bytes.writeDoubleLE(number, 16)
  bytes.write(engineId, 24, 'hex')
  bytes.writeUInt8(KINDS.indexOf(kind), 32)
  bytes.writeUInt32LE(part, 36)
  bytes.set(body, ENTRY_HEAD_BYTES)
  bytes.writeUInt32LE(crc32(bytes.subarray(8)), 4)
  return bytes
}

/** Throws CORRUPT (P13). `place` is for the message. */
export function decodeEntry(bytes: Uint8Array, place: string): Entry {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (view.byteLength < ENTRY_HEAD_BYTES || (view.readUInt32LE(0) & 0xffffff) !== (MAGIC & 0xffffff))
    throw corrupt(place, 'it is not an entry of Sluice')
  if (view.readUInt32LE(0) !== MAGIC)
    throw new SluiceError(
      'FORMAT_NEWER',
      `The journal has an entry of format ${view.readUInt8(3)} at ${place}. Open it with the version that wrote it, or a newer one.`,
    )
  if (view.readUInt32LE(4) !== crc32(view.subarray(8))) throw corrupt(place, 'its checksum does not match')
  const kind = KINDS[view.readUInt8(32)]
  if (kind === undefined) throw corrupt(place, `its kind is ${view.readUInt8(32)}`)
  return {
    epoch: view.readDoubleLE(8),
    number: view.readDoubleLE(16),
    engineId: view.toString('hex', 24, 32),
    kind,
    part: view.readUInt32LE(36),
    body: view.subarray(ENTRY_HEAD_BYTES),
  }
}

export function corrupt(place: string, what: string): SluiceError {
  return new SluiceError(
    'CORRUPT',
    `The journal is damaged at ${place}: ${what}. Nothing was changed. Restore the broker's data, or look at the entry there.`,
    { place },
  )
}

export interface TopicMark {
  readonly id: number
  readonly name: string
  /** Batches that lie whole below it may be gone. */
  readonly trimTo: number
}

export type StateChange = readonly [key: string, value: Uint8Array | null]

/** A place in a journal, which outlives the texts of the broker. */
export type Place = readonly [epoch: number, number: number]

/** How many turns of a member's session may have taken effect. */
export type Heard = readonly [session: string, epoch: number, turn: number]

export interface CommitBody {
  /** The first entry that must be kept from now on, where that changes. */
  readonly first: Place | null
  readonly heard: readonly Heard[]
  readonly topics: readonly TopicMark[]
  readonly copiedBatches: readonly StoredBatch[]
  readonly batches: readonly StoredBatch[]
  readonly copiedState: Iterable<StateChange>
  readonly state: Iterable<StateChange>
}

type BatchRow = [topic: number, base: number, count: number, at: number, startBytes: number, length: number]
type StateRow = [key: string, length: number]

interface CommitJson {
  readonly f: Place | null
  readonly h: readonly Heard[]
  readonly t: readonly [id: number, name: string, trimTo: number][]
  readonly c: readonly BatchRow[]
  readonly b: readonly BatchRow[]
  readonly s: readonly StateRow[]
  readonly k: readonly StateRow[]
}

export function encodeCommit(commit: CommitBody): Buffer {
  const pieces: Uint8Array[] = []
  const addBatch = ({ topic, baseOffset, count, timestampMs, startBytes, bytes }: StoredBatch): BatchRow => {
    pieces.push(bytes)
    return [topic, baseOffset, count, timestampMs, startBytes, bytes.byteLength]
  }
  const addState = ([key, value]: StateChange): StateRow => {
    if (value === null) return [key, -1]
    pieces.push(value)
    return [key, value.byteLength]
  }
  const json: CommitJson = {
    f: commit.first,
    h: commit.heard,
    t: commit.topics.map(({ id, name, trimTo }) => [id, name, trimTo]),
    c: commit.copiedBatches.map(addBatch),
    b: commit.batches.map(addBatch),
    s: Array.from(commit.copiedState, addState),
    k: Array.from(commit.state, addState),
  }
  const text = Buffer.from(JSON.stringify(json))
  const head = Buffer.allocUnsafe(4)
  head.writeUInt32LE(text.byteLength, 0)
  return Buffer.concat([head, text, ...pieces])
}

/** The checksums of its parts were right; what does not fit all the same is damage (or a bug), and throws CORRUPT. */
export function decodeCommit(body: Buffer, place: string): CommitBody {
  if (body.byteLength < 4 || body.byteLength < 4 + body.readUInt32LE(0)) throw corrupt(place, 'a commit is cut off')
  let at = 4 + body.readUInt32LE(0)
  const json = JSON.parse(body.toString('utf8', 4, at)) as CommitJson
  const take = (length: number): Uint8Array => {
    if (at + length > body.byteLength) throw corrupt(place, 'a commit is cut off')
    return body.subarray(at, (at += length))
  }
  const toBatch = ([topic, baseOffset, count, timestampMs, startBytes, length]: BatchRow): StoredBatch => ({
    topic,
    partition: 0,
    baseOffset,
    count,
    timestampMs,
    startBytes,
    bytes: take(length),
  })
  const toState = ([key, length]: StateRow): StateChange => [key, length < 0 ? null : take(length)]
  const commit = {
    first: json.f,
    heard: json.h,
    topics: json.t.map(([id, name, trimTo]) => ({ id, name, trimTo })),
    copiedBatches: json.c.map(toBatch),
    batches: json.b.map(toBatch),
    copiedState: json.s.map(toState),
    state: json.k.map(toState),
  }
  if (at !== body.byteLength) throw corrupt(place, 'a commit has bytes behind its end')
  return commit
}

/** The bodies of its entries: pieces of at most `maxBytes`. */
export function splitBody(body: Uint8Array, maxBytes: number): Uint8Array[] {
  const parts: Uint8Array[] = []
  for (let at = 0; at === 0 || at < body.byteLength; at += maxBytes) parts.push(body.subarray(at, at + maxBytes))
  return parts
}
