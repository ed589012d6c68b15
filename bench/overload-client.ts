/** Clients that honour what a server tells them, as many as are wanted, in one process. */
import { setTimeout as sleep } from 'node:timers/promises'
import { RetryBudget } from '../src/policy/retry-budget.ts'
import { quantile } from './harness.ts'
import { Connection, formatRequest } from './http-client.ts'

export interface RushOptions {
  readonly port: number
  readonly path: string
  readonly type: string
  readonly body: string
  readonly clients: number
  /** Requests that all of them together want to make, at random times. */
  readonly perSecond: number
  readonly seconds: number
  /** An answer counts as good within so much of the first time that it was asked for. */
  readonly goodMs: number
  /** Whether they stay away for as long as they are told, and retry within a budget. */
  readonly honours: boolean
}

export interface RushFigures {
  /** A second: wanted, accepted in time, accepted at all, refused. */
  readonly wanted: number
  readonly good: number
  readonly accepted: number
  readonly refused: number
  /** Wanted while the client stayed away, or still waited for an answer: never sent. */
  readonly held: number
  readonly p99Ms: number
}

interface Counts {
  wanted: number
  good: number
  accepted: number
  refused: number
  held: number
  readonly tookMs: number[]
}

const MAX_TRIES = 3

export async function rush(options: RushOptions): Promise<RushFigures> {
  const { port, clients, seconds } = options
  const connections = await Promise.all(Array.from({ length: clients }, () => Connection.open(port)))
  const counts: Counts = { wanted: 0, good: 0, accepted: 0, refused: 0, held: 0, tookMs: [] }
  const untilMs = performance.now() + seconds * 1_000
  await Promise.all(connections.map((connection) => runClient(connection, options, untilMs, counts)))
  for (const connection of connections) connection.close()
  const per = (count: number): number => count / seconds
  return {
    wanted: per(counts.wanted),
    good: per(counts.good),
    accepted: per(counts.accepted),
    refused: per(counts.refused),
    held: per(counts.held),
    p99Ms: quantile(counts.tookMs, 0.99),
  }
}

/** Wants something at random times (a Poisson process); what comes while it cannot send is given up. */
async function runClient(connection: Connection, options: RushOptions, untilMs: number, counts: Counts): Promise<void> {
  const { path, type, body, clients, perSecond, honours, goodMs } = options
  const request = formatRequest(path, type, body)
  const everyMs = (1_000 * clients) / perSecond
  const budget = new RetryBudget(performance.now())
  const drawGapMs = (): number => -Math.log(1 - Math.random()) * everyMs
  let nextMs = performance.now() + drawGapMs()
  while (nextMs < untilMs) {
    const waitMs = nextMs - performance.now()
    if (waitMs > 0) await sleep(waitMs)
    counts.wanted++
    const startedAt = performance.now()
    budget.deposit()
    let freeAtMs = 0
    for (let tries = 1; ; tries++) {
      const answer = await connection.send(request)
      if (answer.status < 300) {
        const tookMs = performance.now() - startedAt
        counts.accepted++
        counts.tookMs.push(tookMs)
        if (tookMs <= goodMs) counts.good++
        break
      }
      if (answer.status !== 503) throw new Error(`${answer.status}: ${answer.body}`)
      counts.refused++
      if (!honours) break
      const stayMs = (JSON.parse(answer.body) as { retryAfterMs: number }).retryAfterMs * (1 + Math.random() / 2)
      freeAtMs = performance.now() + stayMs
      if (tries >= MAX_TRIES || freeAtMs > untilMs || !budget.withdraw(performance.now())) break
      await sleep(stayMs)
    }
    nextMs += drawGapMs()
    for (const now = Math.max(performance.now(), freeAtMs); nextMs < now; nextMs += drawGapMs()) {
      if (nextMs >= untilMs) return
      counts.wanted++
      counts.held++
    }
  }
}
