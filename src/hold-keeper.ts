/**
 * Looks after what a worker holds: extends leases that are held by a token, finds out which were revoked, and ends
 * attempts that ran too long.
 *
 * One timer for all tasks, set while there are some. They start in order and have the same time-out, so the oldest is
 * due first and none needs a timer of its own. A lease held by the process lasts as long as the process; asking after
 * it only tells whether it was revoked, so that is done every few seconds, and only for tasks that run for that long.
 *
 * What this timer misses, since a handler blocks the thread, the heart does (lease-heart.ts), where there is one. It is
 * told here how long it may.
 */
import type { ExtendOutcome, ExtendRequest } from './engine/contract.ts'
import { isTransient } from './errors.ts'
import type { HeldLease } from './held-lease.ts'
import type { NounContext } from './noun-context.ts'
import type { Task } from './task.ts'

/** How often a lease held by the process is asked after. */
const CHECK_MS = 5_000
/** Extensions within one lease time, so that two may fail. */
const EXTENDS_PER_LEASE = 3

/** What the keeper tells its worker. */
export interface KeeperHooks {
  /** The attempt is over, whatever its handler does. */
  onTimeout(task: Task): void
  onFailure(error: unknown): void
}

export class HoldKeeper {
  readonly #context: NounContext
  readonly #leaseMs: number
  readonly #timeoutMs: number
  readonly #tasks: ReadonlySet<Task>
  readonly #buffer: readonly HeldLease[]
  readonly #hooks: KeeperHooks
  readonly #keepMs: number
  /** Leases that the heart keeps. */
  readonly #beating = new Set<HeldLease>()
  #nextKeepAtMs = 0
  #stopTimer: (() => void) | null = null
  #isAsking = false
  #asksAgain = false

  constructor(
    context: NounContext,
    times: { readonly leaseMs: number; readonly timeoutMs: number },
    tasks: ReadonlySet<Task>,
    buffer: readonly HeldLease[],
    hooks: KeeperHooks,
  ) {
    this.#context = context
    this.#leaseMs = times.leaseMs
    this.#timeoutMs = times.timeoutMs
    this.#tasks = tasks
    this.#buffer = buffer
    this.#hooks = hooks
    this.#keepMs = context.holder === 'token' ? Math.floor(times.leaseMs / EXTENDS_PER_LEASE) : CHECK_MS
  }

