import { deepEqual, equal, match, ok, rejects } from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { type HandlerContext, isSluiceError, open, restore } from '../../src/index.ts'
import { createSignal } from '../support/open-each.ts'

async function place(t: TestContext) {
  const root = await mkdtemp(join(tmpdir(), 'sluice-backup-'))
  t.after(() => rm(root, { recursive: true, force: true }))
  return { root, data: join(root, 'data'), file: join(root, 'copy.sluice'), restored: join(root, 'restored') }
}

test('a backup taken under load holds everything that was acknowledged before it, and nothing torn', async (t) => {
  const { data, file, restored } = await place(t)
  const sluice = await open(data)
  t.after(() => sluice.close())
  const queue = sluice.queue<{ n: number }>('load', { limit: { messages: 1_000_000 } })
  const topic = sluice.topic<number>('said')
  let added = 0
  let isOver = false
  const addSome = async () => {
    while (!isOver) {
      const outcomes = await queue.addMany(Array.from({ length: 200 }, (_, i) => ({ payload: { n: added + i } })))
      equal(outcomes.filter((outcome) => isSluiceError(outcome)).length, 0)
      added += outcomes.length
      await topic.publish(added)
    }
  }
  const adding = addSome()
  const worker = queue.work(async ({ payload }) => payload.n, { concurrency: 50 })
  while (added < 4_000) await new Promise<void>((resolve) => setImmediate(resolve))
  const before = added
  const info = await sluice.backup(file)
  isOver = true
  await adding
  await worker.close()
  ok(info.messages >= before, `${info.messages} of ${before}`)
  equal(info.fileBytes, statSync(file).size)

  await restore(file, restored)
  await using copy = await open(restored)
  const said: number[] = []
  for await (const { payload } of copy.topic<number>('said').read({ follow: false })) said.push(payload)
  deepEqual(
    said,
    Array.from({ length: said.length }, (_, i) => (i + 1) * 200),
  )
  const { topics } = await copy.stats()
  const load = topics.find(({ name }) => name === 'load')
  ok((load?.head ?? 0) >= before)
  // A topic message is added once the batch before it was stored.
  ok((load?.head ?? 0) >= (said.at(-1) ?? 0))
  const done = createSignal()
  const seen = new Set<number>()
  const left = load?.depth.messages ?? 0
  const second = copy.queue<{ n: number }>('load').work(({ payload }) => {
    ok(!seen.has(payload.n), `${payload.n} is done once`)
    seen.add(payload.n)
    if (seen.size === left) done.resolve()
  })
  if (left > 0) await done.promise
  await second.close()
})

test('what was held or came later does not act on a restored folder: fences rise, leases end, ids stay apart (P5, P10)', async (t) => {
  const { data, file, restored } = await place(t)
  const sluice = await open(data)
  const queue = sluice.queue<number, string>('q', { backoff: { baseMs: 0 } })
  const [done, held] = [await queue.add(1), await queue.add(2)]
  const [{ queue: topic }, group] = [done, '']
  const { engine } = sluice
  const take = (token: string) =>
    engine.lease({ topic, group, max: 1, leaseMs: 3_600_000, waitMs: 0, holder: { kind: 'token', token } })
  const first = await take('t')
  ok(first.status === 'leased')
  await engine.settle([
    {
      topic,
      group,
      fence: first.fence,
      offsets: first.offsets,
      token: 't',
      outcome: { kind: 'done', result: '"kept"' },
    },
  ])
  const second = await take('t')
  ok(second.status === 'leased')
  const delayed = await queue.add(3, { delayMs: 3_600_000 })
  await sluice.backup(file)
  // Another life goes on from here.
  const later = await queue.add(4)
  const laterDelayed = await queue.add(5, { delayMs: 3_600_000 })
  const third = await take('t')
  ok(third.status === 'leased')
  await sluice.close()

  const { backupAtMs } = await restore(file, restored)
  ok(backupAtMs <= Date.now())
  let copy = await open(restored)
  const same = copy.queue<number, string>('q')
  const newer = await same.add(6)
  await newer.status()
  // The place is taken by another job, whose id is another.
  equal(newer.receipt.offset, later.receipt.offset)
  await rejects(same.get(later.id), (error) => isSluiceError(error, 'JOB_NOT_FOUND'))
  await rejects(same.get(laterDelayed.id), (error) => isSluiceError(error, 'JOB_NOT_FOUND'))
  equal(await (await same.get(done.id)).result(), 'kept')
  equal((await (await same.get(delayed.id)).status()).status, 'scheduled')
  equal((await (await same.get(held.id)).status()).status, 'retrying')
  const [settled] = await copy.engine.settle([
    { topic, group, fence: second.fence, offsets: second.offsets, token: 't', outcome: { kind: 'done' } },
  ])
  deepEqual(settled, { status: 'settled', lost: [1], outputs: [] })

  const fences: number[] = []
  const note = ({ fence }: HandlerContext) => void fences.push(fence)
  const worker = same.work((_job, context) => {
    note(context)
    return 'again'
  })
  equal(await (await same.get(held.id)).result(), 'again')
  await newer.result()
  await worker.close()
  for (const fence of fences) ok(fence > third.fence + 1_000_000, `${fence} is far above ${third.fence}`)
  // It is taken up once: a second start changes nothing of it.
  await copy.close()
  copy = await open(restored)
  equal((await (await copy.queue('q').get(newer.id)).status()).status, 'completed')
  equal((await copy.queue('q').add(7)).id.split(':')[1], newer.id.split(':')[1])
  await copy.close()
})

