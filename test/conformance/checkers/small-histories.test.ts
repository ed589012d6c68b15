/** Tiny histories by hand: what holds, what does not, and what only looks as if it did not. */
import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import type { Answer, Call, HistoryEvent, Mark } from '../../../src/conformance/history.ts'
import { Judge } from '../../../src/conformance/judge.ts'

type Step = ['b', number, Call, number?] | ['e', number, Answer, number?] | ['m', Mark]

const DECLARE: Call = {
  ...{ kind: 'declare', topic: 'q', group: '', type: 'queue', tag: 'abcdef', attempts: 2, idempotencyMs: 1e6 },
  limit: { messages: 3, bytes: 100 },
}
const declared: Step[] = [
  ['b', 1, DECLARE],
  ['e', 1, { status: 'done' }],
]
const append = (id: string, more: object = {}): Call => ({
  kind: 'append',
  topic: 'q',
  messages: [{ id, size: 1, ...more }],
})
const stored = (offset: number): Answer => ({
  status: 'sent',
  outcomes: [{ status: 'stored', offset }],
  durability: 'disk',
})
const full: Answer = {
  status: 'sent',
  outcomes: [{ status: 'full', reason: 'messages', retryAfterMs: 1 }],
  durability: 'disk',
}
const UNKNOWN: Answer = { status: 'unknown' }
const lease = (holder: 'process' | 'token' = 'process'): Call => ({
  ...{ kind: 'lease', topic: 'q', group: '', max: 1, leaseMs: 100, waitMs: 0, holder },
})
const leased = (fence: number, offset: number, id: string, attempt = 1, more: object = {}): Answer => ({
  ...{ status: 'leased', fence, expiresAtMs: 0, messages: [{ offset, id, attempt, ...more }] },
})
const settle = (
  fence: number,
  offset: number,
  outcome: 'done' | 'retry' | 'release' | 'dead' = 'done',
  more: object = {},
): Call => ({
  ...{ kind: 'settle', topic: 'q', group: '', fence, offsets: [offset], outcome, outputs: [], ...more },
})
const settled = (...lost: number[]): Answer => ({ status: 'settled', lost, outputs: [] })
const find: Call = { kind: 'find', job: 'q:abcdef:0', waitMs: 0 }
const found = (
  status: 'active' | 'completed' | 'queued',
  attempts: number,
  version: number,
  result?: string,
): Answer => ({
  status: 'found',
  job: { job: 'q:abcdef:0', status, attempts, version, result },
})
const read = (from: number): Call => ({ kind: 'read', topic: 'q', from, max: 9 })
const saw = (head: number, ...messages: [number, string][]): Answer => ({
  ...{ status: 'read', next: messages.length === 0 ? head : (messages.at(-1)?.[0] ?? 0) + 1, earliest: 0, head },
  messages: messages.map(([offset, id]) => ({ offset, id })),
})
const stats = (head: number, floor: number, depth: number): Answer => ({
  status: 'stats',
  topics: [
    {
      ...{ name: 'q', earliest: 0, head, depth: { messages: depth, bytes: depth }, scheduled: 0 },
      groups: [{ name: '', floor, depth, leased: 0, retrying: 0, blocked: 0, dead: 0 }],
    },
  ],
})
let ops = 10
/** A call that is over before anything else begins. */
const did = (call: Call, answer: Answer, atMs = 0): Step[] => {
  const op = ops++
  return [
    ['b', op, call, atMs],
    ['e', op, answer, atMs],
  ]
}
const one = did(append('a'), stored(0))
const got = did(lease(), leased(1, 0, 'a'))
const quiet: Step[] = [['m', 'quiet']]

function judge(checker: string, steps: readonly Step[]) {
  const court = new Judge()
  for (const step of [...declared, ...steps]) {
    if (step[0] === 'm') court.observe({ kind: 'mark', atMs: 0, mark: step[1] })
    else if (step[0] === 'b')
      court.observe({ kind: 'begin', op: step[1], client: 'c', atMs: step[3] ?? 0, call: step[2] })
    else court.observe({ kind: 'end', op: step[1], atMs: step[3] ?? 0, answer: step[2] })
  }
  const verdict = court.finish().find((one) => one.checker === checker)?.verdict
  assert.ok(verdict)
  return verdict
}

