import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import type { CommandOutcome } from '../../src/engine/contract.ts'
import { BatchView } from '../../src/message-batch.ts'
import { type Held, type LedgerDriver, openDriver, START_MS } from '../support/ledger-driver.ts'

/** Takes the next message and ends it for good. */
async function kill(driver: LedgerDriver, error = 'no good'): Promise<void> {
  await driver.settle((await driver.lease('q')) as Held, { kind: 'dead', error })
}

async function letters(driver: LedgerDriver, after?: string, max = 100) {
  const outcome = await driver.command({
    kind: 'dead',
    topic: 'q',
    group: '',
    max,
    ...(after === undefined ? {} : { after }),
  })
  assert.ok(outcome.status === 'dead-letters')
  return outcome
}

const redrive = (driver: LedgerDriver, ids?: readonly string[], max = 100): Promise<CommandOutcome> =>
  driver.command({ kind: 'redrive', topic: 'q', group: '', max, ...(ids === undefined ? {} : { ids }) })

describe('dead letters (P3, P4, P7)', () => {
  test('a message that is out of attempts becomes one, with its last error, and its key goes on', async () => {
    const driver = await openDriver()
    await driver.queue('q', { attempts: 3, backoff: { baseMs: 0 } })
    await driver.add('q', { key: 'a', payload: '"bad"' }, { key: 'a' })
    for (const error of ['one', 'two', 'three'])
      await driver.settle((await driver.lease('q')) as Held, { kind: 'retry', error })
    const [letter] = (await letters(driver)).letters
    assert.ok(letter)
    assert.deepEqual(
      [letter.id, letter.offset, letter.attempts, letter.error, letter.diedAtMs],
      [driver.id('q', 0), 0, 3, 'three', START_MS],
    )
    assert.equal(new BatchView(letter.batch).payloadText(0), '"bad"')
    assert.deepEqual((await driver.lease('q'))?.offsets, [1])
    const job = await driver.job(driver.id('q', 0))
    assert.deepEqual([job.status, job.attempts, job.error], ['failed', 3, 'three'])
  })

  test('they are listed oldest first, page by page, after a restart too', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', {}, {}, {}, {}, {})
    for (let i = 0; i < 5; i++) await kill(driver, `e${i}`)
    await driver.restart()
    const seen: string[] = []
    let next: string | null = null
    do {
      const page = await letters(driver, next ?? undefined, 2)
      seen.push(...page.letters.map(({ error }) => error))
      next = page.next
    } while (next !== null)
    assert.deepEqual(seen, ['e0', 'e1', 'e2', 'e3', 'e4'])
  })

  test('redrive makes new jobs that name the old ones, whose status stays', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', { payload: '"x"', key: 'a', headers: { h: 'v' }, priority: 0, deadlineMs: START_MS + 1_000 })
    await kill(driver)
    await driver.advance(5_000)
    const outcome = await redrive(driver)
    assert.deepEqual(outcome, { status: 'done', count: 1, ids: [driver.id('q', 1)] })
    const held = (await driver.lease('q')) as Held
    const view = new BatchView(held.batch)
    assert.deepEqual(
      [held.payloads, held.attempts, view.key(0), view.priority(0), view.headers(0)?.h],
      [['"x"'], [1], 'a', 0, 'v'],
    )
    assert.equal((await driver.job(driver.id('q', 1))).redriveOf, driver.id('q', 0))
    assert.equal((await driver.job(driver.id('q', 0))).status, 'failed')
    assert.deepEqual((await letters(driver)).letters, [])
    assert.equal((await driver.stats('q')).groups[0]?.dead, 0)
    assert.deepEqual(await redrive(driver), { status: 'done', count: 0, ids: [] })
  })

  test('redrive takes those of the ids, at most so many', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.add('q', {}, {}, {}, {})
    for (let i = 0; i < 4; i++) await kill(driver, `e${i}`)
    assert.equal(((await redrive(driver, [driver.id('q', 1), driver.id('q', 3)])) as { count: number }).count, 2)
    assert.equal(((await redrive(driver, undefined, 1)) as { count: number }).count, 1)
    assert.deepEqual(
      (await letters(driver)).letters.map(({ error }) => error),
      ['e2'],
    )
  })

  test('redrive does not mistake the id of another queue or folder for its own', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    await driver.queue('r')
    await driver.add('q', {})
    await kill(driver)
    const tag = driver.id('q', 0).split(':')[1]
    for (const id of [driver.id('r', 0), 'q:zzzzzz:0', `q:${tag}:`, `q:${tag}:x`, '0', '', `q:${tag}:1-0`]) {
      assert.deepEqual(await redrive(driver, [id]), { status: 'done', count: 0, ids: [] }, id)
    }
  })

  test('redrive finds a job that was delayed by the id it was given', async () => {
    const driver = await openDriver()
    await driver.queue('q')
    const [later] = await driver.add('q', { dueAtMs: START_MS + 10 })
    await driver.advance(10)
    await kill(driver)
    assert.equal(((await redrive(driver, [driver.scheduledId('q', later)])) as { count: number }).count, 1)
  })

  test('redrive never passes the limit', async () => {
    const driver = await openDriver()
    await driver.queue('q', { limit: { messages: 10 } })
    await driver.add('q', ...Array.from({ length: 10 }, () => ({})))
    for (let i = 0; i < 3; i++) await kill(driver)
    await driver.add('q', {}, {})
    assert.equal(((await redrive(driver)) as { count: number }).count, 1)
    assert.equal((await driver.stats('q')).depth.messages, 10)
    assert.equal((await redrive(driver)).status, 'full')
    assert.equal((await letters(driver)).letters.length, 2)
  })

  test('at their bound a dead letter becomes a blocked lane, until there is room again', async () => {
    const driver = await openDriver()
    await driver.queue('q', { deadLetters: 1 })
    await driver.add('q', { key: 'a' }, { key: 'b' }, { key: 'b' }, { key: 'c' })
    await kill(driver)
    await kill(driver)
    assert.deepEqual(
      [(await driver.job(driver.id('q', 0))).status, (await driver.job(driver.id('q', 1))).status],
      ['failed', 'blocked'],
    )
    const held = (await driver.lease('q', { max: 10 })) as Held
    assert.deepEqual(held.offsets, [3], 'other keys go on')
    const { groups, depth } = await driver.stats('q')
    assert.deepEqual([groups[0]?.dead, groups[0]?.blocked, depth.messages], [1, 1, 3])
  })
})

