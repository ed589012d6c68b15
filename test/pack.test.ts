import { equal, match, ok } from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

/** A project that has installed what `npm pack` made, and nothing else. */
let project = ''

before(() => {
  project = mkdtempSync(join(tmpdir(), 'sluice-pack-'))
  run('npm', ['pack', '--pack-destination', project], ROOT)
  const tarball = readdirSync(project).find((file) => file.endsWith('.tgz')) as string
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'consumer', private: true, type: 'module' }))
  run('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', `./${tarball}`], project)
})

after(() => rmSync(project, { recursive: true, force: true }))

function run(command: string, args: readonly string[], cwd: string): string {
  return execFileSync(command, args, {
    cwd,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, NODE_TEST_CONTEXT: undefined },
  })
}

const CONSUMER = `
import { open, SluiceError } from 'sluice'

interface Email { to: string }

await using sluice = await open('./data')
const email = sluice.queue<Email, number>('email')
const job = await email.add({ to: 'a@b.c' }, { key: 'a@b.c' })
email.work(async (one) => one.payload.to.length)
const result = await job.result({ timeoutMs: 5_000 })
console.log('result', result)
const orders = sluice.topic<{ id: number }>('orders')
const { offset } = await orders.publish({ id: 7 })
console.log('offset', offset)
try {
  await email.add({ to: 'x' }, { delayMs: -1 })
} catch (error) {
  console.log((error as SluiceError).code)
}
`

test('the package works in an empty project, the broker thread included', () => {
  writeFileSync(
    join(project, 'consumer.mjs'),
    CONSUMER.replace(/interface Email[^\n]*\n/, '')
      .replace(/<[^>]*>\(/g, '(')
      .replace(' as SluiceError', ''),
  )
  const output = run(process.execPath, ['consumer.mjs'], project)
  equal(output, 'result 5\noffset 0\nINVALID_OPTION\n')
})

test('the package type-checks in an empty project', () => {
  mkdirSync(join(project, 'types'), { recursive: true })
  writeFileSync(join(project, 'consumer.ts'), `${CONSUMER}\nexport const wrong: string = result\n`)
  const config = {
    compilerOptions: {
      strict: true,
      module: 'nodenext',
      target: 'esnext',
      lib: ['esnext', 'esnext.disposable', 'dom'],
      noEmit: true,
      types: ['node'],
      typeRoots: [join(ROOT, 'node_modules/@types')],
      skipLibCheck: false,
    },
    files: ['consumer.ts'],
  }
  writeFileSync(join(project, 'tsconfig.json'), JSON.stringify(config))
  let output = ''
  try {
    run(join(ROOT, 'node_modules/.bin/tsc'), ['-p', '.'], project)
  } catch (error) {
    output = String((error as { stdout?: string }).stdout)
  }
  const complaints = output.split('\n').filter((line) => line.includes('error TS'))
  equal(complaints.length, 1, output)
  match(complaints[0] ?? '', /consumer\.ts.*Type 'number' is not assignable to type 'string'/)
})

const SCHEMAS = `
import { open } from 'sluice'
import { z } from 'zod'

await using sluice = await open(':memory:')
const users = sluice.queue('users', { schema: z.object({ user: z.string() }) })
const lengths = sluice.topic('lengths', { schema: z.object({ text: z.string().transform((text) => text.length) }) })
await users.add({ user: 'ada' })
await lengths.publish({ text: 'ada' })
// @ts-expect-error what is added is the schema's input
await users.add({ user: 1 })
// @ts-expect-error nothing may be missing
await users.add({})
// @ts-expect-error many are checked like one
await users.addMany([{ payload: { user: 1 } }])
// @ts-expect-error what is published is the input
await lengths.publish({ text: 3 })
users.work(({ payload }, { publish }) => {
  const user: string = payload.user
  // @ts-expect-error handlers get the output, which has its type
  const wrong: number = payload.user
  publish(lengths, { text: user })
  publish('lengths', { text: user })
  // @ts-expect-error what a handler publishes is checked too
  publish(lengths, { text: 3 })
  return wrong
})
for await (const { payload } of lengths.read({ follow: false })) {
  const length: number = payload.text
  // @ts-expect-error readers get the output
  const wrong: string = payload.text
  console.log(length, wrong)
}
`

test('a payload that does not fit the schema fails to compile', () => {
  writeFileSync(join(project, 'schemas.ts'), SCHEMAS)
  const paths = { zod: [join(ROOT, 'node_modules/zod/index.d.ts')] }
  const compilerOptions = {
    strict: true,
    module: 'nodenext',
    target: 'esnext',
    lib: ['esnext', 'esnext.disposable', 'dom'],
    noEmit: true,
    types: ['node'],
    typeRoots: [join(ROOT, 'node_modules/@types')],
    skipLibCheck: true,
    paths,
  }
  writeFileSync(join(project, 'tsconfig.schemas.json'), JSON.stringify({ compilerOptions, files: ['schemas.ts'] }))
  let output = ''
  try {
    run(join(ROOT, 'node_modules/.bin/tsc'), ['-p', 'tsconfig.schemas.json'], project)
  } catch (error) {
    output = String((error as { stdout?: string }).stdout)
  }
  equal(output, '')
})

test('the packed command says how to use it', () => {
  const output = run(process.execPath, [join(project, 'node_modules/.bin/sluice'), '--help'], project)
  ok(output.includes('sluice serve'), output)
})

test('the package has no install scripts and only what it needs', () => {
  const listing = JSON.parse(run('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], ROOT)) as unknown
  const [entry] = (Array.isArray(listing) ? listing : Object.values(listing as object)) as {
    files: { path: string }[]
  }[]
  const strange = (entry?.files ?? [])
    .map(({ path }) => path)
    .filter((path) => !/^(dist\/|package\.json$|README|LICENSE|CHANGELOG|ARCHITECTURE|docs\/[a-z-]+\.md$)/.test(path))
  equal(strange.join(), '')
})
