/** What operators need to know of a Redis that holds a journal: how it is, what is wrong, and what to do. */
import { setTimeout as delay } from 'node:timers/promises'
import type { JournalHealth } from '../contract.ts'
import { inspectServer, showVersion, type Wanted } from './checks.ts'
import { type Connection, describe } from './connection.ts'
import type { Names } from './layout.ts'

const ANSWER_MS = 3_000
/** Of `maxmemory`: from here on it is said. */
const MEMORY_SHARE = 0.9

export interface HealthQuestion {
  readonly connection: Connection | null
  readonly cause: Error | null
  readonly mailboxCause: Error | null
  readonly names: Names
  readonly wanted: Wanted
  readonly isOwner: boolean
}

export async function describeHealth(question: HealthQuestion): Promise<JournalHealth> {
  const answered = new AbortController()
  const late = delay(ANSWER_MS, null, { signal: answered.signal }).catch(() => null)
  const health = await Promise.race([ask(question).catch((error: Error) => failed(error)), late])
  answered.abort()
  return health ?? failed(new Error(`no answer for ${ANSWER_MS} ms`))
}

async function ask({
  connection,
  cause,
  mailboxCause,
  names,
  wanted,
  isOwner,
}: HealthQuestion): Promise<JournalHealth> {
  if (connection === null) return failed(cause ?? new Error('it is being connected to'))
  const [{ findings, info, durability }, storedBytes, entries, lockMs] = await Promise.all([
    inspectServer(connection, wanted),
    connection.ask(['MEMORY', 'USAGE', names.entries]).then(Number, () => 0),
    connection.ask(['XLEN', names.entries]).then(Number, () => Number.NaN),
    connection.ask(['PTTL', names.lock]).then(Number, () => Number.NaN),
  ])
  const wrong = findings.filter(({ severity }) => severity !== 'ok')
  const reasons = wrong.map(({ title, reason, remedy }) => `${title}: ${reason} ${remedy}`)
  if (mailboxCause !== null) reasons.push(`The connection for letters is broken: ${describe(mailboxCause)}`)
  const memory = checkMemory(info)
  if (memory !== null) reasons.push(memory)
  const isRefused = wrong.some(({ severity }) => severity === 'refuse')
  // A setting that could be better, such as no limit of memory, is said at opening and by `verify`: it is no state.
  const isDegraded = memory !== null || mailboxCause !== null || info.get('aof_last_write_status') === 'err'
  return {
    status: isRefused ? 'failed' : isDegraded ? 'degraded' : 'ok',
    reasons: isRefused || isDegraded ? reasons : [],
    facts: {
      version: showVersion(info),
      mode: info.get('redis_mode') ?? 'unknown',
      role: info.get('role') ?? 'unknown',
      replicas: info.get('connected_slaves') ?? '0',
      durability,
      memory: `${info.get('used_memory_human') ?? '?'} of ${info.get('maxmemory') === '0' ? 'no limit' : info.get('maxmemory_human')}`,
      'append-only file': `${Math.round(Number(info.get('aof_current_size') ?? 0) / 1024 ** 2)} MiB${info.get('aof_rewrite_in_progress') === '1' ? ', being rewritten' : ''}`,
      entries: String(entries),
      owner: isOwner ? 'this process' : lockMs > 0 ? 'another process' : 'none',
      'up since': `${info.get('uptime_in_seconds') ?? '?'} s`,
      ...Object.fromEntries(wrong.map(({ title, remedy }) => [title, remedy])),
    },
    storedBytes,
  }
}

function checkMemory(info: ReadonlyMap<string, string>): string | null {
  const most = Number(info.get('maxmemory') ?? 0)
  const used = Number(info.get('used_memory') ?? 0)
  if (most === 0 || used < most * MEMORY_SHARE) return null
  return `It uses ${Math.round((100 * used) / most)} % of maxmemory: raise it, or let workers catch up, before it is full.`
}

function failed(cause: Error): JournalHealth {
  return {
    status: 'failed',
    reasons: [`Redis cannot be used now: ${describe(cause)}. It is tried again until it answers.`],
    facts: {},
    storedBytes: 0,
  }
}
