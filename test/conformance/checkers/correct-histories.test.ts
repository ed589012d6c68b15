/** Checkers raise no alarm on histories of a small queue that is right by its shortness, however its calls overlap. */
import { strict as assert } from 'node:assert'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import { type Answer, type Call, History, type HistoryEvent } from '../../../src/conformance/history.ts'
import { formatJudgements, Judge, type Judgement, judgeLines } from '../../../src/conformance/judge.ts'
import { createRandom } from '../../../src/host/host.ts'

const SEEDS = 150
const ATTEMPTS = 3

interface Stored {
  readonly id: string
  readonly key: string | undefined
  state: 'waiting' | 'held' | 'done' | 'dead' | 'cancelled'
  attempts: number
  forgiven: number
  fence: number
  dueAtMs: number
  result: string | undefined
}

interface Hold {
  readonly isProcess: boolean
  expiresAtMs: number
}

/** A queue in a list: each call takes effect at one moment. */
class Model {
  readonly messages: Stored[] = []
  readonly keys = new Map<string, number>()
  readonly holds = new Map<number, Hold>()
  fence = 0
  nowMs = 1_000

  tick(ms: number): void {
    this.nowMs += ms
    for (const message of this.messages) {
      const hold = this.holds.get(message.fence)
      if (message.state === 'held' && hold !== undefined && !hold.isProcess && hold.expiresAtMs <= this.nowMs)
        this.fail(message, this.nowMs)
    }
  }

  crash(): void {
    for (const message of this.messages)
      if (message.state === 'held' && this.holds.get(message.fence)?.isProcess === true) this.fail(message, this.nowMs)
  }

  fail(message: Stored, dueAtMs: number): void {
    message.state = message.attempts - message.forgiven >= ATTEMPTS ? 'dead' : 'waiting'
    message.dueAtMs = dueAtMs
  }

  apply(call: Call): Answer {
    switch (call.kind) {
      case 'append': {
        const outcomes = call.messages.map((message) => {
          const key = message.idempotencyKey
          const known = key === undefined ? undefined : this.keys.get(key)
          if (known !== undefined) return { status: 'duplicate' as const, offset: known }
          if (this.messages.filter(isOpen).length >= 20)
            return { status: 'full' as const, reason: 'messages' as const, retryAfterMs: 1 }
          const offset = this.messages.length
          if (key !== undefined) this.keys.set(key, offset)
          const { id } = message
          this.messages.push({
            ...{ id, key: message.key, state: 'waiting', attempts: 0, forgiven: 0, fence: 0, dueAtMs: 0 },
            result: undefined,
          })
          return { status: 'stored' as const, offset }
        })
        return { status: 'sent', outcomes, durability: 'disk' }
      }
      case 'lease': {
        const busy = new Set<string>()
        const picked: number[] = []
        this.messages.forEach((message, offset) => {
          if (!isOpen(message)) return
          const isFree = message.key === undefined || !busy.has(message.key)
          if (message.key !== undefined) busy.add(message.key)
          if (isFree && message.state === 'waiting' && message.dueAtMs <= this.nowMs && picked.length < call.max)
            picked.push(offset)
        })
        if (picked.length === 0) return { status: 'empty' }
        const fence = ++this.fence
        const isProcess = call.holder === 'process'
        const expiresAtMs = isProcess ? 0 : this.nowMs + call.leaseMs
        this.holds.set(fence, { isProcess, expiresAtMs })
        const messages = picked.map((offset) => {
          const message = this.messages[offset] as Stored
          message.state = 'held'
          message.fence = fence
          const { id, key } = message
          return { offset, id, key, attempt: ++message.attempts }
        })
        return { status: 'leased', fence, expiresAtMs, messages }
      }
      case 'extend': {
        const lost = call.offsets.filter((offset) => !this.isHeld(offset, call.fence))
        const hold = this.holds.get(call.fence)
        if (hold === undefined || lost.length === call.offsets.length)
          return { status: 'extended', expiresAtMs: 0, lost }
        if (!hold.isProcess) hold.expiresAtMs = Math.max(hold.expiresAtMs, this.nowMs + call.leaseMs)
        return { status: 'extended', expiresAtMs: hold.expiresAtMs, lost }
      }
      case 'settle': {
        const lost: number[] = []
        for (const offset of call.offsets) {
          const message = this.messages[offset] as Stored
          if (!this.isHeld(offset, call.fence)) lost.push(offset)
          else if (call.outcome === 'retry') this.fail(message, call.atMs ?? this.nowMs)
          else if (call.outcome === 'release') {
            message.state = 'waiting'
            message.forgiven++
          } else {
            message.state = call.outcome
            message.result = call.result
          }
        }
        return { status: 'settled', lost, outputs: [] }
      }
      case 'read': {
        const messages = this.messages
          .slice(call.from, call.from + call.max)
          .map(({ id, key }, i) => ({ offset: call.from + i, id, key }))
        const head = this.messages.length
        return { status: 'read', messages, next: call.from + messages.length, earliest: 0, head }
      }
      case 'find': {
        const message = this.messages[Number(call.job.split(':')[2])]
        if (message === undefined) return { status: 'not-found' }
        const { state, attempts, result } = message
        const rank = { waiting: attempts === 0 ? 1 : 4, held: 2, done: 5, dead: 5, cancelled: 5 }[state]
        const open = attempts === 0 ? ('queued' as const) : ('retrying' as const)
        const status = (
          { waiting: open, held: 'active', done: 'completed', dead: 'failed', cancelled: 'cancelled' } as const
        )[state]
        return { status: 'found', job: { job: call.job, status, attempts, version: attempts * 8 + rank, result } }
      }
      case 'cancel': {
        const message = this.messages[Number(call.job.split(':')[2])]
        if (message === undefined || !isOpen(message)) return { status: 'not-found' }
        message.state = 'cancelled'
        return { status: 'done' }
      }
      case 'stats': {
        const depth = this.messages.filter(isOpen).length
        const floor = this.messages.findIndex(isOpen)
        const head = this.messages.length
        const leased = this.messages.filter(({ state }) => state === 'held').length
        const group = { name: '', floor: floor < 0 ? head : floor, depth, leased, retrying: 0, blocked: 0, dead: 0 }
        const seen = {
          name: 'q',
          earliest: 0,
          head,
          depth: { messages: depth, bytes: depth },
          scheduled: 0,
          groups: [group],
        }
        return { status: 'stats', topics: [seen] }
      }
      default:
        return { status: 'done' }
    }
  }

