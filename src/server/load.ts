/**
 * How much the server has under way, and the bounds on it.
 *
 * A request is either at work (parsing, storing, answering) or waiting: a long poll, an event stream, `Prefer: wait`.
 * Those that wait hold a connection and little more, and there are many of them on a healthy server, so they have a cap
 * of their own and leave the other one free. Past a cap the answer is `OVERLOADED`, before the body is read.
 *
 * Of each cap a class of requests may fill a share (work-class.ts), so the lower classes are refused first. The cap on
 * work falls while the event loop is late (policy/load-limit.ts), but for what ends work: that has all of `maxInFlight`.
 *
 * Bodies are counted in bytes as well, by what their headers announce, before the first byte of them is read. So are large
 * answers, from when they are made until their clients have taken them: past the bound the one that has been under way
 * longest is cut. A refusal would not do, since those who take nothing would then keep everybody else from being answered.
 *
 *     enter -> at work <-> waiting -> leave       leave comes once, when the connection is done with the request
 *
 * The bytes of a body are given back when both its visit has left and its handler has ended: a client that goes away
 * does not take along what was read of it.
 *
 * Invariants
 *  1. A visit counts under exactly one cap from `enter` to `leave`.
 *  2. Who waits is told to end when the client goes away and when the server closes, so no wait outlives either.
 *  3. After `close` nothing enters, and a wait that begins is over at once.
 *  4. Large answers have at most `maxSendingBytes` in all, but for one that is larger by itself.
 */
import { SluiceError } from '../errors.ts'
import { type LoadSample, nextLimit, overloadRetryMs } from '../policy/load-limit.ts'
import { SHARES, type WorkClass } from './work-class.ts'

export interface LoadOptions {
  readonly maxInFlight: number
  readonly maxWaiting: number
  readonly maxBodyBytes: number
  readonly maxSendingBytes: number
  /** How late the event loop may be; 0: no bound. */
  readonly maxLoopDelayMs: number
  readonly random?: () => number
}

/** Counts of the last second or two, from which `Retry-After` is made. */
const COUNT_SAMPLES = 10

export class Load {
  readonly #options: LoadOptions
  readonly #waits = new Set<Visit>()
  /** What is let in now, at most `maxInFlight`. */
  #limit: number
  #inFlight = 0
  #peak = 0
  #bodyBytes = 0
  /** Large answers under way, the oldest first. */
  readonly #answers = new Map<Visit, { readonly bytes: number; readonly cut: () => void }>()
  #answerBytes = 0
  #cutAnswers = 0
  #closed = false
  #samples = 0
  #offered = 0
  #served = 0
  #before = { offered: 0, served: 0 }
  /** Requests refused as too many, by class, since the start. */
  readonly refused: Record<WorkClass, number> = { health: 0, settle: 0, lease: 0, publish: 0, read: 0 }

