/** The workers in other languages, as they are in examples/, on a real server: what succeeds, fails, is retried, takes long. */
import { deepEqual, equal, match, ok } from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createServer, request as sendRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { startServer } from './server-harness.ts'

const LEASE_MS = 6_000
const LONG_MS = 9_000
const LIMIT_MS = 120_000

interface Language {
  readonly name: string
  readonly needs: readonly string[]
  readonly command: string
  args(url: string, queue: string): string[]
  readonly env?: Readonly<Record<string, string>>
  readonly good: object
  readonly result: object
  readonly bad: object
  readonly badError: RegExp
  readonly long: object
}

const LANGUAGES: readonly Language[] = [
  {
    name: 'Python',
    needs: ['python3'],
    command: 'python3',
    args: (url, queue) => [at('worker-python/main.py'), url, queue, '--lease-ms', `${LEASE_MS}`],
    env: { PYTHONDONTWRITEBYTECODE: '1' },
    good: { numbers: [1, 2] },
    result: { sum: 3 },
    bad: { numbers: 'none' },
    badError: /numbers must be a list of numbers/,
    long: { numbers: [1, 2], takeMs: LONG_MS },
  },
  {
    name: 'Bash',
    needs: ['bash', 'curl'],
    command: 'bash',
    args: (url, queue) => [at('worker-bash/worker.sh'), url, queue, at('worker-bash/handler.sh')],
    env: { LEASE_MS: `${LEASE_MS}` },
    good: { name: 'Ada' },
    result: { greeting: 'Hello, Ada' },
    bad: { name: '"7"' },
    badError: /the payload needs a "name" of letters/,
    long: { name: 'Ada', takeS: LONG_MS / 1_000 },
  },
]

function at(path: string): string {
  return fileURLToPath(new URL(`../examples/${path}`, import.meta.url))
}

/** A tool that is missing is a skip on somebody's machine, and a failure where everything has to be proved. */
function isMissing(t: TestContext, tools: readonly string[]): boolean {
  const missing = tools.filter((tool) => spawnSync(tool, ['--version']).status !== 0)
  if (missing.length === 0) return false
  ok(process.env.CI !== 'true', `${missing.join(', ')} must be there with CI=true`)
  t.skip(`${missing.join(', ')} is not installed`)
  return true
}

interface Running {
  readonly child: ChildProcess
  readonly ended: Promise<number | null>
  output(): string
}

