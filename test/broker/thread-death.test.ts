import { match, ok, rejects } from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Worker } from 'node:worker_threads'
import { isSluiceError, open } from '../../src/index.ts'

test('when the broker thread dies, calls end, close ends, and the folder opens again with what was acknowledged', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-thread-'))
  try {
    const started = once(process, 'worker') as Promise<[Worker]>
    const sluice = await open(folder)
    const [thread] = await started
    const queue = sluice.queue<number>('q')
    const kept = await queue.add(1)
    const lost = queue.add(2).catch((error: unknown) => error)
    await thread.terminate()
    const error = await lost
    ok(isSluiceError(error) || (error as { id?: string }).id !== undefined, String(error))
    await rejects(queue.add(3), (one) => isSluiceError(one, 'ENGINE_FAILED') || isSluiceError(one, 'UNKNOWN'))
    await sluice.close()
    await using again = await open(folder)
    match((await (await again.queue('q').get(kept.id)).status()).status, /queued/)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})
