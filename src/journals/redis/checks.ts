/**
 * What the configuration of a Redis keeps, and whether that is what was asked for (P1). The same for opening, which refuses,
 * for a server that is looked at again while it is used, and for `sluice verify`.
 */
import type { Durability } from '../../logs/contract.ts'
import type { Finding, JournalOptions } from '../contract.ts'
import { type Connection, Refused } from './connection.ts'

/** Letters and entries must fit. */
const LEAST_BULK_BYTES = 32 * 1024 ** 2
/** A journal is swept from 64 MiB on, and takes as much again meanwhile. */
const LEAST_MEMORY_BYTES = 256 * 1024 ** 2
/** A receiver that is behind by this much is cut off by Redis's default. */
const LEAST_PUBSUB_BYTES = 32 * 1024 ** 2
const CONFIG = [
  'appendfsync',
  'no-appendfsync-on-rewrite',
  'min-replicas-to-write',
  'proto-max-bulk-len',
  'client-output-buffer-limit',
  'stop-writes-on-bgsave-error',
] as const

export type Wanted = Pick<JournalOptions, 'durability' | 'copies'>

/** How a server says that it keeps what it answered. */
export interface Inspection {
  readonly findings: readonly Finding[]
  readonly info: ReadonlyMap<string, string>
  readonly durability: Durability
  /** Its answer alone does not say that it has written: each append asks. */
  readonly asksForWrite: boolean
}

export async function inspectServer(connection: Connection, wanted: Wanted): Promise<Inspection> {
  const info = await readInfo(connection)
  const config = await readConfig(connection)
  const policy = config?.get('appendfsync')
  const durability = policy === undefined ? (wanted.durability ?? 'os') : policy === 'always' ? 'disk' : 'os'
  const findings = [
    checkVersion(info),
    checkRole(info),
    checkCluster(info),
    checkLog(info),
    ...(config === null ? [checkDenied(wanted)] : [checkSync(config, wanted), checkRewrite(config)]),
    checkEviction(info),
    checkMemory(info),
    checkCopies(info, config, wanted),
    ...(config === null ? [] : [checkBulk(config), checkPubsub(config)]),
    checkWrites(info, config),
  ]
  return {
    findings,
    info,
    durability,
    asksForWrite: durability !== 'disk',
  }
}

/** How far the append-only file has got. */
export interface LogFile {
  /** Changes with each rewrite, as sizes do then. */
  readonly baseBytes: number
  readonly bytes: number
  /** Answered, or about to be, and not in the file yet. */
  readonly waitingBytes: number
}

export async function readLogFile(connection: Connection): Promise<LogFile> {
  const info = await readInfo(connection, 'persistence')
  const read = (name: string): number => Number(info.get(name) ?? Number.NaN)
  return {
    baseBytes: read('aof_base_size'),
    bytes: read('aof_current_size'),
    waitingBytes: read('aof_buffer_length'),
  }
}

export async function readInfo(connection: Connection, ...sections: readonly string[]): Promise<Map<string, string>> {
  const text = String(await connection.ask(['INFO', ...sections]))
  return new Map(text.split('\r\n').map(splitOnce))
}

function splitOnce(line: string): [string, string] {
  const at = line.indexOf(':')
  return at < 0 ? [line, ''] : [line.slice(0, at), line.slice(at + 1)]
}

/** Null where the server does not tell: those of several providers do not. */
async function readConfig(connection: Connection): Promise<Map<string, string> | null> {
  try {
    const answer = await connection.ask(['CONFIG', 'GET', ...CONFIG])
    const pairs = Array.isArray(answer)
      ? answer.flatMap((name, i) => (i % 2 === 0 ? [[String(name), String(answer[i + 1])] as const] : []))
      : Object.entries(answer as Record<string, unknown>).map(([name, value]) => [name, String(value)] as const)
    return new Map(pairs)
  } catch (error) {
    if (error instanceof Refused) return null
    throw error
  }
}

/** Valkey says with `redis_version` which Redis it is like. */
export function showVersion(info: ReadonlyMap<string, string>): string {
  const valkey = info.get('valkey_version')
  return valkey === undefined ? `Redis ${info.get('redis_version') ?? 'unknown'}` : `Valkey ${valkey}`
}