  isHeld(offset: number, fence: number): boolean {
    const message = this.messages[offset]
    return message?.state === 'held' && message.fence === fence
  }
}

function isOpen({ state }: Stored): boolean {
  return state === 'waiting' || state === 'held'
}

interface Running {
  readonly op: number
  readonly call: Call
  answer: Answer | null
}

/** Calls of several clients, each with its effect somewhere between its begin and its end, or later if it is unknown. */
function generate(seed: number): HistoryEvent[] {
  const random = createRandom(seed)
  const below = (count: number): number => Math.floor(random() * count)
  const model = new Model()
  const history = new History()
  const events: HistoryEvent[] = []
  history.listen((event) => events.push(event))
  const limit = { messages: 20, bytes: 1_000 }
  const settings = { kind: 'declare' as const, topic: 'q', group: '', type: 'queue' as const, tag: 'abcdef' }
  const declared = history.begin('c', model.nowMs, { ...settings, limit, attempts: ATTEMPTS, idempotencyMs: 1e9 })
  history.end(declared, model.nowMs, { status: 'done' })
  const running: Running[] = []
  /** Calls that were given up, and may take effect until the process dies. */
  let stray: Call[] = []
  const held: { fence: number; offsets: number[] }[] = []
  const sent: { id: string; key: string | undefined; idempotencyKey: string }[] = []
  let nextId = 0
  const start = (): Call => {
    const roll = random()
    const job = `q:abcdef:${below(model.messages.length + 1)}`
    if (roll < 0.3) {
      const again = sent[below(sent.length)]
      const key = random() < 0.7 ? `k${below(3)}` : undefined
      const message =
        again !== undefined && random() < 0.2 ? again : { id: `m${nextId}`, key, idempotencyKey: `i${nextId++}` }
      sent.push(message)
      return { kind: 'append', topic: 'q', messages: [{ ...message, size: 1 }] }
    }
    if (roll < 0.6) {
      const holder = random() < 0.5 ? 'process' : 'token'
      return { kind: 'lease', topic: 'q', group: '', max: 1 + below(3), leaseMs: 20 + below(60), waitMs: 0, holder }
    }
    const hold = held[below(held.length)]
    if (roll < 0.85 && hold !== undefined) {
      const place = { topic: 'q', group: '', ...hold }
      if (random() < 0.2) return { kind: 'extend', leaseMs: below(100), ...place }
      const outcome = (['done', 'done', 'retry', 'release', 'dead'] as const)[below(5)] ?? 'done'
      const atMs = outcome === 'retry' ? model.nowMs + below(50) : undefined
      return {
        kind: 'settle',
        outcome,
        result: outcome === 'done' ? `r${below(9)}` : undefined,
        atMs,
        outputs: [],
        ...place,
      }
    }
    if (roll < 0.92) return { kind: 'find', job, waitMs: 0 }
    if (roll < 0.95) return { kind: 'cancel', job }
    if (roll < 0.98) return { kind: 'read', topic: 'q', from: below(model.messages.length + 1), max: 5 }
    return { kind: 'stats' }
  }
  const finish = (index: number, isUnknown: boolean): void => {
    const [one] = running.splice(index, 1)
    if (one === undefined) return
    if (isUnknown) {
      if (one.answer === null) stray.push(one.call)
      return history.end(one.op, model.nowMs, { status: 'unknown' })
    }
    const answer = (one.answer ??= model.apply(one.call))
    if (answer.status === 'leased')
      held.push({ fence: answer.fence, offsets: answer.messages.map(({ offset }) => offset) })
    history.end(one.op, model.nowMs, answer)
  }
  for (let step = 0; step < 400; step++) {
    model.tick(below(6))
    const roll = random()
    if (roll < 0.4 && running.length < 6) {
      const call = start()
      running.push({ op: history.begin(`c${step}`, model.nowMs, call), call, answer: null })
    } else if (roll < 0.65) {
      const one = running[below(running.length)]
      if (one !== undefined && one.answer === null) one.answer = model.apply(one.call)
    } else if (roll < 0.98) finish(below(running.length), random() < 0.05)
    else if (roll < 0.99) {
      const [call] = stray.splice(0, 1)
      if (call !== undefined) model.apply(call)
    } else {
      while (running.length > 0) finish(0, true)
      stray = []
      history.mark(model.nowMs, 'crash')
      model.crash()
      history.mark(model.nowMs, 'open')
    }
  }
  while (running.length > 0) finish(0, false)
  stray = []
  const say = (call: Call): Answer => {
    const op = history.begin('c', model.nowMs, call)
    const answer = model.apply(call)
    history.end(op, model.nowMs, answer)
    return answer
  }
  history.mark(model.nowMs, 'stop')
  model.crash()
  history.mark(model.nowMs, 'open')
  model.tick(1_000)
  for (;;) {
    const place = { topic: 'q', group: '' }
    const answer = say({ kind: 'lease', ...place, max: 5, leaseMs: 50, waitMs: 0, holder: 'token' })
    if (answer.status !== 'leased') break
    const offsets = answer.messages.map(({ offset }) => offset)
    say({ kind: 'settle', ...place, fence: answer.fence, offsets, outcome: 'done', outputs: [] })
  }
  history.mark(model.nowMs, 'quiet')
  const last = history.begin('c', model.nowMs, { kind: 'stats' })
  history.end(last, model.nowMs, model.apply({ kind: 'stats' }))
  const max = model.messages.length
  const call = { kind: 'read' as const, topic: 'q', from: 0, max }
  history.end(history.begin('c', model.nowMs, call), model.nowMs, model.apply(call))
  return events
}

