/** Where a Sluice is opened: a folder, memory, or a server. The engine is loaded with its first use. */
import { createAwakeHost } from './awake-host.ts'
import type { EngineAbilities } from './engine/abilities.ts'
import { SluiceError } from './errors.ts'
import { realHost, shiftHost } from './host/host.ts'
import { checkOptions, createRules, findNodeProblem, invalidOption, oneOf } from './options-check.ts'
import { createSluice, SLUICE_RULES, type Sluice, type SluiceOptions } from './sluice.ts'

/** How an acknowledged write survives: not at all, a killed process, a power cut. */
export type Durability = EngineAbilities['durability']

export interface OpenOptions extends SluiceOptions {
  /**
   * What an acknowledgement survives (P1): `os` a killed process, `disk` a power cut, `memory` nothing. An engine that
   * cannot reach it refuses to open, with `UNSUPPORTED`. @default the strongest: 'disk' for a folder, 'memory' for ':memory:'
   */
  readonly durability?: Durability | undefined
}

const RULES = createRules({ ...SLUICE_RULES, durability: oneOf(['memory', 'os', 'disk']) })
const SCHEME = /^([a-z][a-z0-9+.-]*):\/\//i

/** What to do instead, by scheme. */
const NOT_YET: Readonly<Record<string, string>> = {
  redis: 'The Redis engine is not part of this version',
  rediss: 'The Redis engine is not part of this version',
  amqp: 'The RabbitMQ engine is not part of this version',
  amqps: 'The RabbitMQ engine is not part of this version',
  kafka: 'The Kafka engine is not part of this version',
  file: 'A folder is given by its path, not as a URL',
}

/**
 * Opens a Sluice: over a folder, which is made if it is not there and belongs to one process at a time, over memory for
 * `':memory:'`, or over the server at `http://…` (see `sluice serve`), for any number of processes. Close it, or declare it with `await using`.
 *
 * Rejects with `LOCKED` (another process owns the folder), `READ_ONLY`, `FORMAT_NEWER`, `CORRUPT`, `DISK_FULL`,
 * `UNSUPPORTED` (the engine cannot do what was asked) and `INVALID_OPTION`.
 */
export async function open(location: string, options: OpenOptions = {}): Promise<Sluice> {
  if (typeof location !== 'string' || location === '')
    throw invalidOption('the location', location, "a folder or ':memory:'")
  if (location.includes('\0')) throw invalidOption('the location', location, 'a path without a zero character')
  checkOptions(options, RULES, 'open()')
  const scheme = SCHEME.exec(location)?.[1]?.toLowerCase()
  if (scheme === 'http' || scheme === 'https') return openRemote(location, options)
  if (scheme !== undefined) {
    // The location may have a password in it, so it is not shown.
    throw new SluiceError('UNSUPPORTED', refuseScheme(scheme), { scheme })
  }
  const nodeProblem = findNodeProblem(process.versions.node)
  if (nodeProblem !== null) throw nodeProblem
  const { durability, ...rest } = options
  const { openLocalEngine } = await import('./broker/local-engine.ts')
  return createSluice(await openLocalEngine(location, { durability }), rest)
}

/** What `sluice serve` serves, on this machine or another. */
async function openRemote(location: string, { durability, ...rest }: OpenOptions): Promise<Sluice> {
  if (!URL.canParse(location)) throw invalidOption('the location', location, 'a URL, such as http://127.0.0.1:8787')
  const url = new URL(location)
  if (url.username !== '' || url.password !== '')
    throw new SluiceError('UNSUPPORTED', 'Credentials in a URL are not sent. Leave them out.', { scheme: url.protocol })
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '')
    throw invalidOption('the location', url.href, `the address of a server without a path: ${url.origin}`)
  const { openRemoteEngine } = await import('./remote/remote-engine.ts')
  const engine = await openRemoteEngine(url)
  if (durability !== undefined && durability !== engine.abilities.durability) {
    await engine.close()
    throw new SluiceError(
      'UNSUPPORTED',
      `The server keeps what it acknowledges at the durability '${engine.abilities.durability}', and '${durability}' was asked for. That is chosen where its folder is opened.`,
      { durability, reached: engine.abilities.durability },
    )
  }
  const { heart, clockAheadMs } = engine
  const host = createAwakeHost(clockAheadMs === 0 ? realHost : shiftHost(realHost, clockAheadMs))
  return createSluice(engine, rest, { holder: 'token', heart, host })
}

function refuseScheme(scheme: string): string {
  const reason = NOT_YET[scheme] ?? `There is no engine for '${scheme}://'`
  return `${reason}. Open a folder, such as open('./data'), and serve it to others with \`sluice serve\`, whose HTTP API docs/http.md describes.`
}
