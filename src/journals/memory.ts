/**
 * The memory journal: the specification of a journal in one sitting, and the broker of simulations and tests.
 *
 * What would be a broker is a `MemoryBroker`; each `openMemoryJournal` on it is a process that is connected to it. Faults are
 * asked for on the broker (it is full, letters are lost, the next append breaks off) and on a journal (its grant ends as far
 * as the broker is concerned, and the process hears of it at once or only when it appends).
 */
import { SluiceError } from '../errors.ts'
import type { Durability } from '../logs/contract.ts'
import type {
  Grant,
  Journal,
  JournalAbilities,
  JournalEntry,
  JournalHealth,
  JournalOutcome,
  Mailbox,
} from './contract.ts'

/** How the next append meets the end of its process: before it reached the broker, in the middle, or with its answer. */
export type BreakKind = 'lost' | 'half' | 'kept'

interface Entry {
  readonly place: string
  readonly epoch: number
  readonly bytes: Uint8Array
}

interface Turn {
  readonly journal: MemoryJournal
  readonly take: () => void
}

interface Box {
  readonly address: string
  isOwner: boolean
  readonly onLetter: (letter: Uint8Array) => void
}

/** What all processes of a namespace share. */
export class MemoryBroker {
  readonly abilities: JournalAbilities
  readonly entries: Entry[] = []
  readonly boxes = new Set<Box>()
  readonly turns: Turn[] = []
  epoch = 0
  holder: MemoryJournal | null = null
  /** While set, appends answer `full` with this reason. */
  fullReason: string | null = null
  /** How the next append ends, if not well: the connection of its process breaks with it. */
  breakNext: BreakKind | null = null
  /** Letters that are lost, by their number among those sent; for tests. */
  losesLetter: (number: number) => boolean = () => false
  #letters = 0
  #places = 0

  constructor(durability: Durability = 'memory', maxEntryBytes = 262_144) {
    this.abilities = { durability, copies: 1, maxEntryBytes, maxLetterBytes: 67_108_864 }
  }

  keep(epoch: number, bytes: Uint8Array): string {
    const place = `${++this.#places}`
    this.entries.push({ place, epoch, bytes: bytes.slice() })
    return place
  }

  carry(to: string, letter: Uint8Array): void {
    if (this.losesLetter(++this.#letters)) return
    const copy = letter.slice()
    for (const box of this.boxes) {
      const isFor = to === 'all' || to === box.address || (to === 'owner' && box.isOwner)
      if (isFor) queueMicrotask(() => this.boxes.has(box) && box.onLetter(copy))
    }
  }

  /** Gives the journal to whoever waits longest, if it is free. */
  next(): void {
    if (this.holder !== null) return
    const turn = this.turns.shift()
    if (turn === undefined) return
    this.holder = turn.journal
    turn.take()
  }
}

export function openMemoryJournal(broker: MemoryBroker): MemoryJournal {
  return new MemoryJournal(broker)
}

let addresses = 0

class MemoryJournal implements Journal {
  readonly abilities: JournalAbilities
  readonly #broker: MemoryBroker
  #granted: { readonly epoch: number; readonly end: AbortController } | null = null
  #box: Box | null = null
  #isClosed = false
  readonly #closing = new AbortController()

  constructor(broker: MemoryBroker) {
    this.#broker = broker
    this.abilities = broker.abilities
  }

  own(signal: AbortSignal): Promise<Grant> {
    const broker = this.#broker
    this.#release(new SluiceError('UNREACHABLE', 'The grant was given up for another one.'))
    return new Promise((resolve, reject) => {
      const stop = AbortSignal.any([signal, this.#closing.signal])
      const turn: Turn = {
        journal: this,
        take: () => {
          stop.removeEventListener('abort', leave)
          const end = new AbortController()
          const epoch = ++broker.epoch
          this.#granted = { epoch, end }
          resolve({ epoch, signal: end.signal })
        },
      }
      const leave = () => {
        const at = broker.turns.indexOf(turn)
        if (at >= 0) broker.turns.splice(at, 1)
        reject(stop.reason)
      }
      if (stop.aborted) return leave()
      stop.addEventListener('abort', leave, { once: true })
      broker.turns.push(turn)
      broker.next()
    })
  }

  async append(grant: Grant, entries: readonly Uint8Array[]): Promise<JournalOutcome> {
    await Promise.resolve()
    const broker = this.#broker
    // A grant that was given up for another one says nothing of that one.
    if (this.#granted?.epoch !== grant.epoch) return { status: 'lost' }
    if (grant.epoch !== broker.epoch) return this.#lose()
    if (broker.fullReason !== null) return { status: 'full', reason: broker.fullReason }
    const broken = broker.breakNext
    broker.breakNext = null
    const kept = broken === 'lost' ? [] : broken === 'half' ? entries.slice(0, Math.floor(entries.length / 2)) : entries
    const places = kept.map((bytes) => broker.keep(grant.epoch, bytes))
    if (broken === null) return { status: 'durable', places }
    const error = new SluiceError('UNKNOWN', `The connection broke within an append, which was ${broken}.`)
    this.breakOff(error)
    throw error
  }

  async *replay(_grant: Grant): AsyncIterable<JournalEntry> {
    // As of the call, though it is read in pieces.
    const entries = this.#broker.entries.slice()
    for (const { place, bytes } of entries) yield { place, bytes: bytes.slice() }
  }

  async truncate(grant: Grant, place: string): Promise<void> {
    const { entries, epoch } = this.#broker
    if (grant.epoch !== epoch) return
    const at = entries.findIndex((entry) => entry.place === place)
    if (at > 0) entries.splice(0, at)
  }

  async openMailbox(onLetter: (letter: Uint8Array) => void): Promise<Mailbox> {
    const box: Box = { address: `process-${++addresses}`, isOwner: false, onLetter }
    this.#box = box
    this.#broker.boxes.add(box)
    return {
      address: box.address,
      send: async (to, letter) => {
        if (this.#broker.boxes.has(box)) this.#broker.carry(to, letter)
      },
      serveOwner: async (isOwner) => {
        box.isOwner = isOwner
      },
      close: async () => {
        this.#broker.boxes.delete(box)
      },
    }
  }

  async health(): Promise<JournalHealth> {
    const { fullReason, entries } = this.#broker
    const storedBytes = entries.reduce((sum, { bytes }) => sum + bytes.byteLength, 0)
    const reasons = fullReason === null ? [] : [fullReason]
    return { status: fullReason === null ? 'ok' : 'degraded', reasons, facts: {}, storedBytes }
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    const closed = new SluiceError('CLOSED')
    this.#closing.abort(closed)
    this.#release(closed)
    if (this.#box !== null) this.#broker.boxes.delete(this.#box)
  }

  /** The broker gives the journal to another. `reason` null: this process does not hear of it until it appends. */
  breakOff(reason: SluiceError | null): void {
    this.#release(reason)
  }

  #lose(): JournalOutcome {
    this.#release(new SluiceError('UNREACHABLE', 'Another process has taken the journal over.'))
    return { status: 'lost' }
  }

  #release(reason: SluiceError | null): void {
    const broker = this.#broker
    if (reason !== null) {
      this.#granted?.end.abort(reason)
      this.#granted = null
    }
    if (broker.holder !== this) return
    broker.holder = null
    broker.next()
  }
}

export type { MemoryJournal }
