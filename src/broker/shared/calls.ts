/**
 * What this process has asked and has no answer to yet, wherever it was sent, so that it can be sent elsewhere when the
 * owner changes, or be ended when nobody answers.
 *
 *     held ──sent to an owner, in a turn──> sent ──answer──> gone
 *       ^                                     │ the owner is gone: held again, where the turn had no effect, or where a
 *       └─────────────────────────────────────┘ second time changes nothing; else UNKNOWN
 */
import type { AppendRequest, Command, SettleOutcome } from '../../engine/contract.ts'
import { isKeyed, isRepeatableCommand } from '../../engine/repeatable.ts'
import type { ErrorCode } from '../../errors.ts'
import type { LedgerAnswer, LedgerRequest } from '../../ledger/requests.ts'

/** How long something that need not wait is tried. */
const PATIENCE_MS = 30_000

interface Call {
  request: LedgerRequest
  /** The turn in which an owner got it; 0: none has it now. */
  turn: number
  /** Whether an owner before may have done it. */
  wasSent: boolean
  readonly untilMs: number
}

export class Calls {
  /** In the order in which they were asked. */
  readonly #calls = new Map<number, Call>()

  get size(): number {
    return this.#calls.size
  }

  add(requests: readonly LedgerRequest[], nowMs: number): void {
    for (const request of requests) {
      if (request.kind === 'abort') {
        this.#endWait(request.body)
        continue
      }
      const untilMs = nowMs + PATIENCE_MS + waitOf(request)
      this.#calls.set(request.id, { request, turn: 0, wasSent: false, untilMs })
    }
  }

  /** Everything that no owner has, in order; an owner has it now, in this turn. */
  takeHeld(turn: number): LedgerRequest[] {
    const held: LedgerRequest[] = []
    for (const call of this.#calls.values()) {
      if (call.turn > 0) continue
      call.turn = turn
      held.push(call.request)
    }
    return held
  }

  /** The answers that the caller may have. */
  answer(answers: readonly LedgerAnswer[]): LedgerAnswer[] {
    return answers.flatMap((answer) => {
      const call = this.#calls.get(answer.id)
      if (call === undefined) return []
      this.#calls.delete(answer.id)
      return [call.wasSent ? doubtful(call.request, answer) : answer]
    })
  }

  /** What was sent in later turns than this had no effect, and will have none. */
  holdAfter(turn: number): void {
    for (const call of this.#calls.values()) if (call.turn > turn) call.turn = 0
  }

  /** The owner is gone, with what it was sent. Answers what cannot be sent again. */
  loseOwner(why: string): LedgerAnswer[] {
    const ended: LedgerAnswer[] = []
    for (const [id, call] of this.#calls) {
      if (call.turn === 0) continue
      if (isRepeatable(call.request)) {
        call.turn = 0
        call.wasSent = true
        continue
      }
      this.#calls.delete(id)
      ended.push(failed(id, 'UNKNOWN', `Whether it took effect is not known: ${why}. ${AGAIN}`))
    }
    return ended
  }

  /** Answers what has waited for an owner for too long. `trouble`: why there is none, where that is known. */
  takeOverdue(nowMs: number, trouble: string | null = null): LedgerAnswer[] {
    const why = trouble === null ? '' : ` ${trouble}`
    const ended: LedgerAnswer[] = []
    for (const [id, call] of this.#calls) {
      if (call.untilMs > nowMs) continue
      this.#calls.delete(id)
      ended.push(
        // A lease may have been granted, too: UNREACHABLE would say that nothing was, and the next attempt had no cause (P3).
        (call.turn > 0 || call.wasSent) && (isChanging(call.request) || call.request.kind === 'lease')
          ? failed(
              id,
              'UNKNOWN',
              `Whether it took effect is not known: the owner did not answer in time.${why} ${AGAIN}`,
            )
          : failed(
              id,
              'UNREACHABLE',
              `The broker, or the process that owns the data there, did not answer in time.${why}`,
            ),
      )
    }
    return ended
  }

  /** Answers everything with an error. */
  fail(code: ErrorCode, message: string, details: Readonly<Record<string, unknown>>): LedgerAnswer[] {
    const ended = [...this.#calls].map(([id, call]) =>
      (call.turn > 0 || call.wasSent) && isChanging(call.request)
        ? failed(id, 'UNKNOWN', `Whether it took effect is not known: ${message}`, { ...details, code })
        : failed(id, code, message, details),
    )
    this.#calls.clear()
    return ended
  }

  /** A wait that no owner has ends as soon as one hears of it. */
  #endWait(id: number): void {
    const call = this.#calls.get(id)
    if (call === undefined || call.turn > 0) return
    const { request } = call
    if (request.kind === 'lease' || request.kind === 'read' || request.kind === 'watch')
      call.request = { ...request, body: { ...request.body, waitMs: 0 } } as LedgerRequest
  }

  /** The wait of `id` is over, and no owner has it: what a lease then answers. */
  endHeldLease(id: number): LedgerAnswer[] {
    const call = this.#calls.get(id)
    if (call === undefined || call.turn > 0 || call.request.kind !== 'lease') return []
    this.#calls.delete(id)
    return [{ id, value: { status: 'empty' } }]
  }
}

const AGAIN = 'Sent again under the same idempotency key it is stored once.'

function waitOf(request: LedgerRequest): number {
  return request.kind === 'lease' || request.kind === 'read' || request.kind === 'watch' ? request.body.waitMs : 0
}

function isChanging({ kind, body }: LedgerRequest): boolean {
  if (kind === 'command') return !['dead', 'recall'].includes((body as Command).kind)
  return kind === 'append' || kind === 'settle' || kind === 'declare'
}

function isRepeatable({ kind, body }: LedgerRequest): boolean {
  if (kind === 'append') return (body as readonly AppendRequest[]).every(isKeyed)
  if (kind === 'command') return isRepeatableCommand(body as Command)
  // What was granted and not heard of ends with its time. Whoever asked is told that it may be so (P3).
  return kind !== 'lease'
}

/** The answer to something that was sent twice: "lost" may be what the first time did. */
function doubtful({ kind }: LedgerRequest, answer: LedgerAnswer): LedgerAnswer {
  if (kind !== 'settle' || !('value' in answer)) return answer
  const outcomes = answer.value as readonly SettleOutcome[]
  const isLost = outcomes.some((outcome) => outcome.status === 'settled' && outcome.lost.length > 0)
  if (!isLost) return answer
  return failed(
    answer.id,
    'UNKNOWN',
    'The owner changed while a settle was under way, and the new one finds the lease gone: either it took effect, or the lease had ended.',
  )
}

function failed(
  id: number,
  code: ErrorCode,
  message: string,
  details: Readonly<Record<string, unknown>> = {},
): LedgerAnswer {
  return { id, error: { code, message, details } }
}
