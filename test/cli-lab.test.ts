import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import type { Measured } from '../src/cli/lab.ts'
import { quantile, sparkline } from '../src/cli/quantiles.ts'
import { runCli, startCli } from './cli-harness.ts'
import { startServer, temporaryFolder } from './server-harness.ts'

test('the lab shows that overload without a limit piles up, and that a limit refuses instead (P7)', async (t) => {
  const { code, stdout } = await runCli(t, ['lab', '--seconds', '1', '--json'])
  assert.equal(code, 0)
  const { results } = JSON.parse(stdout) as { results: readonly Measured[] }
  const [callers, half, , flooded, limited, paced] = results as [
    Measured,
    Measured,
    Measured,
    Measured,
    Measured,
    Measured,
  ]
  assert.equal(results.length, 6)
  assert.ok(callers.maxDepth <= 8, `callers that wait: ${callers.maxDepth}`)
  assert.equal(half.refusedPerSecond, 0)
  assert.equal(flooded.refusedPerSecond, 0)
  assert.ok(limited.maxDepth <= 40, `with a limit: ${limited.maxDepth}`)
  assert.ok(limited.refusedPerSecond > 0)
  assert.ok(flooded.maxDepth > limited.maxDepth, `without one: ${flooded.maxDepth}`)
  assert.equal(paced.refusedPerSecond, 0)
  assert.ok(paced.sourceMs.p99 > 100, `held back at its source: ${paced.sourceMs.p99}`)
  for (const { lesson, utilisation } of results) {
    assert.ok(lesson.length > 50)
    assert.ok(utilisation >= 0 && utilisation <= 1)
  }
})

test('the lab ends with Ctrl-C at once', async (t) => {
  const child = startCli(t, ['lab', '--seconds', '60'])
  await once(child.stdout, 'data')
  child.kill('SIGINT')
  const [code] = await once(child, 'close')
  assert.equal(code, 130)
})

test('the bench says what it measured, what an acknowledgement means there, and leaves nothing', async (t) => {
  const folder = await temporaryFolder(t)
  const { code, stdout, stderr } = await runCli(t, ['bench', '--messages', '300', '--data', folder, '--json'])
  assert.equal(code, 0, stderr)
  const report = JSON.parse(stdout)
  assert.deepEqual([report.durability, report.copies], ['disk', 1])
  assert.deepEqual(
    report.rows.map(({ what }: { what: string }) => what),
    ['publish', 'work off', 'end to end', 'add, one at a time', 'call, one at a time'],
  )
  for (const { perSecond, messages } of report.rows) assert.ok(perSecond > 0 && messages > 0)
  assert.deepEqual(readdirSync(folder), [])
  const table = await runCli(t, ['bench', '--messages', '200', '--memory'])
  assert.match(table.stdout, /':memory:', durability 'memory': nothing survives the process; one copy/)
  assert.match(table.stdout, /^end to end +200 /m)
})

test('the bench leaves a queue of a server empty', async (t) => {
  const { url, sluice } = await startServer(t)
  const { code, stderr } = await runCli(t, ['bench', '--messages', '200', '--url', url, '--json'])
  assert.equal(code, 0, stderr)
  const { topics } = await sluice.stats()
  assert.deepEqual(
    topics.map(({ name, depth }) => [/^bench-[0-9a-f]{8}$/.test(name), depth.messages]),
    [[true, 0]],
  )
})

test('quantiles and plots are those of the values', () => {
  assert.equal(quantile([], 0.5), 0)
  assert.equal(quantile([3, 1, 2], 0.5), 2)
  assert.equal(quantile([3, 1, 2], 0.99), 3)
  assert.equal(sparkline([0, 1, 4, 8], 8), '▁▁▄█')
})
