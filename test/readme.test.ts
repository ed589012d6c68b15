import { deepEqual, equal, match, notEqual, ok } from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { BROKER_KINDS } from '../scripts/brokers/engines.ts'
import { findDifference, findExamples, joinSnippets, runExample } from '../scripts/readme.ts'

const PAGES = ['README.md']

for (const page of PAGES) {
  const examples = findExamples(readFileSync(new URL(`../${page}`, import.meta.url), 'utf8'))
  test(`${page} has examples that run`, () => equal(examples.length > 0, true))
  for (const example of examples) {
    test(`${page}, line ${example.line}: the example does what the page says`, async () => {
      equal(await runExample(example), null)
    })
  }
}

for (const kind of BROKER_KINDS) {
  const version = await kind.find()
  if (version === null && process.env['CI'] === 'true') throw new Error(`${kind.name} is missing, and CI needs it`)
  const skip = version === null ? `${kind.name} is missing` : false
  test(`README.md: the first example does the same on ${kind.name}, with one line changed`, { skip }, async () => {
    const [first] = findExamples(readFileSync(new URL('../README.md', import.meta.url), 'utf8'))
    ok(first)
    const broker = await kind.start()
    try {
      const code = first.code.replace("open('./data')", `open('${broker.url}')`)
      notEqual(code, first.code)
      equal(await runExample({ ...first, code }), null)
    } finally {
      await broker.stop()
    }
  })
}

/** What docs/api.md takes as given: a mail service, and zod. */
const API_GIVEN = `
  import { z } from 'zod'
  const sendMail = async (to, signal) => ({ isBusy: signal.aborted, isRefused: false, messageId: to.length })
`

test('docs/api.md: its snippets run, one after another, as the page says', async () => {
  const page = readFileSync(new URL('../docs/api.md', import.meta.url), 'utf8')
  const example = joinSnippets(page, API_GIVEN)
  for (const shown of ['email.add(', 'email.work(', 'orders.seek(', 'z.object('])
    equal(example.code.includes(shown), true)
  equal(await runExample(example), null)
})

test('examples are found with what they print', () => {
  const page = 'x\n```ts run\na\n```\n\n```text\nb\n```\n```ts\nnot run\n```\n```sh run\nc\n```\n'
  deepEqual(findExamples(page), [
    { language: 'ts', code: 'a\n', expected: 'b\n', line: 2 },
    { language: 'sh', code: 'c\n', expected: null, line: 12 },
  ])
})

test('a line may be left open with …, and only with it', () => {
  equal(findDifference('took 12 ms\nok\n', 'took … ms\nok\n'), null)
  match(findDifference('took 12 ms\nok\n', 'took 13 ms\nok\n') ?? '', /line 1/)
  match(findDifference('ok\n', 'ok\nmore\n') ?? '', /line 2/)
  match(findDifference('ok\nmore\n', 'ok\n') ?? '', /line 2/)
})

test('an example that prints something else, or fails, is a failure', async () => {
  match(
    (await runExample({ language: 'ts', code: "console.log('a')\n", expected: 'b\n', line: 1 })) ?? '',
    /expected "b"/,
  )
  match((await runExample({ language: 'ts', code: 'process.exit(3)\n', expected: null, line: 1 })) ?? '', /status 3/)
  match((await runExample({ language: 'sh', code: 'false\n', expected: null, line: 1 })) ?? '', /status 1/)
})
