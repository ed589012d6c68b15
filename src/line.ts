/**
 * A line of messages that wait before they are stored: for their turn, where the producer is paced (rate of acceptance
 * = rate of creation), or for room, where the queue is full and the producer would rather wait than hear of it.
 *
 *     join -> waiting -> sent -> stored
 *                ^        |
 *                +--full--+   back to its place in the line, until its time is over
 *
 * While the queue is full nobody is sent before the time that the engine said. Who joins while others wait
 * stands behind them, so a full queue is not stormed. After a refusal a few are sent first, and with each that is stored
 * one more: were all who wait sent at once, most of them would be refused again, each time.
 *
 * Invariants
 *  1. Messages are sent in the order in which they joined; one that came back goes before all that joined later.
 *  2. At most MAX_SENT are sent and not answered, so what comes back is bounded.
 *  3. At most MAX_WAITING wait; past it `join` refuses (P7).
 *
 * Order holds between messages of which the first was stored before the second joined, and between those that were
 * never refused. Of two that are under way together, the first may be refused and the second stored: a caller that
 * needs the order of a key awaits each message before the next.
 */
import { isSluiceError, SluiceError } from './errors.ts'
import type { Host } from './host/host.ts'
import type { Headers } from './message-batch.ts'
import { createRate, type Rate } from './policy/rate.ts'
import type { Publisher } from './publisher.ts'

const MAX_SENT = 8_192
/** Sent and not answered, after a refusal. */
const FIRST_SENT = 64
const MAX_WAITING = 100_000
/** Places at the front of the array that are given up in one go, since taking one off costs as much as taking many. */
const COMPACT_AT = 1_024
/** Where an engine gives no time to wait. */
const BLIND_WAIT_MS = 1_000

/** What a publisher is given, and until when to wait for room; `giveUpAtMs` 0: not at all. */
export interface LineMessage {
  readonly payload: string | Uint8Array
  readonly key: string | undefined
  readonly headers: Headers | undefined
  readonly priority: number
  readonly deadlineAtMs: number
  readonly idempotencyKey: string | undefined
  readonly dueAtMs: number
  readonly callbackUrl?: string | undefined
  readonly inTime?: boolean
  readonly giveUpAtMs: number
}

interface Waiting<T> {
  readonly message: LineMessage
  readonly serial: number
  readonly resolve: (value: T) => void
  readonly reject: (error: unknown) => void
}

/** At most `messages` in any `perMs`, evenly. */
export interface Pace {
  /** Whole number from 1. */
  readonly messages: number
  /** Milliseconds. @default 1_000 */
  readonly perMs?: number
}

export class Line<T> {
  readonly #publisher: Publisher<T>
  readonly #host: Host
  #rate: Rate | null = null
  #waiting: Waiting<T>[] = []
  /** Index of the first who waits; those before it are gone. */
  #first = 0
  #sent = 0
  /** How many may be sent and not answered now. */
  #maxSent = MAX_SENT
  #serial = 0
  #blockedUntilMs = 0
  /** Why it is held. */
  #refusal: SluiceError | null = null
  #wakeAtMs = 0
  #stopTimer: (() => void) | null = null
  #closed: SluiceError | null = null

  constructor(publisher: Publisher<T>, host: Host) {
    this.#publisher = publisher
    this.#host = host
  }

  /** Whether messages that would not wait for room must come here all the same. */
  get isPaced(): boolean {
    return this.#rate !== null
  }

