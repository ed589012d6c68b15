/**
 * One answer of type `text/event-stream`. It is written straight to the socket: thousands of idle streams cost no more
 * than their connection. A slow reader is waited for, so a stream never holds more than one page of events in memory.
 */
import { once } from 'node:events'
import type { OutgoingHttpHeaders } from 'node:http'
import type { FastifyReply } from 'fastify'
import type { JsonSchema } from '../json-schema.ts'
import type { Answer } from './api/operation.ts'
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
  run: (stream: EventStream) => Promise<void>,
): FastifyReply {
  const stream = new EventStream(reply, signal)
  run(stream).then(
    () => stream.end(),
    (error: unknown) => stream.fail(error),
  )
  return reply
}

export class EventStream {
  readonly #raw: FastifyReply['raw']
  readonly #signal: AbortSignal

  /** Takes the connection over from Fastify. */
  constructor(reply: FastifyReply, signal: AbortSignal) {
    this.#raw = reply.raw
    this.#signal = signal
    const headers = reply.getHeaders()
    reply.hijack()
    // All at once: Node keeps what `setHeader` is given for as long as the answer lasts.
    this.#raw.writeHead(200, {
      ...(headers as OutgoingHttpHeaders),
      'content-type': EVENT_STREAM_TYPE,
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
    })
    this.#raw.flushHeaders()
  }

  /** Writes one event; `data` may have lines. */
  async send(data: string, id?: number, name?: string): Promise<void> {
    const lines = data.includes('\n') || data.includes('\r') ? data.split(/\r\n|\r|\n/).join('\ndata: ') : data
    await this.#write(
      `${name === undefined ? '' : `event: ${name}\n`}${id === undefined ? '' : `id: ${id}\n`}data: ${lines}\n\n`,
    )
  }

  /** A comment, which readers skip: it shows both ends, and the proxies between, that the stream lives. */
  async beat(): Promise<void> {
    await this.#write(':\n\n')
  }

  /** Tells why the stream ends. Its status went out long ago. */
  async fail(error: unknown): Promise<void> {
    await this.send(formatProblem(problemOf(error)), undefined, 'problem')
    this.end()
  }

  end(): void {
    this.#raw.end()
  }

  async #write(text: string): Promise<void> {
    if (this.#signal.aborted || this.#raw.write(text)) return
    await once(this.#raw, 'drain', { signal: this.#signal }).catch(() => {})
  }
}

/** Whether the caller asked for a stream of events. */
export function wantsEvents(accept: string | undefined): boolean {
  return accept?.includes(EVENT_STREAM_TYPE) ?? false
}
