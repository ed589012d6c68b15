/** Requests that two programs could read in two ways, byte by byte: none of them is served as anything. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sendRaw } from '../server-harness.ts'
import { startTarget } from './hostile-server.ts'

const JOB = 'POST /v1/queues/q/jobs'
const JSON_TYPE = 'Content-Type: application/json'
/** What would be a request of its own, if the body before it were read as shorter than it is. */
const HIDDEN = 'POST /v1/queues/hidden/jobs HTTP/1.1\r\nHost: localhost\r\n\r\n'

test('a body whose length can be read in two ways is refused, and nothing behind it is a request', async (t) => {
  const { port, head, unharmed } = await startTarget(t)
  const shapes: readonly (readonly [what: string, headers: readonly string[], body: string])[] = [
    ['length, then chunked', ['Content-Length: 6', 'Transfer-Encoding: chunked'], '0\r\n\r\n'],
    ['chunked, then length', ['Transfer-Encoding: chunked', 'Content-Length: 6'], '0\r\n\r\n'],
    ['two lengths alike', ['Content-Length: 1', 'Content-Length: 1'], '1'],
    ['two lengths', ['Content-Length: 1', 'Content-Length: 9'], '1'],
    ['a list of lengths', ['Content-Length: 1, 1'], '1'],
    ['a length with a sign', ['Content-Length: +1'], '1'],
    ['a negative length', ['Content-Length: -1'], '1'],
    ['a length in base 16', ['Content-Length: 0x1'], '1'],
    ['a length beyond numbers', ['Content-Length: 99999999999999999999999'], '1'],
    ['no length', ['Content-Length:'], '1'],
    ['a space before the colon', ['Content-Length : 1'], '1'],
    ['a space before the colon of chunked', ['Transfer-Encoding : chunked'], '0\r\n\r\n'],
    ['chunked twice', ['Transfer-Encoding: chunked', 'Transfer-Encoding: chunked'], '0\r\n\r\n'],
    ['identity', ['Transfer-Encoding: identity'], '1'],
    ['chunked, identity', ['Transfer-Encoding: chunked, identity'], '0\r\n\r\n'],
    ['gzip, chunked', ['Transfer-Encoding: gzip, chunked'], '1\r\n1\r\n0\r\n\r\n'],
    ['xchunked', ['Transfer-Encoding: xchunked'], '0\r\n\r\n'],
    ['chunked behind a vertical tab', ['Transfer-Encoding:\x0bchunked'], '0\r\n\r\n'],
    ['chunked on a folded line', ['Transfer-Encoding:', ' chunked'], '0\r\n\r\n'],
    ['a folded header', ['X-A: b', ' c', 'Content-Length: 1'], '1'],
    ['a bare line feed', ['X-A: b\nContent-Length: 1'], '1'],
    ['a bare carriage return', ['X-A: b\rContent-Length: 1'], '1'],
    ['a zero in a header', ['X-A: b\0c', 'Content-Length: 1'], '1'],
    ['a space in a name', ['X A: b', 'Content-Length: 1'], '1'],
    ['no colon', ['XA', 'Content-Length: 1'], '1'],
    ['a chunk size beyond numbers', ['Transfer-Encoding: chunked'], 'fffffffffffffffff\r\n1\r\n0\r\n\r\n'],
    ['a negative chunk size', ['Transfer-Encoding: chunked'], '-1\r\n1\r\n0\r\n\r\n'],
    ['a chunk size with a prefix', ['Transfer-Encoding: chunked'], '0x1\r\n1\r\n0\r\n\r\n'],
    ['chunks ended by line feeds', ['Transfer-Encoding: chunked'], '1\n1\n0\n\n'],
    ['a line feed in a chunk extension', ['Transfer-Encoding: chunked'], '1;a\nb\r\n1\r\n0\r\n\r\n'],
    ['a chunk extension without end', ['Transfer-Encoding: chunked'], `1;${'a'.repeat(20_000)}\r\n1\r\n0\r\n\r\n`],
    ['a chunk longer than its size', ['Transfer-Encoding: chunked'], '1\r\n1X\r\n0\r\n\r\n'],
  ]
  for (const [what, headers, body] of shapes) {
    const bytes = `${head(JOB, JSON_TYPE, 'Connection: close', ...headers)}\r\n${body}${HIDDEN}`
    const answer = await sendRaw(port, Buffer.from(bytes, 'latin1'))
    assert.match(answer, /^HTTP\/1\.1 400 [\s\S]*"code":"BAD_REQUEST"/, what)
    assert.equal(answer.split('HTTP/1.1 ').length, 2, `${what}: more than one answer`)
  }
  await unharmed(0)
})

