/** Owners that come and go, networks that break and a redis-server that is killed: what was durable stays (journal-chaos.ts). */

import { rejects } from 'node:assert/strict'
import { randomInt, randomUUID } from 'node:crypto'
import { test } from 'node:test'
import { findRedis, startRedis } from '../../scripts/brokers/redis.ts'
import type { Grant, Journal, JournalOutcome } from '../../src/journals/contract.ts'
import { openRedisJournal } from '../../src/journals/redis.ts'
import { runChaos } from './journal-chaos.ts'

/** SLUICE_CHAOS_SEED replays the faults of a run, SLUICE_CHAOS_ROUNDS makes it longer. */
const seed = Number(process.env.SLUICE_CHAOS_SEED ?? randomInt(2 ** 31))
const rounds = Number(process.env.SLUICE_CHAOS_ROUNDS ?? 15)

const skip = findRedis() === null ? 'redis-server is missing' : false

for (const [appendfsync, durability] of [
  ['always', 'disk'],
  ['everysec', 'os'],
] as const) {
  test(`what was durable on Redis (${appendfsync}) stays, once and in order, whatever breaks`, { skip }, async (t) => {
    await using redis = await startRedis({ settings: { appendfsync } })
    const namespace = `chaos-${randomUUID().slice(0, 8)}`
    t.diagnostic(`seed ${seed}, ${rounds} faults`)
    const figures = await runChaos({
      seed,
      rounds,
      url: new URL(redis.url),
      broker: redis,
      open: (url) => openRedisJournal({ url, namespace, durability, leaseMs: 1_500, connectMs: 60_000 }),
    })
    t.diagnostic(JSON.stringify(figures))
  })
}

type Append = (journal: Journal, grant: Grant, entries: readonly Uint8Array[]) => Promise<JournalOutcome>

/** Journals that are wrong now and then: the checks must notice. */
const planted: readonly (readonly [string, RegExp, Append])[] = [
  [
    'forgets what it says is durable',
    /is missing or overlooked/,
    async (_, __, entries) => ({ status: 'durable', places: entries.map(() => '1-1') }),
  ],
  [
    'stores what it is given twice',
    /stored twice/,
    async (journal, grant, entries) => {
      await journal.append(grant, entries)
      return journal.append(grant, entries)
    },
  ],
  ['turns entries round', /out of order/, (journal, grant, entries) => journal.append(grant, entries.toReversed())],
]
for (const [what, message, append] of planted) {
  test(`a journal that ${what} is noticed`, { skip }, async () => {
    await using redis = await startRedis()
    const namespace = `planted-${randomUUID().slice(0, 8)}`
    let appends = 0
    const open = async (url: URL): Promise<Journal> => {
      const journal = await openRedisJournal({ url, namespace, leaseMs: 1_500 })
      return {
        abilities: journal.abilities,
        own: (signal) => journal.own(signal),
        append: (grant, entries) =>
          entries.length > 1 && ++appends % 20 === 0 ? append(journal, grant, entries) : journal.append(grant, entries),
        replay: (grant) => journal.replay(grant),
        truncate: (grant, place) => journal.truncate(grant, place),
        openMailbox: (onLetter) => journal.openMailbox(onLetter),
        health: () => journal.health(),
        close: () => journal.close(),
      }
    }
    await rejects(
      runChaos({ seed: 1, rounds: 12, url: new URL(redis.url), broker: null, open, kinds: ['close and come again'] }),
      message,
    )
  })
}
