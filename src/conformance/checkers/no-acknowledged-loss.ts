import { parseJobId } from '../../job-id.ts'
import type { BeginEvent, EndEvent, MarkEvent } from '../history.ts'
import type { Check, Checker, Court } from './checker.ts'
import { forEachSent, getOrMake, Resets } from './tracking.ts'

interface Topic {
  isQueue: boolean
  forgets: boolean
  /** Receipts, by offset. */
  readonly stored: Map<number, EndEvent>
  /** Groups from the first message on. */
  readonly groups: Map<string, Group>
  /** Once all is quiet: what is still read, from where on, and jobs by offset. */
  readonly read: Set<number>
  earliest: number
  /** Jobs that may have ended without being handed out: cancelled, or past a deadline. */
  readonly excused: Set<number>
}

interface Group {
  readonly handedOut: Set<number>
  /** A lease answer that nobody saw may have had any message; and a detached group has lost some. */
  isBlind: boolean
}

const TERMINAL: ReadonlySet<string> = new Set(['completed', 'failed', 'cancelled', 'expired'])

/**
 * What was acknowledged is there: once all is quiet, each message of a topic that has a receipt is read at its offset,
 * unless it was settled by all and let go; each group that began before it was handed it; each job is found, and has
 * ended. A job or message that is not asked for is not judged.
 */
export const noAcknowledgedLoss: Checker = {
  name: 'no-acknowledged-loss',
  promises: ['P1', 'P2', 'P6'],
  holds: 'What was acknowledged is there after every crash: handed out, settled, and found.',
  create: (court) => new NoAcknowledgedLoss(court),
}

class NoAcknowledgedLoss implements Check {
  readonly #court: Court
  readonly #topics = new Map<string, Topic>()
  /** Delayed jobs that were accepted. */
  readonly #jobs = new Map<string, EndEvent>()
  readonly #resets = new Resets()
  #isQuiet = false

  constructor(court: Court) {
    this.#court = court
  }

  onMark({ mark }: MarkEvent): void {
    if (mark === 'quiet') this.#isQuiet = true
  }

  onBegin(begin: BeginEvent): void {
    this.#resets.onBegin(begin)
    const { call } = begin
    if (call.kind === 'cancel') {
      const job = parseJobId(call.job)
      if (job?.place.kind === 'offset') this.#topic(job.queue).excused.add(job.place.offset)
    }
    if (call.kind !== 'declare') return
    const topic = this.#topic(call.topic)
    if (call.type !== 'group') {
      topic.isQueue = call.type === 'queue'
      topic.forgets = call.forgets === true
    }
  }

  onEnd(begin: BeginEvent, end: EndEvent): void {
    this.#resets.onEnd(begin, end, this.#court.now)
    const { call } = begin
    const { answer } = end
    forEachSent(call, answer, (name, { deadlineMs }, outcome) => {
      if (outcome?.status === 'stored') {
        this.#topic(name).stored.set(outcome.offset, end)
        if (deadlineMs !== undefined) this.#topic(name).excused.add(outcome.offset)
      }
      if (outcome?.status === 'scheduled') this.#jobs.set(outcome.job, end)
    })
    if (call.kind === 'declare' && answer.status === 'done') {
      const topic = this.#topic(call.topic)
      // Of a group that starts later it is not known which messages it must see.
      const isFromStart = call.type === 'queue' || (call.type === 'group' && call.from === 0)
      if (isFromStart && topic.stored.size === 0)
        getOrMake(topic.groups, call.group, () => ({ handedOut: new Set(), isBlind: false }))
    }
    if (call.kind === 'lease') {
      const group = this.#topics.get(call.topic)?.groups.get(call.group)
      if (group === undefined) return
      if (answer.status === 'unknown' || answer.status === 'truncated') group.isBlind = true
      else if (answer.status === 'leased') for (const { offset } of answer.messages) group.handedOut.add(offset)
    }
    if (!this.#isQuiet) return
    if (call.kind === 'read' && answer.status === 'read') {
      const topic = this.#topic(call.topic)
      topic.earliest = answer.earliest
      for (const { offset } of answer.messages) topic.read.add(offset)
    } else if (call.kind === 'find') {
      this.#checkJob(call.job, begin, end)
    }
  }

  #checkJob(job: string, begin: BeginEvent, end: EndEvent): void {
    const { answer } = end
    const parsed = parseJobId(job)
    if (parsed === null || (answer.status !== 'found' && answer.status !== 'not-found')) return
    const topic = this.#topics.get(parsed.queue)
    const receipt = parsed.place.kind === 'offset' ? topic?.stored.get(parsed.place.offset) : this.#jobs.get(job)
    if (receipt === undefined || topic === undefined) return
    this.#court.exercised()
    if (answer.status === 'not-found') {
      if (!topic.forgets) this.#court.violated(`${job} was acknowledged and is not there`, [receipt, begin, end])
    } else if (!TERMINAL.has(answer.job.status)) {
      this.#court.violated(`${job} was acknowledged, all is quiet, and it is ${answer.job.status}`, [receipt, end])
    }
  }

  onFinish(): void {
    if (!this.#isQuiet) return
    for (const [name, topic] of this.#topics) {
      for (const [offset, receipt] of topic.stored) {
        this.#court.exercised()
        if (!topic.isQueue && topic.read.size > 0 && offset >= topic.earliest && !topic.read.has(offset))
          return this.#court.violated(`${name} does not show ${offset}, which was acknowledged`, [receipt])
        for (const [group, { handedOut, isBlind }] of topic.groups) {
          if (
            isBlind ||
            handedOut.has(offset) ||
            topic.excused.has(offset) ||
            !this.#resets.isUntouched(`${name}/${group}`)
          )
            continue
          return this.#court.violated(`${name}/${group} was never handed ${offset}, which was acknowledged`, [receipt])
        }
      }
    }
  }

  #topic(name: string): Topic {
    return getOrMake(this.#topics, name, () => ({
      isQueue: false,
      forgets: false,
      stored: new Map(),
      groups: new Map(),
      read: new Set(),
      earliest: 0,
      excused: new Set(),
    }))
  }
}
