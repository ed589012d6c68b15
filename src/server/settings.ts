/** The options of the server, with their defaults. */
import { SluiceError } from '../errors.ts'
import { isLoopback } from './guard.ts'
import { unknownMember, whole } from './members.ts'

export interface ServerOptions {
  /** The address to listen on. One that other machines reach is refused without `behindProxy`. @default '127.0.0.1' */
  readonly host?: string
  /** 0 takes a free one. @default 8_787 */
  readonly port?: number
  /** Says that a proxy in front checks who calls and speaks TLS, so that any address may be listened on. @default false */
  readonly behindProxy?: boolean
  /** Names, besides loopback and the listen address, that a `Host` header may have. @default [] */
  readonly allowedHosts?: readonly string[]
  /** Queues and topics that may exist for first use to make one more. @default 10_000. 0 makes first use declare nothing. */
  readonly maxQueues?: number
  /** Bytes of one message. @default 1_048_576 (1 MiB) */
  readonly maxMessageBytes?: number
  /** Bytes of a batch of lines and of any other body. @default 16_777_216 (16 MiB) */
  readonly maxBatchBytes?: number
  /** Requests at work at one time. @default 10_000 */
  readonly maxInFlight?: number
  /** Requests that wait at one time: long polls, event streams, `Prefer: wait`. @default 10_000 */
  readonly maxWaiting?: number
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
  allowedHosts: [],
  maxQueues: 10_000,
  maxMessageBytes: 1_048_576,
  maxBatchBytes: 16_777_216,
  maxInFlight: 10_000,
  maxWaiting: 10_000,
  heartbeatMs: 15_000,
  requestTimeoutMs: 60_000,
  drainMs: 10_000,
  log: null,
}

const MAX_COUNT = 1_000_000_000
const RANGES: Readonly<Record<string, readonly [min: number, max: number]>> = {
  port: [0, 65_535],
  maxQueues: [0, MAX_COUNT],
  maxMessageBytes: [1, 268_435_456],
  maxBatchBytes: [1, 268_435_456],
  maxInFlight: [1, MAX_COUNT],
  maxWaiting: [0, MAX_COUNT],
  heartbeatMs: [10, 3_600_000],
  requestTimeoutMs: [100, 3_600_000],
  drainMs: [0, 3_600_000],
}

export function completeServerOptions(options: ServerOptions): ServerSettings {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
  const unknown = Object.keys(given).find((name) => !Object.hasOwn(DEFAULTS, name))
  if (unknown !== undefined) throw unknownMember(unknown, Object.keys(DEFAULTS), 'the options of the server')
  const settings: ServerSettings = { ...DEFAULTS, ...given }
  for (const [name, [min, max]] of Object.entries(RANGES)) whole(min, max)(settings[name as keyof ServerSettings], name)
  if (!isLoopback(settings.host) && !settings.behindProxy) {
    throw new SluiceError(
      'INVALID_OPTION',
      `host is '${settings.host}', which other machines reach, and the server asks for no credentials. Listen on 127.0.0.1, or say \`behindProxy\` (--behind-proxy) where a proxy in front checks who calls.`,
      { option: 'host' },
    )
  }
  return settings
}
