/**
 * The figures of queues, topics and groups for Prometheus, from what the engine measures.
 *
 * The number of series is bounded: MAX_NAMES queues and topics have their own, and as many groups; the others are added
 * up under `_rest`, which no queue can be called. Gauges show the deepest ones. Of what only rises, the names that were
 * shown once stay, since a counter that moved in and out of `_rest` would seem to fall.
 */
import { Counter, Gauge, type Registry } from 'prom-client'
import { DURATION_BOUNDS_MS, type DurationHistogram } from '../engine/contract.ts'
import type { EngineStats, GroupStats, GroupWork, TopicStats } from '../index.ts'

const MAX_NAMES = 200
/** Each has a series for every slot. */
const MAX_HISTOGRAMS = 50
const REST = '_rest'
const LABELS = ['kind', 'name'] as const

type Read<T> = (topic: TopicStats) => T

const GAUGES: readonly (readonly [name: string, help: string, read: Read<number>])[] = [
  ['sluice_depth_messages', 'Messages that are not settled', ({ depth }) => depth.messages],
  ['sluice_depth_bytes', 'Bytes that are not settled', ({ depth }) => depth.bytes],
  ['sluice_limit_messages', 'The most messages that may be unsettled', ({ limit }) => limit.messages],
  ['sluice_limit_bytes', 'The most bytes that may be unsettled', ({ limit }) => limit.bytes],
  ['sluice_scheduled_messages', 'Jobs that wait for their time', ({ scheduled }) => scheduled],
  ['sluice_leased_messages', 'Messages that workers hold', sumOf(({ leased }) => leased)],
  ['sluice_retrying_messages', 'Messages that wait for their next attempt', sumOf(({ retrying }) => retrying)],
  ['sluice_blocked_messages', 'Messages out of attempts that hold up their key', sumOf(({ blocked }) => blocked)],
  ['sluice_dead_letters', 'Messages out of attempts', sumOf(({ dead }) => dead)],
  ['sluice_asking_workers', 'Calls of workers that wait for messages', sumOf(({ asking }) => asking)],
  ['sluice_settled_per_second', 'Messages settled a second, smoothed', sumOf(({ drainPerSecond }) => drainPerSecond)],
]

const COUNTERS: readonly (readonly [
  name: string,
  help: string,
  label: string,
  read: Read<Readonly<Record<string, number>>>,
])[] = [
  ['sluice_published_messages_total', 'Messages stored', '', ({ appended }) => ({ '': appended })],
  [
    'sluice_refused_messages_total',
    'Messages refused, by what there was too much of',
    'reason',
    ({ refusedBy }) => refusedBy,
  ],
  [
    'sluice_attempts_total',
    'Attempts, and jobs that expired unstarted, by how they ended',
    'outcome',
    ({ groups }) => ({
      done: sum(groups, ({ work }) => work.done),
      failed: sum(groups, ({ work }) => work.failed),
      died: sum(groups, ({ work }) => work.died),
      expired: sum(groups, ({ work }) => work.expired),
    }),
  ],
]

const HISTOGRAMS: readonly (readonly [name: string, help: string, read: (work: GroupWork) => DurationHistogram])[] = [
  ['sluice_wait_seconds', 'From being stored, or due, to the first hand-out', ({ waited }) => waited],
  [
    'sluice_held_seconds',
    'From a hand-out to its end: the service time, and the wait in the line of a worker',
    ({ held }) => held,
  ],
]

export interface EngineFigures {
  show(stats: EngineStats): void
  /** What was last known is not shown as if it were so now. */
  clear(): void
  /** Histograms, which the registry cannot take as they are. */
  print(): string
}

