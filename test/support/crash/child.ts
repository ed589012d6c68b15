/**
 * A process that publishes and works until it is killed, or until everything is done, and prints what it knows:
 *
 *     open                     the folder is open and was readable
 *     added KEY N ID           job N of KEY was acknowledged
 *     started KEY N            its handler began
 *     settled KEY N            its result was acknowledged to a caller who waited
 *     done                     everything was settled and the engine closed
 *
 * Lines are written synchronously, so that what was printed before a kill is read. Each handler publishes one event with
 * its settle (P9), so that the topic must hold one event for each completed job.
 *
 *     node child.ts FOLDER SEED JOBS KEYS NEXT [DURABILITY]       NEXT: JSON, the next number of each key
 */
import { writeSync } from 'node:fs'
import { createRandom } from '../../../src/host/host.ts'
import { open } from '../../../src/index.ts'

export interface Work {
  readonly key: string
  readonly n: number
}

const IN_FLIGHT = 24

const [folder = '', seed = '0', jobs = '0', keys = '1', nextJson = '{}', durability = 'disk'] = process.argv.slice(2)
const random = createRandom(Number(seed))
const next = JSON.parse(nextJson) as Record<string, number>

/** Prints a line before going on. The pipe is not a blocking one, so a full pipe is tried again until there is room. */
function tell(line: string): void {
  let rest = Buffer.from(`${line}\n`)
  while (rest.byteLength > 0) {
    try {
      rest = rest.subarray(writeSync(1, rest))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
    }
  }
}

const sluice = await open(folder, { durability: durability as 'disk' | 'os' })
tell('open')
const queue = sluice.queue<Work, number>('work', { attempts: 1_000, backoff: { baseMs: 1, maxMs: 5 } })
const events = sluice.topic<Work>('events')

let left = Number(jobs)
const worker = queue.work(
  async ({ payload }, { publish }) => {
    tell(`started ${payload.key} ${payload.n}`)
    if (random() < 0.3) await new Promise((resolve) => setImmediate(resolve))
    if (random() < 0.05) throw new Error('planned')
    publish(events, payload, { key: payload.key })
    return payload.n
  },
  { concurrency: 16 },
)

// A key belongs to one sender, since only then is there an order among its jobs to check.
const senders = Math.min(IN_FLIGHT, Number(keys))
await Promise.all(Array.from({ length: senders }, (_, index) => sendKeys(index, senders)))

async function sendKeys(index: number, step: number): Promise<void> {
  for (let key = index; left > 0; key = key + step < Number(keys) ? key + step : index) await sendOne(key)
}

async function sendOne(index: number): Promise<void> {
  const key = `key-${index}`
  left--
  const n = next[key] ?? 0
  next[key] = n + 1
  const job = await queue.add({ key, n }, { key, idempotencyKey: `${key}/${n}` })
  tell(`added ${key} ${n} ${job.id}`)
  if (random() < 0.3) {
    await job.result({ timeoutMs: 120_000 })
    tell(`settled ${key} ${n}`)
  }
}

for (;;) {
  const { topics } = await sluice.stats()
  const depth = topics.find((topic) => topic.name === 'work')?.depth.messages ?? 0
  if (depth === 0) break
  await new Promise((resolve) => setTimeout(resolve, 5))
}
await worker.close()
await sluice.close()
tell('done')
