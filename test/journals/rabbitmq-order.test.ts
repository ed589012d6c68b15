/** Which messages of the streams of RabbitMQ count: judged over owners that replace one another at any time, by a model. */
import { deepEqual, equal, ok } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { createRandom } from '../../src/host/host.ts'
import { type Kind, type Mark, Order, readMark, writeMark } from '../../src/journals/rabbitmq/order.ts'

type World = Mark[][]

/** An owner as tail.ts is one, without a broker: what it publishes is under way on connections, each of them in order. */
class Owner {
  readonly epoch: number
  readonly acknowledged: number[] = []
  readonly connections: { segment: number; mark: Mark }[][] = [[]]
  readonly #world: World
  readonly #order = new Order()
  #segment: number
  #offset = 0
  #number = 0
  #waiting: Mark[] = []
  #isAtBeginning = false
  isOver = false

  constructor(world: World, epoch: number, segment: number) {
    this.#world = world
    this.epoch = epoch
    this.#segment = segment
    this.store(1, 'claim')
  }

  get isIdle(): boolean {
    return !this.isOver && this.#waiting.length === 0
  }

  store(count: number, first: Kind = this.#isAtBeginning ? 'begin' : 'entry'): void {
    this.#isAtBeginning = false
    this.#waiting = Array.from({ length: count }, (_, at) => {
      return { kind: at === 0 ? first : 'entry', epoch: this.epoch, number: this.#number++ }
    })
    this.publish()
  }

  /** On the newest connection; what an older one has under way still may arrive. */
  publish(): void {
    for (const mark of this.#waiting) this.connections.at(-1)?.push({ segment: this.#segment, mark })
  }

  reconnect(): void {
    this.connections.push([])
    this.publish()
  }

  read(): void {
    const mark = this.#world[this.#segment]?.[this.#offset]
    if (mark === undefined || this.isOver) return
    this.#offset++
    if (!this.#order.take(mark)) return
    if (mark.epoch > this.epoch) {
      this.isOver = true
      return
    }
    if (mark.epoch === this.epoch) {
      deepEqual(mark, this.#waiting.shift(), 'what comes back is the next one that is waited for')
      if (mark.kind !== 'seal') this.acknowledged.push(mark.number)
    }
    if (mark.kind !== 'seal') return
    this.#order.turn()
    this.#segment++
    this.#offset = 0
    this.#isAtBeginning = mark.epoch === this.epoch
    if (mark.epoch < this.epoch) this.publish()
  }

  /** Not of a segment that is empty yet: there must be a claim or a beginning in each. */
  seal(): void {
    if (this.#isAtBeginning) return
    this.#world[this.#segment + 1] ??= []
    this.store(1, 'seal')
  }
}

/** What counts for who reads from a segment on. */
function replay(world: World, first: number): Mark[] {
  const order = new Order()
  const counted: Mark[] = []
  for (const marks of world.slice(first)) {
    for (const mark of marks) if (order.take(mark)) counted.push(mark)
    // A segment that has no seal that counts is the last one.
    if (!order.isSealed) break
    order.turn()
  }
  return counted
}

/** Segments up to the last one, which may have been sealed by messages that do not count. */
function countReached(world: World): number {
  const order = new Order()
  for (const [at, marks] of world.entries()) {
    for (const mark of marks) order.take(mark)
    if (!order.isSealed) return at + 1
    order.turn()
  }
  return world.length
}

function live(seed: number): { world: World; owners: Owner[] } {
  const random = createRandom(seed)
  const pick = (below: number) => Math.floor(random() * below)
  const world: World = [[]]
  const owners: Owner[] = []
  for (let step = 0; step < 600; step++) {
    const isNew = owners.length === 0 || (pick(100) === 0 && owners.length < 5)
    // A new owner begins at the last segment or at one before, as far as the catalog says: seals lead it on.
    if (isNew) owners.push(new Owner(world, owners.length + 1, pick(countReached(world))))
    const owner = owners[pick(owners.length)] as Owner
    const act = pick(20)
    const connection = owner.connections[pick(owner.connections.length)] as { segment: number; mark: Mark }[]
    const arriving = act < 9 ? connection.shift() : undefined
    if (arriving !== undefined) world[arriving.segment]?.push(arriving.mark)
    else if (act < 15) owner.read()
    else if (act === 15) owner.reconnect()
    else if (act === 16 && random() < 0.3) connection.splice(0, pick(3))
    else if (act === 17 && owner.isIdle && random() < 0.3) owner.seal()
    else if (owner.isIdle) owner.store(1 + pick(3))
  }
  return { world, owners }
}

describe('the order of the streams', () => {
  const SEEDS = 2_000
  test(`over ${SEEDS} lives with owners that were replaced, connections that broke, copies and holes: what was acknowledged counts, once, in order`, () => {
    let acknowledged = 0
    let turns = 0
    for (let seed = 1; seed <= SEEDS; seed++) {
      const { world, owners } = live(seed)
      const counted = replay(world, 0)
      for (const { epoch, acknowledged: numbers } of owners) {
        const entries = counted.filter((mark) => mark.epoch === epoch && mark.kind !== 'seal')
        deepEqual(
          entries.slice(0, numbers.length).map(({ number }) => number),
          numbers,
          `seed ${seed}, epoch ${epoch}: acknowledged means that it counts`,
        )
        acknowledged += numbers.length
      }
      deepEqual(
        counted.map(({ epoch }) => epoch),
        counted.map(({ epoch }) => epoch).sort((a, b) => a - b),
        `seed ${seed}: nothing of an earlier owner comes after a later one`,
      )
      turns += world.length - 1
    }
    ok(
      acknowledged > SEEDS * 10 && turns > SEEDS / 2,
      `something happened: ${acknowledged} acknowledged, ${turns} turns`,
    )
  })

  test('a segment is judged alike by who reads from the beginning and by who starts at it', () => {
    for (let seed = 1; seed <= 2_000; seed++) {
      const { world } = live(seed)
      const whole = replay(world, 0)
      for (let first = 1; first < countReached(world); first++) {
        const part = replay(world, first)
        deepEqual(part, part.length === 0 ? [] : whole.slice(-part.length), `seed ${seed}, segment ${first}`)
      }
    }
  })

  test('a mark is read as it was written, and what is none is none', () => {
    for (const kind of ['claim', 'begin', 'entry', 'seal'] as const) {
      const mark = { kind, epoch: 12, number: 345 }
      deepEqual(readMark(writeMark(mark)), mark)
    }
    for (const text of [undefined, 5, '', 'sluice1.x.1.1', 'sluice1.e.1', 'sluice1.e.-1.1', 'sluice2.e.1.1'])
      equal(readMark(text), null)
  })
})