function start(t: TestContext, { command, args, env }: Language, url: string, queue: string): Running {
  const child = spawn(command, args(url, queue), { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (output += text))
  t.after(() => child.kill('SIGKILL'))
  return { child, ended: once(child, 'close').then(([code]) => code as number | null), output: () => output }
}

async function stop({ child, ended, output }: Running, signal: NodeJS.Signals): Promise<void> {
  child.kill(signal)
  equal(await ended, 0, output())
  match(output(), /stopped/)
}

for (const language of LANGUAGES) {
  const { name, needs, good, result, bad, badError, long } = language

  test(`${name}: jobs that succeed, fail, are retried and outlast their lease end as they should`, {
    timeout: LIMIT_MS,
  }, async (t) => {
    if (isMissing(t, needs)) return
    const { url, sluice, call } = await startServer(t)
    const queue = sluice.queue('w', { backoff: { baseMs: 0 }, attempts: 5 })
    const added = await queue.addMany([good, bad, { ...good, failures: 2 }, long].map((payload) => ({ payload })))
    const ids = added.map((job) => (job as { id: string }).id)
    const worker = start(t, language, url, 'w')
    const ends = []
    for (const id of ids) {
      let job = (await call('GET', `/v1/jobs/${id}?waitMs=60000`)).json
      while (!['completed', 'failed'].includes(job.status))
        job = (await call('GET', `/v1/jobs/${id}?waitMs=60000`)).json
      ends.push(job)
    }
    const [first, second, third, fourth] = ends
    deepEqual([first.status, first.result, first.attempts], ['completed', result, 1], worker.output())
    deepEqual([second.status, second.attempts], ['failed', 1], worker.output())
    match(second.error, badError)
    deepEqual([third.status, third.result, third.attempts], ['completed', result, 3], worker.output())
    deepEqual([fourth.status, fourth.result, fourth.attempts], ['completed', result, 1], 'the lease was kept')
    await stop(worker, 'SIGTERM')
  })

  test(`${name}: Ctrl-C finishes the job at hand, and gives up a wait at once`, { timeout: LIMIT_MS }, async (t) => {
    if (isMissing(t, needs)) return
    const { url, sluice, call } = await startServer(t)
    const queue = sluice.queue('w')
    const busy = start(t, language, url, 'w')
    const job = await queue.add({ ...long, takeMs: 1_500, takeS: 2 })
    while (!/^(?:took a job|job )/m.test(busy.output())) await call('GET', '/healthz')
    const next = await queue.add(good)
    await stop(busy, 'SIGINT')
    equal((await call('GET', `/v1/jobs/${job.id}`)).json.status, 'completed', busy.output())
    const nextJob = (await call('GET', `/v1/jobs/${next.id}`)).json
    ok(['queued', 'completed'].includes(nextJob.status), `${nextJob.status}: what was taken is settled`)
    const idle = start(t, language, url, 'nothing')
    const asking = async () =>
      (await sluice.stats()).topics.find((topic) => topic.name === 'nothing')?.groups[0]?.asking ?? 0
    // A look at the server lets the event loop go round, which a look at the engine in memory does not.
    while ((await asking()) === 0) await call('GET', '/healthz')
    const beganMs = performance.now()
    await stop(idle, 'SIGINT')
    ok(performance.now() - beganMs < 15_000, 'a wait of 20 s was not waited for')
  })

  test(`${name}: 503 is asked again after Retry-After, and a server that is away is waited for`, {
    timeout: LIMIT_MS,
  }, async (t) => {
    if (isMissing(t, needs)) return
    const { port, sluice } = await startServer(t)
    const calledAtMs: number[] = []
    const front = createServer((incoming, outgoing) => {
      if (incoming.url?.endsWith('/leases')) calledAtMs.push(performance.now())
      if (calledAtMs.length === 1) incoming.socket.destroy()
      else if (calledAtMs.length === 2) {
        const problem = {
          type: 'urn:sluice:error:OVERLOADED',
          title: '',
          status: 503,
          code: 'OVERLOADED',
          detail: 'busy',
        }
        outgoing
          .writeHead(503, { 'retry-after': '2', 'content-type': 'application/problem+json' })
          .end(JSON.stringify(problem))
      } else {
        const { method, url: path, headers } = incoming
        const onward = sendRequest({ port, host: '127.0.0.1', method, path, headers }, (answer) => {
          outgoing.writeHead(answer.statusCode ?? 0, answer.headers)
          answer.pipe(outgoing)
        })
        onward.on('error', () => outgoing.destroy())
        outgoing.on('close', () => onward.destroy())
        incoming.pipe(onward)
      }
    })
    await new Promise<void>((resolve) => front.listen(0, '127.0.0.1', resolve))
    t.after(async () => {
      front.closeAllConnections()
      await new Promise((resolve) => front.close(resolve))
    })
    const worker = start(t, language, `http://127.0.0.1:${(front.address() as AddressInfo).port}`, 'w')
    const job = await sluice.queue<object, object>('w').add(good)
    deepEqual(await job.result({ timeoutMs: 60_000 }), result, worker.output())
    ok((calledAtMs[2] ?? 0) - (calledAtMs[1] ?? 0) >= 1_990, `asked again after ${calledAtMs.map(Math.round)}`)
    await stop(worker, 'SIGTERM')
  })

  test(`${name}: what is refused for good ends the worker with 1 and says why`, { timeout: LIMIT_MS }, async (t) => {
    if (isMissing(t, needs)) return
    const { url } = await startServer(t)
    const worker = start(t, language, url, 'not:a:name')
    equal(await worker.ended, 1, worker.output())
    match(worker.output(), /INVALID_NAME/)
  })
}
