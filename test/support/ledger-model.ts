/**
 * A naive model of what the ledger promises: plain arrays, every question answered by looking at all of them. It is fed
 * with what was asked and what was answered, says what must have been answered where that is one thing, and checks that
 * it was one of the things allowed where it is not (a random back-off, which of two heads goes first).
 *
 * Times, chance and the order within a step are the driver's. The checks against the ledger's own counters are in
 * ledger-checks.ts.
 */
import { strict as assert } from 'node:assert'
import type { Settlement } from '../../src/engine/contract.ts'
import type { GroupSettings } from '../../src/engine/options.ts'

export interface ModelMessage {
  readonly payload: string
  readonly key: string | undefined
  readonly priority: number
  readonly deadlineMs: number
  /** As counted against the limit. */
  readonly size: number
}

export type ModelState = 'waiting' | 'leased' | 'parked' | 'blocked' | 'settled'

/** A message as one group sees it. */
export interface ModelPlace {
  readonly offset: number
  readonly message: ModelMessage
  state: ModelState
  /** How it ended. */
  end: 'completed' | 'failed' | 'cancelled' | 'expired' | null
  result: string | undefined
  attempts: number
  forgiven: number
  /** While parked: it is due from the earlier of the two on, and at the later one for certain. */
  dueFromMs: number
  dueByMs: number
  suspect: boolean
  fence: number
  /** What `once` keeps. */
  readonly kept: Map<string, string>
}

interface ModelLease {
  readonly token: string | undefined
  expiresAtMs: number
  readonly offsets: readonly number[]
}

export class ModelGroup {
  readonly settings: GroupSettings
  readonly topic: ModelTopic
  base = 0
  paused = false
  lastFence = 0
  /** By offset; holes below `base`. */
  places: ModelPlace[] = []
  readonly leases = new Map<number, ModelLease>()
  /** Lanes whose head was found expired in this step, maybe after others were handed out. */
  readonly freed = new Set<string>()
  /** Offsets of dead letters. */
  readonly dead = new Set<number>()

  constructor(topic: ModelTopic, settings: GroupSettings, base: number) {
    this.topic = topic
    this.settings = settings
    this.seek(base)
  }

  get open(): ModelPlace[] {
    return this.places.filter((place) => place !== undefined && place.state !== 'settled')
  }

  get floor(): number {
    return this.open[0]?.offset ?? this.topic.messages.length
  }

  get leased(): ModelPlace[] {
    return this.open.filter(({ state }) => state === 'leased')
  }

  seek(base: number): void {
    this.base = base
    this.leases.clear()
    this.places = []
    this.topic.messages.forEach((message, offset) => {
      if (offset >= base) this.places[offset] = newPlace(offset, message)
    })
  }

  laneOf(place: ModelPlace): string {
    if (this.settings.strict) return 'the one'
    return place.message.key === undefined ? `alone ${place.offset}` : `key ${place.message.key}`
  }

  /** The first message of each lane that is not settled. */
  heads(): ModelPlace[] {
    const heads = new Map<string, ModelPlace>()
    for (const place of this.open) {
      const lane = this.laneOf(place)
      if (!heads.has(lane)) heads.set(lane, place)
    }
    return [...heads.values()]
  }

  isExpired(place: ModelPlace, nowMs: number): boolean {
    const { deadlineMs } = place.message
    return place.state === 'waiting' && deadlineMs !== 0 && deadlineMs <= nowMs
  }

  /** Whether a head must be handed out to whoever asks, were it not for others. */
  isAvailable(place: ModelPlace, nowMs: number): boolean {
    if (place.state === 'parked') return place.dueByMs <= nowMs
    return place.state === 'waiting' && !this.isExpired(place, nowMs)
  }

  // ---- leases

