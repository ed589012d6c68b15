/**
 * Runs the examples of a Markdown file. A block marked ```ts run or ```sh run is run; if the next block is ```text, that
 * is what it must print, where `…` stands for anything within a line.
 *
 * TypeScript finds `sluice` in this repository's source. A shell block has `sluice` on its path, in an empty folder.
 */
import { spawn } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const LIMIT_MS = 60_000

export interface Example {
  readonly language: 'ts' | 'sh'
  readonly code: string
  /** Null: it only has to succeed. */
  readonly expected: string | null
  /** Of the block's first line, from 1. */
  readonly line: number
}

export function findExamples(markdown: string): Example[] {
  const blocks = [...markdown.matchAll(/^```([^\n]*)\n([\s\S]*?)^```$/gm)]
  return blocks.flatMap((block, index) => {
    const language = /^(ts|sh) run$/.exec(block[1] ?? '')?.[1]
    if (language === undefined) return []
    const next = blocks[index + 1]
    const expected = next?.[1] === 'text' ? (next[2] ?? '') : null
    const line = markdown.slice(0, block.index).split('\n').length
    return [{ language: language as 'ts' | 'sh', code: block[2] ?? '', expected, line }]
  })
}

/** The TypeScript of a page whose snippets follow one another, as one program behind `preamble`: what the page takes as given. */
export function joinSnippets(markdown: string, preamble: string): Example {
  const blocks = [...markdown.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, code = '']) => code)
  return { language: 'ts', code: [preamble, ...blocks, 'await sluice.close()\n'].join('\n'), expected: null, line: 1 }
}

/** The first difference between what was printed and what should have been, or null. */
export function findDifference(printed: string, expected: string): string | null {
  const lines = printed.trimEnd().split('\n')
  const wanted = expected.trimEnd().split('\n')
  for (let i = 0; i < Math.max(lines.length, wanted.length); i++) {
    const pattern = (wanted[i] ?? '')
      .split('…')
      .map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
      .join('.*')
    if (lines[i] === undefined || wanted[i] === undefined || !new RegExp(`^${pattern}$`).test(lines[i] as string)) {
      return `line ${i + 1}: expected ${JSON.stringify(wanted[i] ?? null)}, printed ${JSON.stringify(lines[i] ?? null)}`
    }
  }
  return null
}

/** Runs an example and says what is wrong, or null. */
export async function runExample({ language, code, expected }: Example): Promise<string | null> {
  const folder = mkdtempSync(join(ROOT, '.readme-'))
  try {
    const { status, output, errors } =
      language === 'ts' ? await runTypeScript(folder, code) : await runShell(folder, code)
    if (status !== 0) return `it ended with status ${status}:\n${output}\n${errors}`
    return expected === null ? null : findDifference(output, expected)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function runTypeScript(folder: string, code: string) {
  const file = join(folder, 'example.ts')
  writeFileSync(file, code.replace(/from 'sluice'/g, "from '../src/index.ts'"))
  return run(process.execPath, [file], folder)
}

function runShell(folder: string, code: string) {
  const command = join(folder, 'sluice')
  writeFileSync(command, `#!/bin/sh\nexec "${process.execPath}" "${join(ROOT, 'src/cli/main.ts')}" "$@"\n`)
  chmodSync(command, 0o755)
  return run('bash', ['-euo', 'pipefail', '-c', code.replace(/\bnpx sluice\b/g, 'sluice')], folder)
}

function run(command: string, args: readonly string[], folder: string) {
  return new Promise<{ status: number | null; output: string; errors: string }>((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: folder,
      env: { ...process.env, PATH: `${folder}:${process.env['PATH']}`, NODE_TEST_CONTEXT: undefined },
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: LIMIT_MS,
    })
    let output = ''
    let errors = ''
    child.stdout.on('data', (piece) => (output += piece))
    child.stderr.on('data', (piece) => (errors += piece))
    child.on('error', reject)
    child.on('close', (status) => resolve({ status, output, errors }))
  })
}
