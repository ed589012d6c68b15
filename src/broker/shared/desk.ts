/**
 * The desk of an owner: takes what members ask, hands it to the broker with the owner's own requests, and tells each who
 * asked. One desk lives as long as one epoch.
 *
 *     open ──stop──> stopping (asks are not heard any more; answers still go out) ──close──> closed
 *
 * A member that is silent for long is gone: its waits are ended, so that nothing is handed to it. What it was handed ends
 * with the time of its lease.
 */
import { randomUUID } from 'node:crypto'
import type { FindOutcome, LeaseOutcome, ReadOutcome } from '../../engine/contract.ts'
import type { Host } from '../../host/host.ts'
import type { LedgerAnswer, LedgerRequest } from '../../ledger/requests.ts'
import { Conversation } from './conversation.ts'
import { type AskLetter, LETTER_VERSION, type Letter } from './letters.ts'

const SILENT_MS = 15_000
/** One that waits for nothing has no reason to speak. */
const IDLE_MS = 600_000
/** Sessions that were ended for their silence, to be told so if they speak again. */
const MAX_FORGOTTEN = 10_000

interface Session {
  readonly name: string
  readonly conversation: Conversation<readonly LedgerAnswer[], readonly LedgerRequest[]>
  heardAtMs: number
  /** How many turns were heard whole. */
  heard: number
  /** The broker's number of what the member asked, by the member's number. */
  readonly asked: Map<number, number>
}

interface Origin {
  /** null: this process. */
  readonly session: Session | null
  readonly id: number
  readonly kind: LedgerRequest['kind']
}

export interface DeskHooks {
  send(to: string, letter: Letter): void
  submit(requests: readonly LedgerRequest[]): void
  /** Before the requests of a turn are submitted. */
  note(session: string, turn: number): void
  /** The member has stopped: nobody will ask for its turns. */
  forget(session: string): void
  /** Answers for this process. */
  answer(answers: readonly LedgerAnswer[]): void
}

export class Desk {
  readonly #host: Host
  readonly #epoch: number
  readonly #hooks: DeskHooks
  readonly #sessions = new Map<string, Session>()
  /** How many turns of each were heard. */
  readonly #forgotten = new Map<string, number>()
  readonly #origins = new Map<number, Origin>()
  /** The broker's number of what this process asked, by its own number. */
  readonly #ownAsked = new Map<number, number>()
  /** Whether `inDoubt` has every session that there was. */
  knowsAll = true
  /** This process, among the sessions of its own desk. */
  readonly ownSession = randomUUID()
  #ownTurns = 0
  #nextId = 1
  #mode: 'open' | 'stopping' | 'closed' = 'open'

  constructor(host: Host, epoch: number, hooks: DeskHooks) {
    this.#host = host
    this.#epoch = epoch
    this.#hooks = hooks
  }

  get memberCount(): number {
    return this.#sessions.size
  }

