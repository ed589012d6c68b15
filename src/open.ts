/** Where a Sluice is opened: a folder, memory, a server, or a broker. The engine is loaded with its first use. */
import { sendFrom } from './callbacks/send-from.ts'
import { CALLBACK_RULES, type CallbackOptions } from './callbacks/sender.ts'
import { checkCredential } from './credential.ts'
import type { EngineAbilities } from './engine/abilities.ts'
import { SluiceError } from './errors.ts'
import { BROKER_SCHEMES } from './journals/schemes.ts'
import {
  checkOptions,
  createRules,
  findNodeProblem,
  flag,
  invalidOption,
  oneOf,
  parts,
  type Rule,
  text,
  whole,
} from './options-check.ts'
import { createSluice, SLUICE_RULES, type Sluice, type SluiceOptions } from './sluice.ts'

/** How an acknowledged write survives: not at all, a killed process, a power cut. */
export type Durability = EngineAbilities['durability']

export interface OpenOptions extends SluiceOptions {
  /**
   * What an acknowledgement survives (P1): `os` a killed process, `disk` a power cut, `memory` nothing. An engine that
   * cannot reach it refuses to open, with `UNSUPPORTED`. @default the strongest: 'disk' for a folder, 'memory' for ':memory:'
   */
  readonly durability?: Durability | undefined
  /**
   * On a broker: on how many machines an acknowledged write must be, 1 to 100. One that cannot reach it refuses to open, with
   * `UNSUPPORTED`. @default 1, and each receipt says how many there are
   */
  readonly copies?: number | undefined
  /**
   * On a broker: what everything there is named after, so that several can share it: 1 to 64 letters, digits, dots, dashes or
   * underscores. The URL may give it, too: `redis://…?namespace=shop`. @default 'sluice'
   */
  readonly namespace?: string | undefined
  /**
   * On a broker: the folder for the cache of its data, which is built anew when this process takes them over. It needs room
   * for all of it. @default where the system keeps what is temporary
   */
  readonly stateDir?: string | undefined
  /** On a broker: how long one that does not answer is tried, in milliseconds, 1 to 600,000. @default 10_000 */
  readonly connectMs?: number | undefined
  /**
   * The API key for the server at `http://…` or `https://…`, as `sluice keys create` printed it: take it from the
   * environment, not from the source. It is sent with every call and shown nowhere. @default none
   */
  readonly credential?: string | undefined
  /**
   * Sends the credential over http to another machine, where whoever is on the way can read it. For networks that encrypt
   * by themselves, such as a service mesh. @default false: `INVALID_OPTION`
   */
  readonly insecureHttp?: boolean | undefined
  /**
   * Sends the callbacks of jobs that were added with `callbackUrl` from this process; `{}` for the defaults. `sluice serve`
   * does so by itself, and any number of processes may. @default none are sent from here: they wait in their queue
   */
  readonly callbacks?: CallbackOptions | undefined
}

const credential: Rule = (value) => {
  // The value may be a key that was mistyped, so it is not shown.
  if (typeof value !== 'string')
    throw new SluiceError('INVALID_OPTION', 'credential must be text.', { option: 'credential' })
}
const RULES = createRules({
  ...SLUICE_RULES,
  durability: oneOf(['memory', 'os', 'disk']),
  copies: whole(1, 100),
  namespace: text(64),
  stateDir: text(4_096),
  connectMs: whole(1, 600_000),
  credential,
  insecureHttp: flag,
  callbacks: parts(CALLBACK_RULES),
})
const SCHEME = /^([a-z][a-z0-9+.-]*):\/\//i
const NAMESPACE = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/
const DEFAULT_NAMESPACE = 'sluice'

/**
 * Opens a Sluice: over a folder, which is made if it is not there and belongs to one process at a time, over memory for
 * `':memory:'`, or, for any number of processes, over the server at `http://…` (see `sluice serve`) or over a broker:
 * `redis://…`, `amqp://…`, `kafka://…`. Close it, or declare it with `await using`.
 *
 * Rejects with `LOCKED` (another process owns the folder), `READ_ONLY`, `FORMAT_NEWER`, `CORRUPT`, `DISK_FULL`,
 * `UNREACHABLE`, `UNAUTHENTICATED`, `FOREIGN_DATA`, `UNSUPPORTED` (the engine cannot do what was asked) and `INVALID_OPTION`.
 */
export async function open(location: string, options: OpenOptions = {}): Promise<Sluice> {
  if (typeof location !== 'string' || location === '')
    throw invalidOption('the location', location, "a folder or ':memory:'")
  if (location.includes('\0')) throw invalidOption('the location', location, 'a path without a zero character')
  checkOptions(options, RULES, 'open()')
  const { callbacks, ...others } = options
  const isFolder = location !== ':memory:' && !SCHEME.test(location)
  return sendFrom(await openEngine(location, others), callbacks, isFolder ? location : null)
}

