/**
 * What `npm test` runs: the types, the linter, then every test file, two at a time, of which one at most has real brokers: a
 * server of three nodes and a scenario with a deadline disturb each other, and a file that waits for a broker leaves a
 * processor to another one. A file that failed is run once more, alone: what then passes is counted, and named as unsteady,
 * since a machine that was short of time is no bug but may hide one. Ends with `N passed, N failed`.
 *
 *     npm test                          everything
 *     npm test -- test/ledger           files whose path begins so, without the checks, each once
 *     npm test -- --grep "fence"        tests whose title matches
 */
import { spawnSync } from 'node:child_process'
import { globSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { run } from 'node:test'
import { spec } from 'node:test/reporters'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
/** No test takes longer; one that hangs is a failure with its name. */
const TEST_TIMEOUT_MS = 300_000
/** Files that start brokers, from `test/`. */
const WITH_BROKERS = /^(journals\/|conformance\/brokers|faults\/brokers|examples-brokers|brokers-|cli-broker|readme)/
/** Longer than any test says nothing; then something hangs, such as a file whose tests ended and whose process does not. */
const SILENCE_MS = 360_000

const { values, positionals } = parseArgs({ allowPositionals: true, options: { grep: { type: 'string' } } })
const isPart = positionals.length > 0 || values.grep !== undefined

interface Counts {
  readonly passed: number
  readonly failed: number
  readonly skipped: number
}

const NONE: Counts = { passed: 0, failed: 0, skipped: 0 }
let checks = NONE

if (!isPart) {
  check('types', 'tsc', [])
  check('format and lint', 'biome', ['check', '--error-on-warnings', '--max-diagnostics=20'])
}

const wanted = positionals.map((path) => resolve(path))
const files = globSync('test/**/*.test.ts', { cwd: ROOT })
  .map((file) => join(ROOT, file))
  .filter((file) => wanted.length === 0 || wanted.some((path) => file.startsWith(path)))
  .sort()

const abort = new AbortController()
let interrupted = false
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    interrupted = true
    abort.abort()
  })
}

const hasBrokers = (file: string) => WITH_BROKERS.test(relative(join(ROOT, 'test'), file))
const results = new Map<string, Counts>()
await runLanes(
  files.filter(hasBrokers),
  files.filter((file) => !hasBrokers(file)),
)
const unsteady: string[] = []
if (!isPart) {
  for (const [file, counts] of [...results]) {
    if (counts.failed === 0 || interrupted) continue
    console.log(`\n${relative(ROOT, file)} failed; once more, alone:`)
    const again = await runFile(file)
    results.set(file, again)
    if (again.failed === 0) unsteady.push(relative(ROOT, file))
  }
}
const total = [checks, ...results.values()].reduce(add, NONE)
for (const file of unsteady) console.log(`unsteady: ${file} failed at first, and passed alone`)
if (interrupted) console.log('\nStopped before the end.')
const failed = total.passed + total.failed === 0 ? 1 : total.failed
console.log(`${total.passed} passed, ${failed} failed${total.skipped > 0 ? `, ${total.skipped} skipped` : ''}`)
process.exitCode = failed > 0 || interrupted ? 1 : 0

/** One lane takes those with brokers first, all others are for whoever is free. */
async function runLanes(withBrokers: readonly string[], others: readonly string[]): Promise<void> {
  const heavy = [...withBrokers]
  const light = [...others]
  const lane = async (next: () => string | undefined): Promise<void> => {
    for (let file = next(); file !== undefined && !interrupted; file = next()) results.set(file, await runFile(file))
  }
  await Promise.all([lane(() => heavy.shift() ?? light.shift()), lane(() => light.shift())])
}

/** Runs a file and prints what comes of it, whole. One that ended itself midway, or has no tests, proved nothing: it has failed. */
async function runFile(file: string): Promise<Counts> {
  const silence = new AbortController()
  const startedAt = performance.now()
  const stream = run({
    files: [file],
    timeout: TEST_TIMEOUT_MS,
    signal: AbortSignal.any([abort.signal, silence.signal]),
    ...(values.grep === undefined ? {} : { testNamePatterns: [values.grep] }),
  })
  const watchdog = setTimeout(() => {
    console.error(`${relative(ROOT, file)}: nothing was heard for ${SILENCE_MS / 60_000} minutes`)
    silence.abort()
  }, SILENCE_MS)
  let counted: Counts | null = null
  stream.on('data', () => watchdog.refresh())
  stream.on('test:summary', ({ file: of, counts: { tests, passed, skipped, todo } }) => {
    if (of === undefined || tests === 0) return
    counted = { passed, failed: tests - passed - skipped - todo, skipped }
  })
  const report = (await stream.compose(spec()).toArray()).join('')
  clearTimeout(watchdog)
  const isSilent = counted === null && values.grep === undefined
  if (counted !== null || isSilent) {
    console.log(`\n${relative(ROOT, file)} (${((performance.now() - startedAt) / 1_000).toFixed(1)} s)`)
    // The counts of one file are of no interest beside those of all.
    process.stdout.write(
      report.replace(/^\S* (?:tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) \d.*\n/gm, ''),
    )
  }
  if (isSilent && !interrupted)
    console.log(`✖ ${relative(ROOT, file)} has no tests, or ended before it had told of them`)
  return counted ?? (isSilent ? { ...NONE, failed: 1 } : NONE)
}

function add(one: Counts, other: Counts): Counts {
  return {
    passed: one.passed + other.passed,
    failed: one.failed + other.failed,
    skipped: one.skipped + other.skipped,
  }
}

/** Runs a tool of the repository as one test. */
function check(title: string, tool: string, args: readonly string[]): void {
  const { status } = spawnSync(join(ROOT, 'node_modules/.bin', tool), args, { cwd: ROOT, stdio: 'inherit' })
  console.log(`${status === 0 ? '✔' : '✖'} ${title}`)
  checks = add(checks, status === 0 ? { ...NONE, passed: 1 } : { ...NONE, failed: 1 })
}
