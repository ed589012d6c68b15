/** Judges a run: one check for each promise of the design that the run can break. Pure, so that it can be tested itself. */
import { distinct, explainHandOuts, findLaneJumps } from './hand-outs.ts'
import { GROUPS, LATE, type RunRecord } from './record.ts'

export interface Check {
  /** The numbers of the promises. */
  readonly promise: string
  /** What holds where the check is kept. */
  readonly title: string
  /** What breaks it; empty: it is kept. */
  readonly broken: readonly string[]
}

interface Keyed {
  readonly key: string | null
  readonly delivery: string
}

export function checkRun(run: RunRecord): Check[] {
  const { sent, accepted, stored, workers, groups, leaseMs } = run
  const { jobs, topic, queueHead, unsettled } = stored
  const events = topic.map(({ key, offset, payload }) => ({ key, offset, ...payload }))
  const digests = new Map(sent.map(({ id, digest }) => [id, digest]))
  const sentKeyed = sent.map(({ id, key }) => ({ key, delivery: id }))
  const sources = { queue: workers, ...Object.fromEntries(GROUPS.map((group) => [group, [groups[group]]])) }
  const seen = Object.fromEntries(GROUPS.map((group) => [group, distinct([groups[group]])]))
  const ofEach = (find: (group: (typeof GROUPS)[number]) => readonly string[]) =>
    GROUPS.flatMap((group) => prefix(group, find(group)))
  const ofAll = (find: (evidence: RunRecord['workers']) => readonly string[]) =>
    Object.entries(sources).flatMap(([name, evidence]) => prefix(name, find(evidence)))

  return [
    {
      promise: 'P1 P2',
      title: 'every delivery was answered 202, and is a job',
      broken: [
        ...compareSets(sentKeyed, accepted),
        ...jobs
          .filter(({ status }) => status === 'lost')
          .map(({ delivery, id }) => `${delivery} is not in the job ${id}`),
      ],
    },
    {
      promise: 'P8',
      title: 'a delivery that was sent again after a lost answer is stored once',
      broken: [
        ...(queueHead === sent.length ? [] : [`the queue has stored ${queueHead} jobs of ${sent.length} deliveries`]),
        ...findRepeats(accepted.map(({ job }) => job)).map((job) => `the job ${job} stands for two deliveries`),
        ...accepted
          .filter((one) => one.duplicate && one.unknown === 0 && !wasAskedAgain(one, run))
          .map(({ delivery }) => `${delivery} was stored before it was sent`),
      ],
    },
    {
      promise: 'P10',
      title: 'every job is completed, and every event settled in every group',
      broken: [
        ...jobs
          .filter(({ status }) => status !== 'completed')
          .map(({ delivery, status }) => `${delivery} is ${status}`),
        ...(unsettled === 0 ? [] : [`the groups have ${unsettled} events left`]),
      ],
    },
    {
      promise: 'P9',
      title: 'every completed job has its one event, and no event is without its job',
      broken: compareSets(sentKeyed, events),
    },
    {
      promise: 'P1',
      title: 'every event was made of the very payload that was sent',
      broken: events
        .filter(({ delivery, digest }) => digests.get(delivery) !== digest)
        .map(({ delivery }) => `${delivery} has another payload`),
    },
    {
      promise: 'P4',
      title: 'each repository is in the order in which it was accepted: on the queue, on the topic, in each group',
      broken: [
        ...prefix('queue', compareOrder(sentKeyed, distinct(workers))),
        ...prefix('topic', compareOrder(sentKeyed, events)),
        ...ofEach((group) => compareOrder(sentKeyed, seen[group] ?? [])),
      ],
    },
    {
      promise: 'P4 P5',
      title: 'each repository was with one worker at a time, and never went back',
      broken: ofAll(findLaneJumps),
    },
    {
      promise: 'P6',
      title: 'each group saw every event, also the one that joined late',
      broken: [
        ...ofEach((group) => compareSets(events, seen[group] ?? [])),
        ...prefix(LATE, seen[LATE]?.[0]?.offset === topic[0]?.offset ? [] : ['did not begin at the start']),
      ],
    },
    {
      promise: 'P3',
      title: 'nothing was handed out again without a cause',
      broken: [...ofAll((evidence) => explainHandOuts(evidence, leaseMs).broken), ...findUnseenAttempts(run)],
    },
  ]
}

/**
 * Where servers share a broker, one whose owner was killed asks the next one again, by itself: the kill then fell between
 * the sending and the 202. A server alone never does.
 */
function wasAskedAgain({ sentAtMs, tookMs }: RunRecord['accepted'][number], { servers, kills }: RunRecord): boolean {
  return servers > 1 && kills.some(({ atMs, downMs }) => sentAtMs <= atMs + downMs && sentAtMs + tookMs >= atMs)
}

/** Attempts that a job counts beyond the last one that a worker was given: nobody can have completed it. */
function findUnseenAttempts({ stored, workers }: RunRecord): string[] {
  const last = new Map<string, number>()
  for (const { job, attempt } of workers.flatMap(({ handOuts }) => handOuts)) {
    if (job !== undefined) last.set(job, Math.max(attempt, last.get(job) ?? 0))
  }
  return stored.jobs
    .filter(({ id, attempts }) => attempts !== last.get(id))
    .map(({ id, attempts }) => `${id} counts ${attempts} attempts, workers saw ${last.get(id) ?? 0}`)
}

/** What is missing, too much, or there twice. */
function compareSets(wanted: readonly { delivery: string }[], found: readonly { delivery: string }[]): string[] {
  const names = new Set(wanted.map(({ delivery }) => delivery))
  const there = new Set(found.map(({ delivery }) => delivery))
  return [
    ...[...names].filter((name) => !there.has(name)).map((name) => `${name} is missing`),
    ...[...there].filter((name) => !names.has(name)).map((name) => `${name} is too much`),
    ...findRepeats(found.map(({ delivery }) => delivery)).map((name) => `${name} is there twice`),
  ]
}

/** The first place of each key where the order differs. */
function compareOrder(wanted: readonly Keyed[], found: readonly Keyed[]): string[] {
  const lanes = Map.groupBy(found, ({ key }) => key)
  const broken: string[] = []
  for (const [key, lane] of Map.groupBy(wanted, ({ key }) => key)) {
    const other = lanes.get(key) ?? []
    const at = lane.findIndex(({ delivery }, i) => other[i]?.delivery !== delivery)
    if (at >= 0) broken.push(`${key}: ${other[at]?.delivery ?? 'nothing'} is in the place of ${lane[at]?.delivery}`)
  }
  return broken
}

function findRepeats(names: readonly string[]): string[] {
  const seen = new Set<string>()
  return names.filter((name) => seen.size === seen.add(name).size)
}

function prefix(name: string, broken: readonly string[]): string[] {
  return broken.map((text) => `${name}: ${text}`)
}
