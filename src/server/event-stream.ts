/**
 * One answer of type `text/event-stream`. It is written straight to the socket: thousands of idle streams cost no more
 * than their connection. A slow reader is waited for, so a stream never holds more than one page of events in memory.
 */
import { once } from 'node:events'
import type { OutgoingHttpHeaders } from 'node:http'
import type { FastifyReply } from 'fastify'
import type { JsonSchema } from '../json-schema.ts'
import type { Answer } from './api/operation.ts'
import type { Visit } from './load.ts'
import { about, optional, text } from './members.ts'
import { formatProblem, problemOf } from './problem.ts'

export const EVENT_STREAM_TYPE = 'text/event-stream'
/** What a reader that reconnects sends of itself. */
export const LAST_EVENT_ID = {
  'Last-Event-ID': about(
    'Of a stream: the id of the last event that was seen; it goes on behind it',
    optional(text(40)),
  ),
}

/** An answer that is JSON, or a stream of events for whoever accepts that. */
export function streamAnswer(description: string, schema: JsonSchema): Answer {
  return { description, content: { 'application/json': schema, [EVENT_STREAM_TYPE]: { type: 'string' } } }
}

/**
 * Answers with the events that `run` sends, until it returns or throws; a failure is the last event. `signal` ends when
 * the client goes away or the server closes.
 *
 * It does not wait for the end: what the framework keeps while a handler runs was a third of the memory of an idle stream.
 */
export function streamEvents(
  reply: FastifyReply,
  signal: AbortSignal,
  run: (events: Events) => Promise<void>,
): FastifyReply {
  const stream = new EventStream(reply)
  run(new Events(stream, signal)).then(
    () => stream.end(),
    (error: unknown) => stream.fail(error),
  )
  return reply
}

/** The events of one stream, each of which waits for the reader, until `signal` ends it. */
export class Events {
  readonly #stream: EventStream
  readonly #signal: AbortSignal

  constructor(stream: EventStream, signal: AbortSignal) {
    this.#stream = stream
    this.#signal = signal
  }

  /** Writes one event; `data` may have lines. */
  async send(data: string, id?: number): Promise<void> {
    if (!this.#signal.aborted && !this.#stream.write(data, id)) await this.#stream.drained(this.#signal)
  }

  async beat(): Promise<void> {
    if (!this.#signal.aborted && !this.#stream.writeBeat()) await this.#stream.drained(this.#signal)
  }
}

export class EventStream {
  readonly #raw: FastifyReply['raw']
  readonly #visit: Visit

  /** Takes the connection over from Fastify. */
  constructor(reply: FastifyReply) {
    this.#raw = reply.raw
    this.#visit = reply.request.visit
    const headers = reply.getHeaders()
    reply.hijack()
    release(this.#raw)
    // All at once: Node keeps what `setHeader` is given for as long as the answer lasts.
    this.#raw.writeHead(200, {
      ...(headers as OutgoingHttpHeaders),
      'content-type': EVENT_STREAM_TYPE,
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
    })
    this.#raw.flushHeaders()
  }

  /** Writes one event; `data` may have lines. False: the reader is slow, wait until it has drained. */
  write(data: string, id?: number, name?: string): boolean {
    const lines = data.includes('\n') || data.includes('\r') ? data.split(/\r\n|\r|\n/).join('\ndata: ') : data
    return this.#raw.write(
      `${name === undefined ? '' : `event: ${name}\n`}${id === undefined ? '' : `id: ${id}\n`}data: ${lines}\n\n`,
    )
  }

  /** A comment, which readers skip: it shows both ends, and the proxies between, that the stream lives. */
  writeBeat(): boolean {
    return this.#raw.write(':\n\n')
  }

  onceDrained(go: () => void): void {
    this.#hold()
    this.#raw.once('drain', () => {
      this.#visit.dropAnswer()
      go()
    })
  }

  async drained(signal: AbortSignal): Promise<void> {
    this.#hold()
    await once(this.#raw, 'drain', { signal }).catch(() => {})
    this.#visit.dropAnswer()
  }

  /** What was written and not taken counts as an answer under way. */
  #hold(): void {
    this.#visit.holdAnswer(this.#raw.writableLength, () => this.#raw.destroy())
  }

  /** Tells why the stream ends. Its status went out long ago. */
  fail(error: unknown): void {
    this.write(formatProblem(problemOf(error)), undefined, 'problem')
    this.end()
  }

  end(): void {
    this.#raw.end()
  }
}

/**
 * With a log Fastify waits for the end of an answer, also of one that was taken over, and keeps request and reply until
 * then. What it listens to is the errors and the end of the response; an error after that is of a client that went away.
 */
function release(raw: FastifyReply['raw']): void {
  for (const listener of raw.listeners('error') as (() => void)[]) raw.off('error', listener).off('finish', listener)
  raw.on('error', ignore)
}

function ignore(): void {}

/** Whether the caller asked for a stream of events. */
export function wantsEvents(accept: string | undefined): boolean {
  return accept?.includes(EVENT_STREAM_TYPE) ?? false
}
