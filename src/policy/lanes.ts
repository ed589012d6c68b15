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

export class Lanes {
  readonly #lanes = new Map<number, OffsetQueue | null>()
  #followers = 0

  /** Messages that wait behind a head. */
  get followers(): number {
    return this.#followers
  }

  /** Whether `offset` is the head of its lane now; else it waits behind the one that is. */
  enter(lane: number, offset: number): boolean {
    if (lane === 0) return true
    const followers = this.#lanes.get(lane)
    if (followers === undefined) {
      this.#lanes.set(lane, null)
      return true
    }
    if (followers === null) {
      const line = new OffsetQueue()
      line.push(offset)
      this.#lanes.set(lane, line)
    } else {
      followers.push(offset)
    }
    this.#followers++
    return false
  }

  /** The head of `lane` is settled: the offset of the next head, or -1. */
  leave(lane: number): number {
    if (lane === 0) return -1
    const followers = this.#lanes.get(lane)
    const next = followers == null ? -1 : followers.shift()
    if (next < 0) this.#lanes.delete(lane)
    else this.#followers--
    return next
  }
}
