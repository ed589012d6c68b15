/**
 * A task: one handler at work on one message, and the second argument that it gets. There is one for each message, so
 * it makes nothing that the handler does not ask for: the signal, and the functions, are made when they are read, which
 * destructuring does.
 *
 *     running --returned or threw--> settling --settled--> over
 *        |                              (outputs wait for the settle; a full queue makes it wait)
 *        +--timed out, released--> over, while the handler still runs: nothing that it does has an effect any more
 *
 * `lost` is apart from these: the lease was revoked (cancel, seek, expiry). The signal aborts, the task keeps its place
 * among the running until the handler returns, and nothing is settled.
 */
import type { CommandOutcome, Hold } from './engine/contract.ts'
import { SluiceError } from './errors.ts'
import { type Feed, feedOf, type MessageOptions } from './feed.ts'
import type { HeldLease } from './held-lease.ts'
import type { Message } from './message.ts'
import type { NounContext } from './noun-context.ts'
import { invalidOption, text } from './options-check.ts'
import type { Output } from './outputs.ts'
import { checkPayloadBytes, encodeJson } from './payload.ts'
import type { Priority } from './message-batch.ts'

const PROGRESS_INTERVAL_MS = 200
const MAX_PROGRESS_BYTES = 4_096
const MAX_OUTPUTS = 10_000
const ONCE_NAME = text(256)

/** Options of a message that a handler publishes. Those below `idempotencyKey` are for queues. */
export interface OutputOptions extends Omit<MessageOptions, 'fullWaitMs'> {
  /** See `AddOptions`. */
  readonly delayMs?: number | undefined
  readonly priority?: Priority | undefined
  readonly deadlineMs?: number | undefined
}

/** What a handler gets beside its message. Take what is needed by destructuring: `async (job, { signal }) => …`. */
export interface HandlerContext {
  /**
   * Aborts when the handler should stop: it ran for `timeoutMs` (`HANDLER_TIMEOUT`), its lease was lost, for example by
   * `cancel` (`LEASE_LOST`), or the worker closes and its drain time is over (`CLOSED`). The reason is the error.
   */
  readonly signal: AbortSignal
  /**
   * The number of this hold on the message. It only rises (P5): a store that remembers the highest fence it has seen
   * and refuses lower ones is safe from a handler that outlived its lease.
   */
  readonly fence: number
  /** 1 for the first delivery. */
  readonly attempt: number
  /**
   * Shows how far the job is: any JSON value of at most 4,096 bytes. Sent at most five times a second, the latest value
   * wins; kept in memory only, while the job runs.
   */
  readonly progress: (value: unknown) => void
  /**
   * Publishes to a queue or topic of the same Sluice, by noun or name, in the very step that completes this message:
   * both take effect, or neither (P9). Where the target is full, the settle waits for room within `timeoutMs`. Awaiting
   * it tells of a refused option or payload; unawaited, such a refusal fails the attempt. At most 10,000 messages.
   */
  readonly publish: (target: object | string, payload: unknown, options?: OutputOptions) => Promise<void>
  /**
   * Runs `effect` and keeps what it returns (as JSON) under this message and `name`, so that a later attempt gets that
   * value and does not run it again. It does run again if the process died after the effect and before the record, or
   * if the lease was lost meanwhile: make the effect itself idempotent where that matters (P9).
   */
  readonly once: <T>(name: string, effect: () => T | Promise<T>) => Promise<T>
}

export type TaskMode = 'running' | 'settling' | 'over'

export class Task implements HandlerContext {
  readonly lease: HeldLease
  readonly offset: number
  readonly attempt: number
  readonly message: Message
  readonly startedAtMs: number
  mode: TaskMode = 'running'
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
    this.abort(new SluiceError('LEASE_LOST', `The lease on offset ${this.offset} of '${this.message.topic}' was revoked: cancelled, moved or expired.`))
  }

  hold(): Hold {
    return this.lease.holdOf([this.offset])
  }

  #extra(): TaskExtras {
    this.#extras ??= new TaskExtras(this, this.#context)
    return this.#extras
  }
}

/** The functions of the context, and what they keep. */
class TaskExtras {
  readonly #task: Task
  readonly #context: NounContext
  #outputs: (Output | null)[] = []
  #publishing: Promise<void>[] = []
  readonly #onces = new Map<string, Promise<unknown>>()
  #progress: string | null = null
  #progressSentAtMs = 0
  #stopProgress: (() => void) | null = null

  constructor(task: Task, context: NounContext) {
    this.#task = task
    this.#context = context
  }

  get hasOutputs(): boolean {
    return this.#publishing.length > 0
  }

