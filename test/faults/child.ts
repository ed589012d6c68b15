/**
 * A process for the fault runs. Prints a line for what happens, at once.
 *
 *     node child.ts work URL            works on the queue 'work' over HTTP: `started N`, `ended N`, `closed`
 *     node child.ts strict URL          the same, for ever, one at a time: `started N MS`, `ended N MS`
 *     node child.ts spin URL            the same; a payload below zero makes it spin and never answer again
 *     node child.ts block URL MS        works on the queue 'work': `open`, and blocks its thread for so long, `started N ATTEMPT`,
 *                                       `ended N`
 *     node child.ts drain URL MS        works on the queue 'work': a payload below zero is held until its signal, `held N`, others
 *                                       are done; SIGTERM closes it with that drain: `closing`, `closed`
 *     node child.ts poison FOLDER       works on the queue 'work' of a folder, and dies of a payload below zero; ends with
 *                                       `done` when nothing is left
 *     node child.ts delay URL           adds a job with a deadline, one with a short delay and one with a long one: `ids A B C`
 *     node child.ts add FOLDER COUNT    adds jobs one after the other: `ack N MS` each, or `error CODE` and its end
 */
import { writeSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { isSluiceError, open } from '../../src/index.ts'

const [role, where = '', count = '0'] = process.argv.slice(2)
/** Of the worker that blocks. */
const LEASE_MS = 1_000
const tell = (line: string) => writeSync(1, `${line}\n`)

if (role === 'strict' || role === 'spin') {
  const sluice = await open(where, { onError: () => {} })
  sluice.queue<number, number>('work').work(
    async ({ payload }) => {
      tell(`started ${payload} ${Date.now()}`)
      if (role === 'spin' && payload < 0) for (;;);
      await delay(5)
      tell(`ended ${payload} ${Date.now()}`)
      return payload
    },
    // The heart of the engine keeps a lease for as long as its handler may run.
    { leaseMs: 1_000, concurrency: 1, timeoutMs: role === 'spin' ? 1_000 : 60_000 },
  )
} else if (role === 'drain') {
  const sluice = await open(where, { onError: () => {} })
  sluice.queue<number, number>('work').work(
    async ({ payload }, { signal }) => {
      if (payload >= 0) return payload
      tell(`held ${payload}`)
      await new Promise((resolve) => signal.addEventListener('abort', resolve))
      throw new Error('it was to be given back')
    },
    { leaseMs: 60_000, concurrency: 8 },
  )
  tell('open')
  process.once('SIGTERM', () => {
    tell('closing')
    void sluice.close({ drainMs: Number(count) }).then(() => tell('closed'))
  })
} else if (role === 'block') {
  const sluice = await open(where, { onError: () => {} })
  tell('open')
  const still = new Int32Array(new SharedArrayBuffer(4))
  sluice.queue<number, string>('work').work(
    ({ payload }, { attempt }) => {
      tell(`started ${payload} ${attempt}`)
      Atomics.wait(still, 0, 0, Number(count))
      tell(`ended ${payload}`)
      return `blocked, attempt ${attempt}`
    },
    { leaseMs: LEASE_MS, concurrency: 1 },
  )
} else if (role === 'work') {
  await using sluice = await open(where, { onError: () => {} })
  const events = sluice.topic<string>('events')
  const worker = sluice.queue<number, string>('work').work(
    async ({ payload }, { publish }) => {
      tell(`started ${payload}`)
      await delay(50)
      publish(events, 'stale')
      tell(`ended ${payload}`)
      return 'stale'
    },
    { leaseMs: 1_000, concurrency: 1 },
  )
  await new Promise((resolve) => process.stdin.once('data', resolve))
  await worker.close()
  tell('closed')
  process.stdin.destroy()
} else if (role === 'poison') {
  await using sluice = await open(where)
  const queue = sluice.queue<number, number>('work')
  queue.work(
    async ({ payload }, { attempt }) => {
      tell(`started ${payload} ${attempt}`)
      if (payload < 0) process.exit(7)
      return payload
    },
    { concurrency: 4 },
  )
  for (;;) {
    const { depth } = (await sluice.stats()).topics.find(({ name }) => name === 'work') ?? { depth: { messages: 0 } }
    if (depth.messages === 0) break
    await delay(5)
  }
  tell('done')
} else if (role === 'delay') {
  await using sluice = await open(where)
  const queue = sluice.queue<string>('work')
  const inTime = await queue.add('in time', { deadlineMs: 60_000 })
  const soon = await queue.add('soon', { delayMs: 100 })
  const later = await queue.add('later', { delayMs: 3_600_000 })
  tell(`ids ${inTime.id} ${soon.id} ${later.id}`)
} else {
  const sluice = await open(where)
  const queue = sluice.queue<number>('work')
  try {
    await queue.declare()
    for (let n = 0; n < Number(count); n++) {
      const startedAt = performance.now()
      await queue.add(n)
      tell(`ack ${n} ${Math.floor(performance.now() - startedAt)}`)
    }
  } catch (error) {
    tell(`error ${isSluiceError(error) ? error.code : String(error)}`)
    const again = await queue.add(-1).then(
      () => 'stored',
      (one: unknown) => (isSluiceError(one) ? one.code : String(one)),
    )
    tell(`then ${again}`)
  }
  await sluice.close().catch(() => {})
}
