/**
 * A conversation between a member and an owner, over letters that may be lost, doubled or late: what one side says comes to
 * the other once and in order, for as long as both live and the epoch is the same.
 *
 * Each side numbers what it says from 1, keeps it until the other says that it has come, and says it again when that takes
 * too long. What comes out of turn is kept for a while, up to a bound; beyond it, it will be said again.
 *
 * Invariants
 *  1. `deliver` gets each payload of the other side once, in the order of its numbers.
 *  2. What was said and not confirmed is in `#unconfirmed`, in order.
 *  3. A letter without a payload (number 0) only confirms, and is never confirmed itself.
 */
import type { Host } from '../../host/host.ts'

/** How long until something is said again: at first, and at the most. */
const AGAIN_MS = 1_000
const MAX_AGAIN_MS = 8_000
/** How long a confirmation waits for something to ride with. */
const CONFIRM_MS = 50
/** How many payloads that came out of turn are kept, apart from the one that is next. */
const MAX_EARLY = 256
/** How many are said again at once. */
const MAX_AGAIN = 16

export interface Turn<T> {
  /** 0: no payload. */
  readonly number: number
  /** All payloads of the other side up to this number have come. */
  readonly confirms: number
  readonly payload: T | null
}

export interface ConversationHooks<Said, Heard> {
  /** Best effort. */
  send(turn: Turn<Said>): void
  deliver(payload: Heard): void
}

export class Conversation<Said, Heard> {
  readonly #host: Host
  readonly #hooks: ConversationHooks<Said, Heard>
  #said = 0
  #unconfirmed: { readonly number: number; readonly payload: Said }[] = []
  #heard = 0
  readonly #early = new Map<number, Heard>()
  #againMs = AGAIN_MS
  /** What was said up to here is said again, a few at a time, until it is confirmed. */
  #againUntil = 0
  #stopAgain: (() => void) | null = null
  #stopConfirm: (() => void) | null = null
  #isClosed = false

  constructor(host: Host, hooks: ConversationHooks<Said, Heard>) {
    this.#host = host
    this.#hooks = hooks
  }

  /** Whether everything that was said has come. */
  get isConfirmed(): boolean {
    return this.#unconfirmed.length === 0
  }

  /** The number that the next payload gets. */
  get nextNumber(): number {
    return this.#said + 1
  }

  say(payload: Said): void {
    if (this.#isClosed) return
    const number = ++this.#said
    this.#unconfirmed.push({ number, payload })
    this.#send({ number, payload })
    this.#setAgain()
  }

  hear({ number, confirms, payload }: Turn<Heard>): void {
    if (this.#isClosed) return
    if ((this.#unconfirmed[0]?.number ?? Number.POSITIVE_INFINITY) <= confirms) {
      this.#unconfirmed = this.#unconfirmed.filter((one) => one.number > confirms)
      this.#againMs = AGAIN_MS
      this.#stopAgain?.()
      this.#stopAgain = null
      // What is lost is rarely one letter: the next ones follow as soon as these are known to have come.
      if ((this.#unconfirmed[0]?.number ?? Number.POSITIVE_INFINITY) <= this.#againUntil) this.#sayAgain()
      this.#setAgain()
    }
    if (number === 0) return
    // The next one always has room: all that is kept waits for it.
    const isNext = number === this.#heard + 1
    if (isNext || (number > this.#heard && this.#early.size < MAX_EARLY)) this.#early.set(number, payload as Heard)
    for (let next = this.#early.get(this.#heard + 1); next !== undefined; next = this.#early.get(this.#heard + 1)) {
      this.#early.delete(++this.#heard)
      this.#hooks.deliver(next)
      if (this.#isClosed) return
    }
    this.#setConfirm()
  }

  /** Says that this side lives and what has come. */
  confirm(): void {
    if (this.#isClosed) return
    this.#send({ number: 0, payload: null })
  }

  close(): void {
    this.#isClosed = true
    this.#stopAgain?.()
    this.#stopConfirm?.()
    this.#stopAgain = this.#stopConfirm = null
    this.#unconfirmed = []
    this.#early.clear()
  }

  #send(turn: { readonly number: number; readonly payload: Said | null }): void {
    this.#stopConfirm?.()
    this.#stopConfirm = null
    this.#hooks.send({ ...turn, confirms: this.#heard })
  }

  #setConfirm(): void {
    if (this.#stopConfirm !== null) return
    this.#stopConfirm = this.#host.setTimer(CONFIRM_MS, () => {
      this.#stopConfirm = null
      // What came twice is confirmed again, since the first confirmation was lost or late.
      this.confirm()
    })
  }

  #setAgain(): void {
    if (this.#stopAgain !== null || this.#unconfirmed.length === 0) return
    this.#stopAgain = this.#host.setTimer(this.#againMs, () => {
      this.#stopAgain = null
      this.#againMs = Math.min(2 * this.#againMs, MAX_AGAIN_MS)
      this.#againUntil = this.#said
      this.#sayAgain()
      this.#setAgain()
    })
  }

  #sayAgain(): void {
    for (const one of this.#unconfirmed.slice(0, MAX_AGAIN)) this.#send(one)
  }
}
