/**
 * The settler of one worker: gathers how messages ended and tells the engine in few calls. Messages that are simply
 * done are one request for each lease, however many they are.
 *
 *     done, end -> waiting -> under way (at most 2 calls) -> told
 *                     ^           |
 *                     +--unknown--+   after a pause that grows: settling twice is the same as once, for a fence that
 *                                     was settled answers `lost`
 *
 * Any other failure is the worker's, which stops.
 */
import type { Engine, Settlement, SettleOutcome, SettleRequest } from './engine/contract.ts'
import { isTransient } from './errors.ts'
import type { HeldLease } from './held-lease.ts'
import type { Host } from './host/host.ts'
import { buildOutputs, type Output } from './outputs.ts'
import { backoffMs } from './policy/retry.ts'

const MAX_CALLS = 2
const BACKOFF = { baseMs: 100, factor: 2, maxMs: 10_000 }
const MIN_PAUSE_MS = 10
const DONE: Settlement = { kind: 'done' }

/** How some messages of a lease ended. */
export interface Ending {
  readonly lease: HeldLease
  readonly offsets: readonly number[]
  readonly outcome: Settlement
  readonly outputs: readonly Output[]
  /** Hears what became of it; null: nobody needs to. */
  readonly onOutcome: ((outcome: SettleOutcome) => void) | null
}

export interface SettlerHooks {
  /** The engine knows of more ends. */
  onTold(): void
  /** The engine cannot be told any more. */
  onFailure(error: unknown): void
}

export class Settler {
  readonly #engine: Engine
  readonly #host: Host
  readonly #hooks: SettlerHooks
  #dirty: HeldLease[] = []
  #endings: Ending[] = []
  #calls = 0
  #failures = 0
  #stopPause: (() => void) | null = null
  #idle: (() => void)[] = []
  /** Messages that ended and of which the engine has not said that it knows. */
  unsettled = 0

  constructor(engine: Engine, host: Host, hooks: SettlerHooks) {
    this.#engine = engine
    this.#host = host
    this.#hooks = hooks
  }

  /** Whether the engine could not be told, so that nothing more should be taken on. */
  get isStuck(): boolean {
    return this.#failures > 0
  }

  /** A message is done, without result and outputs. Sent by the next `flush`. */
  done(lease: HeldLease, offset: number): void {
    if (lease.done.length === 0) this.#dirty.push(lease)
    lease.done.push(offset)
    this.unsettled++
  }

  /** The same for every other end. */
  end(ending: Ending): void {
    this.#endings.push(ending)
    this.unsettled += ending.offsets.length
  }

  flush(): void {
    if (this.#calls >= MAX_CALLS || this.#stopPause !== null) return
    const endings = this.#endings
    this.#endings = []
    for (const lease of this.#dirty) {
      endings.push({ lease, offsets: lease.done, outcome: DONE, outputs: [], onOutcome: null })
      lease.done = []
    }
    this.#dirty = []
    if (endings.length > 0) this.#send(endings)
  }

  /** Resolves when the engine was told everything, or after `maxMs`. */
  async idle(maxMs: number): Promise<void> {
    this.flush()
    if (this.unsettled === 0) return
    await new Promise<void>((resolve) => {
      const stop = this.#host.setTimer(maxMs, resolve)
      this.#idle.push(() => {
        stop()
        resolve()
      })
    })
    this.#stopPause?.()
  }

  #send(endings: readonly Ending[]): void {
    this.#calls++
    this.#engine.settle(endings.map(makeRequest)).then(
      (outcomes) => {
        this.#calls--
        this.#failures = 0
        for (let i = 0; i < endings.length; i++) {
          const { lease, offsets, onOutcome } = endings[i] as Ending
          this.unsettled -= offsets.length
          const outcome = outcomes[i] as SettleOutcome
          if (outcome.status !== 'full') lease.noteTold(offsets.length)
          onOutcome?.(outcome)
        }
        this.flush()
        this.#hooks.onTold()
        if (this.unsettled === 0) for (const tell of this.#idle.splice(0)) tell()
      },
      (error: unknown) => {
        this.#calls--
        if (isTransient(error)) this.#pause(endings)
        else this.#hooks.onFailure(error)
      },
    )
  }

  #pause(endings: readonly Ending[]): void {
    this.#endings = [...endings, ...this.#endings]
    this.#failures++
    if (this.#stopPause !== null) return
    const ms = Math.max(MIN_PAUSE_MS, backoffMs(BACKOFF, this.#failures, this.#host.random()))
    this.#stopPause = this.#host.setTimer(ms, () => {
      this.#stopPause = null
      this.flush()
    })
  }
}

function makeRequest({ lease, offsets, outcome, outputs }: Ending): SettleRequest {
  const hold = lease.holdOf(offsets)
  return outputs.length === 0 ? { ...hold, outcome } : { ...hold, outcome, outputs: buildOutputs(outputs) }
}