  /** There is something to look after. */
  start(): void {
    if (this.#stopTimer !== null) return
    const nowMs = this.#context.host.now()
    this.#nextKeepAtMs = nowMs + this.#keepMs
    this.#setTimer(nowMs)
  }

  stop(): void {
    this.#stopTimer?.()
    this.#stopTimer = null
    for (const { beat } of this.#beating) beat?.drop()
    this.#beating.clear()
  }

  /** Asks at once whether everything that is held still is. */
  check(): void {
    if (this.#isAsking) this.#asksAgain = true
    else this.#ask(Number.POSITIVE_INFINITY, true)
  }

  readonly #onTimer = (): void => {
    this.#stopTimer = null
    const now = this.#context.host.now()
    for (const task of this.#tasks) {
      if (task.startedAtMs + this.#timeoutMs > now) break
      if (task.isTimed) this.#hooks.onTimeout(task)
    }
    const isToken = this.#context.holder === 'token'
    if (isToken) {
      this.#loseExpired(now)
      this.#keepBeating(now)
    }
    if (now >= this.#nextKeepAtMs) {
      this.#nextKeepAtMs = now + this.#keepMs
      if (!this.#isAsking) this.#ask(isToken ? now : now - this.#keepMs, isToken)
    }
    if (this.#tasks.size > 0 || (isToken && this.#buffer.length > 0)) this.#setTimer(now)
  }

  #setTimer(nowMs: number): void {
    let dueMs = this.#nextKeepAtMs
    for (const task of this.#tasks) {
      if (!task.isTimed) continue
      dueMs = Math.min(dueMs, task.startedAtMs + this.#timeoutMs)
      break
    }
    if (this.#tasks.size === 0) dueMs = Math.min(dueMs, nowMs + this.#timeoutMs)
    this.#stopTimer = this.#context.host.setTimer(Math.max(0, dueMs - nowMs), this.#onTimer)
  }

  /** Extends what was started up to `startedUntilMs`, and what is not started yet. */
  #ask(startedUntilMs: number, withUnstarted: boolean): void {
    const offsets = new Map<HeldLease, number[]>()
    if (withUnstarted) for (const lease of this.#buffer) offsets.set(lease, lease.unstarted())
    for (const task of this.#tasks) {
      if (task.startedAtMs > startedUntilMs) break
      if (task.isLost) continue
      const known = offsets.get(task.lease)
      if (known === undefined) offsets.set(task.lease, [task.offset])
      else known.push(task.offset)
    }
    const leases = [...offsets.keys()].filter((lease) => (offsets.get(lease) as number[]).length > 0)
    if (leases.length === 0) return
    this.#isAsking = true
    const heldUntilMs = this.#context.host.now() + this.#leaseMs
    const requests: ExtendRequest[] = leases.map((lease) => ({
      ...lease.holdOf(offsets.get(lease) as number[]),
      leaseMs: this.#leaseMs,
    }))
    this.#context.engine.extend(requests).then(
      (outcomes) => {
        this.#isAsking = false
        for (let i = 0; i < leases.length; i++) {
          const lease = leases[i] as HeldLease
          lease.heldUntilMs = heldUntilMs
          lease.beat?.noteHeld(heldUntilMs - this.#context.host.now())
          this.#take(lease, requests[i] as ExtendRequest, outcomes[i] as ExtendOutcome)
        }
        if (!this.#asksAgain) return
        this.#asksAgain = false
        this.check()
      },
      (error: unknown) => {
        this.#isAsking = false
        // One that may pass is tried again with the next turn; leases outlast two of them.
        if (!isTransient(error)) this.#hooks.onFailure(error)
      },
    )
  }

  /** A lease may be given to the heart before its handlers start. */
  adopt(lease: HeldLease): void {
    const { heart, host } = this.#context
    if (heart === null) return
    lease.beat = heart.keep(lease.holdOf(lease.offsets), this.#leaseMs, this.#timeoutMs)
    lease.keptUntilMs = host.now() + this.#timeoutMs
    if (lease.beat !== null) this.#beating.add(lease)
  }

  /** Tells the heart until when handlers may still run, and forgets what nobody works on any more. */
  #keepBeating(nowMs: number): void {
    if (this.#beating.size === 0) return
    const untilMs = new Map<HeldLease, number>()
    for (const lease of this.#buffer) untilMs.set(lease, nowMs + this.#timeoutMs)
    for (const task of this.#tasks) {
      const dueMs = task.isTimed ? task.startedAtMs + this.#timeoutMs : nowMs + this.#timeoutMs
      untilMs.set(task.lease, Math.max(untilMs.get(task.lease) ?? 0, dueMs))
    }
    for (const lease of this.#beating) {
      const wantedMs = untilMs.get(lease)
      if (lease.beat === null) this.#beating.delete(lease)
      else if (wantedMs === undefined) {
        // Its handlers are over: what is still to be settled is sent as soon as it can be.
        if (!lease.isOver(nowMs)) continue
        lease.beat.drop()
        lease.beat = null
        this.#beating.delete(lease)
      } else if (wantedMs !== lease.keptUntilMs) {
        lease.keptUntilMs = wantedMs
        lease.beat.keepFor(wantedMs - nowMs)
      }
    }
  }

  /** What could not be extended in time is another worker's by now, whether or not the engine can be asked. */
  #loseExpired(nowMs: number): void {
    for (const task of this.#tasks) if (task.lease.isOver(nowMs) && !task.isLost) task.lose()
    for (const lease of this.#buffer) {
      if (lease.isOver(nowMs)) for (const offset of lease.unstarted()) lease.markLost(offset)
    }
  }

  #take(lease: HeldLease, request: ExtendRequest, outcome: ExtendOutcome): void {
    const lost = outcome.status === 'extended' ? outcome.lost : request.offsets
    if (lost.length === 0) return
    for (const offset of lost) lease.markLost(offset)
    for (const task of this.#tasks) if (task.lease === lease && task.isLost) task.lose()
  }
}
