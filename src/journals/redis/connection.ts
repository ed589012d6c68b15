/**
 * A connection to Redis that is made again when it breaks.
 *
 *     open ──> connecting ──prepared──> ready ──broken, silent──> connecting …
 *                  └──────────────── failed (for good), closed
 *
 * Each connection is a client object of its own, which neither reconnects nor keeps what it could not send: a command is
 * answered by the server that it was given to, or rejects, so that who sent it decides what to do (rule 5). Before it is
 * ready, a connection is prepared: whether this is the same Redis with the same data is asked of each.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { SluiceError } from '../../errors.ts'
import { backoffMs } from '../../policy/retry.ts'
import { type Address, readAddress } from './address.ts'

/** A server that does not answer for so long is given up, and connected to again. */
const ANSWER_MS = 5_000
/** One that nobody asked anything for so long is asked whether it is there. */
const IDLE_MS = 2_500
const TICK_MS = 500
const BACKOFF = { baseMs: 25, factor: 2, maxMs: 1_000 }

export type Argument = string | Buffer
/** Bytes stay bytes: by default strings become text. 36 is `$`, the type of RESP's strings. */
const AS_BYTES = { typeMapping: { 36: Buffer } }

/** What is used of a client of `@redis/client`. */
export interface RedisClient {
  connect(): Promise<unknown>
  destroy(): void
  on(event: string, listener: (error: Error) => void): unknown
  sendCommand(args: readonly Argument[], options?: object): Promise<unknown>
  subscribe(channel: string, listener: (message: Buffer) => void, asBytes: true): Promise<unknown>
  unsubscribe(channel: string): Promise<unknown>
}

/** The connection broke, or the server cannot serve now: whether a command was carried out is not known. */
export class Broken extends Error {
  override readonly name: string = 'Broken'
}

/** The server answered with an error: nothing of the command was carried out. */
export class Refused extends Error {
  override readonly name: string = 'Refused'
  /** The first word of the answer, such as `OOM`. */
  readonly code: string

  constructor(message: string) {
    super(message)
    // A transaction that is refused as a whole says why behind that.
    const reason = /^EXECABORT .* because of: (.+)$/.exec(message)?.[1] ?? message
    this.code = reason.split(' ', 1)[0] ?? ''
  }
}

/** Answers of a server that will serve again, or of one that is not the right one any more. */
const UNAVAILABLE = new Set(['LOADING', 'READONLY', 'MASTERDOWN', 'BUSY', 'CLUSTERDOWN', 'MOVED', 'TRYAGAIN', 'ASK'])

interface ClientModule {
  createClient(options: object): unknown
  readonly ErrorReply: new (...args: never[]) => Error
}

/** The client library, which is an optional peer. */
export async function loadClient(): Promise<ClientModule> {
  try {
    return (await import('@redis/client')) as unknown as ClientModule
  } catch (error) {
    if ((error as { code?: string }).code !== 'ERR_MODULE_NOT_FOUND') throw error
    throw new SluiceError(
      'UNSUPPORTED',
      'Redis needs the package @redis/client, which is not installed. Run `npm install @redis/client`.',
      {},
      error,
    )
  }
}

/** One connection, from when it is made until it breaks. */
export class Connection {
  readonly #client: RedisClient
  readonly #ErrorReply: ClientModule['ErrorReply']
  readonly #onBroken: (cause: Error) => void
  /** As the server numbers it: who waits for a lock asks whether its holder is still connected. */
  id = ''
  #outstanding = 0
  #heardMs = performance.now()
  #cause: Error | null = null

  constructor(client: RedisClient, ErrorReply: ClientModule['ErrorReply'], onBroken: (cause: Error) => void) {
    this.#client = client
    this.#ErrorReply = ErrorReply
    this.#onBroken = onBroken
    client.on('error', (error) => this.break(error))
    client.on('terminated', (error) => this.break(error))
    client.on('end', () => this.break(new Error('the connection was closed')))
  }

  get isBroken(): boolean {
    return this.#cause !== null
  }

  get client(): RedisClient {
    return this.#client
  }

