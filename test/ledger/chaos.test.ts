import { strict as assert } from 'node:assert'
import { describe, mock, test } from 'node:test'
import { Group } from '../../src/ledger/group.ts'
import { Lease } from '../../src/ledger/lease.ts'
import { SettledSet } from '../../src/ledger/settled.ts'
import { StateView } from '../../src/ledger/state.ts'
import { Topic } from '../../src/ledger/topic.ts'
import { Lanes } from '../../src/policy/lanes.ts'
import { Timers } from '../../src/policy/timers.ts'
import { runChaos } from '../support/ledger-chaos.ts'

/** `SLUICE_SEEDS=5000` for more of them; `SLUICE_SEED=17` replays one. */
const SEEDS = Number(process.env.SLUICE_SEEDS ?? 120)
const STEPS = Number(process.env.SLUICE_STEPS ?? 100)
const ONLY = process.env.SLUICE_SEED

/** What a run must meet to be worth something. */
const WANTED = [
  ...['stored', 'scheduled', 'duplicate', 'mismatch', 'full'].map((status) => `append ${status}`),
  ...['queued', 'active', 'retrying', 'blocked', 'completed', 'failed', 'cancelled', 'expired'].map(
    (status) => `find ${status}`,
  ),
  ...['lost', 'kept', 'torn'].map((kind) => `crash ${kind}`),
  ...['done full', 'done lost', 'retry settled', 'release settled', 'dead settled'].map((how) => `settle ${how}`),
  ...[
    'restart',
    'stop',
    'placed',
    'expired',
    'cancel done',
    'cancel terminal',
    'redrive done',
    'seek done',
    'recall done',
  ],
]

interface Run {
  readonly counts: Map<string, number>
  readonly failure: { readonly seed: number; readonly error: Error } | null
}

async function runSeeds(from: number, count: number): Promise<Run> {
  const counts = new Map<string, number>()
  for (let seed = from; seed < from + count; seed++) {
    try {
      for (const [what, times] of (await runChaos(seed, STEPS)).counts)
        counts.set(what, (counts.get(what) ?? 0) + times)
    } catch (error) {
      return { counts, failure: { seed, error: error as Error } }
    }
  }
  return { counts, failure: null }
}

describe('random lives of a ledger', () => {
  test('every promise of the model is kept, step by step, and in the end everything is worked off', async () => {
    const { counts, failure } = ONLY === undefined ? await runSeeds(1, SEEDS) : await runSeeds(Number(ONLY), 1)
    if (failure !== null) {
      const replay = `SLUICE_SEED=${failure.seed} SLUICE_STEPS=${STEPS} node --test test/ledger/chaos.test.ts`
      assert.fail(`seed ${failure.seed}: ${failure.error.stack}\nReplay it: ${replay}`)
    }
    if (ONLY !== undefined || SEEDS < 100) return
    for (const what of WANTED) assert.ok((counts.get(what) ?? 0) > 0, `a run meets: ${what}`)
  })

  test('a seed replays', async () => {
    const runs = [await runChaos(7, STEPS), await runChaos(7, STEPS)]
    assert.deepEqual(runs[0]?.counts, runs[1]?.counts)
    assert.deepEqual(runs[0]?.topics.get('q')?.messages, runs[1]?.topics.get('q')?.messages)
  })
})

// ---- planted bugs

type Plant = readonly [title: string, plant: () => void]

/** Keys that begin with `prefix` are never stored. */
function forgetRows(prefix: string): void {
  const put = StateView.prototype.put
  mock.method(StateView.prototype, 'put', function (this: StateView, key: string, value: Uint8Array) {
    if (!key.startsWith(prefix)) put.call(this, key, value)
  })
}

const PLANTS: readonly Plant[] = [
  ['a key with two at once', () => mock.method(Lanes.prototype, 'enter', () => true)],
  ['a lane that forgets who waits', () => mock.method(Lanes.prototype, 'leave', () => -1)],
  ['settled messages that are forgotten', () => mock.method(SettledSet.prototype, 'has', () => false)],
  [
    'a retry before its time',
    () =>
      mock.method(Group.prototype, 'park', function (this: Group, _: unknown, { offset }: { offset: number }) {
        this.makeReady(offset)
      }),
  ],
  ['a limit that is not looked at', () => mock.method(Topic.prototype, 'fits', () => true)],
  [
    'leases that never expire',
    () => {
      const add = Timers.prototype.add
      mock.method(
        Timers.prototype,
        'add',
        function (this: Timers<{ kind: string }>, atMs: number, item: { kind: string }) {
          if (item.kind !== 'lease') add.call(this, atMs, item)
        },
      )
    },
  ],
  [
    'a lease that can be settled twice',
    () =>
      mock.method(Lease.prototype, 'indexOf', function (this: Lease, offset: number) {
        return this.offsets.indexOf(offset)
      }),
  ],
  ['counters that are not stored', () => forgetRows('c/')],
  [
    'leases that are not stored',
    () =>
      mock.method(Lease.prototype, 'toRow', function (this: Lease) {
        return { fence: this.fence, expiresAtMs: this.expiresAtMs, token: this.token, runs: [] }
      }),
  ],
  ['rows that are not deleted', () => mock.method(StateView.prototype, 'delete', () => {})],
  ['priorities that are not looked at', () => mock.method(Topic.prototype, 'priorityOf', () => 1)],
  [
    'a crash that loses what was acknowledged',
    () => {
      const take = StateView.prototype.take
      let steps = 0
      mock.method(StateView.prototype, 'take', function (this: StateView) {
        const taken = take.call(this)
        return ++steps % 20 === 0 ? new Map() : taken
      })
    },
  ],
]

describe('the checks notice planted bugs', () => {
  for (const [title, plant] of PLANTS) {
    test(title, async (t) => {
      t.after(() => mock.restoreAll())
      plant()
      const { failure } = await runSeeds(1, 60)
      assert.ok(failure !== null, 'the bug is noticed')
      t.diagnostic(`seed ${failure.seed}: ${failure.error.message.split('\n')[0]}`)
    })
  }
})
