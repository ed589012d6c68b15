import assert from 'node:assert/strict'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { open, Unrecoverable } from '../src/index.ts'
import { runCli, startCli } from './cli-harness.ts'
import { startServer, temporaryFolder } from './server-harness.ts'

test('dead letters are listed, redriven by id or all, and discarded only when it is said which', async (t) => {
  const { url, sluice } = await startServer(t)
  const queue = sluice.queue<number>('q')
  const worker = queue.work(({ payload }) => {
    throw new Unrecoverable(`no\u0007 ${payload}`)
  })
  const jobs = await Promise.all([queue.add(1, { key: 'a' }), queue.add(2), queue.add(3)])
  await Promise.all(jobs.map((job) => job.result().catch(() => {})))
  await worker.close()
  const run = (...args: string[]) => runCli(t, ['jobs', ...args, '--url', url])
  const table = await run('dead', 'q')
  assert.match(table.stdout, /^ID +KEY +ATTEMPTS +DIED +ERROR\n/)
  assert.match(table.stdout, new RegExp(`^${jobs[0].id} +a +1 .*no\\\\u0007 1$`, 'm'))
  const failed = await run('wait', jobs[0].id)
  assert.equal(failed.code, 1)
  assert.match(failed.stderr, /JOB_FAILED/)
  assert.doesNotMatch(failed.stderr.replaceAll('\n', ''), /\p{Cc}/u)
  const listed = JSON.parse((await run('dead', 'q', '--json')).stdout)
  assert.deepEqual(
    listed.map(({ id, payload }: { id: string; payload: number }) => [id, payload]),
    jobs.map(({ id }, i) => [id, i + 1]),
  )
  assert.equal(JSON.parse((await run('dead', 'q', '--max', '2', '--json')).stdout).length, 2)
  const redriven = JSON.parse((await run('redrive', 'q', jobs[1].id, '--json')).stdout)
  assert.equal(redriven.count, 1)
  assert.equal((await (await queue.get(redriven.ids[0])).status()).redriveOf, jobs[1].id)
  const refused = await run('discard', 'q')
  assert.equal(refused.code, 2)
  assert.match(refused.stderr, /--all/)
  assert.match((await run('discard', 'q', jobs[0].id)).stdout, /^1 discarded/)
  assert.match((await run('discard', 'q', '--all')).stdout, /^1 discarded/)
  assert.match((await run('dead', 'q')).stdout, /No dead letters in 'q'/)
  assert.match((await run('dead', 'nosuch')).stderr, /QUEUE_NOT_FOUND/)
})

test('a queue is paused and resumed, and a job says why it waits', async (t) => {
  const { url, sluice } = await startServer(t)
  const queue = sluice.queue<number, number>('q')
  const job = await queue.add(1)
  const run = (...args: string[]) => runCli(t, ['jobs', ...args, '--url', url])
  assert.equal((await run('pause', 'q')).code, 0)
  const { stdout } = await run('explain', job.id)
  assert.equal(stdout, 'queued: The queue is paused. No worker asks for jobs of this queue. It is next.\n')
  const { waits } = JSON.parse((await run('explain', job.id, '--json')).stdout)
  assert.deepEqual(waits[0], { kind: 'paused' })
  assert.match((await run('get', job.id)).stdout, /^why +The queue is paused/m)
  assert.match((await runCli(t, ['queues', '--url', url])).stdout, /^q .* paused$/m)
  assert.equal((await run('resume', 'q')).code, 0)
  queue.work(({ payload }) => payload + 1)
  assert.equal((await run('wait', job.id)).stdout, '2\n')
  const late = await queue.add(2, { delayMs: 3_600_000 })
  const waited = await run('wait', late.id, '--wait-ms', '0')
  assert.equal(waited.code, 1)
  assert.match(waited.stderr, /DEADLINE/)
  assert.equal((await run('cancel', late.id)).stdout, `${late.id} is cancelled\n`)
  assert.match((await run('explain', 'nonsense')).stderr, /JOB_NOT_FOUND/)
})

