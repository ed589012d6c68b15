/**
 * What kind of life a seed lives. Each seed turns some features off and others up, since faults hide in combinations
 * that an even mix never makes ("swarm testing", Groce et al., ISSTA 2012).
 */
import type { GroupSettings, QueueSettings, TopicSettings } from '../../src/engine/options.ts'
import { DEFAULT_GROUP, DEFAULT_QUEUE, DEFAULT_TOPIC } from '../../src/engine/options.ts'
import { createRandom } from '../../src/host/host.ts'

/** Everything that a life may have or lack; shrinking turns them off one by one. */
export const FEATURES = [
  'crashes',
  'lost-messages',
  'repeated-messages',
  'slow-network',
  'slow-disk',
  'full-disk',
  'clock-jumps',
  'keys',
  'priorities',
  'delays',
  'deadlines',
  'idempotency',
  'small-limits',
  'big-messages',
  'batches',
  'retries',
  'deaths',
  'releases',
  'stuck-workers',
  'vanishing-workers',
  'stale-settles',
  'extends',
  'outputs',
  'once',
  'process-workers',
  'token-workers',
  'cancels',
  'pauses',
  'seeks',
  'redrives',
  'discards',
  'late-groups',
  'watches',
  'strict',
  'blocking',
  'few-dead-letters',
  'rates',
  'short-retention',
  'detaching',
] as const
export type Feature = (typeof FEATURES)[number]

/** Off in this share of seeds; the others are off in a third. */
const RARELY_OFF: Readonly<Partial<Record<Feature, number>>> = {
  crashes: 0,
  keys: 0.1,
  retries: 0.15,
  batches: 0.15,
  idempotency: 0.2,
}
const USUALLY_OFF: Readonly<Partial<Record<Feature, number>>> = {
  rates: 0.8,
  'short-retention': 0.6,
  'full-disk': 0.6,
  strict: 0.5,
  seeks: 0.7,
  'big-messages': 0.6,
  'clock-jumps': 0.6,
}

export interface Swarm {
  readonly seed: number
  /** Client operations before healing. */
  readonly operations: number
  readonly crashes: number
  has(feature: Feature): boolean
  /** 0 where the feature is off, else a share of its own for this seed. */
  share(feature: Feature, most: number): number
  readonly queue: QueueSettings
  /** A second queue: strict or blocking, where the seed has that. */
  readonly second: QueueSettings
  readonly topic: TopicSettings
  readonly group: GroupSettings
}

export interface SwarmOptions {
  readonly seed: number
  readonly operations: number
  readonly crashes: number
  readonly without?: readonly Feature[]
}

export function createSwarm({ seed, operations, crashes, without = [] }: SwarmOptions): Swarm {
  const random = createRandom(seed ^ 0x5bd1e995)
  const intensity = new Map<Feature, number>()
  for (const feature of FEATURES) {
    const isOff = random() < (RARELY_OFF[feature] ?? USUALLY_OFF[feature] ?? 0.33)
    const strength = 0.2 + 0.8 * random()
    if (!isOff && !without.includes(feature)) intensity.set(feature, strength)
  }
  // Somebody must do the work.
  if (!intensity.has('process-workers')) intensity.set('token-workers', 1)
  const has = (feature: Feature) => intensity.has(feature)
  const attempts = 1 + Math.floor(random() * 4)
  const backoff = { baseMs: [0, 5, 50, 400][Math.floor(random() * 4)] as number, factor: 2, maxMs: 1_000 }
  const limit = has('small-limits')
    ? { messages: 5 + Math.floor(random() * 60), bytes: random() < 0.5 ? 2_000 + Math.floor(random() * 8_000) : 1e9 }
    : { messages: 100_000, bytes: 1e9 }
  const retention = has('short-retention') ? { ms: random() < 0.5 ? 0 : 2_000, bytes: 1e6 } : { ms: 1e12, bytes: 1e12 }
  const idempotencyMs = has('short-retention') ? 5_000 : 86_400_000
  const group: GroupSettings = {
    ...DEFAULT_GROUP,
    attempts,
    backoff,
    deadLetters: has('few-dead-letters') ? 2 + Math.floor(random() * 4) : 10_000,
    rate: has('rates') ? { messages: 20 + Math.floor(random() * 100), perMs: 500 } : null,
  }
  const queue: QueueSettings = { ...DEFAULT_QUEUE, ...group, limit, retention, idempotencyMs }
  return {
    seed,
    operations,
    crashes: without.includes('crashes') ? 0 : crashes,
    has,
    share: (feature, most) => (intensity.get(feature) ?? 0) * most,
    queue,
    second: { ...queue, strict: has('strict'), onExhausted: has('blocking') ? 'block' : 'deadLetter' },
    topic: { ...DEFAULT_TOPIC, limit, retention, idempotencyMs, onSlowGroup: has('detaching') ? 'detach' : 'refuse' },
    group,
  }
}
