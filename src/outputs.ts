/**
 * What a handler publishes: kept until its settle takes it along (P9). It is kept as messages and made into batches for
 * each attempt to settle, since batches are given away to the engine and a settle may have to be tried again.
 */
import type { AppendRequest, AppendWish } from './engine/contract.ts'
import type { LineMessage } from './line.ts'
import { BatchBuilder } from './message-batch.ts'

export interface Output {
  readonly topic: string
  readonly message: LineMessage
}

/** One batch for each queue or topic, each in the order of publishing. */
export function buildOutputs(outputs: readonly Output[]): AppendRequest[] {
  const groups = new Map<string, { readonly builder: BatchBuilder; readonly wishes: AppendWish[] }>()
  for (const { topic, message } of outputs) {
    const group = groups.get(topic) ?? { builder: new BatchBuilder(), wishes: [] }
    groups.set(topic, group)
    const { payload, key, headers, priority, deadlineAtMs, idempotencyKey, dueAtMs, callbackUrl } = message
    if (idempotencyKey !== undefined || dueAtMs !== 0 || callbackUrl !== undefined) {
      const wish = { index: group.builder.count, idempotencyKey, dueAtMs: dueAtMs === 0 ? undefined : dueAtMs }
      group.wishes.push(callbackUrl === undefined ? wish : { ...wish, callbackUrl })
    }
    group.builder.add({ payload, key, headers, priority, deadlineMs: deadlineAtMs })
  }
  return [...groups].map(([topic, { builder, wishes }]) => ({
    topic,
    batch: builder.finish(),
    wishes: wishes.length === 0 ? undefined : wishes,
  }))
}