function checkVersion(info: ReadonlyMap<string, string>): Finding {
  const title = showVersion(info)
  if (Number.parseInt(info.get('redis_version') ?? '0', 10) >= 7)
    return fine(title, 'Scripts run while memory is short, and replies follow the sync.')
  return refuse(title, 'The scripts need Redis 7.0 or Valkey.', 'Use Redis 7.0 or newer, or Valkey.')
}

function checkRole(info: ReadonlyMap<string, string>): Finding {
  if (info.get('role') === 'master') return fine('role: primary', 'It takes writes.')
  return refuse(
    `role: ${info.get('role')}`,
    'A replica takes no writes.',
    `Connect to its primary${info.has('master_host') ? `, ${info.get('master_host')}:${info.get('master_port')}` : ''}.`,
  )
}

function checkCluster(info: ReadonlyMap<string, string>): Finding {
  if (info.get('cluster_enabled') !== '1') return fine('cluster: off', 'All keys are on this server.')
  return refuse(
    'cluster: on',
    'A cluster fails over by itself to a replica that may lack what was acknowledged, fences included.',
    'Use a server without cluster mode.',
  )
}

function checkLog(info: ReadonlyMap<string, string>): Finding {
  if (info.get('aof_enabled') === '1') return fine('appendonly yes', 'What was written survives a restart.')
  return refuse(
    'appendonly no',
    'Without the append-only file a restart loses what came after the last snapshot, fences included: two owners could have the same.',
    'Set `appendonly yes` in redis.conf (and `CONFIG SET appendonly yes` on the running server).',
  )
}

function checkDenied({ durability }: Wanted): Finding {
  if (durability === undefined)
    return refuse(
      'CONFIG denied',
      'The server does not tell when it syncs, so what it keeps is not known.',
      'Allow `CONFIG GET`, or state what it keeps: open it with `durability`.',
    )
  return warn(
    `CONFIG denied, durability '${durability}' taken on trust`,
    'The server does not tell when it syncs.',
    'Make sure that it is so with whoever runs the server, or allow `CONFIG GET`.',
  )
}

function checkSync(config: ReadonlyMap<string, string>, { durability }: Wanted): Finding {
  const policy = config.get('appendfsync')
  const title = `appendfsync ${policy}`
  if (policy === 'always') return fine(title, 'Synced before it is answered: it survives a power cut.')
  if (durability === 'os' || durability === 'memory')
    return fine(
      title,
      "Written before it is answered, as 'os' asks: a killed redis-server loses nothing, a power cut may.",
    )
  return refuse(
    title,
    'A power cut loses what was answered since the last sync.',
    "Set `appendfsync always`, or open it with `durability: 'os'` if a power cut may lose the last second or more.",
  )
}

function checkRewrite(config: ReadonlyMap<string, string>): Finding {
  if (config.get('no-appendfsync-on-rewrite') !== 'yes')
    return fine('no-appendfsync-on-rewrite no', 'It syncs while the append-only file is rewritten, too.')
  return refuse(
    'no-appendfsync-on-rewrite yes',
    'It stops syncing while the append-only file is rewritten, whatever `appendfsync` says.',
    'Set `no-appendfsync-on-rewrite no`.',
  )
}

function checkEviction(info: ReadonlyMap<string, string>): Finding {
  const policy = info.get('maxmemory_policy')
  if (policy === 'noeviction')
    return fine('maxmemory-policy noeviction', 'When it is full it refuses, and removes nothing.')
  return refuse(
    `maxmemory-policy ${policy}`,
    'When memory is short it removes keys of ours, acknowledged or not.',
    'Set `maxmemory-policy noeviction`.',
  )
}

