import { deepEqual, equal, match } from 'node:assert/strict'
import { test } from 'node:test'
import { createSluice } from '../src/sluice.ts'
import { FakeEngine } from './support/fake-engine.ts'
import { FakeHost, settled } from './support/fake-host.ts'

function openFake() {
  const engine = new FakeEngine()
  const host = new FakeHost()
  return { engine, host, sluice: createSluice(engine, { onError: () => {} }, { host, holder: 'process' }) }
}

function revokedProxy(): object {
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  return proxy
}

const BROKEN = new Error('broken')
const throws = (error: unknown) => (): never => {
  throw error
}
const CASES: readonly (readonly [what: string, handler: () => unknown, error: RegExp])[] = [
  [
    'returns an object whose then getter throws',
    () => Object.defineProperty({}, 'then', { get: throws(BROKEN) }),
    /broken/,
  ],
  // biome-ignore lint/suspicious/noThenProperty: that is what is tested
  ['returns an object whose then() throws', () => ({ then: throws(BROKEN) }), /broken/],
  ['returns a revoked Proxy', revokedProxy, /revoked/],
  ['throws a revoked Proxy', () => throws(revokedProxy())(), /Thrown: object/],
  ['rejects with a revoked Proxy', () => Promise.reject(revokedProxy()), /Thrown: object/],
  ['throws an object without a prototype', () => throws(Object.create(null))(), /Thrown: \{\}/],
]

for (const [what, handler, error] of CASES) {
  test(`a handler that ${what} is retried, and its worker goes on`, async () => {
    const { engine, sluice } = openFake()
    let runs = 0
    const worker = sluice.queue('q').work(() => (runs++ === 0 ? handler() : undefined))
    await worker.ready
    await settled()
    engine.give({ payload: '1' })
    await settled()
    engine.give({ payload: '2' })
    await settled()
    equal(runs, 2)
    const [first, second] = engine.settledRequests.flat().map(({ outcome }) => outcome)
    equal(first?.kind, 'retry')
    match(first?.kind === 'retry' ? first.error : '', error)
    deepEqual(second, { kind: 'done' })
    await worker.close()
  })
}

test('a schema that never answers for what a handler published ends with timeoutMs, and the place is free again', async () => {
  const { engine, host, sluice } = openFake()
  const validate = (): Promise<never> => new Promise(() => {})
  const target = sluice.topic('t', { schema: { '~standard': { version: 1, vendor: 'test', validate } } })
  const worker = sluice.queue('q').work(
    (_job, { publish }) => {
      void publish(target, 1)
    },
    { timeoutMs: 1_000 },
  )
  await worker.ready
  await settled()
  engine.give({ payload: '1' })
  await settled()
  equal(worker.running, 1)
  await host.advance(1_001)
  equal(worker.running, 0)
  const outcome = engine.settledRequests.flat()[0]?.outcome
  match(outcome?.kind === 'retry' ? outcome.error : '', /HANDLER_TIMEOUT|not ready within timeoutMs, 1000 ms/)
  await worker.close()
})
