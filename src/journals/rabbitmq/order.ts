/**
 * Which messages of the journal's streams count, the same for everybody who reads them.
 *
 * AMQP cannot refuse a message of an owner that another one has replaced, nor tell where in a stream a message came to
 * stand. So each message says who wrote it and as the how-manieth, and the order of the stream decides:
 *
 *   claim   the first message of a grant. Counts if its epoch is above all that counted before it; from then on only
 *           messages of this epoch do.
 *   begin   the first message of an owner in a segment that it rolled to: counts like an entry, and like a claim for who
 *           starts to read at this segment.
 *   entry   counts if it is the next one of the epoch that counts. So what was published twice, since nobody knew whether
 *           the first copy had arrived, counts once; and what comes after a hole does not count until the hole is filled.
 *   seal    counts as an entry does, and ends the segment: nothing after it counts, and the journal goes on in the next.
 *
 * A segment can be judged by itself: an owner writes to one only after its claim there, or after its seal of the one before
 * counted; and a claim of another before that seal would have kept it from counting.
 */

export type Kind = 'claim' | 'begin' | 'entry' | 'seal'

export interface Mark {
  readonly kind: Kind
  readonly epoch: number
  /** From 0 within the epoch. */
  readonly number: number
}

const LETTERS: Readonly<Record<Kind, string>> = { claim: 'c', begin: 'b', entry: 'e', seal: 's' }
const KINDS: Readonly<Record<string, Kind>> = { c: 'claim', b: 'begin', e: 'entry', s: 'seal' }
const MARK = /^sluice1\.([cbes])\.(\d{1,15})\.(\d{1,15})$/

/** As it stands in the message's `message-id`. */
export function writeMark({ kind, epoch, number }: Mark): string {
  return `sluice1.${LETTERS[kind]}.${epoch}.${number}`
}

/** Null where it is none: the message is not ours. */
export function readMark(text: unknown): Mark | null {
  const parts = typeof text === 'string' ? MARK.exec(text) : null
  if (parts === null) return null
  const [, letter = '', epoch, number] = parts
  return { kind: KINDS[letter] as Kind, epoch: Number(epoch), number: Number(number) }
}

/** Follows one journal through its segments. */
export class Order {
  /** Of the claim that counts; -1: none has been met. */
  epoch = -1
  #next = 0
  #isSealed = false

  get isSealed(): boolean {
    return this.#isSealed
  }

  /** Whether this message counts. To be called once for each, in the order of the stream. */
  take({ kind, epoch, number }: Mark): boolean {
    if (this.#isSealed) return false
    const isNext = epoch === this.epoch && number === this.#next
    const isFirst = (kind === 'claim' || kind === 'begin') && epoch > this.epoch
    if (!isNext && !isFirst) return false
    this.epoch = epoch
    this.#next = number + 1
    this.#isSealed = kind === 'seal'
    return true
  }

  /** Goes on in the next segment. */
  turn(): void {
    this.#isSealed = false
  }
}
