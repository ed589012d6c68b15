import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import { CALLBACKS_QUEUE } from '../../src/engine/options.ts'
import { BatchView } from '../../src/message-batch.ts'
import { type Held, type LedgerDriver, openDriver, START_MS, toAppend } from '../support/ledger-driver.ts'

const URL = 'https://receiver.example/hooks?token=s3cret'

interface Callback {
  readonly url: string
  readonly webhookId: string
  readonly body: {
    readonly type: string
    readonly version: number
    readonly timestamp: string
    readonly data: Record<string, unknown>
  }
}

/** Takes the callbacks that wait. */
async function takeCallbacks(driver: LedgerDriver): Promise<{ held: Held | undefined; callbacks: Callback[] }> {
  const held = await driver.lease(CALLBACKS_QUEUE, { max: 100 })
  if (held === undefined) return { held, callbacks: [] }
  const view = new BatchView(held.batch)
  const callbacks = held.payloads.map((payload, i) => {
    const headers = view.headers(i) ?? {}
    return {
      url: headers['sluice-callback-url'] as string,
      webhookId: headers['sluice-callback-id'] as string,
      body: JSON.parse(payload) as Callback['body'],
    }
  })
  return { held, callbacks }
}

async function promised(driver: LedgerDriver): Promise<number> {
  return (await driver.stats(CALLBACKS_QUEUE)).depth.messages
}

type End = (driver: LedgerDriver) => Promise<void>

const ENDS: Readonly<Record<string, { readonly status: string; readonly data: Record<string, unknown>; end: End }>> = {
  'completed, with its result as the JSON that it is': {
    status: 'completed',
    data: { attempts: 1, result: { ok: 1 } },
    end: async (driver) => {
      await driver.settle((await driver.lease('q')) as Held, { kind: 'done', result: '{ "ok": 1.0 }' })
    },
  },
  'completed without a result': {
    status: 'completed',
    data: { attempts: 1 },
    end: async (driver) => {
      await driver.settle((await driver.lease('q')) as Held)
    },
  },
  'failed, dead by its handler': {
    status: 'failed',
    data: { attempts: 1, error: 'no such address' },
    end: async (driver) => {
      await driver.settle((await driver.lease('q')) as Held, { kind: 'dead', error: 'no such address' })
    },
  },
  'failed, out of attempts': {
    status: 'failed',
    data: { attempts: 2, error: 'again' },
    end: async (driver) => {
      for (let attempt = 1; attempt <= 2; attempt++) {
        await driver.settle((await driver.lease('q')) as Held, { kind: 'retry', error: 'again', atMs: driver.nowMs })
      }
    },
  },
  'failed, since its process died in the last attempt': {
    status: 'failed',
    data: { attempts: 2, error: 'The process died in attempt 2' },
    end: async (driver) => {
      for (let attempt = 1; attempt <= 2; attempt++) {
        await driver.advance(10_000)
        assert.deepEqual((await driver.lease('q'))?.attempts, [attempt])
        await driver.restart()
      }
    },
  },
  'cancelled while it waits': {
    status: 'cancelled',
    data: { attempts: 0 },
    end: async (driver) => {
      await driver.cancel(driver.id('q', 0))
    },
  },
  'cancelled while it runs': {
    status: 'cancelled',
    data: { attempts: 1 },
    end: async (driver) => {
      await driver.lease('q')
      await driver.cancel(driver.id('q', 0))
    },
  },
  'expired, seen by a worker': {
    status: 'expired',
    data: { attempts: 0 },
    end: async (driver) => {
      await driver.advance(1_000)
      assert.equal(await driver.lease('q'), undefined)
    },
  },
  'expired, seen by whoever asks': {
    status: 'expired',
    data: { attempts: 0 },
    end: async (driver) => {
      await driver.advance(1_000)
      assert.equal((await driver.job(driver.id('q', 0))).status, 'expired')
    },
  },
}

