/**
 * Holds a run of the driver against the model: every step, what was asked and answered is carried out on the model,
 * answer by answer, and afterwards the ledger's own counters must be the model's.
 */
import { strict as assert } from 'node:assert'
import type {
  AppendOutcome,
  AppendRequest,
  Command,
  CommandOutcome,
  Declaration,
  ExtendOutcome,
  ExtendRequest,
  FindOutcome,
  FullOutcome,
  JobView,
  LeaseOutcome,
  MessageOutcome,
  ReadOutcome,
  ReadRequest,
  SettleOutcome,
  SettleRequest,
} from '../../src/engine/contract.ts'
import { DEFAULT_GROUP, withDefaults } from '../../src/engine/options.ts'
import { parseJobId } from '../../src/job-id.ts'
import type { Group } from '../../src/ledger/group.ts'
import type { AnswerValue, LedgerAnswer, LedgerRequest } from '../../src/ledger/requests.ts'
import { BatchView } from '../../src/message-batch.ts'
import { type LedgerDriver, spread } from './ledger-driver.ts'
import { type ModelDelayed, ModelGroup, type ModelMessage, type ModelPlace, type ModelTopic, sum } from './ledger-model.ts'

const RESERVE = 1.1
const LOW_WATER = 0.9
const PROGRESS_STEPS = 65_536
/** Delayed jobs that fell due on a full disk may come this much later. */
const DISK_LATE_MS = 2_500

type LeaseRequest = Extract<LedgerRequest, { kind: 'lease' }>

export class LedgerChecks {
  readonly topics: Map<string, ModelTopic>
  /** What happened, to see that a run is worth something. */
  readonly counts = new Map<string, number>()
  readonly #driver: LedgerDriver
  /** Lease requests that wait. */
  readonly #waits = new Map<number, LeaseRequest>()
  readonly #watches = new Map<number, { id: string; untilMs: number }>()
  readonly #versions = new Map<string, number>()
  readonly #earliest = new Map<string, number>()
  #nowMs = 0
  #isRefusing = false
  #refusedAtMs = Number.NEGATIVE_INFINITY
  #restores = 0

  constructor(driver: LedgerDriver, topics: readonly ModelTopic[]) {
    this.#driver = driver
    this.topics = new Map(topics.map((topic) => [topic.name, topic]))
    this.#restores = driver.restores
    driver.onStep = (requests, answers) => this.observe(requests, answers)
  }