const VIOLATED: [string, string, Step[]][] = [
  [
    'fencing',
    'a fence that falls',
    [...one, ...did(lease(), leased(2, 0, 'a')), ...did(lease(), leased(1, 0, 'a', 2))],
  ],
  ['exclusive', 'a settle after the process died', [...one, ...got, ['m', 'crash'], ...did(settle(1, 0), settled())]],
  [
    'exclusive',
    'a settle after a settle',
    [...one, ...got, ...did(settle(1, 0, 'retry'), settled()), ...did(settle(1, 0), settled())],
  ],
  [
    'exclusive',
    'a hold that outlives the next',
    [...one, ...got, ...did(lease(), leased(2, 0, 'a', 2)), ...did(settle(1, 0), settled())],
  ],
  ['bounded-duplicates', 'no cause', [...one, ...got, ...did(lease(), leased(2, 0, 'a', 2))]],
  ['bounded-duplicates', 'a missing attempt', [...one, ...did(lease(), leased(1, 0, 'a', 2))]],
  [
    'settle-finality',
    'done and again',
    [...one, ...got, ...did(settle(1, 0), settled()), ...did(lease(), leased(2, 0, 'a', 2))],
  ],
  [
    'key-order',
    'behind',
    [...did(lease(), leased(1, 1, 'b', 1, { key: 'k' })), ...did(lease(), leased(2, 0, 'a', 1, { key: 'k' }))],
  ],
  [
    'key-order',
    'beside',
    [...did(lease(), leased(1, 0, 'a', 1, { key: 'k' })), ...did(lease(), leased(2, 1, 'b', 1, { key: 'k' }))],
  ],
  [
    'bounded-duplicates',
    'a third of two',
    [...one, ...got, ...did(lease(), leased(2, 0, 'a', 2)), ...did(lease(), leased(3, 0, 'a', 3))],
  ],
  [
    'no-early-delivery',
    'early',
    [...did(append('a', { dueAtMs: 50 }), stored(0)), ...did(lease(), leased(1, 0, 'a'), 49)],
  ],
  [
    'no-early-delivery',
    'late',
    [...did(append('a', { deadlineMs: 50 }), stored(0)), ...did(lease(), leased(1, 0, 'a'), 51)],
  ],
  [
    'no-early-delivery',
    'a retry before its time',
    [...one, ...got, ...did(settle(1, 0, 'retry', { atMs: 90 }), settled()), ...did(lease(), leased(2, 0, 'a', 2), 89)],
  ],
  ['no-phantom', 'a 503 after storing', [...did(append('a'), full), ...got]],
  ['integrity', 'another payload', [...one, ...did(lease(), leased(1, 0, 'z'))]],
  ['integrity', 'another key', [...one, ...did(lease(), leased(1, 0, 'a', 1, { key: 'k' }))]],
  ['offset-agreement', 'two messages', [...one, ...did(append('b'), stored(0))]],
  ['offset-agreement', 'two places', [...one, ...did(read(1), saw(2, [1, 'a']))]],
  ['rising-reads', 'a gap', [...one, ...did(read(0), saw(2, [1, 'b']))]],
  ['rising-reads', 'a head that falls', [...one, ...did(read(0), saw(0))]],
  ['job-phase', 'a version that falls', [...did(find, found('active', 1, 9)), ...did(find, found('queued', 0, 1))]],
  ['job-phase', 'a result of nobody', [...one, ...got, ...did(find, found('completed', 1, 13, 'r'))]],
  [
    'idempotency',
    'twice',
    [...did(append('a', { idempotencyKey: 'i' }), stored(0)), ...did(append('a', { idempotencyKey: 'i' }), stored(1))],
  ],
  ['bounded-depth', 'four of three', [0, 1, 2, 3].flatMap((i) => did(append(`m${i}`), stored(i)))],
  ['conservation', 'more than was sent', [...one, ...quiet, ...did({ kind: 'stats' }, stats(2, 0, 2))]],
  ['no-acknowledged-loss', 'a floor past a gap', [...one, ...quiet, ...did({ kind: 'stats' }, stats(1, 1, 0))]],
  ['rising-reads', 'a stored message that is not there', [...one, ...did(read(0), saw(0))]],
  [
    ...(['no-phantom', 'an output of a lost settle'] as const),
    [
      ...one,
      ...got,
      ...did(settle(1, 0, 'done', { outputs: [{ topic: 'q', messages: [{ id: 'o', size: 1 }] }] }), settled(0)),
      ...did(read(1), saw(2, [1, 'o'])),
    ],
  ],
]

