/**
 * Figures for Prometheus: of the server here, of queues and topics in engine-figures.ts, read from the engine when they are
 * asked for. The number of series is bounded by routes, codes and names.
 */
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import type { ErrorCode } from '../errors.ts'
import { AnswerCounts } from './answer-counts.ts'
import type { Context } from './context.ts'
import { createEngineFigures } from './engine-figures.ts'

export interface Metrics {
  readonly contentType: string
  /** Counts an error, by its code. */
  refuse(code: ErrorCode): void
  /** Counts an answer. `tookMs`: since its request came in. */
  count(method: string, route: string, status: number, tookMs: number): void
  print(): Promise<string>
}

const LOG_FIGURES = ['commits', 'syncs', 'rowsRead', 'rowsWritten', 'bytesWritten', 'storedBytes'] as const

/** `countConnections` asks the socket, which is not there before it listens. */
export function createMetrics({ engine, load, now }: Context, countConnections: () => Promise<number>): Metrics {
  const registers = [new Registry()]
  const [registry] = registers as [Registry]
  collectDefaultMetrics({ register: registry })
  const up = new Gauge({ name: 'sluice_up', help: 'Whether the engine answers', registers })
  const answers = new AnswerCounts()
  const problems = new Counter({
    name: 'sluice_http_problems_total',
    help: 'Answers that were errors, by their code',
    labelNames: ['code'],
    registers,
  })
  new Counter({
    name: 'sluice_http_turned_away_total',
    help: 'Requests that were too many (OVERLOADED), by what they are worth',
    labelNames: ['class'],
    registers,
    collect() {
      this.reset()
      for (const [workClass, count] of Object.entries(load.refused)) this.inc({ class: workClass }, count)
    },
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
    name: 'sluice_http_limit',
    help: 'Requests that may be at work; it falls while the event loop is late',
    registers,
    collect() {
      this.set(load.limit)
    },
  })
  new Counter({
    name: 'sluice_http_refused_total',
    help: 'Requests refused as too many, by what they were for',
    labelNames: ['class'],
    registers,
    collect() {
      this.reset()
      for (const [name, count] of Object.entries(load.refused)) this.inc({ class: name }, count)
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
  new Gauge({
    name: 'sluice_http_answer_bytes',
    help: 'Bytes of large answers that their clients have not taken',
    registers,
    collect() {
      this.set(load.answerBytes)
    },
  })
  new Counter({
    name: 'sluice_http_cut_answers_total',
    help: 'Connections cut since their answers were not taken and others needed the room',
    registers,
    collect() {
      this.reset()
      this.inc(load.cutAnswers)
    },
  })
  const figures = createEngineFigures(registry, now)
  const logGauges = LOG_FIGURES.map((figure) => ({
    figure,
    gauge: new Gauge({
      name: `sluice_log_${toSnake(figure)}`,
      help: `Of the log since it was opened: ${toSnake(figure).replaceAll('_', ' ')}`,
      registers,
    }),
  }))

  return {
    contentType: registry.contentType,
    refuse: (code) => problems.inc({ code }),
    count: (method, route, status, tookMs) => answers.count(method, route, status, tookMs),
    async print() {
      try {
        const stats = await engine.stats()
        figures.show(stats)
        for (const { figure, gauge } of logGauges) gauge.set(stats.log[figure])
        up.set(1)
      } catch {
        figures.clear()
        for (const { gauge } of logGauges) gauge.reset()
        up.set(0)
      }
      return (await registry.metrics()) + answers.print() + figures.print()
    },
  }
}

function toSnake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}
