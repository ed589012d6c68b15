/**
 * Holds a run of the driver against the model: every step, what was asked and answered is carried out on the model,
 * answer by answer, and afterwards the ledger's own counters must be the model's, and nobody may wait for what is there.
 */
import { strict as assert } from 'node:assert'
import type {
  AppendOutcome,
  Command,
  CommandOutcome,
  Declaration,
  ExtendOutcome,
  ExtendRequest,
  FindOutcome,
  LeaseOutcome,
  ReadOutcome,
  SettleOutcome,
  SettleRequest,
} from '../../src/engine/contract.ts'
import { DEFAULT_GROUP, withDefaults } from '../../src/engine/options.ts'
import type { AnswerValue, LedgerAnswer, LedgerRequest } from '../../src/ledger/requests.ts'
import { BatchView } from '../../src/message-batch.ts'
import type { LedgerDriver } from './ledger-driver.ts'
import { ModelGroup, type ModelPlace, type ModelTopic } from './ledger-model.ts'
import { messageOf, Scene } from './ledger-scene.ts'
import { StoringChecks } from './ledger-storing-checks.ts'

type LeaseRequest = Extract<LedgerRequest, { kind: 'lease' }>

export class LedgerChecks {
  readonly #scene: Scene
  readonly #storing: StoringChecks
  /** Lease requests that wait. */
  readonly #waits = new Map<number, { request: LeaseRequest; untilMs: number }>()
  readonly #watches = new Map<number, { id: string; untilMs: number }>()
  readonly #earliest = new Map<string, number>()
  #refusedAtMs = Number.NEGATIVE_INFINITY
  #restores = 0

  constructor(driver: LedgerDriver, topics: readonly ModelTopic[]) {
    this.#scene = new Scene(driver, topics)
    this.#storing = new StoringChecks(this.#scene)
    this.#restores = driver.restores
    driver.onStep = (requests, answers) => this.observe(requests, answers)
  }

  get topics(): ReadonlyMap<string, ModelTopic> {
    return this.#scene.topics
  }

  /** What happened, to see that a run is worth something. */
  get counts(): ReadonlyMap<string, number> {
    return this.#scene.counts
  }

  count(what: string): void {
    this.#scene.count(what)
  }

  /** The process ended; another one is about to load what was kept. */
  loseProcess(): void {
    this.#scene.nowMs = this.#scene.driver.nowMs
    this.#waits.clear()
    this.#watches.clear()
    this.#loseLeases(false)
  }

