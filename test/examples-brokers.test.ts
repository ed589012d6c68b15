/** The example of the core on each broker: by its URL alone, with the broker killed in the middle. */
import { equal, match, ok } from 'node:assert/strict'
import { on } from 'node:events'
import { test } from 'node:test'
import { isListening } from '../scripts/brokers/broker.ts'
import { BROKER_KINDS } from '../scripts/brokers/engines.ts'
import { findDifference } from '../scripts/readme.ts'
import { expectedOutput, runExample } from './examples-harness.ts'

const GIVEN = ['SLUICE_REDIS_URL', 'SLUICE_RABBITMQ_URL', 'SLUICE_KAFKA_URL'] as const

for (const [i, kind] of BROKER_KINDS.entries()) {
  // Where it is missing that is said loudly, and fails with CI=true.
  const version = await kind.find()
  const given = process.env[GIVEN[i] ?? ''] !== undefined
  const skip = version === null ? `${kind.name} is missing` : given ? `${kind.name} is not ours to kill` : false
  test(`webhook-ingest: on ${kind.name}, deliveries survive a kill of the broker and of each of two servers, in order and once`, {
    skip,
  }, async (t) => {
    const { status, output, errors } = await runExample(['--rounds', '1', '--broker', kind.name.toLowerCase()]).ended
    t.diagnostic(/seed \d+/.exec(output)?.[0] ?? errors)
    equal(status, 0, `${output}\n${errors}`)
    equal(findDifference(output, expectedOutput(1, kind.name)), null)
  })
}

const [redis] = BROKER_KINDS
const isMissing = (await redis?.find()) === null

test('webhook-ingest: the URL of a broker is all that it needs, and what an earlier run left there is not judged', {
  skip: isMissing ? 'redis-server is missing' : false,
}, async () => {
  await using broker = await (redis as (typeof BROKER_KINDS)[number]).start()
  const url = new URL(broker.url)
  url.searchParams.set('namespace', `example-${process.pid}-${Date.now()}`)
  const args = ['--data', url.href, '--rounds', '1', '--kills', '2', '--json']
  const { status, output, errors } = await runExample(args).ended
  equal(status, 0, `${output}\n${errors}`)
  const run = JSON.parse(output)
  equal(run.stored, 329)
  equal(run.broker, null)
  equal(run.kills.length, 2)
  const again = await runExample(args).ended
  equal(again.status, 1, again.output)
  match(again.errors, /There is a queue `webhooks` already/)
})

test('webhook-ingest: Ctrl-C leaves no broker behind', {
  skip: isMissing || process.env['SLUICE_REDIS_URL'] !== undefined ? 'there is no Redis that is ours' : false,
}, async () => {
  const { child, ended } = runExample(['--rounds', '30', '--kills', '0', '--broker', 'redis'])
  for await (const [piece] of on(child.stderr, 'data', { close: ['end'] }))
    if (/accepted [1-9]/.test(String(piece))) break
  child.kill('SIGINT')
  const { status, errors } = await ended
  equal(status, 130, errors)
  const port = Number(/data in redis:\/\/127\.0\.0\.1:(\d+)/.exec(errors)?.[1])
  ok(port > 0, errors)
  equal(await isListening(port).catch(() => false), false)
})
