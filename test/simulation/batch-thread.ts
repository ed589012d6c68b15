/** A thread of a batch: runs the seeds that it is given, tells of each, and asks for more; `null`: there are no more. */
import { parentPort } from 'node:worker_threads'
import { CRASHES, OPERATIONS, type SeedDone } from './batch.ts'
import { runSeed } from './run.ts'

parentPort?.on('message', async (range: { from: number; to: number } | null) => {
  if (range === null) {
    parentPort?.close()
    return
  }
  for (let seed = range.from; seed < range.to; seed++) {
    const { judgements, operations, crashes, situations, failure } = await runSeed({
      seed,
      operations: OPERATIONS,
      crashes: CRASHES,
    })
    const exercised = judgements.map(
      ({ checker, verdict }) => [checker, verdict.status === 'held' ? verdict.exercised : 0] as const,
    )
    const done: SeedDone = { seed, operations, crashes, situations, failure, exercised }
    parentPort?.postMessage(done)
  }
  parentPort?.postMessage(null)
})
