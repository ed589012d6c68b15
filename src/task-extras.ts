/** The functions of a handler's context, and what they keep: made for a task whose handler reads one of them. */
import type { CommandOutcome } from './engine/contract.ts'
import { SluiceError } from './errors.ts'
import { feedOf, type OutputFeed } from './feed.ts'
import type { OutputOptions } from './handler-context.ts'
import type { NounContext } from './noun-context.ts'
import { invalidOption, text } from './options-check.ts'
import type { Output } from './outputs.ts'
import { checkPayloadBytes, encodeJson } from './payload.ts'
import type { Task } from './task.ts'

const PROGRESS_INTERVAL_MS = 200
const MAX_PROGRESS_BYTES = 4_096
const MAX_OUTPUTS = 10_000
const ONCE_NAME = text(256)

export class TaskExtras {
  readonly #task: Task
  readonly #context: NounContext
  #outputs: (Output | null)[] = []
  #publishing: Promise<void>[] = []
  readonly #onces = new Map<string, Promise<unknown>>()
  #progress: string | null = null
  #progressSentAtMs = 0
  #hasWarned = false
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
    this.#progress = bytes > MAX_PROGRESS_BYTES ? cutProgress(typeof value === 'string' ? value : json) : json
    if (bytes > MAX_PROGRESS_BYTES) this.#warnOfProgress(bytes)
    if (this.#stopProgress !== null) return
    const { host } = this.#context
    const waitMs = this.#progressSentAtMs + PROGRESS_INTERVAL_MS - host.now()
    if (waitMs > 0) this.#stopProgress = host.setTimer(waitMs, this.#sendProgress)
    else this.#sendProgress()
  }

  /** A courtesy that is too large must not fail the work. */
  #warnOfProgress(bytes: number): void {
    if (this.#hasWarned) return
    this.#hasWarned = true
    const { topic, offset } = this.#task.message
    const message = `The progress of the message at offset ${offset} of '${topic}' has ${bytes} bytes, and ${MAX_PROGRESS_BYTES} are shown: it is cut off. Report less.`
    this.#context.report(new SluiceError('PAYLOAD_TOO_LARGE', message, { topic, offset, bytes }))
  }

  readonly #sendProgress = (): void => {
    this.#stopProgress = null
    const { engine, host } = this.#context
    if (this.#task.mode !== 'running' || this.#task.isLost || this.#progress === null) return
    this.#progressSentAtMs = host.now()
    const progress = this.#progress
    this.#progress = null
    engine.extend([{ ...this.#task.hold(), leaseMs: this.#task.lease.leaseMs, progress }]).then(
      ([outcome]) => {
        if (outcome?.status === 'extended' && outcome.lost.length > 0 && this.#task.mode === 'running')
          this.#task.lose()
      },
      () => {
        // Progress is a courtesy: what ails the engine is told by the next lease or settle.
      },
    )
  }

  // ---- publish

  readonly publish = (target: object | string, payload: unknown, options?: OutputOptions): Promise<void> => {
    const publishing = this.#publish(target, payload, options)
    // The handler need not await it: a refusal is met again when the attempt is settled.
    publishing.catch(() => {})
    if (this.#task.mode === 'running' && this.#publishing.length <= MAX_OUTPUTS) this.#publishing.push(publishing)
    return publishing
  }

  async #publish(target: object | string, payload: unknown, options: OutputOptions | undefined): Promise<void> {
    this.#assertRunning('publish()')
    if (this.#outputs.length >= MAX_OUTPUTS) {
      throw new SluiceError(
        'PAYLOAD_TOO_LARGE',
        `A handler published more than ${MAX_OUTPUTS} messages. Publish in several jobs.`,
      )
    }
    const at = this.#outputs.push(null) - 1
    this.#outputs[at] = await this.#findFeed(target).makeOutput(payload, options)
  }

  #findFeed(target: object | string): OutputFeed {
    const noun = typeof target === 'string' ? this.#context.findNoun(target) : target
    const feed = typeof noun === 'object' && noun !== null ? feedOf(noun) : undefined
    if (feed?.belongsTo(this.#context) === true) return feed
    if (typeof target !== 'string')
      throw invalidOption('target', target, 'a queue or topic of the same Sluice, or the name of one')
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
    throw this.#task.signal.reason
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

/** The beginning of a text, as JSON of a size that is shown. */
function cutProgress(text: string): string {
  for (let length = MAX_PROGRESS_BYTES; ; length = Math.floor(length * 0.75)) {
    const json = JSON.stringify(`${text.slice(0, length).toWellFormed()}…`)
    if (Buffer.byteLength(json) <= MAX_PROGRESS_BYTES) return json
  }
}

/** '' stands for undefined, which JSON has no word for. */
function readKept<T>(kept: string): T {
  return (kept === '' ? undefined : JSON.parse(kept)) as T
}