  handOut(
    fence: number,
    token: string | undefined,
    expiresAtMs: number,
    offsets: readonly number[],
    attempts: readonly number[],
    nowMs: number,
  ): void {
    assert.ok(fence > this.lastFence, `fence ${fence} is above ${this.lastFence}`)
    assert.equal(this.paused, false, 'a paused group hands nothing out')
    assert.ok(!this.leased.some(({ suspect }) => suspect), 'nothing is handed out beside a suspect')
    const wasHeld = this.leased.length
    this.lastFence = fence
    for (const [i, offset] of offsets.entries()) {
      const heads = this.heads()
      const place = this.places[offset]
      assert.ok(place !== undefined && heads.includes(place), `${offset} is the first of its lane that is not settled`)
      assert.ok(
        place.state === 'waiting' || place.state === 'parked',
        `${offset} can be handed out, but is ${place.state}`,
      )
      if (place.state === 'parked') assert.ok(place.dueFromMs <= nowMs, `${offset} is due`)
      assert.ok(!this.isExpired(place, nowMs), `the deadline of ${offset} has not passed`)
      assert.equal(attempts[i], place.attempts + 1, `attempts of ${offset} rise by one`)
      if (place.suspect) assert.ok(offsets.length === 1 && wasHeld === 0, `${offset}, a suspect, goes out alone`)
      else this.#checkPriority(place, heads, nowMs)
      place.attempts++
      place.state = 'leased'
      place.fence = fence
    }
    this.leases.set(fence, { token, expiresAtMs, offsets })
  }

  /** P4: no head of a higher class was there. */
  #checkPriority(place: ModelPlace, heads: readonly ModelPlace[], nowMs: number): void {
    for (const other of heads) {
      if (other.suspect || !this.isAvailable(other, nowMs) || this.freed.has(this.laneOf(other))) continue
      assert.ok(
        other.message.priority >= place.message.priority,
        `${place.offset} of class ${place.message.priority} before ${other.offset}`,
      )
    }
  }

  /** The message that a holder may act on, or undefined. */
  held(fence: number, token: string | undefined, offset: number): ModelPlace | undefined {
    const lease = this.leases.get(fence)
    const place = this.places[offset]
    if (lease === undefined || lease.token !== token || !lease.offsets.includes(offset)) return undefined
    return place?.state === 'leased' && place.fence === fence ? place : undefined
  }

  settle(place: ModelPlace, outcome: Settlement, nowMs: number): void {
    switch (outcome.kind) {
      case 'done':
        this.end(place, 'completed', outcome.result)
        break
      case 'retry':
        this.#fail(place, nowMs, outcome.atMs ?? null, false)
        break
      case 'release':
        place.forgiven++
        park(place, nowMs, nowMs)
        break
      case 'dead':
        this.#die(place)
    }
  }

  end(place: ModelPlace, end: NonNullable<ModelPlace['end']>, result?: string): void {
    assert.notEqual(place.state, 'settled', `${place.offset} is settled once`)
    place.state = 'settled'
    place.end = end
    place.result = result
    place.suspect = false
    place.kept.clear()
  }

  expireLeases(nowMs: number): void {
    const over = [...this.leases].filter(([, { token, expiresAtMs }]) => token !== undefined && expiresAtMs <= nowMs)
    for (const [fence, lease] of over.toSorted(([, a], [, b]) => a.expiresAtMs - b.expiresAtMs)) {
      for (const offset of lease.offsets) {
        const place = this.held(fence, lease.token, offset)
        if (place !== undefined) this.#fail(place, nowMs, nowMs, false)
      }
      this.leases.delete(fence)
    }
  }

  /** The process is gone, and what it held are suspects; where it stopped in good order, they are due again at once. */
  loseProcess(nowMs: number, isGraceful: boolean): void {
    for (const [fence, lease] of [...this.leases]) {
      if (lease.token !== undefined) continue
      for (const offset of lease.offsets) {
        const place = this.held(fence, undefined, offset)
        if (place !== undefined) this.#fail(place, nowMs, isGraceful ? nowMs : null, !isGraceful)
      }
      this.leases.delete(fence)
    }
  }

  #fail(place: ModelPlace, nowMs: number, dueAtMs: number | null, suspect: boolean): void {
    const counted = place.attempts - place.forgiven
    if (counted >= this.settings.attempts) {
      this.#die(place)
      return
    }
    const { baseMs, factor, maxMs } = this.settings.backoff
    const latestMs = nowMs + Math.min(maxMs, baseMs * factor ** (counted - 1))
    park(place, dueAtMs ?? nowMs, dueAtMs ?? latestMs)
    place.suspect = suspect
  }

  #die(place: ModelPlace): void {
    if (this.settings.onExhausted === 'block' || this.dead.size >= this.settings.deadLetters) {
      place.state = 'blocked'
      place.suspect = false
      return
    }
    this.dead.add(place.offset)
    this.end(place, 'failed')
  }
}

