import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { SettleOutcome, SettleRequest } from '../src/engine/contract.ts'
import { isSluiceError, SluiceError } from '../src/errors.ts'
import type { HandlerContext } from '../src/handler-context.ts'
import { RetryLater, Unrecoverable } from '../src/handler-errors.ts'
import type { JobMessage } from '../src/message.ts'
import { BatchView } from '../src/message-batch.ts'
import type { JobHandler } from '../src/queue.ts'
import { createSluice } from '../src/sluice.ts'
import type { Worker } from '../src/worker.ts'
import type { WorkOptions } from '../src/worker-options.ts'
import { FakeEngine, FULL } from './support/fake-engine.ts'
import { FakeHost, settled } from './support/fake-host.ts'

function openFake(holder: 'process' | 'token' = 'process') {
  const engine = new FakeEngine()
  const host = new FakeHost()
  const errors: unknown[] = []
  const sluice = createSluice(engine, { onError: (error) => errors.push(error) }, { host, holder })
  return { engine, host, errors, sluice }
}

async function work(
  handler: JobHandler<number, unknown>,
  options: WorkOptions = {},
  holder: 'process' | 'token' = 'process',
) {
  const fake = openFake(holder)
  const worker = fake.sluice.queue<number, unknown>('q').work(handler, options)
  await worker.ready
  await settled()
  return { ...fake, worker }
}

/** A handler that ends when it is told to. */
function createGate() {
  const running: {
    job: JobMessage<number>
    context: HandlerContext
    end: (value?: unknown) => void
    fail: (error: unknown) => void
  }[] = []
  const handler = (job: JobMessage<number>, context: HandlerContext): Promise<unknown> =>
    new Promise((end, fail) => running.push({ job, context, end, fail }))
  return { running, handler }
}

const job = (payload: unknown) => ({ payload: JSON.stringify(payload) })
const settles = (engine: FakeEngine): SettleRequest[] => engine.settledRequests.flat()
/** The error with which a settle ended its attempt. */
const errorOf = (request: SettleRequest | undefined): string => {
  ok(request !== undefined && 'error' in request.outcome)
  return request.outcome.error
}
const outcomes = (engine: FakeEngine) => settles(engine).map(({ offsets, outcome }) => [...offsets, outcome])

