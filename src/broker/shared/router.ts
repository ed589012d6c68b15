/**
 * The router: what stands between the nouns of a process and the one ledger that all processes of a namespace share. Some
 * process owns the journal and runs the ledger; every other one writes letters to it. Which of both this process is changes
 * while it runs, and no caller notices but by its answers taking longer.
 *
 *     seeking ──an owner says so──> member ──leaving, or a later owner──> seeking, member
 *        │                            │
 *        └────────── granted ─────────┴──> taking (claim, replay) ──> owner ──grant ended──> seeking
 *     any ──damage, another engine──> failed           any ──close──> closing ──> closed
 *
 * This process always asks for the grant, whatever it is: it gets it when nobody has it any more. What it does with one is in
 * ruling.ts.
 *
 * Invariants
 *  1. `mode` is set by `#become` alone. A ledger runs only while it is `owner` or `closing`.
 *  2. What is asked is in `calls` until it is answered; it is with one owner at a time.
 *  3. An owner's letters of an epoch below the highest heard of are overlooked.
 */
import { randomUUID } from 'node:crypto'
import type { EngineAbilities } from '../../engine/abilities.ts'
import { SluiceError } from '../../errors.ts'
import type { Host } from '../../host/host.ts'
import type { Grant, Journal, Mailbox } from '../../journals/contract.ts'
import type { LedgerAnswer, LedgerRequest } from '../../ledger/requests.ts'
import type { LogHealth } from '../../logs/contract.ts'
import type { ReplicatedLog } from '../../logs/replicated.ts'
import { backoffMs } from '../../policy/retry.ts'
import { Calls } from './calls.ts'
import { Conversation } from './conversation.ts'
import { decodeLetter, encodeLetter, LETTER_VERSION, type Letter, type OwnerLetter } from './letters.ts'
import { OwnerClock } from './owner-clock.ts'
import { Ruling } from './ruling.ts'

const TICK_MS = 1_000
/** How often a member says that it lives, while it waits for something; and asks who the owner is, while it knows none. */
const ALIVE_MS = 4_000
/** Damage and the like: another try would find the same. */
const FATAL: ReadonlySet<string> = new Set(['CORRUPT', 'ENGINE_CHANGED', 'FOREIGN_DATA', 'FORMAT_NEWER', 'UNSUPPORTED'])
/** Between two attempts to own: each that fails leaves a claim in the broker. */
const AGAIN = { baseMs: 250, factor: 2, maxMs: 8_000 }
/** After so many questions that no owner answered, everybody is asked: the owner may not hear what is for it. */
const UNHEARD_HELLOS = 2

type Mode = 'seeking' | 'member' | 'taking' | 'owner' | 'closing' | 'closed' | 'failed'

export interface RouterOptions {
  readonly journal: Journal
  readonly host: Host
  openLog(grant: Grant, engineId: string | null): ReplicatedLog
  /** Answers for this process; none, where only its requests were taken in. */
  emit(answers: readonly LedgerAnswer[]): void
  /** The clock that the ledger goes by is so far ahead of this machine's from now on. 0 until then. */
  onClock(aheadMs: number): void
}

interface Following {
  readonly owner: OwnerLetter
  readonly session: string
  readonly conversation: Conversation<readonly LedgerRequest[], readonly LedgerAnswer[]>
}

export class Router {
  readonly #options: RouterOptions
  readonly #calls = new Calls()
  readonly #clock: OwnerClock
  #toldAheadMs = 0
  #mailbox: Mailbox | null = null
  #mode: Mode = 'seeking'
  #ruling: Ruling | null = null
  #following: Following | null = null
  /** The session with an owner that is gone, until the next one says what came of it. */
  #past: { readonly session: string; readonly epoch: number } | null = null
  #highestEpoch = 0
  #engineId: string | null = null
  #failure: SluiceError | null = null
  /** Why this process could not become the owner when it last tried. */
  #trouble: string | null = null
  #hellos = 0
  #lastAliveMs = 0
  #stopTick: () => void = () => {}
  readonly #stopping = new AbortController()
  #settled: { resolve: (abilities: EngineAbilities) => void; reject: (error: unknown) => void } | null = null
  #closing: Promise<void> | null = null

