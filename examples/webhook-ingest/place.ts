/** Where a run has its data: a folder, a broker that runs already, or a broker of its own, which may then be killed, too. */
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface Place extends AsyncDisposable {
  /** As `sluice serve --data` and `open` take it. */
  readonly location: string
  /** The same without a password. */
  readonly shown: string
  /** Whether it is a broker: several servers then share it. */
  readonly isShared: boolean
  /** A broker that may be killed. */
  readonly broker: KillableBroker | null
}

export interface KillableBroker {
  /** Such as `Redis`. */
  readonly name: string
  /** SIGKILL, and its end. */
  kill(): Promise<void>
  /** On the same port and with the same data. */
  restart(): Promise<void>
}

export const BROKER_NAMES = ['redis', 'rabbitmq', 'kafka'] as const
export type BrokerName = (typeof BROKER_NAMES)[number]

/** A folder of its own, which is removed at the end. */
export async function makeFolder(): Promise<Place> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-webhooks-'))
  const remove = (): Promise<void> => rm(folder, { recursive: true, force: true })
  return { location: folder, shown: folder, isShared: false, broker: null, [Symbol.asyncDispose]: remove }
}

/** What `--data` names: it stays as the run leaves it. */
export function givenPlace(location: string): Place {
  const isShared = /^[a-z][a-z0-9+.-]*:\/\//i.test(location)
  return {
    ...(isShared ? inBroker(location) : { location, shown: location }),
    isShared,
    broker: null,
    [Symbol.asyncDispose]: async () => {},
  }
}

/** A broker on a free port, with its data in a folder of its own; both are gone at the end. */
export async function startBroker(name: BrokerName): Promise<Place> {
  const { BROKER_KINDS } = await import('../../scripts/brokers/engines.ts')
  const kind = BROKER_KINDS.find((one) => one.name.toLowerCase() === name)
  if (kind === undefined || (await kind.find()) === null) throw new Error(`There is no ${name} here.`)
  const broker = await kind.start()
  return {
    ...inBroker(broker.url),
    isShared: true,
    // One behind a URL of the environment (SLUICE_REDIS_URL and the like) is somebody else's.
    broker: broker.isOurs ? { name: kind.name, kill: broker.kill, restart: broker.restart } : null,
    [Symbol.asyncDispose]: () => broker[Symbol.asyncDispose](),
  }
}

/** In a namespace of this run, unless the URL names one: what other runs left there would be in the way. */
function inBroker(location: string): Pick<Place, 'location' | 'shown'> {
  const url = new URL(location)
  if (!url.searchParams.has('namespace')) url.searchParams.set('namespace', `webhooks-${randomUUID()}`)
  const shown = new URL(url)
  shown.username = ''
  shown.password = ''
  return { location: url.href, shown: shown.href }
}