describe('blocked lanes (P4)', () => {
  const blocking = { attempts: 2, onExhausted: 'block', backoff: { baseMs: 0 } } as const

  test('where the queue says so, a message that is out of attempts holds its key until it is redriven', async () => {
    const driver = await openDriver()
    await driver.queue('q', blocking)
    await driver.add('q', { key: 'a' }, { key: 'a' }, { key: 'b' })
    for (let i = 0; i < 2; i++)
      await driver.settle((await driver.lease('q')) as Held, { kind: 'retry', error: `e${i}` })
    const job = await driver.job(driver.id('q', 0))
    assert.deepEqual([job.status, job.attempts, job.error], ['blocked', 2, 'e1'])
    await driver.settle((await driver.lease('q', { max: 10 })) as Held)
    await driver.advance(1_000_000)
    await driver.restart()
    assert.equal(await driver.lease('q'), undefined)
    assert.deepEqual(await redrive(driver), { status: 'done', count: 1, ids: [] })
    const again = (await driver.lease('q', { max: 10 })) as Held
    assert.deepEqual([again.offsets, again.attempts], [[0], [3]])
    await driver.settle(again)
    assert.deepEqual((await driver.lease('q', { max: 10 }))?.offsets, [1])
  })

  test('a redriven one has as many attempts again, and its version only rises', async () => {
    const driver = await openDriver()
    await driver.queue('q', blocking)
    await driver.add('q', {})
    const versions: number[] = []
    const note = async () => versions.push((await driver.job(driver.id('q', 0))).version)
    for (let round = 0; round < 2; round++) {
      for (let i = 0; i < 2; i++) {
        const held = (await driver.lease('q')) as Held
        await note()
        await driver.settle(held, { kind: 'retry', error: 'no' })
        await note()
      }
      assert.equal((await driver.job(driver.id('q', 0))).status, 'blocked')
      await redrive(driver)
      await note()
    }
    for (let i = 1; i < versions.length; i++)
      assert.ok((versions[i] as number) > (versions[i - 1] as number), `${versions}`)
  })

  test('one of another id stays blocked', async () => {
    const driver = await openDriver()
    await driver.queue('q', { ...blocking, attempts: 1 })
    await driver.add('q', {}, {})
    await kill(driver)
    await kill(driver)
    assert.deepEqual(await redrive(driver, [driver.id('q', 1)]), { status: 'done', count: 1, ids: [] })
    assert.deepEqual((await driver.lease('q', { max: 10 }))?.offsets, [1])
  })
})
