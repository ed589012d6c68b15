/**
 * Commits that follow from a seed, for the tests that kill, cut or damage a SQLite log: whoever knows the seed and how
 * many commits there were knows every byte that must be there.
 *
 * Every commit puts its own index under the key `last`, so that a folder tells how many it holds.
 */

import type { Commit, LogExtent, LogTopic, StoredBatch } from '../../../src/logs/contract.ts'
import { openSqliteLog, type SqliteLog, type SqliteLogOptions } from '../../../src/logs/sqlite.ts'
import { BatchBuilder } from '../../../src/message-batch.ts'

export const WORKLOAD_TOPICS: readonly LogTopic[] = [
  { id: 1, name: 'orders', partitions: 1 },
  { id: 2, name: 'events', partitions: 1 },
  { id: 7, name: 'never-used', partitions: 1 },
]

export interface Step {
  readonly commit: Commit
  /** Before the commit: below which offset each topic may be trimmed. */
  readonly trims: readonly (readonly [topic: number, offset: number])[]
}

/** Numbers between 0 and 1 from a seed. */
export function createRandom(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000
  }
}

/** Gives the commits one after the other. */
export function createWorkload(seed: number): () => Step {
  const random = createRandom(seed)
  const builder = new BatchBuilder()
  const heads = new Map<number, { offset: number; bytes: number }>([
    [1, { offset: 0, bytes: 0 }],
    [2, { offset: 0, bytes: 0 }],
  ])
  let index = 0
  const below = (limit: number) => Math.floor(random() * limit)

  const output = (topic: number): StoredBatch => {
    const head = heads.get(topic) as { offset: number; bytes: number }
    const count = 1 + (random() < 0.3 ? below(40) : 0)
    for (let i = 0; i < count; i++) {
      const payload = 'x'.repeat(random() < 0.1 ? below(9_000) : below(200))
      builder.add({
        payload: JSON.stringify({ index, i, payload }),
        key: random() < 0.5 ? `key-${below(9)}` : undefined,
      })
    }
    const bytes = builder.finish()
    const batch = {
      topic,
      partition: 0,
      baseOffset: head.offset,
      count,
      timestampMs: 1_000 + index,
      startBytes: head.bytes,
      bytes,
    }
    head.offset += count
    head.bytes += bytes.byteLength - 16
    return batch
  }

  return () => {
    const outputs: StoredBatch[] = []
    for (let i = below(4); i > 1; i--) outputs.push(output(1 + below(2)))
    const changes = new Map<string, Uint8Array | null>([['last', Buffer.from(String(index))]])
    for (let i = below(4); i > 0; i--) {
      const key = `group/${String(below(60)).padStart(3, '0')}`
      changes.set(
        key,
        random() < 0.2 ? null : Buffer.from(`${index} ${'v'.repeat(below(random() < 0.05 ? 6_000 : 120))}`),
      )
    }
    const trims: [number, number][] = []
    if (random() < 0.1) trims.push([1, Math.max(0, (heads.get(1)?.offset ?? 0) - 100 - below(200))])
    index++
    return { commit: { outputs, changes }, trims }
  }
}

/** What a log holds after so many commits. */
export class Expected {
  readonly batches = new Map<number, StoredBatch[]>([
    [1, []],
    [2, []],
    [7, []],
  ])
  readonly state = new Map<string, Uint8Array>()
  /** Below which offset batches may be gone. */
  readonly trimmed = new Map<number, number>()
  commits = 0
  readonly #next: () => Step

  constructor(seed: number) {
    this.#next = createWorkload(seed)
  }

  /** Only goes forward. */
  advanceTo(commits: number): this {
    for (; this.commits < commits; this.commits++) {
      const { commit, trims } = this.#next()
      for (const output of commit.outputs) this.batches.get(output.topic)?.push(output)
      for (const [key, value] of commit.changes) {
        if (value === null) this.state.delete(key)
        else this.state.set(key, value)
      }
      for (const [topic, offset] of trims) this.trimmed.set(topic, Math.max(offset, this.trimmed.get(topic) ?? 0))
    }
    return this
  }
}

