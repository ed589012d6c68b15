/** What the checks of one run share: the driver, the model, the time, and what has been met so far. */
import { strict as assert } from 'node:assert'
import type { JobView } from '../../src/engine/contract.ts'
import { parseJobId } from '../../src/job-id.ts'
import type { Group } from '../../src/ledger/group.ts'
import type { StoredBatch } from '../../src/logs/contract.ts'
import type { BatchView } from '../../src/message-batch.ts'
import type { LedgerDriver } from './ledger-driver.ts'
import type { ModelDelayed, ModelGroup, ModelMessage, ModelPlace, ModelTopic } from './ledger-model.ts'

const PROGRESS_STEPS = 65_536
const STATUS = { waiting: 'queued', leased: 'active', parked: 'retrying', blocked: 'blocked' } as const

/** What an id stands for: a place of a queue, or a job that has none yet. */
export interface Located {
  readonly topic: ModelTopic
  readonly place: ModelPlace | ModelDelayed
}

export class Scene {
  readonly driver: LedgerDriver
  readonly topics: ReadonlyMap<string, ModelTopic>
  readonly counts = new Map<string, number>()
  nowMs = 0
  /** Whether the disk is full in this step. */
  isRefusing = false
  readonly #versions = new Map<string, number>()

  constructor(driver: LedgerDriver, topics: readonly ModelTopic[]) {
    this.driver = driver
    this.topics = new Map(topics.map((topic) => [topic.name, topic]))
  }

  get groups(): readonly (readonly [ModelTopic, ModelGroup])[] {
    return [...this.topics.values()].flatMap((topic) =>
      [...topic.groups.values()].map((group) => [topic, group] as const),
    )
  }

  count(what: string, by = 1): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + by)
  }

  topic(name: string): ModelTopic {
    return this.topics.get(name) as ModelTopic
  }

  group(topic: string, group: string): ModelGroup {
    return this.topic(topic).groups.get(group) as ModelGroup
  }

  /** The ledger's own view of a group. */
  ledgerGroup(topic: ModelTopic, group: ModelGroup): Group {
    const [name] = [...topic.groups].find(([, one]) => one === group) as [string, ModelGroup]
    return this.driver.ledger.topics.get(topic.name)?.groups.get(name) as Group
  }

  earliestOf(topic: ModelTopic): number {
    return this.driver.ledger.topics.get(topic.name)?.earliest ?? 0
  }

  /** What this step stored in a topic. */
  outputsOf(topic: ModelTopic): readonly StoredBatch[] {
    const id = this.driver.ledger.topics.get(topic.name)?.row.id
    return (this.driver.lastCommit?.outputs ?? []).filter((output) => output.topic === id)
  }

  // ---- jobs

  locate(id: string): Located | null {
    const job = parseJobId(id)
    const topic = job === null ? undefined : this.topics.get(job.queue)
    if (job === null || topic === undefined || !this.driver.id(job.queue, 0).includes(`:${job.tag}:`)) return null
    const { place } = job
    let offset: number
    if (place.kind === 'scheduled') {
      const delayed = topic.delayed.find(({ serial }) => serial === place.serial)
      if (delayed === undefined) return null
      if (typeof delayed.offset !== 'number') return { topic, place: delayed }
      offset = delayed.offset
    } else {
      offset = place.offset
    }
    const found = topic.groups.get('')?.places[offset]
    return found === undefined ? null : { topic, place: found }
  }

  isTerminal(id: string): boolean {
    const place = this.locate(id)?.place
    if (place === undefined) return false
    return 'serial' in place ? place.offset === 'cancelled' : place.state === 'settled'
  }

  /** P11: a job that is asked for after its deadline has expired, unless it was started. */
  askFor(id: string): void {
    const found = this.locate(id)
    if (found === null || 'serial' in found.place) return
    const group = found.topic.groups.get('') as ModelGroup
    if (group.isExpired(found.place, this.nowMs)) group.end(found.place, 'expired')
  }

  /** A job may be forgotten once its message is trimmed. */
  checkNotFound(id: string): void {
    const found = this.locate(id)
    if (found === null) return
    const { place, topic } = found
    const isTrimmed = 'serial' in place ? place.offset === 'cancelled' : place.offset < this.earliestOf(topic)
    assert.ok(isTrimmed, `${id} is found`)
  }

  checkJob(found: Located | null, job: JobView): void {
    assert.ok(found !== null)
    const { place } = found
    const version = Math.floor(job.version / PROGRESS_STEPS)
    assert.ok(version >= (this.#versions.get(job.id) ?? 0), `the version of ${job.id} never falls`)
    this.#versions.set(job.id, version)
    if ('serial' in place) {
      assert.equal(job.status, place.offset === null ? 'scheduled' : 'cancelled')
      return
    }
    this.askFor(job.id)
    assert.equal(job.status, place.state === 'settled' ? place.end : STATUS[place.state], job.id)
    assert.equal(job.attempts, place.attempts)
    if (place.end === 'completed') assert.equal(job.result, place.result)
  }
}

export function messageOf(view: BatchView, index: number): ModelMessage {
  const payload = view.payloadText(index)
  return {
    payload,
    key: view.key(index),
    priority: view.priority(index),
    deadlineMs: view.deadlineMs(index),
    size: view.size(index),
  }
}
