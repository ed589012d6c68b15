/**
 * How much the server has under way, and the bound on it.
 *
 * A request is either at work (parsing, storing, answering) or waiting: a long poll, an event stream, `Prefer: wait`.
 * Those that wait hold a connection and a timer and no more, and there are many of them on a healthy server, so they
 * have a cap of their own and leave the other one free. Past a cap the answer is `OVERLOADED`, before the body is read.
 *
 * Bodies are counted in bytes as well, by what their headers announce, before the first byte of them is read.
 *
 *     enter -> at work <-> waiting -> leave       leave comes once, when the connection is done with the request
 *
 * The bytes of a body are given back when both its visit has left and its handler has ended: a client that goes away
 * does not take along what was read of it.
 *
 * Invariants
 *  1. A visit counts under exactly one cap from `enter` to `leave`.
 *  2. The signal of a wait is aborted when the client goes away and when the server closes, so no wait outlives either.
 *  3. After `close` nothing enters, and a wait that begins is over at once.
 */
import { SluiceError } from '../errors.ts'

export class Load {
  readonly #maxInFlight: number
  readonly #maxWaiting: number
  readonly #waits = new Set<AbortController>()
  readonly #maxBodyBytes: number
  #inFlight = 0
  #bodyBytes = 0
  #closed = false

  constructor(maxInFlight: number, maxWaiting: number, maxBodyBytes: number) {
    this.#maxInFlight = maxInFlight
    this.#maxWaiting = maxWaiting
    this.#maxBodyBytes = maxBodyBytes
  }

  get inFlight(): number {
    return this.#inFlight
  }

  get waiting(): number {
    return this.#waits.size
  }

  get bodyBytes(): number {
    return this.#bodyBytes
  }

  get isClosed(): boolean {
    return this.#closed
  }

  /** `isUncounted`: let in past the cap. */
  enter(isUncounted = false): Visit {
    if (this.#closed)
      throw new SluiceError('CLOSED', 'The server is stopping; nothing was stored. Try again in a moment.')
    if (this.#inFlight >= this.#maxInFlight && !isUncounted) {
      throw new SluiceError(
        'OVERLOADED',
        `The server has ${this.#inFlight} requests in flight, its limit; nothing was stored.`,
        { limit: this.#maxInFlight },
      )
    }
    this.#inFlight++
    return new Visit(this)
  }

  /** Ends every wait; nothing enters from now on. */
  close(): void {
    this.#closed = true
    for (const wait of this.#waits) wait.abort()
  }

  /** For visits only. */
  move(wait: AbortController, to: 'waiting' | 'work'): boolean {
    if (to === 'work') {
      if (this.#waits.delete(wait)) this.#inFlight++
      return true
    }
    if (this.#waits.has(wait)) return true
    if (this.#waits.size >= this.#maxWaiting) return false
    this.#waits.add(wait)
    this.#inFlight--
    if (this.#closed) wait.abort()
    return true
  }

  /** For visits only. One body always finds room, however large it is. */
  takeBody(bytes: number): boolean {
    if (this.#bodyBytes > 0 && this.#bodyBytes + bytes > this.#maxBodyBytes) return false
    this.#bodyBytes += bytes
    return true
  }

  /** For visits only. */
  dropBody(bytes: number): void {
    this.#bodyBytes -= bytes
  }

  /** For visits only. */
  drop(wait: AbortController | null): void {
    if (wait === null || !this.#waits.delete(wait)) this.#inFlight--
  }
}

/** One request from its headers until its answer is out or its client is gone. */
export class Visit {
  readonly #load: Load
  #wait: AbortController | null = null
  #bodyBytes = 0
  #isOver = false
  #isHandled = false

  constructor(load: Load) {
    this.#load = load
  }

  get isOver(): boolean {
    return this.#isOver
  }

  /** Counts as waiting from now on; the signal ends the wait. Null where too many wait already. */
  tryWait(): AbortSignal | null {
    this.#wait ??= new AbortController()
    if (this.#isOver) this.#wait.abort()
    else if (!this.#load.move(this.#wait, 'waiting')) return null
    return this.#wait.signal
  }

  /** The same, and `OVERLOADED` where too many wait. */
  wait(): AbortSignal {
    const signal = this.tryWait()
    if (signal === null)
      throw new SluiceError('OVERLOADED', `The server has ${this.#load.waiting} requests waiting, its limit.`, {
        limit: this.#load.waiting,
      })
    return signal
  }

  endWait(): void {
    if (this.#wait !== null && !this.#isOver) this.#load.move(this.#wait, 'work')
  }

  /** Makes room for a body, or throws `OVERLOADED`. */
  takeBody(bytes: number): void {
    if (this.#load.takeBody(bytes)) this.#bodyBytes = bytes
    else
      throw new SluiceError(
        'OVERLOADED',
        `The server holds ${this.#load.bodyBytes} bytes of other bodies; nothing was stored.`,
      )
  }

  /** The body is not held any more. */
  dropBody(): void {
    this.#load.dropBody(this.#bodyBytes)
    this.#bodyBytes = 0
  }

  /** Its handler runs from now on, until `endHandler`, and may hold the body. */
  startHandler(): void {
    this.#isHandled = true
  }

  endHandler(): void {
    this.#isHandled = false
    if (this.#isOver) this.dropBody()
  }

  leave(): void {
    if (this.#isOver) return
    if (!this.#isHandled) this.dropBody()
    this.#isOver = true
    this.#load.drop(this.#wait)
    this.#wait?.abort()
  }
}
