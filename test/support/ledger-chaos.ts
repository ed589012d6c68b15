/**
 * A random life of a ledger: publishers, workers, operators, crashes, a full disk and time, all from one seed, held
 * against the model step by step. At the end everything is mended, and then everything must be worked off.
 */
import { strict as assert } from 'node:assert'
import type { Command, Settlement } from '../../src/engine/contract.ts'
import { DEFAULT_QUEUE, type QueueSettings, withDefaults } from '../../src/engine/options.ts'
import { createRandom } from '../../src/host/host.ts'
import type { LedgerRequest } from '../../src/ledger/requests.ts'
import { MemoryMedium } from '../../src/logs/memory.ts'
import { LedgerChecks } from './ledger-checks.ts'
import { type Draft, type Leased, LedgerDriver, leaseBody, toAppend } from './ledger-driver.ts'
import { ModelGroup, ModelTopic } from './ledger-model.ts'

const KEYS = ['a', 'b', 'c', 'd'] as const
const CRASHES = ['lost', 'kept', 'torn'] as const
const MAX_HOLDS = 25
const MAX_ROUNDS_TO_DRAIN = 400

interface Worker {
  readonly topic: string
  readonly group: string
}

interface ChaosHold extends Worker {
  readonly fence: number
  readonly offsets: readonly number[]
  readonly token: string | undefined
}

/** Lives through `steps` random steps. Throws where a promise was not kept. */
export async function runChaos(seed: number, steps: number): Promise<LedgerChecks> {
  const chaos = new Chaos(seed)
  await chaos.start()
  for (let i = 0; i < steps; i++) await chaos.act()
  await chaos.heal()
  return chaos.checks
}