test('the epoch goes on rising in a restored folder', async (t) => {
  const { data, file, restored } = await place(t)
  for (let i = 0; i < 3; i++) await (await open(data)).close()
  const sluice = await open(data)
  await sluice.backup(file)
  await sluice.close()
  await restore(file, restored)
  const { openSqliteLog } = await import('../../src/logs/sqlite.ts')
  const [original, copy] = [openSqliteLog(data), openSqliteLog(restored)]
  ok(copy.own().epoch >= original.own().epoch)
  original.close()
  copy.close()
})

test('a damaged, cut or unfinished backup is refused whole, and leaves no folder', async (t) => {
  const { root, data, file, restored } = await place(t)
  const sluice = await open(data)
  const queue = sluice.queue('q')
  await queue.addMany(Array.from({ length: 500 }, (_, n) => ({ payload: { n, text: 'x'.repeat(500) } })))
  await sluice.backup(file)
  await sluice.close()
  const whole = readFileSync(file)
  const isRefused = async (bytes: Uint8Array, what: RegExp) => {
    const broken = join(root, 'broken')
    writeFileSync(broken, bytes)
    await rejects(restore(broken, restored), (error) => isSluiceError(error, 'CORRUPT') && what.test(error.message))
    equal(existsSync(restored), false)
    deepEqual(
      readdirSync(root).filter((name) => name.includes('unfinished')),
      [],
    )
  }
  // A byte of a page, of the sums and of the end, wherever it is.
  for (const at of [100, Math.floor(whole.length / 2), whole.length - 60, whole.length - 70, whole.length - 30]) {
    const bytes = Buffer.from(whole)
    bytes.writeUInt8(bytes.readUInt8(at) ^ 0x10, at)
    await isRefused(bytes, /not a whole backup/)
  }
  for (const length of [0, 40, 4_096, whole.length - 64, whole.length - 1])
    await isRefused(whole.subarray(0, length), /too short|no end/)
  await isRefused(Buffer.concat([whole.subarray(4_096)]), /length/)
  await rejects(restore(join(root, 'none'), restored), (error) => isSluiceError(error, 'INVALID_OPTION'))
})

test('neither a backup nor a restore overwrites anything', async (t) => {
  const { data, file, restored } = await place(t)
  await using sluice = await open(data)
  writeFileSync(file, 'mine')
  await rejects(
    sluice.backup(file),
    (error) => isSluiceError(error, 'INVALID_OPTION') && /there already/.test(error.message),
  )
  equal(readFileSync(file, 'utf8'), 'mine')
  const other = `${file}2`
  await sluice.backup(other)
  mkdirSync(restored)
  writeFileSync(join(restored, 'mine'), '')
  await rejects(
    restore(other, restored),
    (error) => isSluiceError(error, 'INVALID_OPTION') && /not empty/.test(error.message),
  )
  deepEqual(readdirSync(restored), ['mine'])
  await rejects(sluice.backup(join(data, 'no', 'where')), (error) => isSluiceError(error, 'INVALID_OPTION'))
  await using memory = await open(':memory:')
  await rejects(memory.backup(`${file}3`), (error) => isSluiceError(error, 'UNSUPPORTED'))
})

test('a restore makes the folder that is there, if it is empty', async (t) => {
  const { data, file, restored } = await place(t)
  const sluice = await open(data)
  const job = await sluice.queue('q').add('kept')
  await sluice.backup(file)
  await sluice.close()
  mkdirSync(restored)
  await restore(file, restored)
  await using copy = await open(restored)
  equal((await (await copy.queue('q').get(job.id)).status()).status, 'queued')
})

