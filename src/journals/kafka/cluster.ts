/**
 * Ways to the brokers of a cluster: who leads a topic's only partition, and lines to leaders.
 *
 * The high-level clients of the library are not used: their retries, their metadata and their error handling are theirs,
 * and a journal has to know of each request whether it was sent, and to stop by its own deadlines. Here every call is one
 * attempt over one connection, and what repeats it waits in between (`backOff`). So a broker that is away is asked a few
 * times a second at most, by each line that has something to say, and nothing is written about it anywhere.
 */
import type { Connection } from '@platformatic/kafka'
import { SluiceError } from '../../errors.ts'
import type { BrokerPlace, KafkaAddress } from './address.ts'
import type { Answer, Failure } from './answer.ts'
import { readFailure } from './answer.ts'
import type { KafkaLibrary } from './records.ts'

const CONNECT_MS = 5_000
/** For an answer about the cluster, and for one to a line: longer than the broker itself waits for replicas. */
const CONTROL_MS = 5_000
const LINE_MS = 7_000
/** The broker's words for: ask again who leads. */
const STALE = new Set([
  'NOT_LEADER_OR_FOLLOWER',
  'LEADER_NOT_AVAILABLE',
  'UNKNOWN_TOPIC_OR_PARTITION',
  'UNKNOWN_TOPIC_ID',
  'INCONSISTENT_TOPIC_ID',
  'FENCED_LEADER_EPOCH',
  'UNKNOWN_LEADER_EPOCH',
  'REPLICA_NOT_AVAILABLE',
  'KAFKA_STORAGE_ERROR',
])

/** Where a topic is. */
export interface TopicPlace {
  readonly topicId: string
  readonly leader: BrokerPlace
}

export interface ClusterView {
  readonly brokers: readonly (BrokerPlace & { readonly nodeId: number })[]
  readonly clusterId: string
  readonly controllerId: number
  readonly topics: ReadonlyMap<string, TopicView>
}

export interface TopicView {
  readonly topicId: string
  readonly partitions: number
  readonly leaderId: number
  readonly replicas: readonly number[]
  readonly inSync: readonly number[]
  /** Bits of what the user may do with it, by the numbers of Kafka's operations. */
  readonly allowed: number
}

export class Cluster {
  readonly library: KafkaLibrary
  readonly address: KafkaAddress
  readonly #clientId: string
  readonly #lines = new Set<Line>()
  readonly #places = new Map<string, TopicPlace>()
  #known: readonly BrokerPlace[] = []
  /** When a broker last failed to answer about the cluster: others are asked before it. */
  readonly #failedMs = new Map<string, number>()
  #controlPlace: BrokerPlace | null = null
  #control: Connection | null = null
  #controlling: Promise<Answer<Connection>> | null = null
  #looking: Promise<unknown> | null = null
  isClosed = false
  /** Bounds connections that are made from now on, such as those of an opening. */
  patienceMs = Number.POSITIVE_INFINITY

  constructor(library: KafkaLibrary, address: KafkaAddress, clientId: string) {
    this.library = library
    this.address = address
    this.#clientId = clientId
  }

