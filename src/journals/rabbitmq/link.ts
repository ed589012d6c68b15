/**
 * One connection to RabbitMQ that is made again, on the next host, for as long as the link is open. What has to be set up
 * on each connection (channels, consumers) is done by `onUp`, before the link counts as up.
 *
 * The library reconnects by itself if asked to; it is not, as a journal has to know which connection a message went out on.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type * as Amqp from 'amqplib'
import { SluiceError } from '../../errors.ts'
import { backoffMs } from '../../policy/retry.ts'
import type { Target } from './address.ts'

export type AmqpLibrary = typeof Amqp

const BACKOFF = { baseMs: 100, factor: 2, maxMs: 3_000 }
/** Of one attempt: a broker that accepts connections and says nothing is as good as none. */
const ATTEMPT_MS = 5_000
/** A broker that is about to start, or has lost its majority, may take long to declare a queue. */
const SET_UP_MS = 15_000
/** A peer that is silent for about twice as long is gone. */
const HEARTBEAT_S = 6

export async function loadAmqp(): Promise<AmqpLibrary> {
  try {
    const loaded = (await import('amqplib')) as AmqpLibrary & { default?: AmqpLibrary }
    return loaded.default ?? loaded
  } catch (error) {
    throw new SluiceError(
      'UNSUPPORTED',
      'RabbitMQ needs the package amqplib, which is not installed. Run `npm install amqplib@2`.',
      {},
      error,
    )
  }
}

export interface LinkEvents {
  /** Sets up what the connection is for. When it rejects, the connection is dropped and tried again. */
  onUp(model: Amqp.ChannelModel): Promise<void>
  /** It is up, after `onUp`. */
  onReady?(): void
  onDown(reason: Error): void
  /** The broker holds back what is published, with its reason; null: no longer. */
  onBlocked?(reason: string | null): void
}

export class Link {
  readonly #amqp: AmqpLibrary
  readonly #target: Target
  readonly #label: string
  readonly #events: LinkEvents
  readonly #closing = new AbortController()
  #host = 0
  #model: Amqp.ChannelModel | null = null
  /** Also while it is being set up. */
  #newest: Amqp.ChannelModel | null = null
  /** Why the broker holds back what is published. */
  blocked: string | null = null

  constructor(amqp: AmqpLibrary, target: Target, label: string, events: LinkEvents) {
    this.#amqp = amqp
    this.#target = target
    this.#label = label
    this.#events = events
  }

  /** Null while there is no connection. */
  get model(): Amqp.ChannelModel | null {
    return this.#model
  }

