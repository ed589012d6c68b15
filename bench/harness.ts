/**
 * How every comparison here is run. Each measurement is a child process of its own in an empty folder of its own, so
 * that no side meets what the other left in a heap, a page cache or a compiler. The sides take turns (A B A B …), so
 * that a machine that slows down slows both. A speed is only ever told as a ratio of medians over those turns.
 */
import { fork } from 'node:child_process'
import { mkdir, mkdtemp, rm, statfs } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { ChildMessage } from './child.ts'

const defaultFolder = fileURLToPath(new URL('../data', import.meta.url))
const defaultPairs = 9
const quickPairs = 3
const childTimeLimitMs = 15 * 60_000

const commonUsage = `
Options of every benchmark:
  --pairs N      interleaved pairs (default ${defaultPairs}; with fewer the figures are only a hint)
  --quick        ${quickPairs} pairs and less load: a look, not a figure to quote
  --dir FOLDER   where the temporary folder is made (default ./data); it must be on the disk to measure
  --profile DIR  keep a CPU profile of each thread of each child process there; the figures are then of no use
  --json         the report as one JSON object on stdout
  --help         this text`

export interface BenchOptions {
  readonly pairs: number
  readonly quick: boolean
  readonly json: boolean
  readonly dir: string
  readonly profile: string | undefined
  /** A whole number among the benchmark's own options. */
  number(name: string, otherwise: number): number
  /** One of these words among the benchmark's own options; null where it is not given. */
  choice<T extends string>(name: string, words: readonly T[]): T | null
  flag(name: string): boolean
}

/** Reads the command line. `own` maps the benchmark's own options to whether they take a value. */
export function readOptions(usage: string, own: Record<string, 'string' | 'boolean'> = {}): BenchOptions {
  const common = {
    pairs: 'string',
    dir: 'string',
    profile: 'string',
    quick: 'boolean',
    json: 'boolean',
    help: 'boolean',
  } as const
  const types: Record<string, 'string' | 'boolean'> = { ...common, ...own }
  let values: Record<string, unknown> = {}
  try {
    const options = Object.fromEntries(Object.entries(types).map(([name, type]) => [name, { type }]))
    values = parseArgs({ options }).values
  } catch (error) {
    fail(`${(error as Error).message}. --help lists the options.`)
  }
  if (values.help === true) {
    console.log(`${usage.trim()}\n${commonUsage}`)
    process.exit(0)
  }
  const number = (name: string, otherwise: number): number => {
    const text = values[name]
    if (text === undefined) return otherwise
    const value = Number(String(text).replaceAll('_', ''))
    if (!Number.isSafeInteger(value) || value < 1) fail(`--${name} must be a whole number from 1, not '${text}'`)
    return value
  }
  const quick = values.quick === true
  return {
    pairs: number('pairs', quick ? quickPairs : defaultPairs),
    quick,
    json: values.json === true,
    dir: resolve(typeof values.dir === 'string' ? values.dir : defaultFolder),
    profile: typeof values.profile === 'string' ? resolve(values.profile) : undefined,
    number,
    choice(name, words) {
      const text = values[name]
      if (text === undefined) return null
      return words.find((word) => word === text) ?? fail(`--${name} must be one of ${words.join(', ')}, not '${text}'`)
    },
    flag: (name) => values[name] === true,
  }
}

function fail(message: string): never {
  console.error(message)
  process.exit(2)
}

/** A line of progress, for people: on stderr. */
export function say(text: string): void {
  process.stderr.write(`${text}\n`)
}

export interface Bench extends AsyncDisposable {
  readonly options: BenchOptions
  /** Makes an empty folder, hands it over, and removes it. */
  inFolder<T>(use: (folder: string) => Promise<T>): Promise<T>
  /** Makes an empty folder that stays until the benchmark ends. */
  makeFolder(): Promise<string>
  /** Starts a function of a module of this folder in a process of its own. */
  start(module: string, name: string, options: unknown): Child
  /** Starts a server on a free port, in a process of its own, uses it, and kills it. */
  withServer<T>(
    module: string,
    name: string,
    options: object,
    findPort: () => Promise<number>,
    use: (port: number) => Promise<T>,
  ): Promise<T>
}

export interface Child {
  readonly pid: number
  /** Resolves when the function says so with `tellReady`; rejects if the process ended before. */
  readonly ready: Promise<void>
  /** What the function returned; rejects if the process ended without that. */
  readonly result: Promise<unknown>
  kill(): void
}

