/**
 * What a power cut may leave on the disk, computed from a recording.
 *
 * The model. The system holds every file in its cache; a sync makes durable what had ended before it began: of a file
 * its bytes and its size, of a directory the names in it. Of everything else the disk holds any part:
 *  - Bytes reach the disk in sectors of 512. A sector that is written holds what the cache held at that moment, so a
 *    later write to it brings the earlier ones along; other than that, any sector may be old or new.
 *  - A file's size may lag behind bytes that were written beyond it, which are then lost; where it is ahead of bytes that
 *    were not, these are zeros.
 *  - A name comes, goes or moves whole. Two changes of one name reach the disk in their order; changes of different
 *    names in any.
 * This is harsher than ext4 or XFS, which keep the order of names, and as harsh as POSIX allows. Disks that write a
 * sector in part, or lose what was synced, are left out: no software can answer for them.
 *
 * A state is chosen by how much of what was not synced is there:
 *     none, all; prefix: all up to some moment; files: of each file and of the names none or all;
 *     subset: any of the writes and names; torn: any of the sectors, sizes and names.
 */
import { linkSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import type { DataOp, DiskOp, Recording, SyncOp } from './recorder.ts'

export type CrashKind = 'none' | 'all' | 'prefix' | 'files' | 'subset' | 'torn'
export const CRASH_KINDS: readonly CrashKind[] = ['none', 'all', 'prefix', 'files', 'subset', 'torn']

const SECTOR_BYTES = 512

export interface CrashState {
  readonly kind: CrashKind
  /** The moment, in lines of the recording. */
  readonly at: number
  /** What had been acknowledged by then. */
  readonly acks: readonly string[]
  readonly names: ReadonlyMap<string, number>
  readonly contents: ReadonlyMap<number, Uint8Array>
  /** For messages: the moment, the kind and the call before it. */
  readonly text: string
}

/** The state at a moment. `random` gives numbers between 0 and 1. */
export function crashState(recording: Recording, at: number, kind: CrashKind, random: () => number): CrashState {
  const ops = recording.ops.filter((op) => op.start < at)
  const isDurable = durableOps(ops, at)
  const cut = Math.floor(random() * (ops.length + 1))
  const share = [0.1, 0.5, 0.9][Math.floor(random() * 3)] as number
  const kept = new Map<number, boolean>()
  const keepsFile = (inode: number) => {
    const known = kept.get(inode) ?? random() < 0.5
    kept.set(inode, known)
    return known
  }
  const keeps = (op: DiskOp, index: number): boolean => {
    if (kind === 'none' || kind === 'all') return kind === 'all'
    if (kind === 'prefix') return index < cut
    if (kind === 'files') return keepsFile(op.kind === 'names' ? -1 : ((op as DataOp).inode ?? -1))
    return random() < share
  }

  const names = new Map(recording.before.names)
  const blocked = new Set<string>()
  const files = new Map<number, File>()
  const fileOf = (inode: number): File => {
    let file = files.get(inode)
    if (file === undefined)
      files.set(inode, (file = new File(recording.before.contents.get(inode) ?? new Uint8Array())))
    return file
  }
  for (const [index, op] of ops.entries()) {
    if (op.kind === 'sync') continue
    const isKept = isDurable.has(op) || keeps(op, index)
    if (op.kind === 'names') {
      const paths = op.changes.map(({ path }) => path)
      if (isKept && !paths.some((path) => blocked.has(path))) {
        for (const { path, inode } of op.changes) {
          if (inode === null) names.delete(path)
          else names.set(path, inode)
        }
      } else for (const path of paths) blocked.add(path)
    } else {
      const isTorn = kind === 'torn' && !isDurable.has(op)
      fileOf(op.inode).apply(op, isKept, isTorn ? () => random() < share : null, isTorn && random() < 0.5)
    }
  }
  const contents = new Map<number, Uint8Array>()
  for (const inode of names.values()) {
    if (inode > 0)
      contents.set(inode, files.get(inode)?.disk() ?? recording.before.contents.get(inode) ?? new Uint8Array())
  }
  const acks = recording.acks.filter((ack) => ack.start < at).map((ack) => ack.line)
  const last = ops.at(-1)
  const where = last === undefined ? 'before the first call' : `after ${describeOp(last)}`
  return { kind, at, acks, names, contents, text: `${kind} at ${at}, ${where}, ${acks.length} acknowledged` }
}

/** Moments right after something began or ended, by what it is: a crash at each of them is another one. */
export function crashMoments(recording: Recording): readonly number[][] {
  const byKind = new Map<string, number[]>()
  const add = (kind: string, moment: number) => {
    const moments = byKind.get(kind) ?? []
    byKind.set(kind, moments)
    moments.push(moment)
  }
  for (const op of recording.ops) {
    add(op.kind, op.start + 1)
    if (op.end > op.start && Number.isFinite(op.end)) add(op.kind, op.end + 1)
  }
  for (const ack of recording.acks) add('ack', ack.start + 1)
  add('end', recording.end)
  return [...byKind.values()]
}

/**
 * So many states, of each kind in turn, at moments that `random` picks: first what happens there, then which of them,
 * since a run has a thousand writes and only a few changes of names.
 */
export function* crashStates(recording: Recording, count: number, random: () => number): Generator<CrashState> {
  const moments = crashMoments(recording)
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T
  for (let i = 0; i < count; i++)
    yield crashState(recording, pick(pick(moments)), CRASH_KINDS[i % CRASH_KINDS.length] as CrashKind, random)
}

/** Writes the state out; `folder` stands for what was watched, and is emptied first. */
export function materialize(state: CrashState, watch: string, folder: string): void {
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  const placed = new Map<number, string>()
  const paths = [...state.names.keys()].filter((path) => path.startsWith(`${watch}/`)).sort()
  for (const path of paths) {
    // A name in a directory that did not make it is not there either.
    let isReachable = true
    for (let parent = dirname(path); parent !== watch; parent = dirname(parent))
      isReachable &&= state.names.get(parent) === -1
    if (!isReachable) continue
    const inode = state.names.get(path) as number
    const target = join(folder, relative(watch, path))
    const same = placed.get(inode)
    if (inode === -1) mkdirSync(target)
    else if (same !== undefined) linkSync(same, target)
    else {
      writeFileSync(target, state.contents.get(inode) ?? new Uint8Array())
      placed.set(inode, target)
    }
  }
}

/** The syncs that ended in between two moments. */
export function syncsBetween(recording: Recording, from: number, to: number): SyncOp[] {
  return recording.ops.filter((op): op is SyncOp => op.kind === 'sync' && op.start > from && op.end < to)
}

function durableOps(ops: readonly DiskOp[], at: number): Set<DiskOp> {
  const durable = new Set<DiskOp>()
  for (const op of ops) {
    if (op.kind !== 'sync') {
      if (op.kind !== 'names' && op.isSynced && op.end < at) durable.add(op)
      continue
    }
    if (op.end >= at) continue
    for (const earlier of ops) {
      if (earlier.end >= op.start || earlier.kind === 'sync') continue
      const isAll = op.inode === null && op.directory === null
      const isCovered =
        earlier.kind === 'names'
          ? earlier.changes.some(({ path }) => dirname(path) === op.directory)
          : op.inode !== null && earlier.inode === op.inode
      if (isAll || isCovered) durable.add(earlier)
    }
  }
  return durable
}

/** One file: what the cache holds, and what of it the disk does. */
class File {
  #cache: Buffer
  #disk: Buffer
  #cacheSize: number
  #diskSize: number

  constructor(bytes: Uint8Array) {
    this.#cache = Buffer.from(bytes)
    this.#disk = Buffer.from(bytes)
    this.#cacheSize = this.#diskSize = bytes.byteLength
  }

  /** `keepsSector`: asked for each sector of a write that may be torn. `losesSize`: its new size is not kept. */
  apply(op: DataOp, isKept: boolean, keepsSector: (() => boolean) | null, losesSize: boolean): void {
    if (op.kind === 'size') {
      this.#reserve(op.size)
      this.#cache.fill(0, Math.min(op.size, this.#cacheSize))
      this.#cacheSize = op.size
      if (!isKept) return
      this.#disk.fill(0, Math.min(op.size, this.#diskSize))
      this.#diskSize = op.size
      return
    }
    const end = op.at + op.bytes.byteLength
    this.#reserve(end)
    this.#cache.set(op.bytes, op.at)
    this.#cacheSize = Math.max(this.#cacheSize, end)
    for (let sector = Math.floor(op.at / SECTOR_BYTES) * SECTOR_BYTES; sector < end; sector += SECTOR_BYTES) {
      if (keepsSector === null ? isKept : keepsSector())
        this.#cache.copy(this.#disk, sector, sector, sector + SECTOR_BYTES)
    }
    if (isKept && !losesSize) this.#diskSize = Math.max(this.#diskSize, Math.min(end, this.#cacheSize))
  }

  disk(): Uint8Array {
    return this.#disk.subarray(0, this.#diskSize)
  }

  #reserve(bytes: number): void {
    const needed = Math.ceil(bytes / SECTOR_BYTES) * SECTOR_BYTES
    if (needed <= this.#cache.byteLength) return
    const length = Math.max(needed, this.#cache.byteLength * 2)
    this.#cache = Buffer.concat([this.#cache], length)
    this.#disk = Buffer.concat([this.#disk], length)
  }
}

function describeOp(op: DiskOp): string {
  switch (op.kind) {
    case 'write':
      return `a write of ${op.bytes.byteLength} at ${op.at} of file ${op.inode}`
    case 'size':
      return `a change of file ${op.inode} to ${op.size} bytes`
    case 'names':
      return op.changes
        .map(({ path, inode }) => `${path} ${inode === null ? 'removed' : `named, file ${inode}`}`)
        .join(', ')
    case 'sync':
      return `a sync of ${op.directory ?? (op.inode === null ? 'everything' : `file ${op.inode}`)}`
  }
}
