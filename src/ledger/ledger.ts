/**
 * The ledger: who holds what. One deterministic, synchronous state machine for every log.
 *
 * `apply(requests, nowMs)` does everything that is due and everything that is asked, and gives what must be committed
 * and what may be answered once it is. It reads no clock, draws chance from where it is told to, and does no I/O but
 * through the state and the batches of its log; so a run replays from a seed.
 *
 * A step is: what fell due; the requests, in order; then, for each group that was touched, its waiting workers; then
 * readers and watchers. Answers are given out by the broker after the commit, never before (P1, P6: nobody is told of
 * what is not durable).
 *
 * Where the commit finds the disk full, nothing of the step happened: the broker calls `restore`, which loads the
 * ledger again as it was committed, and applies the same requests with appends refused (P13).
 *
 * Invariants
 *  1. The state that was committed, alone, gives the same ledger again (`loading.ts`), but for waits, progress and
 *     rates, which belong to the process.
 *  2. Each request is answered once: in its own step, or in a later one where it waits.
 */
import type { AppendOutcome, FindOutcome, SettleOutcome, SettleRequest } from '../engine/contract.ts'
import { CALLBACKS_QUEUE } from '../engine/options.ts'
import { type ErrorCode, SluiceError } from '../errors.ts'
import type { Commit, Log, LogState } from '../logs/contract.ts'
import { BatchView } from '../message-batch.ts'
import { Timers } from '../policy/timers.ts'
import { admitOutputs, append } from './appending.ts'
import { carryOut } from './commands.ts'
import type { Core, Due } from './core.ts'
import { declare, type Registry } from './declaring.ts'
import { placeDue } from './delaying.ts'
import type { Group } from './group.ts'
import { serveWaiters } from './hand-out.ts'
import { addWatcher, answerWatchers, findJob, isWanted, removeWatcher } from './jobs.ts'
import { type LoadMode, loadGroups, loadTopics } from './loading.ts'
import { detachSlowGroups } from './operating.ts'
import { refuseOversized } from './oversized.ts'
import { resolveRead, serveReader } from './reading.ts'
import type { AnswerValue, LeaseWaiter, LedgerAnswer, LedgerRequest, ReadWaiter, WatchWaiter } from './requests.ts'
import { takeUpRestore } from './restoring.ts'
import { Retention } from './retention.ts'
import { expireLease, extendHold, releaseProcessLeases, settleHold } from './settling.ts'
import { StateView } from './state.ts'
import { viewTopics } from './stats.ts'
import { sizeOfAll, type Topic } from './topic.ts'
import { WindowBudget } from './window.ts'

/** What the ledger asks of its log while it applies. Answers at once; a batch that is not here yet is null. */
export interface LedgerLog extends Pick<Log, 'trim' | 'abilities'> {
  declareTopics(topics: readonly { id: number; name: string; partitions: number }[]): ReturnType<Log['declare']>
  fetch: Core['fetch']
}

export interface Step {
  readonly commit: Commit
  /** To be sent after the commit. */
  readonly answers: readonly LedgerAnswer[]
  /** When `apply` should be called again without requests; Infinity: when there are some. */
  readonly wakeAtMs: number
}

/** How soon a topic is swept again where there was more to do than one sweep does, and for the first time. */
const MORE_SWEEP_MS = 10
const FIRST_SWEEP_MS = 1_000
/** Topics that are swept in one step, so that thousands of them do not hold up the rest. */
const MAX_SWEEPS_PER_STEP = 20

type Waiter = LeaseWaiter | ReadWaiter | WatchWaiter

export class Ledger implements Registry {
  topics = new Map<string, Topic>()
  readonly #log: LedgerLog
  readonly #core: Core
  readonly #waiters = new Map<number, Waiter>()
  readonly #retention = new Map<Topic, Retention>()
  #answers: LedgerAnswer[] = []
  #answeredWaiters: Waiter[] = []
  #steps = 0
  /** In this step. */
  #sweeps = 0
  #ids = { topic: 1, group: 1 }

