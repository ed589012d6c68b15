import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { runCli } from './cli-harness.ts'
import { startServer } from './server-harness.ts'

test('without a command the commands are listed, and the exit code says that nothing was done', async (t) => {
  const { code, stdout } = await runCli(t, [])
  assert.equal(code, 2)
  for (const name of ['serve', 'publish', 'jobs', 'queues', 'topics'])
    assert.match(stdout, new RegExp(`sluice ${name}\\b`))
})

test('help is asked for in every way that people try, and names every option', async (t) => {
  for (const args of [['--help'], ['-h'], ['help']]) {
    const { code, stdout } = await runCli(t, args)
    assert.equal(code, 0)
    assert.match(stdout, /sluice serve/)
  }
  for (const [name, option] of [
    ['serve', '--behind-proxy'],
    ['publish', '--idempotency-key'],
    ['jobs', '--wait-ms'],
    ['queues', '--url'],
    ['topics', '--json'],
  ] as const) {
    const { code, stdout } = await runCli(t, [name, '--nonsense', '--help'])
    assert.equal(code, 0)
    assert.match(stdout, new RegExp(`${option}\\b`))
    assert.match(stdout, /Examples\n {2}sluice|Examples\n {2}jq/)
  }
  assert.match((await runCli(t, ['--version'])).stdout, /^\d+\.\d+\.\d+\n$/)
})

test('an unknown command or option is named, with the nearest one', async (t) => {
  for (const [args, said] of [
    [['sevre'], /'sevre' is not a command.*'serve'/],
    [['__proto__'], /not a command/],
    [['serve', '--prot', '1'], /--prot.*'--port'/],
    [['publish', 'x', '1', '--urls', 'y'], /--urls.*'--url'/],
    [['jobs', 'gett', 'x'], /'get'/],
    [['serve', '--port'], /port/],
    [['serve', '--port', '70000'], /--port is '70000'/],
    [['serve', '--durability', 'disc'], /--durability is 'disc'/],
    [['serve', 'now'], /'now'/],
    [['publish'], /Name a topic/],
    [['publish', 't', '1', '2'], /one word too many/],
    [['publish', 't', '1', '--priority', 'high'], /--queue/],
    [['publish', 't', '1', '--url', 'nonsense'], /--url is 'nonsense'/],
    [['jobs', 'get'], /id of one job/],
  ] as const) {
    const { code, stderr, stdout } = await runCli(t, args)
    assert.deepEqual([args, code, stdout], [args, 2, ''])
    assert.match(stderr, said)
  }
})

test('without a server the error says how to start one', async (t) => {
  const { url, server } = await startServer(t)
  await server.close()
  const { code, stderr } = await runCli(t, ['queues', '--url', url])
  assert.equal(code, 1)
  assert.match(stderr, /No server answers at http:\/\/127\.0\.0\.1:\d+.*sluice serve/)
})

test('a job is shown, waited for and cancelled by its id', async (t) => {
  const { url, call } = await startServer(t)
  const { json: job } = await call('POST', '/v1/queues/q/jobs', { body: 1 })
  const shown = await runCli(t, ['jobs', 'get', job.id, '--url', url])
  assert.equal(shown.code, 0)
  assert.match(shown.stdout, new RegExp(`^id +${job.id}$`, 'm'))
  assert.match(shown.stdout, /^status +queued$/m)
  assert.match(shown.stdout, /^createdAt +20\d\d-/m)
  const cancelled = await runCli(t, ['jobs', 'cancel', job.id, '--url', url, '--json'])
  assert.equal(JSON.parse(cancelled.stdout).status, 'cancelled')
  const waited = await runCli(t, ['jobs', 'get', job.id, '--url', url, '--wait-ms', '60000', '--json'])
  assert.equal(JSON.parse(waited.stdout).status, 'cancelled')
  const missing = await runCli(t, ['jobs', 'get', 'nonsense', '--url', url, '--json'])
  assert.equal(missing.code, 1)
  assert.equal(JSON.parse(missing.stderr).code, 'JOB_NOT_FOUND')
})

test('what a worker reports cannot act on the terminal', async (t) => {
  const { url, call } = await startServer(t)
  const { json: job } = await call('POST', '/v1/queues/q/jobs', { body: 1 })
  const { json } = await call('POST', '/v1/queues/q/leases', { body: {} })
  await call('POST', '/v1/leases:settle', {
    body: { items: [{ lease: json.leases[0].lease, outcome: 'dead', error: '\u001b[2Jgone\u0007' }] },
  })
  const { stdout } = await runCli(t, ['jobs', 'get', job.id, '--url', url])
  assert.match(stdout, /gone/)
  assert.doesNotMatch(stdout.replaceAll('\n', ''), /\p{Cc}/u)
})

test('queues and topics are listed as a table for people and as JSON for programs', async (t) => {
  const { url, call } = await startServer(t)
  assert.match((await runCli(t, ['queues', '--url', url])).stdout, /No queues yet/)
  for (let n = 0; n < 3; n++) await call('POST', '/v1/queues/email/jobs', { body: n })
  await call('POST', '/v1/topics/orders/messages', { body: 1 })
  await call('PUT', '/v1/topics/orders/groups/billing', { body: {} })
  const table = await runCli(t, ['queues', '--url', `${url}/`])
  assert.match(table.stdout, /^QUEUE +DEPTH/)
  assert.match(table.stdout, /^email +3 +100,000/m)
  const topics = await runCli(t, ['topics', '--url', url])
  assert.match(topics.stdout, /^orders .*billing: 1$/m)
  const { stdout } = await runCli(t, ['queues', '--url', url, '--json'])
  assert.equal(JSON.parse(stdout)[0].depth.messages, 3)
})

test('a Node that is too old is told so before anything else is loaded', () => {
  const main = fileURLToPath(new URL('../src/cli/main.ts', import.meta.url))
  // Whatever the command would load is refused, as it would be there.
  const old = `
    Object.defineProperty(process.versions, 'node', { value: '22.3.0' })
    const { registerHooks } = await import('node:module')
    registerHooks({ resolve: (name, context, next) => {
      if (name === 'node:sqlite' || name.endsWith('program.ts')) throw new Error('loaded ' + name)
      return next(name, context)
    } })`
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--import', `data:text/javascript,${encodeURIComponent(old)}`, main, 'serve'],
    { encoding: 'utf8' },
  )
  assert.deepEqual([status, stdout], [1, ''])
  assert.match(stderr, /^sluice: UNSUPPORTED: Sluice needs Node 24 or newer; this is 22\.3\.0\./)
})
