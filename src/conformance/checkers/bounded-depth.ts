import { parseJobId } from '../../job-id.ts'
import type { BeginEvent, EndEvent } from '../history.ts'
import type { Check, Checker, Court } from './checker.ts'
import { forEachSent, getOrMake } from './tracking.ts'

/** What a handler publishes may use so much more than the limit (P7). */
const RESERVE = 0.1

/** What must be in a queue, from what its clients know. */
interface Known {
  accepted: number
  /** Messages that may have gone: handed out, cancelled, past a deadline. */
  gone: number
  readonly handedOut: Set<number>
}

/**
 * The depth that is told of a queue or topic is within its limit in messages and bytes, and the reserve for what handlers
 * publish. Sound where nothing brings settled messages back: a seek, and a group that starts behind, raise the depth of
 * what was admitted long ago, so a topic is not looked at after one. Of a queue it is also counted what was accepted and
 * cannot have gone: nobody was handed it, nobody cancelled it, it has no deadline.
 */
export const boundedDepth: Checker = {
  name: 'bounded-depth',
  promises: ['P7'],
  holds: 'Depth never passes the limit in messages and bytes, but for the reserve of handlers.',
  create: (court) => new BoundedDepth(court),
}

interface Bound {
  readonly messages: number
  readonly bytes: number
  readonly begin: BeginEvent
}

class BoundedDepth implements Check {
  readonly #court: Court
  readonly #bounds = new Map<string, Bound>()
  readonly #isFed = new Set<string>()
  readonly #isQueue = new Set<string>()
  readonly #isReopened = new Set<string>()

  constructor(court: Court) {
    this.#court = court
  }

  onBegin(begin: BeginEvent): void {
    const { call } = begin
    if (call.kind === 'declare' && call.limit !== undefined) this.#bounds.set(call.topic, { ...call.limit, begin })
    if (call.kind === 'declare' && call.type === 'group' && (this.#isFed.has(call.topic) || call.group !== ''))
      if (this.#grown.has(call.topic)) this.#isReopened.add(call.topic)
    if (call.kind === 'declare' && call.type === 'queue') this.#isQueue.add(call.topic)
    if (call.kind === 'lease') this.#onTheWay.set(call.topic, this.#openLeases(call.topic) + call.max)
    if (call.kind === 'cancel') {
      const job = parseJobId(call.job)
      if (job !== null) this.#known(job.queue).gone++
    }
    if (call.kind === 'seek') this.#isReopened.add(call.topic)
    if (call.kind === 'append') this.#grown.add(call.topic)
    if (call.kind === 'settle')
      for (const { topic } of call.outputs) {
        this.#isFed.add(topic)
        this.#grown.add(topic)
      }
  }

  readonly #grown = new Set<string>()
  readonly #queues = new Map<string, Known>()

  #known(topic: string): Known {
    return getOrMake(this.#queues, topic, () => ({ accepted: 0, gone: 0, handedOut: new Set() }))
  }

  #count(begin: BeginEvent, end: EndEvent): void {
    const { call } = begin
    const { answer } = end
    if (call.kind === 'lease' && call.group === '') {
      const known = this.#known(call.topic)
      if (answer.status === 'unknown') known.gone += call.max
      if (answer.status === 'leased') for (const { offset } of answer.messages) known.handedOut.add(offset)
    }
    forEachSent(call, answer, (topic, { deadlineMs }, outcome) => {
      if (outcome?.status !== 'stored' && outcome?.status !== 'scheduled') return
      const known = this.#known(topic)
      known.accepted++
      if (deadlineMs !== undefined) known.gone++
      const bound = this.#bounds.get(topic)
      if (bound === undefined || !this.#isQueue.has(topic)) return
      this.#court.exercised()
      const least = known.accepted - known.gone - known.handedOut.size - this.#openLeases(topic)
      if (least > Math.ceil(bound.messages * this.#share(topic)))
        this.#court.violated(`${topic} holds at least ${least} messages, and its limit is ${bound.messages}`, [
          bound.begin,
          begin,
          end,
        ])
    })
  }

  #share(topic: string): number {
    return this.#isFed.has(topic) ? 1 + RESERVE : 1
  }

  /** Messages of leases whose answer is on its way. */
  readonly #onTheWay = new Map<string, number>()

  #openLeases(topic: string): number {
    return this.#onTheWay.get(topic) ?? 0
  }

  onEnd(begin: BeginEvent, end: EndEvent): void {
    const { answer } = end
    if (begin.call.kind === 'lease')
      this.#onTheWay.set(begin.call.topic, this.#openLeases(begin.call.topic) - begin.call.max)
    this.#count(begin, end)
    if (answer.status !== 'stats') return
    for (const { name, depth } of answer.topics) {
      const bound = this.#bounds.get(name)
      if (bound === undefined || this.#isReopened.has(name)) continue
      this.#court.exercised()
      const share = this.#share(name)
      if (depth.messages > Math.ceil(bound.messages * share) || depth.bytes > Math.ceil(bound.bytes * share))
        this.#court.violated(
          `${name} holds ${depth.messages} messages and ${depth.bytes} bytes, and its limit is ${bound.messages} and ${bound.bytes}`,
          [bound.begin, end],
        )
    }
  }
}
