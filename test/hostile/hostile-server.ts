/**
 * A server with keys and a log, for attacks over real sockets. When a test ends it must still serve, hold nothing more than
 * it was given on purpose, have begun nothing that it did not end, and have written a log of whole, plain lines.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import type { ServerOptions } from '../../src/server/settings.ts'
import { call, type Harness, sendRaw, startServer, temporaryFolder } from '../server-harness.ts'
import { makeKey, type TestKey } from '../support/keys.ts'

export interface Target extends Harness {
  readonly admin: TestKey
  readonly keyFile: string
  readonly log: string[]
  /** Raw lines of a request with the admin's key, without the empty line. */
  head(start: string, ...headers: string[]): string
  /** Asserts that the server is as it was, with so many messages stored. */
  unharmed(stored: number): Promise<void>
}

export async function startTarget(t: TestContext, options: ServerOptions = {}): Promise<Target> {
  const keyFile = join(await temporaryFolder(t), 'keys.json')
  const admin = await makeKey(keyFile, ['admin'])
  const log: string[] = []
  const harness = await startServer(t, {
    keys: keyFile,
    maxLoopDelayMs: 0,
    log: { write: (line) => log.push(line) },
    ...options,
  })
  return {
    ...harness,
    admin,
    keyFile,
    log,
    head: (start, ...headers) =>
      [`${start} HTTP/1.1`, 'Host: localhost', `Authorization: ${admin.headers.authorization}`, ...headers, ''].join(
        '\r\n',
      ),
    async unharmed(stored) {
      const answer = await sendRaw(
        harness.port,
        'GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n',
      )
      assert.match(answer, /^HTTP\/1\.1 200 /)
      const { topics } = await harness.sluice.stats()
      assert.equal(
        topics.reduce((sum, { appended }) => sum + appended, 0),
        stored,
      )
      // Only this very request is under way, once the server has heard that the others are gone.
      const metrics = async () => (await call(harness.url, 'GET', '/metrics', { headers: admin.headers })).text
      while (!/^sluice_http_in_flight 1$/m.test(await metrics())) {}
      assert.match(await metrics(), /^sluice_http_body_bytes 0$/m)
      assert.match(await metrics(), /^sluice_http_answer_bytes 0$/m)
      for (const line of log) {
        assert.equal(typeof JSON.parse(line), 'object')
        // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there
        assert.doesNotMatch(line.trimEnd(), /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202e]/)
        assert.ok(!line.includes(admin.text.slice(20)), 'a key in the log')
      }
    },
  }
}