  /** Sends a command at once, behind those that were sent before. Rejects with {@link Broken} or {@link Refused}. */
  async ask(args: readonly Argument[], options?: object): Promise<unknown> {
    return this.#follow(this.#cause === null ? this.#client.sendCommand(args, options) : Promise.reject(this.#cause))
  }

  /** The same, and strings of the answer are bytes. */
  askBytes(args: readonly Argument[]): Promise<unknown> {
    return this.ask(args, AS_BYTES)
  }

  async #follow(answer: Promise<unknown>): Promise<unknown> {
    if (this.#outstanding++ === 0) this.#heardMs = performance.now()
    try {
      const value = await answer
      this.#heardMs = performance.now()
      return value
    } catch (error) {
      this.#heardMs = performance.now()
      throw this.explain(error as Error)
    } finally {
      this.#outstanding--
    }
  }

  /** What an error of the client means. A server that cannot serve is left. */
  explain(error: Error): Error {
    const { message } = error
    if (!(error instanceof this.#ErrorReply)) {
      this.break(error)
      return new Broken(message, { cause: error })
    }
    const refused = new Refused(message)
    if (!UNAVAILABLE.has(refused.code)) return refused
    this.break(refused)
    return new Broken(message, { cause: error })
  }

  /** Now and then: gives a silent server up. */
  tick(): void {
    const silentMs = performance.now() - this.#heardMs
    if (this.#outstanding > 0 && silentMs > ANSWER_MS) this.break(new Error(`no answer for ${ANSWER_MS} ms`))
    else if (this.#outstanding === 0 && silentMs > IDLE_MS) this.ask(['PING']).catch(() => {})
  }

  break(cause: Error): void {
    if (this.#cause !== null) return
    this.#cause = cause
    this.#client.destroy()
    this.#onBroken(cause)
  }
}

export interface LinkOptions {
  readonly url: URL
  /** Shown by `CLIENT LIST`. */
  readonly name: string
  /** Run on each connection before anybody uses it. A SluiceError that is not retryable is for good. */
  readonly prepare: (connection: Connection) => Promise<void>
  /** It will never be ready again. */
  readonly onFailed?: (error: SluiceError) => void
}

/** The URL without the password. */
export function showUrl(url: URL): string {
  const shown = new URL(url)
  if (shown.password !== '') shown.password = '***'
  return shown.href
}

export class Link {
  readonly #options: LinkOptions
  readonly #module: ClientModule
  readonly #address: Address
  #connection: Connection | null = null
  #waiting = new Set<() => void>()
  #failure: SluiceError | null = null
  /** Why there is no connection now. */
  #cause: Error | null = null
  #isOpen = false
  readonly #closing = new AbortController()
  readonly #ticking: NodeJS.Timeout

  private constructor(options: LinkOptions, module: ClientModule) {
    this.#options = options
    this.#module = module
    this.#address = readAddress(options.url)
    this.#ticking = setInterval(() => this.#connection?.tick(), TICK_MS)
  }

  /** Connects. Rejects with a SluiceError that says why it cannot, after `connectMs` at the latest. */
  static async open(options: LinkOptions, connectMs: number): Promise<Link> {
    const link = new Link(options, await loadClient())
    const late = setTimeout(() => link.fail(link.#unreachable(connectMs)), connectMs)
    try {
      link.#connect()
      await link.ready()
      link.#isOpen = true
      return link
    } catch (error) {
      link.close()
      throw error
    } finally {
      clearTimeout(late)
    }
  }

  /** The connection, if there is one now. */
  get current(): Connection | null {
    return this.#connection
  }

  /** Why there is none. */
  get cause(): Error | null {
    return this.#failure ?? this.#cause
  }

  /** Waits for a connection. Rejects when there will be none, or with the reason of the signal. */
  async ready(signal?: AbortSignal): Promise<Connection> {
    for (;;) {
      if (this.#failure !== null) throw this.#failure
      if (this.#closing.signal.aborted) throw new SluiceError('CLOSED')
      signal?.throwIfAborted()
      if (this.#connection !== null) return this.#connection
      await new Promise<void>((resolve) => {
        const go = () => {
          this.#waiting.delete(go)
          signal?.removeEventListener('abort', go)
          resolve()
        }
        this.#waiting.add(go)
        signal?.addEventListener('abort', go, { once: true })
      })
    }
  }

  /** Ends it for good: whoever waits for it gets the error. */
  fail(error: SluiceError): void {
    if (this.#failure !== null) return
    this.#failure = error
    this.#stop(error)
    this.#options.onFailed?.(error)
  }

  close(): void {
    this.#closing.abort()
    this.#stop(new SluiceError('CLOSED'))
  }

  #stop(cause: Error): void {
    clearInterval(this.#ticking)
    const connection = this.#connection
    this.#connection = null
    connection?.break(cause)
    this.#wake()
  }

  #wake(): void {
    for (const go of [...this.#waiting]) go()
  }

  get #isOver(): boolean {
    return this.#failure !== null || this.#closing.signal.aborted
  }

  async #connect(): Promise<void> {
    for (let tries = 1; !this.#isOver; tries++) {
      try {
        const connection = await this.#connectOnce()
        if (this.#isOver) return connection.break(new Error('closed'))
        this.#connection = connection
        this.#cause = null
        this.#wake()
        return
      } catch (error) {
        this.#cause = error as Error
        const isFinal = error instanceof SluiceError && !error.retryable
        // Credentials may be mended while it runs; what else is wrong with a server that once was right is for good.
        if (isFinal && !(this.#isOpen && error.code === 'UNAUTHENTICATED')) return this.fail(error)
      }
      const pauseMs = BACKOFF.baseMs + backoffMs(BACKOFF, tries, Math.random())
      await delay(pauseMs, undefined, { signal: this.#closing.signal }).catch(() => {})
    }
  }

  async #connectOnce(): Promise<Connection> {
    const { name, prepare } = this.#options
    const { url, socket } = this.#address
    const client = this.#module.createClient({
      url,
      name,
      RESP: 3,
      disableOfflineQueue: true,
      disableClientInfo: true,
      maintNotifications: 'disabled',
      socket: { ...socket, reconnectStrategy: false, connectTimeout: ANSWER_MS },
    }) as RedisClient
    const connection: Connection = new Connection(client, this.#module.ErrorReply, (cause) => {
      if (this.#connection !== connection) return
      this.#connection = null
      this.#cause = cause
      this.#connect()
    })
    // The client waits for ever for a server that takes connections and says nothing.
    const late = setTimeout(() => connection.break(new Error(`no answer for ${ANSWER_MS} ms`)), ANSWER_MS)
    const broken = new Promise<never>((_, reject) => {
      client.on('end', () => reject(new Broken('the connection was closed')))
    })
    broken.catch(() => {})
    try {
      await Promise.race([client.connect(), broken])
      connection.id = String(await connection.ask(['CLIENT', 'ID']))
      await prepare(connection)
      if (connection.isBroken) throw new Broken('the connection was closed')
      return connection
    } catch (error) {
      connection.break(error as Error)
      throw this.#explain(error as Error)
    } finally {
      clearTimeout(late)
    }
  }

  #explain(error: Error): Error {
    const code = error.message.split(' ', 1)[0] ?? ''
    const where = showUrl(this.#options.url)
    if (code === 'NOAUTH' || code === 'WRONGPASS' || /invalid password|without any password/.test(error.message))
      return new SluiceError(
        'UNAUTHENTICATED',
        `Redis at ${where} refused the credentials (${code}). Give them in the URL: redis://user:password@host.`,
      )
    if (code === 'NOPERM')
      return new SluiceError(
        'UNSUPPORTED',
        `The user of Redis at ${where} lacks a permission: ${error.message}. docs/redis.md lists what it needs.`,
      )
    return error
  }

  #unreachable(afterMs: number): SluiceError {
    const why = this.#cause === null ? 'no answer' : describe(this.#cause)
    return new SluiceError(
      'UNREACHABLE',
      `Redis at ${showUrl(this.#options.url)} could not be used within ${afterMs} ms: ${why}.`,
      {},
      this.#cause ?? undefined,
    )
  }
}

/** An error of several attempts (of addresses) has its texts in its parts. */
export function describe(error: Error): string {
  if (error instanceof AggregateError && error.message === '')
    return error.errors.map((part: Error) => part.message).join('; ')
  return error.message
}
