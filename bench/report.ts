/** What a benchmark prints: where it ran, its figures, and each bar with what was measured. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { cpus, loadavg, platform, release, totalmem } from 'node:os'
import { type BenchOptions, median, quantile, say } from './harness.ts'
import { watchOthers } from './others.ts'

export interface Bar {
  readonly name: string
  /** What is asked, such as `>= 0.6`. */
  readonly asked: string
  readonly measured: number
  readonly unit: string
  readonly state: 'met' | 'not met' | 'does not apply'
}

function stateOf(met: boolean): Bar['state'] {
  return met ? 'met' : 'not met'
}

export function atLeast(name: string, asked: number, measured: number, unit = 'x'): Bar {
  return { name, asked: `>= ${asked}${unit}`, measured, unit, state: stateOf(measured >= asked) }
}

export function atMost(name: string, asked: number, measured: number, unit = 'x'): Bar {
  return { name, asked: `<= ${asked}${unit}`, measured, unit, state: stateOf(measured <= asked) }
}

export function below(name: string, asked: number, measured: number, unit: string): Bar {
  return { name, asked: `< ${asked}${unit}`, measured, unit, state: stateOf(measured < asked) }
}

/** A bar whose condition this machine does not meet: told, and not judged. */
export function inapplicable(bar: Bar): Bar {
  return { ...bar, state: 'does not apply' }
}

export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryGiB: number
  readonly system: string
  readonly disk: string
  readonly load1m: number
  /** Processors that others kept busy while it ran, on average. Null: unknown. */
  readonly othersCores: number | null
  readonly commit: string
  readonly versions: Record<string, string>
}

/**
 * The machine and the versions, for the head of a report. Call it before the first measurement, and what it returns
 * after the last.
 */
export function readMachine(folder: string, versions: Record<string, string> = {}): () => Machine {
  const [first] = cpus()
  const others = watchOthers()
  const machine = {
    cpu: first?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 1024 ** 3),
    system: `${platform()} ${release()}`,
    disk: readDisk(folder),
    load1m: loadavg()[0] ?? 0,
    commit: readCommit(),
    versions: { node: process.versions.node, sqlite: process.versions.sqlite ?? 'none', ...versions },
  }
  return () => ({ ...machine, othersCores: others() })
}

/** The file system under a folder: the longest mount point that leads to it. */
function readDisk(folder: string): string {
  try {
    const mounts = readFileSync('/proc/mounts', 'utf8')
      .split('\n')
      .map((line) => line.split(' '))
    let best: string[] = []
    for (const mount of mounts) {
      const [, at = ''] = mount
      const leads = at === '/' || folder === at || folder.startsWith(`${at}/`)
      if (at !== '' && leads && at.length >= (best[1]?.length ?? 0)) best = mount
    }
    return best.length < 3 ? 'unknown' : `${best[2]} on ${best[0]}`
  } catch {
    return 'unknown'
  }
}

function readCommit(): string {
  const git = (...args: string[]): string =>
    execFileSync('git', args, {
      cwd: import.meta.dirname,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim()
  try {
    const changed = git('status', '--porcelain') !== ''
    return git('rev-parse', '--short', 'HEAD') + (changed ? ' with changes' : '')
  } catch {
    return 'unknown'
  }
}

/** Null: not measured, also what a number that is none becomes in JSON. */
export type Cell = string | number | null
export interface Table {
  readonly title: string
  readonly head: readonly string[]
  readonly rows: readonly (readonly Cell[])[]
}

export interface Report {
  readonly bench: string
  readonly machine: Machine
  readonly pairs: number
  readonly quick: boolean
  readonly tables: readonly Table[]
  readonly bars: readonly Bar[]
  readonly notes: readonly string[]
}

/** Of a processor: kernel threads that write to the disk need some of it. */
const quietCores = 0.25

export interface ReportParts {
  readonly tables: readonly Table[]
  readonly bars: readonly Bar[]
  readonly notes?: readonly string[]
}

/** Completes a report, after the last measurement. */
export function createReport(
  bench: string,
  options: BenchOptions,
  readMachineNow: () => Machine,
  parts: ReportParts,
): Report {
  const machine = readMachineNow()
  const { othersCores } = machine
  const notes = [...(parts.notes ?? [])]
  if (options.pairs < 9) notes.push(`Only ${options.pairs} pairs: a hint. Figures to quote take at least 9.`)
  if (othersCores !== null && othersCores > quietCores) {
    notes.push(
      `Others kept ${tell(othersCores)} of ${machine.cores} processors busy meanwhile, so the figures are a hint.`,
    )
  }
  if (options.profile !== undefined) notes.push('Profiled: the profiler costs time, so no figure here counts.')
  return { bench, machine, pairs: options.pairs, quick: options.quick, tables: parts.tables, bars: parts.bars, notes }
}

export function printReport(report: Report, json: boolean): void {
  if (json) {
    process.stdout.write(`${JSON.stringify(report)}\n`)
    return
  }
  say('')
  console.log(`# ${report.bench}, ${report.pairs} interleaved pairs${report.quick ? ', quick' : ''}`)
  console.log(tellMachine(report.machine))
  for (const table of report.tables) console.log(`\n${table.title}\n${formatTable(table)}`)
  console.log(`\nBars\n${formatTable(barTable(report.bars))}`)
  for (const note of report.notes) console.log(`\n${note}`)
}

export function tellMachine({
  cpu,
  cores,
  memoryGiB,
  system,
  disk,
  load1m,
  othersCores,
  commit,
  versions,
}: Machine): string {
  const names = Object.entries(versions).map(([name, version]) => `${name} ${version}`)
  const others = othersCores === null ? 'unknown' : tell(othersCores)
  return [
    `${cores} x ${cpu}, ${memoryGiB} GiB, ${system}, ${disk}`,
    `${names.join(', ')}, commit ${commit}`,
    `load ${load1m.toFixed(2)} before the first run; processors busy with others during it: ${others}`,
  ].join('\n')
}

export function barTable(bars: readonly Bar[]): Table {
  const rows = bars.map(({ name, asked, measured, unit, state }) => [
    name,
    asked,
    `${tell(measured)}${unit}`,
    state.replace('not met', 'NOT MET'),
  ])
  return { title: 'Bars', head: ['bar', 'asked', 'measured', ''], rows }
}

/** Median, and the least and most of it: how far to trust it. */
export function spread(values: readonly number[]): string {
  return `${tell(median(values))} (${tell(quantile(values, 0))} to ${tell(quantile(values, 1))})`
}

/** A whole number with separators. */
export function count(value: number): string {
  return Math.round(value).toLocaleString('en')
}

/** A figure with three significant digits or, from 1,000, in whole numbers with separators. */
export function tell(value: number): string {
  if (!Number.isFinite(value)) return '-'
  if (Math.abs(value) >= 1000) return count(value)
  return value === 0 || Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3)
}

export function formatTable({ head, rows }: Table): string {
  const lines = [head, head.map(() => '---'), ...rows].map((row) =>
    row.map((cell) => (typeof cell === 'string' ? cell : tell(cell ?? Number.NaN))),
  )
  const widths = head.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)))
  return lines
    .map(
      (line) =>
        `| ${line.map((cell, column) => cell.padEnd(widths[column] ?? 0, cell === '---' ? '-' : ' ')).join(' | ')} |`,
    )
    .join('\n')
}
