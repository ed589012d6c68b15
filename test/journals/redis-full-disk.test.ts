/**
 * A full disk under a redis-server, which is a small file system in memory, which only root can mount. What was answered stays;
 * what was not stored was not answered; and with room it goes on.
 */
import { deepEqual, equal, match, ok } from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { waitUntil } from '../../scripts/brokers/broker.ts'
import { findRedis, type RedisBroker, startRedis } from '../../scripts/brokers/redis.ts'
import { openRedisJournal } from '../../src/journals/redis.ts'
import { appendTexts, claim, readAll } from './journal-suite.ts'

const canMount = process.platform === 'linux' && process.getuid?.() === 0
const mountProblem = canMount ? false : 'a file system cannot be mounted here (needs root): the full disk is NOT tested'
if (mountProblem !== false) console.error(`# ${mountProblem}`)
const skip = findRedis() === null ? 'redis-server is missing' : mountProblem

/** 100 KB each: a few dozen fill the disk. */
const textOf = (number: number): string => `${number} `.padEnd(100_000, 'x')

async function startOnSmallDisk(
  t: TestContext,
  appendfsync: string,
): Promise<{ redis: RedisBroker; makeRoom(): void }> {
  const disk = mkdtempSync(join(tmpdir(), 'sluice-redis-disk-'))
  equal(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', disk]).status, 0)
  const filler = join(disk, 'filler')
  writeFileSync(filler, Buffer.alloc(12 * 1024 ** 2))
  const redis = await startRedis({ parent: disk, settings: { appendfsync, 'auto-aof-rewrite-percentage': '0' } })
  t.after(async () => {
    await redis[Symbol.asyncDispose]()
    spawnSync('umount', ['-l', disk])
    rmSync(disk, { recursive: true, force: true })
  })
  return { redis, makeRoom: () => rmSync(filler) }
}

test('on a full disk Redis with `everysec` answers full, and what was answered survives killing it then', {
  skip,
}, async (t) => {
  const { redis, makeRoom } = await startOnSmallDisk(t, 'everysec')
  const journal = await openRedisJournal({ url: new URL(redis.url), namespace: 'disk', durability: 'os' })
  t.after(() => journal.close())
  const grant = await claim(journal)
  const texts = ['claim']
  let refused: string | null = null
  let isWaiting = false
  const filling = (async () => {
    for (let number = 0; refused === null; number++) {
      isWaiting = true
      const outcome = await journal.append(grant, [Buffer.from(textOf(number))])
      isWaiting = false
      if (outcome.status === 'full') refused = outcome.reason
      else if (outcome.status === 'durable') texts.push(textOf(number))
      else throw new Error(outcome.status)
    }
  })()
  // One was taken into memory, and could not be written: it is not answered.
  await waitUntil('the disk is full', async () => (await journal.health()).status === 'degraded')
  await waitUntil('an append waits', () => isWaiting || refused !== null)
  match((await journal.health()).reasons.join(), /disk/)
  // Others can come, and see how it is.
  const other = await openRedisJournal({ url: new URL(redis.url), namespace: 'disk', durability: 'os' })
  t.after(() => other.close())
  equal((await other.health()).status, 'degraded')
  const answered = [...texts]
  await redis.kill()
  makeRoom()
  await redis.restart()
  // What waited was lost with the process, is found to be missing, and is stored again.
  await waitUntil('it goes on', () => texts.length > answered.length || refused !== null)
  refused ??= 'enough'
  await filling
  deepEqual((await readAll(journal, grant)).slice(0, texts.length), texts)
})

test('on a full disk Redis with `always` ends itself, keeps what it answered, and goes on when there is room', {
  skip,
}, async (t) => {
  const { redis, makeRoom } = await startOnSmallDisk(t, 'always')
  const journal = await openRedisJournal({ url: new URL(redis.url), namespace: 'disk' })
  t.after(() => journal.close())
  let grant = await claim(journal)
  const texts = ['claim']
  let isDone = false
  const filling = (async () => {
    for (let number = 0; !isDone; number++) {
      const outcome = await journal.append(grant, [Buffer.from(textOf(number))])
      ok(outcome.status !== 'full')
      if (outcome.status === 'durable') texts.push(textOf(number))
      else grant = await claim(journal)
    }
  })()
  await waitUntil('redis-server has ended', () => redis.pids.length === 0)
  const { length } = texts
  ok(length > 5)
  makeRoom()
  await redis.restart()
  await waitUntil('it goes on', () => texts.length > length)
  isDone = true
  await filling
  await appendTexts(journal, grant, 'the end')
  deepEqual(await readAll(journal, grant), [...texts, 'the end'])
})
