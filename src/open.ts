/** Where a Sluice is opened: a folder, or memory. The engine is loaded with its first use. */
import type { EngineAbilities } from './engine/abilities.ts'
import { SluiceError } from './errors.ts'
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
 * Opens a Sluice: over a folder, which is made if it is not there and belongs to one process at a time, or over memory
 * for `':memory:'`. Close it, or declare it with `await using`.
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

function refuseScheme(scheme: string): string {
  if (scheme === 'http' || scheme === 'https')
    return "Sluice opens folders, not servers. What `sluice serve` serves is used through its HTTP API (docs/http.md), with fetch or curl; or open the folder itself in one process, such as open('./data')."
  const reason = NOT_YET[scheme] ?? `There is no engine for '${scheme}://'`
  return `${reason}. Open a folder, such as open('./data'), and serve it to others with \`sluice serve\`, whose HTTP API docs/http.md describes.`
}
