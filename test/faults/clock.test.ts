/**
 * The wall clock of a server, set while it runs and between two runs, by libfaketime: leases, delays and idempotency keys
 * go by a clock that is monotonic while the process runs, and hold over what the wall clock does between.
 */
import { deepEqual, equal, ok } from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { findRedis, startRedis } from '../../scripts/brokers/redis.ts'
import { open } from '../../src/index.ts'
import { temporaryFolder } from '../server-harness.ts'

const CHILD = fileURLToPath(new URL('./child.ts', import.meta.url))
const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))
const LIBRARY = '/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1'

function findLibrary(): string | null {
  if (existsSync(LIBRARY)) return null
  if (process.getuid?.() === 0 && existsSync('/etc/debian_version')) {
    console.error('# libfaketime is missing: installing it with apt-get')
    const options = { stdio: 'ignore', env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } } as const
    spawnSync('apt-get', ['update'], options)
    spawnSync('apt-get', ['install', '-y', '--no-install-recommends', 'faketime'], options)
  }
  return existsSync(LIBRARY) ? null : 'libfaketime is missing: clocks that are set are NOT tested. Install faketime.'
}

const redis = findRedis()
if (redis === null && process.env['CI'] === 'true') throw new Error('Redis is missing, and CI needs it')
const missing = findLibrary()
if (missing !== null) console.error(`# ${missing}`)

const WITH_CLOCK = {
  ...process.env,
  NODE_TEST_CONTEXT: undefined,
  LD_PRELOAD: LIBRARY,
  FAKETIME_NO_CACHE: '1',
  FAKETIME_DONT_FAKE_MONOTONIC: '1',
}

/** A server whose wall clock is off by what the file says, now and whenever it is written. */
async function serve(t: TestContext, folder: string, port: number, clock: string) {
  const child = spawn(process.execPath, [MAIN, 'serve', '--port', `${port}`, '--data', folder, '--json'], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...WITH_CLOCK, FAKETIME_TIMESTAMP_FILE: clock },
  })
  t.after(() => child.kill('SIGKILL'))
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string]
  return { child, port: Number(new URL(JSON.parse(line).url).port) }
}

test('a wall clock that is set by hours ends no lease, starts no delayed job early, and forgets no key (P4, P5, P8)', {
  skip: missing ?? false,
}, async (t) => {
  const folder = await temporaryFolder(t)
  const clock = join(folder, 'clock')
  const set = (offset: string) => writeFileSync(clock, offset)
  set('+0')
  const data = join(folder, 'data')
  let { child, port } = await serve(t, data, 0, clock)
  const sluice = await open(`http://127.0.0.1:${port}`)
  t.after(() => sluice.close())
  const queue = sluice.queue<string, string>('work', { backoff: { baseMs: 1 } })
  const held = await queue.add('held', { idempotencyKey: 'held' })
  await queue.add('in an hour', { delayMs: 3_600_000 })
  const gate = Promise.withResolvers<void>()
  const started = Promise.withResolvers<void>()
  const seen: string[] = []
  const worker = queue.work(
    async ({ payload }, { attempt }) => {
      seen.push(`${payload} ${attempt}`)
      started.resolve()
      await gate.promise
      return payload
    },
    { leaseMs: 10_000 },
  )
  await started.promise
  set('+2h')
  ok((await queue.add('after', { idempotencyKey: 'after' })).receipt.offset === 1)
  set('-2h')
  equal((await queue.add('after', { idempotencyKey: 'after' })).duplicate, true)
  gate.resolve()
  equal(await held.result({ timeoutMs: 20_000 }), 'held')
  await (await queue.add('last')).result({ timeoutMs: 20_000 })
  deepEqual(
    seen.filter((one) => one.startsWith('held')),
    ['held 1'],
    'its lease held',
  )
  ok(!seen.some((one) => one.startsWith('in an hour')))
  // Back by a day over a kill: the keys of the next day still hold.
  for (const offset of ['-23h', '+1h', '-6h']) {
    child.kill('SIGKILL')
    await once(child, 'close')
    set(offset)
    ;({ child } = await serve(t, data, port, clock))
    equal((await queue.add('held', { idempotencyKey: 'held' })).duplicate, true, offset)
  }
  await worker.close()
})

for (const offset of ['+2h', '-2h']) {
  test(`a process on Redis whose machine's clock is off by ${offset} gives deadlines and delays by the owner's (P4)`, {
    skip: missing ?? (redis === null && 'Redis is missing'),
  }, async (t) => {
    const broker = await startRedis()
    t.after(() => broker[Symbol.asyncDispose]())
    const url = `${broker.url}?namespace=${randomUUID()}`
    const owner = await open(url)
    t.after(() => owner.close({ drainMs: 0 }))
    const queue = owner.queue<string, string>('work')
    const worker = queue.work(({ payload }) => payload)
    const member = spawn(process.execPath, [CHILD, 'delay', url], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...WITH_CLOCK, FAKETIME: offset },
    })
    t.after(() => member.kill('SIGKILL'))
    const [line] = (await once(createInterface({ input: member.stdout }), 'line')) as [string]
    const [, inTime = '', soon = '', later = ''] = line.split(' ')
    equal(await (await queue.get(inTime)).result({ timeoutMs: 30_000 }), 'in time')
    equal(await (await queue.get(soon)).result({ timeoutMs: 30_000 }), 'soon')
    const { status, dueAtMs = 0 } = await (await queue.get(later)).status()
    equal(status, 'scheduled')
    ok(Math.abs(dueAtMs - (Date.now() + 3_600_000)) < 300_000, `${dueAtMs}`)
    await worker.close()
  })
}
