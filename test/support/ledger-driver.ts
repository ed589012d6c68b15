/**
 * Drives a ledger over a memory log with a simulated clock and seeded chance, one step at a time, as the broker does:
 * apply, commit, give out the answers; where the disk is full, restore and apply again with appends refused.
 *
 * A crash ends the process in a commit; `reopen` starts a new one on what is left of the medium. Every request must be
 * answered once: an answer that nobody waits for fails the run.
 */
import { strict as assert } from 'node:assert'
import type {
  AppendOutcome,
  AppendWish,
  Command,
  CommandOutcome,
  Declaration,
  DeclareOutcome,
  ExtendOutcome,
  FindOutcome,
  Hold,
  LeaseOutcome,
  MessageOutcome,
  ReadFrom,
  ReadOutcome,
  Settlement,
  SettleOutcome,
  SettleRequest,
  TopicStats,
} from '../../src/engine/contract.ts'
import type { GroupSettings, Partially, QueueSettings, TopicSettings } from '../../src/engine/options.ts'
import { createRandom } from '../../src/host/host.ts'
import { formatJobId, formatScheduledJobId } from '../../src/job-id.ts'
import { Ledger, type Step } from '../../src/ledger/ledger.ts'
import type { AnswerError, AnswerValue, LedgerAnswer, LedgerRequest } from '../../src/ledger/requests.ts'
import type { CommitOutcome, LogState, Ownership } from '../../src/logs/contract.ts'
import { type CrashKind, MemoryMedium, openMemoryLog } from '../../src/logs/memory.ts'
import { BatchBuilder, BatchView, type MessageFields } from '../../src/message-batch.ts'

/** The start of every run. */
export const START_MS = 1_700_000_000_000
/** As in the broker: how long a full disk is not tried again. */
const DISK_RETRY_MS = 1_000
/** More steps than this at one instant: the ledger wakes itself for nothing. */
const MAX_STEPS_AT_ONCE = 200
const READ_BYTES = 262_144

export interface Draft extends Omit<MessageFields, 'payload'>, Omit<AppendWish, 'index'> {
  readonly payload?: string
}

export type Leased = Extract<LeaseOutcome, { status: 'leased' }>
/** A lease with what is needed to settle it. */
export interface Held extends Leased, Hold {
  readonly payloads: readonly string[]
}

export interface LeaseOptions {
  readonly group?: string
  readonly max?: number
  /** Absent: held by the process. */
  readonly token?: string
  readonly leaseMs?: number
  readonly waitMs?: number
}

type Body<K extends LedgerRequest['kind']> = Extract<LedgerRequest, { kind: K }>['body']
type Answered = { readonly value: AnswerValue } | { readonly error: AnswerError }

export class LedgerDriver {
  readonly medium: MemoryMedium
  readonly random: () => number
  nowMs = START_MS
  wakeAtMs = Number.POSITIVE_INFINITY
  ledger!: Ledger
  log!: ReturnType<typeof openMemoryLog>
  /** How many steps were taken, and how many of them met a full disk. */
  steps = 0
  restores = 0
  /** How many times the ledger asked the log for stored keys. */
  stateReads = 0
  /** What the last step committed. */
  lastCommit: Step['commit'] | null = null
  /** Told of each step that was kept: what was asked, and what was answered. */
  onStep: (requests: readonly LedgerRequest[], answers: readonly LedgerAnswer[]) => void = () => {}
  readonly waiting = new Set<number>()
  readonly answered = new Map<number, Answered>()
  readonly #tags = new Map<string, string>()
  #ownership!: Ownership
  #nextId = 1
  #diskFullUntilMs = 0

  constructor(seed: number, medium: MemoryMedium) {
    this.random = createRandom(seed)
    this.medium = medium
  }

