/**
 * Lanes (P4): the messages of one key, within one group, one at a time and in order.
 *
 * A lane is here only while it has a **head**: a message that may be handed out, is handed out, or is parked until it is
 * tried again. Messages of the lane that were met behind the head are its followers, in order of offset. Idle keys cost
 * nothing, however many there are; a follower costs 8 bytes.
 *
 * Invariants
 *  1. At most one head to a lane, and it has the lowest offset of the lane's messages that are not settled.
 *  2. A lane's messages enter in order of offset: a group meets messages in that order.
 *  3. Lane 0 is no lane: its messages are all heads.
 */
import { OffsetQueue } from './offset-queue.ts'

interface Line {
  head: number
  readonly followers: OffsetQueue
  /** Since when something has been waiting behind a head, and how many heads have left since. */
  readonly sinceMs: number
  left: number
}

/** What is known of a lane in which something waits. */
export interface LaneState {
  /** The head and those behind it that were met. */
  readonly count: number
  readonly sinceMs: number
  readonly left: number
}

export class Lanes {
  /** The head of each lane; once something has come behind it, the line. */
  readonly #lanes = new Map<number, number | Line>()
  #followers = 0

  /** Messages that wait behind a head. */
  get followers(): number {
    return this.#followers
  }

  /** Whether `lane` has a head. */
  isBusy(lane: number): boolean {
    return this.#lanes.has(lane)
  }

  /** The head of `lane`, or -1. */
  headOf(lane: number): number {
    const line = this.#lanes.get(lane)
    return (typeof line === 'object' ? line.head : line) ?? -1
  }

  /** How many followers of `lane` stand before `offset`. */
  followersBefore(lane: number, offset: number): number {
    const line = this.#lanes.get(lane)
    return typeof line === 'object' ? line.followers.countBelow(offset) : 0
  }

  isHead(lane: number, offset: number): boolean {
    const line = this.#lanes.get(lane)
    return offset === (typeof line === 'object' ? line.head : line)
  }

  /** A lane in which something waits behind the head, or null. */
  stateOf(lane: number): LaneState | null {
    const line = this.#lanes.get(lane)
    if (typeof line !== 'object') return null
    return { count: 1 + line.followers.length, sinceMs: line.sinceMs, left: line.left }
  }

  /** Whether `offset` is the head of its lane now; else it waits behind the one that is. */
  enter(lane: number, offset: number, nowMs: number): boolean {
    if (lane === 0) return true
    const line = this.#lanes.get(lane)
    if (line === undefined) {
      this.#lanes.set(lane, offset)
      return true
    }
    if (typeof line === 'object') {
      line.followers.push(offset)
    } else {
      const followers = new OffsetQueue()
      followers.push(offset)
      this.#lanes.set(lane, { head: line, followers, sinceMs: nowMs, left: 0 })
    }
    this.#followers++
    return false
  }

  /** The head of `lane` is settled: the offset of the next head, or -1. */
  leave(lane: number): number {
    const line = this.#lanes.get(lane)
    const next = typeof line === 'object' ? line.followers.shift() : -1
    if (next < 0) {
      this.#lanes.delete(lane)
    } else {
      const one = line as Line
      one.head = next
      one.left++
      this.#followers--
    }
    return next
  }
}
