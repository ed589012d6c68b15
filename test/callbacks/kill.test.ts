/** Callbacks of a server that is killed: real processes, a real folder, a real receiver. */
import { strict as assert } from 'node:assert'
import { once } from 'node:events'
import { test } from 'node:test'
import { Webhook } from 'standardwebhooks'
import { runCli, type Served, serveCli } from '../cli-harness.ts'
import { call, temporaryFolder } from '../server-harness.ts'
import { type Delivery, openReceiver } from '../support/receiver.ts'

const CALLBACKS = 'sluice.callbacks'
const ALLOW = ['--callback-allow', '127.0.0.0/8']

async function kill({ child }: Served): Promise<void> {
  const closed = once(child, 'close')
  child.kill('SIGKILL')
  await closed
}

/** Ends the next job of a queue over HTTP, with a result. */
async function completeOne(url: string, queue: string): Promise<void> {
  const { json } = await call(url, 'POST', `/v1/queues/${queue}/leases`, { body: { waitMs: 20_000 } })
  const settled = await call(url, 'POST', '/v1/leases:settle', {
    body: { items: [{ lease: json.leases[0].lease, outcome: 'done', result: { n: 1 } }] },
  })
  assert.deepEqual(settled.json, { outcomes: [{ outcome: 'settled' }] })
}

test('a callback of a job that had ended when the server was killed is sent after the restart, once, and verifies', async (t) => {
  const receiver = await openReceiver(t)
  const folder = await temporaryFolder(t)
  const before = await serveCli(t, folder, ['--no-callbacks'])
  const added = await call(before.url, 'POST', '/v1/queues/q/jobs', {
    body: { a: 1 },
    headers: { 'sluice-callback-url': `${receiver.url}/hook` },
  })
  await completeOne(before.url, 'q')
  await kill(before)
  assert.equal(receiver.deliveries.length, 0)
  const after = await serveCli(t, folder, ALLOW)
  const [delivery] = (await receiver.waitFor(1)) as [Delivery]
  const { stdout } = await runCli(t, ['webhook-secret', '--data', folder, '--json'])
  const { secrets } = JSON.parse(stdout) as { secrets: string[] }
  const verified = new Webhook(secrets[0] as string).verify(
    delivery.body,
    delivery.headers as Record<string, string>,
  ) as { type: string; data: { id: string; result: unknown } }
  assert.equal(verified.type, 'job.completed')
  assert.equal(verified.data.id, added.json.id)
  assert.deepEqual(verified.data.result, { n: 1 })
  await untilSettled(after.url)
  assert.equal(receiver.deliveries.length, 1)
  assert.ok(!after.stderr().includes(secrets[0] as string))
})

test('a callback that was being sent when the server was killed is sent again after the restart, with the same id', async (t) => {
  const receiver = await openReceiver(t, () => {})
  const folder = await temporaryFolder(t)
  const before = await serveCli(t, folder, ALLOW)
  await call(before.url, 'PUT', `/v1/queues/${CALLBACKS}`, { body: { backoff: { baseMs: 0 } } })
  const headers = { 'sluice-callback-url': receiver.url }
  await call(before.url, 'POST', '/v1/queues/q/jobs', { body: { a: 1 }, headers })
  await completeOne(before.url, 'q')
  await receiver.waitFor(1)
  await kill(before)
  receiver.behave = (reply) => reply.writeHead(204).end()
  const after = await serveCli(t, folder, ALLOW)
  const [first, second] = (await receiver.waitFor(2)) as [Delivery, Delivery]
  assert.equal(second.headers['webhook-id'], first.headers['webhook-id'])
  assert.equal(second.body, first.body)
  await untilSettled(after.url)
})

test('the command shows the secret of a folder, adds one in front and drops the old ones', async (t) => {
  const folder = await temporaryFolder(t)
  const show = async (...args: string[]): Promise<string[]> => {
    const { code, stdout, stderr } = await runCli(t, ['webhook-secret', '--data', folder, ...args])
    assert.equal(code, 0, stderr)
    return stdout.trim().split('\n')
  }
  const [first] = await show()
  assert.match(String(first), /^whsec_/)
  assert.deepEqual(await show(), [first])
  const rotated = await show('--rotate')
  assert.deepEqual(rotated.slice(1), [first])
  assert.deepEqual(await show('--retire'), [rotated[0]])
  assert.equal((await runCli(t, ['webhook-secret', '--data', folder, '--rotate', '--retire'])).code, 2)
})

/** Nothing of the queue of callbacks is left to be sent. */
async function untilSettled(url: string): Promise<void> {
  for (;;) {
    const { json } = await call(url, 'GET', `/v1/queues/${CALLBACKS}`)
    if (json.depth.messages === 0) return
    await new Promise((resolve) => setImmediate(resolve))
  }
}
