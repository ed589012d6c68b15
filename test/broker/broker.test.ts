import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import { Broker } from '../../src/broker/broker.ts'
import { SluiceError } from '../../src/errors.ts'
import type { LedgerAnswer, LedgerRequest } from '../../src/ledger/requests.ts'
import type { Commit, CommitOutcome, Log, Ownership } from '../../src/logs/contract.ts'
import { MemoryMedium, openMemoryLog } from '../../src/logs/memory.ts'
import { FakeHost, settled } from '../support/fake-host.ts'
import { leaseBody, toAppend } from '../support/ledger-driver.ts'

type Body = { readonly [K in LedgerRequest['kind']]: Extract<LedgerRequest, { kind: K }>['body'] }

/** A broker whose commits end when the test says so, and everything that it answered. */
class Bench {
  readonly host = new FakeHost()
  readonly medium = new MemoryMedium()
  readonly answers = new Map<number, LedgerAnswer>()
  readonly commits: Commit[] = []
  taken = 0
  /** Whether a commit waits for `release`. */
  isSlow = false
  broker!: Broker
  closes = 0
  #release: ((how: 'keep' | Error) => void) | null = null
  #nextId = 1

  async open(): Promise<this> {
    const log = openMemoryLog(this.medium)
    const slow: Log = {
      abilities: log.abilities,
      declare: (topics) => log.declare(topics),
      read: (topic, partition, offset, maxBytes) => log.read(topic, partition, offset, maxBytes),
      own: () => log.own(),
      changes: (ownership) => log.changes(ownership),
      trim: (topic, partition, offset) => log.trim(topic, partition, offset),
      health: () => log.health(),
      commit: (ownership, commit) => this.#commit(log, ownership, commit),
      close: () => {
        this.closes++
        log.close()
      },
    }
    this.broker = await Broker.open(slow, this.host, (answers, taken) => {
      this.taken += taken
      for (const answer of answers) {
        assert.equal(this.answers.has(answer.id), false, `request ${answer.id} is answered once`)
        this.answers.set(answer.id, answer)
      }
    })
    return this
  }

  #commit(
    log: ReturnType<typeof openMemoryLog>,
    ownership: Ownership,
    commit: Commit,
  ): CommitOutcome | Promise<CommitOutcome> {
    this.commits.push(commit)
    if (!this.isSlow) return log.commit(ownership, commit)
    return new Promise((resolve, reject) => {
      this.#release = (how) => {
        this.#release = null
        if (how === 'keep') resolve(log.commit(ownership, commit))
        else reject(how)
      }
    })
  }

  /** Ends the commit that is under way. */
  async release(how: 'keep' | Error = 'keep'): Promise<void> {
    assert.ok(this.#release !== null, 'a commit is under way')
    this.#release(how)
    await settled()
  }

  get isCommitting(): boolean {
    return this.#release !== null
  }

  send<K extends LedgerRequest['kind']>(kind: K, body: Body[K]): number {
    const id = this.#nextId++
    this.broker.submit([{ id, kind, body } as LedgerRequest])
    return id
  }

  value<T>(id: number): T {
    const answer = this.answers.get(id)
    assert.ok(answer !== undefined && 'value' in answer, `request ${id} has a value`)
    return answer.value as T
  }

  code(id: number): string | undefined {
    const answer = this.answers.get(id)
    return answer !== undefined && 'error' in answer ? answer.error.code : undefined
  }

  append(payload = '1'): number {
    return this.send('append', [toAppend('q', [{ payload }])])
  }
}

async function openBench(): Promise<Bench> {
  const bench = await new Bench().open()
  bench.send('declare', [{ kind: 'queue', name: 'q', settings: {} }])
  await settled()
  return bench
}

