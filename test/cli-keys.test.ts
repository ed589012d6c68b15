import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { runCli, serveCli } from './cli-harness.ts'
import { call, temporaryFolder } from './server-harness.ts'
import { makeCertificate } from './support/certificate.ts'

test('a key is made, shown once, works in a server that runs, and is refused once it is revoked', async (t) => {
  const folder = join(await temporaryFolder(t), 'data')
  const create = ['keys', 'create', '--data', folder, '--scope', 'publish:q', '--scope', 'read:q', '--name', 'shop']
  const made = await runCli(t, [...create, '--json', '--expires-days', '30'])
  assert.equal(made.code, 0, made.stderr)
  const { id, key, scopes, expiresAtMs, createdAtMs } = JSON.parse(made.stdout)
  assert.match(key, /^sluice_[a-z0-9]{12}_[A-Za-z0-9_-]{43}$/)
  assert.deepEqual([scopes, expiresAtMs - createdAtMs], [['publish:q', 'read:q'], 30 * 86_400_000])
  assert.equal((await stat(folder)).mode & 0o777, 0o700)
  assert.ok(!(await readFile(join(folder, 'keys.json'), 'utf8')).includes(key.slice(20)))
  const { url } = await serveCli(t, folder)
  const headers = { authorization: `Bearer ${key}` }
  const add = () => call(url, 'POST', '/v1/queues/q/jobs', { body: 1, headers })
  assert.equal((await add()).status, 202)
  assert.equal((await call(url, 'POST', '/v1/queues/q/jobs', { body: 1 })).status, 401)
  const listed = await runCli(t, ['keys', 'list', '--data', folder])
  assert.match(listed.stdout, new RegExp(`${id}\\s+shop\\s+good .*publish:q read:q`))
  assert.ok(!listed.stdout.includes(key.slice(20)))
  // Pasted whole it is understood, too.
  const revoked = await runCli(t, ['keys', 'revoke', key, '--data', folder])
  assert.equal(revoked.code, 0, revoked.stderr)
  assert.ok(!revoked.stdout.includes(key.slice(20)))
  while ((await add()).status !== 401) {}
  assert.equal(JSON.parse((await runCli(t, ['keys', 'list', '--data', folder, '--json'])).stdout)[0].state, 'revoked')
})

test('for people the key stands alone on the first line, and the rest says what it may', async (t) => {
  const folder = await temporaryFolder(t)
  const { stdout } = await runCli(t, ['keys', 'create', '--data', folder, '--scope', 'admin'])
  const [first, , ...rest] = stdout.split('\n')
  assert.match(first ?? '', /^sluice_[a-z0-9]{12}_[A-Za-z0-9_-]{43}$/)
  assert.match(rest.join('\n'), /admin:\*[\s\S]*shown this once[\s\S]*from now on every call/)
})

test('with a broker there is no folder for keys and secrets: nothing is made, and the option for the file is named', async (t) => {
  const url = 'redis://app:hidden@127.0.0.1:1'
  for (const [args, option] of [
    [['keys', 'create', '--scope', 'admin', '--data', url], '--keys'],
    [['webhook-secret', '--data', url], '--file'],
  ] as const) {
    const { code, stderr } = await runCli(t, args)
    assert.equal(code, 2)
    assert.ok(stderr.includes(`${option} FILE`) && !stderr.includes('hidden'), stderr)
  }
  assert.equal(existsSync('redis:'), false)
})

test('what is wrong with a call of keys is said, with the nearest that is right', async (t) => {
  const folder = await temporaryFolder(t)
  for (const [args, message] of [
    [['keys'], /create, list or revoke/],
    [['keys', 'creat'], /Did you mean 'create'/],
    [['keys', 'create', '--data', folder], /--scope publish:orders/],
    [['keys', 'create', '--data', folder, '--scope', 'publsh:x'], /Did you mean 'publish'/],
    [['keys', 'create', '--data', folder, '--scope', 'read:a/b'], /pattern/],
    [['keys', 'create', '--data', folder, '--scope', 'read', '--name', 'a\u001b[31m'], /printable/],
    [['keys', 'create', '--data', folder, '--scope', 'read', '--expires-days', '0'], /whole number/],
    [['keys', 'revoke', '--data', folder], /id of one key/],
    [['keys', 'list', '--data', folder, '--keys', 'x'], /one of --data and --keys/],
  ] as const) {
    const { code, stderr } = await runCli(t, args)
    assert.deepEqual([code, message.test(stderr)], [2, true], `${args.join(' ')}: ${stderr}`)
  }
  const { code, stderr } = await runCli(t, ['keys', 'revoke', 'aaaaaaaaaaaa', '--data', folder])
  assert.deepEqual([code, /no such key/.test(stderr)], [1, true])
  assert.match((await runCli(t, ['keys', '--help'])).stdout, /--scope SCOPE[\s\S]*--expires-days/)
})

test('commands show the key of SLUICE_KEY, over https too, and never to another machine over http', async (t) => {
  const folder = await temporaryFolder(t)
  const tls = await makeCertificate(folder)
  const data = join(folder, 'data')
  const { key } = JSON.parse((await runCli(t, ['keys', 'create', '--data', data, '--scope', 'admin', '--json'])).stdout)
  const { url } = await serveCli(t, data, ['--host', '0.0.0.0', '--tls-cert', tls.cert, '--tls-key', tls.key])
  assert.match(url, /^https:/)
  const env = { NODE_EXTRA_CA_CERTS: tls.cert, SLUICE_KEY: key }
  const published = await runCli(t, ['publish', '--queue', 'q', '1', '--url', url], '', env)
  assert.equal(published.code, 0, published.stderr)
  assert.match((await runCli(t, ['queues', '--url', url], '', env)).stdout, /^q /m)
  const without = await runCli(t, ['queues', '--url', url], '', { NODE_EXTRA_CA_CERTS: tls.cert })
  assert.deepEqual([without.code, /UNAUTHENTICATED[\s\S]*SLUICE_KEY/.test(without.stderr)], [1, true])
  const plain = await runCli(t, ['queues', '--url', 'http://192.0.2.1:1'], '', env)
  assert.deepEqual([plain.code, /SLUICE_KEY would go over the network/.test(plain.stderr)], [2, true])
  const bad = await runCli(t, ['queues', '--url', url], '', { SLUICE_KEY: 'a b\nc' })
  assert.deepEqual([bad.code, /SLUICE_KEY is not a key/.test(bad.stderr), bad.stderr.includes('a b')], [2, true, false])
})

test('serve refuses an address that others reach without keys and TLS, and makes no folder for it', async (t) => {
  const folder = await temporaryFolder(t)
  const data = join(folder, 'data')
  for (const [args, message] of [
    [['--host', '0.0.0.0'], /not a key \(sluice keys create.* nor TLS \(--tls-cert/],
    [['--tls-cert', 'x'], /given together/],
    [['--tls-cert', join(folder, 'x'), '--tls-key', join(folder, 'y')], /cannot be read/],
    [['--keys', join(folder, 'none.json')], /not there. `sluice keys create --keys/],
  ] as const) {
    const { code, stderr } = await runCli(t, ['serve', '--port', '0', '--data', data, ...args])
    assert.ok(code !== 0 && message.test(stderr), `${args.join(' ')}: ${stderr}`)
  }
  await assert.rejects(stat(data), { code: 'ENOENT' })
})
