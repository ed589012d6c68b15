import { strict as assert } from 'node:assert'
import { describe, type TestContext, test } from 'node:test'
import { openLocalEngine } from '../../src/broker/local-engine.ts'
import type { Engine, LeaseRequest } from '../../src/engine/contract.ts'
import { FakeHost, settled } from '../support/fake-host.ts'
import { leaseBody, toAppend } from '../support/ledger-driver.ts'

async function open(t: TestContext): Promise<{ engine: Engine; host: FakeHost }> {
  const host = new FakeHost()
  const engine = await openLocalEngine(':memory:', { host })
  t.after(() => engine.close())
  await engine.declare([{ kind: 'queue', name: 'q', settings: {} }])
  return { engine, host }
}

const lease = (options: Parameters<typeof leaseBody>[1]): LeaseRequest => leaseBody('q', options)

describe('the local engine', () => {
  test('answers batches in the same order', async (t) => {
    const { engine } = await open(t)
    const outcomes = await engine.append([toAppend('q', [{}, {}]), toAppend('nowhere', [{}]), toAppend('q', [{}])])
    assert.deepEqual(
      outcomes.map((one) => [one.status, 'offset' in one ? one.offset : null]),
      [
        ['stored', 0],
        ['not-found', null],
        ['stored', 2],
      ],
    )
  })

  test('calls made in one turn are one step', async (t) => {
    const { engine } = await open(t)
    const before = (await engine.stats()).log.commits
    await Promise.all(Array.from({ length: 100 }, () => engine.append([toAppend('q', [{}])])))
    assert.equal((await engine.stats()).log.commits, before + 1)
  })

  test('an aborted wait answers as one that timed out', async (t) => {
    const { engine } = await open(t)
    const abort = new AbortController()
    const waits = [
      engine.lease(lease({ waitMs: 60_000 }), abort.signal),
      engine.read({ topic: 'q', from: 'latest', max: 1, waitMs: 60_000 }, abort.signal),
    ] as const
    await settled()
    abort.abort()
    assert.deepEqual(await waits[0], { status: 'empty' })
    assert.deepEqual(await waits[1], { status: 'read', messages: [], next: 0, earliest: 0, head: 0 })
  })

  test('a wait whose signal was aborted before asks for nothing', async (t) => {
    const { engine } = await open(t)
    assert.deepEqual(await engine.lease(lease({ waitMs: 60_000 }), AbortSignal.abort()), { status: 'empty' })
    await engine.append([toAppend('q', [{}])])
    const outcome = await engine.lease(lease({}))
    assert.ok(outcome.status === 'leased')
    assert.equal(outcome.attempts.length, 1)
  })

  test('a lease that was granted to an aborted wait is given back', async (t) => {
    const { engine } = await open(t)
    const abort = new AbortController()
    const waiting = engine.lease(lease({ waitMs: 60_000 }), abort.signal)
    await settled()
    const stored = engine.append([toAppend('q', [{}])])
    abort.abort()
    await stored
    assert.deepEqual(await waiting, { status: 'empty' })
    const outcome = await engine.lease(lease({}))
    assert.ok(outcome.status === 'leased')
    assert.deepEqual(outcome.offsets, [0])
  })

  test('waits end by the clock of the host', async (t) => {
    const { engine, host } = await open(t)
    let outcome: unknown = null
    void engine.lease(lease({ waitMs: 5_000 })).then((one) => (outcome = one))
    await host.advance(4_999)
    assert.equal(outcome, null)
    await host.advance(1)
    assert.deepEqual(outcome, { status: 'empty' })
  })

  test('a mistake of the caller is an error of that call alone', async (t) => {
    const { engine } = await open(t)
    const [seek, find] = await Promise.allSettled([
      engine.command({ kind: 'seek', topic: 'q', group: '', from: 0 }),
      engine.find(['x']),
    ])
    assert.equal((seek as PromiseRejectedResult).reason.code, 'UNSUPPORTED')
    assert.deepEqual((find as PromiseFulfilledResult<unknown>).value, [{ status: 'not-found' }])
  })

  test('close ends waits, and what comes after it is CLOSED', async (t) => {
    const { engine } = await open(t)
    const waiting = engine.lease(lease({ waitMs: 60_000 }))
    const appended = engine.append([toAppend('q', [{}])])
    await Promise.all([engine.close(), engine.close()])
    assert.equal((await appended)[0]?.status, 'stored')
    const outcome = await waiting
    assert.ok(outcome.status === 'leased' || outcome.status === 'empty')
    await assert.rejects(engine.find(['x']), { code: 'CLOSED' })
    await engine.close()
  })

  test('a durability that cannot be reached is refused (P1)', async () => {
    await assert.rejects(openLocalEngine(':memory:', { durability: 'disk' }), { code: 'UNSUPPORTED' })
    await assert.rejects(openLocalEngine('./never-made', { durability: 'memory' }), { code: 'UNSUPPORTED' })
  })

  test('says what it promises', async (t) => {
    const { engine } = await open(t)
    const { durability, persistence, admission, atomicOutputs, partitions } = engine.abilities
    assert.deepEqual(
      [durability, persistence, admission, atomicOutputs, partitions],
      ['memory', 'refused', 'native', 'native', 'refused'],
    )
  })
})
