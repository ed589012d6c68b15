/**
 * Reads a journal into a cache, up to the claim of the grant that asks, and checks that nothing is missing (P13).
 *
 *     at the start ──first entry──> within an epoch ──claim of a later one──> claimed ──its base──> within an epoch
 *
 * What was cut off is told by the journal itself: the last base or commit that names the first entry to be kept. Without one
 * nothing was cut off, and the first entry is the claim of the first owner.
 */
import type { Grant, Journal, JournalEntry } from '../../journals/contract.ts'
import type { Cache } from './cache.ts'
import { corrupt, decodeCommit, decodeEntry, type Entry, NO_ENGINE, type Place } from './entry.ts'
import type { HeardTurns } from './heard.ts'

export interface Replayed {
  /** null: nothing was there. */
  readonly engineId: string | null
  /** The last entry that counts before the claim; null: there is none. */
  readonly last: Place | null
  /** The first entry that must be kept; null: all. */
  readonly first: Place | null
  /** Bytes that were read. */
  readonly bytes: number
}

export async function replayInto(journal: Journal, grant: Grant, cache: Cache, heard: HeardTurns): Promise<Replayed> {
  const replay = new Replay(cache, heard, grant.epoch)
  let bytes = 0
  let isClaimed = false
  for await (const read of journal.replay(grant)) {
    bytes += read.bytes.byteLength
    grant.signal.throwIfAborted()
    isClaimed = replay.take(read)
    if (isClaimed) break
  }
  if (!isClaimed) throw corrupt('its end', 'the claim of this process is not in it')
  replay.checkStart()
  cache.endFilling()
  return { engineId: replay.engineId, last: replay.last, first: replay.first, bytes }
}

class Replay {
  engineId: string | null = null
  /** The last entry that counts: of claims only those whose base followed. */
  last: Place | null = null
  first: Place | null = null
  /** The first entry that was read. */
  #start: Place | null = null
  #startsWithClaim = false
  readonly #cache: Cache
  readonly #heard: HeardTurns
  readonly #ownEpoch: number
  /** The highest epoch claimed so far, and the number that comes next in it; null: before the first entry. */
  #epoch: number | null = null
  #next = 0
  #parts: Uint8Array[] = []
  /** Whether the parts that are kept are those of a whole commit: not so where its first ones were cut off. */
  #isWhole = true

  constructor(cache: Cache, heard: HeardTurns, ownEpoch: number) {
    this.#cache = cache
    this.#heard = heard
    this.#ownEpoch = ownEpoch
  }

  /** True at the claim of the own epoch: whatever stands before it stands for ever. */
  take({ place, bytes }: JournalEntry): boolean {
    const entry = decodeEntry(bytes, place)
    if (this.#epoch !== null && entry.epoch < this.#epoch) return false
    if (entry.epoch > this.#ownEpoch) throw corrupt(place, `its epoch ${entry.epoch} was never granted`)
    if (this.#epoch === null) this.#begin(entry)
    if (entry.kind === 'claim') return this.#claim(entry, place)
    if (entry.epoch !== this.#epoch) throw corrupt(place, `epoch ${entry.epoch} begins without a claim`)
    if (entry.number !== this.#next)
      throw corrupt(place, `entry ${this.#next} of epoch ${this.#epoch} is missing before ${entry.number}`)
    this.engineId ??= entry.engineId
    if (entry.engineId !== this.engineId)
      throw corrupt(place, `it is of engine ${entry.engineId}, not ${this.engineId}`)
    this.#next++
    if (entry.kind === 'base') this.#checkBase(entry, place)
    else this.#takePart(entry, place)
    this.last = [entry.epoch, entry.number]
    return false
  }

  #begin({ epoch, number, kind, part }: Entry): void {
    this.#start = [epoch, number]
    this.#startsWithClaim = kind === 'claim'
    if (this.#startsWithClaim) return
    this.#epoch = epoch
    this.#next = number
    // What is cut off may end within a commit, which then lies before the first entry that must be kept.
    this.#isWhole = part === 0
  }

  /** Nothing that must be kept is missing at the start. Throws CORRUPT. */
  checkStart(): void {
    const [start, first] = [this.#start, this.first]
    if (start === null) return
    const isThere =
      first === null ? this.#startsWithClaim : start[0] < first[0] || (start[0] === first[0] && start[1] <= first[1])
    if (!isThere)
      throw corrupt(
        'its start',
        `it begins with entry ${start[1]} of epoch ${start[0]}, and what stood before it was removed by somebody else`,
      )
  }

  #claim({ epoch, number, engineId }: Entry, place: string): boolean {
    if (number !== 0 || engineId !== NO_ENGINE) throw corrupt(place, 'a claim is not the first entry of its epoch')
    if (epoch === this.#epoch) throw corrupt(place, `epoch ${epoch} is claimed twice`)
    // What an owner left unfinished was never answered (invariant 3).
    this.#parts = []
    this.#isWhole = true
    this.#epoch = epoch
    this.#next = 1
    return epoch === this.#ownEpoch
  }

  /** Whoever wrote the base had read the journal up to its claim, as we have now: the ends must be the same. */
  #checkBase({ body, number }: Entry, place: string): void {
    if (number !== 1) throw corrupt(place, `a base has the number ${number}`)
    const { after, first } = JSON.parse(Buffer.from(body).toString('utf8')) as {
      after: Place | null
      first: Place | null
    }
    this.first = first ?? this.first
    const isSame = after?.[0] === this.last?.[0] && after?.[1] === this.last?.[1]
    // Where the journal was cut off since, the entries that the base speaks of may be gone: then nothing was read before it.
    if (!isSame && this.last !== null)
      throw corrupt(
        place,
        `entries up to ${after} were there when epoch ${this.#epoch} began, and it has those up to ${this.last}`,
      )
  }

  #takePart({ kind, body }: Entry, place: string): void {
    this.#parts.push(body)
    if (kind === 'part') return
    const whole = Buffer.concat(this.#parts)
    this.#parts = []
    if (this.#isWhole) {
      const commit = decodeCommit(whole, place)
      this.first = commit.first ?? this.first
      for (const one of commit.heard) this.#heard.learn(one)
      this.#cache.fill(commit)
    }
    this.#isWhole = true
  }
}
