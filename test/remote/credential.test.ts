import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { inspect, promisify } from 'node:util'
import type { EngineStats } from '../../src/engine/contract.ts'
import { CALL_HEADER, decodeWire, encodeWire, WIRE_TYPE } from '../../src/engine/wire.ts'
import { isSluiceError, open } from '../../src/index.ts'
import { createServer } from '../../src/server/server.ts'
import { startServer, temporaryFolder } from '../server-harness.ts'
import { makeCertificate } from '../support/certificate.ts'
import { makeKey, revokeKey, type TestKey } from '../support/keys.ts'

async function startGuarded(t: TestContext, ...keys: (readonly string[])[]) {
  const path = join(await temporaryFolder(t), 'keys.json')
  const made: TestKey[] = []
  for (const scopes of keys) made.push(await makeKey(path, scopes))
  return { ...(await startServer(t, { keys: path })), path, keys: made as [TestKey, ...TestKey[]] }
}

test('with a credential the nouns work as far as its scopes go, and say which is missing', async (t) => {
  const { url, keys, sluice: local } = await startGuarded(t, ['publish:q', 'read:log'], ['consume:q', 'publish:out'])
  await using shop = await open(url, { credential: keys[0].text })
  await using mill = await open(url, { credential: keys[1]?.text })
  const job = await shop.queue<number, number>('q').add(20, { idempotencyKey: 'k' })
  const worker = mill.queue<number, number>('q').work(async (message, { publish }) => {
    await publish(mill.queue('out'), message.payload)
    return message.payload + 1
  })
  assert.equal(await job.result(), 21)
  await worker.close()
  assert.equal((await local.stats()).topics.find(({ name }) => name === 'out')?.depth.messages, 1)
  await assert.rejects(shop.queue('other').add(1), { code: 'FORBIDDEN', message: /'other'/ })
  await assert.rejects(mill.queue('q').add(1), { code: 'FORBIDDEN', message: /publish:q/ })
  await assert.rejects(shop.queue('q').pause(), { code: 'FORBIDDEN', message: /admin:q/ })
  assert.deepEqual(
    (await shop.stats()).topics.map(({ name }) => name),
    ['q'],
  )
})

test('a job of a queue that the credential does not see is as if it were not there', async (t) => {
  const { url, keys } = await startGuarded(t, ['admin:a'], ['admin:b'])
  await using one = await open(url, { credential: keys[0].text })
  await using two = await open(url, { credential: keys[1]?.text })
  const { id } = await one.queue('a').add(1)
  const { engine } = two
  assert.deepEqual(await engine.find([id, 'x']), [{ status: 'not-found' }, { status: 'not-found' }])
  assert.deepEqual(await engine.watch({ id, version: -1, untilTerminal: false, waitMs: 0 }), { status: 'not-found' })
  assert.deepEqual(await engine.command({ kind: 'cancel', id }), { status: 'not-found' })
  assert.equal((await one.engine.find([id]))[0]?.status, 'found')
})

test('a hold is of no use with another credential, and no number of a call gives the answer of another', async (t) => {
  const { url, keys } = await startGuarded(t, ['admin:q', 'admin:seen'], ['admin:q'])
  await using one = await open(url, { credential: keys[0].text })
  await using two = await open(url, { credential: keys[1]?.text })
  await one.queue('q').add(1)
  const holder = { kind: 'token', token: 'shared' } as const
  const leased = await one.engine.lease({ topic: 'q', group: '', max: 1, leaseMs: 60_000, waitMs: 0, holder })
  assert.ok(leased.status === 'leased')
  const { fence, offsets } = leased
  const hold = { topic: 'q', group: '', fence, offsets, token: 'shared' }
  const settle = { ...hold, outcome: { kind: 'done' } as const }
  const [stolen] = await two.engine.settle([settle])
  assert.deepEqual(stolen?.status === 'settled' && stolen.lost, [0])
  const kept = await two.engine.command({ kind: 'remember', hold, name: 'n', value: '1' })
  assert.equal(kept.status, 'lost')
  // The number of a call is no secret: what it was answered is.
  await one.queue('seen').add(1)
  const ask = async (key: TestKey | undefined) => {
    const headers = { ...key?.headers, 'content-type': WIRE_TYPE, [CALL_HEADER]: 'same-number' }
    const answer = await fetch(`${url}/v1/engine/stats`, { method: 'POST', headers, body: encodeWire(null) })
    const { topics } = decodeWire(new Uint8Array(await answer.arrayBuffer())) as EngineStats
    return topics.map(({ name }) => name)
  }
  assert.deepEqual([await ask(keys[0]), await ask(keys[1])], [['q', 'seen'], ['q']])
  const [settled] = await one.engine.settle([settle])
  assert.deepEqual(settled?.status === 'settled' && settled.lost, [])
})

