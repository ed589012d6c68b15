/**
 * The broker: a ledger over a log, and the loop that drives both. Take every request that is waiting, apply, commit
 * once, answer all. While a commit is under way the next requests gather, so that batches grow with the load and nobody
 * waits for a timer (group commit).
 *
 * States
 *     idle -- request or timer --> busy -- nothing waits --> idle
 *     idle, busy -- close --> closing -- last step --> closed
 *     any -- failed write, damage, lost ownership --> failed
 *
 * Invariants
 *  1. No answer is sent before the commit of its step is durable (P1).
 *  2. After `failed` nothing is applied: every request, waiting or new, is answered with the error.
 *  3. Nothing is answered, though nothing was changed, by one that another owner may have followed (P6).
 *  4. One commit at a time; requests of one caller are applied in the order in which it sent them.
 */
import { SluiceError } from '../errors.ts'
import type { Host } from '../host/host.ts'
import { Ledger, type LedgerLog } from '../ledger/ledger.ts'
import type { AnswerError, LedgerAnswer, LedgerRequest } from '../ledger/requests.ts'
import type { Answer, Log, LogHealth, Ownership, StoredBatch } from '../logs/contract.ts'

/** How much is read from the log at once for the walk of a group. */
const READ_BYTES = 262_144
/** How often a full disk is tried again. */
const DISK_RETRY_MS = 1_000
/** Work in one step, so that one flood does not make everybody else wait. */
const MAX_REQUESTS_PER_STEP = 4_096

/** Gets answers, and how many requests were taken in. */
export type Emit = (answers: readonly LedgerAnswer[], taken: number) => void

type Mode = 'idle' | 'busy' | 'closing' | 'closed' | 'failed'

export class Broker {
  readonly #log: Log
  readonly #host: Host
  readonly #emit: Emit
  readonly #ledger: Ledger
  readonly #ownership: Ownership
  #waiting: LedgerRequest[] = []
  readonly #unanswered = new Set<number>()
  /** Requests of the step under way: if it fails, nobody can tell what became of them (P2). */
  #inStep: readonly LedgerRequest[] = []
  #mode: Mode = 'idle'
  #failure: SluiceError | null = null
  #wakeAtMs = Number.POSITIVE_INFINITY
  #cancelTimer: () => void = () => {}
  #diskFullUntilMs = 0
  /** Resolved when the loop has come to rest after `close`. */
  #rested: (() => void) | null = null
  #closing: Promise<void> | null = null

  readonly #onFailure: (error: SluiceError) => void

  private constructor(
    log: Log,
    ownership: Ownership,
    ledger: Ledger,
    host: Host,
    emit: Emit,
    onFailure: (error: SluiceError) => void,
  ) {
    this.#log = log
    this.#ownership = ownership
    this.#ledger = ledger
    this.#host = host
    this.#emit = emit
    this.#onFailure = onFailure
    ownership.signal.addEventListener('abort', () => this.#fail(ownership.signal.reason))
  }

  /**
   * Opens the ledger over `log`. `emit` gets answers, and how many requests of `submit` they and earlier ones took in;
   * `onFailure` hears why the broker became `failed`, once, before anybody is answered so.
   */
  static async open(
    log: Log,
    host: Host,
    emit: Emit,
    onFailure: (error: SluiceError) => void = () => {},
  ): Promise<Broker> {
    const ownership = await log.own()
    const ledger = new Ledger(ledgerLog(log), ownership.state, () => host.random())
    await ledger.open(host.now())
    const broker = new Broker(log, ownership, ledger, host, emit, onFailure)
    await broker.#step([])
    // What a damaged or failing log says on opening is said to who opens it.
    if (broker.#failure !== null) throw broker.#failure
    broker.#run()
    return broker
  }

  /** Takes requests in. Each is answered through `emit`. */
  submit(requests: readonly LedgerRequest[]): void {
    if (this.#mode === 'failed' || this.#mode === 'closed') {
      const error = this.#failure ?? new SluiceError('CLOSED')
      this.#emit(
        requests.map(({ id }) => ({ id, error: wireError(error) })),
        requests.length,
      )
      return
    }
    for (const request of requests) {
      this.#waiting.push(request)
      this.#unanswered.add(request.id)
    }
    this.#run()
  }

  /** Whether it ended otherwise than by `close`: of the last step nobody knows what became. */
  get hasFailed(): boolean {
    return this.#mode === 'failed'
  }

  health(): Answer<LogHealth> {
    return this.#log.health()
  }

  /** P12: applies what waits, ends waits, gives back what is held in process, closes the log. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    if (this.#mode !== 'failed') {
      this.submit([{ id: -1, kind: 'stop', body: null }])
      const wasBusy = this.#mode === 'busy'
      if (wasBusy) await new Promise<void>((resolve) => (this.#rested = resolve))
    }
    this.#cancelTimer()
    if (this.#mode !== 'failed') this.#mode = 'closed'
    await this.#log.close()
  }

  #run(): void {
    if (this.#mode !== 'idle') return
    this.#mode = 'busy'
    while (this.#waiting.length > 0 || this.#wakeAtMs <= this.#host.now()) {
      const step = this.#step(this.#take())
      if (step !== undefined) {
        step.then(
          () => this.#rest(),
          (error) => this.#fail(error),
        )
        return
      }
      if ((this.#mode as Mode) === 'failed') return
    }
    this.#rest()
  }

  #take(): LedgerRequest[] {
    if (this.#waiting.length <= MAX_REQUESTS_PER_STEP) {
      const taken = this.#waiting
      this.#waiting = []
      return taken
    }
    return this.#waiting.splice(0, MAX_REQUESTS_PER_STEP)
  }

  #rest(): void {
    if (this.#mode !== 'busy') return
    this.#mode = 'idle'
    if (this.#waiting.length > 0) return this.#run()
    this.#cancelTimer()
    if (Number.isFinite(this.#wakeAtMs)) {
      this.#cancelTimer = this.#host.setTimer(this.#wakeAtMs - this.#host.now(), () => this.#run())
    }
    this.#rested?.()
    this.#rested = null
  }

  /** One step of the loop; a promise only where the log needs one. */
  #step(requests: readonly LedgerRequest[]): Promise<void> | undefined {
    try {
      if (this.#ledger.refusesAppends && this.#host.now() >= this.#diskFullUntilMs) this.#ledger.refusesAppends = false
      const step = this.#ledger.apply(requests, this.#host.now())
      const { commit } = step
      this.#inStep = requests
      if (commit.outputs.length === 0 && commit.changes.size === 0) {
        const owned = step.answers.length === 0 ? 'owned' : (this.#log.confirm?.(this.#ownership) ?? 'owned')
        const settle = (status: 'owned' | 'lost') =>
          this.#settle(requests, step, status === 'owned' ? 'durable' : 'lost')
        return owned instanceof Promise ? owned.then(settle) : settle(owned)
      }
      const outcome = this.#log.commit(this.#ownership, commit)
      if (outcome instanceof Promise) return outcome.then((kept) => this.#settle(requests, step, kept.status))
      return this.#settle(requests, step, outcome.status)
    } catch (error) {
      this.#fail(error)
      return undefined
    }
  }

  #settle(
    requests: readonly LedgerRequest[],
    step: ReturnType<Ledger['apply']>,
    status: 'durable' | 'full' | 'lost',
  ): Promise<void> | undefined {
    if (status === 'durable') return this.#finish(requests, step)
    if (status === 'lost') {
      this.#fail(new SluiceError('ENGINE_FAILED', 'Another process took the data over; this one stopped'))
      return undefined
    }
    return this.#retryWithoutAppends(requests)
  }

  /** P13: the disk is full and nothing was kept. The same requests again, with appends refused. */
  async #retryWithoutAppends(requests: readonly LedgerRequest[]): Promise<void> {
    if (this.#ledger.refusesAppends) {
      this.#fail(
        new SluiceError(
          'ENGINE_FAILED',
          'The disk is full and the reserve is used up, so that settling is not possible',
        ),
      )
      return
    }
    this.#diskFullUntilMs = this.#host.now() + DISK_RETRY_MS
    await this.#ledger.restore(requests, true)
    await this.#step(requests)
  }