describe('the broker loop', () => {
  test('no answer is sent before the commit of its step is durable (P1)', async () => {
    const bench = await openBench()
    bench.isSlow = true
    const append = bench.append()
    const find = bench.send('find', ['x'])
    await settled()
    assert.deepEqual([bench.answers.has(append), bench.answers.has(find)], [false, false])
    await bench.release()
    assert.ok(bench.answers.has(append))
  })

  test('what comes during a commit goes into the next one, all of it', async () => {
    const bench = await openBench()
    bench.isSlow = true
    const first = bench.append()
    const before = bench.commits.length
    const rest = Array.from({ length: 50 }, () => bench.append())
    await settled()
    assert.equal(bench.commits.length, before, 'one commit at a time')
    await bench.release()
    assert.equal(bench.commits.length, before + 1)
    assert.equal(bench.commits.at(-1)?.outputs.length, 50)
    assert.ok(bench.answers.has(first) && !rest.some((id) => bench.answers.has(id)))
    await bench.release()
    assert.ok(rest.every((id) => bench.answers.has(id)))
  })

  test('requests are applied in the order in which they were sent', async () => {
    const bench = await openBench()
    const ids = Array.from({ length: 20 }, (_, i) => bench.append(`${i}`))
    await settled()
    const offsets = ids.map((id) => bench.value<{ offset: number }[]>(id)[0]?.offset)
    assert.deepEqual(
      offsets,
      Array.from({ length: 20 }, (_, i) => i),
    )
  })

  test('what changes nothing is answered without a commit', async () => {
    const bench = await openBench()
    const before = bench.commits.length
    const id = bench.send('stats', null)
    assert.ok(bench.answers.has(id))
    assert.equal(bench.commits.length, before)
  })

  test('it wakes itself for what falls due, and rests with one timer', async () => {
    const bench = await openBench()
    bench.send('append', [toAppend('q', [{ dueAtMs: bench.host.nowMs + 5_000 }])])
    const lease = bench.send('lease', leaseBody('q', { waitMs: 60_000 }))
    const short = bench.send('lease', leaseBody('q', { waitMs: 1_000 }))
    await bench.host.advance(999)
    assert.equal(bench.answers.has(short), false)
    await bench.host.advance(1)
    assert.deepEqual(bench.value(short), { status: 'empty' })
    await bench.host.advance(4_000)
    assert.equal(bench.value<{ status: string }>(lease).status, 'leased')
    assert.equal(bench.host.timers, 1)
  })

  test('how many requests were taken in is told with the answers, waits included', async () => {
    const bench = await openBench()
    const before = bench.taken
    bench.append()
    bench.send('lease', leaseBody('q', { waitMs: 1_000, max: 5 }))
    bench.send('lease', leaseBody('q', { waitMs: 1_000, max: 5 }))
    await settled()
    assert.equal(bench.taken - before, 3)
  })
})

describe('a full disk (P13)', () => {
  test('appends answer full for a second, then are tried again; settling works all the while', async () => {
    const bench = await openBench()
    bench.append()
    const lease = bench.send('lease', leaseBody('q', { token: 't', leaseMs: 60_000 }))
    await settled()
    const { fence, offsets } = bench.value<{ fence: number; offsets: number[] }>(lease)
    bench.medium.full = true
    const refused = bench.append()
    await settled()
    assert.equal(bench.value<{ outcomes: { reason: string }[] }[]>(refused)[0]?.outcomes[0]?.reason, 'disk')
    const before = bench.commits.length
    const again = bench.append()
    await settled()
    assert.ok(bench.answers.has(again))
    assert.equal(bench.commits.length, before, 'the disk is not asked within the second')
    const settle = bench.send('settle', [
      { topic: 'q', group: '', fence, offsets, token: 't', outcome: { kind: 'done' } },
    ])
    await settled()
    assert.deepEqual(bench.value<{ lost: number[] }[]>(settle)[0]?.lost, [])
    bench.medium.full = false
    await bench.host.advance(1_000)
    const stored = bench.append()
    await settled()
    assert.equal(bench.value<{ status: string }[]>(stored)[0]?.status, 'stored')
  })
})