for (const [checker, title, steps] of VIOLATED)
  test(`${checker} sees ${title}`, () => {
    const verdict = judge(checker, steps)
    assert.equal(verdict.status, 'violated')
    const witness: readonly HistoryEvent[] = verdict.status === 'violated' ? verdict.violation.witness : []
    assert.ok(witness.length >= 1 && witness.length <= 4)
  })

const HELD: [string, string, Step[]][] = [
  [
    'no-early-delivery',
    'a retry that was settled while the group was sent back, and the next hand-out',
    [
      ...did(append('a', { dueAtMs: 1 }), stored(0)),
      ...did(lease(), leased(1, 0, 'a'), 1),
      ['b', 5, settle(1, 0, 'retry', { atMs: 90 })],
      ['b', 6, { kind: 'seek', topic: 'q', group: '', from: 0 }],
      ['e', 6, { status: 'done' }],
      ['e', 5, settled()],
      ...did(lease(), leased(2, 0, 'a'), 2),
    ],
  ],
  [
    'bounded-duplicates',
    'a crash explains it',
    [...one, ...got, ['m', 'crash'], ...did(lease(), leased(2, 0, 'a', 2))],
  ],
  [
    'bounded-duplicates',
    'a lease nobody saw',
    [...one, ...did(lease(), UNKNOWN), ['m', 'crash'], ...did(lease(), leased(2, 0, 'a', 2))],
  ],
  [
    'bounded-duplicates',
    'a retry without an answer',
    [...one, ...got, ...did(settle(1, 0, 'retry'), UNKNOWN), ...did(lease(), leased(2, 0, 'a', 2))],
  ],
  [
    'fencing',
    'answers of overlapping leases cross',
    [
      ['b', 5, lease()],
      ['b', 6, lease()],
      ['e', 6, leased(2, 1, 'b')],
      ['e', 5, leased(1, 0, 'a')],
    ],
  ],
  [
    'settle-finality',
    'a settle that was lost',
    [...one, ...got, ...did(settle(1, 0), settled()), ...did(settle(1, 0), settled(0))],
  ],
  ['no-phantom', 'an append without an answer', [...did(append('a'), UNKNOWN), ...got]],
  [
    'job-phase',
    'finds that overlap',
    [
      ['b', 5, find],
      ['b', 6, find],
      ['e', 6, found('active', 1, 9)],
      ['e', 5, found('queued', 0, 1)],
    ],
  ],
  ['rising-reads', 'a read that began before', [['b', 5, read(0)], ...one, ['e', 5, saw(0)]]],
  [
    'bounded-duplicates',
    'a release does not count',
    [
      ...one,
      ...got,
      ...did(settle(1, 0, 'release'), settled()),
      ...did(lease(), leased(2, 0, 'a', 2)),
      ...did(settle(2, 0, 'retry'), settled()),
      ...did(lease(), leased(3, 0, 'a', 3)),
    ],
  ],
  [
    'key-order',
    'a cancel without an answer',
    [
      ...did(lease(), leased(1, 0, 'a', 1, { key: 'k' })),
      ...did({ kind: 'cancel', job: 'q:abcdef:0' }, UNKNOWN),
      ...did(lease(), leased(2, 1, 'b', 1, { key: 'k' })),
    ],
  ],
]

for (const [checker, title, steps] of HELD)
  test(`${checker} lets be: ${title}`, () => assert.notEqual(judge(checker, steps).status, 'violated'))

test('a checker that was never put to the test says so', () => {
  for (const { checker, verdict } of new Judge().finish()) assert.equal(verdict.status, 'unknown', checker)
})