describe('a worker', () => {
  test('leases as this process, as many as it runs at once, and settles what is done as one request a lease', async () => {
    const seen: unknown[] = []
    const { engine, worker } = await work(
      (one) => {
        seen.push(one.payload)
      },
      { concurrency: 3 },
    )
    deepEqual(engine.leased, [
      { topic: 'q', group: '', max: 3, leaseMs: 30_000, waitMs: 30_000, holder: { kind: 'process' } },
    ])
    engine.give(job('a'), job('b'), job('c'))
    await settled()
    deepEqual(seen, ['a', 'b', 'c'])
    deepEqual(outcomes(engine), [[0, 1, 2, { kind: 'done' }]])
    equal(settles(engine)[0]?.fence, 1)
    equal(settles(engine)[0]?.token, undefined)
    await worker.close()
  })

  test('shows a job with its id, key, headers, attempt and fence', async () => {
    let seen: unknown
    const { engine, worker } = await work((one, { fence, attempt }) => {
      seen = [
        one.id,
        one.queue,
        one.offset,
        one.key,
        one.headers,
        one.priority,
        one.deadlineAtMs,
        one.isBytes,
        one.payload,
        fence,
        attempt,
      ]
    })
    engine.give({ payload: '{"a":1}', key: 'k', headers: { h: 'v' }, priority: 0, deadlineMs: 5 })
    await settled()
    deepEqual(seen, ['q:abc123:0', 'q', 0, 'k', { h: 'v' }, 'high', 5, false, { a: 1 }, 1, 1])
    await worker.close()
  })

  test('never runs more handlers at once than its concurrency', async () => {
    const { running, handler } = createGate()
    const { engine, host, worker } = await work(handler, { concurrency: 2 })
    engine.give(job(1), job(2))
    await host.advance(100)
    equal(running.length, 2)
    equal(worker.running, 2)
    equal(engine.waitingLeases.length, 0)
    running[0]?.end()
    await settled()
    deepEqual(
      engine.waitingLeases.map(({ max }) => max),
      [1],
    )
    running[1]?.end()
    await worker.close()
  })

  test('leases ahead where handlers are quick, and not where they are slow', async () => {
    const { running, handler } = createGate()
    const { engine, host, worker } = await work(handler, { concurrency: 4 })
    engine.give(job(1))
    await settled()
    running.shift()?.end()
    await settled()
    // Quick: two calls of up to four, eight in all.
    deepEqual(
      engine.waitingLeases.map(({ max }) => max),
      [3, 4],
    )
    for (let i = 0; i < 5; i++) {
      while (running.length === 0) {
        engine.give(job(i))
        await settled()
      }
      await host.advance(100)
      running.shift()?.end()
      await settled()
    }
    const asked = engine.waitingLeases.reduce((sum, { max }) => sum + max, 0)
    ok(asked + worker.running <= 4 + 3, `slow: ${asked} asked for, ${worker.running} run`)
    await worker.close()
  })

  test('asks for messages by portions where handlers are quick, not for each that leaves', async () => {
    const { running, handler } = createGate()
    const { engine, worker } = await work(handler, { concurrency: 4 })
    engine.give(job(1))
    await settled()
    running.shift()?.end()
    await settled()
    engine.give(job(1), job(2), job(3))
    await settled()
    deepEqual(
      engine.waitingLeases.map(({ max }) => max),
      [4],
    )
    running.shift()?.end()
    await settled()
    deepEqual(
      engine.waitingLeases.map(({ max }) => max),
      [4, 2],
    )
    for (const one of running) one.end()
    await worker.close()
  })

  test('keeps the result of a handler as JSON', async () => {
    const { engine, worker } = await work((one) => ({ twice: one.payload * 2 }))
    engine.give(job(21))
    await settled()
    deepEqual(outcomes(engine), [[0, { kind: 'done', result: '{"twice":42}' }]])
    await worker.close()
  })

  test('takes any thenable for a promise', async () => {
    // biome-ignore lint/suspicious/noThenProperty: a thenable is what is tested
    const { engine, worker } = await work(() => ({ then: (take: (value: number) => void) => take(5) }) as never)
    engine.give(job(1))
    await settled()
    deepEqual(outcomes(engine), [[0, { kind: 'done', result: '5' }]])
    await worker.close()
  })

  describe('whose handler throws', () => {
    const cases: readonly (readonly [string, () => unknown, unknown])[] = [
      [
        'an error retries after the back-off, with name and message',
        () => {
          throw new TypeError('no')
        },
        { kind: 'retry', error: 'TypeError: no' },
      ],
      [
        'asynchronously is the same',
        async () => {
          throw new TypeError('no')
        },
        { kind: 'retry', error: 'TypeError: no' },
      ],
      [
        'something else shows it',
        () => {
          throw { code: 5 }
        },
        { kind: 'retry', error: 'Thrown: {"code":5}' },
      ],
      [
        'what cannot be shown is retried too',
        () => {
          throw 5n
        },
        { kind: 'retry', error: 'Thrown: bigint' },
      ],
      [
        'Unrecoverable is out of attempts',
        () => {
          throw new Unrecoverable('never')
        },
        { kind: 'dead', error: 'Unrecoverable: never' },
      ],
      [
        'RetryLater is tried again when it says',
        () => {
          throw new RetryLater({ delayMs: 70, message: 'soon' })
        },
        { kind: 'retry', error: 'RetryLater: soon', atMs: 1_700_000_000_070 },
      ],
      [
        'RetryLater with a wrong delay is an error like any other',
        () => {
          throw new RetryLater({ delayMs: -1 })
        },
        {
          kind: 'retry',
          error: 'SluiceError: delayMs is -1; it must be whole milliseconds from 0 to 315,360,000,000 (ten years).',
        },
      ],
    ]
    for (const [what, handler, outcome] of cases) {
      test(what, async () => {
        const { engine, worker } = await work(handler)
        engine.give(job(1))
        await settled()
        deepEqual(outcomes(engine), [[0, outcome]])
        await worker.close()
      })
    }

    test('a long message is cut at 2,000 characters', async () => {
      const { engine, worker } = await work(() => {
        throw new Error('x'.repeat(5_000))
      })
      engine.give(job(1))
      await settled()
      equal(errorOf(settles(engine)[0]).length, 2_000)
      await worker.close()
    })

    test('a result that JSON cannot express is out of attempts, since the work was done', async () => {
      const { engine, worker } = await work(() => 5n)
      engine.give(job(1))
      await settled()
      equal(settles(engine)[0]?.outcome.kind, 'dead')
      await worker.close()
    })

    test('a payload that is not JSON fails the attempt with INVALID_PAYLOAD', async () => {
      const { engine, worker } = await work((one) => one.payload)
      engine.give({ payload: '{broken' })
      await settled()
      const { outcome } = settles(engine)[0] as SettleRequest
      ok(outcome.kind === 'retry' && outcome.error.includes('is not JSON'))
      await worker.close()
    })
  })

  describe('and time', () => {
    test('a handler that runs past timeoutMs has failed, is told, and gives its place to the next', async () => {
      const { running, handler } = createGate()
      const { engine, host, worker } = await work(handler, { timeoutMs: 1_000 })
      engine.give(job(1))
      await settled()
      const { signal } = (running[0] as { context: HandlerContext }).context
      await host.advance(999)
      equal(signal.aborted, false)
      await host.advance(1)
      ok(isSluiceError(signal.reason, 'HANDLER_TIMEOUT'))
      const { outcome } = settles(engine)[0] as SettleRequest
      ok(outcome.kind === 'retry' && outcome.error.includes('timeoutMs, 1000 ms'))
      equal(engine.waitingLeases.length, 1)
      running[0]?.end('too late')
      await settled()
      equal(settles(engine).length, 1)
      await worker.close()
      equal(host.timers, 0)
    })

    test('a signal that is first read after the abort is aborted', async () => {
      const { running, handler } = createGate()
      const { engine, host, worker } = await work(handler, { timeoutMs: 10 })
      engine.give(job(1))
      await host.advance(10)
      ok(isSluiceError(running[0]?.context.signal.reason, 'HANDLER_TIMEOUT'))
      await worker.close()
    })

    test('one timer serves all handlers: each is ended when its own time is over', async () => {
      const { running, handler } = createGate()
      const { engine, host, worker } = await work(handler, { timeoutMs: 1_000, concurrency: 3 })
      engine.give(job(1))
      await host.advance(300)
      engine.give(job(2))
      await host.advance(300)
      equal(host.timers, 1)
      await host.advance(400)
      deepEqual(
        running.map(({ context }) => context.signal.aborted),
        [true, false],
      )
      await host.advance(300)
      deepEqual(
        running.map(({ context }) => context.signal.aborted),
        [true, true],
      )
      await worker.close()
    })

    test('a lease held by the process is asked after only while a handler runs long, and a lost one stops it', async () => {
      const { running, handler } = createGate()
      const { engine, host, worker } = await work(handler, { concurrency: 2 })
      engine.give(job(1), job(2))
      await host.advance(4_000)
      running[1]?.end()
      await settled()
      engine.give(job(3))
      await host.advance(1_000)
      running[2]?.end()
      deepEqual(
        engine.extended.flat().map(({ offsets, fence }) => [offsets, fence]),
        [[[0], 1]],
      )
      engine.onExtend = ({ offsets }) => ({ status: 'extended', expiresAtMs: 0, lost: offsets })
      await host.advance(5_000)
      ok(isSluiceError(running[0]?.context.signal.reason, 'LEASE_LOST'))
      equal(worker.running, 1)
      running[0]?.end('no effect')
      await settled()
      deepEqual(outcomes(engine), [
        [1, { kind: 'done' }],
        [2, { kind: 'done' }],
      ])
      equal(worker.running, 0)
      await worker.close()
    })

    test('a lease held by a token is extended in time, and settled with its token', async () => {
      const { running, handler } = createGate()
      const { engine, host, worker } = await work(handler, { leaseMs: 9_000 }, 'token')
      const { holder } = engine.leased[0] as (typeof engine.leased)[0]
      ok(holder.kind === 'token' && holder.token.length >= 32)
      engine.give(job(1))
      await host.advance(9_000)
      equal(engine.extended.length, 3)
      deepEqual(engine.extended[0], [
        { topic: 'q', group: '', fence: 1, offsets: [0], token: holder.token, leaseMs: 9_000 },
      ])
      running[0]?.end()
      await settled()
      equal(settles(engine)[0]?.token, holder.token)
      await worker.close()
    })
  })

  test('holds by a token that it could not extend in time are lost, and their handlers told', async () => {
    const { running, handler } = createGate()
    const { engine, host, worker } = await work(handler, { leaseMs: 3_000 }, 'token')
    engine.give(job(1))
    await settled()
    engine.extend = () => Promise.reject(new SluiceError('UNKNOWN'))
    await host.advance(2_999)
    equal(running[0]?.context.signal.aborted, false)
    await host.advance(1)
    ok(isSluiceError(running[0]?.context.signal.reason, 'LEASE_LOST'))
    running[0]?.end()
    await worker.close()
    deepEqual(outcomes(engine), [])
  })

  test('asks at once after a cancel, so that the handler of the cancelled job stops', async () => {
    const { running, handler } = createGate()
    const { engine, sluice, worker } = await work(handler, { concurrency: 2 })
    engine.give(job(1), job(2))
    await settled()
    engine.onExtend = () => ({ status: 'extended', expiresAtMs: 0, lost: [1] })
    await sluice.queue('q').cancel('q:abc123:1')
    await settled()
    deepEqual(
      running.map(({ context }) => context.signal.aborted),
      [false, true],
    )
    for (const one of running) one.end()
    await worker.close()
    deepEqual(outcomes(engine), [[0, { kind: 'done' }]])
  })

  test('never starts what was revoked before it came to it, and gives none of it back', async () => {
    const { running, handler } = createGate()
    const { engine, worker } = await work(handler)
    engine.give(job(1))
    await settled()
    running.shift()?.end()
    await settled()
    for (const one of [2, 3]) {
      engine.give(job(one))
      await settled()
    }
    equal(running.length, 1)
    engine.onExtend = ({ offsets }) => ({
      status: 'extended',
      expiresAtMs: 0,
      lost: offsets.filter((one) => one === 2),
    })
    worker.checkHolds()
    await settled()
    running[0]?.end()
    await settled()
    equal(running.length, 1)
    deepEqual(outcomes(engine), [
      [0, { kind: 'done' }],
      [1, { kind: 'done' }],
    ])
    for (const one of [4, 5]) {
      engine.give(job(one))
      await settled()
    }
    engine.onExtend = ({ offsets }) => ({
      status: 'extended',
      expiresAtMs: 0,
      lost: offsets.filter((one) => one === 4),
    })
    worker.checkHolds()
    await settled()
    const closing = worker.close()
    running[1]?.end()
    await closing
    deepEqual(outcomes(engine).slice(2), [[3, { kind: 'done' }]])
  })

  describe('that closes (P12)', () => {
    test('takes nothing new, gives back what was not started, and waits for handlers', async () => {
      const { running, handler } = createGate()
      const { engine, host, worker } = await work(handler)
      engine.give(job(1))
      await settled()
      running.shift()?.end()
      await settled()
      engine.give(job(2))
      await settled()
      engine.give(job(3))
      await settled()
      equal(running.length, 1)
      const closing = worker.close()
      await settled()
      deepEqual(outcomes(engine), [
        [0, { kind: 'done' }],
        [2, { kind: 'release' }],
      ])
      equal(engine.waitingLeases.length, 0)
      equal(worker.mode, 'draining')
      running[0]?.end('kept')
      await closing
      deepEqual(outcomes(engine).at(-1), [1, { kind: 'done', result: '"kept"' }])
      equal(worker.mode, 'closed')
      await worker.closed
      equal(host.timers, 0)
    })

    test('gives back what is still held at the end of drainMs, unharmed, and tells the handler', async () => {
      const { running, handler } = createGate()
      const { engine, host, worker } = await work(handler)
      engine.give(job(1))
      await settled()
      const closing = worker.close({ drainMs: 500 })
      await host.advance(499)
      equal(running[0]?.context.signal.aborted, false)
      await host.advance(1)
      await closing
      ok(isSluiceError(running[0]?.context.signal.reason, 'CLOSED'))
      deepEqual(outcomes(engine), [[0, { kind: 'release' }]])
      running[0]?.fail(new Error('aborted'))
      await settled()
      equal(settles(engine).length, 1)
    })

    test('gives back a lease that arrives too late', async () => {
      const { engine, worker } = await work(() => {})
      let answer: (outcome: never) => void = () => {}
      engine.onLease = () =>
        new Promise((resolve) => {
          answer = resolve
        })
      engine.give(job(1))
      await settled()
      const closing = worker.close()
      answer(engine.makeLease([job(2)]) as never)
      await closing
      await settled()
      deepEqual(outcomes(engine), [
        [0, { kind: 'done' }],
        [1, { kind: 'release' }],
      ])
    })

    test('ends once, however often it is asked', async () => {
      const { worker } = await work(() => {})
      equal(worker.close(), worker.close())
      await worker.close()
      await worker[Symbol.asyncDispose]()
    })

    test('is closed with its Sluice, before the engine', async () => {
      const { running, handler } = createGate()
      const { engine, sluice } = await work(handler)
      engine.give(job(1))
      await settled()
      const closing = sluice.close()
      await settled()
      equal(engine.isClosed, false)
      running[0]?.end()
      await closing
      deepEqual(outcomes(engine), [[0, { kind: 'done' }]])
      equal(engine.isClosed, true)
    })

    test('before it has started, it never leases', async () => {
      const { engine, sluice } = openFake()
      let declare: () => void = () => {}
      engine.onDeclare = () =>
        new Promise((resolve) => {
          declare = () => resolve({ status: 'declared', created: true, tag: 'abc123', settings: {} })
        })
      const worker = sluice.queue('q').work(() => {})
      await settled()
      const closing = worker.close()
      declare()
      await closing
      await rejects(worker.ready, (error) => isSluiceError(error, 'CLOSED'))
      equal(engine.leased.length, 0)
    })
  })

  describe('whose engine fails', () => {
    test('for a while leases again after a pause that grows', async () => {
      const { engine, host, errors, worker } = await work(() => {})
      engine.onLease = () => Promise.reject(new SluiceError('UNKNOWN'))
      engine.give(job(1))
      await settled()
      equal(engine.leased.length, 3)
      equal(errors.length, 2)
      await host.advance(99)
      equal(engine.leased.length, 3)
      await host.advance(200)
      equal(engine.leased.length, 5)
      engine.onLease = null
      await host.advance(1_000)
      equal(engine.waitingLeases.length, 2)
      await worker.close()
      equal(host.timers, 0)
    })

    test('while it settles settles again, and leases nothing before that', async () => {
      const { engine, host, worker } = await work(() => {})
      const works = engine.onSettle
      engine.onSettle = () => Promise.reject(new SluiceError('UNKNOWN'))
      engine.give(job(1))
      await settled()
      const leases = engine.leased.length
      engine.give(job(2))
      await settled()
      engine.give(job(3))
      await host.advance(2_000)
      ok(settles(engine).length > 2)
      equal(engine.leased.length, leases)
      engine.onSettle = works
      await host.advance(10_000)
      deepEqual(outcomes(engine).slice(-3).flat(), [0, { kind: 'done' }, 1, { kind: 'done' }, 2, { kind: 'done' }])
      ok(engine.waitingLeases.length > 0)
      await worker.close()
    })

    for (const code of ['CLOSED', 'ENGINE_FAILED'] as const) {
      test(`for good (${code}) stops, tells its handlers${code === 'CLOSED' ? '' : ' and says so'}`, async () => {
        const { running, handler } = createGate()
        const { engine, errors, host, worker } = await work(handler, { concurrency: 2 })
        engine.onLease = () => Promise.reject(new SluiceError(code))
        engine.give(job(1), job(2))
        await settled()
        running[0]?.end()
        await worker.closed
        ok(isSluiceError(running[1]?.context.signal.reason, code))
        deepEqual(
          errors.map((error) => (error as SluiceError).code),
          code === 'CLOSED' ? [] : [code],
        )
        await worker.close()
        equal(host.timers, 0)
      })
    }

    test('to declare rejects `ready`, and is not an unhandled rejection', async () => {
      const { engine, errors, sluice } = openFake()
      engine.onDeclare = () => ({ status: 'conflict', message: '"q" is a topic' })
      const worker = sluice.queue('q').work(() => {})
      await worker.closed
      await rejects(worker.ready, (error) => isSluiceError(error, 'DECLARED_DIFFERENTLY'))
      equal(errors.length, 1)
    })

    test('to know the queue declares it again', async () => {
      const { engine, host, worker } = await work(() => {})
      engine.onLease = () => ({ status: 'not-found' })
      engine.give(job(1))
      await settled()
      engine.onLease = null
      await host.advance(1_000)
      equal(engine.declared.length, 2)
      ok(engine.waitingLeases.length > 0)
      await worker.close()
    })
  })
})

