/**
 * Callbacks through random lives: jobs with and without one are added, delayed, leased, settled in every way, cancelled,
 * redriven, expired, through crashes in commits, restarts and full disks. After each life is over, every job that asked has
 * one callback if it ended and none if it did not, and the places that are kept are those of jobs that have not.
 */
import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import { CALLBACKS_QUEUE } from '../../src/engine/options.ts'
import { createRandom } from '../../src/host/host.ts'
import { BatchView } from '../../src/message-batch.ts'
import { type Held, type LedgerDriver, openDriver } from '../support/ledger-driver.ts'

const STEPS = 250
const SEEDS = Number(process.env['SLUICE_SEEDS'] ?? 40)
const ENDED = new Set(['completed', 'failed', 'cancelled', 'expired'])

interface Told {
  readonly id: string
  readonly status: string
}

/** The payload of a job that asks for a callback. */
const ASKS = '1'

class Life {
  readonly driver: LedgerDriver
  readonly #random: () => number
  /** Ids of jobs that asked for a callback, and that did not. */
  readonly #asked = new Set<string>()
  readonly #plain = new Set<string>()
  #held: Held[] = []
  /** What callbacks said, by their place. */
  readonly #told = new Map<number, Told>()

  constructor(driver: LedgerDriver, seed: number) {
    this.driver = driver
    this.#random = createRandom(seed)
  }

  async live(): Promise<void> {
    const { driver } = this
    await driver.queue('q', { attempts: 2, backoff: { baseMs: 50 }, deadLetters: 5, retention: { ms: 1_000_000_000 } })
    await driver.queue(CALLBACKS_QUEUE, { limit: { messages: 30 } })
    for (let i = 0; i < STEPS; i++) await this.#act()
    driver.medium.full = false
    await driver.advance(20_000)
  }