function park(place: ModelPlace, fromMs: number, byMs: number): void {
  place.state = 'parked'
  place.dueFromMs = fromMs
  place.dueByMs = byMs
}

function newPlace(offset: number, message: ModelMessage): ModelPlace {
  return {
    offset,
    message,
    state: 'waiting',
    end: null,
    result: undefined,
    attempts: 0,
    forgiven: 0,
    dueFromMs: 0,
    dueByMs: 0,
    suspect: false,
    fence: 0,
    kept: new Map(),
  }
}

export interface ModelDelayed {
  readonly dueMs: number
  readonly serial: number
  readonly message: ModelMessage
  /** Where it went. */
  offset: number | 'cancelled' | null
}

/** What an idempotency key stands for. */
interface Known {
  readonly place: string
  readonly payload: string
  readonly atMs: number
}

export class ModelTopic {
  readonly name: string
  readonly kind: 'queue' | 'topic'
  readonly limit: { readonly messages: number; readonly bytes: number }
  readonly idempotencyMs: number
  readonly messages: ModelMessage[] = []
  readonly delayed: ModelDelayed[] = []
  readonly groups = new Map<string, ModelGroup>()
  readonly known = new Map<string, Known>()
  readonly serials = new Set<number>()
  /** The last fences of groups that were forgotten. */
  readonly formerFences = new Map<string, number>()

  constructor(
    name: string,
    kind: 'queue' | 'topic',
    limit: { messages: number; bytes: number },
    idempotencyMs: number,
  ) {
    this.name = name
    this.kind = kind
    this.limit = limit
    this.idempotencyMs = idempotencyMs
  }

  get waitingDelayed(): ModelDelayed[] {
    return this.delayed.filter(({ offset }) => offset === null)
  }

  /** P7: what is not settled, by the group that has most, and what is delayed. */
  depth(leaving?: { group: ModelGroup; places: readonly ModelPlace[] }): { messages: number; bytes: number } {
    let messages = 0
    let bytes = 0
    for (const group of this.groups.values()) {
      const open = group.open.filter((place) => leaving?.group !== group || !leaving.places.includes(place))
      messages = Math.max(messages, open.length)
      bytes = Math.max(bytes, sum(open.map(({ message }) => message.size)))
    }
    const delayed = this.waitingDelayed
    return { messages: messages + delayed.length, bytes: bytes + sum(delayed.map(({ message }) => message.size)) }
  }

  store(message: ModelMessage, offset: number): void {
    assert.equal(offset, this.messages.length, 'places are contiguous')
    this.messages.push(message)
    for (const group of this.groups.values()) group.places[offset] = newPlace(offset, message)
  }

  /** A delayed job takes its place: the one that is due first, then that which was accepted first. */
  placeNext(nowMs: number): void {
    const [next] = this.waitingDelayed.toSorted((a, b) => a.dueMs - b.dueMs || a.serial - b.serial)
    assert.ok(next !== undefined && next.dueMs <= nowMs, 'a delayed job takes its place when it is due, and not before')
    next.offset = this.messages.length
    this.store(next.message, next.offset)
  }
}

export function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, one) => total + one, 0)
}
