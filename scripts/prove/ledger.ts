/**
 * The ledger of proofs: what was tried, how often, and what came of it, as a line of JSON for each run of a proof command.
 * Lines are only ever added. docs/proofs.md is made from them.
 */
import { execFileSync } from 'node:child_process'
import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'

export const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const FILE = `${ROOT}proofs/ledger.jsonl`

export interface Entry {
  /** ISO 8601, when it ended. */
  readonly date: string
  /** What was proved: `git describe`, with `-dirty` where there were changes. */
  readonly commit: string
  readonly engine: string
  /** What was done to it. */
  readonly fault: string
  /** How often, and of what: seeds, kills, states, runs. */
  readonly runs: number
  readonly unit: string
  /** The first and the last that was used. */
  readonly seeds: readonly [first: number, last: number]
  /** Operations or messages, where they were counted. */
  readonly operations: number
  readonly violations: number
  readonly seconds: number
  /** What runs it again. */
  readonly command: string
}

export function describeCommit(): string {
  const git = (...args: readonly string[]) => execFileSync('git', args, { cwd: ROOT, encoding: 'utf8' }).trim()
  // What earlier proofs have written down is no change to what is proved.
  const isDirty = git('status', '--porcelain', '--', '.', ':!proofs') !== ''
  return `${git('describe', '--always', '--exclude', '*')}${isDirty ? '-dirty' : ''}`
}

export function record(entry: Entry): void {
  mkdirSync(dirname(FILE), { recursive: true })
  appendFileSync(FILE, `${JSON.stringify(entry)}\n`)
}

export function readLedger(): Entry[] {
  if (!existsSync(FILE)) return []
  return readFileSync(FILE, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Entry)
}

/** Totals by fault and engine, as a table in Markdown. */
export function proofsTable(entries: readonly Entry[] = readLedger()): string {
  const groups = Map.groupBy(entries, ({ fault, engine, unit }) => `${fault} | ${engine} | ${unit}`)
  const rows = [...groups.values()].map((group) => {
    const sum = (of: (entry: Entry) => number) => group.reduce((total, entry) => total + of(entry), 0)
    const last = group.at(-1) as Entry
    const broken = sum(({ violations }) => violations)
    const cells = [
      last.fault,
      last.engine,
      `${sum(({ runs }) => runs).toLocaleString('en')} ${last.unit}`,
      sum(({ operations }) => operations).toLocaleString('en'),
      broken === 0 ? '0' : `**${broken}**`,
      last.violations === 0
        ? `${last.date.slice(0, 10)}, ${last.commit}`
        : `${last.date.slice(0, 10)}, ${last.commit}: **broken**`,
      `\`${last.command}\``,
    ]
    return `| ${cells.join(' | ')} |`
  })
  const head = '| what was done to it | engine | how often | operations | violations | last | again |'
  return [head, '| --- | --- | --- | --- | --- | --- | --- |', ...rows.toSorted()].join('\n')
}