/** Opens what the location says, by its options, which have been checked. */
async function openEngine(location: string, options: OpenOptions): Promise<Sluice> {
  const scheme = SCHEME.exec(location)?.[1]?.toLowerCase()
  if (scheme === 'http' || scheme === 'https') return openRemote(location, options)
  const nodeProblem = findNodeProblem(process.versions.node)
  if (nodeProblem !== null) throw nodeProblem
  if (scheme !== undefined) {
    if (BROKER_SCHEMES.includes(scheme)) return openBroker(location, options)
    // The location may have a password in it, so it is not shown.
    throw new SluiceError('UNSUPPORTED', refuseScheme(scheme), { scheme })
  }
  refuseBrokerOptions(options, 'A folder')
  refuseServerOptions(options, 'A folder')
  const { durability, ...rest } = options
  const { openLocalEngine } = await import('./broker/local-engine.ts')
  return createSluice(await openLocalEngine(location, { durability }), rest)
}

/** Redis, RabbitMQ, Kafka: shared with every process that opens the same namespace. */
async function openBroker(location: string, options: OpenOptions): Promise<Sluice> {
  refuseServerOptions(options, 'A broker')
  const { durability, copies, connectMs, namespace, stateDir, ...rest } = options
  if (!URL.canParse(location))
    throw invalidOption('the location', '(a URL)', 'a URL that can be read, such as redis://127.0.0.1')
  const url = new URL(location)
  const name = namespace ?? url.searchParams.get('namespace') ?? DEFAULT_NAMESPACE
  url.searchParams.delete('namespace')
  if (!NAMESPACE.test(name))
    throw invalidOption(
      'namespace',
      name,
      '1 to 64 letters, digits, dots, dashes or underscores, the first a letter or digit',
    )
  const { openSharedEngine } = await import('./broker/local-engine.ts')
  const engine = await openSharedEngine({
    url: url.href,
    namespace: name,
    durability,
    copies,
    connectMs,
    stateDir: stateDir ?? null,
  })
  return createSluice(engine, rest, { holder: 'token', heart: engine.heart, clockAheadMs: () => engine.clockAheadMs })
}

function refuseBrokerOptions(options: OpenOptions, what: string): void {
  for (const name of ['copies', 'namespace', 'stateDir', 'connectMs'] as const) {
    if (options[name] === undefined || (name === 'copies' && options.copies === 1)) continue
    throw new SluiceError('UNSUPPORTED', `${what} has no \`${name}\`: that is for brokers, such as redis://…`, {
      option: name,
    })
  }
}

function refuseServerOptions({ credential, insecureHttp }: OpenOptions, what: string): void {
  if (credential === undefined && insecureHttp === undefined) return
  throw new SluiceError('UNSUPPORTED', `${what} has no \`credential\`: that is for servers, at https://….`, {
    option: 'credential',
  })
}

/** What `sluice serve` serves, on this machine or another. */
async function openRemote(location: string, options: OpenOptions): Promise<Sluice> {
  refuseBrokerOptions(options, 'A server')
  const { durability, credential, insecureHttp, ...rest } = options
  if (!URL.canParse(location)) throw invalidOption('the location', location, 'a URL, such as http://127.0.0.1:8787')
  const url = new URL(location)
  if (url.username !== '' || url.password !== '')
    throw new SluiceError(
      'UNSUPPORTED',
      'Credentials in a URL are not sent. Leave them out, and give a key as the option `credential`.',
      { scheme: url.protocol },
    )
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '')
    throw invalidOption('the location', url.href, `the address of a server without a path: ${url.origin}`)
  const { openRemoteEngine } = await import('./remote/remote-engine.ts')
  const wrong = credential === undefined ? null : checkCredential(credential, url, insecureHttp)
  if (wrong !== null) throw new SluiceError('INVALID_OPTION', `credential ${wrong}`, { option: 'credential' })
  const engine = await openRemoteEngine(url, credential)
  if (durability !== undefined && durability !== engine.abilities.durability) {
    await engine.close()
    throw new SluiceError(
      'UNSUPPORTED',
      `The server keeps what it acknowledges at the durability '${engine.abilities.durability}', and '${durability}' was asked for. That is chosen where its folder is opened.`,
      { durability, reached: engine.abilities.durability },
    )
  }
  const { heart, clockAheadMs } = engine
  return createSluice(engine, rest, { holder: 'token', heart, clockAheadMs: () => clockAheadMs })
}

function refuseScheme(scheme: string): string {
  const reason =
    scheme === 'file' ? 'A folder is given by its path, not as a URL' : `There is no engine for '${scheme}://'`
  return `${reason}. Open a folder, such as open('./data'), a server (http, https), or a broker (${BROKER_SCHEMES.join(', ')}).`
}
