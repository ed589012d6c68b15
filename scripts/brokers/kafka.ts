/**
 * A real Kafka for tests and benches: one node, or a cluster of several, each controller and broker at once (KRaft), on
 * free ports of loopback and in a folder of its own.
 *
 * Its jars come from Maven Central by `mvn`, once, into a cache folder. `SLUICE_KAFKA_URL` uses a running one instead: what
 * needs a hand on the server is then skipped by those who ask `isOurs`.
 */
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  type Broker,
  borrowBroker,
  findFreePorts,
  isListening,
  readVersion,
  say,
  startBroker,
  startProcess,
  tellMissing,
} from './broker.ts'

export const KAFKA_VERSION = '4.3.1'

export interface KafkaOptions {
  /** Nodes of the cluster. @default 1 */
  readonly nodes?: number
  /** More lines of server.properties, such as `log.flush.interval.messages=1`. */
  readonly properties?: readonly string[]
  /** Ask clients for a name and a password; the user is `sluice`, the password `secret /?#`. */
  readonly sasl?: 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512'
  /** Speak TLS with clients, with a certificate that is made for it. */
  readonly tls?: boolean
}

export interface KafkaNode extends Broker {
  readonly id: number
}

/** What is done to it is done to its first node; `stop` and disposal are of all. */
export interface Kafka extends Broker {
  readonly nodes: readonly KafkaNode[]
  /** Its data are in `NODE/data` there. */
  readonly folder: string
  /** The certificate that signed that of the server, where it speaks TLS. */
  readonly caFile: string
}

export const KAFKA_USER = { name: 'sluice', password: 'secret /?#' } as const

/** Its version, fetched where it is missing; null where that is not possible, which was then said loudly. */
export async function findKafka(): Promise<string | null> {
  if (process.env['SLUICE_KAFKA_URL'] !== undefined) return 'of SLUICE_KAFKA_URL'
  try {
    await fetchKafka()
    return KAFKA_VERSION
  } catch (error) {
    const remedy = `Install Java 17 and Maven, such as with \`sudo apt-get install maven\` (${(error as Error).message}).`
    tellMissing('Kafka', remedy)
    return null
  }
}