test('a chunked body in HTTP/1.0, other versions, and requests of other protocols are refused', async (t) => {
  const { port, head, unharmed } = await startTarget(t)
  const chunked = `${head(JOB, JSON_TYPE, 'Transfer-Encoding: chunked')}\r\n1\r\n1\r\n0\r\n\r\n`
  for (const [what, bytes] of [
    ['1.0 and chunked', chunked.replace('HTTP/1.1', 'HTTP/1.0')],
    ['2.0', chunked.replace('HTTP/1.1', 'HTTP/2.0')],
    ['0.9', 'GET /v1/queues\r\n\r\n'],
    ['no version', 'GET /v1/queues HTTP\r\nHost: localhost\r\n\r\n'],
    ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
    ['a method in small letters', head('get /v1/queues').concat('\r\n')],
    ['a TLS greeting', Buffer.from('16030100a5010000a10303', 'hex').toString('latin1')],
    ['RESP', '*1\r\n$4\r\nPING\r\n'],
  ] as const) {
    const answer = await sendRaw(port, Buffer.from(bytes, 'latin1'), true)
    assert.match(answer, /^HTTP\/1\.1 400 /, what)
  }
  assert.equal(await sendRaw(port, `${head('CONNECT evil.example:80')}\r\n`), '')
  await unharmed(0)
})

test('a header that decides who calls or what comes must not come twice, nor behind thousands of others', async (t) => {
  const { port, admin, head, unharmed } = await startTarget(t)
  const end = ['Content-Length: 1', 'Connection: close']
  for (const header of [
    'Host: evil.example',
    'Host: localhost',
    'Authorization: Bearer x',
    `Authorization: ${admin.headers.authorization}`,
    'content-type: application/octet-stream',
  ]) {
    const answer = await sendRaw(port, `${head(JOB, JSON_TYPE, header, ...end)}\r\n1`)
    assert.match(answer, /^HTTP\/1\.1 400 [\s\S]*twice/, header)
  }
  for (const name of ['Origin', 'Sec-Fetch-Site', 'Idempotency-Key', 'Sluice-Key', 'Sluice-Delay-Ms', 'Cookie']) {
    const answer = await sendRaw(port, `${head(JOB, JSON_TYPE, `${name}: a`, `${name}: a`, ...end)}\r\n1`)
    assert.match(answer, /^HTTP\/1\.1 400 [\s\S]*twice/, name)
  }
  const many = (count: number) => Array.from({ length: count }, (_, i) => `a${i}:b`)
  for (const [count, status] of [
    [150, 400],
    [3_000, 431],
  ] as const) {
    const answer = await sendRaw(port, `${head(JOB, JSON_TYPE, ...end, ...many(count))}\r\n1`)
    assert.match(answer, new RegExp(`^HTTP/1\\.1 ${status} `), `${count} headers`)
  }
  await unharmed(0)
})

