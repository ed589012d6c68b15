import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import { Circuits } from '../../src/callbacks/circuits.ts'
import { generateSecret } from '../../src/callbacks/secrets.ts'
import { open } from '../../src/index.ts'
import { openReceiver } from '../support/receiver.ts'

const A = 'https://a.example'

/** Attempts that may be made at one time. */
function countEntered(circuits: Circuits, receiver: string, most = 50): number {
  let entered = 0
  while (entered < most && circuits.enter(receiver)) entered++
  return entered
}

describe('receivers that do not answer', () => {
  test('any number of attempts is made while the receiver answers, and after a few without an answer', () => {
    const circuits = new Circuits()
    for (let i = 0; i < 4; i++) {
      assert.ok(circuits.enter(A))
      circuits.leave(A, false)
    }
    assert.equal(countEntered(circuits, A), 50)
  })

  test('after five in a row without an answer two are made at a time, until one is answered', () => {
    const circuits = new Circuits()
    for (let i = 0; i < 5; i++) {
      circuits.enter(A)
      circuits.leave(A, false)
    }
    assert.equal(countEntered(circuits, A), 2)
    assert.equal(countEntered(circuits, 'https://b.example'), 50, 'another receiver is another matter')
    circuits.leave(A, false)
    assert.equal(countEntered(circuits, A), 1)
    circuits.leave(A, true)
    assert.equal(countEntered(circuits, A), 50)
  })

  test('an attempt that was not made says nothing, and what answers is not remembered', () => {
    const circuits = new Circuits()
    for (let i = 0; i < 20; i++) {
      circuits.enter(A)
      circuits.leave(A, null)
    }
    assert.equal(circuits.size, 0)
  })

  test('what is remembered is bounded, however many receivers are silent', () => {
    const circuits = new Circuits()
    for (let i = 0; i < 3_000; i++) {
      circuits.enter(`https://${i}.example`)
      circuits.leave(`https://${i}.example`, false)
    }
    assert.ok(circuits.size <= 1_000)
  })

  test('a backlog for a receiver that hangs is not tried one by one, and another receiver gets its own meanwhile', async (t) => {
    const hanging = await openReceiver(t, () => {})
    const healthy = await openReceiver(t)
    const secrets = [generateSecret()]
    const sluice = await open(':memory:', {
      callbacks: { secrets, allow: ['127.0.0.0/8'], concurrency: 4, timeoutMs: 200 },
    })
    t.after(() => sluice.close())
    const callbacks = sluice.queue('sluice.callbacks', { attempts: 1 })
    await callbacks.pause()
    const queue = sluice.queue('q')
    await queue.addMany(Array.from({ length: 60 }, (_, i) => ({ payload: i, callbackUrl: hanging.url })))
    await queue.add('last', { callbackUrl: healthy.url })
    queue.work(() => {}, { concurrency: 100 })
    await callbacks.resume()
    await healthy.waitFor(1)
    for (;;) {
      const { jobs } = await callbacks.dead({ limit: 100 })
      if (jobs.length === 60) {
        const untried = jobs.filter(({ error }) => /was not tried/.test(error)).length
        assert.ok(untried > 0)
        assert.ok(hanging.deliveries.length + untried <= 60, `${hanging.deliveries.length} tried, ${untried} not`)
        break
      }
      await new Promise((resolve) => setImmediate(resolve))
    }
  })
})