describe('callbacks (P2, P7, P10)', () => {
  for (const [title, { status, data, end }] of Object.entries(ENDS)) {
    test(`a job that has ended as ${title} has its callback in the very commit that ended it`, async () => {
      const driver = await openDriver()
      await driver.queue('q', { attempts: 2 })
      const isExpiring = status === 'expired'
      await driver.add('q', { callbackUrl: URL, ...(isExpiring ? { deadlineMs: START_MS + 500 } : {}) })
      assert.equal((await takeCallbacks(driver)).callbacks.length, 0, 'nothing is sent before the end')
      let committedAt = -1
      let steps = 0
      const id = driver.id('q', 0)
      const topic = driver.ledger.topics.get(CALLBACKS_QUEUE)?.row.id
      driver.onStep = () => {
        steps++
        const isStored = driver.lastCommit?.outputs.some((output) => output.topic === topic) === true
        if (isStored) committedAt = steps
        const isEnded = driver.ledger.topics.get('q')?.jobs.settled.has(0) === true
        assert.equal(isEnded, committedAt > 0, 'ended and stored are one step')
      }
      await end(driver)
      driver.onStep = () => {}
      assert.ok(committedAt > 0)
      assert.equal((await driver.job(id)).status, status)
      const { callbacks } = await takeCallbacks(driver)
      assert.equal(callbacks.length, 1)
      const [{ url, webhookId, body }] = callbacks as [Callback]
      assert.equal(url, URL)
      assert.match(webhookId, /^msg_[0-9a-f]{32}$/)
      assert.equal(body.type, `job.${status}`)
      assert.equal(body.version, 1)
      assert.equal(body.timestamp, new Date(driver.nowMs).toISOString())
      assert.deepEqual(body.data, {
        id,
        queue: 'q',
        status,
        createdAtMs: START_MS,
        endedAtMs: driver.nowMs,
        ...data,
      })
    })
  }

  for (const kind of ['lost', 'torn', 'kept'] as const) {
    test(`a process that dies in the commit of an end (${kind}) leaves both the end and the callback, or neither`, async () => {
      const driver = await openDriver()
      await driver.queue('q')
      await driver.add('q', { callbackUrl: URL })
      const held = (await driver.lease('q', { token: 'w', leaseMs: 60_000 })) as Held
      const { topic, group, fence, offsets, token } = held
      await driver.crashAndReopen(kind, [
        driver.request('settle', [{ topic, group, fence, offsets, token, outcome: { kind: 'done', result: '7' } }]),
      ])
      const isEnded = (await driver.job(driver.id('q', 0))).status === 'completed'
      assert.equal(isEnded, kind === 'kept')
      assert.equal(await promised(driver), 1, 'its place is taken before and after')
      const before = await takeCallbacks(driver)
      assert.equal(before.callbacks.length, isEnded ? 1 : 0)
      if (!isEnded) {
        await driver.settle(held, { kind: 'done', result: '7' })
        const after = await takeCallbacks(driver)
        assert.equal(after.callbacks[0]?.body.data.result, 7)
      }
    })
  }

  test('a callback that is tried again, redriven or met after a restart has the same id and the same bytes', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', { callbackUrl: URL })
    await driver.settle((await driver.lease('q')) as Held, { kind: 'done', result: '[1,2]' })
    const first = await takeCallbacks(driver)
    await driver.settle(first.held as Held, { kind: 'retry', error: '500', atMs: driver.nowMs })
    await driver.restart()
    const second = await takeCallbacks(driver)
    assert.deepEqual(second.callbacks, first.callbacks)
    assert.deepEqual(second.held?.payloads, first.held?.payloads)
    await driver.settle(second.held as Held, { kind: 'dead', error: '410' })
    await driver.command({ kind: 'redrive', topic: CALLBACKS_QUEUE, group: '', max: 10 })
    const third = await takeCallbacks(driver)
    assert.deepEqual(third.callbacks, first.callbacks)
    assert.deepEqual(third.held?.payloads, first.held?.payloads)
  })

  test('a delayed job is called back by the id that it was given, when it ends and when it is cancelled before it is due', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    const [one] = await driver.add('q', { callbackUrl: URL, dueAtMs: START_MS + 1_000 })
    const [two] = await driver.add('q', { callbackUrl: URL, dueAtMs: START_MS + 2_000 })
    const ids = [driver.scheduledId('q', one), driver.scheduledId('q', two)]
    await driver.cancel(ids[1] as string)
    await driver.advance(1_000)
    await driver.restart()
    await driver.settle((await driver.lease('q')) as Held)
    const { callbacks } = await takeCallbacks(driver)
    assert.deepEqual(
      callbacks.map(({ body }) => [body.type, body.data.id, body.data.createdAtMs]),
      [
        ['job.cancelled', ids[1], START_MS],
        ['job.completed', ids[0], START_MS],
      ],
    )
  })

  test('a job made of a dead letter is called back, too, and names the old one', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', { callbackUrl: URL })
    await driver.settle((await driver.lease('q')) as Held, { kind: 'dead', error: 'x' })
    await driver.restart()
    await driver.command({ kind: 'redrive', topic: 'q', group: '', max: 1 })
    await driver.settle((await driver.lease('q')) as Held)
    const { callbacks } = await takeCallbacks(driver)
    assert.deepEqual(
      callbacks.map(({ url, body }) => [url, body.type, body.data.id, body.data.redriveOf]),
      [
        [URL, 'job.failed', driver.id('q', 0), undefined],
        [URL, 'job.completed', driver.id('q', 1), driver.id('q', 0)],
      ],
    )
    assert.notEqual(callbacks[0]?.webhookId, callbacks[1]?.webhookId)
  })

  test('workers, readers and dead letters of the queue do not show the URL', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', { callbackUrl: URL, headers: { a: 'b' } })
    const held = (await driver.lease('q')) as Held
    assert.ok(!Buffer.from(held.batch).includes('s3cret'))
    await driver.settle(held, { kind: 'dead', error: 'x' })
    const dead = await driver.command({ kind: 'dead', topic: 'q', group: '', max: 1 })
    assert.ok(!JSON.stringify(dead).includes('s3cret'))
  })

  test('room for a callback is taken with its job: full, such jobs are refused, others are not, and every end is settled', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.queue(CALLBACKS_QUEUE, { limit: { messages: 4 } })
    const drafts = Array.from({ length: 6 }, () => ({ callbackUrl: URL }))
    const outcomes = await driver.add('q', ...drafts, {})
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      ['stored', 'stored', 'stored', 'stored', 'full', 'full', 'stored'],
    )
    const refused = outcomes[4]
    assert.ok(refused?.status === 'full' && refused.queue === CALLBACKS_QUEUE && refused.limit === 4)
    assert.equal(await promised(driver), 4)
    await driver.restart()
    assert.equal(await promised(driver), 4, 'promises are counted over a restart')
    await driver.settle((await driver.lease('q', { max: 10 })) as Held)
    assert.equal((await driver.stats('q')).depth.messages, 0, 'all of it could end')
    assert.equal(await promised(driver), 4)
    assert.equal((await driver.add('q', { callbackUrl: URL }))[0]?.status, 'full')
    const { held, callbacks } = await takeCallbacks(driver)
    assert.equal(callbacks.length, 4)
    await driver.settle(held as Held)
    assert.equal(await promised(driver), 0)
    assert.equal((await driver.add('q', { callbackUrl: URL }))[0]?.status, 'stored')
  })

  test('where the dead letters of callbacks are full, the next is blocked and keeps its place until it is redriven', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.queue(CALLBACKS_QUEUE, { limit: { messages: 2 }, deadLetters: 1, attempts: 1 })
    for (let i = 0; i < 3; i++) {
      const [added] = await driver.add('q', { callbackUrl: URL })
      assert.equal(added?.status, 'stored')
      await driver.settle((await driver.lease('q')) as Held)
      const { held } = await takeCallbacks(driver)
      await driver.settle(held as Held, { kind: 'retry', error: '500' })
    }
    const [group] = (await driver.stats(CALLBACKS_QUEUE)).groups
    assert.deepEqual([group?.dead, group?.blocked], [1, 2])
    assert.equal((await driver.add('q', { callbackUrl: URL }))[0]?.status, 'full', 'and so the bound holds')
    await driver.command({ kind: 'redrive', topic: CALLBACKS_QUEUE, group: '', max: 10 })
    const { held, callbacks } = await takeCallbacks(driver)
    assert.equal(callbacks.length, 2, 'the dead letter itself finds no room yet')
    await driver.settle(held as Held)
    assert.equal((await driver.add('q', { callbackUrl: URL }))[0]?.status, 'stored')
  })

  test('a handler that publishes a job with a callback is refused whole where there is no room for it', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.queue('next')
    await driver.queue(CALLBACKS_QUEUE, { limit: { messages: 0 } })
    await driver.add('q', {})
    const held = (await driver.lease('q')) as Held
    const outputs = [toAppend('next', [{}, { callbackUrl: URL }])]
    assert.equal((await driver.settle(held, { kind: 'done' }, { outputs })).status, 'full')
    await driver.queue(CALLBACKS_QUEUE, { limit: { messages: 10 } })
    const again = [toAppend('next', [{}, { callbackUrl: URL }])]
    assert.equal((await driver.settle(held, { kind: 'done' }, { outputs: again })).status, 'settled')
    await driver.settle((await driver.lease('next', { max: 2 })) as Held)
    assert.equal((await takeCallbacks(driver)).callbacks.length, 1)
  })

  test('a result that is large, or finds no room, stays with its job, and the callback says so', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', ...Array.from({ length: 3 }, () => ({ callbackUrl: URL })))
    const results = [`"${'x'.repeat(60_000)}"`, `"${'x'.repeat(70_000)}"`, `"${'x'.repeat(60_000)}"`]
    for (const result of results.slice(0, 2))
      await driver.settle((await driver.lease('q')) as Held, { kind: 'done', result })
    await driver.queue(CALLBACKS_QUEUE, { limit: { bytes: 80_000 } })
    await driver.settle((await driver.lease('q')) as Held, { kind: 'done', result: results[2] as string })
    const { callbacks } = await takeCallbacks(driver)
    assert.deepEqual(
      callbacks.map(({ body }) => [typeof body.data.result, body.data.resultOmitted]),
      [
        ['string', undefined],
        ['undefined', true],
        ['undefined', true],
      ],
    )
    for (const offset of [1, 2]) assert.equal((await driver.job(driver.id('q', offset))).result, results[offset])
  })

  test('an error of any text fits: a callback without a result is never larger than the room that was kept', async () => {
    const driver = await openDriver()
    await driver.queue('q'.repeat(128))
    const url = `https://receiver.example/${'a'.repeat(2_048 - 25)}`
    await driver.add('q'.repeat(128), { callbackUrl: url })
    const before = (await driver.stats(CALLBACKS_QUEUE)).depth.bytes
    await driver.settle((await driver.lease('q'.repeat(128))) as Held, { kind: 'dead', error: '\u0001'.repeat(4_000) })
    const { depth } = await driver.stats(CALLBACKS_QUEUE)
    assert.ok(depth.bytes <= before, `${depth.bytes} of ${before}`)
    assert.match(String((await takeCallbacks(driver)).callbacks[0]?.body.data.error), /…$/)
  })

  test('on a full disk a job ends all the same, and its callback is stored when there is room again', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', { callbackUrl: URL })
    const held = (await driver.lease('q')) as Held
    driver.medium.full = true
    assert.equal((await driver.settle(held, { kind: 'done', result: '1' })).status, 'settled')
    assert.equal(driver.restores, 1)
    assert.equal((await driver.job(driver.id('q', 0))).status, 'completed')
    assert.equal((await takeCallbacks(driver)).callbacks.length, 0)
    await driver.restart()
    assert.equal(await promised(driver), 1)
    driver.medium.full = false
    await driver.advance(5_000)
    const { callbacks } = await takeCallbacks(driver)
    assert.deepEqual(
      callbacks.map(({ body }) => [body.type, body.data.result]),
      [['job.completed', 1]],
    )
  })

  test('a job that is added twice under one idempotency key is called back once', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    for (let i = 0; i < 2; i++) await driver.add('q', { callbackUrl: URL, idempotencyKey: 'k' })
    assert.equal(await promised(driver), 1)
    await driver.settle((await driver.lease('q', { max: 5 })) as Held)
    assert.equal((await takeCallbacks(driver)).callbacks.length, 1)
  })

  test('nobody appends to the queue of callbacks, or declares another name that begins as it does', async () => {
    const driver = await openDriver()
    await driver.queue(CALLBACKS_QUEUE)
    const forged = toAppend(CALLBACKS_QUEUE, [{ headers: { 'sluice-callback-url': URL } }])
    assert.deepEqual(await driver.ask('append', [forged]), [{ status: 'not-found' }])
    await driver.queue('q')
    await driver.add('q', {})
    const outputs = [toAppend(CALLBACKS_QUEUE, [{}])]
    const settled = await driver.settle((await driver.lease('q')) as Held, { kind: 'done' }, { outputs })
    assert.deepEqual(settled.status === 'settled' && settled.outputs, [{ status: 'not-found' }])
    assert.equal(await promised(driver), 0)
    assert.equal((await driver.queue('sluice.other')).status, 'conflict')
    const fresh = await openDriver()
    assert.equal((await fresh.topic(CALLBACKS_QUEUE)).status, 'conflict')
  })

  test('a worker that waits for callbacks gets one in the step that stored it, whichever queue is served first', async () => {
    const driver = await openDriver()
    await driver.queue(CALLBACKS_QUEUE)
    await driver.queue('q')
    await driver.add('q', { callbackUrl: URL, deadlineMs: START_MS + 10 })
    const sender = await driver.beginLease(CALLBACKS_QUEUE)
    driver.nowMs += 100
    await driver.step([
      driver.request('command', { kind: 'pause', topic: CALLBACKS_QUEUE, group: '' }),
      driver.request('command', { kind: 'resume', topic: CALLBACKS_QUEUE, group: '' }),
      driver.request('lease', { topic: 'q', group: '', max: 1, leaseMs: 1, waitMs: 0, holder: { kind: 'process' } }),
    ])
    assert.ok(driver.answered.has(sender))
  })
})
