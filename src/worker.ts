/**
 * A worker: takes messages of a queue or of a group on a topic, runs a handler on each, and settles them.
 *
 * It keeps as many handlers running as `concurrency` says. Where handlers are slower than a round trip to the engine it
 * holds nothing beyond those, so that another worker can have it; where they are quick (under QUICK_MS) it leases up to
 * `concurrency` more, or it would stand idle during each round trip. At most two lease calls and two settle calls are
 * under way, which makes batches grow with the load, without a timer.
 *
 *     starting --declared--> open --close()--> draining --idle, or drainMs--> releasing --> closed
 *         |                   |                                                               ^
 *         +---failed----------+---the engine is closed or failed------------------------------+
 *
 * starting: declares. open: leases. draining (P12): takes nothing new, what was not started is given back, handlers
 * finish. releasing: signals abort, what is held is given back unharmed (the attempt does not count), settles are told.
 *
 * Invariants
 *  1. `mode` changes in `#setMode` alone, and only along the arrows.
 *  2. At most `concurrency` tasks are in `#tasks`. One that timed out is not: its handler may never return.
 *  3. Each message that was leased is settled once: handed to the settler as it ends, or released.
 *  4. What was handed out and not settled is bounded: nothing is leased while settles cannot be told.
 */
import type { LeaseOutcome } from './engine/contract.ts'
import { isTransient, SluiceError } from './errors.ts'
import { HeldLease } from './held-lease.ts'
import type { NounContext } from './noun-context.ts'
import { checkOptions, invalidOption } from './options-check.ts'
import { offsetError } from './outcomes.ts'
import { backoffMs } from './policy/retry.ts'
import { type Handle, TaskRunner } from './task-runner.ts'
import {
  type AnyHandler,
  CLOSE_RULES,
  type CloseOptions,
  DEFAULT_DRAIN_MS,
  DEFAULT_LEASE_MS,
  DEFAULT_TIMEOUT_MS,
  type WorkerPlan,
  type WorkOptions,
} from './worker-options.ts'

const MAX_LEASE_CALLS = 2
const MAX_LEASE_COUNT = 10_000
const LEASE_WAIT_MS = 30_000
/** Handlers that take less than this are leased for ahead. */
const QUICK_MS = 2
/** Ended and not told to the engine, beyond which nothing is leased (invariant 4). */
const MAX_UNSETTLED = 32_768
/** How long a closing worker goes on trying to tell the engine what ended. */
const LAST_SETTLE_MS = 5_000
const BACKOFF = { baseMs: 200, factor: 2, maxMs: 30_000 }
const MIN_PAUSE_MS = 20
/** Microtask rounds after which a turn ends although handlers keep ending. */
const MAX_ROUNDS = 64

type WorkerMode = 'starting' | 'open' | 'draining' | 'releasing' | 'closed'

export class Worker {
  readonly topic: string
  /** '' for the worker of a queue. */
  readonly group: string
  /** Resolves when it takes messages; rejects where it could not be declared. Need not be awaited. */
  readonly ready: Promise<void>
  /** Resolves when it has stopped for good: by `close`, or because the engine did. */
  readonly closed: Promise<void>
  readonly #context: NounContext
  readonly #plan: WorkerPlan
  readonly #concurrency: number
  readonly #leaseMs: number
  readonly #token: string | undefined
  readonly #runner: TaskRunner
  readonly #stopLeasing = new AbortController()
  /** Leases with messages that were not started. */
  readonly #buffer: HeldLease[] = []
  /** How many those are. */
  #buffered = 0
  #mode: WorkerMode = 'starting'
  #leaseCalls = 0
  /** Asked for and not answered. */
  #asked = 0
  #isStarting = false
  #ended = 0
  #seen = 0
  #rounds = 0
  #isTurnSet = false
  #failures = 0
  /** Set while it waits before it asks the engine again. */
  #endPause: (() => void) | null = null
  #isHeldBack = false
  #closing: Promise<void> | null = null
  #onDrained: (() => void) | null = null
  #onClosed: () => void = () => {}

  /** Used by `queue.work()` and `topic.subscribe()`. */
  static start(context: NounContext, plan: WorkerPlan, handler: AnyHandler, options: WorkOptions): Worker {
    if (typeof handler !== 'function') throw invalidOption('the handler', handler, 'a function')
    if (context.isClosed())
      throw new SluiceError('CLOSED', `Sluice is closed: nothing works on '${plan.topic}' any more. Open it again.`)
    return new Worker(context, plan, handler, options)
  }

