/** Prints a run: first what is the same in every run, then what differs. */
import type { Check } from './checks.ts'
import type { Evidence } from './consume.ts'
import { distinct, explainHandOuts } from './hand-outs.ts'
import { GROUPS, LATE, type RunRecord } from './record.ts'

export interface Heading {
  readonly payloads: number
  readonly version: string
  readonly rounds: number
  readonly seed: number
}

/** Of what breaks a check, this many are named. */
const NAMED = 5

export function formatReport(heading: Heading, run: RunRecord, checks: readonly Check[]): string {
  const { payloads, version, rounds, seed } = heading
  const { accepted, stored, sent } = run
  const order = checks.every(({ promise, broken }) => !promise.includes('P4') || broken.length === 0)
    ? ', each repository in order'
    : ''
  const line = (name: string, text: string) => `${name.padEnd(9)} ${text}`
  const lines = [
    `${payloads} payloads of @octokit/webhooks-examples ${version}, ${rounds} times over`,
    '',
    line('sent', `${sent.length} deliveries of ${countKeys(sent)} repositories (or owners, where there is none)`),
    line('came in', `${accepted.length} answered 202, ${stored.queueHead} stored`),
    line('done', `${countCompleted(run)} completed, ${stored.topic.length} events published`),
    ...GROUPS.map((group) => {
      const late = group === LATE ? '; joined late, read from the start' : ''
      return line(group, `${distinct([run.groups[group]]).length} events${order}${late}`)
    }),
    ...formatKills(run).map(([name, text]) => line(name, text)),
    '',
    ...checks.flatMap(({ promise, title, broken }) => [
      `${broken.length === 0 ? 'kept  ' : 'BROKEN'} ${promise.padEnd(6)} ${title}`,
      ...broken.slice(0, NAMED).map((text) => `              ${text}`),
      ...(broken.length > NAMED ? [`              and ${broken.length - NAMED} more`] : []),
    ]),
    '',
    'In this run:',
    ...formatFigures(seed, run).map((figure) => `  ${figure}`),
  ]
  return `${lines.join('\n')}\n`
}

function formatKills({ servers, broker, kills }: RunRecord): [string, string][] {
  const times = (isOne: (victim: string) => boolean) => {
    const count = kills.filter(({ victim }) => isOne(victim)).length
    return `killed ${count === 1 ? 'once' : `${count} times`}`
  }
  const ofServers = times((victim) => victim !== broker)
  if (servers === 1) return [['server', ofServers]]
  return [
    ['servers', `${servers} on one broker, ${ofServers}`],
    ['broker', broker === null ? 'somebody else’s, left alone' : `${broker}, ${times((victim) => victim === broker)}`],
  ]
}

function formatFigures(seed: number, run: RunRecord): string[] {
  const { accepted, kills, lateAt, tookMs } = run
  const times = accepted.map((one) => one.tookMs).sort((a, b) => a - b)
  const [median, slow] = [percentile(times, 0.5), percentile(times, 0.99)]
  return [
    `seed ${seed}, ${(tookMs / 1_000).toFixed(1)} s; a 202 came after ${median} ms (median), ${slow} ms (99 of 100)`,
    ...kills.map(({ victim, accepted, done, downMs }, i) => {
      const whom = run.servers > 1 ? `, of ${victim},` : ''
      return `kill ${i + 1}${whom} at ${accepted} accepted and ${done} done; ready again after ${Math.round(downMs)} ms`
    }),
    `${LATE} joined with ${lateAt} events on the topic`,
    `sent again, the answer was lost: ${sum(accepted, ({ unknown }) => unknown)}, stored already: ${countDuplicates(run)}`,
    `told to come later (503): ${sum(accepted, ({ busy }) => busy)}`,
    ...formatConsumers(run),
  ]
}

function formatConsumers(run: RunRecord): string[] {
  const consumers = Object.entries(judgeConsumers(run))
  const rows: readonly (readonly [string, (of: Judged) => number])[] = [
    ['handed out again, the answer to the lease was lost', ({ byLostAnswer }) => byLostAnswer],
    ['handed out again, the lease had run out', ({ byExpiry }) => byExpiry],
    ['settled again, the answer was lost', ({ settlesRepeated }) => settlesRepeated],
  ]
  const line = (name: string, cells: readonly (string | number)[]) =>
    `${name.padEnd(52)}${cells.map((cell) => String(cell).padStart(9)).join('')}`
  return [
    line(
      '',
      consumers.map(([name]) => name),
    ),
    ...rows.map(([name, of]) =>
      line(
        name,
        consumers.map(([, judged]) => of(judged)),
      ),
    ),
  ]
}

interface Judged {
  readonly seen: number
  readonly byLostAnswer: number
  readonly byExpiry: number
  readonly settlesRepeated: number
}

function judgeConsumers({ workers, groups, leaseMs }: RunRecord): Record<string, Judged> {
  const consumers: Record<string, readonly Evidence[]> = { workers }
  for (const group of GROUPS) consumers[group] = [groups[group]]
  return Object.fromEntries(
    Object.entries(consumers).map(([name, evidence]) => {
      const { byLostAnswer, byExpiry } = explainHandOuts(evidence, leaseMs)
      const settlesRepeated = sum(evidence, (one) => one.settlesRepeated)
      return [name, { seen: distinct(evidence).length, byLostAnswer, byExpiry, settlesRepeated }]
    }),
  )
}

/** The same for programs. */
export function toJson(heading: Heading, run: RunRecord, checks: readonly Check[]): object {
  const { accepted, stored, servers, broker, kills, lateAt, tookMs, sent } = run
  return {
    ...heading,
    servers,
    broker,
    deliveries: sent.length,
    keys: countKeys(sent),
    accepted: accepted.length,
    stored: stored.queueHead,
    completed: countCompleted(run),
    events: stored.topic.length,
    sentAgain: sum(accepted, ({ unknown }) => unknown),
    storedAlready: countDuplicates(run),
    consumers: judgeConsumers(run),
    lateAt,
    kills,
    tookMs,
    checks: checks.map(({ promise, title, broken }) => ({ promise, title, kept: broken.length === 0, broken })),
  }
}

function countCompleted({ stored }: RunRecord): number {
  return stored.jobs.filter(({ status }) => status === 'completed').length
}

function countDuplicates({ accepted }: RunRecord): number {
  return accepted.filter(({ duplicate }) => duplicate).length
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
