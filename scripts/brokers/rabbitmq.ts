/**
 * A real RabbitMQ for tests and benches: one node, or a cluster of several, on free ports of loopback and in a folder of
 * its own, with the management API, and an epmd of its own (so that it meets no other RabbitMQ of the machine).
 *
 * `SLUICE_RABBITMQ_URL` uses a running one instead (with `?management=http://…` in it, health is tested, too): what needs a
 * hand on the server is then skipped by those who ask `isOurs`.
 */
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  type Broker,
  borrowBroker,
  findFreePorts,
  installPackages,
  isListening,
  readVersion,
  type ServerProcess,
  startBroker,
  startProcess,
  tellMissing,
  waitUntil,
} from './broker.ts'

/** Where Debian's package keeps the scripts that run as whoever calls them. */
const SERVER = '/usr/lib/rabbitmq/bin/rabbitmq-server'
const CONTROL = '/usr/lib/rabbitmq/bin/rabbitmqctl'
const START_MS = 120_000
const GUEST = { authorization: `Basic ${btoa('guest:guest')}` }

export interface RabbitmqOptions {
  /** Nodes of the cluster. @default 1 */
  readonly nodes?: number
  /** More lines of rabbitmq.conf, such as `vm_memory_high_watermark.absolute = 1`. */
  readonly conf?: readonly string[]
}

export interface RabbitmqNode extends Broker {
  readonly name: string
  /** Of the management API, as `?management=` takes it. */
  readonly management: string
  /** Runs rabbitmqctl, and answers what it printed. */
  control(...args: readonly string[]): Promise<string>
}

/** What is done to it is done to its first node; `stop` and disposal are of all. */
export interface Rabbitmq extends RabbitmqNode {
  /** With every node and the management API in it. */
  readonly fullUrl: string
  readonly nodes: readonly RabbitmqNode[]
}

/** Its version, installed where it is missing; null where that is not possible, which was then said loudly. */
export function findRabbitmq(): string | null {
  if (process.env['SLUICE_RABBITMQ_URL'] !== undefined) return 'of SLUICE_RABBITMQ_URL'
  if (!existsSync(SERVER)) installPackages('rabbitmq-server')
  if (!existsSync(SERVER)) {
    tellMissing('RabbitMQ', 'Install it from the packages of Debian 12: `sudo apt-get install rabbitmq-server`.')
    return null
  }
  return readVersion('dpkg-query', '--show', 'rabbitmq-server')?.split('\t')[1] ?? 'unknown'
}

export async function startRabbitmq(options: RabbitmqOptions = {}): Promise<Rabbitmq> {
  const given = process.env['SLUICE_RABBITMQ_URL']
  if (given !== undefined) return borrowRabbitmq(given)
  if (findRabbitmq() === null) throw new Error('RabbitMQ is missing')
  const { nodes: size = 1, conf = [] } = options
  const folder = await mkdtemp(join(tmpdir(), 'sluice-rabbitmq-'))
  const ports = await findFreePorts(1 + 3 * size)
  const [epmdPort = 0] = ports
  const epmd = await startEpmd(folder, epmdPort)
  const names = Array.from({ length: size }, (_, at) => `sluice-${ports[1 + 3 * at]}@localhost`)
  const settings = { names, cookie: randomBytes(12).toString('hex'), epmdPort, conf }
  const starting = names.map((name, at) =>
    startNode({ ...settings, name, folder: join(folder, String(at)), ports: ports.slice(1 + 3 * at, 4 + 3 * at) }),
  )
  const started = await Promise.allSettled(starting)
  const nodes = started.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
  const stop = async (): Promise<void> => {
    await Promise.all(nodes.map((node) => node.stop()))
    await epmd.stop()
    await rm(folder, { recursive: true, force: true, maxRetries: 5 })
  }
  try {
    for (const one of started) if (one.status === 'rejected') throw one.reason
    const [first] = nodes as [RabbitmqNode]
    if (size > 1) await untilClustered(first, size)
    const hosts = nodes.slice(1).map(({ url }) => new URL(url).host)
    const fullUrl = `${first.url}?management=${first.management}${size > 1 ? `&hosts=${hosts.join(',')}` : ''}`
    return Object.assign(Object.create(first) as RabbitmqNode, { nodes, fullUrl, stop, [Symbol.asyncDispose]: stop })
  } catch (error) {
    await stop()
    throw error
  }
}

interface NodeSettings {
  readonly name: string
  readonly names: readonly string[]
  readonly folder: string
  /** AMQP, management, distribution. */
  readonly ports: readonly number[]
  readonly cookie: string
  readonly epmdPort: number
  readonly conf: readonly string[]
}