  /** Whether all members have heard all that they were told. */
  get isConfirmed(): boolean {
    return [...this.#sessions.values()].every(({ conversation }) => conversation.isConfirmed)
  }

  /**
   * Up to which turn something of each member may have taken effect without its knowing: later ones never will. A member that
   * knows all its answers has nothing to doubt, whatever it still waits for.
   */
  get inDoubt(): Readonly<Record<string, number>> {
    const turns = Object.fromEntries(this.#forgotten)
    for (const { name, heard, conversation } of this.#sessions.values())
      turns[name] = conversation.isConfirmed ? 0 : heard
    return turns
  }

  /** The number of the next turn of this process itself. */
  get nextOwnTurn(): number {
    return this.#ownTurns + 1
  }

  /** What this process asks. */
  submitOwn(requests: readonly LedgerRequest[]): void {
    if (requests.length === 0) return
    this.#hooks.note(this.ownSession, ++this.#ownTurns)
    this.#submit(null, requests)
  }

  hear({ from, session: name, turn }: AskLetter): void {
    if (this.#mode === 'closed') return
    let session = this.#sessions.get(name)
    // Whoever has heard something from here, and has no session, had one.
    if (this.#forgotten.has(name) || (session === undefined && turn.confirms > 0)) {
      const heard = this.#forgotten.get(name) ?? null
      this.#hooks.send(from, { kind: 'forgotten', version: LETTER_VERSION, epoch: this.#epoch, session: name, heard })
      return
    }
    if (session === undefined) {
      if (this.#mode !== 'open') return
      session = this.#open(name, from)
    }
    session.heardAtMs = this.#host.now()
    // What comes now is for the next owner: this one confirms what it heard, and hears no more.
    session.conversation.hear(this.#mode === 'open' ? turn : { ...turn, number: 0, payload: null })
  }

  /** What the broker answers. */
  answer(answers: readonly LedgerAnswer[]): void {
    const own: LedgerAnswer[] = []
    const toMembers = new Map<Session, LedgerAnswer[]>()
    for (const answer of answers) {
      const origin = this.#origins.get(answer.id)
      if (origin === undefined) continue
      this.#origins.delete(answer.id)
      const { session, id } = origin
      if (session === null) {
        this.#ownAsked.delete(id)
        own.push({ ...answer, id })
        continue
      }
      session.asked.delete(id)
      if (this.#mode !== 'open' && saysNothing(origin, answer)) continue
      const told = toMembers.get(session)
      if (told === undefined) toMembers.set(session, [{ ...answer, id }])
      else told.push({ ...answer, id })
    }
    for (const [session, told] of toMembers) session.conversation.say(told)
    if (own.length > 0) this.#hooks.answer(own)
  }

  /** Ends what silent members wait for. */
  tick(): void {
    const nowMs = this.#host.now()
    for (const session of this.#sessions.values()) {
      const patienceMs = session.asked.size > 0 || !session.conversation.isConfirmed ? SILENT_MS : IDLE_MS
      if (nowMs - session.heardAtMs >= patienceMs) this.dismiss(session.name)
    }
  }

  /** The member says that it stops. */
  takeLeave(name: string): void {
    if (this.#sessions.has(name)) this.#hooks.forget(name)
    this.dismiss(name)
  }

  /** The member is gone: its waits end. */
  dismiss(name: string): void {
    const session = this.#sessions.get(name)
    if (session === undefined) return
    this.#sessions.delete(name)
    session.conversation.close()
    if (this.#forgotten.size >= MAX_FORGOTTEN) {
      this.#forgotten.delete(this.#forgotten.keys().next().value as string)
      this.knowsAll = false
    }
    this.#forgotten.set(name, session.heard)
    this.#submitRaw([...session.asked.values()].map((body) => ({ id: this.#nextId++, kind: 'abort', body })))
  }

  stop(): void {
    if (this.#mode === 'open') this.#mode = 'stopping'
  }

  close(): void {
    this.#mode = 'closed'
    for (const { conversation } of this.#sessions.values()) conversation.close()
    this.#sessions.clear()
    this.#origins.clear()
  }

  #open(name: string, from: string): Session {
    const epoch = this.#epoch
    const session: Session = {
      name,
      heardAtMs: this.#host.now(),
      heard: 0,
      asked: new Map(),
      conversation: new Conversation<readonly LedgerAnswer[], readonly LedgerRequest[]>(this.#host, {
        send: (turn) => this.#hooks.send(from, { kind: 'tells', version: LETTER_VERSION, epoch, session: name, turn }),
        deliver: (requests) => {
          this.#hooks.note(name, ++session.heard)
          this.#submit(session, requests)
        },
      }),
    }
    this.#sessions.set(name, session)
    return session
  }

  #submit(session: Session | null, requests: readonly LedgerRequest[]): void {
    const numbered: LedgerRequest[] = []
    const asked = session?.asked ?? this.#ownAsked
    for (const request of requests) {
      const id = this.#nextId++
      if (request.kind === 'abort') {
        const body = asked.get(request.body)
        if (body !== undefined) numbered.push({ id, kind: 'abort', body })
        continue
      }
      // A member stops its own waits, and nobody else's.
      if (request.kind === 'stop') continue
      this.#origins.set(id, { session, id: request.id, kind: request.kind })
      asked.set(request.id, id)
      numbered.push({ ...request, id })
    }
    this.#submitRaw(numbered)
  }

  #submitRaw(requests: readonly LedgerRequest[]): void {
    if (requests.length > 0) this.#hooks.submit(requests)
  }
}

/** A wait that ended with nothing, or something that was not begun, because this owner stops: the member asks the next one. */
function saysNothing({ kind }: Origin, answer: LedgerAnswer): boolean {
  if (!('value' in answer)) return answer.error.code !== 'UNKNOWN'
  if (kind === 'lease') return (answer.value as LeaseOutcome).status === 'empty'
  if (kind === 'read') {
    const outcome = answer.value as ReadOutcome
    return outcome.status === 'read' && outcome.messages.length === 0
  }
  if (kind === 'watch') {
    const outcome = answer.value as FindOutcome
    return outcome.status === 'found' && !['completed', 'failed', 'cancelled', 'expired'].includes(outcome.job.status)
  }
  return false
}