  /** Until it is up for the first time. Rejects with UNREACHABLE after `patienceMs`, and at once where trying again is no use. */
  async connect(patienceMs: number): Promise<void> {
    const untilMs = performance.now() + patienceMs
    for (let tries = 1; ; tries++) {
      const leftMs = untilMs - performance.now()
      try {
        return await this.#establish(Math.max(100, Math.min(ATTEMPT_MS, leftMs)))
      } catch (error) {
        if (this.#closing.signal.aborted) throw this.#closing.signal.reason
        const final = asFinal(error, this.#target)
        if (final !== null) throw final
        if (performance.now() >= untilMs) throw asUnreachable(error, this.#target)
      }
      await this.#pause(Math.min(tries, 5))
    }
  }

  /** Drops this connection, which then is made again. */
  reset(reason: Error): void {
    const model = this.#newest
    if (model === null) return
    this.#fell(model, reason)
    model.close().catch(() => {})
    destroySocket(model)
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return
    this.#closing.abort(new SluiceError('CLOSED'))
    const model = this.#newest
    this.#model = null
    this.#newest = null
    if (model === null) return
    const patience = new AbortController()
    await Promise.race([
      model.close().catch(() => {}),
      delay(2_000, undefined, { signal: patience.signal }).catch(() => {}),
    ])
    patience.abort()
    destroySocket(model)
  }

  async #establish(timeoutMs: number): Promise<void> {
    const { hosts, protocol, username, password, vhost, tls } = this.#target
    const host = hosts[this.#host++ % hosts.length]
    const model = await this.#amqp.connect(
      { protocol, ...host, username, password, vhost, heartbeat: HEARTBEAT_S, frameMax: 131_072 },
      { ...tls, noDelay: true, timeout: timeoutMs, clientProperties: { connection_name: `sluice ${this.#label}` } },
    )
    if (this.#closing.signal.aborted) {
      model.close().catch(() => {})
      destroySocket(model)
      throw this.#closing.signal.reason
    }
    this.#newest = model
    let last: Error = new Error('The connection was closed')
    model.on('error', (error) => {
      last = error
    })
    model.on('close', (error) => this.#fell(model, error ?? last))
    model.on('blocked', (reason) => this.#block(model, reason))
    model.on('unblocked', () => this.#block(model, null))
    // What is not answered when the time is up fails with the connection.
    const timer = setTimeout(() => destroySocket(model), SET_UP_MS)
    try {
      await this.#events.onUp(model)
    } catch (error) {
      if (this.#newest === model) this.#newest = null
      model.close().catch(() => {})
      destroySocket(model)
      throw error
    } finally {
      clearTimeout(timer)
    }
    if (this.#newest !== model) throw last
    this.#model = model
    this.#events.onReady?.()
  }

  #block(model: Amqp.ChannelModel, reason: string | null): void {
    if (model !== this.#newest) return
    this.blocked = reason
    this.#events.onBlocked?.(reason)
  }

  #fell(model: Amqp.ChannelModel, reason: Error): void {
    if (model !== this.#newest) return
    const wasUp = this.#model === model
    this.#newest = null
    this.#model = null
    this.blocked = null
    destroySocket(model)
    // One that fell while it was set up is tried again by who sets it up.
    if (!wasUp || this.#closing.signal.aborted) return
    this.#events.onDown(reason)
    void this.#again()
  }

  async #again(): Promise<void> {
    for (let tries = 1; !this.#closing.signal.aborted; tries++) {
      try {
        return await this.#establish(ATTEMPT_MS)
      } catch {
        await this.#pause(tries)
      }
    }
  }

  async #pause(tries: number): Promise<void> {
    const ms = Math.max(20, backoffMs(BACKOFF, tries, Math.random()))
    await delay(ms, undefined, { signal: this.#closing.signal }).catch(() => {})
  }
}

/** A channel whose errors are heard by the calls on it; `onEnd` tells that it was ended by the broker or with its connection. */
export async function openChannel(
  model: Amqp.ChannelModel,
  onEnd: (reason: Error) => void = () => {},
): Promise<Amqp.ConfirmChannel> {
  const channel = await model.createConfirmChannel()
  let reason = new Error('The channel was closed')
  channel.on('error', (error) => {
    reason = error
  })
  channel.on('close', () => onEnd(reason))
  return channel
}

/** Waits for its end. The library tells nobody who does that the connection has ended before: it would be for ever. */
export function closeChannel(channel: Amqp.Channel): Promise<void> {
  return new Promise((resolve, reject) => {
    // After an end in good order the promise of it has resolved by then.
    channel.once('close', () => setImmediate(() => reject(new Error('The connection was closed'))))
    channel.close().then(resolve, reject)
  })
}

/** The broker's number of the failure, such as 404. */
export function codeOf(error: unknown): number | null {
  const code = (error as { code?: unknown } | null)?.code
  if (typeof code === 'number') return code
  const inHandshake = /Handshake terminated by server: (\d+)/.exec(error instanceof Error ? error.message : '')
  return inHandshake === null ? null : Number(inHandshake[1])
}

/** For people: never with the URL, as it has a password in it. */
export function describe(error: unknown): string {
  return error instanceof Error ? error.message || String((error as { code?: unknown }).code) : String(error)
}

/** An error that a further attempt will meet again. */
function asFinal(error: unknown, { username, vhost, hosts: [first] }: Target): SluiceError | null {
  if (error instanceof SluiceError) return error
  const where = `${first?.hostname}:${first?.port}`
  if (codeOf(error) === 403)
    return new SluiceError(
      'UNAUTHENTICATED',
      `RabbitMQ at ${where} refuses the user '${username}': ${describe(error)}. Check user and password in the URL, and what the user may do in the virtual host '${vhost}' (rabbitmqctl list_permissions).`,
      { user: username, vhost },
      error,
    )
  // The library does not pass on what the broker says of a virtual host, but that it closes the connection then.
  if (codeOf(error) === 530 || /Expected ConnectionOpenOk; got <ConnectionClose/.test(describe(error)))
    return new SluiceError(
      'UNAUTHENTICATED',
      `RabbitMQ at ${where} does not let the user '${username}' into the virtual host '${vhost}': it is not there, or not for this user. Create it (rabbitmqctl add_vhost) and give the user permissions on it (rabbitmqctl set_permissions), or name another one as the path of the URL.`,
      { user: username, vhost },
      error,
    )
  return null
}

function asUnreachable(error: unknown, { hosts }: Target): SluiceError {
  const where = hosts.map(({ hostname, port }) => `${hostname}:${port}`).join(', ')
  return new SluiceError(
    'UNREACHABLE',
    `RabbitMQ at ${where} does not answer: ${describe(error)}. Is it running, and is this its AMQP port?`,
    { hosts: where },
    error,
  )
}

/**
 * The library ends its half of the socket and leaves the rest to the peer, which may be frozen. It hears of an error of the
 * socket, and not of its mere end: calls that wait would wait for ever.
 */
function destroySocket(model: Amqp.ChannelModel): void {
  const { stream } = model.connection as unknown as { stream?: { destroy(error: Error): void } }
  stream?.destroy(new Error('The connection was dropped'))
}
