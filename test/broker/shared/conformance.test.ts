import assert from 'node:assert/strict'
import { test } from 'node:test'
import { runConformance } from '../../../src/conformance/run.ts'
import { SCENARIOS } from '../../../src/conformance/scenarios/all.ts'
import { journalEngine } from '../../support/journal-engine.ts'

for (const scenario of SCENARIOS) {
  test(`${journalEngine.name}: ${scenario.title}`, async () => {
    const [outcome] = await runConformance(journalEngine, { scenarios: [scenario] })
    assert.ok(outcome)
    if (outcome.result.status === 'failed') throw outcome.result.error
  })
}
