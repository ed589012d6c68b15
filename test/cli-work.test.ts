import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { startCli } from './cli-harness.ts'
import { startServer, temporaryFolder } from './server-harness.ts'

interface Told {
  readonly event?: string
  readonly id?: string
  readonly outcome?: string
  readonly error?: string
  readonly exitCode?: number
  readonly attempt?: number
  readonly done?: number
}

/** `sluice work` with the lines that it prints, once it works. */
async function startWork(t: TestContext, args: readonly string[]) {
  const child = startCli(t, ['work', ...args, '--json'])
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    stderr += chunk
  })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async (): Promise<Told> => {
    const { value, done } = await lines.next()
    assert.ok(done !== true, `sluice work goes on: ${stderr}`)
    return JSON.parse(value as string) as Told
  }
  assert.equal((await next()).event, 'working')
  return { child, next, stderr: () => stderr }
}

const until = async (condition: () => boolean | Promise<boolean>) => {
  while (!(await condition())) await delay(5)
}

test('a program gets the payload and what the job is, and what it prints is the result', async (t) => {
  const { url, sluice, call } = await startServer(t)
  const queue = sluice.queue<unknown, unknown>('q')
  const job = await queue.add({ n: 1 }, { key: 'ada', headers: { traceparent: '00-1', x: 'y' }, priority: 'high' })
  const script = `cat; printf ',"%s","%s","%s","%s"]' "$SLUICE_JOB_ID" "$SLUICE_JOB_ATTEMPT" "$SLUICE_JOB_KEY" "$SLUICE_JOB_PRIORITY"`
  const { child, next } = await startWork(t, ['q', '--url', url, '--exec', `printf '['; ${script}`, '--max-jobs', '1'])
  const told = await next()
  assert.deepEqual([told.id, told.outcome, told.exitCode], [job.id, 'done', 0])
  assert.deepEqual(await job.result(), [{ n: 1 }, job.id, '1', 'ada', 'high'])
  assert.deepEqual(await next(), { event: 'stopped', done: 1 })
  const [code] = await once(child, 'close')
  assert.equal(code, 0)
  assert.equal((await call('GET', `/v1/jobs/${job.id}`)).json.status, 'completed')
})

test('what it prints is the result as text where it is no JSON, and nothing is no result', async (t) => {
  const { url, sluice } = await startServer(t)
  const queue = sluice.queue<string, unknown>('q')
  const [words, nothing] = [await queue.add('say'), await queue.add('hush')]
  await startWork(t, ['q', '--url', url, '--exec', `grep -q say && echo 'so be it' || true`])
  assert.equal(await words.result(), 'so be it')
  assert.equal(await nothing.result(), undefined)
})

test('an exit code of 100 is dead at once, any other is tried again with what was said as the error', async (t) => {
  const { url, sluice } = await startServer(t)
  const queue = sluice.queue<number, unknown>('q', { backoff: { baseMs: 0 }, attempts: 3 })
  const job = await queue.add(1)
  const command = `echo "try $SLUICE_JOB_ATTEMPT fails" >&2; test "$SLUICE_JOB_ATTEMPT" -lt 2 && exit 7; exit 100`
  const { next, stderr } = await startWork(t, ['q', '--url', url, '--exec', command])
  const first = await next()
  assert.deepEqual([first.outcome, first.exitCode, first.error], ['failed', 7, 'Exit 7: try 1 fails'])
  const second = await next()
  assert.deepEqual([second.outcome, second.attempt], ['dead', 2])
  await assert.rejects(job.result(), { code: 'JOB_FAILED' })
  const [dead] = (await queue.dead()).jobs
  assert.match(dead?.error ?? '', /try 2 fails/)
  assert.match(stderr(), /try 1 fails\ntry 2 fails/)
})

test('a program that prints without end is ended, and its attempt has failed', async (t) => {
  const { url, sluice } = await startServer(t)
  const queue = sluice.queue<number, unknown>('q', { attempts: 1 })
  const job = await queue.add(1)
  const { next } = await startWork(t, ['q', '--url', url, '--exec', 'yes', '--max-result-bytes', '1000'])
  assert.match((await next()).error ?? '', /more than 1000 bytes/)
  await assert.rejects(job.result(), { code: 'JOB_FAILED' })
})

test('a program that ends without reading, or that cannot be run, harms nobody', async (t) => {
  const { url, sluice } = await startServer(t)
  const queue = sluice.queue<string, unknown>('q', { attempts: 1 })
  const big = await queue.add('x'.repeat(1_000_000))
  const { next } = await startWork(t, ['q', '--url', url, '--exec', 'exit 0'])
  assert.equal((await next()).outcome, 'done')
  assert.equal(await big.result(), undefined)
  const other = sluice.queue<number>('other', { attempts: 1 })
  await other.add(1)
  const missing = await startWork(t, ['other', '--url', url, '--exec', '/no/such/program'])
  assert.deepEqual((await missing.next()).exitCode, 127)
})

