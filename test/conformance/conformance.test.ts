/** Every scenario on every engine, once here; `node scripts/conformance.ts --repeat 10` repeats them. */
import { equal, ok } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ENGINES } from '../../src/conformance/registry.ts'
import { runScenario } from '../../src/conformance/run.ts'
import { SCENARIOS } from '../../src/conformance/scenarios/all.ts'

const NOUNS = [...new Set(SCENARIOS.map(({ noun }) => noun))]

for (const engine of ENGINES) {
  describe(`${engine.name}`, { concurrency: 4 }, () => {
    for (const noun of NOUNS) {
      describe(noun, { concurrency: 4 }, () => {
        for (const scenario of SCENARIOS.filter((one) => one.noun === noun)) {
          test(`${scenario.title} (${scenario.promises.join(', ')})`, async (t) => {
            const result = await runScenario(engine, scenario)
            if (result.status === 'failed') throw result.error
            if (result.status === 'no') t.diagnostic(`no: ${result.reason}`)
            else if (result.cost !== undefined) t.diagnostic(`emulated: ${result.cost}`)
          })
        }
      })
    }
  })
}

test('scenarios have names of their own, and every promise from P1 to P13 has one', () => {
  equal(new Set(SCENARIOS.map(({ id }) => id)).size, SCENARIOS.length)
  const promises = new Set(SCENARIOS.flatMap((scenario) => scenario.promises))
  for (let i = 1; i <= 13; i++) ok(promises.has(`P${i}`), `P${i}`)
})