test('no key, a wrong one and one that was revoked are UNAUTHENTICATED', async (t) => {
  const { url, keys, path } = await startGuarded(t, ['admin'])
  await assert.rejects(open(url), { code: 'UNAUTHENTICATED' })
  const other = await makeKey(join(await temporaryFolder(t), 'k'), ['admin'])
  await assert.rejects(open(url, { credential: other.text }), { code: 'UNAUTHENTICATED' })
  await using sluice = await open(url, { credential: keys[0].text })
  await sluice.queue('q').add(1)
  await revokeKey(path, keys[0].id)
  const refused = async () =>
    sluice.stats().then(
      () => false,
      (error: unknown) => isSluiceError(error, 'UNAUTHENTICATED'),
    )
  while (!(await refused())) {}
})

test('a credential is shown by no error, print or JSON, and goes over plain http to this machine only', async (t) => {
  const { url, keys } = await startGuarded(t, ['publish:q'])
  const credential = keys[0].text
  await using sluice = await open(url, { credential })
  const shown: unknown[] = [sluice, sluice.engine, sluice.queue('q'), sluice.engine.abilities]
  for (const attempt of [
    () => sluice.queue('other').add(1),
    () => open('http://192.0.2.1:1', { credential }),
    () => open('http://127.0.0.1:1', { credential }),
    () => open(url, { credential: `${credential} x` }),
    () => open('./data', { credential }),
    () => open(`http://user:${credential}@127.0.0.1:1`),
    () => open(url, { credential: { credential } as unknown as string }),
    () => open(url, { credentail: credential } as object),
  ])
    shown.push(
      await attempt().then(
        () => assert.fail('it must be refused'),
        (error: unknown) => error,
      ),
    )
  for (const value of shown) {
    const prints = [
      String(value),
      JSON.stringify(value) ?? '',
      inspect(value, { depth: 20, showHidden: true }),
      String((value as Error).stack),
    ]
    for (const text of prints) assert.ok(!text.includes(credential.slice(20)), text)
  }
  await assert.rejects(open('http://192.0.2.1:1', { credential }), { code: 'INVALID_OPTION', message: /not https/ })
})

test('over https the nouns work with a certificate that is trusted, and refuse one that is not', async (t) => {
  const folder = await temporaryFolder(t)
  const tls = await makeCertificate(folder)
  const path = join(folder, 'keys.json')
  const { text } = await makeKey(path, ['admin'])
  await using sluice = await open(':memory:')
  await using server = createServer(sluice, { port: 0, keys: path, tls })
  const url = await server.listen()
  await assert.rejects(
    open(url, { credential: text }),
    (error: Error) => /self-signed/.test(error.message) && !error.message.includes(text),
  )
  const script = `
    import { open } from '${fileURLToPath(new URL('../../src/index.ts', import.meta.url))}'
    await using sluice = await open(process.env.URL, { credential: process.env.SLUICE_KEY })
    sluice.queue('q').work(async (job) => job.payload * 2)
    console.log(await sluice.queue('q').call(21))`
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], {
    env: { ...process.env, NODE_EXTRA_CA_CERTS: tls.cert, SLUICE_KEY: text, URL: url },
  })
  assert.equal(stdout.trim(), '42')
})