test('closing in the middle of a backup rejects it, and leaves nothing of it', async (t) => {
  const { root, data, file } = await place(t)
  const sluice = await open(data)
  const queue = sluice.queue('q')
  for (let i = 0; i < 40; i++)
    await queue.addMany(Array.from({ length: 100 }, (_, n) => ({ payload: { n, text: 'x'.repeat(5_000) } })))
  const backing = rejects(sluice.backup(file), (error) => isSluiceError(error, 'CLOSED'))
  while (!readdirSync(root).some((name) => name.includes('unfinished')))
    await new Promise<void>((resolve) => setImmediate(resolve))
  await sluice.close()
  await backing
  deepEqual(readdirSync(root), ['data'])
  await (await open(data)).close()
})

test('what a kill leaves of a backup has no name and no end', async (t) => {
  const { root, data, file, restored } = await place(t)
  const code = `
    import { open } from ${JSON.stringify(new URL('../../src/index.ts', import.meta.url).href)}
    const sluice = await open(${JSON.stringify(data)})
    const queue = sluice.queue('q')
    for (let i = 0; i < 40; i++) await queue.addMany(Array.from({ length: 100 }, () => ({ payload: 'x'.repeat(5000) })))
    sluice.backup(${JSON.stringify(file)}).then(() => console.log('finished'))
    console.log('started')`
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => child.kill('SIGKILL'))
  const unfinished = () =>
    readdirSync(root).find((name) => name.startsWith('copy.sluice.unfinished') && !name.endsWith('-journal'))
  let size = 0
  while (size < 1_000_000 && child.exitCode === null) {
    const name = unfinished()
    size = name === undefined ? 0 : (statSync(join(root, name), { throwIfNoEntry: false })?.size ?? 0)
    await new Promise<void>((resolve) => setImmediate(resolve))
  }
  const ended = once(child, 'close')
  child.kill('SIGKILL')
  await ended
  equal(existsSync(file), false)
  const left = unfinished()
  ok(left !== undefined, 'the kill came in the middle')
  await rejects(restore(join(root, left), restored), (error) => isSluiceError(error, 'CORRUPT'))
  // The data is as it was.
  await using sluice = await open(data)
  equal((await sluice.stats()).topics[0]?.depth.messages, 4_000)
})

test('a backup of damaged data is refused, rather than made', async (t) => {
  const { root, data, file } = await place(t)
  const { openUntouched, walkRows } = await import('../../src/logs/sqlite/row-walk.ts')
  const sluice = await open(data)
  await sluice.queue('q').addMany(Array.from({ length: 300 }, (_, n) => ({ payload: { n, text: 'y'.repeat(300) } })))
  await sluice.backup(file)
  await sluice.close()
  const walk = (path: string) => {
    const database = openUntouched(path)
    const rows = walkRows(database, (what) => {
      throw new Error(what)
    })
    let step = rows.next()
    while (step.done !== true) step = rows.next()
    database.close()
    return step.value
  }
  equal(walk(file).messages, 300)
  const broken = join(root, 'broken')
  copyFileSync(file, broken)
  truncateSync(broken, statSync(broken).size)
  const bytes = readFileSync(broken)
  const at = bytes.indexOf('yyyyyyyyyy')
  ok(at > 0)
  bytes.write('z', at)
  writeFileSync(broken, bytes)
  let said = ''
  try {
    walk(broken)
  } catch (error) {
    said = (error as Error).message
  }
  match(said, /topic q at offset|checksum/)
})

test('a disk that is too full for the backup leaves none, and the data goes on', async (t) => {
  const { root, data } = await place(t)
  const disk = join(root, 'disk')
  mkdirSync(disk)
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk]).status !== 0)
    return t.skip('a file system cannot be mounted here (needs root): the full disk is NOT tested')
  const sluice = await open(data)
  try {
    const queue = sluice.queue('q')
    await queue.addMany(Array.from({ length: 500 }, () => ({ payload: 'x'.repeat(5_000) })))
    await rejects(sluice.backup(join(disk, 'copy')), (error) => isSluiceError(error, 'DISK_FULL'))
    deepEqual(readdirSync(disk), [])
    await queue.add('goes on')
    spawnSync('mount', ['-o', 'remount,size=16m', disk])
    equal((await sluice.backup(join(disk, 'copy'))).messages, 501)
  } finally {
    spawnSync('umount', ['-l', disk])
    await sluice.close()
  }
})
