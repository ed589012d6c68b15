/**
 * How many messages to ask the engine for next, so that an answer of many small messages takes few calls and one of
 * large messages stays within a budget in bytes: a first small helping shows how large they are.
 */
const FIRST_HELPING = 16

export interface Helping {
  readonly wanted: number
  readonly budgetBytes: number
  readonly takenCount: number
  readonly takenBytes: number
}

/** 0 where nothing more should be taken. */
export function nextHelping({ wanted, budgetBytes, takenCount, takenBytes }: Helping): number {
  const left = wanted - takenCount
  if (takenCount === 0) return Math.min(left, FIRST_HELPING)
  const fitting = Math.floor((budgetBytes - takenBytes) / Math.max(1, takenBytes / takenCount))
  return Math.max(0, Math.min(left, fitting))
}
