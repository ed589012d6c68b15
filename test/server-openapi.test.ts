/** The OpenAPI document: valid, complete, and the one thing that says what a request may have. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { Validator } from '@seriousme/openapi-schema-validator'
import { ERRORS, type ErrorCode } from '../src/errors.ts'
import { startServer } from './server-harness.ts'
import { AnswerChecks, type Document } from './support/answer-checks.ts'

test('the document is valid OpenAPI 3.1', async (t) => {
  const { call } = await startServer(t)
  const { status, headers, json } = await call('GET', '/openapi.json')
  assert.equal(status, 200)
  assert.match(headers.get('content-type') ?? '', /^application\/vnd\.oai\.openapi\+json; version=3\.1/)
  assert.match(json.openapi, /^3\.1\.\d$/)
  const validator = new Validator()
  const { valid, errors } = await validator.validate(json)
  assert.ok(valid, JSON.stringify(errors))
  assert.equal(validator.version, '3.1')
  assert.equal(json.info.version, JSON.parse(readFileSync('package.json', 'utf8')).version)
})

test('every operation has an id of its own, its path parameters, an answer and its errors as problem documents', async (t) => {
  const { call } = await startServer(t)
  const document = (await call('GET', '/openapi.json')).json as Document
  const ids = new Set<string>()
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const [method, { operationId, parameters = [], responses }] of Object.entries(methods)) {
      const what = `${method} ${path}`
      assert.ok(!ids.has(operationId), what)
      ids.add(operationId)
      const inPath = parameters.filter((one) => one.in === 'path').map(({ name }) => name)
      assert.deepEqual(
        inPath,
        [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name),
        what,
      )
      assert.ok(
        Object.keys(responses).some((status) => status.startsWith('2')),
        what,
      )
      for (const status of [400, 403, 408, 431, 500, 503])
        assert.ok(responses[status] !== undefined, `${what} ${status}`)
      for (const [status, { content = {}, headers }] of Object.entries(responses)) {
        if (Number(status) < 400) continue
        const schema = content['application/problem+json']?.schema as {
          properties: { code: { enum: ErrorCode[] } }
        }
        assert.ok(schema.properties.code.enum.length > 0, `${what} ${status}`)
        const isFiner = status === '408' || status === '431'
        for (const code of schema.properties.code.enum)
          assert.equal(isFiner ? Number(status) : ERRORS[code].status, Number(status), `${what} ${code}`)
        if (status === '503') assert.ok(headers !== undefined && 'Retry-After' in headers, what)
      }
    }
  }
})

test('every code that can leave the server stands in the document of some route', async (t) => {
  const { call } = await startServer(t)
  const { text } = await call('GET', '/openapi.json')
  // These never answer a request: they belong to opening a folder, to waits in process, or to no route at all.
  const elsewhere = new Set<ErrorCode>([
    'NOT_FOUND',
    'METHOD_NOT_ALLOWED',
    'LEASE_LOST',
    'DEADLINE',
    'JOB_FAILED',
    'JOB_CANCELLED',
    'JOB_EXPIRED',
    'HANDLER_TIMEOUT',
    'LOCKED',
    'READ_ONLY',
    'FORMAT_NEWER',
    'FOREIGN_DATA',
  ])
  for (const code of Object.keys(ERRORS) as ErrorCode[])
    if (!elsewhere.has(code)) assert.ok(text.includes(`\`${code}\``), code)
})

test('each documented call is one that the server takes, and each call of the page is documented', async (t) => {
  const { call } = await startServer(t)
  const document = (await call('GET', '/openapi.json')).json as Document
  const documented = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  )
  for (const one of documented) {
    const [method = '', path = ''] = one.split(' ')
    if (path.startsWith('/v1/engine/')) continue
    const { status, text } = await call(method, path.replaceAll(/\{\w+\}/g, 'x'), {
      headers: { accept: 'application/json' },
    })
    assert.ok(status !== 405 && !text.includes('"code":"NOT_FOUND"'), `${one} ${status} ${text.slice(0, 200)}`)
  }
  const page = readFileSync('docs/http.md', 'utf8')
  const table = page.slice(page.indexOf('<!-- generated: routes -->'), page.indexOf('<!-- end of routes -->'))
  const listed = [...table.matchAll(/^\| `([A-Z]+ [^`]+)` \|/gm)].map(([, one]) => one)
  assert.deepEqual(listed.sort(), documented.sort())
  for (const [, one = ''] of page.matchAll(/`((?:GET|PUT|POST|PATCH|DELETE) \/[^`\s]*)`/g))
    assert.ok(documented.includes(one), `docs/http.md names ${one}, which is no call`)
})

test('a parameter of a query that there is not is refused on every route', async (t) => {
  const { call } = await startServer(t)
  const document = (await call('GET', '/openapi.json')).json as Document
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const method of Object.keys(methods)) {
      const { status, json } = await call(method.toUpperCase(), `${path.replaceAll(/\{\w+\}/g, 'x')}?nonsense=1`)
      assert.deepEqual([path, status, json.code], [path, 400, 'INVALID_OPTION'])
    }
  }
})

test('the checks of answers notice what is not documented', async (t) => {
  const { url, call } = await startServer(t)
  const { text: source } = await call('GET', '/openapi.json')
  const checks = new AnswerChecks(JSON.parse(source) as Document)
  const health = { method: 'GET', path: '/healthz', status: 200, type: 'application/json', text: '{"status":"ok"}' }
  checks.check(health)
  const problem = { type: 'urn:sluice:error:JOB_NOT_FOUND', title: '', status: 404, code: 'JOB_NOT_FOUND', detail: '' }
  const missing = { method: 'GET', path: '/v1/jobs/x', status: 404, type: 'application/problem+json' }
  checks.check({ ...missing, text: JSON.stringify(problem) })
  for (const wrong of [
    { ...health, status: 201 },
    { ...health, type: 'text/plain' },
    { ...health, text: '{"status":"ok","more":1}' },
    { ...health, path: '/nothing' },
    { ...missing, text: JSON.stringify({ ...problem, code: 'QUEUE_NOT_FOUND' }) },
    { ...missing, text: JSON.stringify({ ...problem, code: 'NO_CODE' }) },
    { ...missing, type: 'application/json', text: JSON.stringify(problem) },
    { ...missing, status: 500, text: JSON.stringify({ ...problem, status: 500 }) },
  ])
    assert.throws(() => checks.check(wrong), assert.AssertionError, `${url} ${JSON.stringify(wrong)}`)
})