  /** A connection of its own to the leader of a topic, made when it is needed. */
  openLine(topic: string): Line {
    const line = new Line(this, topic, () => this.#lines.delete(line))
    this.#lines.add(line)
    return line
  }

  /** One request to any broker. */
  async ask<T>(send: (connection: Connection) => Promise<T>): Promise<Answer<T>> {
    const found = await this.#reach()
    if (!found.ok) return found
    try {
      return { ok: true, value: await send(found.value) }
    } catch (error) {
      const failure = readFailure(error, true)
      if (isBroken(failure)) {
        if (this.#controlPlace !== null) this.#failedMs.set(keyOf(this.#controlPlace), performance.now())
        this.#drop(found.value)
      }
      return failure
    }
  }

  async connect({ host, port }: BrokerPlace, requestMs: number): Promise<Answer<Connection>> {
    if (this.isClosed) return fail('NETWORK', 'the journal is closed')
    const { tls, sasl } = this.address
    const isName = /[a-z]/i.test(host)
    const connection = new this.library.Connection(this.#clientId, {
      connectTimeout: Math.min(CONNECT_MS, this.patienceMs),
      requestTimeout: Math.min(requestMs, this.patienceMs),
      ...(tls === undefined ? {} : { tls, ...(isName && tls.servername === undefined ? { tlsServerName: true } : {}) }),
      ...(sasl === undefined ? {} : { sasl }),
    })
    // Without a listener an error ends the process. What it says comes with the requests that it breaks.
    connection.on('error', () => {})
    try {
      await connection.connect(host, port)
    } catch (error) {
      destroy(connection)
      const failure = readFailure(error, false)
      return { ...failure, text: `${host}:${port}: ${failure.text}` }
    }
    if (!this.isClosed) return { ok: true, value: connection }
    destroy(connection)
    return fail('NETWORK', 'the journal is closed')
  }

  /** Asks for the cluster and these topics. */
  async look(topics: readonly string[]): Promise<Answer<ClusterView>> {
    const { library } = this
    const answer = await this.ask((connection) =>
      // Topics that are not there are part of the answer, and so not an error to this call.
      library.metadataV12.api.async(connection, [...topics], false, true).catch((error: { response?: unknown }) => {
        if (error.response === undefined || error.response === null) throw error
        return error.response as Awaited<ReturnType<typeof library.metadataV12.api.async>>
      }),
    )
    if (!answer.ok) return answer
    const { clusterId, controllerId } = answer.value
    const brokers = answer.value.brokers.map((broker) => this.#redirect(broker))
    const views = new Map<string, TopicView>()
    for (const { name, topicId, partitions, errorCode, topicAuthorizedOperations } of answer.value.topics) {
      if (name == null || errorCode !== 0) continue
      const [first] = partitions
      views.set(name, {
        topicId,
        partitions: partitions.length,
        leaderId: first?.leaderId ?? -1,
        replicas: first?.replicaNodes ?? [],
        inSync: first?.isrNodes ?? [],
        allowed: topicAuthorizedOperations,
      })
      const leader = brokers.find(({ nodeId }) => nodeId === first?.leaderId)
      if (leader === undefined) this.#places.delete(name)
      else this.#places.set(name, { topicId, leader })
    }
    if (brokers.length > 0) this.#known = brokers
    for (const key of this.#failedMs.keys()) if (!brokers.some((one) => keyOf(one) === key)) this.#failedMs.delete(key)
    return { ok: true, value: { brokers, clusterId: clusterId ?? '', controllerId, topics: views } }
  }

  /** Who leads it; from memory, unless it was forgotten. */
  async locate(topic: string): Promise<Answer<TopicPlace>> {
    const known = this.#places.get(topic)
    if (known !== undefined) return { ok: true, value: known }
    // Lines that miss their leaders at the same time ask in turn: the answer is for one topic each.
    const before = this.#looking
    const looked = (async () => {
      await before
      return this.look([topic])
    })()
    this.#looking = looked
    const answer = await looked
    if (!answer.ok) return answer
    const place = this.#places.get(topic)
    return place === undefined
      ? fail('NO_LEADER', `no broker leads the topic ${topic} now`)
      : { ok: true, value: place }
  }

  forget(topic: string): void {
    this.#places.delete(topic)
  }

  /** Breaks what is under way. What comes next connects anew. */
  disconnect(): void {
    for (const line of this.#lines) line.close()
    if (this.#control !== null) this.#drop(this.#control)
  }

  close(): void {
    this.isClosed = true
    this.disconnect()
  }

  #redirect<T extends BrokerPlace>(broker: T): T {
    const { isAdvertisedIgnored, brokers } = this.address
    return isAdvertisedIgnored ? { ...broker, ...brokers[0] } : broker
  }

  async #reach(): Promise<Answer<Connection>> {
    if (this.#control?.isConnected() === true) return { ok: true, value: this.#control }
    this.#controlling ??= this.#reachFirst().finally(() => {
      this.#controlling = null
    })
    return this.#controlling
  }

  async #reachFirst(): Promise<Answer<Connection>> {
    if (this.#control !== null) this.#drop(this.#control)
    let last: Failure = fail('NETWORK', 'there is no broker to ask')
    const places = new Map([...this.#known, ...this.address.brokers].map((place) => [keyOf(place), place]))
    const failedMs = (place: BrokerPlace) => this.#failedMs.get(keyOf(place)) ?? 0
    // One that is frozen takes connections, and answers none: it must not be the first that is asked each time.
    for (const place of [...places.values()].sort((a, b) => failedMs(a) - failedMs(b))) {
      const answer = await this.connect(place, CONTROL_MS)
      if (answer.ok) {
        this.#control = answer.value
        this.#controlPlace = place
        return answer
      }
      this.#failedMs.set(keyOf(place), performance.now())
      last = answer
      if (last.code === 'AUTHENTICATION') return last
    }
    return last
  }

  #drop(connection: Connection): void {
    if (this.#control === connection) this.#control = null
    destroy(connection)
  }
}

/** A connection to whoever leads a topic. It is made anew after it broke, and when another leads. */
export class Line {
  readonly #cluster: Cluster
  readonly #topic: string
  readonly #onEnd: () => void
  #connection: Connection | null = null
  /** Invariant: of all connections that were made, only this and `#connection` are open. */
  #connecting: Promise<Answer<Connection>> | null = null
  #isTo: BrokerPlace | null = null

  constructor(cluster: Cluster, topic: string, onEnd: () => void) {
    this.#cluster = cluster
    this.#topic = topic
    this.#onEnd = onEnd
  }

  /** One attempt. Calls at the same time go over the same connection. */
  async call<T>(send: (connection: Connection, place: TopicPlace) => Promise<Answer<T>>): Promise<Answer<T>> {
    const located = await this.#cluster.locate(this.#topic)
    if (!located.ok) return located
    const { leader } = located.value
    if (this.#isTo?.host !== leader.host || this.#isTo.port !== leader.port) this.close()
    const connected = await this.#reach(leader)
    if (!connected.ok) {
      this.#cluster.forget(this.#topic)
      return connected
    }
    const answer = await send(connected.value, located.value)
    if (answer.ok) return answer
    // Another call may have a new one by now.
    if (isBroken(answer) && this.#connection === connected.value) this.close()
    if (isBroken(answer) || STALE.has(answer.code)) this.#cluster.forget(this.#topic)
    return answer
  }

  #reach(leader: BrokerPlace): Promise<Answer<Connection>> {
    if (this.#connection?.isConnected() === true) return Promise.resolve({ ok: true, value: this.#connection })
    if (this.#connecting !== null) return this.#connecting
    this.close()
    this.#isTo = leader
    const connecting: Promise<Answer<Connection>> = this.#cluster.connect(leader, LINE_MS).then((connected) => {
      const isWanted = this.#connecting === connecting
      if (isWanted) this.#connecting = null
      if (!connected.ok) return connected
      if (isWanted) this.#connection = connected.value
      else destroy(connected.value)
      return isWanted ? connected : fail('NETWORK', 'the connection was closed')
    })
    this.#connecting = connecting
    return connecting
  }

  /** It will not be used any more. */
  end(): void {
    this.close()
    this.#onEnd()
  }

  /** Breaks what is under way. The next call connects anew. */
  close(): void {
    if (this.#connection !== null) destroy(this.#connection)
    this.#connection = null
    this.#connecting = null
    this.#isTo = null
  }
}

function keyOf({ host, port }: BrokerPlace): string {
  return `${host}:${port}`
}

function isBroken({ code }: Failure): boolean {
  return code === 'NETWORK' || code === 'TIMEOUT' || code === 'TLS' || code === 'OTHER'
}

function fail(code: string, text: string): Failure {
  return { ok: false, code, wasSent: false, text }
}

/** At once: nobody waits for what is still to be sent. */
function destroy(connection: Connection): void {
  connection.close().catch(() => {})
  // While it still connects there may be no socket.
  connection.socket?.destroy()
}

/** How long to wait before attempt `attempt`, from 0 on: 25 ms, doubling to a second, by chance up to half as much again. */
export function backOffMs(attempt: number): number {
  return Math.min(1_000, 25 * 2 ** Math.min(attempt, 10)) * (1 + Math.random() / 2)
}

/** Ends early, and without an error, with the signal. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve()
    const end = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', end)
      resolve()
    }
    const timer = setTimeout(end, ms)
    signal.addEventListener('abort', end, { once: true })
  })
}

/** What an opening or a check says of a broker that could not be asked. */
export function describeFailure({ code, text }: Failure, address: KafkaAddress): SluiceError {
  const { text: where, sasl } = address
  switch (code) {
    case 'AUTHENTICATION':
    case 'SASL_AUTHENTICATION_FAILED':
    case 'UNSUPPORTED_SASL_MECHANISM':
    case 'ILLEGAL_SASL_STATE':
      return new SluiceError(
        'UNAUTHENTICATED',
        `Kafka at ${where} refused the credentials (mechanism ${sasl?.mechanism ?? 'none'}). Check the user, the password and \`mechanism=\` in the URL.`,
      )
    case 'TLS':
      return new SluiceError(
        'UNREACHABLE',
        `Kafka at ${where} and this process cannot agree on TLS: ${text}. Set \`tls=\` as the listener has it, and \`ca=\` to the file with the certificate of its authority.`,
      )
    default: {
      const hint =
        sasl === undefined
          ? ' A listener that asks for credentials or TLS closes the connection of one who has none.'
          : ''
      return new SluiceError(
        'UNREACHABLE',
        `Kafka at ${where} does not answer: ${text}. Start it, or mend the network, and check the host and port.${hint}`,
      )
    }
  }
}
