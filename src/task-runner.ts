/**
 * Runs the handlers of one worker and settles each message as its handler ends (`task.ts` has the states).
 *
 * On the path of every message: a handler that returns nothing and published nothing costs an entry in an array of
 * offsets; what is more is paid for by those that need it.
 */
import type { AppendOutcome, FullOutcome, Settlement } from './engine/contract.ts'
import { SluiceError } from './errors.ts'
import type { HandlerContext } from './handler-context.ts'
import { describeError, RetryLater, Unrecoverable } from './handler-errors.ts'
import type { HeldLease } from './held-lease.ts'
import { HoldKeeper } from './hold-keeper.ts'
import type { Message } from './message.ts'
import type { NounContext } from './noun-context.ts'
import type { Output } from './outputs.ts'
import { checkPayloadBytes, encodeJson } from './payload.ts'
import { Settler } from './settler.ts'
import { Task } from './task.ts'
import { traceHandling } from './tracing.ts'

/** Weight of the newest sample in the smoothed time of a handler. */
const SMOOTHING = 0.2

export interface RunnerOptions {
  readonly timeoutMs: number
  readonly leaseMs: number
  /** Whether what handlers return is kept. */
  readonly keepsResults: boolean
}

export interface RunnerHooks {
  /** A task has ended and its place is free. */
  onEnd(): void
  /** The engine knows of more ends. */
  onTold(): void
  /** The engine cannot be told any more. */
  onFailure(error: unknown): void
}

export type Handle = (message: Message, context: HandlerContext) => unknown

export class TaskRunner {
  /** Handlers at work, in the order in which they started. One that timed out is not: it may never return. */
  readonly tasks = new Set<Task>()
  readonly keeper: HoldKeeper
  readonly settler: Settler
  /** How long handlers take, smoothed; -1: not known yet. */
  handlerMs = -1
  readonly #context: NounContext
  readonly #handle: Handle
  readonly #options: RunnerOptions
  readonly #hooks: RunnerHooks
  #isSampled = false

  /** `buffer` has the leases with messages that were not started. */
  constructor(
    context: NounContext,
    handle: Handle,
    options: RunnerOptions,
    buffer: readonly HeldLease[],
    hooks: RunnerHooks,
  ) {
    this.#context = context
    this.#handle = handle
    this.#options = options
    this.#hooks = hooks
    this.settler = new Settler(context.engine, context.host, hooks)
    this.keeper = new HoldKeeper(context, options, this.tasks, buffer, {
      onTimeout: (task) => this.#timeOut(task),
      onFailure: (error) => hooks.onFailure(error),
    })
  }

  run(lease: HeldLease, index: number, message: Message, nowMs: number): void {
    const task = new Task(this.#context, lease, index, message, nowMs)
    this.tasks.add(task)
    let returned: unknown
    try {
      const span = traceHandling(task)
      task.span = span
      returned = span === null ? this.#handle(message, task) : span.run(() => this.#handle(message, task))
      // What a handler returns may throw when it is looked at, which is the handler's failure as well.
      if (isThenable(returned)) {
        const promise = returned instanceof Promise ? returned : Promise.resolve(returned)
        promise.then(
          (value: unknown) => this.#onReturn(task, value),
          (error: unknown) => this.#onThrow(task, error),
        )
        return
      }
    } catch (error) {
      this.#onThrow(task, error)
      return
    }
    this.#onReturn(task, returned)
  }

  /** Tells the engine what has ended. The next end is a sample again: one for each turn is enough. */
  flush(): void {
    this.#isSampled = false
    this.settler.flush()
  }

  /** Gives back what is still held (P12): the attempts do not count, and handlers are told to stop. */
  releaseAll(reason: SluiceError): void {
    for (const task of [...this.tasks]) {
      task.abort(reason)
      if (task.isLost) this.#forget(task)
      else this.#end(task, { kind: 'release' })
    }
  }

  /** The engine is gone: handlers are told to stop, nothing can be settled. */
  drop(reason: SluiceError): void {
    this.keeper.stop()
    for (const task of [...this.tasks]) {
      task.abort(reason)
      this.#forget(task)
    }
  }

  // ---- the ends of a handler

  #onReturn(task: Task, value: unknown): void {
    if (task.mode !== 'running') return
    if (task.isLost) {
      this.#forget(task)
      return
    }
    const hasResult = value !== undefined && this.#options.keepsResults
    if (!hasResult && !task.hasOutputs) {
      this.settler.done(task.lease, task.offset)
      this.#forget(task)
      return
    }
    let result: string | undefined
    try {
      if (hasResult) {
        result = encodeJson(value, 'The result')
        checkPayloadBytes(result, this.#context.maxPayloadBytes, 'The result')
      }
    } catch (error) {
      // The work was done. Another attempt would do it again and return the same.
      this.#end(task, { kind: 'dead', error: describeError(error) })
      return
    }
    if (!task.hasOutputs) {
      this.#end(task, { kind: 'done', result })
      return
    }
    task.mode = 'gathering'
    task.outputs().then(
      (outputs) => {
        if (task.mode !== 'gathering') return
        task.mode = 'settling'
        this.#settleWith(task, result, outputs)
      },
      (error: unknown) => {
        if (task.mode === 'gathering') this.#fail(task, error)
      },
    )
  }

  #onThrow(task: Task, error: unknown): void {
    if (task.mode === 'running') this.#fail(task, error)
  }