describe('a failed write', () => {
  test('ends everything: what may have been kept is unknown, the rest failed, and nothing is applied any more', async () => {
    const bench = await openBench()
    const lease = bench.send('lease', leaseBody('q', { waitMs: 60_000 }))
    await settled()
    bench.isSlow = true
    const append = bench.append()
    const find = bench.send('find', ['x'])
    const next = bench.append()
    await bench.release(new SluiceError('ENGINE_FAILED', 'The sync failed'))
    assert.equal(bench.code(append), 'UNKNOWN')
    for (const id of [lease, find, next]) assert.equal(bench.code(id), 'ENGINE_FAILED')
    const before = bench.commits.length
    const late = bench.append()
    assert.equal(bench.code(late), 'ENGINE_FAILED')
    assert.equal(bench.commits.length, before)
    assert.equal(bench.host.timers, 0)
  })

  test('a bug of the ledger or the log is a failure with its stack, not a hang', async () => {
    const bench = await openBench()
    bench.isSlow = true
    const append = bench.append()
    await bench.release(new TypeError('undefined is not a function'))
    assert.equal(bench.code(append), 'UNKNOWN')
  })

  test('a partition that another owner took ends everything', async () => {
    const bench = await openBench()
    bench.medium.epoch++
    const append = bench.append()
    await settled()
    assert.equal(bench.code(append), 'UNKNOWN')
    assert.equal(bench.code(bench.append()), 'ENGINE_FAILED')
  })
})

describe('close (P12)', () => {
  test('applies what waits, ends waits, gives back what the process holds, closes the log once', async () => {
    const bench = await openBench()
    bench.append('"held"')
    const held = bench.send('lease', leaseBody('q', {}))
    const waiting = bench.send('lease', leaseBody('q', { waitMs: 60_000 }))
    await settled()
    await bench.broker.close()
    await bench.broker.close()
    assert.deepEqual(bench.value(waiting), { status: 'empty' })
    assert.equal(bench.value<{ status: string }>(held).status, 'leased')
    assert.deepEqual([bench.closes, bench.medium.clean, bench.host.timers], [1, true, 0])
    assert.equal(bench.code(bench.append()), 'CLOSED')
    await bench.open()
    const again = bench.send('lease', leaseBody('q', {}))
    await settled()
    assert.deepEqual(bench.value<{ attempts: number[] }>(again).attempts, [2])
  })

  test('waits for the commit that is under way', async () => {
    const bench = await openBench()
    bench.isSlow = true
    const append = bench.append()
    let isClosed = false
    const closing = bench.broker.close().then(() => (isClosed = true))
    await settled()
    assert.equal(isClosed, false)
    bench.isSlow = false
    await bench.release()
    await closing
    assert.equal(bench.value<{ status: string }[]>(append)[0]?.status, 'stored')
  })

  test('called again while it is under way, both end', async () => {
    const bench = await openBench()
    bench.isSlow = true
    bench.append()
    const closing = [bench.broker.close(), bench.broker.close()]
    bench.isSlow = false
    await bench.release()
    await Promise.race([
      Promise.all(closing),
      settled()
        .then(settled)
        .then(() => assert.fail('close does not end')),
    ])
    assert.equal(bench.closes, 1)
  })

  test('every request that came before it ended has an answer', async () => {
    const bench = await openBench()
    bench.isSlow = true
    bench.append()
    const closing = bench.broker.close()
    const late = bench.send('lease', leaseBody('q', { waitMs: 60_000 }))
    const lateAppend = bench.append()
    bench.isSlow = false
    await bench.release()
    await closing
    for (const id of [late, lateAppend]) assert.ok(bench.answers.has(id), `request ${id} is answered`)
  })

  test('after a failure it still closes the log', async () => {
    const bench = await openBench()
    bench.medium.epoch++
    bench.append()
    await bench.broker.close()
    assert.equal(bench.closes, 1)
  })
})

describe('opening', () => {
  test('a log that cannot be loaded is an error, not an engine', async () => {
    const medium = new MemoryMedium()
    const log = openMemoryLog(medium)
    const ownership = log.own()
    log.commit(ownership, { outputs: [], changes: new Map([['t/q', Buffer.from('{broken')]]) })
    await assert.rejects(Broker.open(openMemoryLog(medium), new FakeHost(), () => {}))
  })

  test('a log whose first commit fails is an error, not an engine', async () => {
    const bench = await openBench()
    bench.append()
    bench.send('lease', leaseBody('q', {}))
    bench.medium.crashNext = 'lost'
    await assert.rejects(
      Broker.open(openMemoryLog(bench.medium), new FakeHost(), () => {}),
      { code: 'ENGINE_FAILED' },
    )
  })
})
