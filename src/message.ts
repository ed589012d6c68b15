/**
 * A message as a handler or a reader sees it: a view on the batch that it came in. Nothing is parsed or copied before
 * it is asked for, so that a handler that needs the key alone pays for the key alone.
 */
import { SluiceError } from './errors.ts'
import { INSPECT, type Inspect, inspectAs } from './inspecting.ts'
import { formatJobId } from './job-id.ts'
import { type BatchView, type Headers, PRIORITIES, type Priority } from './message-batch.ts'

const NOT_PARSED = Symbol('not parsed')

/** One message of a topic. */
export class Message<P = unknown> {
  /** The topic or queue that it is in. */
  readonly topic: string
  readonly partition: number
  /** Its place in the topic. */
  readonly offset: number
  /** When it was stored, ms since 1970. */
  readonly timestampMs: number
  readonly #view: BatchView
  readonly #index: number
  #payload: unknown = NOT_PARSED

  constructor(topic: string, partition: number, offset: number, timestampMs: number, view: BatchView, index: number) {
    this.topic = topic
    this.partition = partition
    this.offset = offset
    this.timestampMs = timestampMs
    this.#view = view
    this.#index = index
  }

  /**
   * What was published: the JSON value, or a `Uint8Array` where bytes were. Parsed when first read, then the same
   * object. Throws `INVALID_PAYLOAD` where another client stored text that is not JSON.
   */
  get payload(): P {
    if (this.#payload === NOT_PARSED) this.#payload = this.#parse()
    return this.#payload as P
  }

  /** The payload's bytes as they were stored; of JSON, its text in UTF-8. They are shared: do not write to them. */
  get bytes(): Uint8Array {
    return this.#view.payload(this.#index)
  }

  /** Whether the payload is bytes rather than JSON. */
  get isBytes(): boolean {
    return this.#view.isBytes(this.#index)
  }

  /** What orders it, or undefined. */
  get key(): string | undefined {
    return this.#view.key(this.#index)
  }

  /** Empty where none were given. */
  get headers(): Headers {
    return this.#view.headers(this.#index) ?? {}
  }

  /** What a log or an answer shows of it. Bytes, and text that is not JSON, are in base64, as over HTTP. */
  toJSON(): Record<string, unknown> {
    return { topic: this.topic, ...this.shown() }
  }

  [INSPECT](_depth: number, options: object, inspect: Inspect): string {
    return inspectAs(this.constructor.name, this.toJSON(), options, inspect)
  }

  /** @internal What messages and jobs show alike. */
  protected shown(): Record<string, unknown> {
    const { partition, offset, timestampMs, key, headers } = this
    return { partition, offset, timestampMs, ...(key === undefined ? {} : { key }), headers, ...this.#shownPayload() }
  }

  #shownPayload(): Record<string, unknown> {
    if (!this.isBytes) {
      try {
        return { payload: this.payload }
      } catch {
        // Shown as what it is.
      }
    }
    const { buffer, byteOffset, byteLength } = this.bytes
    return { payloadBase64: Buffer.from(buffer, byteOffset, byteLength).toString('base64') }
  }

  #parse(): unknown {
    if (this.#view.isBytes(this.#index)) return this.#view.payload(this.#index)
    const json = this.#view.payloadText(this.#index)
    try {
      return JSON.parse(json)
    } catch (cause) {
      throw new SluiceError(
        'INVALID_PAYLOAD',
        `The payload at offset ${this.offset} of '${this.topic}' is not JSON.`,
        {},
        cause,
      )
    }
  }
}

/** A job in the hands of a worker. */
export class JobMessage<P = unknown> extends Message<P> {
  readonly #tag: string
  readonly #view: BatchView
  readonly #index: number

  constructor(
    queue: string,
    tag: string,
    partition: number,
    offset: number,
    timestampMs: number,
    view: BatchView,
    index: number,
  ) {
    super(queue, partition, offset, timestampMs, view, index)
    this.#tag = tag
    this.#view = view
    this.#index = index
  }

  /** The job's id, the same in every process. */
  get id(): string {
    return formatJobId(this.topic, this.#tag, this.offset, this.partition)
  }

  get queue(): string {
    return this.topic
  }

  override toJSON(): Record<string, unknown> {
    return { id: this.id, queue: this.queue, ...this.shown() }
  }

  get priority(): Priority {
    return PRIORITIES[this.#view.priority(this.#index)] ?? 'normal'
  }

  /** When it would have expired unstarted, ms since 1970; undefined: never. */
  get deadlineAtMs(): number | undefined {
    const deadline = this.#view.deadlineMs(this.#index)
    return deadline === 0 ? undefined : deadline
  }
}