async function startNode(settings: NodeSettings): Promise<RabbitmqNode> {
  const { name, folder, ports, cookie } = settings
  const [port = 0, managementPort = 0] = ports
  await mkdir(folder, { recursive: true })
  await writeFile(join(folder, '.erlang.cookie'), cookie, { mode: 0o400 })
  await writeFile(join(folder, 'enabled_plugins'), '[rabbitmq_management].\n')
  await writeFile(join(folder, 'rabbitmq.conf'), `${listConfiguration(settings).join('\n')}\n`)
  const env = createEnvironment(settings)
  const management = `http://127.0.0.1:${managementPort}`
  const broker = await startBroker(`amqp://guest:guest@127.0.0.1:${port}/`, () =>
    startProcess({
      name: `rabbitmq-server (${name})`,
      command: SERVER,
      args: [],
      cwd: folder,
      env,
      outputFile: join(folder, 'output.txt'),
      isReady: async () =>
        (await isListening(port)) && (await fetch(`${management}/api/overview`, { headers: GUEST })).ok,
      readyMs: START_MS,
    }),
  )
  return Object.assign(broker, { name, management, control: (...args: readonly string[]) => control(name, env, args) })
}

function listConfiguration({ names, ports: [port, managementPort], conf }: NodeSettings): string[] {
  const cluster = [
    'cluster_formation.peer_discovery_backend = classic_config',
    ...names.map((name, at) => `cluster_formation.classic_config.nodes.${at + 1} = ${name}`),
    // Nodes that start together must not each found a cluster.
    'cluster_formation.randomized_startup_delay_range.min = 0',
    'cluster_formation.randomized_startup_delay_range.max = 2',
  ]
  return [
    `listeners.tcp.1 = 127.0.0.1:${port}`,
    'management.tcp.ip = 127.0.0.1',
    `management.tcp.port = ${managementPort}`,
    'log.file.level = warning',
    ...(names.length > 1 ? cluster : []),
    ...conf,
  ]
}

function createEnvironment({ name, folder, ports, epmdPort }: NodeSettings): NodeJS.ProcessEnv {
  return {
    PATH: process.env['PATH'],
    LANG: 'C.UTF-8',
    HOME: folder,
    // The script then becomes the server, rather than having it as a child: its process id is the one we know.
    detached: 'true',
    ERL_EPMD_PORT: String(epmdPort),
    ERL_EPMD_ADDRESS: '127.0.0.1',
    RABBITMQ_NODENAME: name,
    RABBITMQ_DIST_PORT: String(ports[2]),
    RABBITMQ_MNESIA_BASE: join(folder, 'data'),
    RABBITMQ_LOG_BASE: join(folder, 'log'),
    RABBITMQ_CONFIG_FILE: join(folder, 'rabbitmq'),
    RABBITMQ_ADVANCED_CONFIG_FILE: join(folder, 'advanced'),
    RABBITMQ_CONF_ENV_FILE: join(folder, 'none'),
    RABBITMQ_ENABLED_PLUGINS_FILE: join(folder, 'enabled_plugins'),
    RABBITMQ_FEATURE_FLAGS_FILE: join(folder, 'feature_flags'),
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false',
  }
}

/** The one that the package brings would be shared by all of the machine, and outlive us. */
function startEpmd(folder: string, port: number): Promise<ServerProcess> {
  return startProcess({
    name: 'epmd',
    command: 'epmd',
    args: ['-port', String(port), '-address', '127.0.0.1'],
    outputFile: join(folder, 'epmd.txt'),
    isReady: () => isListening(port),
  })
}

async function control(name: string, env: NodeJS.ProcessEnv, args: readonly string[]): Promise<string> {
  const child = spawn(CONTROL, ['-n', name, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const pieces: string[] = []
  child.stdout.on('data', (piece) => pieces.push(String(piece)))
  child.stderr.on('data', (piece) => pieces.push(String(piece)))
  const [code] = await once(child, 'close')
  if (code !== 0) throw new Error(`rabbitmqctl ${args.join(' ')}: ${pieces.join('')}`)
  return pieces.join('')
}

function untilClustered({ management }: RabbitmqNode, size: number): Promise<void> {
  return waitUntil(`${size} nodes of RabbitMQ found one another`, async () => {
    const answer = await fetch(`${management}/api/nodes`, { headers: GUEST })
    const nodes = (await answer.json()) as { running: boolean }[]
    return nodes.filter((node) => node.running).length === size
  })
}

function borrowRabbitmq(given: string): Rabbitmq {
  const url = new URL(given)
  const management = url.searchParams.get('management') ?? ''
  url.search = ''
  const broker = borrowBroker(url.href)
  const node = {
    name: 'given',
    management,
    control: async (): Promise<string> => {
      throw new Error('This RabbitMQ is somebody else’s: it is not configured')
    },
  }
  return Object.assign(broker, node, { nodes: [], fullUrl: given })
}