  /** Paces from now on; null: no longer. */
  setPace(pace: Pace | null): void {
    this.#rate =
      pace === null ? null : createRate({ messages: pace.messages, perMs: pace.perMs ?? 1_000 }, this.#host.now())
    this.#pump()
  }

  join(message: LineMessage): Promise<T> {
    if (this.#closed !== null) return Promise.reject(this.#closed)
    if (this.#waiting.length - this.#first >= MAX_WAITING) {
      const text = `${MAX_WAITING} messages of this process wait for their turn; nothing was stored. Await some before adding more.`
      return Promise.reject(new SluiceError('OVERLOADED', text, { waiting: MAX_WAITING }))
    }
    const now = this.#host.now()
    if (now < this.#blockedUntilMs) {
      if (message.giveUpAtMs <= now) return Promise.reject(this.#refusal)
      if (message.giveUpAtMs < this.#wakeAtMs) this.#endTimer()
    }
    return new Promise<T>((resolve, reject) => {
      this.#waiting.push({ message, serial: this.#serial++, resolve, reject })
      this.#pump()
    })
  }

  /** Refuses what waits with `CLOSED`: it was not stored. */
  close(): void {
    this.#closed = new SluiceError(
      'CLOSED',
      'Sluice was closed while the message waited for its turn; it was not stored.',
    )
    this.#endTimer()
    for (const { reject } of this.#waiting.splice(this.#first)) reject(this.#closed)
  }

  #pump(): void {
    const now = this.#host.now()
    if (now < this.#blockedUntilMs) {
      this.#hold(now)
      return
    }
    while (this.#first < this.#waiting.length && this.#sent < this.#maxSent) {
      if (this.#rate !== null && this.#rate.take(now, 1) === 0) {
        this.#setTimer(now, now + this.#rate.nextMs(now))
        return
      }
      this.#send(this.#waiting[this.#first++] as Waiting<T>)
    }
    if (this.#first < COMPACT_AT && this.#first < this.#waiting.length) return
    this.#waiting.splice(0, this.#first)
    this.#first = 0
  }

  /** While it is full nobody is sent; whose time is over hears of the last refusal. */
  #hold(nowMs: number): void {
    if (this.#stopTimer !== null) return
    const staying: Waiting<T>[] = []
    let wakeAtMs = this.#blockedUntilMs
    for (let i = this.#first; i < this.#waiting.length; i++) {
      const one = this.#waiting[i] as Waiting<T>
      if (one.message.giveUpAtMs <= nowMs) {
        one.reject(this.#refusal)
      } else {
        staying.push(one)
        wakeAtMs = Math.min(wakeAtMs, one.message.giveUpAtMs)
      }
    }
    this.#waiting = staying
    this.#first = 0
    if (staying.length > 0) this.#setTimer(nowMs, wakeAtMs)
  }

  #send(one: Waiting<T>): void {
    const { payload, key, headers, priority, deadlineAtMs, idempotencyKey, dueAtMs, callbackUrl, inTime } = one.message
    this.#sent++
    this.#publisher
      .push(payload, key, headers, priority, deadlineAtMs, idempotencyKey, dueAtMs, callbackUrl, inTime)
      .then(
        (stored) => {
          this.#sent--
          if (this.#maxSent < MAX_SENT) this.#maxSent++
          one.resolve(stored)
          this.#pump()
        },
        (error: unknown) => {
          this.#sent--
          if (!this.#goBack(one, error)) one.reject(error)
          this.#pump()
        },
      )
  }

  /** Whether a refused message may wait for room. Its last attempt is at the end of its time. */
  #goBack(one: Waiting<T>, error: unknown): boolean {
    if (!isSluiceError(error, 'QUEUE_FULL') && !isSluiceError(error, 'DISK_FULL')) return false
    const now = this.#host.now()
    const { giveUpAtMs } = one.message
    if (this.#closed !== null || now >= giveUpAtMs) return false
    const wait = typeof error.details.retryAfterMs === 'number' ? error.details.retryAfterMs : BLIND_WAIT_MS
    this.#refusal = error
    this.#maxSent = FIRST_SENT
    this.#blockedUntilMs = Math.max(now + 1, Math.min(now + wait, giveUpAtMs))
    if (Math.min(this.#blockedUntilMs, giveUpAtMs) < this.#wakeAtMs) this.#endTimer()
    let at = this.#first
    while (at < this.#waiting.length && (this.#waiting[at] as Waiting<T>).serial < one.serial) at++
    this.#waiting.splice(at, 0, one)
    return true
  }

  #setTimer(nowMs: number, wakeAtMs: number): void {
    this.#stopTimer?.()
    this.#wakeAtMs = wakeAtMs
    this.#stopTimer = this.#host.setTimer(Math.max(0, wakeAtMs - nowMs), () => {
      this.#stopTimer = null
      this.#pump()
    })
  }

  #endTimer(): void {
    this.#stopTimer?.()
    this.#stopTimer = null
  }
}
