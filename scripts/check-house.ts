/**
 * Keeps the house (ARCHITECTURE.md, code map): which folder may import which, and how long a file may be. Run as a test,
 * and alone: `node scripts/check-house.ts`.
 */
import { globSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const QUESTIONED_LINES = 400
const FAILING_LINES = 600

/** What each part of `src` may import, besides itself and what everybody may. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  nouns: ['edge', 'engine', 'policy', 'host'],
  edge: ['engine'],
  callbacks: ['nouns', 'edge', 'engine', 'host', 'policy'],
  open: [
    'callbacks',
    'nouns',
    'edge',
    'engine',
    'policy',
    'host',
    'log contract',
    'journal contract',
    'broker',
    'remote',
  ],
  index: ['callbacks', 'nouns', 'edge', 'open', 'engine', 'policy', 'host', 'log contract'],
  'log contract': [],
  engine: ['log contract'],
  policy: [],
  host: [],
  ledger: ['log contract', 'engine', 'policy'],
  logs: ['log contract', 'host', 'journal contract'],
  'journal contract': ['log contract'],
  journals: ['journal contract', 'log contract', 'policy', 'host'],
  heart: ['engine', 'nouns'],
  broker: ['ledger', 'logs', 'log contract', 'journals', 'journal contract', 'engine', 'policy', 'host', 'heart'],
  remote: ['engine', 'policy', 'host', 'nouns', 'heart'],
  server: ['index', 'edge', 'engine', 'policy'],
  cli: ['index', 'callbacks', 'edge', 'server', 'conformance'],
  conformance: ['index', 'engine', 'host', 'server'],
  shared: [],
}
/** Files that everybody may import: the errors and the two formats. */
const SHARED = new Set(['errors.ts', 'message-batch.ts', 'job-id.ts'])

/** Checks of what callers give and errors for what engines answer: the same for nouns, HTTP and the command line. */
const EDGE = new Set([
  'callback-url.ts',
  'credential.ts',
  'json-schema.ts',
  'options-check.ts',
  'setting-rules.ts',
  'outcomes.ts',
  'payload.ts',
])

/** The only ones beside the nouns that know engines. */
const OPENING = new Set(['open.ts', 'restore.ts', 'verify.ts'])

export interface SourceFile {
  /** From `src`, with forward slashes. */
  readonly path: string
  readonly text: string
}

/** Everything that is wrong with these files. */
export function findViolations(files: readonly SourceFile[]): string[] {
  return files.flatMap((file) => [...findWrongImports(file), ...findWrongShape(file)])
}

function findWrongImports({ path, text }: SourceFile): string[] {
  const part = partOf(path)
  const allowed = MAY_IMPORT[part]
  if (allowed === undefined) return [`${path}: the folder is not in the code map`]
  const wrong: string[] = []
  for (const [, target = ''] of text.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g)) {
    const imported = join(dirname(path), target)
    const to = partOf(imported)
    if (to === 'shared') continue
    if (to === part && !((part === 'logs' || part === 'journals') && !maySeeStore(path, imported))) continue
    if (!allowed.includes(to)) wrong.push(`${path}: ${part} may not import ${to} (${imported})`)
  }
  return wrong
}

function findWrongShape({ path, text }: SourceFile): string[] {
  const wrong: string[] = []
  const lines = text.split('\n').length - 1
  if (lines > FAILING_LINES) wrong.push(`${path}: ${lines} lines, over ${FAILING_LINES}: it is more than one thing`)
  if (/^export \* /m.test(text)) wrong.push(`${path}: export * hides what is public`)
  if (/(^|\/)utils?\.ts$/.test(path)) wrong.push(`${path}: a file is named for what it holds`)
  return wrong
}

/** Which part of the code map a file belongs to. */
function partOf(path: string): string {
  if (SHARED.has(path)) return 'shared'
  if (path === 'logs/contract.ts') return 'log contract'
  if (path === 'journals/contract.ts' || path === 'journals/schemes.ts') return 'journal contract'
  if (EDGE.has(path)) return 'edge'
  if (OPENING.has(path)) return 'open'
  const [folder = ''] = path.split('/')
  if (folder !== path) return folder
  if (path === 'index.ts') return 'index'
  return 'nouns'
}

/** Logs and journals never import each other, but that the cache of a replicated log is made of the tables of SQLite's. */
function maySeeStore(path: string, imported: string): boolean {
  const [from, to] = [storeOf(path), storeOf(imported)]
  return from === to || (from === 'replicated' && to === 'sqlite') || isTable(path)
}

/** The table of journals by scheme is there to load each of them. */
function isTable(path: string): boolean {
  return path === 'journals/open.ts'
}

/** Which log a file is part of. */
function storeOf(path: string): string {
  return (path.split('/')[1] ?? '').replace(/\.ts$/, '')
}

export function readSources(): SourceFile[] {
  const src = join(ROOT, 'src')
  return globSync('**/*.ts', { cwd: src }).map((path) => ({ path, text: readFileSync(join(src, path), 'utf8') }))
}

/** Files long enough to ask whether they are two things. */
export function findLong(files: readonly SourceFile[]): string[] {
  return files
    .map(({ path, text }) => ({ path, lines: text.split('\n').length - 1 }))
    .filter(({ lines }) => lines > QUESTIONED_LINES)
    .map(({ path, lines }) => `${path}: ${lines} lines`)
}

if (import.meta.main) {
  const files = readSources()
  for (const long of findLong(files)) console.log(`questioned: ${long}`)
  const violations = findViolations(files)
  for (const violation of violations) console.error(violation)
  console.log(`${relative(process.cwd(), ROOT) || '.'}: ${files.length} files, ${violations.length} violations`)
  process.exitCode = violations.length > 0 ? 1 : 0
}
