/** Outcomes of the engine, which are values, as the errors that a caller of a noun gets (P7, P6, P10). */
import type { FullOutcome, OffsetProblem } from './engine/contract.ts'
import { SluiceError } from './errors.ts'

/** What a noun is, for words. */
export type NounKind = 'queue' | 'topic'

/** `QUEUE_FULL`, `WAIT_TOO_LONG` or `DISK_FULL`, with `retryAfterMs` in the details. */
export function fullError(kind: NounKind, name: string, full: FullOutcome): SluiceError {
  const { reason, depth, limit, retryAfterMs, group, queue } = full
  if (queue !== undefined && queue !== name) return callbacksFullError(name, queue, full)
  const details = { [kind]: name, reason, depth, limit, retryAfterMs, ...(group === undefined ? {} : { group }) }
  if (reason === 'disk') {
    return new SluiceError(
      'DISK_FULL',
      `The disk is full; nothing was stored in ${kind} '${name}'. Try again in ${retryAfterMs} ms.`,
      details,
    )
  }
  if (reason === 'wait') {
    return new SluiceError(
      'WAIT_TOO_LONG',
      `A job of ${kind} '${name}' waits ${depth} ms now, by what was measured, and this one has ${limit} ms; nothing was stored. Try again in ${retryAfterMs} ms.`,
      { [kind]: name, waitMs: depth, limitMs: limit, retryAfterMs },
    )
  }
  const what = reason === 'bytes' ? 'bytes' : 'messages'
  const whose =
    group === undefined ? '' : ` Group '${group}' has not settled them; see onSlowGroup, or topic.forget('${group}').`
  if (limit === 0) {
    const text = `The ${kind} '${name}' takes nothing: its limit is 0, as after \`sluice move\`. Use the place that it was moved to, or give it a limit again.`
    return new SluiceError('QUEUE_FULL', text, details)
  }
  return new SluiceError(
    'QUEUE_FULL',
    `The ${kind} '${name}' holds ${depth} ${what} and its limit is ${limit}; nothing was stored. Try again in ${retryAfterMs} ms.${whose}`,
    details,
  )
}

/** The queue had room, but not for the callback that the job would get. */
function callbacksFullError(name: string, queue: string, full: FullOutcome): SluiceError {
  const { reason, depth, limit, retryAfterMs } = full
  return new SluiceError(
    'QUEUE_FULL',
    `The queue of callbacks, '${queue}', holds ${depth} ${reason === 'bytes' ? 'bytes' : 'callbacks, sent or promised,'} and its limit is ${limit}; nothing was stored in '${name}'. Try again in ${retryAfterMs} ms, or add the job without callbackUrl.`,
    { queue: name, full: queue, reason, depth, limit, retryAfterMs },
  )
}

/** What Sluice puts into its own queues, nobody else does. */
export function reservedError(name: string): SluiceError {
  return new SluiceError(
    'UNSUPPORTED',
    `'${name}' is Sluice's own queue: its jobs come from \`callbackUrl\`, and nothing else can be added to it.`,
    { queue: name },
  )
}

export function notFoundError(kind: NounKind, name: string): SluiceError {
  const code = kind === 'queue' ? 'QUEUE_NOT_FOUND' : 'TOPIC_NOT_FOUND'
  return new SluiceError(code, `There is no ${kind} '${name}' any more. Its next use declares it again.`, {
    [kind]: name,
  })
}

export function mismatchError(kind: NounKind, name: string, idempotencyKey: string | undefined): SluiceError {
  return new SluiceError(
    'IDEMPOTENCY_MISMATCH',
    `The idempotency key '${idempotencyKey}' of ${kind} '${name}' was used with another payload. Use a new key for a new payload.`,
    { [kind]: name, idempotencyKey },
  )
}

/** P6: an offset that cannot be read, with what can. */
export function offsetError(topic: string, problem: OffsetProblem): SluiceError {
  const { offset, earliest, head } = problem
  const details = { topic, offset, earliest, head }
  if (problem.status === 'truncated') {
    return new SluiceError(
      'OFFSET_TRUNCATED',
      `Offsets ${offset} to ${earliest - 1} of '${topic}' are no longer kept; the earliest is ${earliest}.`,
      details,
    )
  }
  return new SluiceError('OFFSET_OUT_OF_RANGE', `Offset ${offset} of '${topic}' is beyond its end, ${head}.`, details)
}
