/**
 * Writes the tables that must agree with the code: errors, settings, promises by engine. `--check` writes nothing and
 * fails where a file is not as it would be written; the test suite runs that.
 *
 * A table stands between `<!-- generated: NAME -->` and `<!-- end of NAME -->`.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { abilitiesOver } from '../src/broker/link.ts'
import { helpOf } from '../src/cli/command.ts'
import { COMMANDS } from '../src/cli/commands.ts'
import { DEFAULT_GROUP, DEFAULT_QUEUE, DEFAULT_TOPIC } from '../src/engine/options.ts'
import { ERRORS } from '../src/errors.ts'
import { open } from '../src/index.ts'
import type { LogAbilities } from '../src/logs/contract.ts'
import { createServer } from '../src/server/server.ts'
import { proofsTable } from './prove/ledger.ts'
import { promiseMatrix, scenarioMatrix } from './prove/matrix.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

const EMBEDDED: LogAbilities = {
  durability: 'disk',
  copies: 1,
  outputs: 'atomic',
  admission: 'exact',
  partitions: 'one',
}

/** What each promise is on each engine, in words that follow from the abilities. */
function promisesTable(): string {
  const engines = [
    { name: "`open('./data')`", abilities: abilitiesOver(EMBEDDED) },
    { name: "`open('./data', { durability: 'os' })`", abilities: abilitiesOver({ ...EMBEDDED, durability: 'os' }) },
    { name: "`open('redis://…')`", abilities: abilitiesOver(EMBEDDED) },
    { name: "`open('amqp://…')`, `open('kafka://…')`", abilities: abilitiesOver({ ...EMBEDDED, durability: 'os' }) },
    { name: "`open(':memory:')`", abilities: abilitiesOver({ ...EMBEDDED, durability: 'memory' }) },
  ]
  const survives = { disk: 'a power cut', os: 'a killed process', memory: 'nothing' }
  type Abilities = (typeof engines)[number]['abilities']
  const rows: readonly (readonly [string, (abilities: Abilities) => string])[] = [
    ['P1 acknowledged means durable: it survives', (a) => survives[a.durability]],
    ['P2, P5 what is stored and held survives a restart', (a) => a.persistence],
    ['P4 one key at a time, in order', (a) => a.keyOrder],
    ['P4 priority in three classes', (a) => a.priority],
    ['P4 delayed jobs', (a) => a.delay],
    ['P6 offsets, replay, groups', (a) => a.replay],
    ['P7 limits hold exactly', (a) => a.admission],
    ['P8 idempotent publish, stored once', (a) => a.idempotency],
    ['P9 outputs, result and settle in one step', (a) => a.atomicOutputs],
    ['more than one partition', (a) => a.partitions],
  ]
  const head = `| | ${engines.map(({ name }) => name).join(' | ')} |`
  const line = `| --- | ${engines.map(() => '---').join(' | ')} |`
  const body = rows.map(
    ([promise, tell]) => `| ${promise} | ${engines.map(({ abilities }) => tell(abilities)).join(' | ')} |`,
  )
  return [head, line, ...body].join('\n')
}

function errorsTable(): string {
  const rows = Object.entries(ERRORS).map(
    ([code, { title, status, retryable, solve }]) =>
      `| \`${code}\` | ${title} | ${status} | ${retryable ? 'yes' : 'no'} | ${solve} |`,
  )
  return ['| code | what happened | HTTP | try again | what to do |', '| --- | --- | --- | --- | --- |', ...rows].join(
    '\n',
  )
}

/** The settings of an interface in engine/options.ts: its members, with what stands above each. */
function settingsTable(interfaceNames: readonly string[], defaults: Readonly<Record<string, unknown>>): string {
  const source = readFileSync(`${ROOT}src/engine/options.ts`, 'utf8')
  const rows: string[] = []
  for (const name of interfaceNames) {
    const body = new RegExp(`export interface ${name}[^{]*\\{([^}]*)\\}`).exec(source)?.[1] ?? ''
    for (const [, comment = '', member = ''] of body.matchAll(
      /(?:\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\s*)?readonly (\w+)\??:/g,
    )) {
      const text = comment
        .replace(/^\s*\* ?/gm, ' ')
        .replace(/@default.*$/s, '')
        .replace(/\s+/g, ' ')
        .trim()
      const value = defaults[member]
      const shown =
        value !== null && typeof value === 'object'
          ? Object.entries(value)
              .map(([key, one]) => `${key} ${one}`)
              .join(', ')
          : String(value)
      rows.push(`| \`${member}\` | ${text || NESTED[member] || ''} | ${shown} |`)
    }
  }
  return ['| setting | what it says | default |', '| --- | --- | --- |', ...rows].join('\n')
}

