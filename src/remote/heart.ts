/**
 * The heart of the engine over HTTP: a thread that extends leases while the thread of the handlers is blocked.
 *
 * Why. A hold over HTTP ends by time, and the worker extends it by a timer. A handler that computes for longer than the
 * lease without letting the event loop turn would lose its lease in the middle of its work, and the message would be
 * done twice. What a lease is to notice is a process that is gone or stands still as a whole; that stops this thread, too.
 *
 *     worker: takes a lease -> keep (before its handlers start) -> extends by itself at a third of the lease
 *     thread: looks at what is left of each; below a half the worker has missed its turn -> extends
 *
 * So the thread sends nothing for a process that is well. Until when a hold lasts is in memory that both threads share,
 * since a worker that wakes up runs its timers before it reads any message: it must not find leases over that were kept.
 *
 * A hold is kept for no longer than its handlers may take (`timeoutMs`): a handler that never lets go loses it then, as
 * one that lets the event loop turn would.
 *
 * The thread starts with the first hold. Where it cannot, or there are more than MAX_HOLDS, leases are what they were
 * without it.
 */
import { Worker } from 'node:worker_threads'
import type { Hold } from '../engine/contract.ts'
import type { LeaseBeat, LeaseHeart } from '../lease-heart.ts'
import { type HeartData, nowUs, type ToHeart } from './heart-messages.ts'

const MAX_HOLDS = 4_096
/** Dropped holds that are told in one message. */
const MAX_DROPS = 64
const US_PER_MS = 1_000

export class Heart implements LeaseHeart {
  readonly #url: string
  readonly #credential: string | undefined
  readonly #heldUntilUs = new BigInt64Array(new SharedArrayBuffer(MAX_HOLDS * BigInt64Array.BYTES_PER_ELEMENT))
  readonly #free: number[] = []
  #slots = 0
  #uses = 0
  #thread: Worker | null = null
  #isOver = false
  #dropped: (readonly [slot: number, use: number])[] = []

  constructor(url: URL, credential?: string) {
    this.#url = url.href
    this.#credential = credential
  }

  keep(hold: Hold, leaseMs: number, keepMs: number): LeaseBeat | null {
    if (this.#isOver) return null
    const slot = this.#free.pop() ?? (this.#slots < MAX_HOLDS ? this.#slots++ : null)
    if (slot === null) return null
    this.#thread ??= this.#start()
    const use = ++this.#uses
    const beat = new Beat(this, this.#heldUntilUs, slot, use)
    beat.noteHeld(leaseMs)
    this.send({ kind: 'keep', slot, use, hold, leaseMs, untilUs: after(keepMs) })
    return beat
  }

  /** For beats only. */
  send(message: ToHeart): void {
    this.#tellDrops()
    this.#thread?.postMessage(message)
  }

  /** For beats only. A slot may be used again at once: its next use has another number. */
  drop(slot: number, use: number): void {
    this.#free.push(slot)
    this.#dropped.push([slot, use])
    if (this.#dropped.length >= MAX_DROPS) this.#tellDrops()
  }

  async close(): Promise<void> {
    this.#isOver = true
    await this.#thread?.terminate()
    this.#thread = null
  }

  #tellDrops(): void {
    if (this.#dropped.length === 0) return
    this.#thread?.postMessage({ kind: 'drop', slots: this.#dropped } satisfies ToHeart)
    this.#dropped = []
  }

  #start(): Worker {
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
    const thread = new Worker(new URL(`./heart-thread.${extension}`, import.meta.url), {
      workerData: { url: this.#url, credential: this.#credential, heldUntilUs: this.#heldUntilUs } satisfies HeartData,
      execArgv: [],
      name: 'sluice-heart',
    })
    thread.unref()
    const stop = (): void => {
      this.#isOver = true
      this.#thread = null
    }
    thread.on('error', stop)
    thread.on('exit', stop)
    return thread
  }
}

class Beat implements LeaseBeat {
  readonly #heart: Heart
  readonly #heldUntilUs: BigInt64Array
  readonly #slot: number
  readonly #use: number
  #isDropped = false

  constructor(heart: Heart, heldUntilUs: BigInt64Array, slot: number, use: number) {
    this.#heart = heart
    this.#heldUntilUs = heldUntilUs
    this.#slot = slot
    this.#use = use
  }

  heldForMs(): number {
    if (this.#isDropped) return 0
    return Number(Atomics.load(this.#heldUntilUs, this.#slot) - nowUs()) / US_PER_MS
  }

  noteHeld(forMs: number): void {
    if (!this.#isDropped) Atomics.store(this.#heldUntilUs, this.#slot, after(forMs))
  }

  keepFor(keepMs: number): void {
    if (this.#isDropped) return
    this.#heart.send({ kind: 'until', slot: this.#slot, use: this.#use, untilUs: after(keepMs) })
  }

  drop(): void {
    if (this.#isDropped) return
    this.#isDropped = true
    this.#heart.drop(this.#slot, this.#use)
  }
}

function after(ms: number): bigint {
  return nowUs() + BigInt(Math.round(ms * US_PER_MS))
}