  observe(requests: readonly LedgerRequest[], answers: readonly LedgerAnswer[]): void {
    const scene = this.#scene
    const { driver } = scene
    scene.nowMs = driver.nowMs
    scene.isRefusing = driver.ledger.refusesAppends
    if (scene.isRefusing || driver.restores > this.#restores) this.#refusedAtMs = scene.nowMs
    this.#restores = driver.restores
    const values = new Map<number, AnswerValue>()
    for (const answer of answers) {
      assert.equal(values.has(answer.id), false, `request ${answer.id} is answered once`)
      values.set(answer.id, 'value' in answer ? answer.value : this.#refusal(requests, answer))
    }
    for (const [, group] of scene.groups) group.expireLeases(scene.nowMs)
    for (const { id, untilMs } of this.#watches.values()) if (untilMs <= scene.nowMs) scene.askFor(id)
    this.#storing.placeDue(requests, values, this.#refusedAtMs)
    for (const request of requests) this.#carryOut(request, values.get(request.id))
    for (const [topic, group] of scene.groups) this.#takeExpired(topic, group)
    for (const request of requests)
      if (request.kind === 'read') this.#storing.read(request.body, values.get(request.id) as ReadOutcome | undefined)
    for (const [id, value] of values) {
      const wait = this.#waits.get(id)
      if (wait !== undefined) this.#lease(wait.request, wait.untilMs, value as LeaseOutcome)
      this.#waits.delete(id)
      this.#watches.delete(id)
    }
    this.#checkWaits()
    for (const [topic] of scene.groups) this.#compareTopic(topic)
    for (const [topic, group] of scene.groups) this.#compareGroup(topic, group)
  }

  /** The one thing that is asked in vain: to redrive the dead letters of a group on a topic. */
  #refusal(
    requests: readonly LedgerRequest[],
    { id, error }: Extract<LedgerAnswer, { error: unknown }>,
  ): CommandOutcome {
    const request = requests.find((one) => one.id === id)
    assert.ok(
      request?.kind === 'command' && request.body.kind === 'redrive',
      `request ${id} failed: ${error.code} ${error.message}`,
    )
    assert.equal(error.code, 'UNSUPPORTED')
    assert.equal(this.#scene.topic(request.body.topic).kind, 'topic')
    return { status: 'done', count: 0, ids: [] }
  }

  // ---- requests

  #carryOut(request: LedgerRequest, value: AnswerValue | undefined): void {
    const scene = this.#scene
    if (this.#isForGoneGroup(request)) {
      assert.deepEqual([value].flat(), [{ status: 'not-found' }])
      return
    }
    switch (request.kind) {
      case 'append':
        for (const [i, one] of request.body.entries()) this.#storing.append(one, (value as AppendOutcome[])[i], false)
        break
      case 'settle':
        for (const [i, one] of request.body.entries()) this.#settle(one, (value as SettleOutcome[])[i] as SettleOutcome)
        break
      case 'extend':
        for (const [i, one] of request.body.entries()) this.#extend(one, (value as ExtendOutcome[])[i] as ExtendOutcome)
        break
      case 'find':
        for (const [i, id] of request.body.entries()) this.#find(id, (value as FindOutcome[])[i] as FindOutcome)
        break
      case 'command':
        this.#command(request.body, value as CommandOutcome)
        break
      case 'declare':
        for (const one of request.body) if (one.kind === 'group') this.#addGroup(one)
        break
      case 'watch':
        this.#watches.set(request.id, { id: request.body.id, untilMs: scene.nowMs + request.body.waitMs })
        scene.askFor(request.body.id)
        break
      case 'lease':
        this.#waits.set(request.id, { request, untilMs: scene.nowMs + request.body.waitMs })
        break
      case 'abort':
        this.#endWait(request.body)
        break
      case 'stop':
        for (const id of [...this.#waits.keys(), ...this.#watches.keys()]) this.#endWait(id)
        this.#loseLeases(true)
    }
  }

  #isForGoneGroup(request: LedgerRequest): boolean {
    const { kind, body } = request
    let target: unknown = kind === 'lease' || kind === 'command' ? body : null
    if (kind === 'settle' || kind === 'extend') target = body[0]
    if (kind === 'command' && 'hold' in body) target = body.hold
    const { topic, group } = { topic: undefined, group: undefined, ...(target as object | null) }
    return topic !== undefined && group !== undefined && this.#scene.group(topic, group) === undefined
  }

  #loseLeases(isGraceful: boolean): void {
    for (const [, group] of this.#scene.groups) group.loseProcess(this.#scene.nowMs, isGraceful)
  }

  /** The wait of a request is over from now on. */
  #endWait(id: number): void {
    const wait = this.#waits.get(id)
    if (wait !== undefined) wait.untilMs = this.#scene.nowMs
    const watch = this.#watches.get(id)
    if (watch === undefined) return
    watch.untilMs = this.#scene.nowMs
    this.#scene.askFor(watch.id)
  }

  #addGroup({ topic: name, name: group, settings, from }: Extract<Declaration, { kind: 'group' }>): void {
    const topic = this.#scene.topic(name)
    if (topic.groups.has(group)) return
    const added = new ModelGroup(topic, withDefaults(DEFAULT_GROUP, settings), from as number)
    added.lastFence = topic.formerFences.get(group) ?? 0
    topic.groups.set(group, added)
  }

  #settle(request: SettleRequest, outcome: SettleOutcome): void {
    const scene = this.#scene
    const group = scene.group(request.topic, request.group)
    const outputs = request.outputs ?? []
    const held = (offset: number) => group.held(request.fence, request.token, offset)
    const lost = request.offsets.filter((offset) => held(offset) === undefined)
    const places = request.offsets.map(held).filter((place) => place !== undefined)
    scene.count(`settle ${request.outcome.kind} ${lost.length > 0 ? 'lost' : outcome.status}`)
    if (outcome.status === 'full') {
      assert.equal(lost.length, 0)
      this.#storing.fullSettle(request, group, places)
      return
    }
    assert.ok(outcome.status === 'settled')
    if (outputs.length > 0 && lost.length > 0) {
      assert.deepEqual(outcome.lost, request.offsets)
      return
    }
    assert.deepEqual(outcome.lost, lost)
    for (const place of places) group.settle(place, request.outcome, scene.nowMs)
    for (const [i, output] of outputs.entries()) this.#storing.append(output, outcome.outputs[i], true)
  }