/** How many commits of the workload the state knows of. */
export function commitsIn(state: { get(key: string): Uint8Array | undefined }): number {
  const last = state.get('last')
  return last === undefined ? 0 : Number(Buffer.from(last).toString()) + 1
}

/**
 * Opens the folder and reads all of it. Returns how many commits it holds; throws what the log throws, and an `Error`
 * where anything differs from what these commits stored. The log is closed again, or given to `andThen`.
 */
export function verifyFolder(
  folder: string,
  seed: number,
  options: SqliteLogOptions = {},
  andThen = (log: SqliteLog) => log.close(),
): number {
  const log = openSqliteLog(folder, options)
  let isHanded = false
  try {
    const { state } = log.own()
    const commits = commitsIn(state)
    const expected = new Expected(seed).advanceTo(commits)
    const extents = log.declare(WORKLOAD_TOPICS)
    for (const extent of extents) compareTopic(log, extent, expected)
    const found = state.range('', '\x7f', 1_000_000)
    const wanted = [...expected.state].sort(([a], [b]) => (a < b ? -1 : 1))
    if (found.length !== wanted.length) throw new Error(`${found.length} keys instead of ${wanted.length}`)
    for (const [i, [key, value]] of wanted.entries()) {
      const entry = found[i] as readonly [string, Uint8Array]
      if (entry[0] !== key || Buffer.compare(entry[1], value) !== 0) throw new Error(`the state ${key} differs`)
    }
    isHanded = true
    andThen(log)
    return commits
  } finally {
    if (!isHanded) log.close()
  }
}

function compareTopic(log: SqliteLog, extent: LogExtent, expected: Expected): void {
  const wanted = expected.batches.get(extent.topic) as StoredBatch[]
  const end = wanted.at(-1)
  const head = end === undefined ? 0 : end.baseOffset + end.count
  if (extent.head !== head) throw new Error(`topic ${extent.topic} ends at ${extent.head} instead of ${head}`)
  if (extent.earliest > Math.min(expected.trimmed.get(extent.topic) ?? 0, head)) {
    throw new Error(
      `topic ${extent.topic} begins at ${extent.earliest}, but was trimmed to ${expected.trimmed.get(extent.topic)}`,
    )
  }
  let at = wanted.findIndex((batch) => batch.baseOffset === extent.earliest)
  for (let offset = extent.earliest; offset < head; ) {
    const batches = log.read(extent.topic, 0, offset, 50_000)
    if (batches.length === 0) throw new Error(`topic ${extent.topic} has nothing at ${offset}`)
    for (const batch of batches) {
      const { bytes, ...place } = wanted[at++] as StoredBatch
      const { bytes: foundBytes, ...foundPlace } = batch
      if (Buffer.compare(bytes, foundBytes) !== 0)
        throw new Error(`the bytes at ${batch.baseOffset} of topic ${extent.topic} differ`)
      if (JSON.stringify(place) !== JSON.stringify(foundPlace)) {
        throw new Error(`${JSON.stringify(foundPlace)} was read instead of ${JSON.stringify(place)}`)
      }
      offset = batch.baseOffset + batch.count
    }
  }
  if (log.read(extent.topic, 0, head, 50_000).length !== 0)
    throw new Error(`topic ${extent.topic} goes on after its head`)
}

/** Opens a log for the workload and goes on where it ends: `step` makes the next commit and returns its index. */
export function continueWorkload(log: SqliteLog, seed: number): () => number {
  const ownership = log.own()
  log.declare(WORKLOAD_TOPICS)
  const next = createWorkload(seed)
  let index = 0
  for (const commits = commitsIn(ownership.state); index < commits; index++) next()
  return () => {
    const { commit, trims } = next()
    for (const [topic, offset] of trims) log.trim(topic, 0, offset)
    const outcome = log.commit(ownership, commit)
    if (outcome.status !== 'durable') throw new Error(`commit ${index} is ${outcome.status}`)
    return index++
  }
}
