/** Many seeds, on several threads. A seed that fails is shrunk: the same failure with less of everything. */
import { Worker as Thread } from 'node:worker_threads'
import { type RunResult, runSeed } from './run.ts'
import { FEATURES, type Feature, type SwarmOptions } from './swarm.ts'

/** What a seed is, unless a command says otherwise. */
export const OPERATIONS = 2_000
export const CRASHES = 5

export interface BatchOptions {
  readonly firstSeed: number
  readonly seeds: number
  readonly threads: number
  /** Called as seeds end. */
  readonly onProgress?: (done: number) => void
  readonly signal?: AbortSignal
}

export interface BatchResult {
  readonly seeds: number
  readonly operations: number
  readonly crashes: number
  readonly situations: ReadonlyMap<string, number>
  /** How often each checker had something to judge. */
  readonly exercised: ReadonlyMap<string, number>
  readonly failures: readonly SeedFailure[]
}

export interface SeedFailure {
  readonly seed: number
  readonly check: string
  readonly message: string
}

/** Seeds that a thread takes at a time. */
const SEEDS_AT_ONCE = 10

/** From a thread: one seed is done. */
export type SeedDone = Pick<RunResult, 'seed' | 'operations' | 'crashes' | 'situations' | 'failure'> & {
  readonly exercised: readonly (readonly [checker: string, times: number])[]
}

export async function runBatch({ firstSeed, seeds, threads, onProgress, signal }: BatchOptions): Promise<BatchResult> {
  const totals = { seeds: 0, operations: 0, crashes: 0 }
  const situations = new Map<string, number>()
  const exercised = new Map<string, number>()
  const failures: SeedFailure[] = []
  let next = firstSeed
  const take = (result: SeedDone) => {
    totals.seeds++
    totals.operations += result.operations
    totals.crashes += result.crashes
    for (const [what, count] of result.situations) situations.set(what, (situations.get(what) ?? 0) + count)
    for (const [checker, times] of result.exercised) exercised.set(checker, (exercised.get(checker) ?? 0) + times)
    if (result.failure !== null) {
      const { check, message } = result.failure
      failures.push({ seed: result.seed, check, message })
    }
    onProgress?.(totals.seeds)
  }
  const work = () =>
    new Promise<void>((resolve, reject) => {
      const thread = new Thread(new URL('./batch-thread.ts', import.meta.url))
      const give = () => {
        const from = next
        next += SEEDS_AT_ONCE
        const to = Math.min(next, firstSeed + seeds)
        if (from >= to || signal?.aborted === true) thread.postMessage(null)
        else thread.postMessage({ from, to })
      }
      thread.on('message', (message: SeedDone | null) => (message === null ? give() : take(message)))
      thread.on('error', reject)
      thread.on('exit', () => resolve())
      give()
    })
  await Promise.all(Array.from({ length: threads }, work))
  failures.sort((a, b) => a.seed - b.seed)
  return { ...totals, situations, exercised, failures }
}

export interface Shrunk {
  readonly options: SwarmOptions
  readonly result: RunResult
}

/** The same failure with fewer features, crashes and operations. */
export async function shrink(seed: number, check: string): Promise<Shrunk> {
  let options: SwarmOptions = { seed, operations: OPERATIONS, crashes: CRASHES, without: [] }
  let result = await runSeed(options)
  const attempt = async (smaller: SwarmOptions): Promise<boolean> => {
    const tried = await runSeed(smaller)
    if (tried.failure?.check !== check || tried.operations > result.operations) return false
    options = smaller
    result = tried
    return true
  }
  const halve = async () => {
    while (options.operations > 10 && (await attempt({ ...options, operations: Math.floor(options.operations / 2) })));
  }
  while (options.crashes > 0 && (await attempt({ ...options, crashes: options.crashes - 1 })));
  await halve()
  for (const feature of FEATURES)
    await attempt({ ...options, without: [...(options.without ?? []), feature] satisfies Feature[] })
  await halve()
  return { options, result }
}

/** The command that runs exactly this again. */
export function replayCommand({ seed, operations, crashes, without = [] }: SwarmOptions): string {
  const parts = [`node scripts/simulate.ts --seed ${seed}`]
  if (operations !== OPERATIONS) parts.push(`--operations ${operations}`)
  if (crashes !== CRASHES) parts.push(`--crashes ${crashes}`)
  if (without.length > 0) parts.push(`--without ${without.join(',')}`)
  return parts.join(' ')
}
