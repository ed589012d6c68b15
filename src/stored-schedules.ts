/**
 * Fires all schedules whose payload is stored, from this process: it asks now and then whether any were declared, changed
 * or removed, which costs one small answer where none were, and has a runner for each.
 */

import type { ScheduleView } from './engine/schedules.ts'
import { isSluiceError } from './errors.ts'
import { feedOf, type OutputFeed } from './feed.ts'
import type { NounContext } from './noun-context.ts'
import type { Queue } from './queue.ts'
import { makeAppends, readStoredJob } from './schedule.ts'
import { ScheduleRunner } from './schedule-runner.ts'
import { createTicks, type Timing } from './schedule-ticks.ts'

const WATCH_MS = 5_000

interface Running {
  readonly revision: number
  readonly runner: ScheduleRunner
}

export class StoredSchedules {
  readonly #context: NounContext
  readonly #queueOf: (name: string) => Queue
  readonly #onClose: () => void
  readonly #running = new Map<string, Running>()
  #version: number | undefined = undefined
  #stopTimer: (() => void) | null = null
  #looking: Promise<void> | null = null
  #isClosed = false

  /** Made by `sluice.runSchedules()`. */
  constructor(context: NounContext, queueOf: (name: string) => Queue, onClose: () => void) {
    this.#onClose = onClose
    this.#context = context
    this.#queueOf = queueOf
    void this.refresh()
  }

  /** Looks now whether any have changed. */
  refresh(): Promise<void> {
    this.#looking ??= this.#look().finally(() => {
      this.#looking = null
    })
    return this.#looking
  }

  /** Fires nothing more; what is under way is waited for. */
  async close(): Promise<void> {
    this.#isClosed = true
    this.#stopTimer?.()
    this.#onClose()
    await Promise.all([...this.#running.values()].map(({ runner }) => runner.close()))
    await this.#looking
    await Promise.all([...this.#running.values()].map(({ runner }) => runner.close()))
  }

  async #look(): Promise<void> {
    this.#stopTimer?.()
    const { engine, host, report } = this.#context
    try {
      const outcome = await engine.command({ kind: 'schedules', knownVersion: this.#version })
      if (this.#isClosed) return
      if (outcome.status === 'schedules') {
        this.#version = outcome.version
        await this.#follow(outcome.schedules)
      }
    } catch (error) {
      if (isSluiceError(error, 'CLOSED') || isSluiceError(error, 'ENGINE_FAILED')) return
      report(error)
    }
    if (!this.#isClosed) this.#stopTimer = host.setTimer(WATCH_MS, () => void this.refresh())
  }

  async #follow(views: readonly ScheduleView[]): Promise<void> {
    const wanted = new Map(views.map((view) => [`${view.queue}/${view.name}`, view]))
    for (const [key, { revision, runner }] of this.#running) {
      if (wanted.get(key)?.revision === revision) continue
      this.#running.delete(key)
      await runner.close()
    }
    for (const [key, view] of wanted) {
      if (this.#running.has(key) || this.#isClosed) continue
      try {
        const runner = this.#run(view)
        if (runner !== null) this.#running.set(key, { revision: view.revision, runner })
      } catch (error) {
        // One that cannot be fired here, since another release wrote it, must not keep the others from it.
        this.#context.report(error)
      }
    }
  }

  #run(view: ScheduleView): ScheduleRunner | null {
    const { missed = 'one', options, isFromCode = false, payload } = readStoredJob(view)
    if (isFromCode) return null
    const { queue, name, timing } = view
    const feed = feedOf(this.#queueOf(queue)) as OutputFeed & { readonly name: string }
    const ticks = createTicks(JSON.parse(timing) as Timing)
    const makeAppend = makeAppends(feed, name, options, () => payload)
    return new ScheduleRunner(this.#context, { queue, name, ticks, missed, timing, makeAppend }, view)
  }
}