const NESTED: Record<string, string> = {
  limit: 'The most unsettled `messages` and `bytes` (P7). Past it, `QUEUE_FULL`.',
  retention: 'How long what is settled stays readable: `ms`, and at most `bytes`.',
  backoff: 'The wait before attempt n + 1: a random time from 0 to min(`maxMs`, `baseMs` * `factor` ** (n - 1)).',
}

interface ApiDocument {
  readonly paths: Readonly<
    Record<string, Readonly<Record<string, { readonly summary: string; readonly 'x-sluice-access': string }>>>
  >
}

/** Every route, from the OpenAPI document that a server gives. */
async function routesTable(): Promise<string> {
  const sluice = await open(':memory:')
  const server = createServer(sluice, { port: 0 })
  const url = await server.listen()
  const { paths } = (await (await fetch(`${url}/openapi.json`)).json()) as ApiDocument
  await server.close()
  await sluice.close()
  const rows = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(
      ([method, { summary, 'x-sluice-access': access }]) =>
        `| \`${method.toUpperCase()} ${path}\` | ${summary} | ${access} |`,
    ),
  )
  return ['| call | | asks for, where keys are asked for |', '| --- | --- | --- |', ...rows.sort()].join('\n')
}

/** The help of every command, as the command line prints it. */
async function commandsText(): Promise<string> {
  const pages = await Promise.all(
    Object.values(COMMANDS).map(async ({ about, load }) => {
      const command = await load()
      return `## sluice ${command.name}\n\n${about}\n\n\`\`\`text\n${helpOf(command)}\`\`\``
    }),
  )
  return `\n${pages.join('\n\n')}\n`
}

const TABLES: Readonly<Record<string, () => string | Promise<string>>> = {
  routes: routesTable,
  commands: commandsText,
  proofs: () => proofsTable(),
  matrix: promiseMatrix,
  scenarios: scenarioMatrix,
  promises: promisesTable,
  errors: errorsTable,
  'queue settings': () => settingsTable(['QueueSettings', 'GroupSettings'], { ...DEFAULT_QUEUE }),
  'topic settings': () => settingsTable(['TopicSettings'], { ...DEFAULT_TOPIC }),
  'group settings': () => settingsTable(['GroupSettings'], { ...DEFAULT_GROUP }),
}

const FILES = [
  'README.md',
  'docs/errors.md',
  'docs/settings.md',
  'docs/http.md',
  'docs/cli.md',
  'docs/promises.md',
  'docs/proofs.md',
  'docs/conformance.md',
]

/** The text of a file with its tables made anew. */
export async function regenerate(text: string): Promise<string> {
  const made = new Map<string, string>()
  for (const [, name = ''] of text.matchAll(/<!-- generated: ([a-z ]+) -->/g)) {
    const make = TABLES[name]
    if (make === undefined) throw new Error(`There is no table called "${name}"`)
    made.set(name, await make())
  }
  return text.replace(
    /(<!-- generated: ([a-z ]+) -->\n)[\s\S]*?(\n<!-- end of \2 -->)/g,
    (_all, start: string, name: string, end: string) => `${start}${made.get(name)}${end}`,
  )
}

/** Files that are not as they would be written. */
export async function findStale(): Promise<string[]> {
  const stale: string[] = []
  for (const file of FILES) {
    const text = readFileSync(ROOT + file, 'utf8')
    if ((await regenerate(text)) !== text) stale.push(file)
  }
  return stale
}

if (import.meta.main) {
  const stale = await findStale()
  if (process.argv.includes('--check')) {
    if (stale.length > 0) console.error(`Not up to date: ${stale.join(', ')}. Run: node scripts/generate-docs.ts`)
    process.exitCode = stale.length > 0 ? 1 : 0
  } else {
    for (const file of stale) writeFileSync(ROOT + file, await regenerate(readFileSync(ROOT + file, 'utf8')))
    console.log(stale.length === 0 ? 'All tables are up to date' : `Written: ${stale.join(', ')}`)
  }
}