  private constructor(options: RouterOptions) {
    this.#options = options
    this.#clock = new OwnerClock(options.host)
  }

  /** Resolves when this process owns the data, or has heard of who does. Rejects with UNREACHABLE, or why it never will. */
  static async open(options: RouterOptions, withinMs: number): Promise<{ router: Router; abilities: EngineAbilities }> {
    const router = new Router(options)
    const { journal, host } = options
    const { promise: found, resolve, reject } = Promise.withResolvers<EngineAbilities>()
    router.#settled = { resolve, reject }
    const giveUp = host.setTimer(withinMs, () => reject(router.#openingError(withinMs)))
    try {
      const opening = journal.openMailbox((letter) => router.#hear(letter))
      // Whatever it still becomes when this has been given up.
      opening.catch(() => {})
      router.#mailbox = await Promise.race([opening, found.then(() => opening)])
      router.#tick()
      void router.#campaign()
      router.#sayHello()
      return { router, abilities: await found }
    } catch (error) {
      await router.close()
      throw error
    } finally {
      giveUp()
      router.#settled = null
    }
  }

  #openingError(withinMs: number): SluiceError {
    const text =
      this.#mailbox === null
        ? `The broker did not answer within ${withinMs} ms.`
        : (this.#trouble ??
          `Another process seems to own the data there, and did not answer within ${withinMs} ms. It may be stopping, or hang: look at the processes that use this broker.`)
    return new SluiceError('UNREACHABLE', text)
  }

  get isOwner(): boolean {
    return this.#mode === 'owner'
  }

  submit(requests: readonly LedgerRequest[]): void {
    if (this.#failure !== null || this.#mode === 'closed' || this.#mode === 'closing') {
      const { code, message, details } = this.#failure ?? new SluiceError('CLOSED')
      this.#options.emit(requests.map(({ id }) => ({ id, error: { code, message, details } })))
      return
    }
    const aborts = requests.filter(({ kind }) => kind === 'abort')
    this.#calls.add(requests, this.#options.host.now())
    this.#send()
    for (const abort of aborts) this.#sendAbort(abort)
  }

  async health(): Promise<LogHealth> {
    const known = this.#ruling?.health() ?? null
    if (known !== null) return known
    const { status, reasons, storedBytes } = await this.#options.journal.health()
    const isAlone = this.#mode === 'seeking' || this.#mode === 'taking'
    const why =
      this.#failure !== null
        ? [this.#failure.message]
        : isAlone
          ? [`No process owns the data now; this one is trying to.${this.#trouble === null ? '' : ` ${this.#trouble}`}`]
          : []
    return {
      status: this.#failure !== null ? 'failed' : isAlone && status === 'ok' ? 'degraded' : status,
      reasons: [...why, ...reasons],
      counters: { commits: 0, syncs: 0, rowsRead: 0, rowsWritten: 0, bytesWritten: 0 },
      storedBytes,
    }
  }

  /** P12. Another process can take over as soon as this has ended. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#stopTick()
    const wasFailed = this.#mode === 'failed'
    this.#become('closing')
    this.#stopping.abort(new SluiceError('CLOSED'))
    const ruling = this.#ruling
    if (ruling?.hasBegun === true && !wasFailed) {
      const lastWords = await ruling.leave()
      if (lastWords !== null) {
        await this.#mailbox?.serveOwner(false)
        await this.#write('all', lastWords)
      }
    }
    const { code, message, details } = this.#failure ?? new SluiceError('CLOSED')
    this.#emit(this.#calls.fail(code, message, details))
    await this.#sayBye()
    ruling?.desk.close()
    ruling?.log.close()
    await this.#mailbox?.close()
    await this.#options.journal.close()
    this.#become('closed')
  }

  async #sayBye(): Promise<void> {
    const following = this.#following
    if (following === null) return
    following.conversation.close()
    const { owner, session } = following
    await this.#write(owner.address, { kind: 'bye', version: LETTER_VERSION, epoch: owner.epoch, session })
  }

  #become(mode: Mode): void {
    if (this.#mode === 'closed') return
    if (this.#mode === 'closing' && mode !== 'closed') return
    if (this.#mode === 'failed' && mode !== 'closing') return
    this.#mode = mode
  }

  // ---- owning

  /** Asks for the grant for as long as this process lives, and rules while it has it. */
  async #campaign(): Promise<void> {
    const { journal, host } = this.#options
    for (let tries = 1; !this.#stopping.signal.aborted && this.#failure === null; tries++) {
      try {
        const grant = await journal.own(this.#stopping.signal)
        await this.#rule(grant, () => {
          tries = 0
          this.#trouble = null
        })
      } catch (error) {
        if (this.#stopping.signal.aborted) return
        if (error instanceof SluiceError && FATAL.has(error.code)) return this.#fail(error)
        if (error instanceof SluiceError && error.code === 'CLOSED') return
        if (tries > 0)
          this.#trouble = `This process could not take the data over: ${error instanceof Error ? error.message : error}`
        const ms = Math.max(20, backoffMs(AGAIN, Math.max(1, tries), host.random()))
        await new Promise<void>((resolve) => void host.setTimer(ms, () => resolve()))
      }
    }
  }

  /** Takes the journal over, rules (`onRuling`), and rejects when that is over, with why. */
  async #rule(grant: Grant, onRuling: () => void): Promise<void> {
    const { host, openLog } = this.#options
    this.#stopFollowing()
    this.#become('taking')
    const log = openLog(grant, this.#engineId)
    const ruling = new Ruling(log, host, {
      write: (to, letter) => this.#write(to, letter),
      answer: (answers) => this.#emit(this.#calls.answer(answers)),
      taken: () => this.#options.emit([]),
      fail: (error) => this.#fail(error),
    })
    this.#ruling = ruling
    try {
      this.#clock.lead()
      await ruling.begin(this.#clock.asHost())
      this.#engineId = log.engineId
      this.#highestEpoch = Math.max(this.#highestEpoch, grant.epoch)
      this.#become('owner')
      this.#resolvePast(log.heardBefore())
      onRuling()
      // The broker may be away by now, for longer than the grant.
      await Promise.race([this.#announce(ruling), ruling.ended])
      this.#tellClock()
      this.#settled?.resolve(ruling.abilities)
      this.#send()
      await ruling.ended
    } finally {
      // While closing, `#close` ends it in good order.
      if (this.#mode !== 'closing' && this.#mode !== 'closed') await this.#abdicate(ruling)
    }
  }

  async #abdicate(ruling: Ruling): Promise<void> {
    this.#ruling = null
    this.#clock.follow()
    this.#become('seeking')
    // Only one that ruled has calls of its own with it; before that, those of the owner before are still open.
    if (ruling.hasBegun) this.#past = { session: ruling.desk.ownSession, epoch: ruling.log.epoch }
    await ruling.drop()
    this.#mailbox?.serveOwner(false).catch(() => {})
    this.#sayHello()
  }

  async #announce(ruling: Ruling): Promise<void> {
    await this.#mailbox?.serveOwner(true)
    await this.#write('all', this.#ownerLetter(ruling, null))
  }

  #ownerLetter(ruling: Ruling, helloAtMs: number | null): OwnerLetter {
    return ruling.letter(this.#mailbox?.address as string, this.#clock.now(), helloAtMs)
  }

  // ---- following

  #follow(owner: OwnerLetter): void {
    // Whoever was cut off for a while may not know yet that it owns nothing any more.
    this.#ruling?.log.yieldTo(owner.epoch)
    if (owner.epoch < this.#highestEpoch || this.#isEnding || this.#mode === 'owner' || this.#mode === 'taking') return
    if (this.#following?.owner.epoch === owner.epoch) return
    this.#stopFollowing()
    this.#highestEpoch = owner.epoch
    if (this.#engineId !== null && owner.engineId !== this.#engineId)
      return this.#fail(
        new SluiceError(
          'ENGINE_CHANGED',
          'The broker has the data of another Sluice now: it came back empty, or the URL names another one. Check the broker, then open Sluice again.',
          { engineId: owner.engineId, before: this.#engineId },
        ),
      )
    this.#engineId = owner.engineId
    this.#resolvePast(owner.before)
    this.#openSession(owner)
    this.#become('member')
    if (owner.helloAtMs === null) this.#sayHello()
    this.#send()
  }

  /** Only an answer tells the time: how long an announcement was on its way is not known. */
  #takeTime({ epoch, nowMs, helloAtMs }: OwnerLetter): void {
    const following = this.#following
    if (following === null || following.owner.epoch !== epoch || helloAtMs === null) return
    this.#clock.learn(nowMs, helloAtMs)
    this.#tellClock()
    this.#settled?.resolve(following.owner.abilities)
  }

  #tellClock(): void {
    const { aheadMs } = this.#clock
    if (aheadMs === this.#toldAheadMs) return
    this.#toldAheadMs = aheadMs
    this.#options.onClock(aheadMs)
  }

  #openSession(owner: OwnerLetter): void {
    const session = randomUUID()
    const { host } = this.#options
    const following: Following = {
      owner,
      session,
      conversation: new Conversation<readonly LedgerRequest[], readonly LedgerAnswer[]>(host, {
        send: (turn) =>
          void this.#write(owner.address, {
            kind: 'asks',
            version: LETTER_VERSION,
            epoch: owner.epoch,
            from: this.#mailbox?.address as string,
            session,
            turn,
          }),
        deliver: (answers) => this.#emit(this.#calls.answer(answers)),
      }),
    }
    this.#following = following
  }

  #stopFollowing(): void {
    const following = this.#following
    if (following === null) return
    this.#following = null
    following.conversation.close()
    this.#past = { session: following.session, epoch: following.owner.epoch }
    this.#become('seeking')
  }

  /** There is an owner again: it knows what those before have done of what this process asked. */
  #resolvePast(before: OwnerLetter['before']): void {
    const past = this.#past
    if (past === null) return
    this.#past = null
    if (past.epoch >= before.since) this.#calls.holdAfter(before.turns[past.session] ?? 0)
    this.#emit(this.#calls.loseOwner('the owner of the data has changed, and its answer was lost'))
  }

  /** The owner goes in good order: what it has not heard, nobody has. */
  #heedLeaving({ epoch, heard }: Extract<Letter, { kind: 'leaving' }>): void {
    const following = this.#following
    if (following === null || following.owner.epoch !== epoch) return
    this.#calls.holdAfter(heard[following.session] ?? 0)
    this.#highestEpoch = Math.max(this.#highestEpoch, epoch + 1)
    this.#stopFollowing()
  }

  // ---- letters

  #hear(bytes: Uint8Array): void {
    const letter = decodeLetter(bytes)
    if (letter === null || this.#mode === 'closed') return
    const ruling = this.#ruling
    // One of another version learns by the answer to its hello that it cannot speak to this owner.
    if (letter.version !== LETTER_VERSION && letter.kind !== 'hello') return this.#refuseVersion(letter)
    switch (letter.kind) {
      case 'hello':
        if (this.#mode === 'owner' && ruling !== null)
          void this.#write(letter.from, this.#ownerLetter(ruling, letter.sentAtMs))
        return
      case 'owner':
        this.#hellos = 0
        this.#follow(letter)
        return this.#takeTime(letter)
      case 'leaving':
        return this.#heedLeaving(letter)
      case 'forgotten':
        if (this.#following?.session !== letter.session) return
        this.#stopFollowing()
        this.#past = null
        // What it was too late for has had no effect, and is asked again.
        if (letter.heard !== null) this.#calls.holdAfter(letter.heard)
        this.#emit(this.#calls.loseOwner('the owner took this process for dead'))
        return this.#sayHello()
      case 'asks':
        if (ruling === null || letter.epoch !== ruling.log.epoch) return
        return ruling.desk.hear(letter)
      case 'bye':
        if (letter.epoch === ruling?.log.epoch) ruling.desk.takeLeave(letter.session)
        return
      case 'tells':
        if (this.#following?.session === letter.session) this.#following.conversation.hear(letter.turn)
    }
  }

  #refuseVersion({ kind, version }: Letter): void {
    // An owner of another version: whoever comes later to a namespace must speak as it does.
    if (kind !== 'owner' || this.#mode === 'owner') return
    const text = `The process that owns the data writes letters of version ${version}, and this one of version ${LETTER_VERSION}. Use the same release of Sluice in all processes.`
    this.#fail(new SluiceError('UNSUPPORTED', text))
  }

  #sayHello(): void {
    const from = this.#mailbox?.address as string
    const sentAtMs = this.#options.host.now()
    const to = this.#hellos++ < UNHEARD_HELLOS ? 'owner' : 'all'
    void this.#write(to, { kind: 'hello', version: LETTER_VERSION, from, sentAtMs })
  }

  async #write(to: string, letter: Letter): Promise<void> {
    await this.#mailbox?.send(to, encodeLetter(letter)).catch(() => {})
  }

  // ---- calls

  /** Gives what nobody has to the owner, if there is one. */
  #send(): void {
    const { desk } = this.#ruling ?? {}
    const { conversation } = this.#following ?? {}
    if (this.#mode === 'owner' && desk !== undefined) desk.submitOwn(this.#calls.takeHeld(desk.nextOwnTurn))
    else if (this.#mode === 'member' && conversation !== undefined) {
      const held = this.#calls.takeHeld(conversation.nextNumber)
      if (held.length > 0) conversation.say(held)
    }
  }

  #sendAbort(abort: LedgerRequest): void {
    if (this.#mode === 'owner') this.#ruling?.desk.submitOwn([abort])
    else if (this.#mode === 'member' && this.#following !== null) this.#following.conversation.say([abort])
    else this.#emit(this.#calls.endHeldLease(abort.body as number))
  }

  #emit(answers: readonly LedgerAnswer[]): void {
    if (answers.length > 0) this.#options.emit(answers)
  }

  #tick(): void {
    const { host } = this.#options
    this.#stopTick = host.setTimer(TICK_MS, () => this.#tick())
    const nowMs = host.now()
    this.#emit(this.#calls.takeOverdue(nowMs, this.#trouble))
    this.#ruling?.desk.tick()
    this.#tellClock()
    if (nowMs - this.#lastAliveMs < ALIVE_MS) return
    this.#lastAliveMs = nowMs
    if (this.#following !== null && this.#calls.size > 0) this.#following.conversation.confirm()
    // Whoever waits for an owner, or for a member's next one, asks: an announcement may have been lost.
    if (this.#mode === 'seeking' || this.#mode === 'member') this.#sayHello()
  }

  get #isEnding(): boolean {
    return this.#mode === 'closing' || this.#mode === 'closed' || this.#mode === 'failed'
  }

  #fail(error: SluiceError): void {
    if (this.#isEnding) return
    this.#failure = error
    this.#become('failed')
    this.#following?.conversation.close()
    this.#following = null
    const { code, message, details } = error
    this.#emit(this.#calls.fail(code, message, details))
    this.#settled?.reject(error)
    // The data may be sound where another process looks at it, so it is not kept from them.
    void this.close()
  }
}
