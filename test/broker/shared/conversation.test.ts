import { deepEqual, ok } from 'node:assert/strict'
import { test } from 'node:test'
import { Conversation, type Turn } from '../../../src/broker/shared/conversation.ts'
import { createRandom, type Host } from '../../../src/host/host.ts'

const SEED = Number(process.env['SLUICE_SEED'] ?? Date.now() % 1_000_000)

/** Timers in order, with nothing between them. */
class Times {
  nowMs = 0
  #timers: { readonly atMs: number; readonly fire: () => void; isOff: boolean }[] = []

  readonly host: Host = {
    now: () => this.nowMs,
    random: () => 0.5,
    setTimer: (ms, fire) => {
      const timer = { atMs: this.nowMs + ms, fire, isOff: false }
      this.#timers.push(timer)
      return () => {
        timer.isOff = true
      }
    },
  }

  /** The next one; false: there is none. */
  step(): boolean {
    this.#timers = this.#timers.filter(({ isOff }) => !isOff).sort((a, b) => a.atMs - b.atMs)
    const next = this.#timers.shift()
    if (next === undefined) return false
    this.nowMs = Math.max(this.nowMs, next.atMs)
    next.fire()
    return true
  }
}

test('what either side says comes to the other once and in order, over letters that are lost, doubled and late', (t) => {
  t.diagnostic(`SLUICE_SEED=${SEED}`)
  for (let run = 0; run < 200; run++) {
    const seed = SEED + run
    const random = createRandom(seed)
    const times = new Times()
    const loss = random() * 0.6
    const heard: { left: string[]; right: string[] } = { left: [], right: [] }
    let carried = 0
    const carry = (to: () => Conversation<string, string>, turn: Turn<string>): void => {
      carried++
      if (random() < loss) return
      for (let copies = random() < 0.2 ? 2 : 1; copies > 0; copies--)
        times.host.setTimer(random() * 3_000, () => to().hear(turn))
    }
    const left: Conversation<string, string> = new Conversation(times.host, {
      send: (turn) => carry(() => right, turn),
      deliver: (text) => heard.left.push(text),
    })
    const right: Conversation<string, string> = new Conversation(times.host, {
      send: (turn) => carry(() => left, turn),
      deliver: (text) => heard.right.push(text),
    })
    const said = { left: [] as string[], right: [] as string[] }
    for (let n = 0; n < 40; n++) {
      if (random() < 0.6) {
        said.left.push(`left ${n}`)
        left.say(`left ${n}`)
      }
      if (random() < 0.6) {
        said.right.push(`right ${n}`)
        right.say(`right ${n}`)
      }
      if (random() < 0.5) times.step()
    }
    for (let steps = 0; steps < 20_000 && !(left.isConfirmed && right.isConfirmed); steps++) times.step()
    deepEqual([heard.right, heard.left], [said.left, said.right], `SLUICE_SEED=${seed}`)
    ok(left.isConfirmed && right.isConfirmed, `SLUICE_SEED=${seed}`)
    // It comes to rest: what is confirmed is not said again.
    const before = carried
    for (let steps = 0; steps < 1_000 && times.step(); steps++);
    ok(carried - before < 100, `${carried - before} letters after the end, SLUICE_SEED=${seed}`)
  }
})

test('a conversation that is closed says and delivers nothing more', () => {
  const times = new Times()
  let sent = 0
  const delivered: string[] = []
  const one = new Conversation<string, string>(times.host, {
    send: () => sent++,
    deliver: (text) => delivered.push(text),
  })
  one.say('a')
  one.close()
  one.hear({ number: 1, confirms: 0, payload: 'late' })
  while (times.step());
  deepEqual([sent, delivered], [1, []])
})

test('nothing is said once it is closed, and nothing is left to be said again', () => {
  const times = new Times()
  let sent = 0
  const one = new Conversation<string, string>(times.host, { send: () => sent++, deliver: () => {} })
  one.close()
  one.say('a')
  one.confirm()
  let steps = 0
  while (times.step() && ++steps < 100);
  deepEqual([sent, steps], [0, 0])
})

test('a letter that is lost before a thousand others comes all the same, and they come soon', () => {
  const times = new Times()
  const heard: number[] = []
  let carried = 0
  const carry = (to: () => Conversation<number, number>, turn: Turn<number>): void => {
    if (++carried > 1) times.host.setTimer(1, () => to().hear(turn))
  }
  const left: Conversation<number, number> = new Conversation(times.host, {
    send: (turn) => carry(() => right, turn),
    deliver: () => {},
  })
  const right: Conversation<number, number> = new Conversation(times.host, {
    send: (turn) => carry(() => left, turn),
    deliver: (number) => heard.push(number),
  })
  const said = Array.from({ length: 1_000 }, (_, i) => i)
  for (const number of said) left.say(number)
  for (let steps = 0; steps < 100_000 && !left.isConfirmed; steps++) times.step()
  deepEqual(heard, said)
  ok(times.nowMs < 10_000, `it took ${times.nowMs} ms`)
})