/** Where the jars are: once fetched, in a cache folder. */
async function fetchKafka(): Promise<string> {
  const cache = process.env['SLUICE_BROKER_CACHE'] ?? join(homedir(), '.cache', 'sluice')
  const lib = join(cache, `kafka-${KAFKA_VERSION}`)
  if (readVersion('java', '--version') === null) throw new Error('java is missing')
  if (existsSync(lib)) return lib
  if (readVersion('mvn', '--version') === null) throw new Error('mvn is missing')
  say(`fetching Kafka ${KAFKA_VERSION} …`)
  await mkdir(cache, { recursive: true })
  const folder = await mkdtemp(join(cache, 'fetching-'))
  try {
    await writeFile(join(folder, 'pom.xml'), POM)
    const goal = ['dependency:copy-dependencies', '-DincludeScope=runtime', `-DoutputDirectory=${join(folder, 'lib')}`]
    execFileSync('mvn', ['-B', '-q', '-f', join(folder, 'pom.xml'), ...goal], { stdio: ['ignore', 2, 2] })
    // Two that fetch at once: the second finds it there.
    if (!existsSync(lib)) await rename(join(folder, 'lib'), lib)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
  return lib
}

const POM = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>sluice</groupId><artifactId>kafka-server</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>${KAFKA_VERSION}</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.4</version></dependency>
  </dependencies>
</project>
`

/** Starts one. With the default options SLUICE_KAFKA_URL is used instead where it is set. */
export async function startKafka(options: KafkaOptions = {}): Promise<Kafka> {
  const given = process.env['SLUICE_KAFKA_URL']
  if (given !== undefined && Object.keys(options).length === 0)
    return { ...borrowBroker(given), nodes: [], folder: '', caFile: '' }
  const lib = await fetchKafka()
  const folder = await mkdtemp(join(tmpdir(), 'sluice-kafka-'))
  const remove = () => rm(folder, { recursive: true, force: true, maxRetries: 5 })
  // 16 bytes; one that began with a dash would be taken for an option.
  const clusterId = `S${randomBytes(16).toString('base64url').slice(1)}`
  const caFile = join(folder, 'ca.pem')
  if (options.tls === true) makeCertificate(folder)
  const count = options.nodes ?? 1
  const ports = await findFreePorts(2 * count)
  const [clients, controls] = [ports.slice(0, count), ports.slice(count)]
  const voters = controls.map((port, at) => `${at + 1}@127.0.0.1:${port}`).join(',')
  const settings = clients.map((client, at): NodeSettings => {
    const control = controls[at] ?? 0
    return { id: at + 1, client, control, voters, folder: join(folder, `${at + 1}`), lib, clusterId, caFile, options }
  })
  const started = await Promise.allSettled(settings.map(startNode))
  const nodes = started.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
  const stop = async () => {
    await Promise.all(nodes.map((node) => node.stop()))
  }
  const failure = started.find((one) => one.status === 'rejected')
  const [first] = nodes
  if (failure !== undefined || first === undefined) {
    await stop()
    await remove()
    throw failure?.reason
  }
  const url = new URL(first.url)
  const others = nodes.slice(1).map((node) => new URL(node.url).host)
  if (others.length > 0) url.searchParams.set('brokers', others.join(','))
  return {
    url: url.href,
    get pids() {
      return nodes.flatMap((node) => node.pids)
    },
    nodes,
    folder,
    caFile,
    isOurs: true,
    kill: () => first.kill(),
    pause: () => first.pause(),
    resume: () => first.resume(),
    restart: () => first.restart(),
    stop,
    async [Symbol.asyncDispose]() {
      await stop()
      await remove()
    },
  }
}

interface NodeSettings {
  readonly id: number
  readonly client: number
  readonly control: number
  readonly voters: string
  readonly folder: string
  readonly lib: string
  readonly clusterId: string
  readonly caFile: string
  readonly options: KafkaOptions
}

async function startNode(settings: NodeSettings): Promise<KafkaNode> {
  const { id, folder, client, clusterId, options } = settings
  await mkdir(folder, { recursive: true })
  await writeFile(join(folder, 'server.properties'), `${listProperties(settings).join('\n')}\n`)
  await writeFile(join(folder, 'log4j2.properties'), LOGGING)
  const user = `[name=${KAFKA_USER.name},password=${KAFKA_USER.password}]`
  const scram = options.sasl?.startsWith('SCRAM') === true ? ['--add-scram', `${options.sasl}=${user}`] : []
  const format = ['kafka.tools.StorageTool', 'format', '-t', clusterId, '-c', join(folder, 'server.properties')]
  execFileSync('java', [...listJavaOptions(settings), ...format, ...scram], { stdio: ['ignore', 'ignore', 'pipe'] })
  const broker = await startBroker(writeUrl(settings), () =>
    startProcess({
      name: `Kafka node ${id}`,
      command: 'java',
      args: [...listJavaOptions(settings), 'kafka.Kafka', join(folder, 'server.properties')],
      cwd: folder,
      outputFile: join(folder, 'output.txt'),
      isReady: () => isListening(client),
      readyMs: 120_000,
      // A node that waits for a controller which is gone does not end by itself.
      stopMs: 15_000,
    }),
  )
  return Object.assign(broker, { id })
}

function writeUrl({ client, caFile, options }: NodeSettings): string {
  const url = new URL(`kafka://127.0.0.1:${client}`)
  if (options.sasl !== undefined) {
    url.username = KAFKA_USER.name
    url.password = encodeURIComponent(KAFKA_USER.password)
    url.searchParams.set('mechanism', options.sasl.toLowerCase())
  }
  if (options.tls === true) {
    url.searchParams.set('tls', 'true')
    url.searchParams.set('ca', caFile)
  }
  return url.href
}

