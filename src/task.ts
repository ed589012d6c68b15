/**
 * A task: one handler at work on one message, and the second argument that it gets. There is one for each message, so
 * it makes nothing that the handler does not ask for: the signal, and the functions, are made when they are read, which
 * destructuring does.
 *
 *     running --returned or threw--> gathering --outputs are ready--> settling --settled--> over
 *        |                              |          (outputs wait for the settle; a full queue makes it wait)
 *        +--timed out, released---------+--> over, while the handler still runs: nothing it does has an effect any more
 *
 * `lost` is apart from these: the lease was revoked (cancel, seek, expiry). The signal aborts, the task keeps its place
 * among the running until the handler returns, and nothing is settled.
 */
import type { Hold } from './engine/contract.ts'
import { SluiceError } from './errors.ts'
import type { HandlerContext } from './handler-context.ts'
import type { HeldLease } from './held-lease.ts'
import type { Message } from './message.ts'
import type { NounContext } from './noun-context.ts'
import type { Output } from './outputs.ts'
import { TaskExtras } from './task-extras.ts'
import type { HandlingSpan } from './tracing.ts'

export type TaskMode = 'running' | 'gathering' | 'settling' | 'over'

export class Task implements HandlerContext {
  readonly lease: HeldLease
  readonly offset: number
  readonly attempt: number
  readonly message: Message
  readonly startedAtMs: number
  mode: TaskMode = 'running'
  /** Set where an SDK for traces is registered. */
  span: HandlingSpan | null = null
  /** Set while its settle waits for room. */
  stopWaiting: (() => void) | null = null
  readonly #context: NounContext
  #controller: AbortController | null = null
  #abortReason: SluiceError | null = null
  /** What few handlers use, made with the first use. */
  #extras: TaskExtras | null = null

  constructor(context: NounContext, lease: HeldLease, index: number, message: Message, startedAtMs: number) {
    this.#context = context
    this.lease = lease
    this.offset = lease.offsets[index] as number
    this.attempt = lease.attempts[index] as number
    this.message = message
    this.startedAtMs = startedAtMs
  }

  get signal(): AbortSignal {
    if (this.#controller === null) {
      this.#controller = new AbortController()
      if (this.#abortReason !== null) this.#controller.abort(this.#abortReason)
    }
    return this.#controller.signal
  }

  get fence(): number {
    return this.lease.fence
  }

  get progress(): HandlerContext['progress'] {
    return this.#extra().progress
  }

  get publish(): HandlerContext['publish'] {
    return this.#extra().publish
  }

  get once(): HandlerContext['once'] {
    return this.#extra().once
  }

  /** Whether it can time out: what it waits for is the handler's doing. */
  get isTimed(): boolean {
    return this.mode === 'running' || this.mode === 'gathering'
  }

  /** Whether the lease was revoked. */
  get isLost(): boolean {
    return this.lease.isLost(this.offset)
  }

  get hasOutputs(): boolean {
    return this.#extras?.hasOutputs === true
  }

  /** What the handler published, once all of it is ready. Rejects where some was refused. */
  outputs(): Promise<readonly Output[]> {
    return this.#extras?.outputs() ?? Promise.resolve([])
  }

  abort(reason: SluiceError): void {
    if (this.#abortReason !== null) return
    this.#abortReason = reason
    this.#controller?.abort(reason)
  }

  /** The lease was revoked. */
  lose(): void {
    this.lease.markLost(this.offset)
    this.abort(
      new SluiceError(
        'LEASE_LOST',
        `The lease on offset ${this.offset} of '${this.message.topic}' was revoked: cancelled, moved or expired.`,
      ),
    )
  }

  hold(): Hold {
    return this.lease.holdOf([this.offset])
  }

  #extra(): TaskExtras {
    this.#extras ??= new TaskExtras(this, this.#context)
    return this.#extras
  }
}
