/** The recorded matrix of the conformance suite, as tables in Markdown. */
import { existsSync, readFileSync } from 'node:fs'
import { SCENARIOS } from '../../src/conformance/scenarios/all.ts'
import { ROOT } from './ledger.ts'

export interface RecordedCell {
  readonly engine: string
  readonly id: string
  readonly status: 'passed' | 'no' | 'failed'
  /** Why not, or what it costs. */
  readonly note?: string
}

export interface RecordedMatrix {
  readonly date: string
  readonly commit: string
  readonly repeat: number
  /** Of the brokers. */
  readonly brokerRepeat: number
  readonly engines: readonly string[]
  readonly cells: readonly RecordedCell[]
}

const FILE = `${ROOT}proofs/conformance.json`

function readMatrix(): RecordedMatrix {
  if (!existsSync(FILE)) return { date: '', commit: '', repeat: 0, brokerRepeat: 0, engines: [], cells: [] }
  return JSON.parse(readFileSync(FILE, 'utf8')) as RecordedMatrix
}

/** A row for each promise: how many of its scenarios hold on each engine. */
export function promiseMatrix(): string {
  const { engines, cells } = readMatrix()
  const status = new Map(cells.map((cell) => [`${cell.engine} ${cell.id}`, cell]))
  const rows = Array.from({ length: 13 }, (_, i) => {
    const promise = `P${i + 1}`
    const scenarios = SCENARIOS.filter(({ promises }) => promises.includes(promise))
    const columns = engines.map((engine) => {
      const found = scenarios.map(({ id }) => status.get(`${engine} ${id}`))
      const passed = found.filter((cell) => cell?.status === 'passed').length
      const refused = found.filter((cell) => cell?.status === 'no')
      const asked = found.length - refused.length
      const no = refused.length === 0 ? '' : `, no ${refused.length}: ${refused[0]?.note}`
      return `${passed === asked ? '' : '**broken** '}${passed}/${asked}${no}`
    })
    return `| ${promise} ${TITLES[i]} | ${columns.join(' | ')} |`
  })
  return [
    `| scenarios that hold | ${engines.join(' | ')} |`,
    `| --- |${engines.map(() => ' --- |').join('')}`,
    ...rows,
  ].join('\n')
}

/** A row for each scenario. */
export function scenarioMatrix(): string {
  const { engines, cells, repeat, brokerRepeat, commit, date } = readMatrix()
  const status = new Map(cells.map((cell) => [`${cell.engine} ${cell.id}`, cell]))
  const rows = SCENARIOS.map(({ id, noun, title, promises }) => {
    const columns = engines.map((engine) => {
      const cell = status.get(`${engine} ${id}`)
      if (cell === undefined) return 'not run'
      const note = cell.note === undefined ? '' : `: ${cell.note}`
      return `${cell.status === 'passed' ? 'yes' : cell.status === 'no' ? 'no' : '**broken**'}${note}`
    })
    return `| ${noun} | ${title} | ${promises.join(', ')} | ${columns.join(' | ')} |`
  })
  return [
    `Each ${repeat} times, on brokers ${brokerRepeat}, at ${commit}, ${date.slice(0, 10)}.`,
    '',
    `| noun | promise | | ${engines.join(' | ')} |`,
    `| --- | --- | --- |${engines.map(() => ' --- |').join('')}`,
    ...rows,
  ].join('\n')
}

const TITLES = [
  'acknowledged means durable',
  'nothing acknowledged is lost',
  'at least once, and no more often',
  'order',
  'exclusive',
  'broadcast and replay',
  'bounded',
  'idempotent publish',
  'atomic handler',
  'a job only goes forward',
  'calls',
  'graceful stop',
  'corruption is found',
]