  #extend(request: ExtendRequest, outcome: ExtendOutcome): void {
    const group = this.#scene.group(request.topic, request.group)
    const lost = request.offsets.filter((offset) => group.held(request.fence, request.token, offset) === undefined)
    assert.ok(outcome.status === 'extended')
    assert.deepEqual(outcome.lost, lost)
    const lease = group.leases.get(request.fence)
    if (lost.length === request.offsets.length || lease?.token === undefined) return
    lease.expiresAtMs = Math.max(lease.expiresAtMs, this.#scene.nowMs + request.leaseMs)
    assert.equal(outcome.expiresAtMs, lease.expiresAtMs)
  }

  #find(id: string, outcome: FindOutcome): void {
    this.#scene.count(`find ${outcome.status === 'found' ? outcome.job.status : outcome.status}`)
    if (outcome.status === 'found') this.#scene.checkJob(this.#scene.locate(id), outcome.job)
    else this.#scene.checkNotFound(id)
  }

  #command(command: Command, outcome: CommandOutcome): void {
    const scene = this.#scene
    scene.count(`${command.kind} ${outcome.status}`)
    switch (command.kind) {
      case 'cancel':
        this.#cancel(command.id, outcome)
        break
      case 'pause':
      case 'resume':
        scene.group(command.topic, command.group).paused = command.kind === 'pause'
        break
      case 'seek':
        if (outcome.status === 'done') scene.group(command.topic, command.group).seek(command.from as number)
        break
      case 'dead': {
        assert.ok(outcome.status === 'dead-letters')
        const offsets = outcome.letters.map(({ offset }) => offset)
        assert.deepEqual(offsets, oldest(scene.group(command.topic, command.group)))
        break
      }
      case 'redrive':
        this.#storing.redrive(scene.group(command.topic, command.group), command.ids, outcome)
        break
      case 'discard': {
        const group = scene.group(command.topic, command.group)
        const dropped = oldest(group).slice(0, command.max)
        assert.ok(outcome.status === 'done' && outcome.count === dropped.length)
        for (const offset of dropped) group.dead.delete(offset)
        break
      }
      case 'forget': {
        const topic = scene.topic(command.topic)
        topic.formerFences.set(command.group, scene.group(command.topic, command.group).lastFence)
        topic.groups.delete(command.group)
        break
      }
      case 'remember':
      case 'recall': {
        const { topic, group, fence, token, offsets } = command.hold
        const place = scene.group(topic, group).held(fence, token, offsets[0] as number)
        assert.equal(outcome.status, place === undefined ? 'lost' : 'done')
        if (command.kind === 'remember') place?.kept.set(command.name, command.value)
        else if (outcome.status === 'done') assert.equal(outcome.value, place?.kept.get(command.name))
      }
    }
  }

  #cancel(id: string, outcome: CommandOutcome): void {
    const found = this.#scene.locate(id)
    if (outcome.status === 'not-found') {
      this.#scene.checkNotFound(id)
    } else if (outcome.status === 'terminal') {
      this.#scene.checkJob(found, outcome.job)
    } else {
      assert.ok(outcome.status === 'done' && found !== null)
      if ('serial' in found.place) found.place.offset = 'cancelled'
      else (found.topic.groups.get('') as ModelGroup).end(found.place, 'cancelled')
    }
  }

  // ---- the end of a step

  /** Messages past their deadline that the hand-out met. */
  #takeExpired(topic: ModelTopic, group: ModelGroup): void {
    const { settled } = this.#scene.ledgerGroup(topic, group)
    group.freed.clear()
    for (const place of group.open) {
      if (!group.isExpired(place, this.#scene.nowMs) || !settled.has(place.offset)) continue
      group.end(place, 'expired')
      group.freed.add(group.laneOf(place))
      this.#scene.count('expired')
    }
  }

  #lease(request: LeaseRequest, untilMs: number, outcome: LeaseOutcome): void {
    const { nowMs } = this.#scene
    const { topic, group: name, holder, max, leaseMs } = request.body
    this.#scene.count(`lease ${outcome.status}`)
    if (outcome.status === 'empty') assert.ok(untilMs <= nowMs, 'a wait does not end before its time')
    const group = this.#scene.group(topic, name)
    if (outcome.status === 'not-found') assert.equal(group, undefined)
    if (outcome.status !== 'leased') return
    const { fence, offsets, attempts, expiresAtMs } = outcome
    const view = new BatchView(outcome.batch)
    assert.ok(offsets.length <= max && offsets.length === view.count && offsets.length > 0)
    const token = holder.kind === 'token' ? holder.token : undefined
    assert.equal(expiresAtMs, token === undefined ? 0 : nowMs + leaseMs)
    group.handOut(fence, token, expiresAtMs, offsets, attempts, nowMs)
    for (const [i, offset] of offsets.entries()) {
      assert.deepEqual(messageOf(view, i), (group.places[offset] as ModelPlace).message, 'the same bytes come out')
    }
    this.#scene.count('handed out', offsets.length)
  }

  #checkWaits(): void {
    const { nowMs } = this.#scene
    const waits = [...this.#waits.values(), ...this.#watches.values()]
    for (const { untilMs } of waits) assert.ok(untilMs > nowMs, 'a wait ends at its time')
    for (const { id } of this.#watches.values())
      assert.equal(this.#scene.isTerminal(id), false, `${id} has ended, and its watch hears of it`)
  }

  #compareTopic(topic: ModelTopic): void {
    const actual = this.#scene.driver.ledger.topics.get(topic.name)
    assert.ok(actual !== undefined)
    assert.deepEqual(actual.depth, topic.depth(), `the depth of ${topic.name}`)
    assert.equal(actual.scheduled, topic.waitingDelayed.length)
    assert.equal(actual.head, topic.messages.length)
    assert.ok(actual.earliest >= (this.#earliest.get(topic.name) ?? 0), 'earliest never falls')
    this.#earliest.set(topic.name, actual.earliest)
    for (const group of topic.groups.values())
      assert.ok(actual.earliest <= group.floor, 'nothing is trimmed that a group has not settled')
  }

  #compareGroup(topic: ModelTopic, group: ModelGroup): void {
    const actual = this.#scene.ledgerGroup(topic, group)
    const counted = [actual.leasedCount, actual.blockedCount, actual.deadCount, actual.settled.floor]
    const blocked = group.open.filter(({ state }) => state === 'blocked').length
    const expected = [group.leased.length, blocked, group.dead.size, group.floor]
    assert.deepEqual(counted, expected, `leased, blocked, dead and floor of ${topic.name}`)
    for (const place of group.open) {
      assert.equal(actual.settled.has(place.offset), false, `${place.offset} is not settled`)
      if (place.state !== 'parked') continue
      const { dueFromMs, dueByMs, offset } = place
      const dueAtMs = actual.troubles.get(offset)?.dueAtMs ?? Number.NaN
      assert.ok(
        dueAtMs >= dueFromMs && dueAtMs <= dueByMs,
        `${offset} is due at ${dueAtMs}, within ${dueFromMs} to ${dueByMs}`,
      )
      place.dueFromMs = place.dueByMs = dueAtMs
    }
    if (actual.waiters.waiting().length > 0 && !group.paused) this.#checkNobodyWaitsInVain(topic, group)
  }

  #checkNobodyWaitsInVain(topic: ModelTopic, group: ModelGroup): void {
    const { nowMs } = this.#scene
    const heads = group.heads()
    if (group.leased.some(({ suspect }) => suspect)) return
    if (heads.some((place) => place.suspect && group.isAvailable(place, nowMs))) {
      assert.ok(group.leased.length > 0, 'a suspect goes out once nothing is held')
      return
    }
    for (const place of heads) {
      const isThere = group.isAvailable(place, nowMs) || group.isExpired(place, nowMs)
      assert.equal(isThere, false, `${place.offset} of ${topic.name} is there for who waits`)
    }
  }
}

/** Dead letters, oldest first. */
function oldest(group: ModelGroup): number[] {
  return [...group.dead].toSorted((a, b) => a - b)
}
