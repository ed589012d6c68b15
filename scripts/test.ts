/**
 * What `npm test` runs: the types, the linter, then every test file, two at a time. Ends with `N passed, N failed`.
 *
 *     npm test                          everything
 *     npm test -- test/ledger           files whose path begins so, without the checks
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
/** Matches the machine that the project is measured on. */
const FILES_AT_ONCE = 2
/** Longer than any test says nothing; then something hangs, such as a file whose tests ended and whose process does not. */
const SILENCE_MS = 360_000

const { values, positionals } = parseArgs({ allowPositionals: true, options: { grep: { type: 'string' } } })
const isPart = positionals.length > 0 || values.grep !== undefined

let passed = 0
let failed = 0
let skipped = 0

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

const stream = run({
  files,
  concurrency: FILES_AT_ONCE,
  timeout: TEST_TIMEOUT_MS,
  signal: abort.signal,
  ...(values.grep === undefined ? {} : { testNamePatterns: [values.grep] }),
})
/** Files that told how they ended, with a test at least. One that ended itself midway, or has none, proved nothing. */
const told = new Set<string>()
/** What runs, to say who hangs. */
const running = new Set<string>()
const watchdog = setTimeout(() => {
  console.error(
    `Nothing was heard for ${SILENCE_MS / 60_000} minutes. Running: ${[...running].join(', ') || 'nothing'}`,
  )
  failed++
  abort.abort()
}, SILENCE_MS)
stream.on('data', ({ type, data }: { type: string; data: { file?: string } }) => {
  watchdog.refresh()
  if (data.file === undefined) return
  if (type === 'test:summary') running.delete(data.file)
  else if (!told.has(data.file)) running.add(data.file)
})
stream.on('test:summary', ({ file, counts }) => {
  if (file !== undefined) {
    if (counts.tests > 0) told.add(file)
    return
  }
  passed += counts.passed
  failed += counts.tests - counts.passed - counts.skipped - counts.todo
  skipped += counts.skipped
})
const report = stream.compose(spec())
report.pipe(process.stdout, { end: false })
report.on('end', () => {
  clearTimeout(watchdog)
  for (const file of values.grep === undefined ? files : []) {
    if (told.has(file) || interrupted) continue
    console.log(`✖ ${relative(ROOT, file)} has no tests, or ended before it had told of them`)
    failed++
  }
  if (passed + failed === 0) failed++
  if (interrupted) console.log('\nStopped before the end.')
  console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`)
  process.exitCode = failed > 0 || interrupted ? 1 : 0
})

/** Runs a tool of the repository as one test. */
function check(title: string, tool: string, args: readonly string[]): void {
  const { status } = spawnSync(join(ROOT, 'node_modules/.bin', tool), args, { cwd: ROOT, stdio: 'inherit' })
  console.log(`${status === 0 ? '✔' : '✖'} ${title}`)
  if (status === 0) passed++
  else failed++
}