  /** A process starts on the medium. */
  async start(): Promise<void> {
    const log = openMemoryLog(this.medium)
    this.log = log
    this.#ownership = log.own() as Ownership
    this.#diskFullUntilMs = 0
    const { state } = this.#ownership
    const counted: LogState = {
      get: (key) => {
        this.stateReads++
        return state.get(key)
      },
      range: (from, to, limit) => {
        this.stateReads++
        return state.range(from, to, limit)
      },
    }
    this.ledger = new Ledger(
      {
        abilities: log.abilities,
        trim: (topic, partition, offset) => log.trim(topic, partition, offset),
        declareTopics: (topics) => log.declare(topics),
        fetch: (topic, offset) => log.read(topic, 0, offset, READ_BYTES),
      },
      counted,
      this.random,
    )
    await this.ledger.open(this.nowMs)
    await this.step([])
  }

  // ---- steps

  request<K extends LedgerRequest['kind']>(kind: K, body: Body<K>): LedgerRequest {
    return { id: this.#nextId++, kind, body } as LedgerRequest
  }

  /** One step of the broker's loop. Gives the answers that went out. */
  async step(requests: readonly LedgerRequest[]): Promise<readonly LedgerAnswer[]> {
    const { ledger } = this
    this.steps++
    for (const { id } of requests) this.waiting.add(id)
    if (ledger.refusesAppends && this.nowMs >= this.#diskFullUntilMs) ledger.refusesAppends = false
    let step = ledger.apply(requests, this.nowMs)
    if (this.#commit(step).status === 'full') {
      assert.equal(ledger.refusesAppends, false, 'a ledger that refuses appends commits no outputs')
      this.#diskFullUntilMs = this.nowMs + DISK_RETRY_MS
      this.restores++
      await ledger.restore(requests, true)
      step = ledger.apply(requests, this.nowMs)
      assert.equal(this.#commit(step).status, 'durable', 'a step without appends is kept on a full disk')
    }
    this.wakeAtMs = step.wakeAtMs
    this.lastCommit = step.commit
    for (const answer of step.answers) this.#take(answer)
    this.onStep(requests, step.answers)
    return step.answers
  }

  /** The process dies in the commit of these requests. Gives what it would have answered; whoever waits hears nothing. */
  crash(kind: CrashKind, requests: readonly LedgerRequest[] = []): readonly LedgerAnswer[] {
    const { answers, commit } = this.ledger.apply(requests, this.nowMs)
    this.medium.crashNext = kind
    this.lastCommit = commit
    assert.throws(() => this.log.commit(this.#ownership, commit), { code: 'ENGINE_FAILED' })
    this.waiting.clear()
    return answers
  }

  /** Dies between two commits, and starts again. */
  async restart(): Promise<void> {
    this.waiting.clear()
    await this.start()
  }

  async crashAndReopen(kind: CrashKind, requests: readonly LedgerRequest[] = []): Promise<readonly LedgerAnswer[]> {
    const answers = this.crash(kind, requests)
    await this.start()
    return answers
  }

  /** Lets time pass, with a step whenever the ledger wants one. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.nowMs + ms
    for (let stepsAtOnce = 0; this.wakeAtMs <= untilMs; stepsAtOnce++) {
      if (this.wakeAtMs > this.nowMs) {
        this.nowMs = Math.ceil(this.wakeAtMs)
        stepsAtOnce = 0
      }
      assert.ok(stepsAtOnce < MAX_STEPS_AT_ONCE, 'the ledger wakes itself for nothing')
      await this.step([])
    }
    this.nowMs = untilMs
  }

  #commit(step: Step): CommitOutcome {
    const { commit } = step
    if (commit.outputs.length === 0 && commit.changes.size === 0) return { status: 'durable', offsets: [] }
    return this.log.commit(this.#ownership, commit)
  }

  #take(answer: LedgerAnswer): void {
    assert.ok(this.waiting.delete(answer.id), `request ${answer.id} is answered once`)
    this.answered.set(answer.id, answer)
  }

  // ---- single requests

  /** Sends one request in a step of its own; gives its number, to look for the answer later. */
  async begin<K extends LedgerRequest['kind']>(kind: K, body: Body<K>): Promise<number> {
    const request = this.request(kind, body)
    await this.step([request])
    return request.id
  }

  /** The answer to request `id`; undefined while it waits. */
  answerTo<T>(id: number): T | undefined {
    const answer = this.answered.get(id)
    if (answer === undefined) return undefined
    assert.ok(
      'value' in answer,
      `request ${id} failed: ${'error' in answer ? `${answer.error.code} ${answer.error.message}` : ''}`,
    )
    return answer.value as T
  }

  /** Sends one request and gives its answer, which must come at once. */
  async ask<T, K extends LedgerRequest['kind'] = LedgerRequest['kind']>(kind: K, body: Body<K>): Promise<T> {
    const id = await this.begin(kind, body)
    if (!this.answered.has(id) && this.wakeAtMs <= this.nowMs) await this.step([])
    const answer = this.answerTo<T>(id)
    assert.notEqual(answer, undefined, `the ${kind} is answered at once`)
    return answer as T
  }

  async declare(declaration: Declaration): Promise<DeclareOutcome> {
    const [outcome] = await this.ask<DeclareOutcome[]>('declare', [declaration])
    if (outcome?.status === 'declared' && declaration.kind !== 'group') this.#tags.set(declaration.name, outcome.tag)
    return outcome as DeclareOutcome
  }

  queue(name: string, settings: Partially<QueueSettings> = {}): Promise<DeclareOutcome> {
    return this.declare({ kind: 'queue', name, settings })
  }

  topic(name: string, settings: Partially<TopicSettings> = {}): Promise<DeclareOutcome> {
    return this.declare({ kind: 'topic', name, settings })
  }

  group(
    topic: string,
    name: string,
    from: ReadFrom = 'earliest',
    settings: Partially<GroupSettings> = {},
  ): Promise<DeclareOutcome> {
    return this.declare({ kind: 'group', topic, name, from, settings })
  }

  /** Appends in one batch; the outcome of each message. */
  async add(topic: string, ...drafts: readonly Draft[]): Promise<readonly MessageOutcome[]> {
    const [outcome] = await this.ask<AppendOutcome[]>('append', [toAppend(topic, drafts)])
    return spread(outcome as AppendOutcome, drafts.length)
  }

  /** Takes what is there now, or undefined. */
  async lease(topic: string, options: LeaseOptions = {}): Promise<Held | undefined> {
    const outcome = await this.leaseOutcome(topic, options)
    assert.ok(
      outcome.status === 'leased' || outcome.status === 'empty',
      `a lease is given or not, but was ${outcome.status}`,
    )
    return outcome.status === 'leased' ? hold(topic, options, outcome) : undefined
  }

  leaseOutcome(topic: string, options: LeaseOptions = {}): Promise<LeaseOutcome> {
    return this.ask<LeaseOutcome>('lease', leaseBody(topic, options))
  }

  /** Asks for a lease that may wait; see `leaseOf`. */
  beginLease(topic: string, options: LeaseOptions = {}): Promise<number> {
    return this.begin('lease', leaseBody(topic, { waitMs: 30_000, ...options }))
  }

  async settle(
    held: Hold,
    outcome: Settlement = { kind: 'done' },
    more: Partial<SettleRequest> = {},
  ): Promise<SettleOutcome> {
    const { topic, group, fence, offsets, token } = held
    const [settled] = await this.ask<SettleOutcome[]>('settle', [
      { topic, group, fence, offsets, token, outcome, ...more },
    ])
    return settled as SettleOutcome
  }

  async extend(held: Hold, leaseMs: number, progress?: string): Promise<ExtendOutcome> {
    const { topic, group, fence, offsets, token } = held
    const [extended] = await this.ask<ExtendOutcome[]>('extend', [
      { topic, group, fence, offsets, token, leaseMs, progress },
    ])
    return extended as ExtendOutcome
  }

  /** The id of the job at an offset. */
  id(queue: string, offset: number): string {
    return formatJobId(queue, this.#tags.get(queue) as string, offset)
  }

  /** The id of a job that was scheduled. */
  scheduledId(queue: string, outcome: MessageOutcome | undefined): string {
    assert.equal(outcome?.status, 'scheduled')
    return formatScheduledJobId(queue, this.#tags.get(queue) as string, outcome.dueAtMs, outcome.serial)
  }

  async find(id: string): Promise<FindOutcome> {
    const [found] = await this.ask<FindOutcome[]>('find', [id])
    return found as FindOutcome
  }

  /** The job, which must be there. */
  async job(id: string) {
    const found = await this.find(id)
    assert.ok(found.status === 'found', `${id} is found`)
    return found.job
  }

  command(command: Command): Promise<CommandOutcome> {
    return this.ask<CommandOutcome>('command', command)
  }

  cancel(id: string): Promise<CommandOutcome> {
    return this.command({ kind: 'cancel', id })
  }

  read(topic: string, from: ReadFrom, max = 1_000): Promise<ReadOutcome> {
    return this.ask<ReadOutcome>('read', { topic, from, max, waitMs: 0 })
  }

  async stats(topic: string): Promise<TopicStats> {
    const all = await this.ask<TopicStats[]>('stats', null)
    return all.find(({ name }) => name === topic) as TopicStats
  }
}

/** A ledger on a new medium. */
export async function openDriver(seed = 1, medium = new MemoryMedium()): Promise<LedgerDriver> {
  const driver = new LedgerDriver(seed, medium)
  await driver.start()
  return driver
}

/** Messages as one request, with what is wished of each. */
export function toAppend(
  topic: string,
  drafts: readonly Draft[],
): { topic: string; batch: Uint8Array; wishes?: AppendWish[] } {
  const builder = new BatchBuilder()
  const wishes: AppendWish[] = []
  drafts.forEach(({ payload = '0', idempotencyKey, scope, dueAtMs, callbackUrl, inTime, ...fields }, index) => {
    builder.add({ ...fields, payload })
    if (callbackUrl !== undefined) wishes.push({ index, idempotencyKey, scope, dueAtMs, callbackUrl })
    else if (inTime !== undefined) wishes.push({ index, idempotencyKey, scope, dueAtMs, inTime })
    else if (idempotencyKey !== undefined || dueAtMs !== undefined)
      wishes.push({ index, idempotencyKey, scope, dueAtMs })
  })
  const batch = builder.finish()
  return wishes.length === 0 ? { topic, batch } : { topic, batch, wishes }
}

/** One outcome a message, however the append was answered. */
export function spread(outcome: AppendOutcome, count: number): readonly MessageOutcome[] {
  assert.ok(outcome.status !== 'not-found', 'the topic is there')
  if (outcome.status === 'mixed') return outcome.outcomes
  return Array.from({ length: count }, (_, i) => ({ status: 'stored', offset: outcome.offset + i }))
}

export function leaseBody(
  topic: string,
  { group = '', max = 1, token, leaseMs = 1_000, waitMs = 0 }: LeaseOptions,
): Body<'lease'> {
  return {
    topic,
    group,
    max,
    leaseMs,
    waitMs,
    holder: token === undefined ? { kind: 'process' } : { kind: 'token', token },
  }
}

/** A lease with what is needed to settle it. */
export function hold(topic: string, { group = '', token }: LeaseOptions, leased: Leased): Held {
  const view = new BatchView(leased.batch)
  return { ...leased, topic, group, token, payloads: leased.offsets.map((_, i) => view.payloadText(i)) }
}

/** The hold on one message of a lease. */
export function part(held: Held, index: number): Hold {
  return { ...held, offsets: [held.offsets[index] as number] }
}