export function createEngineFigures(registry: Registry, now: () => number): EngineFigures {
  const registers = [registry]
  const gauges = GAUGES.map(([name, help, read]) => ({
    read,
    gauge: new Gauge({ name, help, labelNames: LABELS, registers }),
  }))
  const oldest = new Gauge({
    name: 'sluice_oldest_seconds',
    help: 'Age of the oldest message that is not settled',
    labelNames: LABELS,
    registers,
  })
  const utilisation = new Gauge({
    name: 'sluice_worker_utilisation',
    help: 'Messages at work, as a share of those and of the calls of workers that wait for one',
    labelNames: LABELS,
    registers,
  })
  const counters = COUNTERS.map(([name, help, label, read]) => ({
    label,
    read,
    counter: new Counter({ name, help, labelNames: label === '' ? LABELS : [...LABELS, label], registers }),
  }))
  const lag = new Gauge({
    name: 'sluice_group_behind_messages',
    help: 'Messages of a topic that a group has not settled',
    labelNames: ['topic', 'group'],
    registers,
  })
  const groupOldest = new Gauge({
    name: 'sluice_group_oldest_seconds',
    help: 'Age of the oldest message that a group has not settled',
    labelNames: ['topic', 'group'],
    registers,
  })
  const all = [
    ...gauges.map(({ gauge }) => gauge),
    oldest,
    utilisation,
    ...counters.map(({ counter }) => counter),
    lag,
    groupOldest,
  ]
  const counted = new StickyNames(MAX_NAMES)
  const timed = new StickyNames(MAX_HISTOGRAMS)
  let printed = ''

  function showTopics(topics: readonly TopicStats[]): void {
    const deepest = topics.toSorted((a, b) => b.depth.messages - a.depth.messages)
    let [leased, asking] = [0, 0]
    for (const [i, topic] of deepest.entries()) {
      const labels = { kind: topic.kind, name: i < MAX_NAMES ? topic.name : REST }
      for (const { gauge, read } of gauges) gauge.inc(labels, read(topic))
      if (i < MAX_NAMES) {
        oldest.set(labels, ageOf(topic.groups, now()))
        utilisation.set(
          labels,
          share(
            sum(topic.groups, (one) => one.leased),
            sum(topic.groups, (one) => one.asking),
          ),
        )
      } else {
        leased += sum(topic.groups, (one) => one.leased)
        asking += sum(topic.groups, (one) => one.asking)
      }
    }
    const rest = deepest.slice(MAX_NAMES)
    if (rest.length === 0) return
    for (const kind of new Set(rest.map((topic) => topic.kind))) {
      oldest.set(
        { kind, name: REST },
        ageOf(
          rest.filter((one) => one.kind === kind).flatMap(({ groups }) => groups),
          now(),
        ),
      )
      utilisation.set({ kind, name: REST }, share(leased, asking))
    }
  }

  function showGroups(topics: readonly TopicStats[]): void {
    const groups = topics.flatMap(({ kind, name, groups }) =>
      kind === 'topic' ? groups.map((group) => ({ topic: name, group })) : [],
    )
    groups.sort((a, b) => b.group.depth - a.group.depth)
    let restAge = 0
    for (const [i, { topic, group }] of groups.entries()) {
      const labels = i < MAX_NAMES ? { topic, group: group.name } : { topic: REST, group: REST }
      const age = ageOf([group], now())
      if (i >= MAX_NAMES) restAge = Math.max(restAge, age)
      lag.inc(labels, group.depth)
      groupOldest.set(labels, i < MAX_NAMES ? age : restAge)
    }
  }

  function showCounters(topics: readonly TopicStats[]): void {
    const names = counted.choose(topics)
    for (const topic of topics) {
      const labels = { kind: topic.kind, name: names.has(topic.name) ? topic.name : REST }
      for (const { counter, label, read } of counters)
        for (const [value, count] of Object.entries(read(topic)))
          counter.inc(label === '' ? labels : { ...labels, [label]: value }, count)
    }
  }

  return {
    show({ topics }) {
      for (const one of all) one.reset()
      showTopics(topics)
      showGroups(topics)
      showCounters(topics)
      printed = printHistograms(topics, timed.choose(topics))
    },
    clear() {
      for (const one of all) one.reset()
      printed = ''
    },
    print: () => printed,
  }
}

/** The names that have series of their own: once chosen, a name stays for as long as it exists. */
class StickyNames {
  readonly #max: number
  #names = new Set<string>()

  constructor(max: number) {
    this.#max = max
  }

  choose(topics: readonly TopicStats[]): ReadonlySet<string> {
    const there = new Set(topics.map(({ name }) => name))
    this.#names = this.#names.intersection(there)
    if (this.#names.size < this.#max) {
      const others = topics.filter(({ name }) => !this.#names.has(name)).sort((a, b) => b.appended - a.appended)
      for (const { name } of others.slice(0, this.#max - this.#names.size)) this.#names.add(name)
    }
    return this.#names
  }
}

function printHistograms(topics: readonly TopicStats[], names: ReadonlySet<string>): string {
  const byName = Map.groupBy(topics, ({ kind, name }) => `kind="${kind}",name="${names.has(name) ? name : REST}"`)
  const lines: string[] = []
  for (const [metric, help, read] of HISTOGRAMS) {
    lines.push(`# HELP ${metric} ${help}`, `# TYPE ${metric} histogram`)
    for (const [labels, some] of byName) {
      const histograms = some.flatMap(({ groups }) => groups.map(({ work }) => read(work)))
      let count = 0
      for (let slot = 0; slot <= DURATION_BOUNDS_MS.length; slot++) {
        for (const { counts } of histograms) count += counts[slot] ?? 0
        const bound = DURATION_BOUNDS_MS[slot]
        lines.push(`${metric}_bucket{${labels},le="${bound === undefined ? '+Inf' : bound / 1_000}"} ${count}`)
      }
      const sumMs = histograms.reduce((total, histogram) => total + histogram.sumMs, 0)
      lines.push(`${metric}_sum{${labels}} ${sumMs / 1_000}`, `${metric}_count{${labels}} ${count}`)
    }
  }
  return `${lines.join('\n')}\n`
}

function sum(groups: readonly GroupStats[], read: (group: GroupStats) => number): number {
  return groups.reduce((total, group) => total + read(group), 0)
}

function sumOf(read: (group: GroupStats) => number): Read<number> {
  return ({ groups }) => sum(groups, read)
}

/** Seconds since the oldest of them was stored; 0 where nothing waits. */
function ageOf(groups: readonly GroupStats[], nowMs: number): number {
  const known = groups.flatMap(({ oldestAtMs }) => (oldestAtMs === null ? [] : [oldestAtMs]))
  return known.length === 0 ? 0 : Math.max(0, nowMs - Math.min(...known)) / 1_000
}

function share(leased: number, asking: number): number {
  return leased === 0 ? 0 : leased / (leased + asking)
}
