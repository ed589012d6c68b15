/**
 * Figures for Prometheus. Those of queues and topics are read from the engine when they are asked for. The number of
 * series is bounded: the deepest MAX_NAMES queues and topics have their own, the others are added up under `_rest`,
 * which no queue can be called.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { EngineStats, TopicStats } from '../index.ts'
import type { Context } from './context.ts'

const MAX_NAMES = 200
const REST = '_rest'
const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

export interface Metrics {
  readonly contentType: string
  /** Counts an answer. */
  count(request: FastifyRequest, reply: FastifyReply): void
  print(): Promise<string>
}

/** Name, what it says, and the figure of a topic. */
const TOPIC_FIGURES: readonly (readonly [name: string, help: string, read: (topic: TopicStats) => number])[] = [
  ['sluice_depth_messages', 'Messages that are not settled', ({ depth }) => depth.messages],
  ['sluice_depth_bytes', 'Bytes that are not settled', ({ depth }) => depth.bytes],
  ['sluice_limit_messages', 'The most messages that may be unsettled', ({ limit }) => limit.messages],
  ['sluice_limit_bytes', 'The most bytes that may be unsettled', ({ limit }) => limit.bytes],
  ['sluice_scheduled_messages', 'Jobs that wait for their time', ({ scheduled }) => scheduled],
  ['sluice_appended_messages', 'Messages stored since the engine was opened', ({ appended }) => appended],
  [
    'sluice_refused_messages',
    'Messages refused for want of room since the engine was opened',
    ({ refused }) => refused,
  ],
  ['sluice_leased_messages', 'Messages that workers hold', (topic) => sumGroups(topic, 'leased')],
  ['sluice_retrying_messages', 'Messages that wait for their next attempt', (topic) => sumGroups(topic, 'retrying')],
  [
    'sluice_blocked_messages',
    'Messages out of attempts that hold up their key',
    (topic) => sumGroups(topic, 'blocked'),
  ],
  ['sluice_dead_letters', 'Messages out of attempts', (topic) => sumGroups(topic, 'dead')],
  ['sluice_settled_per_second', 'Messages settled a second, smoothed', (topic) => sumGroups(topic, 'drainPerSecond')],
]
const LOG_FIGURES = ['commits', 'syncs', 'rowsRead', 'rowsWritten', 'bytesWritten', 'storedBytes'] as const

/** `countConnections` asks the socket, which is not there before it listens. */
export function createMetrics({ engine, load }: Context, countConnections: () => Promise<number>): Metrics {
  const registers = [new Registry()]
  const [registry] = registers as [Registry]
  collectDefaultMetrics({ register: registry })
  const up = new Gauge({ name: 'sluice_up', help: 'Whether the engine answers', registers })
  const requests = new Counter({
    name: 'sluice_http_requests_total',
    help: 'Answers',
    labelNames: ['method', 'route', 'status'],
    registers,
  })
  const seconds = new Histogram({
    name: 'sluice_http_request_seconds',
    help: 'Time from the headers of a request to the end of its answer, waits included',
    labelNames: ['route'],
    buckets: SECONDS,
    registers,
  })
  new Gauge({
    name: 'sluice_http_in_flight',
    help: 'Requests at work',
    registers,
    collect() {
      this.set(load.inFlight)
    },
  })
  new Gauge({
    name: 'sluice_http_connections',
    help: 'Connections that are open',
    registers,
    async collect() {
      this.set(await countConnections())
    },
  })
  new Gauge({
    name: 'sluice_http_waiting',
    help: 'Long polls, event streams and other waits',
    registers,
    collect() {
      this.set(load.waiting)
    },
  })
  new Gauge({
    name: 'sluice_http_body_bytes',
    help: 'Bytes of bodies that are held or announced',
    registers,
    collect() {
      this.set(load.bodyBytes)
    },
  })
  const topicGauges = TOPIC_FIGURES.map(([name, help, read]) => ({
    gauge: new Gauge({ name, help, labelNames: ['kind', 'name'], registers }),
    read,
  }))
  const lag = new Gauge({
    name: 'sluice_group_behind_messages',
    help: 'Messages of a topic that a group has not settled',
    labelNames: ['topic', 'group'],
    registers,
  })
  const logGauges = LOG_FIGURES.map((figure) => ({
    figure,
    gauge: new Gauge({
      name: `sluice_log_${toSnake(figure)}`,
      help: `Of the log since it was opened: ${toSnake(figure).replaceAll('_', ' ')}`,
      registers,
    }),
  }))

  const counted = new Map<string, { answers: Counter.Internal; took: Histogram.Internal<'route'> }>()

  function setAll({ topics, log }: EngineStats): void {
    const deepest = [...topics].sort((a, b) => b.depth.messages - a.depth.messages)
    for (const { gauge, read } of topicGauges) {
      gauge.reset()
      for (const [i, topic] of deepest.entries()) {
        gauge.inc({ kind: topic.kind, name: i < MAX_NAMES ? topic.name : REST }, read(topic))
      }
    }
    lag.reset()
    const groups = deepest.flatMap(({ kind, name, groups }) =>
      kind === 'topic' ? groups.map((group) => ({ topic: name, group: group.name, depth: group.depth })) : [],
    )
    groups.sort((a, b) => b.depth - a.depth)
    for (const [i, { topic, group, depth }] of groups.entries()) {
      lag.inc(i < MAX_NAMES ? { topic, group } : { topic: REST, group: REST }, depth)
    }
    for (const { figure, gauge } of logGauges) gauge.set(log[figure])
  }

  return {
    contentType: registry.contentType,
    count(request, reply) {
      const route = request.routeOptions.url ?? 'none'
      const { method } = request
      const status = reply.statusCode
      // There are as many as series. Looking them up by their labels was a thirtieth of the time of a request.
      const name = `${method} ${status} ${route}`
      let one = counted.get(name)
      if (one === undefined) {
        one = { answers: requests.labels({ method, route, status }), took: seconds.labels({ route }) }
        counted.set(name, one)
      }
      one.answers.inc()
      one.took.observe(reply.elapsedTime / 1_000)
    },
    async print() {
      try {
        setAll(await engine.stats())
        up.set(1)
      } catch {
        // What was last known is not shown as if it were so now.
        for (const { gauge } of [...topicGauges, ...logGauges, { gauge: lag }]) gauge.reset()
        up.set(0)
      }
      return registry.metrics()
    },
  }
}

function sumGroups(
  { groups }: TopicStats,
  figure: 'leased' | 'retrying' | 'blocked' | 'dead' | 'drainPerSecond',
): number {
  return groups.reduce((sum, group) => sum + group[figure], 0)
}

function toSnake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}