  private constructor(context: NounContext, plan: WorkerPlan, handler: AnyHandler, options: WorkOptions) {
    const { concurrency = 1, timeoutMs = DEFAULT_TIMEOUT_MS, leaseMs = DEFAULT_LEASE_MS } = options
    this.#context = context
    this.#plan = plan
    this.topic = plan.topic
    this.group = plan.group
    this.#concurrency = concurrency
    this.#leaseMs = leaseMs
    this.#token = context.holder === 'token' ? crypto.randomUUID() : undefined
    const { keepsResults } = plan
    this.#runner = new TaskRunner(context, handler as Handle, { timeoutMs, leaseMs, keepsResults }, this.#buffer, {
      onEnd: () => this.#onEnd(),
      onTold: () => {
        if (this.#isHeldBack) this.#setTurn()
      },
      onFailure: (error) => this.#fail(error),
    })
    this.closed = new Promise((resolve) => {
      this.#onClosed = resolve
    })
    context.workers.add(this)
    this.ready = this.#start()
    this.ready.catch(() => {})
  }

  get mode(): WorkerMode {
    return this.#mode
  }

  /** Handlers at work, those included whose settle waits for room. */
  get running(): number {
    return this.#runner.tasks.size
  }

  /**
   * P12: takes nothing new, lets handlers finish, gives back what does not within `drainMs`. Nothing is lost. Called
   * again, it waits for the same end, which another `drainMs` may bring nearer: it counts from that call.
   */
  close(options: CloseOptions = {}): Promise<void> {
    checkOptions(options, CLOSE_RULES, 'worker.close()')
    if (this.#closing !== null && options.drainMs !== undefined)
      this.#context.host.setTimer(options.drainMs, () => this.#onDrained?.())
    this.#closing ??= this.#close(options.drainMs ?? DEFAULT_DRAIN_MS)
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Asks the engine at once which of the leases it still holds, so that handlers of revoked ones are stopped. */
  checkHolds(): void {
    if (this.running > 0 || this.#buffered > 0) this.#runner.keeper.check()
  }

  // ---- modes

  #setMode(mode: WorkerMode): void {
    this.#mode = mode
    if (mode !== 'closed') return
    this.#runner.keeper.stop()
    this.#endPause?.()
    this.#stopLeasing.abort()
    this.#context.workers.delete(this)
    this.#onDrained?.()
    this.#onClosed()
  }

  async #start(): Promise<void> {
    while (this.#mode === 'starting') {
      try {
        await this.#plan.prepare()
        if (this.#isAt('starting')) {
          this.#setMode('open')
          this.#refill()
          return
        }
      } catch (error) {
        if (!isTransient(error)) {
          this.#fail(error)
          throw error
        }
        this.#context.report(error)
        await this.#pause()
      }
    }
    throw new SluiceError('CLOSED', 'The worker was closed before it had started.')
  }

  async #close(drainMs: number): Promise<void> {
    if (this.#mode === 'closed') return
    this.#setMode('draining')
    this.#stopLeasing.abort()
    this.#endPause?.()
    this.#releaseBuffer()
    await this.#drained(drainMs)
    if (this.#isAt('closed')) return
    this.#setMode('releasing')
    this.#runner.releaseAll(
      new SluiceError('CLOSED', 'The worker was closed before the handler had returned; its message was given back.'),
    )
    await this.#runner.settler.idle(LAST_SETTLE_MS)
    if (!this.#isAt('closed')) this.#setMode('closed')
  }

  #drained(maxMs: number): Promise<void> {
    if (this.running === 0) return Promise.resolve()
    return new Promise((resolve) => {
      const stop = this.#context.host.setTimer(maxMs, resolve)
      this.#onDrained = () => {
        stop()
        resolve()
      }
    })
  }

  /** The mode as it is by now, after a wait. */
  #isAt(mode: WorkerMode): boolean {
    return this.#mode === mode
  }

  /** The engine is gone, or the plan cannot be declared. */
  #fail(error: unknown): void {
    if (this.#isAt('closed')) return
    const reason = error instanceof SluiceError ? error : new SluiceError('ENGINE_FAILED', undefined, {}, error)
    if (reason.code !== 'CLOSED') this.#context.report(error)
    this.#buffer.length = 0
    this.#buffered = 0
    this.#setMode('closed')
    this.#runner.drop(reason)
  }

  // ---- leasing

  #refill(): void {
    const { settler, handlerMs } = this.#runner
    const isQuick = handlerMs >= 0 && handlerMs < QUICK_MS
    const capacity = isQuick ? this.#concurrency * 2 : this.#concurrency
    // With a store to live on, ask for half of it by turns rather than for each message that leaves.
    const least = isQuick ? Math.ceil(this.#concurrency / 2) : 1
    while (this.#mode === 'open' && this.#endPause === null && this.#leaseCalls < MAX_LEASE_CALLS) {
      this.#isHeldBack = settler.isStuck || settler.unsettled > MAX_UNSETTLED
      if (this.#isHeldBack) return
      const room = capacity - this.running - this.#buffered - this.#asked
      if (room < least) return
      this.#lease(Math.min(room, this.#concurrency, MAX_LEASE_COUNT))
    }
  }

  #lease(max: number): void {
    this.#leaseCalls++
    this.#asked += max
    const { topic, group } = this
    const holder =
      this.#token === undefined ? ({ kind: 'process' } as const) : ({ kind: 'token', token: this.#token } as const)
    this.#context.engine
      .lease({ topic, group, max, leaseMs: this.#leaseMs, waitMs: LEASE_WAIT_MS, holder }, this.#stopLeasing.signal)
      .then(
        (outcome) => {
          this.#leaseCalls--
          this.#asked -= max
          this.#takeLease(outcome)
        },
        (error: unknown) => {
          this.#leaseCalls--
          this.#asked -= max
          if (this.#mode !== 'open') return
          if (!isTransient(error)) return this.#fail(error)
          this.#context.report(error)
          void this.#retreat()
        },
      )
  }

  #takeLease(outcome: LeaseOutcome): void {
    switch (outcome.status) {
      case 'leased': {
        this.#failures = 0
        if (outcome.offsets.length === 0) break
        const lease = new HeldLease(
          this.topic,
          this.group,
          this.#token,
          this.#leaseMs,
          this.#context.host.now(),
          outcome,
        )
        this.#buffer.push(lease)
        this.#buffered += lease.offsets.length
        if (this.#mode === 'open') this.#runner.keeper.adopt(lease)
        if (this.#mode === 'open') this.#startBuffered()
        else this.#releaseBuffer()
        break
      }
      case 'empty':
        this.#failures = 0
        break
      case 'truncated':
      case 'out-of-range':
        // P2: the group was detached. It is said where the gap is; the next lease goes on behind it.
        this.#context.report(offsetError(this.topic, outcome))
        break
      case 'not-found':
        this.#plan.forget()
        if (this.#mode === 'open') void this.#retreat()
        return
    }
    this.#setTurn()
  }

  /** Asks again after a pause, declared anew where that is needed. */
  async #retreat(): Promise<void> {
    if (this.#endPause !== null) return
    await this.#pause()
    try {
      await this.#plan.prepare()
      this.#refill()
    } catch (error) {
      if (!isTransient(error)) return this.#fail(error)
      this.#context.report(error)
      void this.#retreat()
    }
  }

  /** Waits for a time that grows with each failure in a row, or until the worker closes. */
  #pause(): Promise<void> {
    this.#failures++
    const ms = Math.max(MIN_PAUSE_MS, backoffMs(BACKOFF, this.#failures, this.#context.host.random()))
    return new Promise((resolve) => {
      const end = (): void => {
        stop()
        this.#endPause = null
        resolve()
      }
      const stop = this.#context.host.setTimer(ms, end)
      this.#endPause = end
    })
  }

  /** Gives back what was not started: the attempts do not count. */
  #releaseBuffer(): void {
    for (const lease of this.#buffer.splice(0)) {
      const offsets = lease.unstarted()
      if (offsets.length > 0)
        this.#runner.settler.end({ lease, offsets, outcome: { kind: 'release' }, outputs: [], onOutcome: null })
    }
    this.#buffered = 0
    this.#runner.flush()
  }

  // ---- turns

  #startBuffered(): void {
    // A handler that answers at once ends inside this loop, which goes on by itself.
    if (this.#isStarting || this.#buffered === 0) return
    this.#isStarting = true
    const { host } = this.#context
    try {
      this.#runner.keeper.start()
      while (this.#buffered > 0 && this.running < this.#concurrency && this.#mode === 'open') {
        const lease = this.#buffer[0] as HeldLease
        const index = lease.next++
        this.#buffered--
        if (lease.next === lease.offsets.length) this.#buffer.shift()
        if (lease.isLost(lease.offsets[index] as number)) continue
        this.#runner.run(lease, index, this.#plan.makeMessage(lease, index), host.now())
      }
    } finally {
      this.#isStarting = false
    }
  }

  #onEnd(): void {
    this.#ended++
    this.#startBuffered()
    this.#setTurn()
    if (this.running === 0 && this.#mode === 'draining') this.#onDrained?.()
  }

  #setTurn(): void {
    if (this.#isTurnSet) return
    this.#isTurnSet = true
    this.#seen = -1
    this.#rounds = 0
    queueMicrotask(this.#onMicrotask)
  }

  /** Settles and leases leave together, once a round of microtasks ended no handler: they share a commit. */
  readonly #onMicrotask = (): void => {
    if (this.#seen !== this.#ended && this.#rounds < MAX_ROUNDS) {
      this.#seen = this.#ended
      this.#rounds++
      queueMicrotask(this.#onMicrotask)
      return
    }
    this.#isTurnSet = false
    this.#runner.flush()
    this.#refill()
  }
}
