/**
 * A thread that loads the source with one planted bug in it, and runs simulated lives until one fails.
 *
 * `workerData`: the bug, and from which seed on how many are tried. Posts what was found.
 */
import { strict as assert } from 'node:assert'
import { registerHooks } from 'node:module'
import { pathToFileURL } from 'node:url'
import { parentPort, workerData } from 'node:worker_threads'
import type { PlantedBug } from './bugs.ts'

export interface PlantTask {
  readonly bug: PlantedBug
  readonly root: string
  readonly firstSeed: number
  readonly seeds: number
}

export interface Caught {
  readonly seed: number
  readonly check: string
  readonly message: string
}

/** What was found: who noticed it that is there for it, and whoever else did meanwhile. */
export interface Hunted {
  readonly caught: Caught | null
  readonly others: readonly string[]
}

const { bug, root, firstSeed, seeds } = workerData as PlantTask
const target = pathToFileURL(`${root}/${bug.file}`).href
let planted = 0

registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context)
    if (url !== target) return loaded
    const source = String(loaded.source)
    assert.equal(source.split(bug.from).length, 2, `what is replaced stands once in ${bug.file}`)
    planted++
    return { ...loaded, source: source.replace(bug.from, () => bug.to) }
  },
})

const { runSeed } = await import('../simulation/run.ts')
const { CRASHES, OPERATIONS } = await import('../simulation/batch.ts')
assert.equal(planted, 1, `${bug.file} is part of what is simulated`)

let caught: Caught | null = null
const others = new Set<string>()
for (let seed = firstSeed; seed < firstSeed + seeds && caught === null; seed++) {
  const { failure, judgements } = await runSeed({ seed, operations: OPERATIONS, crashes: CRASHES })
  const broken = judgements.flatMap(({ checker, verdict }) =>
    verdict.status === 'violated' ? [{ seed, check: checker, message: verdict.violation.message }] : [],
  )
  if (failure !== null && broken.length === 0)
    broken.push({ seed, check: failure.check, message: failure.message.split('\n')[0] as string })
  caught = broken.find(({ check }) => bug.caughtBy.includes(check)) ?? null
  for (const { check } of broken) others.add(check)
}
const hunted: Hunted = { caught, others: [...others] }
parentPort?.postMessage(hunted)
