/** What an operator does to a group, be it a topic's or the one of a queue: dead letters, redrive, pause. */
import type { Command, CommandOutcome, DeadLetter } from './engine/contract.ts'
import { isSluiceError, type SluiceError } from './errors.ts'
import { jobNotFoundError } from './job.ts'
import { parseJobId } from './job-id.ts'
import type { NounContext } from './noun-context.ts'
import { fullError, type NounKind } from './outcomes.ts'

/** What an engine takes in one call. */
const AT_ONCE = 1_000
const DEFAULT_MAX = 10_000
const DEFAULT_DEAD_LIMIT = 100

export interface RedriveOptions {
  /** What to redrive, by id. @default all dead and blocked ones, oldest first */
  readonly ids?: readonly string[] | undefined
  /** The most, 1 to 1,000,000. @default 10_000 */
  readonly max?: number | undefined
}

export interface Redriven {
  /** Dead letters that became new jobs, and blocked messages that are tried again. Fewer than asked for where the queue got full. */
  readonly count: number
  /** Ids of the new jobs; none on a topic. */
  readonly ids: readonly string[]
}

export interface DiscardOptions {
  /** What to discard, by id. @default all dead letters, oldest first */
  readonly ids?: readonly string[] | undefined
  /** The most, 1 to 1,000,000. @default 10_000 */
  readonly max?: number | undefined
}

export interface Discarded {
  /** Dead letters that are gone. */
  readonly count: number
}

export interface DeadOptions {
  /** Where an earlier page ended: its `next`. @default the oldest */
  readonly after?: string | undefined
  /** The most of one page, 1 to 1,000. @default 100 */
  readonly limit?: number | undefined
}

interface Place {
  readonly kind: NounKind
  readonly topic: string
  readonly group: string
  /** The error where the engine does not know it. */
  notFound(): SluiceError
}

export class GroupControl {
  readonly #context: NounContext
  readonly #place: Place

  constructor(context: NounContext, place: Place) {
    this.#context = context
    this.#place = place
  }

  async setPaused(isPaused: boolean): Promise<void> {
    const { topic, group } = this.#place
    await this.#run({ kind: isPaused ? 'pause' : 'resume', topic, group })
  }

  async forget(): Promise<void> {
    const { topic, group } = this.#place
    await this.#run({ kind: 'forget', topic, group })
    this.checkHolds()
  }

  async listDead({
    after,
    limit = DEFAULT_DEAD_LIMIT,
  }: DeadOptions): Promise<{ letters: readonly DeadLetter[]; next: string | null }> {
    const { topic, group } = this.#place
    const cursor = after === undefined ? {} : { after }
    const outcome = await this.#run({ kind: 'dead', topic, group, max: limit, ...cursor })
    if (outcome.status !== 'dead-letters') throw this.#place.notFound()
    return outcome
  }

  redrive({ ids, max = DEFAULT_MAX }: RedriveOptions, tag: string): Promise<Redriven> {
    return this.#byPortions('redrive', ids, max, tag)
  }

  async discard({ ids, max = DEFAULT_MAX }: DiscardOptions, tag: string): Promise<Discarded> {
    const { count } = await this.#byPortions('discard', ids, max, tag)
    return { count }
  }

  /** Handlers in this process whose leases are gone are stopped at once. */
  checkHolds(): void {
    const { topic, group } = this.#place
    for (const worker of this.#context.workers)
      if (worker.topic === topic && worker.group === group) worker.checkHolds()
  }

  async #byPortions(
    kind: 'redrive' | 'discard',
    ids: readonly string[] | undefined,
    max: number,
    tag: string,
  ): Promise<Redriven> {
    const { topic, group } = this.#place
    for (const id of ids ?? []) checkId(id, topic, tag)
    const made: string[] = []
    let count = 0
    for (let at = 0; count < max && (ids === undefined || at < ids.length); at += AT_ONCE) {
      const some = ids === undefined ? {} : { ids: ids.slice(at, at + AT_ONCE) }
      const portion = Math.min(max - count, AT_ONCE)
      try {
        const outcome = await this.#run({ kind, topic, group, max: portion, ...some })
        const { count: moved = 0, ids: movedIds = [] } = outcome as Extract<CommandOutcome, { status: 'done' }>
        count += moved
        made.push(...movedIds)
        if (ids === undefined && moved < portion) break
      } catch (error) {
        // What was done before is done, and is what the caller must hear of.
        if (count > 0 && (isSluiceError(error, 'QUEUE_FULL') || isSluiceError(error, 'UNSUPPORTED'))) break
        throw error
      }
    }
    return { count, ids: made }
  }

  async #run(command: Command): Promise<CommandOutcome> {
    const { kind, topic, notFound } = this.#place
    const outcome = await this.#context.engine.command(command)
    if (outcome.status === 'full') throw fullError(kind, topic, outcome)
    if (outcome.status === 'not-found') throw notFound()
    return outcome
  }
}

/** Refuses an id that is not of this queue or topic; without a tag, of one of this name. */
export function checkId(id: unknown, topic: string, tag?: string): void {
  const parsed = typeof id === 'string' ? parseJobId(id) : null
  if (parsed === null || parsed.queue !== topic || (tag !== undefined && parsed.tag !== tag))
    throw jobNotFoundError(String(id))
}
