/** Prints a run: first what is the same in every run, then what differs. */
import type { Check } from './checks.ts'
import type { Evidence } from './consume.ts'
import { distinct, explainHandOuts } from './hand-outs.ts'
import { GROUPS, LATE, type RunRecord } from './run.ts'

export interface Heading {
  readonly payloads: number
  readonly version: string
  readonly rounds: number
  readonly seed: number
}

/** Of what breaks a check, this many are named. */
const NAMED = 5

export function formatReport({ payloads, version, rounds, seed }: Heading, run: RunRecord, checks: readonly Check[]): string {
  const { accepted, stored, kills, sent } = run
  const count = (name: string, rest: string) => `${name.padEnd(10)} ${rest}`
  const isInOrder = checks.every(({ promise, broken }) => !promise.includes('P4') || broken.length === 0)
  const lines = [
    `${payloads} payloads of @octokit/webhooks-examples ${version}, ${rounds} times: ${sent.length} deliveries of ${countKeys(sent)} repositories and owners`,
    '',
    count('came in', `${accepted.length} answered 202, ${stored.queueHead} stored`),
    count('done', `${stored.jobs.filter(({ status }) => status === 'completed').length} completed, ${stored.topic.length} events published`),
    ...GROUPS.map((group) =>
      count(group, `${distinct([run.groups[group]]).length} events${isInOrder ? ', each repository in order' : ''}${group === LATE ? '; joined late, read from the start' : ''}`),
    ),
    count('server', `killed ${kills.length} times`),
    '',
    ...checks.flatMap(({ promise, title, broken }) => [
      `${broken.length === 0 ? 'kept  ' : 'BROKEN'} ${promise.padEnd(6)} ${title}`,
      ...broken.slice(0, NAMED).map((text) => `         ${text}`),
      ...(broken.length > NAMED ? [`         and ${broken.length - NAMED} more`] : []),
    ]),
    '',
    'In this run:',
    ...formatFigures(seed, run).map((line) => `  ${line}`),
  ]
  return `${lines.join('\n')}\n`
}

function formatFigures(seed: number, run: RunRecord): string[] {
  const { accepted, kills, lateAt, leaseMs, workers, groups, tookMs } = run
  const times = accepted.map(({ tookMs }) => tookMs).sort((a, b) => a - b)
  return [
    `seed ${seed}, ${(tookMs / 1_000).toFixed(1)} s; a 202 came after ${percentile(times, 0.5)} ms (median), ${percentile(times, 0.99)} ms (99 of 100)`,
    ...kills.map(({ accepted, done, downMs }, i) => `kill ${i + 1} at ${accepted} accepted and ${done} done; back after ${Math.round(downMs)} ms`),
    `sent again after a lost answer: ${sum(accepted, ({ unknown }) => unknown)}, of which stored already: ${accepted.filter(({ duplicate }) => duplicate).length}; told to come later: ${sum(accepted, ({ busy }) => busy)}`,
    formatConsumer('workers', workers, leaseMs),
    ...GROUPS.map((group) => formatConsumer(group, [groups[group]], leaseMs)),
    `${LATE} joined with ${lateAt} events on the topic`,
  ]
}

function formatConsumer(name: string, evidence: readonly Evidence[], leaseMs: number): string {
  const { byLostAnswer, byExpiry } = explainHandOuts(evidence, leaseMs)
  const repeated = sum(evidence, ({ settlesRepeated }) => settlesRepeated)
  return `${name} were handed out again: ${byLostAnswer} (a kill took the answer to the lease), ${byExpiry} (the lease ran out over a kill); settled again after a lost answer: ${repeated}`
}

/** The same for programs. */
export function toJson(heading: Heading, run: RunRecord, checks: readonly Check[]): object {
  const { accepted, stored, kills, lateAt, leaseMs, workers, groups, tookMs, sent } = run
  const consumers = { workers, ...Object.fromEntries(GROUPS.map((group) => [group, [groups[group]]])) }
  return {
    ...heading,
    deliveries: sent.length,
    keys: countKeys(sent),
    accepted: accepted.length,
    stored: stored.queueHead,
    completed: stored.jobs.filter(({ status }) => status === 'completed').length,
    events: stored.topic.length,
    sentAgain: sum(accepted, ({ unknown }) => unknown),
    storedAlready: accepted.filter(({ duplicate }) => duplicate).length,
    consumers: Object.fromEntries(
      Object.entries(consumers).map(([name, evidence]) => {
        const { byLostAnswer, byExpiry } = explainHandOuts(evidence, leaseMs)
        return [name, { seen: distinct(evidence).length, byLostAnswer, byExpiry, settlesRepeated: sum(evidence, (one) => one.settlesRepeated) }]
      }),
    ),
    lateAt,
    kills,
    tookMs,
    checks: checks.map(({ promise, title, broken }) => ({ promise, title, kept: broken.length === 0, broken })),
  }
}

function countKeys(keyed: readonly { key: string }[]): number {
  return new Set(keyed.map(({ key }) => key)).size
}

function sum<T>(list: readonly T[], of: (item: T) => number): number {
  return list.reduce((total, item) => total + of(item), 0)
}

function percentile(sorted: readonly number[], part: number): string {
  return (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0).toFixed(1)
}