  constructor(log: LedgerLog, state: LogState, random: () => number) {
    this.#log = log
    this.#core = {
      nowMs: 0,
      random,
      state: new StateView(state),
      timers: new Timers<Due>(),
      fetch: log.fetch,
      budget: new WindowBudget(),
      durability: log.abilities.durability,
      copies: log.abilities.copies,
      refuseAppends: false,
      callbacks: () => this.#callbacks(),
      outputs: [],
      grown: new Set(),
      touched: new Set(),
      ended: new Map(),
      answer: (id, value) => this.#answer(id, value),
    }
  }

  /** Loads what was committed. Its changes (what died with an earlier process) go into the first step. */
  async open(nowMs: number, mode: LoadMode = 'new-process'): Promise<void> {
    const core = this.#core
    core.nowMs = nowMs
    this.#ids = core.state.getJson('n') ?? { topic: 1, group: 1 }
    this.topics = loadTopics(core)
    const topics = [...this.topics.values()]
    const extents = await this.#log.declareTopics(
      topics.map(({ row }) => ({ id: row.id, name: row.name, partitions: 1 })),
    )
    loadGroups(core, this.topics, extents, mode)
    takeUpRestore(core, this.topics)
    this.#retention.clear()
    for (const topic of topics) this.#retention.set(topic, new Retention(topic, core))
    for (const topic of topics) this.#setSweep(topic, 0)
  }

  /** One step. See the top. */
  apply(requests: readonly LedgerRequest[], nowMs: number): Step {
    const core = this.#core
    core.nowMs = Math.max(core.nowMs, nowMs)
    this.#steps++
    this.#sweeps = 0
    core.budget.trim()
    core.ended.clear()
    this.#answeredWaiters = []
    for (let due = core.timers.takeDue(core.nowMs); due !== undefined; due = core.timers.takeDue(core.nowMs))
      this.#fire(due)
    for (const request of requests) {
      try {
        refuseOversized(request)
        this.#serve(request)
      } catch (error) {
        if (!(error instanceof SluiceError) || error.code === 'CORRUPT' || error.code === 'ENGINE_FAILED') throw error
        this.#fail(request.id, error.code, error.message, error.details)
      }
    }
    this.#settleDown()
    const commit: Commit = { outputs: core.outputs, changes: core.state.take() }
    core.outputs = []
    const answers = this.#answers
    this.#answers = []
    return { commit, answers, wakeAtMs: core.timers.nextMs }
  }

  /** After a commit that was not kept: the ledger as it was before, with the waits that it had. */
  async restore(requests: readonly LedgerRequest[], refuseAppends: boolean): Promise<void> {
    const core = this.#core
    const again = new Set(requests.map((request) => request.id))
    const before = this.topics
    for (const topic of before.values()) topic.window.clear()
    core.state.take()
    core.outputs = []
    core.grown.clear()
    core.touched.clear()
    core.refuseAppends = refuseAppends
    this.#answers = []
    for (const waiter of this.#answeredWaiters) {
      waiter.done = false
      this.#waiters.set(waiter.id, waiter)
    }
    const waiting: Waiter[] = []
    for (const waiter of this.#waiters.values()) if (!again.has(waiter.id)) waiting.push({ ...waiter })
    this.#waiters.clear()
    core.timers.clear()
    // What an earlier process held is taken from it in the first step, so until that is kept it has not been.
    await this.open(core.nowMs, this.#steps > 1 ? 'same-process' : 'new-process')
    for (const topic of before.values()) this.#keepVolatile(topic)
    for (const waiter of waiting.sort((a, b) => a.id - b.id)) this.#wait(waiter)
    this.#settleDown()
  }

  /** While true, appends answer `full` with the reason `disk`. */
  get refusesAppends(): boolean {
    return this.#core.refuseAppends
  }

  set refusesAppends(refuses: boolean) {
    this.#core.refuseAppends = refuses
  }

  nextTopicId(): number {
    const id = this.#ids.topic
    this.#saveIds({ ...this.#ids, topic: id + 1 })
    return id
  }

  nextGroupId(): number {
    const id = this.#ids.group
    this.#saveIds({ ...this.#ids, group: id + 1 })
    return id
  }

  introduce(topic: Topic): void {
    void this.#log.declareTopics([{ id: topic.row.id, name: topic.row.name, partitions: 1 }])
    this.topics.set(topic.row.name, topic)
    this.#retention.set(topic, new Retention(topic, this.#core))
    this.#setSweep(topic, FIRST_SWEEP_MS)
  }

  #saveIds(ids: { topic: number; group: number }): void {
    this.#ids = ids
    this.#core.state.putJson('n', ids)
  }

  #serve(request: LedgerRequest): void {
    const core = this.#core
    const { id } = request
    switch (request.kind) {
      case 'append':
        return this.#answer(
          id,
          request.body.map((one) => this.#append(one)),
        )
      case 'settle':
        return this.#answer(
          id,
          request.body.map((one) => this.#settle(one)),
        )
      case 'lease':
        return this.#wait({
          kind: 'lease',
          id,
          untilMs: core.nowMs + request.body.waitMs,
          done: false,
          request: request.body,
        })
      case 'extend':
        return this.#answer(
          id,
          request.body.map((one) => {
            const group = this.#group(one.topic, one.group)
            return group === undefined ? { status: 'not-found' as const } : extendHold(core, group, one)
          }),
        )
      case 'declare':
        return this.#answer(
          id,
          request.body.map((one) => declare(core, this, one)),
        )
      case 'find':
        return this.#answer(
          id,
          request.body.map((one) => findJob(core, this.topics, one)),
        )
      case 'watch':
        return this.#wait({
          kind: 'watch',
          id,
          untilMs: core.nowMs + request.body.waitMs,
          done: false,
          request: request.body,
        })
      case 'read': {
        const from = resolveRead(this.topics, request.body)
        if (typeof from !== 'number') return this.#answer(id, from)
        return this.#wait({
          kind: 'read',
          id,
          untilMs: core.nowMs + request.body.waitMs,
          done: false,
          request: request.body,
          from,
        })
      }
      case 'command':
        return this.#answer(id, carryOut(core, this.topics, request.body))
      case 'stats':
        return this.#answer(id, viewTopics(core, this.topics.values()))
      case 'abort': {
        const waiter = this.#waiters.get(request.body)
        if (waiter !== undefined) this.#endWait(waiter)
        return this.#answer(id, null)
      }
      case 'stop': {
        for (const waiter of [...this.#waiters.values()]) this.#endWait(waiter)
        for (const topic of this.topics.values())
          for (const group of topic.groups.values()) releaseProcessLeases(core, group)
        return this.#answer(id, null)
      }
    }
  }

  #callbacks(): Topic {
    if (!this.topics.has(CALLBACKS_QUEUE))
      declare(this.#core, this, { kind: 'queue', name: CALLBACKS_QUEUE, settings: {} })
    return this.topics.get(CALLBACKS_QUEUE) as Topic
  }

  /** The topic that a request may append to. Into the queue of callbacks nothing comes but what the ledger puts there. */
  #target(name: string): Topic | undefined {
    return name === CALLBACKS_QUEUE ? undefined : this.topics.get(name)
  }

  #append(request: Parameters<typeof append>[2]): AppendOutcome {
    const topic = this.#target(request.topic)
    if (topic === undefined) return { status: 'not-found' }
    this.#makeRoom(topic, request.batch)
    return append(this.#core, topic, request, false)
  }

  /** P2: where the topic says so, lets go of groups that are too slow for what is to be stored. */
  #makeRoom(topic: Topic, batch: Uint8Array): void {
    const { settings } = topic.row
    if (this.#core.refuseAppends || !('onSlowGroup' in settings) || settings.onSlowGroup !== 'detach') return
    detachSlowGroups(this.#core, topic, new BatchView(batch).count, sizeOfAll(batch))
  }

  #settle(request: SettleRequest): SettleOutcome {
    const group = this.#group(request.topic, request.group)
    if (group === undefined) return { status: 'not-found' }
    const outputs = request.outputs ?? []
    return settleHold(this.#core, group, request, {
      admit: (leaving) => {
        const known = outputs.flatMap(({ topic: name, batch, wishes }) => {
          const topic = this.#target(name)
          if (topic === undefined) return []
          this.#makeRoom(topic, batch)
          return [{ topic, batch, wishes }]
        })
        return admitOutputs(this.#core, known, leaving)
      },
      store: () =>
        outputs.map((output) => {
          const topic = this.#target(output.topic)
          return topic === undefined ? { status: 'not-found' } : append(this.#core, topic, output, true)
        }),
    })
  }

  #group(topic: string, name: string): Group | undefined {
    return this.topics.get(topic)?.groups.get(name)
  }

  // ---- waiting

  /** Lets a request wait where what it waits for is noticed; one that need not wait is answered within the step. */
  #wait(waiter: Waiter): void {
    this.#waiters.set(waiter.id, waiter)
    if (waiter.kind === 'lease') {
      const group = this.#group(waiter.request.topic, waiter.request.group)
      if (group === undefined) return this.#end(waiter, { status: 'not-found' })
      group.waiters.push(waiter)
      this.#core.touched.add(group)
    } else if (waiter.kind === 'read') {
      const topic = this.topics.get(waiter.request.topic)
      if (topic === undefined) return this.#end(waiter, { status: 'not-found' })
      if (serveReader(this.#core, topic, waiter, false)) return
      topic.readWaiters.push(waiter)
      this.#setTimer(waiter)
    } else {
      const found = findJob(this.#core, this.topics, waiter.request.id)
      if (found.status === 'not-found' || isWanted(waiter, found.job)) return this.#end(waiter, found)
      addWatcher(this.#core, this.topics, waiter)
      this.#setTimer(waiter)
    }
  }

  #end(waiter: Waiter, value: AnswerValue): void {
    waiter.done = true
    this.#answer(waiter.id, value)
  }

  /** The wait is over without what was waited for. */
  #endWait(waiter: Waiter): void {
    if (waiter.done) return
    if (waiter.kind === 'lease') {
      this.#end(waiter, { status: 'empty' })
      this.#group(waiter.request.topic, waiter.request.group)?.waiters.noteEnd()
    } else if (waiter.kind === 'read') {
      const topic = this.topics.get(waiter.request.topic) as Topic
      serveReader(this.#core, topic, waiter, true)
      topic.readWaiters.noteEnd()
    } else {
      const found: FindOutcome = findJob(this.#core, this.topics, waiter.request.id)
      this.#end(waiter, found)
      removeWatcher(this.#core, this.topics, waiter)
    }
  }

  // ---- a step

  #fire(due: Due): void {
    const core = this.#core
    switch (due.kind) {
      case 'lease':
        return expireLease(core, due.group, due.fence)
      case 'retry':
        if (due.group.troubles.get(due.trouble.offset) !== due.trouble) return
        due.group.makeReady(due.trouble.offset)
        core.touched.add(due.group)
        return
      case 'serve':
        core.touched.add(due.group)
        return
      case 'scheduled':
        placeDue(core, due.topic, due.atMs)
        return
      case 'wait':
        this.#endWait(due.waiter)
        return
      case 'sweep':
        this.#sweep(due.topic)
    }
  }

  #sweep(topic: Topic): void {
    const core = this.#core
    if (++this.#sweeps > MAX_SWEEPS_PER_STEP) {
      this.#setSweep(topic, 1)
      return
    }
    const retention = this.#retention.get(topic) as Retention
    const isMore = retention.sweep(core, this.#log)
    this.#setSweep(topic, isMore ? MORE_SWEEP_MS : retention.intervalMs)
  }

  #setSweep(topic: Topic, inMs: number): void {
    this.#core.timers.add(this.#core.nowMs + inMs, { kind: 'sweep', topic })
  }

  /** The end of a step: workers, readers and watchers get what came, and what changed is put into the state. */
  #settleDown(): void {
    const core = this.#core
    for (const topic of core.grown) for (const group of topic.groups.values()) core.touched.add(group)
    for (const group of core.touched) {
      serveWaiters(core, group)
      for (const waiter of group.waiters.takeNew()) this.#setTimer(waiter)
    }
    for (const topic of core.grown) {
      for (const waiter of topic.readWaiters.waiting()) serveReader(core, topic, waiter, false)
      topic.save(core)
    }
    for (const group of core.touched) {
      group.save(core)
      if (group.changed.size > 0) answerWatchers(core, group)
    }
    core.grown.clear()
    core.touched.clear()
  }

  /** Ends a wait at its time: at once, where it has none. */
  #setTimer(waiter: Waiter): void {
    if (waiter.untilMs <= this.#core.nowMs) this.#endWait(waiter)
    else this.#core.timers.add(waiter.untilMs, { kind: 'wait', waiter })
  }

  #answer(id: number, value: AnswerValue): void {
    const waiter = this.#waiters.get(id)
    if (waiter !== undefined) {
      this.#waiters.delete(id)
      this.#answeredWaiters.push(waiter)
    }
    this.#answers.push({ id, value })
  }

  #fail(id: number, code: ErrorCode, message: string, details: Readonly<Record<string, unknown>>): void {
    this.#waiters.delete(id)
    this.#answers.push({ id, error: { code, message, details } })
  }

  /** What belongs to the process and not to what is stored. */
  #keepVolatile(before: Topic): void {
    const now = this.topics.get(before.row.name)
    if (now === undefined) return
    now.appended = before.appended - (before.head - now.head)
    now.refused = before.refused
    now.refusedBy = before.refusedBy
    for (const [name, group] of now.groups) {
      const old = before.groups.get(name)
      if (old === undefined) continue
      group.drain = old.drain
      group.figures = old.figures
      group.backlog = old.backlog
      group.rate = old.rate
      for (const [fence, lease] of group.leases)
        lease.keepProgress(old.leases.get(fence) ?? this.#core.ended.get(`${group.row.id}/${fence}`))
    }
  }
}