  async #act(): Promise<void> {
    const { driver } = this
    const dice = this.#random()
    if (dice < 0.3) await this.#add()
    else if (dice < 0.5) await this.#lease()
    else if (dice < 0.72) await this.#settle()
    else if (dice < 0.79) await this.#cancel()
    else if (dice < 0.85) await driver.advance(Math.floor(this.#random() * 300))
    else if (dice < 0.88) await this.#restart()
    else if (dice < 0.92) await this.#crash()
    else if (dice < 0.95) driver.medium.full = !driver.medium.full
    else if (dice < 0.97) await this.#redrive()
    else await this.#takeCallbacks()
    this.#checkPlaces()
  }

  async #add(): Promise<void> {
    const { driver } = this
    const isAsking = this.#random() < 0.6
    const outcomes = await driver.add('q', {
      payload: isAsking ? ASKS : '0',
      ...(isAsking ? { callbackUrl: 'https://receiver.example/' } : {}),
      ...(this.#random() < 0.3 ? { dueAtMs: driver.nowMs + Math.floor(this.#random() * 400) } : {}),
      ...(this.#random() < 0.2 ? { deadlineMs: driver.nowMs + 1 + Math.floor(this.#random() * 300) } : {}),
    })
    const [outcome] = outcomes
    if (outcome?.status !== 'stored' && outcome?.status !== 'scheduled') return
    const id = outcome.status === 'stored' ? driver.id('q', outcome.offset) : driver.scheduledId('q', outcome)
    ;(isAsking ? this.#asked : this.#plain).add(id)
  }

  async #lease(): Promise<void> {
    const held = await this.driver.lease('q', {
      max: 1 + Math.floor(this.#random() * 3),
      leaseMs: 200,
      ...(this.#random() < 0.7 ? { token: 'w' } : {}),
    })
    if (held !== undefined) this.#held.push(held)
  }

  #outcome() {
    const dice = this.#random()
    if (dice < 0.5) return { kind: 'done', result: '"kept"' } as const
    if (dice < 0.6) return { kind: 'done' } as const
    if (dice < 0.75) return { kind: 'retry', error: 'again' } as const
    return dice < 0.85 ? ({ kind: 'release' } as const) : ({ kind: 'dead', error: 'no' } as const)
  }

  #takeHeld(): Held | undefined {
    return this.#held.splice(Math.floor(this.#random() * this.#held.length), 1)[0]
  }

  async #settle(): Promise<void> {
    const held = this.#takeHeld()
    if (held !== undefined) await this.driver.settle(held, this.#outcome())
  }

  async #cancel(): Promise<void> {
    const ids = [...this.#asked, ...this.#plain]
    const id = ids[Math.floor(this.#random() * ids.length)]
    if (id !== undefined) await this.driver.cancel(id)
  }

  async #restart(): Promise<void> {
    await this.driver.restart()
  }

  /** Dies in the commit of a settle. */
  async #crash(): Promise<void> {
    const { driver } = this
    const held = this.#takeHeld()
    if (held === undefined || driver.medium.full) return
    const kind = (['lost', 'kept', 'torn'] as const)[Math.floor(this.#random() * 3)] ?? 'lost'
    const { topic, group, fence, offsets, token } = held
    await driver.crashAndReopen(kind, [
      driver.request('settle', [{ topic, group, fence, offsets, token, outcome: this.#outcome() }]),
    ])
  }

  async #redrive(): Promise<void> {
    const outcome = await this.driver.command({ kind: 'redrive', topic: 'q', group: '', max: 3 })
    if (outcome.status !== 'done') return
    for (const id of outcome.ids ?? []) {
      // A redriven job has the payload of the one that it was, and asks if that did.
      const [payload = ''] = await readPayloads(this.driver, 'q', Number(id.slice(id.lastIndexOf(':') + 1)), 1)
      ;(payload === ASKS ? this.#asked : this.#plain).add(id)
    }
  }

  async #takeCallbacks(): Promise<number> {
    const held = await this.driver.lease(CALLBACKS_QUEUE, { max: 10 })
    if (held === undefined) return 0
    // Told twice is told once: the lease of a process that died.
    held.offsets.forEach((offset, i) => {
      this.#told.set(offset, (JSON.parse(held.payloads[i] as string) as { data: Told }).data)
    })
    await this.driver.settle(held)
    return held.offsets.length
  }

  #checkPlaces(): void {
    const { topics } = this.driver.ledger
    const promises = [...topics.values()].reduce((sum, topic) => sum + topic.promises, 0)
    assert.equal(topics.get(CALLBACKS_QUEUE)?.promised, promises)
    assert.ok((topics.get(CALLBACKS_QUEUE)?.depth.messages ?? 0) <= 30, 'the bound holds')
  }

  async check(): Promise<number> {
    const { driver } = this
    // Whoever asks for a job past its deadline ends it.
    for (const id of this.#asked) await driver.find(id)
    while ((await this.#takeCallbacks()) > 0);
    const told = new Map<string, string[]>()
    for (const { id, status } of this.#told.values()) told.set(id, [...(told.get(id) ?? []), status])
    let open = 0
    for (const id of this.#asked) {
      const found = await driver.find(id)
      // On a full disk a queue lets go of what has ended, and of nothing else.
      const status = found.status === 'found' ? found.job.status : 'gone'
      if (!ENDED.has(status) && status !== 'gone') open++
      const statuses = told.get(id) ?? []
      if (status === 'gone') assert.equal(statuses.length, 1, id)
      else assert.deepEqual(statuses, ENDED.has(status) ? [status] : [], `${id} is ${status}`)
      told.delete(id)
    }
    assert.deepEqual([...told.keys()], [], 'nobody else is told of')
    assert.equal(driver.ledger.topics.get('q')?.promises, open)
    return this.#asked.size - open
  }
}

async function readPayloads(driver: LedgerDriver, topic: string, from: number, max: number): Promise<string[]> {
  const outcome = await driver.read(topic, from, max)
  assert.ok(outcome.status === 'read')
  return outcome.messages.flatMap(({ bytes, from: first, to }) => {
    const view = new BatchView(bytes)
    return Array.from({ length: to - first }, (_, i) => view.payloadText(first + i))
  })
}

test(`each end of a job that asked has one callback, through ${SEEDS} random lives with crashes and full disks`, async () => {
  let ended = 0
  for (let seed = 1; seed <= SEEDS; seed++) {
    const driver = await openDriver(seed)
    const life = new Life(driver, seed)
    try {
      await life.live()
      ended += await life.check()
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error })
    }
  }
  assert.ok(ended > SEEDS * 5, `${ended} ended`)
})