  /** The process ended; another one has loaded what was kept, but has not stepped yet. */
  loseProcess(): void {
    this.#nowMs = this.#driver.nowMs
    this.#waits.clear()
    this.#watches.clear()
    for (const topic of this.topics.values()) for (const group of topic.groups.values()) group.loseProcess(this.#nowMs)
  }

  observe(requests: readonly LedgerRequest[], answers: readonly LedgerAnswer[]): void {
    const driver = this.#driver
    this.#nowMs = driver.nowMs
    this.#isRefusing = driver.ledger.refusesAppends
    if (this.#isRefusing || driver.restores > this.#restores) this.#refusedAtMs = this.#nowMs
    this.#restores = driver.restores
    const values = new Map<number, AnswerValue>()
    for (const answer of answers) {
      assert.equal(values.has(answer.id), false, `request ${answer.id} is answered once`)
      values.set(answer.id, 'value' in answer ? answer.value : this.#refusal(requests, answer))
    }
    for (const topic of this.topics.values()) for (const group of topic.groups.values()) group.expireLeases(this.#nowMs)
    for (const { id, untilMs } of this.#watches.values()) if (untilMs <= this.#nowMs) this.#askFor(id)
    this.#placeDue(requests, values)
    for (const request of requests) this.#carryOut(request, values.get(request.id))
    for (const topic of this.topics.values()) for (const group of topic.groups.values()) this.#takeExpired(topic, group)
    for (const request of requests) if (request.kind === 'read') this.#read(request.body, values.get(request.id) as ReadOutcome | undefined)
    for (const answer of answers) {
      const wait = this.#waits.get(answer.id)
      if (wait !== undefined && 'value' in answer) this.#lease(wait, answer.value as LeaseOutcome)
      this.#watches.delete(answer.id)
    }
    for (const { id } of this.#watches.values()) assert.equal(this.#isTerminal(id), false, `${id} has ended, and its watch hears of it`)
    this.#compare()
  }

  /** The one thing that is asked in vain: to redrive the dead letters of a group on a topic. */
  #refusal(requests: readonly LedgerRequest[], { id, error }: Extract<LedgerAnswer, { error: unknown }>): CommandOutcome {
    const request = requests.find((one) => one.id === id)
    assert.ok(request?.kind === 'command' && request.body.kind === 'redrive', `request ${id} failed: ${error.code} ${error.message}`)
    assert.equal(error.code, 'UNSUPPORTED')
    const group = this.#group(request.body.topic, request.body.group)
    assert.ok(group.topic.kind === 'topic' && group.dead.size > 0)
    return { status: 'done', count: 0, ids: [] }
  }

  count(what: string, by = 1): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + by)
  }

  // ---- delayed jobs, which take their places before the requests of a step

  #placeDue(requests: readonly LedgerRequest[], values: ReadonlyMap<number, AnswerValue>): void {
    const stored = new Map<string, number>()
    const note = (topic: string, outcomes: readonly MessageOutcome[]) =>
      stored.set(topic, (stored.get(topic) ?? 0) + outcomes.filter(({ status }) => status === 'stored').length)
    for (const request of requests) {
      const value = values.get(request.id)
      if (request.kind === 'append') request.body.forEach((one, i) => note(one.topic, outcomesOf(one, (value as AppendOutcome[])[i])))
      if (request.kind === 'settle') {
        request.body.forEach((one, i) => {
          const outcome = (value as SettleOutcome[])[i]
          if (outcome?.status !== 'settled') return
          one.outputs?.forEach((output, j) => (outcome.outputs[j] === undefined ? 0 : note(output.topic, outcomesOf(output, outcome.outputs[j]))))
        })
      }
      if (request.kind === 'command' && request.body.kind === 'redrive') {
        const { ids = [] } = value as { ids?: readonly string[] }
        note(request.body.topic, ids.map(() => ({ status: 'stored', offset: 0 })))
      }
    }
    for (const topic of this.topics.values()) {
      const placed = sum(this.#outputsOf(topic).map(({ count }) => count)) - (stored.get(topic.name) ?? 0)
      for (let i = 0; i < placed; i++) topic.placeNext(this.#nowMs)
      this.count('placed', placed)
      if (this.#nowMs - this.#refusedAtMs < DISK_LATE_MS) continue
      for (const { dueMs } of topic.waitingDelayed) assert.ok(dueMs > this.#nowMs, 'a delayed job that is due has its place')
    }
  }

  #outputsOf(topic: ModelTopic) {
    const id = this.#driver.ledger.topics.get(topic.name)?.row.id
    return (this.#driver.lastCommit?.outputs ?? []).filter((output) => output.topic === id)
  }

  // ---- requests

  #carryOut(request: LedgerRequest, value: AnswerValue | undefined): void {
    switch (request.kind) {
      case 'append':
        for (const [i, one] of request.body.entries()) this.#append(one, (value as AppendOutcome[])[i], false)
        return
      case 'settle':
        for (const [i, one] of request.body.entries()) this.#settle(one, (value as SettleOutcome[])[i] as SettleOutcome)
        return
      case 'extend':
        for (const [i, one] of request.body.entries()) this.#extend(one, (value as ExtendOutcome[])[i] as ExtendOutcome)
        return
      case 'find':
        for (const [i, id] of request.body.entries()) this.#find(id, (value as FindOutcome[])[i] as FindOutcome)
        return
      case 'command':
        return this.#command(request.body, value as CommandOutcome)
      case 'declare':
        for (const one of request.body) if (one.kind === 'group') this.#addGroup(one)
        return
      case 'watch':
        this.#watches.set(request.id, { id: request.body.id, untilMs: this.#nowMs + request.body.waitMs })
        return this.#askFor(request.body.id)
      case 'lease':
        this.#waits.set(request.id, request)
        return
      default:
        return
    }
  }

  #addGroup({ topic: name, name: group, settings, from }: Extract<Declaration, { kind: 'group' }>): void {
    const topic = this.#topic(name)
    if (!topic.groups.has(group)) topic.groups.set(group, new ModelGroup(topic, withDefaults(DEFAULT_GROUP, settings), from as number))
  }

  #append(request: AppendRequest, outcome: AppendOutcome | undefined, isReserve: boolean): void {
    const topic = this.#topic(request.topic)
    const view = new BatchView(request.batch)
    const wishes = new Map((request.wishes ?? []).map((wish) => [wish.index, wish]))
    for (const [i, one] of outcomesOf(request, outcome).entries()) {
      const message = messageOf(view, i)
      const wish = wishes.get(i)
      const key = wish?.idempotencyKey
      const known = key === undefined ? undefined : topic.known.get(key)
      this.count(`append ${one.status}`)
      if (known !== undefined && this.#nowMs - known.atMs < topic.idempotencyMs) {
        assert.equal(one.status, known.payload === message.payload ? 'duplicate' : 'mismatch', 'a key holds within its window')
      }
      switch (one.status) {
        case 'stored':
        case 'scheduled': {
          assert.equal(this.#isRefusing, false, 'nothing is stored on a full disk')
          const isLater = wish?.dueAtMs !== undefined && wish.dueAtMs > this.#nowMs
          assert.equal(one.status, isLater ? 'scheduled' : 'stored')
          if (one.status === 'stored') topic.store(message, one.offset)
          else this.#schedule(topic, { dueMs: one.dueAtMs, serial: one.serial, message, offset: null })
          assertWithin(topic, isReserve ? RESERVE : 1)
          if (key !== undefined && topic.idempotencyMs > 0) {
            topic.known.set(key, { place: placeText(one), payload: message.payload, atMs: this.#nowMs })
          }
          break
        }
        case 'duplicate':
          assert.equal(placeText(one.place), known?.place)
          assert.ok(known !== undefined && this.#nowMs - known.atMs <= topic.idempotencyMs * 1.25 + 5, 'a key is forgotten after its window')
          break
        case 'mismatch':
          assert.ok(known !== undefined && known.payload !== message.payload)
          break
        case 'full':
          assert.equal(isReserve, false, 'outputs that were admitted are stored')
          this.#checkFull(topic, one, 1, message.size, 1)
      }
    }
  }

  #schedule(topic: ModelTopic, delayed: ModelDelayed): void {
    assert.equal(topic.serials.has(delayed.serial), false, 'serial numbers are used once')
    topic.serials.add(delayed.serial)
    topic.delayed.push(delayed)
  }

  /** A refusal has a reason: the disk, the limit, or that the queue was full and is not below low water. */
  #checkFull(topic: ModelTopic, full: FullOutcome, messages: number, bytes: number, share: number): void {
    assert.ok(full.retryAfterMs >= 50 && full.retryAfterMs <= 66_000)
    assert.equal(full.reason === 'disk', this.#isRefusing)
    if (full.reason === 'disk') return
    const depth = topic.depth()
    const { limit } = topic
    assert.equal(full.limit, limit[full.reason])
    assert.equal(full.depth, depth[full.reason])
    const isOver = depth.messages + messages > Math.floor(limit.messages * share) || depth.bytes + bytes > Math.floor(limit.bytes * share)
    const isAbove = depth.messages > Math.floor(limit.messages * LOW_WATER) || depth.bytes > Math.floor(limit.bytes * LOW_WATER)
    assert.ok(isOver || (share === 1 && isAbove), `a refusal at a depth of ${JSON.stringify(depth)}`)
  }

  #settle(request: SettleRequest, outcome: SettleOutcome): void {
    const group = this.#group(request.topic, request.group)
    const held = (offset: number) => group.held(request.fence, request.token, offset)
    const outputs = request.outputs ?? []
    const lost = request.offsets.filter((offset) => held(offset) === undefined)
    const places = request.offsets.map(held).filter((place) => place !== undefined)
    this.count(`settle ${request.outcome.kind} ${lost.length > 0 ? 'lost' : outcome.status}`)
    if (outcome.status === 'full') {
      assert.equal(lost.length, 0)
      if (!this.#isRefusing) {
        const isFull = outputs.some(({ topic }) => {
          const one = this.#topic(topic)
          const leaving = request.outcome.kind === 'done' && one === group.topic ? { group, places } : undefined
          const views = outputs.filter((output) => output.topic === topic).map(({ batch }) => new BatchView(batch))
          const messages = one.depth(leaving).messages + sum(views.map(({ count }) => count))
          const bytes = one.depth(leaving).bytes + sum(views.map((view) => view.bytes.byteLength - 16))
          return messages > Math.floor(one.limit.messages * RESERVE) || bytes > Math.floor(one.limit.bytes * RESERVE)
        })
        assert.ok(isFull, 'a settle is refused only where an output finds no room')
      }
      return
    }
    assert.ok(outcome.status === 'settled')
    if (outputs.length > 0 && lost.length > 0) {
      assert.deepEqual(outcome.lost, request.offsets)
      return
    }
    assert.deepEqual(outcome.lost, lost)
    for (const place of places) group.settle(place, request.outcome, this.#nowMs)
    for (const [i, output] of outputs.entries()) this.#append(output, outcome.outputs[i], true)
  }

  #extend(request: ExtendRequest, outcome: ExtendOutcome): void {
    const group = this.#group(request.topic, request.group)
    const lost = request.offsets.filter((offset) => group.held(request.fence, request.token, offset) === undefined)
    assert.ok(outcome.status === 'extended')
    assert.deepEqual(outcome.lost, lost)
    const lease = group.leases.get(request.fence)
    if (lost.length === request.offsets.length || lease?.token === undefined) return
    lease.expiresAtMs = Math.max(lease.expiresAtMs, this.#nowMs + request.leaseMs)
    assert.equal(outcome.expiresAtMs, lease.expiresAtMs)
  }

  #lease(request: LeaseRequest, outcome: LeaseOutcome): void {
    this.#waits.delete(request.id)
    const { topic, group: name, holder, max, leaseMs } = request.body
    this.count(`lease ${outcome.status}`)
    if (outcome.status !== 'leased') return
    const group = this.#group(topic, name)
    const { fence, offsets, attempts, expiresAtMs } = outcome
    const view = new BatchView(outcome.batch)
    assert.ok(offsets.length <= max && offsets.length === view.count && offsets.length > 0)
    const token = holder.kind === 'token' ? holder.token : undefined
    assert.equal(expiresAtMs, token === undefined ? 0 : this.#nowMs + leaseMs)
    group.handOut(fence, token, expiresAtMs, offsets, attempts, this.#nowMs)
    for (const [i, offset] of offsets.entries()) {
      assert.deepEqual(messageOf(view, i), (group.places[offset] as ModelPlace).message, 'the same bytes come out')
    }
    this.count('handed out', offsets.length)
  }

  #read(request: ReadRequest, outcome: ReadOutcome | undefined): void {
    if (outcome === undefined) return
    const topic = this.#topic(request.topic)
    const from = request.from as number
    if (outcome.status !== 'read') {
      assert.ok(outcome.status === 'truncated' && from < outcome.earliest, `a read from ${from} answers ${outcome.status}`)
      return
    }
    let offset = from
    for (const { bytes, baseOffset, from: first, to } of outcome.messages) {
      assert.equal(baseOffset + first, offset, 'offsets rise without gaps')
      const view = new BatchView(bytes)
      for (let i = first; i < to; i++) assert.deepEqual(messageOf(view, i), topic.messages[offset++])
    }
    assert.equal(outcome.next, offset)
    this.count('read', offset - from)
  }

  // ---- jobs

  /** What an id stands for. */
  #locate(id: string): { topic: ModelTopic; place: ModelPlace | ModelDelayed } | null {
    const job = parseJobId(id)
    const topic = job === null ? undefined : this.topics.get(job.queue)
    if (job === null || topic === undefined || !this.#driver.id(job.queue, 0).includes(`:${job.tag}:`)) return null
    const { place } = job
    const delayed = place.kind === 'scheduled' ? topic.delayed.find(({ serial }) => serial === place.serial) : undefined
    if (place.kind === 'scheduled' && typeof delayed?.offset !== 'number') return delayed === undefined ? null : { topic, place: delayed }
    const found = (topic.groups.get('') as ModelGroup).places[(place.kind === 'scheduled' ? delayed?.offset : place.offset) as number]
    return found === undefined ? null : { topic, place: found }
  }

  /** P11: a job that is asked for after its deadline has expired, unless it was started. */
  #askFor(id: string): void {
    const found = this.#locate(id)
    if (found === null || 'serial' in found.place) return
    const group = found.topic.groups.get('') as ModelGroup
    if (group.isExpired(found.place, this.#nowMs)) group.end(found.place, 'expired')
  }

  #isTerminal(id: string): boolean {
    const place = this.#locate(id)?.place
    if (place === undefined) return false
    return 'serial' in place ? place.offset === 'cancelled' : place.state === 'settled'
  }

  #find(id: string, outcome: FindOutcome): void {
    const found = this.#locate(id)
    this.count(`find ${outcome.status === 'found' ? outcome.job.status : outcome.status}`)
    if (outcome.status === 'not-found') {
      if (found === null) return
      const { place, topic } = found
      const isTrimmed = 'serial' in place ? place.offset === 'cancelled' : place.offset < this.#earliestOf(topic)
      assert.ok(isTrimmed, `${id} is found`)
      return
    }
    assert.ok(found !== null)
    this.#checkJob(found, outcome.job)
  }

  #checkJob({ topic, place }: { topic: ModelTopic; place: ModelPlace | ModelDelayed }, job: JobView): void {
    const version = Math.floor(job.version / PROGRESS_STEPS)
    assert.ok(version >= (this.#versions.get(job.id) ?? 0), `the version of ${job.id} never falls`)
    this.#versions.set(job.id, version)
    if ('serial' in place) {
      assert.equal(job.status, place.offset === null ? 'scheduled' : 'cancelled')
      return
    }
    this.#askFor(job.id)
    const names = { waiting: 'queued', leased: 'active', parked: 'retrying', blocked: 'blocked', settled: place.end }
    assert.equal(job.status, names[place.state], `${job.id}`)
    assert.equal(job.attempts, place.attempts)
    if (place.end === 'completed') assert.equal(job.result, place.result)
  }

  #command(command: Command, outcome: CommandOutcome): void {
    this.count(`${command.kind} ${outcome.status}`)
    switch (command.kind) {
      case 'cancel': {
        const found = this.#locate(command.id)
        if (outcome.status === 'not-found') return this.#find(command.id, { status: 'not-found' })
        assert.ok(found !== null)
        if (outcome.status === 'terminal') return this.#checkJob(found, outcome.job)
        assert.equal(outcome.status, 'done')
        if ('serial' in found.place) found.place.offset = 'cancelled'
        else (found.topic.groups.get('') as ModelGroup).end(found.place, 'cancelled')
        return
      }
      case 'pause':
      case 'resume':
        this.#group(command.topic, command.group).paused = command.kind === 'pause'
        return
      case 'seek':
        if (outcome.status === 'done') this.#group(command.topic, command.group).seek(command.from as number)
        return
      case 'redrive':
        return this.#redrive(this.#group(command.topic, command.group), command.ids, outcome)
      case 'remember':
      case 'recall': {
        const { topic, group, fence, token, offsets } = command.hold
        const place = this.#group(topic, group).held(fence, token, offsets[0] as number)
        assert.equal(outcome.status, place === undefined ? 'lost' : 'done')
        if (command.kind === 'remember') place?.kept.set(command.name, command.value)
        else if (outcome.status === 'done') assert.equal(outcome.value, place?.kept.get(command.name))
      }
    }
  }

  #redrive(group: ModelGroup, ids: readonly string[] | undefined, outcome: CommandOutcome): void {
    const { topic } = group
    const offsets = ids?.map((id) => this.#offsetFor(topic, id))
    const isMeant = (offset: number) => offsets === undefined || offsets.includes(offset)
    const blocked = group.open.filter(({ state, offset }) => state === 'blocked' && isMeant(offset))
    for (const place of blocked) {
      place.state = 'parked'
      place.dueFromMs = place.dueByMs = this.#nowMs
      place.forgiven = place.attempts
    }
    const dead = topic.kind === 'topic' ? [] : [...group.dead].filter(isMeant).toSorted((a, b) => a - b)
    const { count = 0, ids: made = [] } = outcome.status === 'done' ? outcome : {}
    assert.equal(count, blocked.length + made.length)
    const left = new Set(dead)
    for (const id of made) {
      const offset = (parseJobId(id)?.place as { offset: number }).offset
      const stored = this.#storedAt(topic, offset)
      const from = dead.find((one) => left.has(one) && stored.redriveOf === this.#driver.id(topic.name, one))
      assert.ok(from !== undefined, 'a redriven job names the one it was')
      const { payload, key, priority } = topic.messages[from] as ModelMessage
      assert.deepEqual([stored.message.payload, stored.message.key, stored.message.priority], [payload, key, priority])
      left.delete(from)
      group.dead.delete(from)
      topic.store(stored.message, offset)
      assertWithin(topic, 1)
    }
    if (outcome.status === 'full') this.#checkFull(topic, outcome, 1, 200, 1)
    else if (left.size > 0) assert.ok(this.#isRefusing || topic.depth().messages > Math.floor(topic.limit.messages * LOW_WATER) - 1 || topic.depth().bytes + 200 > Math.floor(topic.limit.bytes * LOW_WATER))
  }

  /** The offset that an id means to a redrive. Where a delayed job went is known as long as the job is. */
  #offsetFor(topic: ModelTopic, id: string): number | null {
    const found = this.#locate(id)
    if (found?.topic !== topic || typeof found.place.offset !== 'number') return null
    const isForgotten = parseJobId(id)?.place.kind === 'scheduled' && found.place.offset < this.#earliestOf(topic)
    return isForgotten ? null : found.place.offset
  }

  #storedAt(topic: ModelTopic, offset: number): { message: ModelMessage; redriveOf: string | undefined } {
    const batch = this.#outputsOf(topic).find((output) => offset >= output.baseOffset && offset < output.baseOffset + output.count)
    assert.ok(batch !== undefined, `${offset} is in the commit`)
    const view = new BatchView(batch.bytes)
    const index = offset - batch.baseOffset
    return { message: messageOf(view, index), redriveOf: view.headers(index)?.['sluice-redrive-of'] }
  }

  // ---- the end of a step

  /** Messages past their deadline that the hand-out met. */
  #takeExpired(topic: ModelTopic, group: ModelGroup): void {
    const ledgerGroup = this.#ledgerGroup(topic, group)
    group.freed.clear()
    for (const place of group.open) {
      if (group.isExpired(place, this.#nowMs) && ledgerGroup.settled.has(place.offset)) {
        group.end(place, 'expired')
        group.freed.add(group.laneOf(place))
        this.count('expired')
      }
    }
  }

  #compare(): void {
    for (const topic of this.topics.values()) {
      const actual = this.#driver.ledger.topics.get(topic.name)
      assert.ok(actual !== undefined)
      assert.deepEqual(actual.depth, topic.depth(), `the depth of ${topic.name}`)
      assert.equal(actual.scheduled, topic.waitingDelayed.length)
      assert.equal(actual.head, topic.messages.length)
      const earliest = this.#earliest.get(topic.name) ?? 0
      assert.ok(actual.earliest >= earliest, 'earliest never falls')
      this.#earliest.set(topic.name, actual.earliest)
      for (const group of topic.groups.values()) {
        assert.ok(actual.earliest <= group.floor, 'nothing is trimmed that a group has not settled')
        this.#compareGroup(topic, group)
      }
    }
  }

  #compareGroup(topic: ModelTopic, group: ModelGroup): void {
    const actual = this.#ledgerGroup(topic, group)
    const counted = [actual.leasedCount, actual.blockedCount, actual.deadCount, actual.settled.floor]
    const blocked = group.open.filter(({ state }) => state === 'blocked').length
    assert.deepEqual(counted, [group.leased.length, blocked, group.dead.size, group.floor], `leased, blocked, dead and floor of ${topic.name}`)
    for (const place of group.open) {
      assert.equal(actual.settled.has(place.offset), false, `${place.offset} is not settled`)
      if (place.state !== 'parked') continue
      const dueAtMs = actual.troubles.get(place.offset)?.dueAtMs ?? Number.NaN
      assert.ok(dueAtMs >= place.dueFromMs && dueAtMs <= place.dueByMs, `${place.offset} is due at ${dueAtMs}, within ${place.dueFromMs} to ${place.dueByMs}`)
      place.dueFromMs = place.dueByMs = dueAtMs
    }
    if (actual.waiters.waiting().length === 0 || group.paused) return
    const heads = group.heads()
    if (group.leased.some(({ suspect }) => suspect)) return
    if (heads.some((place) => place.suspect && group.isAvailable(place, this.#nowMs))) {
      assert.ok(group.leased.length > 0, 'a suspect goes out once nothing is held')
      return
    }
    for (const place of heads) {
      assert.ok(!group.isAvailable(place, this.#nowMs) && !group.isExpired(place, this.#nowMs), `${place.offset} of ${topic.name} is there for who waits`)
    }
  }

  #ledgerGroup(topic: ModelTopic, group: ModelGroup): Group {
    const [name] = [...topic.groups].find(([, one]) => one === group) as [string, ModelGroup]
    return this.#driver.ledger.topics.get(topic.name)?.groups.get(name) as Group
  }

  #earliestOf(topic: ModelTopic): number {
    return this.#driver.ledger.topics.get(topic.name)?.earliest ?? 0
  }

  #topic(name: string): ModelTopic {
    return this.topics.get(name) as ModelTopic
  }

  #group(topic: string, group: string): ModelGroup {
    return this.#topic(topic).groups.get(group) as ModelGroup
  }
}

function assertWithin(topic: ModelTopic, share: number): void {
  const { messages, bytes } = topic.depth()
  assert.ok(messages <= Math.floor(topic.limit.messages * share), `the depth of ${topic.name}, ${messages}, is within its limit`)
  assert.ok(bytes <= Math.floor(topic.limit.bytes * share), `the depth of ${topic.name}, ${bytes} bytes, is within its limit`)
}

function outcomesOf(request: AppendRequest, outcome: AppendOutcome | undefined): readonly MessageOutcome[] {
  return spread(outcome as AppendOutcome, new BatchView(request.batch).count)
}

function messageOf(view: BatchView, index: number): ModelMessage {
  const payload = view.payloadText(index)
  return { payload, key: view.key(index), priority: view.priority(index), deadlineMs: view.deadlineMs(index), size: view.size(index) }
}

function placeText(place: { offset: number } | { dueAtMs: number; serial: number } | { dueMs: number; serial: number }): string {
  if ('offset' in place) return `${place.offset}`
  return `${'dueAtMs' in place ? place.dueAtMs : place.dueMs}-${place.serial}`
}
