/** Every call that docs/http.md shows with curl is made, in the order of the page, against a real server. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { startServer } from './server-harness.ts'

const run = promisify(execFile)
/** Streams and waits are cut after this; their status has come by then. */
const CUT_S = 2
/** What the page shows to wait longer than that: an offset that has not come, a job that nobody works on. */
const MAY_FAIL = /from=42|waitMs=10000/

test('docs/http.md: each call with curl does what the page says', async (t) => {
  const { url, sluice } = await startServer(t)
  sluice.queue<[number, number], number>('sum').work(({ payload: [a, b] }) => a + b)
  const page = readFileSync(new URL('../docs/http.md', import.meta.url), 'utf8')
  const blocks = [...page.matchAll(/^```sh\n([\s\S]*?)^```/gm)].map(([, code = '']) => code)
  const shown = blocks.filter((code) => /^(?:curl|printf)/m.test(code))
  assert.ok(shown.length >= 12, `${shown.length} blocks`)
  let id = ''
  for (const code of shown) {
    if (id === '') {
      const [declared] = await sluice.engine.declare([{ kind: 'queue', name: 'email', settings: {} }])
      assert.equal(declared?.status, 'declared')
      id = `email:${declared?.status === 'declared' ? declared.tag : ''}:0`
    }
    const script = `curl() { command curl -sS --max-time ${CUT_S} -w '\\nstatus=%{http_code} %{url}\\n' "$@" || test $? = 28; }
${code.replaceAll('http://127.0.0.1:8787', url).replaceAll('email:k3x9ab:0', id)}`
    const { stdout } = await run('bash', ['-euo', 'pipefail', '-c', script])
    const statuses = [...stdout.matchAll(/^status=(\d+) (\S+)$/gm)]
    assert.ok(statuses.length > 0, code)
    for (const [, status, called = ''] of statuses)
      if (!MAY_FAIL.test(called)) assert.match(status ?? '', /^2/, `${called}\n${stdout}`)
    // What a batch refuses for itself stands in its items.
    if (!code.includes('"lease": "…"')) assert.doesNotMatch(stdout, /"code":"(?:BAD_REQUEST|INVALID_\w+)"/)
  }
  const { topics } = await sluice.stats()
  assert.deepEqual(topics.map(({ name }) => name).sort(), ['email', 'orders', 'sum'])
})