  #finish(requests: readonly LedgerRequest[], step: ReturnType<Ledger['apply']>): undefined {
    this.#wakeAtMs = step.wakeAtMs
    this.#inStep = []
    for (const { id } of step.answers) this.#unanswered.delete(id)
    if (requests.length > 0 || step.answers.length > 0) this.#emit(step.answers, requests.length)
    return undefined
  }

  #fail(cause: unknown): void {
    if (this.#mode === 'failed' || this.#mode === 'closed') return
    this.#mode = 'failed'
    this.#cancelTimer()
    this.#failure = toFailure(cause)
    this.#onFailure(this.#failure)
    const error = wireError(this.#failure)
    const taken = this.#waiting.length
    this.#waiting = []
    const unknown = wireError(unknownOutcome(this.#failure))
    const inStep = new Set(this.#inStep.filter(({ kind }) => CHANGING.has(kind)).map(({ id }) => id))
    const answers = [...this.#unanswered].map((id) => ({ id, error: inStep.has(id) ? unknown : error }))
    this.#unanswered.clear()
    this.#emit(answers, taken)
    this.#rested?.()
  }
}

/** A log as the ledger sees it: what is not here at once is fetched, and asked for again. */
function ledgerLog(log: Log): LedgerLog {
  return {
    abilities: log.abilities,
    trim: (topic, partition, offset) => log.trim(topic, partition, offset),
    declareTopics: (topics) => log.declare(topics),
    fetch(topic, offset): readonly StoredBatch[] | null {
      const batches = log.read(topic, 0, offset, READ_BYTES)
      return batches instanceof Promise ? null : batches
    },
  }
}

function toFailure(cause: unknown): SluiceError {
  if (cause instanceof SluiceError && (cause.code === 'CORRUPT' || cause.code === 'ENGINE_FAILED')) return cause
  const text = cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause)
  const stack = cause instanceof Error ? cause.stack : undefined
  return new SluiceError('ENGINE_FAILED', `The engine stopped: ${text}`, { stack }, cause)
}

/** What may have been kept by a commit whose outcome is not known. */
const CHANGING: ReadonlySet<LedgerRequest['kind']> = new Set(['declare', 'append', 'settle', 'command'])

/** The failure as whoever asked for a change hears of it: it may be stored, and may be not (P2). */
export function unknownOutcome(failure: SluiceError): SluiceError {
  const text = `Whether it took effect is not known: ${failure.message}`
  return new SluiceError('UNKNOWN', text, { ...failure.details, code: failure.code }, failure)
}

function wireError(error: SluiceError): AnswerError {
  return { code: error.code, message: error.message, details: error.details }
}
