import type { LedgerAnswer } from '../ledger/requests.ts'

/** Buffers of answers that are nobody else's, and so can go to another thread: the batches made for leases. */
export function transferable(answers: readonly LedgerAnswer[]): ArrayBuffer[] {
  const buffers: ArrayBuffer[] = []
  for (const answer of answers) {
    if (!('value' in answer) || answer.value === null || !('status' in answer.value)) continue
    if (answer.value.status === 'leased') buffers.push(answer.value.batch.buffer as ArrayBuffer)
  }
  return buffers
}
