import { deepEqual } from 'node:assert/strict'
import { test } from 'node:test'
import { findStale } from '../scripts/generate-docs.ts'

test('the tables in the documentation are those of the code', async () => {
  deepEqual(await findStale(), [], 'run: node scripts/generate-docs.ts')
})
