/** What must stay in: secrets out of logs, control characters out of their lines, tokens of others without effect. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { formatLogLine } from '../../src/cli/log-line.ts'
import { escapeControls } from '../../src/server/log-text.ts'
import { runCli, serveCli } from '../cli-harness.ts'
import { call, sendRaw, temporaryFolder } from '../server-harness.ts'
import { makeKey } from '../support/keys.ts'
import { startTarget } from './hostile-server.ts'

const NASTY = 'x\r\n2030-01-01 forged\u001b[2J\u0000\u007f\u009b31m\u2028\u202e'

test('what a failure says of others’ text is one line of the log, without controls', async (t) => {
  const { sluice, call: send, admin, log, unharmed } = await startTarget(t)
  t.mock.method(
    sluice.engine,
    'stats',
    async () => {
      throw new Error(NASTY)
    },
    { times: 1 },
  )
  const answer = await send('GET', '/v1/queues', { headers: { ...admin.headers, 'user-agent': 'a\u00e9', 'x-a': 'b' } })
  assert.equal(answer.status, 500)
  assert.equal(log.length, 1)
  assert.match(log[0] ?? '', /forged/)
  assert.equal((log[0] ?? '').trimEnd().split('\n').length, 1)
  const shown = formatLogLine(log[0] ?? '')
  const [first, ...frames] = shown.trimEnd().split('\n')
  assert.match(first ?? '', /a request failed: x\\u000d\\u000a2030-01-01 forged\\u001b\[2J/)
  for (const frame of frames) assert.match(frame, /^ {4}at /)
  await unharmed(0)
})

test('escaped text has no control in it, and is still JSON where it was', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there
      assert.doesNotMatch(escapeControls(text), /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/)
      assert.equal(JSON.parse(escapeControls(JSON.stringify(text))), text)
    }),
    { numRuns: 500 },
  )
})

test('no secret is in anything that a server says or logs over a whole run, be it right, wrong or stolen', async (t) => {
  const folder = await temporaryFolder(t)
  const path = join(folder, 'keys.json')
  const admin = await makeKey(path, ['admin'])
  const weak = await makeKey(path, ['read:none'])
  for (const isJson of [true, false]) {
    const served = await serveCli(t, folder)
    const { url, child } = served
    const said: string[] = []
    served.lines.on('line', (line) => said.push(line))
    const port = Number(new URL(url).port)
    const wrong = `${admin.text.slice(0, -4)}AAAA`
    const answers: string[] = []
    const ask = async (method: string, to: string, headers: Record<string, string>, body?: unknown) => {
      const answer = await call(url, method, to, { headers, ...(body === undefined ? {} : { body }) })
      answers.push(answer.text)
      return answer
    }
    for (const { headers } of [admin, weak, { headers: { authorization: `Bearer ${wrong}` } }]) {
      await ask('POST', '/v1/queues/q/jobs', headers, { a: 1 })
      await ask('POST', '/v1/queues/q/jobs', { ...headers, 'sluice-kye': 'x' }, 1)
      await ask('GET', '/v1/queues?nope=1', headers)
      await ask('GET', '/nowhere', headers)
      await ask('PATCH', '/v1/queues', headers)
      await ask('POST', '/v1/leases:settle', headers, { items: [{ lease: 'x', outcome: 'done' }] })
      await sendRaw(
        port,
        `GET /v1/queues HTTP/1.1\r\nHost: evil\r\nAuthorization: ${headers.authorization}\r\nConnection: close\r\n\r\n`,
      )
      await sendRaw(port, `GET /v1/queues HTTP/1.1\r\nAuthorization: ${headers.authorization}\r\nbroken header\r\n\r\n`)
    }
    const begun = await ask('POST', '/session', admin.headers)
    const cookie = (begun.headers.get('set-cookie') ?? '').split(';')[0] ?? ''
    await ask('GET', '/v1/queues', { cookie })
    const { lease } = (await ask('POST', '/v1/queues/q/leases', admin.headers, {})).json.leases[0]
    await ask('POST', '/v1/leases:settle', admin.headers, { items: [{ lease, outcome: 'done' }] })
    child.kill('SIGTERM')
    await new Promise((resolve) => child.once('close', resolve))
    const logged = said.join('\n') + served.stderr()
    for (const secret of [admin.text.slice(20), weak.text.slice(20), wrong.slice(20), cookie.slice(14), lease])
      assert.ok(!logged.includes(secret), `a secret in: ${logged}`)
    for (const secret of [admin.text.slice(20), weak.text.slice(20), cookie.slice(14)])
      for (const text of answers) assert.ok(!text.includes(secret), text)
    assert.match(logged, isJson ? /without a good key/ : /./)
  }
})

test('a command shows no key of its environment, whatever goes wrong', async (t) => {
  const folder = await temporaryFolder(t)
  const { text } = await makeKey(join(folder, 'other.json'), ['admin'])
  await makeKey(join(folder, 'keys.json'), ['admin'])
  const { url } = await serveCli(t, folder)
  for (const args of [
    ['queues', '--url', url],
    ['queues', '--url', url, '--json'],
    ['publish', '--queue', 'q', '1', '--url', url],
    ['jobs', 'get', 'x', '--url', url],
    ['queues', '--url', 'http://192.0.2.1:9'],
    ['queues', '--url', 'http://127.0.0.1:9'],
  ]) {
    const { code, stdout, stderr } = await runCli(t, args, '', { SLUICE_KEY: text })
    assert.notEqual(code, 0)
    assert.ok(!`${stdout}${stderr}`.includes(text.slice(20)), stderr)
  }
})

test('no lease that was changed, guessed or of another key settles anything', async (t) => {
  const { call: send, admin, keyFile, unharmed } = await startTarget(t)
  const other = await makeKey(keyFile, ['admin'])
  while ((await send('GET', '/session', { headers: other.headers })).status !== 200) {}
  await send('POST', '/v1/queues/q/jobs', { body: 1, headers: admin.headers })
  const { lease } = (await send('POST', '/v1/queues/q/leases', { body: {}, headers: admin.headers })).json.leases[0]
  const plain = Buffer.from(lease, 'base64url').toString('latin1')
  const fields = plain.split('|')
  const withField = (i: number, value: string) =>
    Buffer.from(fields.with(i, value).join('|'), 'latin1').toString('base64url')
  const forged = [
    ...fields.flatMap((field, i) =>
      ['', '0', `${field}0`, `${Number(field) + 1}`, '__proto__', '|', 'é']
        .filter((value) => value !== field)
        .map((value) => withField(i, value)),
    ),
    lease.slice(1),
    lease.slice(0, -3),
    plain,
    '',
    'x'.repeat(900),
  ]
  const settle = async (items: string[], headers: Record<string, string>) =>
    (
      await send('POST', '/v1/leases:settle', {
        body: { items: items.map((one) => ({ lease: one, outcome: 'dead' })) },
        headers,
      })
    ).json.outcomes
  for (const { outcome, problem } of await settle(forged, admin.headers)) {
    assert.equal(outcome, 'refused')
    assert.match(problem.code, /^(?:BAD_REQUEST|LEASE_LOST|INVALID_NAME)$/)
  }
  assert.equal((await settle([lease], other.headers))[0].problem.code, 'LEASE_LOST')
  assert.deepEqual(await settle([lease], admin.headers), [{ outcome: 'settled' }])
  await unharmed(1)
})
