/** The journal on a RabbitMQ that speaks TLS: the authority is named in the URL, and another one is not trusted. */
import { equal, rejects } from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { findFreePort } from '../../scripts/brokers/broker.ts'
import { findRabbitmq, startRabbitmq } from '../../scripts/brokers/rabbitmq.ts'
import { isSluiceError } from '../../src/errors.ts'
import { openRabbitmqJournal } from '../../src/journals/rabbitmq.ts'

const skip =
  findRabbitmq() === null || process.env['SLUICE_RABBITMQ_URL'] !== undefined
    ? 'there is no RabbitMQ that may be configured'
    : false

test('entries go over TLS to a server whose authority is named, and to no other', { skip }, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-tls-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')]
  const names = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1']
  execFileSync(
    'openssl',
    ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', cert, '-days', '2', ...names],
    { stdio: 'ignore' },
  )
  const port = await findFreePort()
  await using _rabbitmq = await startRabbitmq({
    conf: [
      `listeners.ssl.1 = 127.0.0.1:${port}`,
      `ssl_options.cacertfile = ${cert}`,
      `ssl_options.certfile = ${cert}`,
      `ssl_options.keyfile = ${key}`,
    ],
  })
  const url = new URL(`amqps://guest:guest@127.0.0.1:${port}/?ca=${cert}`)
  const journal = await openRabbitmqJournal({ url, namespace: 'tls', connectMs: 30_000 })
  t.after(() => journal.close())
  const grant = await journal.own(AbortSignal.timeout(60_000))
  equal((await journal.append(grant, [Buffer.alloc(500_000)])).status, 'durable')
  const unknown = new URL(`amqps://guest:guest@127.0.0.1:${port}/`)
  await rejects(
    openRabbitmqJournal({ url: unknown, namespace: 'tls', connectMs: 500 }),
    (error) => isSluiceError(error, 'UNREACHABLE') && /certificate/.test(error.message),
  )
})