test('the host is that of Host alone, and trailers change nothing', async (t) => {
  const { port, head, unharmed } = await startTarget(t)
  for (const target of [
    'http://localhost/v1/queues',
    'http://evil.example/v1/queues',
    '*',
    'v1/queues',
    'evil.example:80',
  ]) {
    const answer = await sendRaw(port, `${head(`GET ${target}`, 'Connection: close')}\r\n`)
    assert.match(answer, /^HTTP\/1\.1 400 /, target)
  }
  const trailed = `${head(JOB, JSON_TYPE, 'Transfer-Encoding: chunked', 'Connection: close')}\r\n1\r\n1\r\n0\r\nAuthorization: x\r\nHost: evil\r\nSluice-Delay-Ms: 9\r\n\r\n`
  assert.match(await sendRaw(port, trailed), /^HTTP\/1\.1 202 [\s\S]*"status":"queued"/)
  await unharmed(1)
})

test('requests behind one another in one connection are each judged alone', async (t) => {
  const { port, head, unharmed } = await startTarget(t)
  const good = `${head(JOB, JSON_TYPE, 'Content-Length: 1')}\r\n1`
  const foreign = `${JOB} HTTP/1.1\r\nHost: localhost\r\n${JSON_TYPE}\r\nContent-Length: 1\r\nConnection: close\r\n\r\n1`
  const answer = await sendRaw(port, `${good}${good}${foreign}`)
  assert.deepEqual(
    [...answer.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status),
    ['202', '202', '401'],
  )
  await unharmed(2)
})

test('what is no request is answered behind those before it, so that no answer is taken for another', async (t) => {
  const { port, head, unharmed } = await startTarget(t)
  const good = `${head(JOB, JSON_TYPE, 'Content-Length: 1')}\r\n1`
  for (const junk of ['nonsense\r\n\r\n', `${head(JOB, JSON_TYPE, 'Transfer-Encoding: chunked')}\r\nzz\r\n`]) {
    const answer = await sendRaw(port, `${good}${good}${junk}`)
    const statuses = [...answer.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status)
    assert.deepEqual(statuses.slice(0, 2), ['202', '202'])
    assert.ok(statuses.length <= 3 && (statuses[2] ?? '400') === '400', answer)
  }
  await unharmed(4)
})

test('paths by another spelling reach nothing that the spelling without tricks would not', async (t) => {
  const { port, head, unharmed } = await startTarget(t)
  const paths = [
    '/v1/queues/a%2Fb',
    '/v1/queues/..%2f..%2fetc%2fpasswd',
    '/v1/queues/../../etc/passwd',
    '/v1/queues/..',
    '/v1/queues/.',
    '/v1/queues/%2e%2e/jobs',
    '/v1/queues/a%00b',
    '/v1/queues/%c0%af',
    '/v1/queues/%ff',
    '/v1/queues/%',
    '/v1/queues/%zz',
    '/v1/queues/a%0d%0aX-Injected:%201',
    '/v1/queues/%1b[31m',
    '/v1/queues/%E2%80%AEa',
    '/v1//queues',
    '//v1/queues',
    '/V1/queues',
    '/v1/queues;a=b',
    '/v1/queues/a;b',
    '/v1/queues/a\\b',
    '/v1/queues/__proto__',
    '/v1/jobs/..%2f..%2fkeys.json',
    '/keys.json',
    '/.git/config',
    '/dashboard.js/..%2f..%2fkeys.json',
    '/v1/engine/..%2fdeclare',
    `/v1/queues/${'a'.repeat(15_000)}`,
    `/${'a/'.repeat(7_000)}`,
    `/v1/queues/${'%61'.repeat(129)}`,
  ]
  for (const path of paths) {
    for (const method of ['GET', 'PUT', 'POST']) {
      const answer = await sendRaw(port, Buffer.from(`${head(`${method} ${path}`, 'Connection: close')}\r\n`, 'latin1'))
      assert.match(
        answer,
        /^HTTP\/1\.1 (?:400|404|405|414|415|431) /,
        `${method} ${path.slice(0, 60)}: ${answer.slice(0, 300)}`,
      )
      assert.doesNotMatch(answer, /^X-Injected/im)
    }
  }
  await unharmed(0)
})