function listProperties(settings: NodeSettings): string[] {
  const { id, client, control, voters, folder, options } = settings
  const { sasl, tls, nodes = 1, properties = [] } = options
  const security = `${sasl === undefined ? '' : 'SASL_'}${tls === true ? 'SSL' : 'PLAINTEXT'}`
  const listeners = [`CLIENT://127.0.0.1:${client}`, `CONTROL://127.0.0.1:${control}`]
  const advertised = [`CLIENT://127.0.0.1:${client}`]
  const map = `CLIENT:${security},CONTROL:PLAINTEXT,BETWEEN:PLAINTEXT`
  // Brokers speak without credentials with each other: it is clients whose ways in are tested.
  const between = security === 'PLAINTEXT' ? 'CLIENT' : 'BETWEEN'
  if (between === 'BETWEEN') {
    if (nodes > 1) throw new Error('A cluster with credentials or TLS is not provided for')
    listeners.push('BETWEEN://127.0.0.1:0')
  }
  const copies = Math.min(nodes, 3)
  return [
    'process.roles=broker,controller',
    `node.id=${id}`,
    `controller.quorum.voters=${voters}`,
    `listeners=${listeners.join(',')}`,
    `advertised.listeners=${[...advertised, ...(between === 'BETWEEN' ? ['BETWEEN://127.0.0.1:1'] : [])].join(',')}`,
    `listener.security.protocol.map=${map}`,
    `inter.broker.listener.name=${between}`,
    'controller.listener.names=CONTROL',
    `log.dirs=${join(folder, 'data')}`,
    `offsets.topic.replication.factor=${copies}`,
    `transaction.state.log.replication.factor=${copies}`,
    `transaction.state.log.min.isr=${Math.min(copies, 2)}`,
    'offsets.topic.num.partitions=1',
    'transaction.state.log.num.partitions=1',
    'group.initial.rebalance.delay.ms=0',
    // A killed node is out of the way soon: another leads, and it may come back.
    `broker.session.timeout.ms=${nodes === 1 ? 3_000 : 6_000}`,
    `broker.heartbeat.interval.ms=${nodes === 1 ? 500 : 1_000}`,
    'num.network.threads=2',
    'num.io.threads=4',
    'background.threads=2',
    'log.cleaner.enable=true',
    ...listSecurity(settings),
    ...properties,
  ]
}

function listSecurity({ folder, options }: NodeSettings): string[] {
  const { sasl, tls } = options
  const lines: string[] = []
  if (sasl !== undefined) {
    const { name, password } = KAFKA_USER
    const prefix = `listener.name.client.${sasl.toLowerCase()}.sasl.jaas.config`
    lines.push(`sasl.enabled.mechanisms=${sasl}`)
    if (sasl === 'PLAIN')
      lines.push(
        `${prefix}=org.apache.kafka.common.security.plain.PlainLoginModule required user_${name}="${password}";`,
      )
    else lines.push(`${prefix}=org.apache.kafka.common.security.scram.ScramLoginModule required;`)
  }
  if (tls === true) lines.push('ssl.keystore.type=PEM', `ssl.keystore.location=${join(folder, '..', 'server.pem')}`)
  return lines
}

function listJavaOptions({ folder, lib }: NodeSettings): string[] {
  return [
    '-Xms128m',
    '-Xmx384m',
    '-XX:+UseSerialGC',
    // Starts in half the time. What it costs in the long run matters to benches: those set SLUICE_KAFKA_JIT.
    ...(process.env['SLUICE_KAFKA_JIT'] === undefined ? ['-XX:TieredStopAtLevel=1'] : []),
    `-Dlog4j2.configurationFile=${join(folder, 'log4j2.properties')}`,
    '-cp',
    join(lib, '*'),
  ]
}

const LOGGING = `rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %p %c{1}: %m%n
`

/** A certificate authority and a server certificate of its own, as OpenSSL makes them. */
function makeCertificate(folder: string): void {
  const openssl = (...args: string[]) =>
    execFileSync('openssl', args, { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] })
  const key = ['-newkey', 'rsa:2048', '-nodes']
  openssl('req', '-x509', ...key, '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '2', '-subj', '/CN=Sluice tests')
  openssl(
    'req',
    ...key,
    '-keyout',
    'server.key',
    '-out',
    'server.csr',
    '-subj',
    '/CN=127.0.0.1',
    '-addext',
    'subjectAltName=IP:127.0.0.1',
  )
  openssl(
    'x509',
    '-req',
    '-in',
    'server.csr',
    '-CA',
    'ca.pem',
    '-CAkey',
    'ca.key',
    '-CAcreateserial',
    '-days',
    '2',
    '-copy_extensions',
    'copy',
    '-out',
    'server.crt',
  )
  execFileSync('sh', ['-c', 'cat server.key server.crt ca.pem > server.pem'], { cwd: folder })
}
