/**
 * Fires one schedule from this process, tick by tick. Others do the same: who moves the schedule on in the engine has
 * fired the tick, and the others learn where it stands.
 *
 *     waiting --tick--> firing --done, or another was first--> waiting
 *        |                |  \--full, failed--> pausing --> firing
 *        +----------------+--- changed or removed by others, close --> ended
 *
 * Invariants
 *  1. One call of the engine is under way at a time.
 *  2. `#doneMs` and `#revision` are what the engine said last; a firing from another place has no effect there.
 */
import type { AppendRequest, CommandOutcome } from './engine/contract.ts'
import type { ScheduleView } from './engine/schedules.ts'
import { isSluiceError, SluiceError } from './errors.ts'
import type { NounContext } from './noun-context.ts'
import { backoffMs } from './policy/retry.ts'
import { type Missed, planTick, type Ticks } from './schedule-ticks.ts'

const BACKOFF = { baseMs: 1_000, factor: 2, maxMs: 60_000 }

export interface RunnerPlan {
  readonly queue: string
  readonly name: string
  readonly ticks: Ticks
  readonly missed: Missed
  /** What it was declared with. Where others declared another, this process fires it no more. */
  readonly timing: string
  /** The job of the tick, of the queue. */
  makeAppend(tickMs: number): Promise<AppendRequest>
}

export class ScheduleRunner {
  readonly #context: NounContext
  readonly #plan: RunnerPlan
  #doneMs: number
  #revision: number
  #failures = 0
  #stopTimer: (() => void) | null = null
  #firing: Promise<void> | null = null
  #isEnded = false

  constructor(context: NounContext, plan: RunnerPlan, { doneMs, revision }: ScheduleView) {
    this.#context = context
    this.#plan = plan
    this.#doneMs = doneMs
    this.#revision = revision
    context.schedules.add(this)
    this.#next()
  }

  /** Fires nothing more; a firing that is under way is waited for. */
  async close(): Promise<void> {
    this.#end()
    await this.#firing
  }

  #end(): void {
    this.#isEnded = true
    this.#stopTimer?.()
    this.#stopTimer = null
    this.#context.schedules.delete(this)
  }

  /** Waits for the next tick, or fires what is due. */
  #next(): void {
    if (this.#isEnded) return
    const { ticks, missed } = this.#plan
    const nowMs = this.#context.engineNow()
    const plan = planTick(ticks, missed, this.#doneMs, nowMs)
    if (plan.kind === 'wait') {
      if (plan.untilMs !== null) this.#pause(plan.untilMs - nowMs)
      return
    }
    this.#firing = this.#fire(plan.atMs, plan.hasJob).then((pauseMs) => {
      this.#firing = null
      if (pauseMs === 0) this.#next()
      else this.#pause(pauseMs)
    })
  }

  #pause(ms: number): void {
    if (this.#isEnded) return
    this.#stopTimer = this.#context.host.setTimer(ms, () => this.#next())
  }

  /** Milliseconds until the next try; 0: at once. */
  async #fire(toMs: number, hasJob: boolean): Promise<number> {
    const { engine, host, report } = this.#context
    const { queue, name } = this.#plan
    try {
      const append = hasJob ? await this.#plan.makeAppend(toMs) : null
      if (this.#isEnded) return 0
      const fromMs = this.#doneMs
      const outcome = await engine.command({
        kind: 'fire',
        queue,
        name,
        revision: this.#revision,
        fromMs,
        toMs,
        append,
      })
      const pauseMs = this.#take(outcome, toMs)
      this.#failures = 0
      return pauseMs
    } catch (error) {
      if (isSluiceError(error, 'CLOSED')) this.#end()
      else report(error)
      return Math.ceil(backoffMs(BACKOFF, ++this.#failures, 0.5 + host.random() / 2))
    }
  }

  #take(outcome: CommandOutcome, toMs: number): number {
    switch (outcome.status) {
      case 'done':
        this.#doneMs = toMs
        return 0
      case 'schedule': {
        const { schedule } = outcome
        this.#doneMs = schedule.doneMs
        this.#revision = schedule.revision
        if (schedule.timing !== this.#plan.timing) this.#endChanged()
        return 0
      }
      case 'full':
        return Math.max(1, outcome.retryAfterMs)
      default:
        // Somebody removed it.
        this.#end()
        return 0
    }
  }

  #endChanged(): void {
    this.#end()
    const { queue, name } = this.#plan
    this.#context.report(
      new SluiceError(
        'DECLARED_DIFFERENTLY',
        `The schedule '${name}' of queue '${queue}' was declared elsewhere with other times, which hold now; this process fires it no more.`,
        { queue, schedule: name },
      ),
    )
  }
}
