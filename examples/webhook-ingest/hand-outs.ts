/** Judges the hand-outs of one queue or group: every one beyond the first needs a cause (P3), and lanes stay lanes (P4, P5). */
import type { Evidence, HandOut } from './consume.ts'
import { MAX_LEASED } from './consume.ts'

export interface Explained {
  /** Attempts that nobody saw: the answer to the lease was lost in a kill, and the lease had to run out. */
  readonly byLostAnswer: number
  /** Attempts whose lease ran out before the settle came through. */
  readonly byExpiry: number
  /** What has no cause. */
  readonly broken: readonly string[]
}

/** Clocks of two processes on one machine may differ by this much. */
const CLOCK_MS = 50

export function explainHandOuts(evidence: readonly Evidence[], leaseMs: number): Explained {
  const broken: string[] = []
  const lostAnswers = evidence.flatMap((one) => one.lostAnswers)
  let byLostAnswer = 0
  let byExpiry = 0
  for (const [offset, handOuts] of Map.groupBy(inOrder(evidence), (handOut) => handOut.offset)) {
    let before: HandOut | undefined
    for (const handOut of handOuts) {
      const unseen = handOut.attempt - (before?.attempt ?? 0) - 1
      byLostAnswer += unseen
      // A lease that was asked for then, and never seen, has run out by the time the message comes again.
      const isExplained =
        unseen === 0 || lostAnswers.some((askedAtMs) => handOut.cameAtMs - askedAtMs + CLOCK_MS >= leaseMs)
      if (unseen < 0 || !isExplained)
        broken.push(`offset ${offset} came in attempt ${handOut.attempt} after attempt ${before?.attempt ?? 0}`)
      if (before !== undefined && unseen === 0) byExpiry++
      if (before?.end === 'settled') broken.push(`offset ${offset} was handed out again after it was settled`)
      if (before !== undefined && handOut.cameAtMs - before.askedAtMs + CLOCK_MS < leaseMs) {
        broken.push(`offset ${offset} was handed out again ${handOut.cameAtMs - before.askedAtMs} ms into its lease`)
      }
      before = handOut
    }
    if (before?.end === 'lost') broken.push(`offset ${offset} was never settled`)
  }
  const mostUnseen = lostAnswers.length * MAX_LEASED
  if (byLostAnswer > mostUnseen)
    broken.push(`${byLostAnswer} attempts were never seen; lost answers explain ${mostUnseen}`)
  return { byLostAnswer, byExpiry, broken }
}

/** Where a lane went back: by rising fences, the offsets of one key never fall. */
export function findLaneJumps(evidence: readonly Evidence[]): string[] {
  const last = new Map<string, HandOut>()
  const jumps: string[] = []
  for (const handOut of inOrder(evidence)) {
    const { key, offset, fence } = handOut
    const before = last.get(key)
    if (before !== undefined && (offset < before.offset || (offset > before.offset && fence === before.fence))) {
      jumps.push(`${key}: offset ${offset} (fence ${fence}) came after offset ${before.offset} (fence ${before.fence})`)
    }
    last.set(key, handOut)
  }
  return jumps
}

/** What was handed out, once each, by rising offset. */
export function distinct(evidence: readonly Evidence[]): HandOut[] {
  const byOffset = new Map(inOrder(evidence).map((handOut) => [handOut.offset, handOut]))
  return [...byOffset.values()].sort((a, b) => a.offset - b.offset)
}

function inOrder(evidence: readonly Evidence[]): HandOut[] {
  return evidence.flatMap(({ handOuts }) => handOuts).sort((a, b) => a.fence - b.fence || a.offset - b.offset)
}
