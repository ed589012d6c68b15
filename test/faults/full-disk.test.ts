/**
 * A full disk under the whole engine and its server: 503 DISK_FULL, settling goes on, and when there is room everything does.
 * The disk is a small file system in memory, which only root can mount.
 */
import { equal, ok, rejects } from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isSluiceError, open } from '../../src/index.ts'
import { call, startServer } from '../server-harness.ts'

const canMount = process.platform === 'linux' && process.getuid?.() === 0
const skip = canMount ? false : 'a file system cannot be mounted here (needs root): the full disk is NOT tested'
if (!canMount) console.error(`# ${skip}`)

test('a full disk answers 503 DISK_FULL, is settled on, and takes work again when there is room (P13, P7)', {
  skip,
}, async (t) => {
  const disk = mkdtempSync(join(tmpdir(), 'sluice-full-disk-'))
  equal(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'tmpfs', disk]).status, 0)
  writeFileSync(join(disk, 'filler'), Buffer.alloc(8 * 1024 ** 2))
  const { url, sluice } = await startServer(t, {}, join(disk, 'data'))
  const remote = await open(url)
  t.after(() => remote.close())
  const queue = remote.queue<string, number>('work', { fullWaitMs: 0 })
  const payload = 'x'.repeat(200_000)
  const acknowledged: string[] = []
  await rejects(
    async () => {
      for (;;) acknowledged.push((await queue.add(payload)).id)
    },
    (error) => isSluiceError(error, 'DISK_FULL'),
  )
  ok(acknowledged.length > 10)
  const answer = await call(url, 'POST', '/v1/queues/work/jobs', { body: payload })
  equal(answer.status, 503)
  equal(answer.json.code, 'DISK_FULL')
  ok(Number(answer.headers.get('retry-after')) >= 1)
  const worker = queue.work(async (job) => job.payload.length)
  const [first] = acknowledged
  equal(await (await queue.get(first as string)).result({ timeoutMs: 30_000 }), payload.length)
  await worker.close()
  rmSync(join(disk, 'filler'))
  for (;;) {
    try {
      acknowledged.push((await queue.add(payload)).id)
      break
    } catch (error) {
      ok(isSluiceError(error, 'DISK_FULL'))
    }
  }
  queue.work(async (job) => job.payload.length)
  const last = await queue.get(acknowledged.at(-1) as string)
  equal(await last.result({ timeoutMs: 30_000 }), payload.length)
  const [topic] = (await sluice.stats()).topics
  equal(topic?.head, acknowledged.length, 'what was refused was not stored')
  t.after(() => {
    spawnSync('umount', ['-l', disk])
    rmSync(disk, { recursive: true, force: true })
  })
})
