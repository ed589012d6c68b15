/**
 * One rule of this process over the data of a namespace: the log, the desk and the ledger of one epoch.
 *
 *     made ──begin (claim, replay)──> begun ──the grant ends──> `ended` rejects ──drop──> over
 *                                       └── leave: what was taken is answered, members hear who was heard ──> over
 */
import type { EngineAbilities } from '../../engine/abilities.ts'
import type { SluiceError } from '../../errors.ts'
import type { Host } from '../../host/host.ts'
import type { LedgerAnswer } from '../../ledger/requests.ts'
import type { Answer, LogHealth } from '../../logs/contract.ts'
import type { ReplicatedLog } from '../../logs/replicated.ts'
import { Broker } from '../broker.ts'
import { abilitiesOver } from '../link.ts'
import { Desk } from './desk.ts'
import { LETTER_VERSION, type Letter, type OwnerLetter } from './letters.ts'

/** How long an owner that stops waits until members have heard their last answers. */
const LAST_WORDS_MS = 1_000
const LOOK_MS = 20
/** How long the last commits may take when this process stops. */
const LAST_COMMITS_MS = 30_000

export interface RulingHooks {
  /** Best effort. */
  write(to: string, letter: Letter): Promise<void>
  /** Answers for this process. */
  answer(answers: readonly LedgerAnswer[]): void
  /** Requests of this process may have been taken in. */
  taken(): void
  /** The ledger has ended, though the grant has not: that is a bug or a damaged cache, and nothing that passes. */
  fail(error: SluiceError): void
}

export class Ruling {
  readonly log: ReplicatedLog
  readonly desk: Desk
  /** Never resolves; rejects with why the grant has ended. */
  readonly ended: Promise<never>
  readonly #host: Host
  readonly #hooks: RulingHooks
  #broker: Broker | null = null

  constructor(log: ReplicatedLog, host: Host, hooks: RulingHooks) {
    this.log = log
    this.#host = host
    this.#hooks = hooks
    this.ended = new Promise<never>((_resolve, reject) => {
      log.signal.addEventListener('abort', () => reject(log.signal.reason), { once: true })
    })
    // Nobody may be listening yet.
    this.ended.catch(() => {})
    this.desk = new Desk(host, log.epoch, {
      send: (to, letter) => void hooks.write(to, letter),
      submit: (requests) => this.#broker?.submit(requests),
      note: (session, turn) => log.noteHeard(session, turn),
      forget: (session) => log.forgetHeard(session),
      answer: (answers) => hooks.answer(answers),
    })
  }

  /** Runs the ledger, by the clock of the namespace. */
  async begin(clock: Host): Promise<void> {
    const { log, desk } = this
    const broker = await Broker.open(
      log,
      clock,
      (answers) => {
        // What fails because the grant has ended is not answered so: it is asked again, of the next owner.
        if (!log.signal.aborted) desk.answer(answers)
        this.#hooks.taken()
      },
      (error) => {
        if (!log.signal.aborted) queueMicrotask(() => this.#hooks.fail(error))
      },
    )
    if (log.signal.aborted) {
      await broker.close()
      throw log.signal.reason
    }
    this.#broker = broker
  }

  get hasBegun(): boolean {
    return this.#broker !== null
  }

  get abilities(): EngineAbilities {
    return abilitiesOver(this.log.abilities)
  }

  /** null: it has not begun. */
  health(): Answer<LogHealth> | null {
    return this.#broker?.health() ?? null
  }

  /** Says that this process owns the data: to all, or as the answer to a hello. */
  letter(address: string, nowMs: number, helloAtMs: number | null): OwnerLetter {
    const { log, abilities } = this
    return {
      kind: 'owner',
      version: LETTER_VERSION,
      address,
      epoch: log.epoch,
      engineId: log.engineId,
      abilities,
      nowMs,
      helloAtMs,
      before: log.heardBefore(),
    }
  }

  /**
   * In good order: answers what was taken, and waits for members to hear it. The letter is the last one of this owner; null: it
   * cannot say who was heard.
   */
  async leave(): Promise<Letter | null> {
    const { desk, log } = this
    const broker = this.#broker
    desk.stop()
    // A broker that does not tell what became of a commit does not keep this process from ending.
    const giveUp = this.#host.setTimer(LAST_COMMITS_MS, () => log.close())
    await broker?.close()
    giveUp()
    // Of what was under way when it ended otherwise nobody was told, and nobody here knows: the next owner does.
    if (broker?.hasFailed === true || !desk.knowsAll) return null
    const untilMs = this.#host.now() + LAST_WORDS_MS
    while (!desk.isConfirmed && this.#host.now() < untilMs)
      await new Promise<void>((resolve) => void this.#host.setTimer(LOOK_MS, () => resolve()))
    return { kind: 'leaving', version: LETTER_VERSION, epoch: log.epoch, heard: desk.inDoubt }
  }

  /** The grant has ended. */
  async drop(): Promise<void> {
    this.desk.close()
    await this.#broker?.close().catch(() => {})
    this.log.close()
  }
}