  #fail(task: Task, error: unknown): void {
    if (task.isLost) this.#forget(task)
    else this.#end(task, this.#failureOf(error))
  }

  /** How an attempt ends whose handler threw this. Never throws: a revoked Proxy does, whatever it is asked. */
  #failureOf(error: unknown): Settlement {
    const text = describeError(error)
    try {
      if (error instanceof Unrecoverable) return { kind: 'dead', error: text }
      if (error instanceof RetryLater && Number.isFinite(error.delayMs))
        return { kind: 'retry', error: text, atMs: this.#context.engineNow() + error.delayMs }
    } catch {
      // It is none of the two.
    }
    return { kind: 'retry', error: text }
  }

  #timeOut(task: Task): void {
    const { timeoutMs } = this.#options
    const what =
      task.mode === 'running'
        ? 'The handler ran longer than timeoutMs'
        : 'What the handler published was not ready within timeoutMs'
    const error = new SluiceError('HANDLER_TIMEOUT', `${what}, ${timeoutMs} ms.`, { timeoutMs })
    task.abort(error)
    if (task.isLost) this.#forget(task)
    else this.#end(task, { kind: 'retry', error: describeError(error) })
  }

  // ---- settling

  #end(task: Task, outcome: Settlement): void {
    if (task.span !== null && 'error' in outcome) task.span.fail(outcome.error)
    this.settler.end({ lease: task.lease, offsets: [task.offset], outcome, outputs: [], onOutcome: null })
    this.#forget(task)
  }

  /** P9: outputs and settle in one step. Where an output finds no room nothing took effect, and it is tried again. */
  #settleWith(task: Task, result: string | undefined, outputs: readonly Output[]): void {
    if (task.mode !== 'settling') return
    this.settler.end({
      lease: task.lease,
      offsets: [task.offset],
      outcome: { kind: 'done', result },
      outputs,
      onOutcome: (outcome) => {
        if (task.mode !== 'settling') return
        if (outcome.status === 'full') {
          this.#settleLater(task, result, outputs, outcome)
          return
        }
        if (outcome.status === 'settled') this.#reportOutputs(task, outcome.outputs)
        this.#forget(task)
      },
    })
    this.#hooks.onEnd()
  }

  #settleLater(task: Task, result: string | undefined, outputs: readonly Output[], full: FullOutcome): void {
    const { host } = this.#context
    const leftMs = task.startedAtMs + this.#options.timeoutMs - host.now()
    if (leftMs <= 0) {
      const targets = [...new Set(outputs.map(({ topic }) => `'${topic}'`))].join(', ')
      const text = `What the handler published to ${targets} found no room within timeoutMs: ${full.depth} ${full.reason}, and the limit is ${full.limit}.`
      const error = new SluiceError(full.reason === 'disk' ? 'DISK_FULL' : 'QUEUE_FULL', text)
      this.#end(task, { kind: 'retry', error: describeError(error) })
      return
    }
    task.stopWaiting = host.setTimer(Math.min(full.retryAfterMs, leftMs), () => {
      task.stopWaiting = null
      this.#settleWith(task, result, outputs)
      this.flush()
    })
  }

  /** The settle took effect; an output of which the engine knows another payload or no target did not. */
  #reportOutputs(task: Task, outcomes: readonly AppendOutcome[]): void {
    for (const outcome of outcomes) {
      const isRefused =
        outcome.status === 'not-found' ||
        (outcome.status === 'mixed' && outcome.outcomes.some((one) => one.status === 'mismatch'))
      if (!isRefused) continue
      const what =
        outcome.status === 'not-found'
          ? 'its queue or topic is gone'
          : 'its idempotency key was used with another payload'
      const text = `A message that the handler of offset ${task.offset} of '${task.message.topic}' published was not stored: ${what}.`
      this.#context.report(
        new SluiceError(outcome.status === 'not-found' ? 'TOPIC_NOT_FOUND' : 'IDEMPOTENCY_MISMATCH', text),
      )
    }
  }

  /** The task is over, whether or not its handler is. */
  #forget(task: Task): void {
    task.mode = 'over'
    task.span?.end()
    task.stopWaiting?.()
    this.tasks.delete(task)
    if (!this.#isSampled) {
      this.#isSampled = true
      const ms = this.#context.host.now() - task.startedAtMs
      this.handlerMs = this.handlerMs < 0 ? ms : this.handlerMs + (ms - this.handlerMs) * SMOOTHING
    }
    this.#hooks.onEnd()
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return (
    value instanceof Promise ||
    (typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function')
  )
}