  async outputs(): Promise<readonly Output[]> {
    await Promise.all(this.#publishing)
    return this.#outputs.filter((output) => output !== null)
  }

  // ---- progress

  readonly progress = (value: unknown): void => {
    const json = encodeJson(value, 'The progress')
    const bytes = Buffer.byteLength(json)
    if (bytes > MAX_PROGRESS_BYTES) throw invalidOption('progress', value, `at most ${MAX_PROGRESS_BYTES} bytes as JSON, not ${bytes}`)
    this.#progress = json
    if (this.#stopProgress !== null) return
    const { host } = this.#context
    const waitMs = this.#progressSentAtMs + PROGRESS_INTERVAL_MS - host.now()
    if (waitMs > 0) this.#stopProgress = host.setTimer(waitMs, this.#sendProgress)
    else this.#sendProgress()
  }

  readonly #sendProgress = (): void => {
    this.#stopProgress = null
    const { engine, host } = this.#context
    if (this.#task.mode !== 'running' || this.#task.isLost || this.#progress === null) return
    this.#progressSentAtMs = host.now()
    const progress = this.#progress
    this.#progress = null
    engine.extend([{ ...this.#task.hold(), leaseMs: 0, progress }]).then(
      ([outcome]) => {
        if (outcome?.status === 'extended' && outcome.lost.length > 0 && this.#task.mode === 'running') this.#task.lose()
      },
      () => {
        // Progress is a courtesy: what ails the engine is told by the next lease or settle.
      },
    )
  }

  // ---- publish

  readonly publish = (target: object | string, payload: unknown, options?: OutputOptions): Promise<void> => {
    const at = this.#outputs.push(null) - 1
    const publishing = this.#makeOutput(target, payload, options).then((output) => {
      this.#outputs[at] = output
    })
    this.#publishing.push(publishing)
    // The handler need not await it: a refusal is met again when the attempt is settled.
    publishing.catch(() => {})
    return publishing
  }

  async #makeOutput(target: object | string, payload: unknown, options: OutputOptions | undefined): Promise<Output> {
    this.#assertRunning('publish()')
    if (this.#outputs.length > MAX_OUTPUTS) {
      throw new SluiceError('PAYLOAD_TOO_LARGE', `A handler published more than ${MAX_OUTPUTS} messages. Publish in several jobs.`)
    }
    return this.#findFeed(target).makeOutput(payload, options)
  }

  #findFeed(target: object | string): Feed<unknown> {
    const noun = typeof target === 'string' ? this.#context.findNoun(target) : target
    const feed = typeof noun === 'object' && noun !== null ? feedOf(noun) : undefined
    if (feed?.belongsTo(this.#context) === true) return feed
    if (typeof target !== 'string') throw invalidOption('target', target, 'a queue or topic of the same Sluice, or the name of one')
    throw new SluiceError(
      'TOPIC_NOT_FOUND',
      `publish('${target}'): no queue or topic of this name was made here. Pass sluice.queue('${target}') or sluice.topic('${target}').`,
      { topic: target },
    )
  }

  // ---- once

  readonly once = <T>(name: string, effect: () => T | Promise<T>): Promise<T> => {
    const known = this.#onces.get(name)
    if (known !== undefined) return known as Promise<T>
    const running = this.#runOnce(name, effect)
    this.#onces.set(name, running)
    // After a failure the handler may try again in the same attempt.
    running.catch(() => this.#onces.delete(name))
    return running
  }

  async #runOnce<T>(name: string, effect: () => T | Promise<T>): Promise<T> {
    ONCE_NAME(name, 'the name given to once()')
    this.#assertRunning('once()')
    const { engine, maxPayloadBytes } = this.#context
    const hold = this.#task.hold()
    const known = this.#checkHeld(await engine.command({ kind: 'recall', hold, name }))
    if (known.status === 'done' && known.value !== undefined) return readKept<T>(known.value)
    const value = await effect()
    const kept = value === undefined ? '' : encodeJson(value, 'What once() is to keep')
    checkPayloadBytes(kept, maxPayloadBytes, 'What once() is to keep')
    for (;;) {
      const outcome = this.#checkHeld(await engine.command({ kind: 'remember', hold, name, value: kept }))
      if (outcome.status === 'done') return readKept<T>(kept)
      // The effect has happened: giving up before the attempt ends would only run it again.
      await this.#wait('retryAfterMs' in outcome ? outcome.retryAfterMs : PROGRESS_INTERVAL_MS)
    }
  }

  #checkHeld(outcome: CommandOutcome): CommandOutcome {
    if (outcome.status !== 'lost' && outcome.status !== 'not-found') return outcome
    this.#task.lose()
    return this.#task.signal.reason === undefined ? outcome : throwIt(this.#task.signal.reason)
  }

  #wait(ms: number): Promise<void> {
    const { signal } = this.#task
    return new Promise((resolve, reject) => {
      const end = (): void => {
        stop()
        reject(signal.reason)
      }
      const stop = this.#context.host.setTimer(ms, () => {
        signal.removeEventListener('abort', end)
        resolve()
      })
      if (signal.aborted) end()
      else signal.addEventListener('abort', end, { once: true })
    })
  }

  #assertRunning(what: string): void {
    if (this.#task.mode === 'running' && !this.#task.isLost) return
    throw new SluiceError('LEASE_LOST', `${what} came after the attempt had ended; it has no effect.`)
  }
}

/** '' stands for undefined, which JSON has no word for. */
function readKept<T>(kept: string): T {
  return (kept === '' ? undefined : JSON.parse(kept)) as T
}

function throwIt(error: unknown): never {
  throw error
}