test('groups are listed, moved to a place or a time, and forgotten', async (t) => {
  const { url, sluice } = await startServer(t)
  const topic = sluice.topic<number>('orders')
  const seen: number[] = []
  const worker = topic.subscribe('billing', ({ payload }) => void seen.push(payload), { from: 'earliest' })
  await worker.ready
  for (let n = 0; n < 3; n++) await topic.publish(n)
  while (seen.length < 3) await new Promise<void>((resolve) => setImmediate(resolve))
  await worker.close()
  const run = (...args: string[]) => runCli(t, ['groups', ...args, '--url', url])
  assert.match((await run()).stdout, /^orders +billing +0 +3 +3 /m)
  assert.equal(
    (await run('seek', 'orders', 'billing', '--from', '1')).stdout,
    "'billing' goes on from offset 1 of 'orders'.\n",
  )
  assert.equal(JSON.parse((await run('list', 'orders', '--json')).stdout)[0].depth, 2)
  assert.equal(JSON.parse((await run('seek', 'orders', 'billing', '--from', '2020-01-01', '--json')).stdout).floor, 0)
  assert.equal((await run('pause', 'orders', 'billing')).code, 0)
  assert.match((await run('list')).stdout, /paused$/m)
  assert.equal((await run('resume', 'orders', 'billing')).code, 0)
  for (const [args, said] of [
    [['seek', 'orders', 'billing'], /--from/],
    [['seek', 'orders', 'billing', '--from', 'soon'], /--from is 'soon'/],
    [['seek', 'orders'], /a topic and a group/],
    [['sek', 'orders', 'billing'], /'seek'/],
  ] as const) {
    const { code, stderr } = await run(...args)
    assert.equal(code, 2)
    assert.match(stderr, said)
  }
  assert.match((await run('seek', 'orders', 'nobody', '--from', '0')).stderr, /GROUP_NOT_FOUND/)
  assert.match((await run('seek', 'orders', 'billing', '--from', '99')).stderr, /OFFSET_OUT_OF_RANGE/)
  assert.equal((await run('forget', 'orders', 'billing')).code, 0)
  assert.match((await run('list')).stdout, /No groups yet/)
})

test('tail prints what there is from a place on, follows, and registers nobody', async (t) => {
  const { url, sluice } = await startServer(t)
  const topic = sluice.topic('said')
  await topic.publish({ n: 0 }, { key: 'k' })
  await topic.publish('\u001b[2Jgone\u202e')
  await topic.publish(new Uint8Array([0, 255]))
  const all = await runCli(t, ['tail', 'said', '--from', 'earliest', '--no-follow', '--url', url])
  assert.equal(all.code, 0)
  const lines = all.stdout.trimEnd().split('\n')
  assert.match(lines[0] as string, /^0 {2}20\d\d-.*Z {2}k {2}\{"n":0\}$/)
  assert.match(lines[1] as string, /gone/)
  assert.doesNotMatch(lines.join(''), /\p{Cc}|\u202e/u)
  assert.match(lines[2] as string, /base64:AP8=$/)
  const some = await runCli(t, ['tail', 'said', '--from', '1', '--limit', '1', '--json', '--url', url])
  assert.equal(JSON.parse(some.stdout).offset, 1)

  const child = startCli(t, ['tail', 'said', '--json', '--from', '2', '--url', url])
  const printed = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async () => JSON.parse((await printed.next()).value as string).offset
  assert.equal(await next(), 2)
  await topic.publish('more')
  assert.equal(await next(), 3)
  child.kill('SIGINT')
  const [code] = await once(child, 'close')
  assert.equal(code, 130)
  assert.deepEqual((await sluice.stats()).topics[0]?.groups, [])
  const missing = await runCli(t, ['tail', 'nosuch', '--url', url])
  assert.match(missing.stderr, /TOPIC_NOT_FOUND/)
  assert.equal((await sluice.stats()).topics.length, 1)
})

test('every command that looks or operates works on a folder as on a server', async (t) => {
  const folder = join(await temporaryFolder(t), 'data')
  const sluice = await open(folder)
  const job = await sluice.queue('q').add({ n: 1 })
  await sluice.topic('t').publish(1)
  await sluice.close()
  const run = (...args: string[]) => runCli(t, [...args, '--data', folder])
  assert.match((await run('queues')).stdout, /^q +1 /m)
  assert.match((await run('topics')).stdout, /^t +0 +1 /m)
  assert.match((await run('tail', '--queue', 'q', '--from', '0', '--no-follow')).stdout, /\{"n":1\}/)
  assert.match((await run('jobs', 'get', job.id)).stdout, /^status +queued$/m)
  assert.equal((await run('groups')).stdout, 'No groups yet.\n')
})