function checkMemory(info: ReadonlyMap<string, string>): Finding {
  const most = Number(info.get('maxmemory') ?? 0)
  if (most > 0 && most < LEAST_MEMORY_BYTES)
    return warn(
      `maxmemory ${info.get('maxmemory_human')}`,
      'What is not needed any more is removed from 64 MiB of journal on: before that it may be full of it.',
      'Set `maxmemory` to at least 256mb.',
    )
  if (most > 0)
    return fine(`maxmemory ${info.get('maxmemory_human')}`, 'Beyond it publishers are told that it is full.')
  return warn(
    'maxmemory 0',
    'It takes memory until the system kills it, rather than telling publishers that it is full.',
    'Set `maxmemory` to what the machine has for it, with room for the rewrite of the append-only file.',
  )
}

function checkCopies(
  info: ReadonlyMap<string, string>,
  config: ReadonlyMap<string, string> | null,
  { copies = 1 }: Wanted,
): Finding {
  const replicas = Number(info.get('connected_slaves') ?? 0)
  const title = `replicas: ${replicas}`
  if (copies === 1) {
    if (replicas === 0) return fine(title, 'One copy, as asked.')
    return warn(
      title,
      'Replicas follow behind: one that is promoted may lack what was acknowledged. An open Sluice then stops with ENGINE_CHANGED.',
      'Open it with `copies` to wait for replicas with each append, or keep them from being promoted by themselves.',
    )
  }
  if (replicas < copies - 1)
    return refuse(
      title,
      `${copies} copies were asked for, and there are ${replicas + 1}.`,
      `Add replicas, or ask for at most ${replicas + 1}.`,
    )
  if (config !== null && Number(config.get('min-replicas-to-write')) < copies - 1)
    return warn(
      `${title}, min-replicas-to-write ${config.get('min-replicas-to-write')}`,
      'When replicas are gone it takes writes all the same, and Sluice learns only afterwards that there are too few copies.',
      `Set \`min-replicas-to-write ${copies - 1}\`: it then refuses in time, as if it were full.`,
    )
  return fine(title, 'Each append waits until enough of them have it, in memory.')
}

function checkBulk(config: ReadonlyMap<string, string>): Finding {
  const most = Number(config.get('proto-max-bulk-len') ?? LEAST_BULK_BYTES)
  if (most >= LEAST_BULK_BYTES) return fine(`proto-max-bulk-len ${most}`, 'Every entry and letter fits.')
  return refuse(
    `proto-max-bulk-len ${most}`,
    'Large entries and letters do not fit.',
    `Set it to at least ${LEAST_BULK_BYTES}.`,
  )
}

function checkPubsub(config: ReadonlyMap<string, string>): Finding {
  const limits = /pubsub (\d+)/.exec(config.get('client-output-buffer-limit') ?? '')
  const most = Number(limits?.[1] ?? LEAST_PUBSUB_BYTES)
  const title = `client-output-buffer-limit pubsub ${most}`
  if (most === 0 || most >= LEAST_PUBSUB_BYTES)
    return fine(title, 'A process that is busy for a moment loses no letters.')
  return warn(
    title,
    'A process that is busy for a moment is cut off, and requests of other processes are sent again.',
    'Set `client-output-buffer-limit "pubsub 32mb 8mb 60"` or more.',
  )
}

function checkWrites(info: ReadonlyMap<string, string>, config: ReadonlyMap<string, string> | null): Finding {
  if (info.get('aof_last_write_status') === 'err')
    return warn('aof_last_write_status err', 'It cannot write its append-only file.', 'Free or mend its disk.')
  const stops = config?.get('stop-writes-on-bgsave-error') !== 'no'
  if (info.get('rdb_last_bgsave_status') === 'err' && stops)
    return warn(
      'rdb_last_bgsave_status err',
      'Its last snapshot failed, and until one succeeds it refuses writes.',
      'Free or mend its disk, or switch snapshots off: `save ""`. The append-only file is enough.',
    )
  return fine('writes', 'Its last writes to disk succeeded.')
}

function fine(title: string, reason: string): Finding {
  return { severity: 'ok', title, reason, remedy: '' }
}

function warn(title: string, reason: string, remedy: string): Finding {
  return { severity: 'warn', title, reason, remedy }
}

function refuse(title: string, reason: string, remedy: string): Finding {
  return { severity: 'refuse', title, reason, remedy }
}
