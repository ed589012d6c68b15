/**
 * Event streams that follow a topic. There may be thousands, nearly all of them at its end with nothing to say, so one is
 * an object of a few words, not an async function with its promises and a signal: it sends what it has, then joins the
 * tail of its place.
 *
 *     start -> sending -- all sent --> joined to a tail -- page, or a beat --> sending -> ...
 *     any -- client gone, server closing, key revoked --> over
 *
 * All streams that stand at one place of one topic share a tail: one read of the engine that waits for what comes next, one
 * timer, one page of text. What each had of its own was 4 KiB in two threads. A read that comes back empty after
 * `heartbeatMs` makes each of them send a beat.
 *
 * Invariants
 *  1. A follower is in at most one tail, and in none while it sends: a slow reader is waited for, and holds one page.
 *  2. A tail reads only as long as somebody is in it.
 *  3. A page goes to AT_ONCE followers between two rounds of the event loop, so that thousands of them do not hold up
 *     everybody else.
 */
import type { Engine } from '../index.ts'
import type { EventStream } from './event-stream.ts'
import { type Page, takePage } from './pages.ts'
import { nextHelping } from './paging.ts'

/** The most of one page of a stream: each slow reader holds one. */
export const STREAM_PAGE = { limit: 100, budgetBytes: 262_144 }
const AT_ONCE = 64

/** A place of a topic, and who waits there. */
interface Tail {
  readonly topic: string
  readonly next: number
  readonly followers: Set<Follower>
  readonly abort: AbortController
}

/** The tails of all topics. */
export class Tails {
  readonly #engine: Engine
  readonly #heartbeatMs: number
  /** Those whose read is under way, by topic and place. */
  readonly #reading = new Map<string, Tail>()

  constructor(engine: Engine, heartbeatMs: number) {
    this.#engine = engine
    this.#heartbeatMs = heartbeatMs
  }

  /** `follower` gets what comes next there, or an empty page after a while. */
  join(topic: string, next: number, follower: Follower): Tail {
    const place = placeOf(topic, next)
    let tail = this.#reading.get(place)
    if (tail === undefined) {
      tail = { topic, next, followers: new Set(), abort: new AbortController() }
      this.#reading.set(place, tail)
      void this.#read(tail)
    }
    tail.followers.add(follower)
    return tail
  }

  leave(tail: Tail, follower: Follower): void {
    tail.followers.delete(follower)
    if (tail.followers.size > 0) return
    // Whoever comes now begins another.
    if (this.#reading.get(placeOf(tail.topic, tail.next)) === tail) this.#reading.delete(placeOf(tail.topic, tail.next))
    tail.abort.abort()
  }

  async #read(tail: Tail): Promise<void> {
    const { topic, next, abort } = tail
    let give: (follower: Follower) => void
    try {
      const max = nextHelping({ wanted: STREAM_PAGE.limit, ...STREAM_PAGE, takenCount: 0, takenBytes: 0 })
      const wish = { topic, from: next, max, waitMs: this.#heartbeatMs }
      const first = await this.#engine.read(wish, abort.signal)
      const page = await takePage(this.#engine, { ...STREAM_PAGE, topic, from: next, waitMs: 0 }, undefined, first)
      give = (follower) => follower.take(page)
    } catch (error) {
      give = (follower) => follower.fail(error)
    }
    if (this.#reading.get(placeOf(topic, next)) === tail) this.#reading.delete(placeOf(topic, next))
    handOut(tail, give)
  }
}

function placeOf(topic: string, next: number): string {
  return `${next} ${topic}`
}

function handOut(tail: Tail, give: (follower: Follower) => void): void {
  let left = AT_ONCE
  for (const follower of tail.followers) {
    if (left-- === 0) {
      setImmediate(handOut, tail, give)
      return
    }
    tail.followers.delete(follower)
    give(follower)
  }
}

/** A stream of one reader. */
export class Follower {
  readonly #tails: Tails
  readonly #topic: string
  #stream: EventStream | null = null
  #tail: Tail | null = null
  #isOver = false

  constructor(tails: Tails, topic: string) {
    this.#tails = tails
    this.#topic = topic
  }

  start(stream: EventStream, page: Page): void {
    this.#stream = stream
    if (this.#isOver) stream.end()
    else this.#send(page, 0)
  }

  /** For tails only. */
  take(page: Page): void {
    this.#tail = null
    this.#send(page, 0)
  }

  /** For tails only. The reader is told why it is over. */
  fail(error: unknown): void {
    this.#tail = null
    this.#isOver = true
    this.#stream?.fail(error)
  }

  /** May be called more than once. */
  stop(): void {
    if (this.#isOver) return
    this.#isOver = true
    if (this.#tail !== null) this.#tails.leave(this.#tail, this)
    this.#tail = null
    this.#stream?.end()
  }

  #send(page: Page, from: number): void {
    const { messages, next } = page
    const stream = this.#stream as EventStream
    for (let i = from; i < messages.length; i++) {
      const { offset, text } = messages[i] as Page['messages'][number]
      if (!stream.write(text, offset)) return this.#waitForReader(page, i + 1)
    }
    if (messages.length === 0 && from === 0 && !stream.writeBeat()) return this.#waitForReader(page, 1)
    this.#tail = this.#tails.join(this.#topic, next, this)
  }

  #waitForReader(page: Page, from: number): void {
    ;(this.#stream as EventStream).onceDrained(() => {
      if (!this.#isOver) this.#send(page, from)
    })
  }
}