class Chaos {
  checks!: LedgerChecks
  readonly #driver: LedgerDriver
  readonly #random: () => number
  readonly #holds: ChaosHold[] = []
  readonly #leases = new Map<number, Worker & { token: string | undefined }>()
  readonly #ids: string[] = []
  readonly #workers: Worker[] = [
    { topic: 'q', group: '' },
    { topic: 'q', group: '' },
    { topic: 'q', group: '' },
    { topic: 'out', group: '' },
    { topic: 't', group: 'early' },
  ]
  #serial = 0

  constructor(seed: number) {
    this.#driver = new LedgerDriver(seed, new MemoryMedium())
    this.#random = createRandom(seed * 7_919 + 13)
  }

  async start(): Promise<void> {
    const driver = this.#driver
    await driver.start()
    const queue = withDefaults(DEFAULT_QUEUE, {
      strict: this.#chance(0.15),
      attempts: this.#pick([1, 2, 3, 6]),
      backoff: { baseMs: this.#pick([0, 20, 1_000]), factor: this.#pick([1, 2]), maxMs: 4_000 },
      onExhausted: this.#pick(['deadLetter', 'deadLetter', 'block']),
      deadLetters: this.#pick([0, 1, 100]),
      limit: { messages: this.#pick([4, 15, 50, 1_000]), bytes: this.#pick([400, 2_000, 1_000_000, 1_000_000]) },
      retention: { ms: this.#pick([0, 2_000, 1_000_000_000]), bytes: this.#pick([0, 500, 1_000_000]) },
      idempotencyMs: this.#pick([0, 1_000, 100_000]),
    })
    const out = withDefaults(DEFAULT_QUEUE, {
      attempts: 2,
      limit: { messages: this.#pick([3, 20, 100]) },
      retention: { ms: 1_000 },
    })
    await driver.queue('q', queue)
    await driver.queue('out', out)
    await driver.topic('t', { limit: { messages: 60 }, retention: { ms: this.#pick([0, 3_000]) } })
    const models = [
      modelOf('q', queue),
      modelOf('out', out),
      new ModelTopic('t', 'topic', { messages: 60, bytes: 1_073_741_824 }, 86_400_000),
    ]
    this.checks = new LedgerChecks(driver, models)
    await driver.group('t', 'early', 0, { attempts: 3, strict: this.#chance(0.3), backoff: { baseMs: 10 } })
  }

  async act(): Promise<void> {
    const driver = this.#driver
    const dice = this.#random()
    const requests = Array.from({ length: 1 + this.#below(4) }, () => this.#request())
    if (dice < 0.72) {
      await driver.step(requests)
    } else if (dice < 0.9) {
      await driver.advance(this.#pick([1, 15, 200, 2_500, this.#chance(0.1) ? 200_000 : 700]))
    } else if (dice < 0.94) {
      driver.medium.full = this.#chance(0.4)
    } else {
      await this.#crash(requests)
    }
    this.#collect()
  }

  /** Mends everything: then all that was stored is worked off, and every wait ends. */
  async heal(): Promise<void> {
    const driver = this.#driver
    driver.medium.full = false
    await driver.advance(3_000)
    await this.#restart()
    const groups = [...this.checks.topics.values()].flatMap(({ name, groups }) =>
      [...groups.keys()].map((group) => ({ topic: name, group })),
    )
    for (let round = 0; ; round++) {
      assert.ok(round < MAX_ROUNDS_TO_DRAIN, 'what is stored is worked off')
      for (const { topic, group } of groups) {
        await driver.command({ kind: 'resume', topic, group })
        await driver.begin('command', { kind: 'redrive', topic, group, max: 1_000 })
        const held = await driver.lease(topic, { group, max: 50 })
        if (held !== undefined) await driver.settle(held)
      }
      await driver.advance(5_000)
      const left = [...this.checks.topics.values()].map((topic) => topic.depth().messages)
      if (left.every((depth) => depth === 0)) break
    }
    await driver.advance(60_000)
    assert.equal(driver.waiting.size, 0, 'every wait has ended')
  }

  async #crash(requests: readonly LedgerRequest[]): Promise<void> {
    const driver = this.#driver
    if (this.#chance(0.3)) return this.#restart()
    if (this.#chance(0.3)) return this.#stop()
    const kind = this.#pick(CRASHES)
    if (driver.medium.full) return this.#restart()
    const answers = driver.crash(kind, requests)
    if (kind === 'kept') driver.onStep(requests, answers)
    this.checks.count(`crash ${kind}`)
    await this.#reopen(() => driver.start())
  }

  async #stop(): Promise<void> {
    this.checks.count('stop')
    await this.#driver.step([this.#driver.request('stop', null)])
    assert.equal(this.#driver.waiting.size, 0, 'a stop ends every wait')
    await this.#reopen(() => this.#driver.restart())
  }

  #restart(): Promise<void> {
    this.checks.count('restart')
    return this.#reopen(() => this.#driver.restart())
  }

  async #reopen(start: () => Promise<void>): Promise<void> {
    this.#leases.clear()
    this.#driver.nowMs += this.#pick([0, 0, 50, 3_000])
    this.checks.loseProcess()
    await start()
  }

  /** Notes the leases that were given and the ids of jobs. */
  #collect(): void {
    for (const [id, worker] of this.#leases) {
      const outcome = this.#driver.answerTo<Leased>(id)
      if (outcome === undefined) continue
      this.#leases.delete(id)
      if (outcome.status === 'leased') this.#holds.push({ ...worker, fence: outcome.fence, offsets: outcome.offsets })
    }
    const late = this.#workers.findIndex(({ group }) => group === 'late')
    if (late >= 0 && this.#random() < 0.5 && !this.#hasLateGroup) this.#workers.splice(late, 1)
    else if (late < 0 && this.#hasLateGroup) this.#workers.push({ topic: 't', group: 'late' })
    if (this.#holds.length > MAX_HOLDS) this.#holds.splice(0, this.#holds.length - MAX_HOLDS)
    for (const topic of ['q', 'out']) {
      const model = this.checks.topics.get(topic) as ModelTopic
      if (model.messages.length > 0) this.#ids.push(this.#driver.id(topic, this.#below(model.messages.length + 1)))
      const delayed = model.delayed.at(-1)
      if (delayed !== undefined)
        this.#ids.push(
          this.#driver.scheduledId(topic, { status: 'scheduled', dueAtMs: delayed.dueMs, serial: delayed.serial }),
        )
    }
    if (this.#ids.length > 60) this.#ids.splice(0, 20)
  }

  // ---- requests

  #request(): LedgerRequest {
    const driver = this.#driver
    const dice = this.#random()
    if (dice < 0.28)
      return driver.request('append', [toAppend(this.#pick(['q', 'q', 'q', 't', 'out']), this.#drafts(true))])
    if (dice < 0.5) return this.#leaseRequest()
    if (dice < 0.76) return this.#settleRequest()
    if (dice < 0.81) return this.#extendRequest()
    if (dice < 0.87) return driver.request('find', [this.#id(), this.#id()])
    if (dice < 0.9)
      return driver.request('watch', {
        id: this.#id(),
        version: this.#pick([-1, 0, 1e9]),
        untilTerminal: this.#chance(0.7),
        waitMs: this.#pick([0, 500, 5_000]),
      })
    if (dice < 0.92)
      return driver.request('read', {
        topic: 't',
        from: this.#below((this.checks.topics.get('t')?.messages.length ?? 0) + 1),
        max: this.#pick([1, 7, 100]),
        waitMs: this.#pick([0, 500]),
      })
    if (dice < 0.93)
      return driver.request('abort', this.#chance(0.8) ? this.#pick([...this.#leases.keys(), 0]) : this.#below(1_000))
    if (dice < 0.935) return driver.request('stats', null)
    if (dice < 0.94 && !this.#hasLateGroup) return this.#lateGroup()
    return driver.request('command', this.#command())
  }

  #drafts(isAppend: boolean): Draft[] {
    const nowMs = this.#driver.nowMs
    return Array.from({ length: this.#chance(0.6) ? 1 : 1 + this.#below(6) }, () => {
      const draft: { -readonly [K in keyof Draft]: Draft[K] } = {
        payload: `"${++this.#serial}${'x'.repeat(this.#below(60))}"`,
      }
      if (this.#chance(0.6)) draft.key = this.#pick(KEYS)
      if (this.#chance(0.25)) draft.priority = this.#below(3)
      if (this.#chance(0.1)) draft.deadlineMs = nowMs + this.#pick([0, 100, 2_000])
      if (isAppend && this.#chance(0.1)) draft.dueAtMs = nowMs + this.#pick([0, 10, 10, 500, 20_000])
      if (isAppend && this.#chance(0.15)) {
        draft.idempotencyKey = `k${this.#below(6)}`
        if (this.#chance(0.7)) draft.payload = `"${draft.idempotencyKey}"`
      }
      return draft
    })
  }

  #leaseRequest(): LedgerRequest {
    const worker = this.#pick(this.#workers)
    const token = this.#chance(0.5) ? `token${this.#below(3)}` : undefined
    const leaseMs = this.#pick([20, 400, 5_000]) + (++this.#serial % 1_000) / 1_024
    const options = {
      group: worker.group,
      max: this.#pick([1, 1, 2, 5, 50]),
      leaseMs,
      waitMs: this.#pick([0, 300, 5_000]),
    }
    const request = this.#driver.request(
      'lease',
      leaseBody(worker.topic, token === undefined ? options : { ...options, token }),
    )
    this.#leases.set(request.id, { ...worker, token })
    return request
  }

  /** A hold, or a part of one: mostly one that is live, at times one that is long over, or shown with a wrong token. */
  #hold(isLast: boolean): ChaosHold {
    if (this.#holds.length === 0) return { topic: 'q', group: '', fence: 1, offsets: [0], token: undefined }
    const at = this.#below(this.#holds.length)
    const hold = this.#holds[at] as ChaosHold
    const isWhole = this.#chance(0.6)
    if (isLast && isWhole && this.#chance(0.9)) this.#holds.splice(at, 1)
    const offsets = isWhole ? hold.offsets : hold.offsets.filter(() => this.#chance(0.5))
    const token = this.#chance(0.03) ? 'another' : hold.token
    return { ...hold, token, offsets: offsets.length === 0 ? hold.offsets.slice(0, 1) : offsets }
  }

  #settleRequest(): LedgerRequest {
    const { topic, group, fence, offsets, token } = this.#hold(true)
    const outcome = this.#outcome()
    const outputs = this.#chance(0.2) ? [toAppend(this.#pick(['out', 'q', 't']), this.#drafts(false))] : undefined
    return this.#driver.request('settle', [
      { topic, group, fence, offsets, token, outcome, ...(outputs === undefined ? {} : { outputs }) },
    ])
  }

  #outcome(): Settlement {
    const dice = this.#random()
    if (dice < 0.5) return this.#chance(0.5) ? { kind: 'done' } : { kind: 'done', result: `${this.#below(9)}` }
    if (dice < 0.75) return { kind: 'retry', error: 'no' }
    if (dice < 0.85) return { kind: 'retry', error: 'no', atMs: this.#driver.nowMs + this.#pick([-5, 0, 100, 3_000]) }
    return dice < 0.92 ? { kind: 'release' } : { kind: 'dead', error: 'never' }
  }

  #extendRequest(): LedgerRequest {
    const { topic, group, fence, offsets, token } = this.#hold(false)
    const leaseMs = this.#pick([1, 300, 3_000]) + (++this.#serial % 1_000) / 1_024
    const hold = { topic, group, fence, offsets, token, leaseMs }
    return this.#driver.request('extend', [this.#chance(0.5) ? hold : { ...hold, progress: `${this.#serial}` }])
  }

  get #hasLateGroup(): boolean {
    return this.checks.topics.get('t')?.groups.has('late') === true
  }

  #lateGroup(): LedgerRequest {
    const t = this.#driver.ledger.topics.get('t')
    const from = (t?.earliest ?? 0) + this.#below((t?.head ?? 0) - (t?.earliest ?? 0) + 1)
    return this.#driver.request('declare', [
      { kind: 'group', topic: 't', name: 'late', from, settings: { attempts: 2, backoff: { baseMs: 10 } } },
    ])
  }

  #command(): Command {
    const { topic, group } = this.#pick(this.#workers)
    const dice = this.#random()
    if (dice < 0.4) return { kind: 'cancel', id: this.#id() }
    if (dice < 0.5) return { kind: this.#pick(['pause', 'resume', 'resume']), topic, group }
    if (dice < 0.55) return { kind: 'dead', topic, group, max: 1_000 }
    if (dice < 0.65)
      return {
        kind: 'redrive',
        topic,
        group,
        max: 1_000,
        ...(this.#chance(0.5) ? {} : { ids: [this.#id(), this.#id()] }),
      }
    if (dice < 0.7) {
      const t = this.#driver.ledger.topics.get('t')
      return {
        kind: 'seek',
        topic: 't',
        group: 'early',
        from: (t?.earliest ?? 0) + this.#below((t?.head ?? 0) - (t?.earliest ?? 0) + 1),
      }
    }
    if (dice < 0.72 && this.#hasLateGroup) return { kind: 'forget', topic: 't', group: 'late' }
    if (dice < 0.75) return { kind: 'discard', topic, group, max: this.#pick([1, 100]) }
    const hold = this.#hold(false)
    const name = this.#pick(['pay', 'mail'])
    return this.#chance(0.5)
      ? { kind: 'recall', hold, name }
      : { kind: 'remember', hold, name, value: `${++this.#serial}` }
  }

  #id(): string {
    return this.#ids.length === 0 ? 'q:none00:0' : this.#pick(this.#ids)
  }

  // ---- chance

  #below(count: number): number {
    return Math.floor(this.#random() * count)
  }

  #chance(share: number): boolean {
    return this.#random() < share
  }

  #pick<T>(from: readonly T[]): T {
    return from[this.#below(from.length)] as T
  }
}

function modelOf(name: string, settings: QueueSettings): ModelTopic {
  const topic = new ModelTopic(name, 'queue', settings.limit, settings.idempotencyMs)
  topic.groups.set('', new ModelGroup(topic, settings, 0))
  return topic
}
