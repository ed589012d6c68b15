/**
 * Retention: how long what all groups have settled can still be read, by time since it was settled and by bytes. It
 * never touches what a group has not settled (P2).
 *
 * When something was settled is not stored. Instead the floor is noted now and then, at most `MARKS` times within the
 * period: what was below the floor that long ago is old enough. The notes are one row, so that a process which is
 * started often trims as one that is not.
 *
 * On a full disk a queue lets go of everything that is settled, however young: taking new work again is worth more than
 * the results of old work. A topic keeps what its readers may come back for.
 */
import type { Log } from '../logs/contract.ts'
import { forgetKeys } from './appending.ts'
import type { Core } from './core.ts'
import type { MovedRow } from './delaying.ts'
import { decodeJson, hex, unhex } from './state.ts'
import type { Topic } from './topic.ts'

interface Mark {
  readonly offset: number
  readonly bytes: number
  readonly atMs: number
}

const MARKS = 64
/** Rows that one sweep deletes of each kind, so that no step stalls. */
const ROWS_PER_SWEEP = 2_000

export class Retention {
  readonly #topic: Topic
  /** Below it the log was told to trim. */
  #trimmed = 0
  /** Ascending; the first is where the topic was trimmed last. */
  #marks: readonly Mark[]

  constructor(topic: Topic, core: Core) {
    this.#topic = topic
    this.#marks = core.state.getJson(marksKey(topic)) ?? []
  }

  /** Trims what is due and deletes rows that went with it. True: there is more to do soon. */
  sweep(core: Core, log: Pick<Log, 'trim'>): boolean {
    const topic = this.#topic
    // What was committed by an earlier step is trimmed by this one, so that `earliest` never falls.
    if (topic.earliest > this.#trimmed) {
      this.#trimmed = topic.earliest
      void log.trim(topic.row.id, 0, topic.earliest)
      topic.window.release(topic.earliest)
    }
    const before = this.#marks
    this.#note(core)
    // A group that came late or was moved back needs what others have settled (P2).
    const isUrgent = core.refuseAppends && topic.row.kind === 'queue'
    const target = isUrgent ? topic.floor : Math.min(this.#target(core), topic.floor)
    if (this.#marks !== before) core.state.putJson(marksKey(topic), this.#marks)
    const isRaised = target > topic.earliest
    if (isRaised) {
      topic.earliest = target
      topic.countersChanged = true
      core.grown.add(topic)
    }
    let more = isRaised
    more = forgetKeys(core, topic, ROWS_PER_SWEEP) === ROWS_PER_SWEEP || more
    if (topic.row.kind === 'queue') {
      more = this.#dropOutcomes(core) || more
      more = this.#dropMoved(core) || more
    }
    return more
  }

  /** Milliseconds after which a sweep is worth it. */
  get intervalMs(): number {
    return Math.min(Math.max(this.#topic.row.settings.retention.ms / MARKS, 1_000), 60_000)
  }

  #note(core: Core): void {
    const { floor, earliest } = this.#topic
    if (this.#marks.length === 0)
      this.#marks = [{ offset: earliest, bytes: this.#topic.bytesBefore(earliest), atMs: core.nowMs }]
    const last = this.#marks.at(-1) as Mark
    const { retention } = this.#topic.row.settings
    if (last.offset >= floor) return
    const bytes = this.#topic.bytesBefore(floor)
    const isDue = core.nowMs - last.atMs >= retention.ms / MARKS || bytes - last.bytes >= retention.bytes / MARKS
    if (!isDue) return
    this.#marks = [...this.#marks, { offset: floor, bytes, atMs: core.nowMs }]
  }

  /** The highest place up to which everything is old enough, or too much. */
  #target(core: Core): number {
    const { retention } = this.#topic.row.settings
    const marks = this.#marks
    const newest = marks.at(-1) as Mark
    const byTime = marks.findLastIndex((mark) => core.nowMs - mark.atMs >= retention.ms)
    const byBytes = marks.findIndex((mark) => newest.bytes - mark.bytes <= retention.bytes)
    const at = Math.max(byTime, byBytes)
    if (at > 0) this.#marks = marks.slice(at)
    return (marks[at] as Mark).offset
  }

  /** Outcomes of jobs that are below the earliest. */
  #dropOutcomes(core: Core): boolean {
    const prefix = `o/${hex(this.#topic.jobs.row.id)}/`
    const old = core.state.range(prefix, prefix + hex(this.#topic.earliest), ROWS_PER_SWEEP)
    for (const [key] of old) core.state.delete(key)
    return old.length === ROWS_PER_SWEEP
  }

  /** Where delayed jobs went that are gone themselves. Ordered by due time, so the oldest come first. */
  #dropMoved(core: Core): boolean {
    const { row, earliest } = this.#topic
    const prefix = `m/${hex(row.id)}/`
    let dropped = 0
    for (const [key, value] of core.state.under(prefix, ROWS_PER_SWEEP)) {
      const moved = decodeJson<MovedRow>(value)
      const isGone =
        moved.offset === null ? core.nowMs - moved.atMs >= row.settings.retention.ms : moved.offset < earliest
      if (!isGone && unhex(key.slice(prefix.length, prefix.length + 14)) > core.nowMs - row.settings.retention.ms) break
      if (!isGone) continue
      core.state.delete(key)
      dropped++
    }
    return dropped === ROWS_PER_SWEEP
  }
}

function marksKey(topic: Topic): string {
  return `R/${hex(topic.row.id)}`
}