describe('the context of a handler', () => {
  test('sends progress at most five times a second, the latest value wins', async () => {
    const { running, handler } = createGate()
    const { engine, host, worker } = await work(handler)
    engine.give(job(1))
    await settled()
    const { progress } = (running[0] as { context: HandlerContext }).context
    for (let i = 0; i < 100; i++) progress({ i })
    await settled()
    await host.advance(200)
    await host.advance(1_000)
    deepEqual(
      engine.extended.flat().map((request) => request.progress),
      ['{"i":0}', '{"i":99}'],
    )
    running[0]?.end()
    await worker.close()
  })

  test('cuts progress over 4,096 bytes off, says so once, and fails for what JSON cannot express', async () => {
    const { engine, errors, worker } = await work((one, { progress }) => {
      if (one.payload === 2) progress(5n)
      progress({ long: 'x'.repeat(5_000) })
      progress({ long: 'y'.repeat(5_000) })
    })
    engine.give(job(1))
    await settled()
    engine.give(job(2))
    await settled()
    const sent = engine.extended.flat().map(({ progress = '' }) => progress)
    ok(
      sent.length > 0 && sent.every((text) => Buffer.byteLength(text) <= 4_096 && typeof JSON.parse(text) === 'string'),
    )
    deepEqual(
      errors.map((error) => (error as SluiceError).code),
      ['PAYLOAD_TOO_LARGE'],
    )
    equal(settles(engine)[0]?.outcome.kind, 'done')
    ok(errorOf(settles(engine)[1]).includes('cannot be written as JSON'))
    await worker.close()
  })

  test('publishes with the settle, in order, a batch for each target (P9)', async () => {
    const { engine, sluice, worker } = await work(async (_one, { publish }) => {
      await publish(sluice.topic('t'), 'a', { key: 'k' })
      void publish('t', 'b')
      await publish(sluice.queue('r'), 'plain')
      await publish(sluice.queue('r'), 'c', { delayMs: 1_000, idempotencyKey: 'x' })
      return 'done'
    })
    engine.give(job(1))
    await settled()
    const { outcome, outputs = [] } = settles(engine)[0] as SettleRequest
    deepEqual(outcome, { kind: 'done', result: '"done"' })
    deepEqual(
      outputs.map(({ topic, batch }) => [
        topic,
        ...Array.from({ length: new BatchView(batch).count }, (_, i) => new BatchView(batch).payloadText(i)),
      ]),
      [
        ['t', '"a"', '"b"'],
        ['r', '"plain"', '"c"'],
      ],
    )
    deepEqual(outputs[1]?.wishes, [{ index: 1, idempotencyKey: 'x', dueAtMs: 1_700_000_001_000 }])
    deepEqual(
      engine.declared.map(({ kind, name }) => [kind, name]),
      [
        ['queue', 'q'],
        ['topic', 't'],
        ['queue', 'r'],
      ],
    )
    await worker.close()
  })

  test('publishes nothing where the handler throws', async () => {
    const { engine, sluice, worker } = await work(async (_one, { publish }) => {
      await publish(sluice.topic('t'), 'a')
      throw new Error('after')
    })
    engine.give(job(1))
    await settled()
    deepEqual(outcomes(engine), [[0, { kind: 'retry', error: 'Error: after' }]])
    equal(settles(engine)[0]?.outputs, undefined)
    await worker.close()
  })

  test('fails the attempt where a publish was refused, though nobody awaited it', async () => {
    const { engine, worker } = await work((_one, { publish }) => {
      void publish('nowhere', 1)
    })
    engine.give(job(1))
    await settled()
    const { outcome } = settles(engine)[0] as SettleRequest
    ok(outcome.kind === 'retry' && outcome.error.includes("publish('nowhere')"))
    await worker.close()
  })

  test('leaves no rejection unhandled where a handler throws beside a refused publish', async () => {
    const { engine, worker } = await work((_one, { publish }) => {
      void publish('nowhere', 1)
      throw new Error('first')
    })
    engine.give(job(1))
    await settled()
    equal(errorOf(settles(engine)[0]), 'Error: first')
    await worker.close()
  })

  test('holds the settle back while a target is full, within timeoutMs (P7)', async () => {
    const { engine, host, sluice, worker } = await work(
      async (_one, { publish }) => {
        await publish(sluice.topic('t'), 'a')
      },
      { timeoutMs: 2_500 },
    )
    const full: SettleOutcome = FULL
    engine.onSettle = (requests) => requests.map(() => full)
    engine.give(job(1))
    await host.advance(1_000)
    equal(settles(engine).length, 2)
    equal(worker.running, 1)
    const again = settles(engine)[1]?.outputs?.[0]
    ok(again !== undefined)
    equal(new BatchView(again.batch).payloadText(0), '"a"')
    engine.onSettle = (requests) =>
      requests.map((request) => (request.outputs === undefined ? { status: 'settled', lost: [], outputs: [] } : full))
    await host.advance(1_500)
    const { outcome } = settles(engine).at(-1) as SettleRequest
    ok(outcome.kind === 'retry' && outcome.error.includes('limit is 10'))
    equal(worker.running, 0)
    await worker.close()
    equal(host.timers, 0)
  })

  test('leaves no timer behind where a worker closes while a settle waits for room', async () => {
    const { engine, host, sluice, worker } = await work(async (_one, { publish }) => {
      await publish(sluice.topic('t'), 'a')
    })
    engine.onSettle = (requests) =>
      requests.map((request) => (request.outputs === undefined ? { status: 'settled', lost: [], outputs: [] } : FULL))
    engine.give(job(1))
    await settled()
    equal(host.timers, 2)
    const closing = worker.close({ drainMs: 10 })
    await host.advance(10)
    await closing
    equal(settles(engine).at(-1)?.outcome.kind, 'release')
    equal(host.timers, 0)
  })

  test('refuses publish, progress and once after the attempt is over', async () => {
    const { running, handler } = createGate()
    const { engine, host, sluice, worker } = await work(handler, { timeoutMs: 10 })
    engine.give(job(1))
    await host.advance(10)
    const { publish, progress, once } = (running[0] as { context: HandlerContext }).context
    await rejects(publish(sluice.topic('t'), 1), (error) => isSluiceError(error, 'LEASE_LOST'))
    await rejects(
      once('x', () => 1),
      (error) => isSluiceError(error, 'LEASE_LOST'),
    )
    progress(1)
    await settled()
    equal(engine.extended.length, 0)
    await worker.close()
  })

  test('runs the effect of once() unless its value is known, and keeps the value (P9)', async () => {
    let effects = 0
    const kept = new Map<string, string>()
    const results: unknown[] = []
    const { engine, worker } = await work(async (_one, { once }) => {
      const effect = (): { n: number } => ({ n: ++effects })
      results.push(await Promise.all([once('a', effect), once('a', effect)]), await once('none', () => undefined))
    })
    engine.onCommand = (command) => {
      if (command.kind === 'recall')
        return kept.has(command.name) ? { status: 'done', value: kept.get(command.name) as string } : { status: 'done' }
      if (command.kind === 'remember') kept.set(command.name, command.value)
      return { status: 'done' }
    }
    engine.give(job(1))
    await settled()
    engine.give(job(1))
    await settled()
    equal(effects, 1)
    deepEqual(results, [[{ n: 1 }, { n: 1 }], undefined, [{ n: 1 }, { n: 1 }], undefined])
    deepEqual(engine.commands[0], {
      kind: 'recall',
      name: 'a',
      hold: { topic: 'q', group: '', fence: 1, offsets: [0], token: undefined },
    })
    await worker.close()
  })

  test('lets once() be tried again after its effect threw, and ends it where the lease is lost', async () => {
    let tries = 0
    let error: unknown
    const { engine, worker } = await work(async (_one, { once, signal }) => {
      const effect = (): number => {
        if (tries++ === 0) throw new Error('first')
        return 5
      }
      await once('a', effect).catch(() => {})
      engine.onCommand = () => ({ status: 'lost' })
      error = await once('a', effect).catch((one) => [one, signal.reason])
    })
    engine.give(job(1))
    await settled()
    equal(tries, 1)
    ok((error as unknown[]).every((one) => isSluiceError(one, 'LEASE_LOST')))
    equal(settles(engine).length, 0)
    await worker.close()
  })
})

test('a worker without a handler is refused', () => {
  const { sluice } = openFake()
  let worker: Worker | undefined
  try {
    worker = sluice.queue('q').work(undefined as never)
  } catch (error) {
    ok(isSluiceError(error, 'INVALID_OPTION'))
  }
  equal(worker, undefined)
})
