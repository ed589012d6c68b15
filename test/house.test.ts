import { deepEqual, match } from 'node:assert/strict'
import { test } from 'node:test'
import { findLong, findViolations, readSources } from '../scripts/check-house.ts'

test('imports point one way and no file is too long', (t) => {
  const files = readSources()
  for (const long of findLong(files)) t.diagnostic(`questioned: ${long}`)
  deepEqual(findViolations(files), [])
})

const PLANTED: readonly (readonly [path: string, text: string, complaint: RegExp])[] = [
  ['queue.ts', "import { Ledger } from './ledger/ledger.ts'", /nouns may not import ledger/],
  ['ledger/group.ts', "import { x } from '../logs/sqlite.ts'", /ledger may not import logs/],
  ['ledger/group.ts', "import { x } from '../queue.ts'", /ledger may not import nouns/],
  ['logs/sqlite/wal.ts', "import { x } from '../memory.ts'", /logs may not import logs/],
  ['logs/sqlite.ts', "import { x } from '../ledger/state.ts'", /logs may not import ledger/],
  ['policy/rate.ts', "import { x } from '../host/host.ts'", /policy may not import host/],
  ['server/server.ts', "import { x } from '../broker/broker.ts'", /server may not import broker/],
  ['server/server.ts', "import { x } from '../queue.ts'", /server may not import nouns/],
  ['cli/main.ts', "const x = await import('../engine/contract.ts')", /cli may not import engine/],
  ['queue.ts', "import { x } from './broker/local-engine.ts'", /nouns may not import broker/],
  ['new-place/file.ts', '', /not in the code map/],
  ['queue.ts', 'x\n'.repeat(601), /over 600/],
  ['index.ts', "export * from './queue.ts'", /export \*/],
  ['policy/utils.ts', '', /named for what it holds/],
]

for (const [path, text, complaint] of PLANTED) {
  test(`the check finds ${complaint.source.replaceAll('\\', '')} in ${path}`, () => {
    match(findViolations([{ path, text }]).join('\n'), complaint)
  })
}

test('the check lets allowed imports pass', () => {
  const files = [
    { path: 'queue.ts', text: "import { x } from './engine/contract.ts'\nimport { y } from './errors.ts'" },
    { path: 'logs/sqlite.ts', text: "import { x } from './sqlite/wal.ts'\nimport { y } from './contract.ts'" },
    { path: 'open.ts', text: "import { x } from './broker/local-engine.ts'" },
  ]
  deepEqual(findViolations(files), [])
})