  constructor(options: LoadOptions) {
    this.#options = options
    this.#limit = options.maxInFlight
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

  /** Bytes of large answers that are made and not taken. */
  get answerBytes(): number {
    return this.#answerBytes
  }

  /** Answers whose connection was cut, since the start. */
  get cutAnswers(): number {
    return this.#cutAnswers
  }

  get isClosed(): boolean {
    return this.#closed
  }

  /** Requests that may be at work now; it falls while the event loop is late. */
  get limit(): number {
    return this.#limit
  }

  /** Whether one more of this class may be at work. */
  hasRoom(workClass: WorkClass): boolean {
    const limit = workClass === 'settle' ? this.#options.maxInFlight : this.#limit
    return this.#inFlight < Math.ceil(limit * SHARES[workClass])
  }

  /** Counts a refusal, and says when to come again. */
  refuse(workClass: WorkClass): number {
    this.#offered++
    this.refused[workClass]++
    return this.#retryAfterMs()
  }

  /** Lets a request in, or throws `CLOSED` or `OVERLOADED`. */
  enter(workClass: WorkClass): Visit {
    if (this.#closed)
      throw new SluiceError('CLOSED', 'The server is stopping; nothing was stored. Try again in a moment.')
    if (!this.hasRoom(workClass)) throw this.overloadedError(this.refuse(workClass))
    this.#offered++
    this.#served++
    this.#inFlight++
    if (this.#inFlight > this.#peak) this.#peak = this.#inFlight
    return new Visit(this, workClass)
  }

  overloadedError(retryAfterMs: number): SluiceError {
    return new SluiceError(
      'OVERLOADED',
      `The server has ${this.#inFlight} requests in flight, its limit for this kind; nothing was stored. Try again in ${retryAfterMs} ms.`,
      { limit: this.#limit, retryAfterMs },
    )
  }

  /** Takes in how late the event loop was. Called some ten times a second. */
  observe(delayMs: number): void {
    const sample: LoadSample = { delayMs, peak: this.#peak }
    const { maxLoopDelayMs, maxInFlight } = this.#options
    this.#limit = nextLimit(this.#limit, sample, { maxDelayMs: maxLoopDelayMs, max: maxInFlight })
    this.#peak = this.#inFlight
    if (++this.#samples % COUNT_SAMPLES !== 0) return
    this.#before = { offered: this.#offered, served: this.#served }
    this.#offered = 0
    this.#served = 0
  }

  /** Ends every wait; nothing enters from now on. */
  close(): void {
    this.#closed = true
    for (const visit of this.#waits) visit.cutWait()
  }

  /** For visits only. */
  move(visit: Visit, to: 'waiting' | 'work', workClass: WorkClass): boolean {
    if (to === 'work') {
      if (this.#waits.delete(visit)) this.#inFlight++
      return true
    }
    if (this.#waits.has(visit)) return true
    if (this.#waits.size >= Math.ceil(this.#options.maxWaiting * SHARES[workClass])) return false
    this.#waits.add(visit)
    this.#inFlight--
    if (this.#closed) visit.cutWait()
    return true
  }

  /** For visits only. One body always finds room, however large it is. */
  takeBody(bytes: number): boolean {
    if (this.#bodyBytes > 0 && this.#bodyBytes + bytes > this.#options.maxBodyBytes) return false
    this.#bodyBytes += bytes
    return true
  }

  /** For visits only. */
  dropBody(bytes: number): void {
    this.#bodyBytes -= bytes
  }

  /** For visits only. Invariant 4. */
  holdAnswer(visit: Visit, bytes: number, cut: () => void): void {
    this.dropAnswer(visit)
    for (const [oldest, held] of this.#answers) {
      if (this.#answerBytes + bytes <= this.#options.maxSendingBytes) break
      this.dropAnswer(oldest)
      this.#cutAnswers++
      held.cut()
    }
    this.#answers.set(visit, { bytes, cut })
    this.#answerBytes += bytes
  }

  /** For visits only. */
  dropAnswer(visit: Visit): void {
    const held = this.#answers.get(visit)
    if (held === undefined) return
    this.#answers.delete(visit)
    this.#answerBytes -= held.bytes
  }

  /** For visits only. */
  drop(visit: Visit): void {
    if (!this.#waits.delete(visit)) this.#inFlight--
  }

  #retryAfterMs(): number {
    const { offered, served } = this.#before
    const random = this.#options.random ?? Math.random
    return overloadRetryMs(offered + this.#offered, served + this.#served, random())
  }
}

/** One request from its headers until its answer is out or its client is gone. */
export class Visit {
  readonly #load: Load
  readonly #class: WorkClass
  #abort: AbortController | null = null
  /** Ends the wait, if it has one. */
  #end: (() => void) | null = null
  #bodyBytes = 0
  #isOver = false
  #isHandled = false

  constructor(load: Load, workClass: WorkClass) {
    this.#load = load
    this.#class = workClass
  }

  get isOver(): boolean {
    return this.#isOver
  }

  /** Counts as waiting from now on; the signal ends the wait. Null where too many wait already. */
  tryWait(): AbortSignal | null {
    const abort = (this.#abort ??= new AbortController())
    return this.#tryHold(() => abort.abort()) ? abort.signal : null
  }

  /** The same, and `OVERLOADED` where too many wait. */
  wait(): AbortSignal {
    return this.tryWait() ?? this.#refuseWait()
  }

  /** The same for those of which there are thousands: `end` is called, maybe twice, where a signal would be aborted. */
  hold(end: () => void): void {
    if (!this.#tryHold(end)) this.#refuseWait()
  }

  #tryHold(end: () => void): boolean {
    this.#end = end
    if (!this.#isOver) return this.#load.move(this, 'waiting', this.#class)
    end()
    return true
  }

  #refuseWait(): never {
    const retryAfterMs = this.#load.refuse(this.#class)
    throw new SluiceError(
      'OVERLOADED',
      `The server has ${this.#load.waiting} requests waiting, its limit for this kind. Try again in ${retryAfterMs} ms.`,
      { limit: this.#load.waiting, retryAfterMs },
    )
  }

  endWait(): void {
    if (!this.#isOver) this.#load.move(this, 'work', this.#class)
  }

  /** Ends its wait, if it has one, as if the time were over. */
  cutWait(): void {
    this.#end?.()
  }

  /** Makes room for a body, or throws `OVERLOADED`. */
  takeBody(bytes: number): void {
    if (this.#load.takeBody(bytes)) {
      this.#bodyBytes = bytes
      return
    }
    const retryAfterMs = this.#load.refuse(this.#class)
    throw new SluiceError(
      'OVERLOADED',
      `The server holds ${this.#load.bodyBytes} bytes of other bodies; nothing was stored. Try again in ${retryAfterMs} ms.`,
      { retryAfterMs },
    )
  }

  /** The body is not held any more. */
  dropBody(): void {
    this.#load.dropBody(this.#bodyBytes)
    this.#bodyBytes = 0
  }

  /** Counts its answer until it is taken, the visit ends, or `dropAnswer`. `cut` ends its connection. */
  holdAnswer(bytes: number, cut: () => void): void {
    if (!this.#isOver) this.#load.holdAnswer(this, bytes, cut)
  }

  dropAnswer(): void {
    this.#load.dropAnswer(this)
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
    this.dropAnswer()
    this.#load.drop(this)
    this.#end?.()
  }
}
