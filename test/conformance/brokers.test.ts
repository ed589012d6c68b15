/** Every scenario on every broker, with a real server of each. Missing ones are said loudly, and fail where CI is set. */
import { after, describe, test } from 'node:test'
import type { Broker } from '../../scripts/brokers/broker.ts'
import { BROKER_KINDS, brokerEngine } from '../../scripts/brokers/engines.ts'
import { runScenario } from '../../src/conformance/run.ts'
import { SCENARIOS } from '../../src/conformance/scenarios/all.ts'

const NOUNS = [...new Set(SCENARIOS.map(({ noun }) => noun))]
/** One of them, such as `Redis`, for whoever works on it. */
const ONLY = process.env['SLUICE_BROKER']

for (const kind of BROKER_KINDS.filter(({ name }) => ONLY === undefined || name === ONLY)) {
  const version = await kind.find()
  if (version === null && process.env['CI'] === 'true') throw new Error(`${kind.name} is missing, and CI needs it`)
  const skip = version === null ? `${kind.name} is missing` : false
  const starting: Promise<Broker> | null = version === null ? null : kind.start()
  after(async () => (await starting)?.[Symbol.asyncDispose]())
  describe(kind.name, { concurrency: 1, skip }, () => {
    for (const noun of NOUNS) {
      describe(noun, { concurrency: 4 }, () => {
        for (const scenario of SCENARIOS.filter((one) => one.noun === noun)) {
          test(`${scenario.title} (${scenario.promises.join(', ')})`, async (t) => {
            const { url } = (await starting) as Broker
            const result = await runScenario(brokerEngine(kind.name, url), scenario)
            if (result.status === 'failed') throw result.error
            if (result.status === 'no') t.diagnostic(`no: ${result.reason}`)
            else if (result.cost !== undefined) t.diagnostic(`emulated: ${result.cost}`)
          })
        }
      })
    }
  })
}