function judge(events: Iterable<HistoryEvent>): readonly Judgement[] {
  const court = new Judge()
  for (const event of events) court.observe(event)
  return court.finish()
}

test(`no checker raises an alarm on ${SEEDS} correct histories`, () => {
  const exercised = new Set<string>()
  for (let seed = 1; seed <= SEEDS; seed++) {
    const verdicts = judge(generate(seed))
    for (const { checker, verdict } of verdicts) if (verdict.status === 'held') exercised.add(checker)
    assert.ok(
      verdicts.every(({ verdict }) => verdict.status !== 'violated'),
      `seed ${seed}\n${formatJudgements(verdicts)}`,
    )
  }
  for (const name of ['fencing', 'key-order', 'bounded-duplicates', 'settle-finality', 'no-acknowledged-loss'])
    assert.ok(exercised.has(name), `${name} was never put to the test`)
})

test('a history that was written and read again gets the same verdicts, without a line that was cut off', async () => {
  const events = generate(7)
  const text = events.map((event) => `${JSON.stringify(event)}\n`).join('')
  const again = await judgeLines(Readable.from([`${text}{"kind":"beg`]))
  assert.deepEqual(formatJudgements(again), formatJudgements(judge(events)))
  await assert.rejects(judgeLines(Readable.from([`{"kind":"beg\n${text}`])), SyntaxError)
})
