import assert from 'node:assert/strict'
import { copyFile, readFile, writeFile } from 'node:fs/promises'
import { type RequestOptions, request } from 'node:https'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { connect, type PeerCertificate } from 'node:tls'
import { open } from '../../src/index.ts'
import { createServer } from '../../src/server/server.ts'
import type { ServerOptions } from '../../src/server/settings.ts'
import { sendRaw, temporaryFolder } from '../server-harness.ts'
import { makeCertificate } from '../support/certificate.ts'
import { makeKey } from '../support/keys.ts'

function get(port: number, options: RequestOptions): Promise<{ status: number; subject: string }> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, agent: false, ...options }, (answer) => {
      const { subject } = (answer.socket as unknown as { getPeerCertificate(): PeerCertificate }).getPeerCertificate()
      answer.resume().on('end', () => resolve({ status: answer.statusCode ?? 0, subject: `${subject.CN}` }))
    })
    sent.on('error', reject).end()
  })
}

async function startTls(t: TestContext, options: ServerOptions): Promise<{ url: string; port: number }> {
  const sluice = await open(':memory:')
  const server = createServer(sluice, { port: 0, ...options })
  t.after(async () => {
    await server.close()
    await sluice.close()
  })
  const url = await server.listen()
  return { url, port: Number(new URL(url).port) }
}

test('with a certificate the server speaks https, and nothing over plain http', async (t) => {
  const folder = await temporaryFolder(t)
  const tls = await makeCertificate(folder)
  const { url, port } = await startTls(t, { tls })
  assert.match(url, /^https:\/\/127\.0\.0\.1:\d+$/)
  const ca = await readFile(tls.cert)
  assert.equal((await get(port, { ca, path: '/healthz' })).status, 200)
  await assert.rejects(get(port, { path: '/healthz' }), { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' })
  await assert.rejects(get(port, { ca, path: '/healthz', maxVersion: 'TLSv1.1', minVersion: 'TLSv1' }))
  const plain = await sendRaw(port, 'GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n')
  assert.doesNotMatch(plain, /200 OK|"status"/)
  assert.equal((await get(port, { ca, path: '/healthz' })).status, 200)
})

test('an address that other machines reach needs a key that is good and TLS; each that is missing is named', async (t) => {
  const folder = await temporaryFolder(t)
  const tls = await makeCertificate(folder)
  const keys = join(folder, 'keys.json')
  await using sluice = await open(':memory:')
  const start = (options: object) => () => createServer(sluice, { host: '0.0.0.0', port: 0, ...options })
  assert.throws(start({}), { code: 'INVALID_OPTION', message: /a key.* nor TLS/ })
  assert.throws(start({ keys }), { code: 'INVALID_OPTION', message: /has not a key.* nor TLS/ })
  assert.throws(start({ keys, tls }), { code: 'INVALID_OPTION', message: /has not a key \(/ })
  await makeKey(keys, ['admin'], { expiresAtMs: 1 })
  assert.throws(start({ keys, tls }), { code: 'INVALID_OPTION', message: /has not a key \(/ })
  const { headers } = await makeKey(keys, ['admin'])
  assert.throws(start({ keys }), { code: 'INVALID_OPTION', message: /has not TLS/ })
  start({ behindProxy: true })()
  await using server = start({ keys, tls })()
  const port = Number(new URL(await server.listen()).port)
  const ca = await readFile(tls.cert)
  assert.equal((await get(port, { ca, path: '/v1/queues', headers })).status, 200)
  assert.equal((await get(port, { ca, path: '/v1/queues' })).status, 401)
})

test('a certificate that is missing, broken or of another key is refused before anything listens', async (t) => {
  const folder = await temporaryFolder(t)
  const one = await makeCertificate(folder, 'one')
  const two = await makeCertificate(folder, 'two')
  const broken = join(folder, 'broken')
  await writeFile(broken, 'x')
  await using sluice = await open(':memory:')
  for (const [tls, message] of [
    [{ cert: join(folder, 'none'), key: one.key }, /none'.*ENOENT/],
    [{ cert: broken, key: one.key }, /cannot be used/],
    [{ cert: one.cert, key: two.key }, /belong together/],
    [{ cert: one.cert }, /tls\.key is missing/],
  ] as const)
    assert.throws(() => createServer(sluice, { tls: tls as typeof one }), { code: 'INVALID_OPTION', message })
})

test('a certificate that is renewed is shown without a restart, once its key is there too', async (t) => {
  const folder = await temporaryFolder(t)
  const tls = await makeCertificate(folder, 'old')
  const renewed = await makeCertificate(folder, 'new')
  const { port } = await startTls(t, { tls })
  const show = async () => (await get(port, { rejectUnauthorized: false, path: '/healthz' })).subject
  assert.equal(await show(), 'old')
  await copyFile(renewed.cert, tls.cert)
  assert.equal(await show(), 'old')
  await copyFile(renewed.key, tls.key)
  while ((await show()) !== 'new') {}
})

test('a connection that never finishes its handshake is cut, and others are served meanwhile', async (t) => {
  const folder = await temporaryFolder(t)
  const tls = await makeCertificate(folder)
  const { port } = await startTls(t, { tls, requestTimeoutMs: 300 })
  const ca = await readFile(tls.cert)
  const half = sendRaw(port, Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00]))
  const silent = new Promise((resolve) =>
    connect({ port, host: '127.0.0.1', ca })
      .resume()
      .on('error', () => {})
      .on('close', resolve),
  )
  assert.equal((await get(port, { ca, path: '/healthz' })).status, 200)
  assert.equal(await half, '')
  await silent
})
