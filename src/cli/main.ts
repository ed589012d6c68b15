#!/usr/bin/env node
/**
 * The command `sluice`. It looks at the version of Node before it loads anything that an older one cannot: what that
 * would print helps nobody.
 */
import { findNodeProblem } from '../options-check.ts'

const problem = findNodeProblem(process.versions.node)
if (problem === null) {
  const { main } = await import('./program.ts')
  process.exitCode = await main(process.argv.slice(2))
} else {
  process.stderr.write(`sluice: ${problem.code}: ${problem.message}\n`)
  process.exitCode = 1
}
