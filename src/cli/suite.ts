/** The conformance scenarios against a place that others use, too: on names of their own, and nothing is ended or killed. */
import { randomBytes } from 'node:crypto'
import { type EngineUnderTest, runConformance, SCENARIOS } from '../conformance/index.ts'
import { open, type Sluice } from '../index.ts'
import { credentialFor } from './credential.ts'
import { plain } from './plain.ts'

export interface SuiteResult {
  readonly id: string
  readonly title: string
  readonly status: 'passed' | 'failed' | 'no'
  /** Why it did not hold, or is not for this engine. */
  readonly reason?: string
}

export async function runSuite(
  location: string,
  wanted: string,
  say: (line: string) => void,
): Promise<readonly SuiteResult[]> {
  const scenarios = SCENARIOS.filter((scenario) => isHarmless(scenario) && scenario.title.includes(wanted))
  const results = await runConformance(placeUnderTest(location), {
    scenarios,
    prefix: `verify-${randomBytes(4).toString('hex')}-`,
    onResult: ({ scenario, result }) => say(line(toResult(scenario, result))),
  })
  return results.map(({ scenario, result }) => toResult(scenario, result))
}

/** Without those that end or kill the store, and those whose callbacks the real sender would take for real ones. */
function isHarmless({ id, noun }: { readonly id: string; readonly noun: string }): boolean {
  return noun !== 'persistence' && !id.startsWith('callback')
}

function toResult(
  { id, title }: { readonly id: string; readonly title: string },
  result: Awaited<ReturnType<typeof runConformance>>[number]['result'],
): SuiteResult {
  const { status } = result
  if (result.status === 'passed') return { id, title, status }
  const reason =
    result.status === 'no' ? result.reason : result.error instanceof Error ? result.error.message : String(result.error)
  return { id, title, status, reason }
}

function line({ title, status, reason }: SuiteResult): string {
  const mark = { passed: 'ok', failed: 'FAILS', no: '-' }[status]
  return `  ${mark.padEnd(5)}  ${title}${reason === undefined ? '' : `: ${plain(reason.split('\n')[0] ?? '')}`}\n`
}

/** What stores is not ours to end: only what was opened here is closed. */
function placeUnderTest(location: string): EngineUnderTest {
  const credential = /^https?:/i.test(location) ? credentialFor(new URL(location)) : undefined
  return {
    name: location,
    async prepare() {
      const opened = new Set<Sluice>()
      const closeAll = async () => {
        await Promise.all([...opened].map((sluice) => sluice.close({ drainMs: 0 })))
        opened.clear()
      }
      return {
        isShared: true,
        async open() {
          const sluice = await open(location, credential === undefined ? {} : { credential })
          opened.add(sluice)
          return sluice
        },
        stop: closeAll,
        dispose: closeAll,
      }
    },
  }
}