test('a program whose job is cancelled, or whose time is over, is ended with all that it started', async (t) => {
  const folder = await temporaryFolder(t)
  const { url, sluice } = await startServer(t)
  const pids = () =>
    existsSync(join(folder, 'pids')) ? readFileSync(join(folder, 'pids'), 'utf8').trim().split('\n') : []
  const isAlive = (pid: string) =>
    existsSync(`/proc/${pid}`) && !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'))
  // The shell waits for a child of its own, whose end is not told by the end of the shell.
  const command = `sleep 1000 & echo $! >> ${folder}/pids; wait`
  const queue = sluice.queue<number, unknown>('q', { attempts: 1 })
  const job = await queue.add(1)
  const { next } = await startWork(t, ['q', '--url', url, '--exec', command, '--lease-ms', '1000'])
  await until(() => pids().length === 1)
  await job.cancel()
  assert.equal((await next()).outcome, 'cancelled')
  await until(() => !isAlive(pids()[0] as string))

  const late = await sluice.queue<number>('late', { attempts: 1 }).add(1)
  const slow = await startWork(t, ['late', '--url', url, '--exec', command, '--timeout-ms', '200'])
  assert.equal((await slow.next()).outcome, 'timed out')
  await assert.rejects(late.result(), { code: 'JOB_FAILED' })
  await until(() => pids().length === 2 && !isAlive(pids()[1] as string))
})

test('Ctrl-C waits for what runs and takes nothing new', async (t) => {
  const folder = await temporaryFolder(t)
  const { url, sluice } = await startServer(t)
  const queue = sluice.queue<number, unknown>('q')
  const [first, second] = [await queue.add(1), await queue.add(2)]
  const command = `touch ${folder}/began; until test -e ${folder}/go; do sleep 0.02; done; echo done`
  const { child, next, stderr } = await startWork(t, ['q', '--url', url, '--exec', command])
  await until(() => existsSync(join(folder, 'began')))
  child.kill('SIGINT')
  await until(() => stderr().includes('waiting for what runs'))
  writeFileSync(join(folder, 'go'), '')
  assert.equal((await next()).outcome, 'done')
  const [code] = await once(child, 'close')
  assert.equal(code, 0)
  assert.equal(await first.result(), 'done')
  assert.equal((await second.status()).status, 'queued')
})

test('a second Ctrl-C gives back what runs, so that another worker has it at once, and its attempt does not count', async (t) => {
  const folder = await temporaryFolder(t)
  const { url, sluice } = await startServer(t)
  const queue = sluice.queue<number, string>('q', { attempts: 1 })
  const job = await queue.add(1)
  const { child, next, stderr } = await startWork(t, ['q', '--url', url, '--exec', `touch ${folder}/began; sleep 1000`])
  await until(() => existsSync(join(folder, 'began')))
  child.kill('SIGINT')
  await until(() => stderr().includes('waiting for what runs'))
  child.kill('SIGINT')
  assert.equal((await next()).outcome, 'released')
  const [code] = await once(child, 'close')
  assert.equal(code, 0)
  queue.work((_job, { attempt }) => `attempt ${attempt}`)
  assert.equal(await job.result(), 'attempt 2')
})

test('it works on a folder of its own, several at a time, and says what is wrong on the command line', async (t) => {
  const { open } = await import('../src/index.ts')
  const folder = join(await temporaryFolder(t), 'data')
  const sluice = await open(folder)
  for (let n = 0; n < 6; n++) await sluice.queue('q').add(n)
  await sluice.close()
  const { child, next } = await startWork(t, [
    'q',
    '--data',
    folder,
    '--exec',
    'cat',
    '--concurrency',
    '3',
    '--max-jobs',
    '6',
  ])
  for (let n = 0; n < 6; n++) assert.equal((await next()).outcome, 'done')
  await once(child, 'close')
  const { runCli } = await import('./cli-harness.ts')
  for (const [args, said] of [
    [['work', 'q'], /--exec/],
    [['work', '--exec', 'cat'], /Name one queue/],
    [['work', 'q', '--exec', 'cat', '--data', `${folder}x`], /not there/],
    [['work', 'q', '--exec', 'cat', '--concurrency', '0'], /--concurrency is '0'/],
  ] as const) {
    const { code, stderr } = await runCli(t, args)
    assert.equal(code, 2)
    assert.match(stderr, said)
  }
})
