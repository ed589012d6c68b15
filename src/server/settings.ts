/** The options of the server, with their defaults. */
import { SluiceError } from '../errors.ts'
import { MAX_PAYLOAD_BYTES } from '../message-batch.ts'
import {
  checkOptions,
  createRules,
  duration,
  flag,
  invalidOption,
  MAX_COUNT,
  nullable,
  parts,
  text,
  whole,
} from '../options-check.ts'
import { isLive, readKeyFile } from './access/key-file.ts'
import { isLoopback } from './guard.ts'
import { readTls, type TlsFiles } from './tls.ts'

export interface ServerOptions {
  /**
   * The address to listen on. One that other machines reach needs `keys`, with a key that is good, and `tls`; or
   * `behindProxy`. @default '127.0.0.1'
   */
  readonly host?: string
  /** 0 takes a free one. @default 8_787 */
  readonly port?: number
  /** Says that a proxy in front checks who calls and speaks TLS, so that any address may be listened on. @default false */
  readonly behindProxy?: boolean
  /**
   * The path of the key file that `sluice keys` writes (docs/security.md). Once it is there, every call needs a key of it,
   * also where it is made while the server runs. Null: no call needs one. @default null
   */
  readonly keys?: string | null
  /** Paths of the certificate and the private key, PEM, to speak https. They are read again when they change. @default null */
  readonly tls?: TlsFiles | null
  /** Names, besides loopback and the listen address, that a `Host` header may have. @default [] */
  readonly allowedHosts?: readonly string[]
  /** Queues and topics that may exist for first use to make one more. @default 10_000. 0 makes first use declare nothing. */
  readonly maxQueues?: number
  /** Bytes of one message, at most 15,728,640 (15 MiB). @default 1_048_576 (1 MiB) */
  readonly maxMessageBytes?: number
  /** Bytes of a batch of lines and of any other body. @default 16_777_216 (16 MiB) */
  readonly maxBatchBytes?: number
  /** Bytes of messages in one answer, as near as the messages allow. @default 4_194_304 (4 MiB) */
  readonly maxAnswerBytes?: number
  /** Bytes of all bodies that are held at one time. @default 268_435_456 (256 MiB) */
  readonly maxBodyBytes?: number
  /**
   * Bytes of large answers that clients have not taken yet; past it the connection of the oldest is cut.
   * @default 268_435_456 (256 MiB)
   */
  readonly maxSendingBytes?: number
  /**
   * Requests at work at one time. Reads may fill 0.6 of it, publishing 0.8, leasing 0.9, settling all of it, so that the
   * lower classes are refused first. @default 10_000
   */
  readonly maxInFlight?: number
  /**
   * Milliseconds that the event loop may be late on average, 0 to a minute; beyond it fewer requests are let in. 0 leaves
   * it at `maxInFlight`. @default 150
   */
  readonly maxLoopDelayMs?: number
  /** Requests that wait at one time: long polls, event streams, `Prefer: wait`; in the same shares. @default 10_000 */
  readonly maxWaiting?: number
  /** Connections that may be open at one time; one more is closed unanswered. @default 25_000 */
  readonly maxConnections?: number
  /**
   * Where a backup that is asked for stands while it is made and sent; best the data folder, whose disk has room for it.
   * What is left of earlier ones there is removed. Null: the folder for temporary files. @default null
   */
  readonly backupDir?: string | null
  /** Milliseconds between comments on an idle event stream. @default 15_000 */
  readonly heartbeatMs?: number
  /** Milliseconds within which a request must have arrived whole. @default 60_000 */
  readonly requestTimeoutMs?: number
  /** Milliseconds that `close` gives to requests at work before it cuts their connections. @default 10_000 */
  readonly drainMs?: number
  /** Where log lines go; null: nowhere. Only failures of the server are logged. @default null */
  readonly log?: { write(line: string): void } | null
}

export type ServerSettings = Required<ServerOptions>

const DEFAULTS: ServerSettings = {
  host: '127.0.0.1',
  port: 8_787,
  behindProxy: false,
  keys: null,
  tls: null,
  allowedHosts: [],
  maxQueues: 10_000,
  maxMessageBytes: 1_048_576,
  maxBatchBytes: 16_777_216,
  maxAnswerBytes: 4_194_304,
  maxBodyBytes: 268_435_456,
  maxSendingBytes: 268_435_456,
  maxInFlight: 10_000,
  maxLoopDelayMs: 150,
  maxWaiting: 10_000,
  maxConnections: 25_000,
  backupDir: null,
  heartbeatMs: 15_000,
  requestTimeoutMs: 60_000,
  drainMs: 10_000,
  log: null,
}

const MAX_BODY_BYTES = 268_435_456
const RULES = createRules({
  host: text(255),
  port: whole(0, 65_535),
  behindProxy: flag,
  keys: nullable(text(4_096)),
  tls: nullable(parts(createRules({ cert: text(4_096), key: text(4_096) }), ['cert', 'key'])),
  allowedHosts: (value, name) => {
    if (!Array.isArray(value)) throw invalidOption(name, value, 'an array of host names')
    for (const [i, host] of value.entries()) text(255)(host, `${name}[${i}]`)
  },
  maxQueues: whole(0, MAX_COUNT),
  maxMessageBytes: whole(1, MAX_PAYLOAD_BYTES),
  maxBatchBytes: whole(1, MAX_BODY_BYTES),
  maxAnswerBytes: whole(1, MAX_BODY_BYTES),
  maxBodyBytes: whole(1, MAX_COUNT),
  maxSendingBytes: whole(1, MAX_COUNT),
  maxInFlight: whole(1, MAX_COUNT),
  maxLoopDelayMs: duration(0, 60_000),
  maxWaiting: whole(0, MAX_COUNT),
  maxConnections: whole(1, MAX_COUNT),
  backupDir: nullable(text(4_096)),
  heartbeatMs: duration(10, 3_600_000),
  requestTimeoutMs: duration(100, 3_600_000),
  drainMs: duration(0, 3_600_000),
  log: (value, name) => {
    if (value !== null && typeof (value as { write?: unknown }).write !== 'function')
      throw invalidOption(name, value, 'null or something with write(line)')
  },
})

export function completeServerOptions(options: ServerOptions): ServerSettings {
  checkOptions(options, RULES, 'createServer()')
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
  const settings: ServerSettings = { ...DEFAULTS, ...given }
  checkReach(settings)
  return settings
}

/** Throws where other machines could call without a key, or read along. */
function checkReach({ host, behindProxy, keys, tls }: ServerSettings): void {
  if (tls !== null) readTls(tls)
  const hasKey = keys !== null && readKeyFile(keys).some((key) => isLive(key, Date.now()))
  if (isLoopback(host) || behindProxy || (tls !== null && hasKey)) return
  const missing = [
    ...(hasKey ? [] : ['a key (sluice keys create --scope admin, and the option `keys`)']),
    ...(tls === null ? ['TLS (--tls-cert and --tls-key, the option `tls`)'] : []),
  ]
  throw new SluiceError(
    'INVALID_OPTION',
    `host is '${host}', which other machines reach, and the server has not ${missing.join(' nor ')}. Give it that; or listen on 127.0.0.1; or say \`behindProxy\` (--behind-proxy) where a proxy in front checks who calls and speaks TLS.`,
    { option: 'host' },
  )
}
