/** The examples run, print what their pages say, and notice what they are there to notice. */
import { deepEqual, equal, match, ok } from 'node:assert/strict'
import { on } from 'node:events'
import { existsSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { checkRun } from '../examples/webhook-ingest/checks.ts'
import { Client } from '../examples/webhook-ingest/client.ts'
import type { Evidence, HandOut } from '../examples/webhook-ingest/consume.ts'
import { readExamples, repeat } from '../examples/webhook-ingest/deliveries.ts'
import { drawPoints } from '../examples/webhook-ingest/kills.ts'
import type { RunRecord } from '../examples/webhook-ingest/record.ts'
import { share } from '../examples/webhook-ingest/sender.ts'
import { findDifference } from '../scripts/readme.ts'
import { expectedOutput, runExample } from './examples-harness.ts'

test('webhook-ingest: deliveries survive three kills of the server, in order and once', async (t) => {
  const { status, output, errors } = await runExample(['--rounds', '3']).ended
  t.diagnostic(/seed \d+/.exec(output)?.[0] ?? errors)
  equal(status, 0, `${output}\n${errors}`)
  equal(findDifference(output, expectedOutput(3)), null)
  const folder = /data in (.+)/.exec(errors)?.[1] ?? ''
  ok(folder !== '' && !existsSync(folder), `the data folder ${folder} is left behind`)
})

test('webhook-ingest: Ctrl-C leaves nothing behind', async () => {
  const { child, ended } = runExample(['--rounds', '30', '--kills', '0'])
  for await (const [piece] of on(child.stderr, 'data', { close: ['end'] }))
    if (/accepted [1-9]/.test(String(piece))) break
  child.kill('SIGINT')
  const { status, errors } = await ended
  equal(status, 130, errors)
  const [, url = '', folder = ''] = /sluice serve on (\S+), data in (.+)/.exec(errors) ?? []
  ok(folder !== '' && !existsSync(folder), `the data folder ${folder} is left behind`)
  equal(await fetch(url).catch((error: Error & { cause?: { code?: string } }) => error.cause?.code), 'ECONNREFUSED')
})

test('webhook-ingest: a wrong option is named, and nothing starts', async () => {
  const { status, output, errors } = await runExample(['--rounds', '0']).ended
  equal(status, 2)
  equal(output, '')
  match(errors, /--rounds is '0'; it must be a whole number from 1 to 1000/)
})

test('webhook-ingest: a broker that it cannot start is named, and so is a location that is given twice', async () => {
  const unknown = await runExample(['--broker', 'nats']).ended
  deepEqual([unknown.status, unknown.output], [2, ''])
  match(unknown.errors, /--broker is 'nats'; it must be one of redis, rabbitmq, kafka/)
  const twice = await runExample(['--broker', 'redis', '--data', 'redis://127.0.0.1']).ended
  deepEqual([twice.status, twice.output], [2, ''])
  match(twice.errors, /one of --data and --broker/)
})

test('webhook-ingest: every payload of the package is sent, each round with ids of its own', () => {
  const { deliveries } = readExamples()
  equal(deliveries.length, 329)
  const sent = repeat(deliveries, 30)
  equal(sent.length, 9_870)
  equal(new Set(sent.map(({ id }) => id)).size, 9_870)
  const lanes = share(sent, 16)
  equal(lanes.length, 16)
  deepEqual(lanes.flat().length, 9_870)
  for (const lane of lanes) {
    for (const [key, own] of Map.groupBy(lane, (delivery) => delivery.key)) {
      deepEqual(
        own,
        sent.filter((delivery) => delivery.key === key),
      )
    }
  }
})

test('webhook-ingest: the kills are spread over the run, and the seed replays them', () => {
  const points = drawPoints(3, 300, () => 0.5)
  deepEqual(points, [100, 300, 500])
})

test('webhook-ingest: a sender that is told 503 comes again after Retry-After, not before', async () => {
  const cameAtMs: number[] = []
  const server = createServer((_request, response) => {
    cameAtMs.push(performance.now())
    response.writeHead(cameAtMs.length === 1 ? 503 : 202, { 'retry-after': '1' }).end('{}')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const client = new Client(`http://127.0.0.1:${port}`, new AbortController().signal)
  const answer = await client.askUntilAnswered('/', { body: {} })
  deepEqual(answer, { status: 202, body: {}, busy: 1, refused: 0, unknown: 0 })
  ok((cameAtMs[1] ?? 0) - (cameAtMs[0] ?? 0) >= 990)
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
})

// ---- the checks, with planted bugs

const LEASE_MS = 2_000

/** A run of two repositories with two deliveries each, in which nothing went wrong. */
function healthyRun() {
  const names = ['a1', 'b1', 'a2', 'b2']
  const sent = names.map((id) => ({ id, event: 'push', key: id.slice(0, 1), payload: '{}', digest: `digest of ${id}` }))
  const accepted = sent.map(({ id, key, digest }, i) => {
    const times = { sentAtMs: i * 10, tookMs: 5 }
    return { delivery: id, key, digest, job: `job ${i}`, duplicate: false, unknown: 0, busy: 0, ...times }
  })
  return {
    servers: 1,
    broker: null,
    leaseMs: LEASE_MS,
    sent,
    accepted,
    stored: {
      jobs: accepted.map(({ delivery, job }) => ({ delivery, id: job, status: 'completed', attempts: 1 })),
      topic: sent.map(({ id, key, digest }, offset) => ({
        offset,
        key,
        payload: { delivery: id, summary: '', digest },
      })),
      unsettled: 0,
      queueHead: 4,
    },
    workers: [handOuts(names, 'job '), handOuts([])],
    groups: { audit: handOuts(names), notify: handOuts(names), search: handOuts(names) },
    kills: [],
    lateAt: 2,
    tookMs: 1,
  } satisfies RunRecord
}

function handOuts(names: readonly string[], job = ''): Evidence {
  const given = names.map((delivery, i): HandOut => {
    const times = { askedAtMs: i * 10, cameAtMs: i * 10 + 1 }
    const key = delivery.slice(0, 1)
    return { offset: i, attempt: 1, fence: i + 1, key, delivery, job: job && `${job}${i}`, ...times, end: 'settled' }
  })
  return { handOuts: given, lostAnswers: [], settlesRepeated: 0 }
}

type Run = ReturnType<typeof healthyRun>

function first(evidence: Evidence): HandOut {
  return evidence.handOuts[0] as HandOut
}

/** Hands the first message out again, `afterMs` after it was first asked for, the first hand-out having ended so. */
function again(evidence: Evidence, end: HandOut['end'], attempt: number, afterMs: number): void {
  const atMs = first(evidence).askedAtMs + afterMs
  first(evidence).end = end
  evidence.handOuts.push({ ...first(evidence), attempt, fence: 9, askedAtMs: atMs, cameAtMs: atMs, end: 'settled' })
}

/** Swaps two events of one repository. */
function swap({ topic }: Run['stored']): void {
  const [one, other] = [topic[0]?.payload, topic[2]?.payload]
  Object.assign(topic[0] as object, { payload: other })
  Object.assign(topic[2] as object, { payload: one })
}

test('webhook-ingest: a run in which nothing went wrong keeps every promise', () => {
  deepEqual(brokenOf(healthyRun()), [])
})

test('webhook-ingest: what a kill explains breaks no promise', () => {
  const lost = healthyRun()
  // The answer to the first lease of a1 was lost: it came in its second attempt, and a2 waited for it.
  Object.assign(first(lost.groups.audit), { attempt: 2, fence: 7, askedAtMs: 4_000, cameAtMs: 4_001 })
  Object.assign(lost.groups.audit.handOuts[2] as HandOut, { fence: 8, askedAtMs: 4_002, cameAtMs: 4_003 })
  lost.groups.audit.lostAnswers.push(1_000)
  deepEqual(brokenOf(lost), [])

  const expired = healthyRun()
  expired.groups.audit.handOuts.splice(2)
  again(expired.groups.audit, 'unsure', 2, 2_100)
  for (const later of handOuts(['a1', 'b1', 'a2', 'b2']).handOuts.slice(2)) {
    expired.groups.audit.handOuts.push({ ...later, fence: later.fence + 10 })
  }
  deepEqual(brokenOf(expired), [])
})

test('webhook-ingest: only a kill explains a 202 that says duplicate to the first try, and only where servers share a broker', () => {
  // a1 was sent from 0 ms to 5 ms, b1 from 10 ms to 15 ms.
  const kills = [{ victim: 'the server', accepted: 1, done: 0, atMs: 12, downMs: 100 }]
  const marked = (at: number, servers: number) => {
    const run = { ...healthyRun(), servers, kills }
    Object.assign(run.accepted[at] ?? {}, { duplicate: true })
    return brokenOf(run)
  }
  deepEqual(marked(1, 2), [])
  deepEqual(marked(0, 2), ['P8'])
  deepEqual(marked(1, 1), ['P8'])
})

test('webhook-ingest: a server that says UNKNOWN is a call whose answer was lost', async () => {
  let asked = 0
  const server = createServer((_request, response) => {
    if (asked++ > 0) return response.writeHead(202).end('{}')
    return response.writeHead(500, { 'content-type': 'application/problem+json' }).end('{"code":"UNKNOWN"}')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const client = new Client(`http://127.0.0.1:${port}`, new AbortController().signal)
  const answer = await client.askUntilAnswered('/', { body: {} })
  deepEqual(answer, { status: 202, body: {}, busy: 0, refused: 0, unknown: 1 })
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
})

const PLANTED: Readonly<Record<string, Readonly<Record<string, (run: Run) => unknown>>>> = {
  'P1 P2': {
    'a job that is gone': ({ stored }) => Object.assign(stored.jobs[2] ?? {}, { status: 'lost' }),
    'a delivery that was never answered': ({ accepted }) => accepted.pop(),
  },
  P1: { 'a payload that changed': ({ stored }) => Object.assign(stored.topic[0]?.payload ?? {}, { digest: 'other' }) },
  P3: {
    'a hand-out after the settle': ({ groups }) => again(groups.audit, 'settled', 2, 5_000),
    'a hand-out within the lease': ({ groups }) => again(groups.audit, 'lost', 2, 500),
    'one attempt twice': ({ groups }) => again(groups.audit, 'lost', 1, 5_000),
    'an attempt that no lost answer explains': ({ groups }) => Object.assign(first(groups.audit), { attempt: 2 }),
    'an attempt too soon after the lost answer': ({ groups }) => {
      Object.assign(first(groups.audit), { attempt: 2 })
      groups.audit.lostAnswers.push(-100)
    },
    'a message that nobody settled': ({ groups }) => Object.assign(first(groups.audit), { end: 'lost' }),
    'an attempt that only the job knows of': ({ stored }) => Object.assign(stored.jobs[1] ?? {}, { attempts: 2 }),
  },
  P4: { 'two events of one repository the wrong way round': ({ stored }) => swap(stored) },
  'P4 P5': {
    'a lane that went back': ({ groups }) => Object.assign(first(groups.notify), { fence: 5 }),
    'two messages of one lane in one lease': ({ workers }) =>
      Object.assign(workers[0]?.handOuts[2] ?? {}, { fence: 1 }),
  },
  P6: {
    'a group that missed an event': ({ groups }) => groups.notify.handOuts.pop(),
    'a late group that did not begin at the start': ({ groups }) => groups.search.handOuts.shift(),
  },
  P8: {
    'a job stored twice': ({ stored }) => Object.assign(stored, { queueHead: 5 }),
    'one job for two deliveries': ({ accepted }) => Object.assign(accepted[1] ?? {}, { job: 'job 0' }),
    'a delivery that was there before it was sent': ({ accepted }) =>
      Object.assign(accepted[1] ?? {}, { duplicate: true }),
  },
  P9: {
    'a settle without its output': ({ stored }) => stored.topic.pop(),
    'an output twice': ({ stored }) => stored.topic.push(...stored.topic.slice(3)),
  },
  P10: {
    'a job that failed': ({ stored }) => Object.assign(stored.jobs[2] ?? {}, { status: 'failed' }),
    'an event that a group never settled': ({ stored }) => Object.assign(stored, { unsettled: 1 }),
  },
}

for (const [promise, bugs] of Object.entries(PLANTED)) {
  for (const [bug, plant] of Object.entries(bugs)) {
    test(`webhook-ingest: the checks find ${bug}`, () => {
      const run = healthyRun()
      plant(run)
      ok(brokenOf(run).includes(promise), `${promise} is not among ${brokenOf(run)}`)
    })
  }
}

function brokenOf(run: RunRecord): string[] {
  return checkRun(run)
    .filter(({ broken }) => broken.length > 0)
    .map(({ promise }) => promise)
}
