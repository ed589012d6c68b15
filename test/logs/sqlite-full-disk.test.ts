/**
 * P13 on the SQLite log: a full disk is back pressure. It is a small file system in memory, which only root can mount;
 * without root these tests are skipped, and say so. SLUICE_FULL_DISK=ext4 takes ext4 in a file instead (slower).
 */
import { strict as assert } from 'node:assert'
import { spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statfsSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { isSluiceError } from '../../src/errors.ts'
import type { Ownership, StoredBatch } from '../../src/logs/contract.ts'
import { openSqliteLog, type SqliteLog } from '../../src/logs/sqlite.ts'
import { BatchBuilder } from '../../src/message-batch.ts'

const TOPIC = { id: 1, name: 'jobs', partitions: 1 }
const OPTIONS = { checkpointBytes: 512 * 1024, reserveBytes: 2 * 1024 ** 2 }

const root = mkdtempSync(join(tmpdir(), 'sluice-full-'))
const mounts: string[] = []
const canMount = mountSmall('probe', 1) !== null
const skip = canMount ? false : 'a file system cannot be mounted here (needs root): the full disk is NOT tested'
if (!canMount) console.error(`# ${skip}`)

after(() => {
  for (const mount of mounts) spawnSync('umount', ['-l', mount])
  rmSync(root, { recursive: true, force: true })
})

test('on a full disk messages are refused, settling goes on, and both work again when there is room', { skip }, () => {
  const disk = mountSmall('disk', 24) as string
  const filler = join(disk, 'filler')
  writeFileSync(filler, Buffer.alloc(10 * 1024 ** 2))
  const log = openSqliteLog(join(disk, 'data'), OPTIONS)
  let owner = new Owner(log)
  while (owner.add(30_000)) assert(owner.head < 1_000, 'the disk is full at last')
  assert.equal(log.health().status, 'degraded')
  assert.match(log.health().reasons.join(), /disk .* is full/)

  // What settles is many times what the WAL and the reserve hold.
  for (let i = 0; i < 3_000; i++) assert(owner.settle(i), `settle ${i} of a full disk`)
  assert(!owner.add(30_000), 'messages are still refused')
  assert.equal(owner.check(), owner.head)
  log.close()

  // As after a restart: the folder opens, is as full as before, and settles.
  const again = openSqliteLog(join(disk, 'data'), OPTIONS)
  owner = owner.movedTo(again)
  assert(!owner.add(30_000), 'messages are refused after the folder was opened again')
  for (let i = 0; i < 500; i++) assert(owner.settle(i), `settle ${i} after the folder was opened again`)

  rmSync(filler)
  for (let i = 0; i < 100; i++) assert(owner.add(30_000), 'messages are taken again')
  assert.equal(again.health().status, 'ok')
  assert.equal(owner.check(), owner.head)
  again.close()
})

test('on a full disk the room of settled messages is used again', { skip }, () => {
  const disk = mountSmall('drained', 16) as string
  const log = openSqliteLog(join(disk, 'data'), OPTIONS)
  const owner = new Owner(log)
  while (owner.add(30_000)) assert(owner.head < 1_000, 'the disk is full at last')
  log.trim(1, 0, owner.head)
  for (let i = 0; i < 300; i++) assert(owner.settle(i))
  const before = owner.head
  while (owner.add(30_000)) assert(owner.head < 1_000, 'the disk is full again')
  assert(owner.head - before > 50, `${owner.head - before} messages were taken again`)
  for (let i = 0; i < 3_000; i++) assert(owner.settle(i), 'settling has its room')
  assert.equal(owner.check(), owner.head)
  log.close()
})

test('a disk that fills up under the log by other files loses nothing, at whatever write it is', { skip }, () => {
  const disk = mountSmall('shared', 16) as string
  const filler = join(disk, 'filler')
  writeFileSync(filler, '')
  const log = openSqliteLog(join(disk, 'data'), OPTIONS)
  const owner = new Owner(log)
  let refused = 0
  for (let round = 0; round < 40; round++) {
    // Leaves a little room, another amount each time, so that another write is the one that finds none.
    fillUpTo(disk, filler, 4_096 * ((round * 7) % 40))
    for (let i = 0; i < 12; i++) {
      if (!owner.add(500 + ((round * 811) % 30_000))) refused++
      assert(owner.settle(i), `settle ${i} of round ${round}`)
    }
    truncateSync(filler, 0)
    assert(owner.add(100), `messages are taken again in round ${round}`)
    log.trim(1, 0, owner.head - 20)
  }
  assert(refused > 25, `${refused} were refused`)
  assert(owner.check() > 0)
  log.close()
  const again = openSqliteLog(join(disk, 'data'), OPTIONS)
  assert(owner.movedTo(again).check() > 0)
  again.close()
})

test('a folder that does not fit on the disk is DISK_FULL, and nothing of it is in the way later', { skip }, () => {
  const disk = mountSmall('tiny', 12) as string
  const filler = join(disk, 'filler')
  fillUpTo(disk, filler, 8_192)
  assert.throws(
    () => openSqliteLog(join(disk, 'data'), OPTIONS),
    (error) => isSluiceError(error, 'DISK_FULL'),
  )
  rmSync(filler)
  const log = openSqliteLog(join(disk, 'data'), OPTIONS)
  assert(new Owner(log).add(1_000))
  log.close()
  assert(readdirSync(join(disk, 'data')).every((name) => !name.startsWith('sluice.new')))
})

/** Adds and settles, and knows what must be there. */
class Owner {
  head = 0
  #bytes = 0
  #settled = ''
  #batches: { offset: number; bytes: Uint8Array }[] = []
  readonly #log: SqliteLog
  readonly #ownership: Ownership
  readonly #builder = new BatchBuilder()

  constructor(log: SqliteLog) {
    this.#log = log
    this.#ownership = log.own()
    log.declare([TOPIC])
  }

  movedTo(log: SqliteLog): Owner {
    const moved = new Owner(log)
    moved.head = this.head
    moved.#bytes = this.#bytes
    moved.#settled = this.#settled
    moved.#batches = this.#batches
    return moved
  }

  /** Whether a message of this size was taken. */
  add(size: number): boolean {
    this.#builder.add({ payload: Buffer.alloc(size, this.head % 256) })
    const bytes = this.#builder.finish()
    const output: StoredBatch = {
      topic: 1,
      partition: 0,
      baseOffset: this.head,
      count: 1,
      timestampMs: this.head,
      startBytes: this.#bytes,
      bytes,
    }
    const changes = new Map([['head', Buffer.from(String(this.head + 1))]])
    const { status } = this.#log.commit(this.#ownership, { outputs: [output], changes })
    if (status === 'full') return false
    assert.equal(status, 'durable')
    this.#batches.push({ offset: this.head, bytes })
    this.head++
    this.#bytes += bytes.byteLength - 16
    return true
  }

  settle(index: number): boolean {
    const value = `${index} ${'s'.repeat(200)}`
    const changes = new Map([
      ['settled', Buffer.from(value)],
      [`group/${index % 20}`, Buffer.from(value)],
    ])
    const { status } = this.#log.commit(this.#ownership, { outputs: [], changes })
    if (status === 'durable') this.#settled = value
    return status === 'durable'
  }

  /** Reads everything and compares it; returns the head. */
  check(): number {
    const [extent] = this.#log.declare([TOPIC])
    assert.equal(extent?.head, this.head)
    let next = extent?.earliest ?? 0
    while (next < this.head) {
      for (const batch of this.#log.read(1, 0, next, 200_000)) {
        assert.equal(batch.baseOffset, next)
        assert.equal(Buffer.compare(batch.bytes, this.#batches[next]?.bytes as Uint8Array), 0, `message ${next}`)
        next++
      }
    }
    assert.equal(Buffer.from(this.#ownership.state.get('head') ?? '').toString(), String(this.head))
    assert.equal(Buffer.from(this.#ownership.state.get('settled') ?? '').toString(), this.#settled)
    return this.head
  }
}

/** Fills the disk with a file, but for so many bytes. */
function fillUpTo(disk: string, filler: string, leftBytes: number): void {
  const { bavail, bsize } = statfsSync(disk)
  const size = statSync(filler, { throwIfNoEntry: false })?.size ?? 0
  try {
    writeFileSync(filler, Buffer.alloc(Math.max(0, size + bavail * bsize - leftBytes)))
  } catch (error) {
    // A file needs blocks for its own map, too: fuller than full.
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
  }
}

/** A file system of so many MiB, or null where that is not allowed. */
function mountSmall(name: string, mebibytes: number): string | null {
  const folder = mkdtempSync(join(root, name))
  const image = `${folder}.image`
  if (process.env.SLUICE_FULL_DISK === 'ext4') {
    writeFileSync(image, Buffer.alloc(mebibytes * 1024 ** 2))
    assert.equal(spawnSync('mkfs.ext4', ['-q', '-m', '0', image]).status, 0)
  }
  const mounted = spawnSync(
    'mount',
    existsSync(image) ? ['-o', 'loop', image, folder] : ['-t', 'tmpfs', '-o', `size=${mebibytes}m`, 'tmpfs', folder],
  )
  if (mounted.status !== 0) return null
  mounts.push(folder)
  return folder
}