/** Opens the temporary folder of a benchmark. Disposing it removes the folder and ends what still runs. */
export async function openBench(options: BenchOptions): Promise<Bench> {
  await mkdir(options.dir, { recursive: true })
  const root = await mkdtemp(join(options.dir, 'bench-'))
  const children = new Set<Child>()
  let folders = 0

  const clear = async (): Promise<void> => {
    for (const child of children) child.kill()
    await rm(root, { recursive: true, force: true, maxRetries: 3 })
  }
  const onSignal = (): void => {
    clear().finally(() => process.exit(130))
  }
  process.once('SIGINT', onSignal)
  process.once('SIGTERM', onSignal)

  const makeFolder = async (): Promise<string> => {
    const folder = join(root, String(++folders))
    await mkdir(folder)
    return folder
  }
  const bench: Bench = {
    options,
    makeFolder,
    async inFolder(use) {
      const folder = await makeFolder()
      try {
        return await use(folder)
      } finally {
        await rm(folder, { recursive: true, force: true, maxRetries: 3 })
      }
    },
    start(module, name, childOptions) {
      const child = startChild(module, name, childOptions, options.profile)
      children.add(child)
      const forget = (): void => {
        children.delete(child)
      }
      child.result.then(forget, forget)
      return child
    },
    async withServer(module, name, serverOptions, findPort, use) {
      const port = await findPort()
      const server = bench.start(module, name, { ...serverOptions, port })
      await server.ready
      try {
        return await use(port)
      } finally {
        server.kill()
        await server.result.catch(() => {})
      }
    },
    async [Symbol.asyncDispose]() {
      process.off('SIGINT', onSignal)
      process.off('SIGTERM', onSignal)
      await clear()
    },
  }
  return bench
}

function startChild(module: string, name: string, options: unknown, profile: string | undefined): Child {
  const threads = new URL('./profile-threads.ts', import.meta.url).href
  const execArgv = profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profile}`, `--import=${threads}`]
  const child = fork(new URL('./child.ts', import.meta.url), [module, name, JSON.stringify(options)], { execArgv })
  const { promise: ready, resolve: setReady, reject: endReady } = Promise.withResolvers<void>()
  const result = new Promise<unknown>((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill('SIGKILL')
      reject(new Error(`${name} in ${module} did not end within ${childTimeLimitMs} ms`))
    }, childTimeLimitMs)
    let answer: { value: unknown } | null = null
    child.on('message', (message: ChildMessage) => {
      if (message.kind === 'ready') setReady()
      else answer = message
    })
    child.once('error', reject)
    // Not 'exit', which may come before the last message.
    child.once('close', (code, signal) => {
      clearTimeout(timer)
      if (code === 0 && answer !== null) resolve(answer.value)
      else reject(new Error(`${name} in ${module} ended with ${signal ?? `exit code ${code}`} and no result`))
      endReady(new Error(`${name} in ${module} ended before it was ready`))
    })
  })
  // The one who awaits it also gets the rejection; a child that is killed on purpose is awaited later or not at all.
  result.catch(() => {})
  ready.catch(() => {})
  return { pid: child.pid ?? 0, ready, result, kill: () => child.kill('SIGKILL') }
}

type Exports = Record<string, unknown>
type Run<F> = F extends (options: infer O) => Promise<infer R> ? (options: O) => Promise<R> : never

/**
 * The functions of a module, each run in a child process of its own.
 * `childrenOf<typeof import('./x.ts')>(bench, './x.ts').measure(options)`
 */
export function childrenOf<M extends object>(bench: Bench, module: string): { [N in keyof M]: Run<M[N]> } {
  const run = (_: Exports, name: string | symbol) => (options: unknown) =>
    bench.start(module, String(name), options).result
  return new Proxy({}, { get: run }) as { [N in keyof M]: Run<M[N]> }
}

export type Sides = Record<string, () => Promise<unknown>>
export type Rounds<S extends Sides> = { [N in keyof S]: Awaited<ReturnType<S[N]>>[] }

/** Runs every side once a round, in turn. `tell` makes a short text of one result, for the line of progress. */
export async function interleave<S extends Sides>(
  title: string,
  rounds: number,
  sides: S,
  tell: (result: never) => string,
): Promise<Rounds<S>> {
  const results = Object.fromEntries(Object.keys(sides).map((side) => [side, [] as unknown[]]))
  for (let round = 1; round <= rounds; round++) {
    const told: string[] = []
    for (const [side, measure] of Object.entries(sides)) {
      const result = await measure()
      results[side]?.push(result)
      told.push(`${side} ${tell(result as never)}`)
    }
    say(`${title}: ${round}/${rounds}: ${told.join(', ')}`)
  }
  return results as Rounds<S>
}

/** Linear interpolation between closest ranks; `share` from 0 to 1. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  const at = (sorted.length - 1) * share
  const low = sorted[Math.floor(at)] ?? Number.NaN
  const high = sorted[Math.ceil(at)] ?? Number.NaN
  return low + (high - low) * (at - Math.floor(at))
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5)
}

/** The median of the first list over the median of the second. */
export function ratioOfMedians(values: readonly number[], base: readonly number[]): number {
  return median(values) / median(base)
}

/** Free bytes where the benchmark's folder lies. */
export async function freeBytes(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(folder)
  return bavail * bsize
}
