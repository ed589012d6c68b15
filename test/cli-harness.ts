/** Runs the command line as a child process, as people do. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface, type Interface } from 'node:readline'
import { text } from 'node:stream/consumers'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'

const MAIN = fileURLToPath(new URL('../src/cli/main.ts', import.meta.url))

export interface Run {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export function startCli(
  t: TestContext,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): ChildProcess & {
  stdin: NonNullable<ChildProcess['stdin']>
  stdout: NonNullable<ChildProcess['stdout']>
  stderr: NonNullable<ChildProcess['stderr']>
} {
  const child = spawn(process.execPath, [MAIN, ...args], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  })
  t.after(() => child.kill('SIGKILL'))
  return child
}

/** Runs it to its end. */
export async function runCli(
  t: TestContext,
  args: readonly string[],
  input = '',
  env: Readonly<Record<string, string>> = {},
): Promise<Run> {
  const child = startCli(t, args, env)
  child.stdin.on('error', () => {}).end(input)
  const [stdout, stderr, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
  return { code, stdout, stderr }
}

export interface Served {
  readonly child: ChildProcess
  readonly url: string
  /** Lines that it prints from then on. */
  readonly lines: Interface
  readonly stderr: () => string
}

/** `sluice serve` on a free port, once it listens. */
export async function serveCli(t: TestContext, folder: string, args: readonly string[] = []): Promise<Served> {
  const child = startCli(t, ['serve', '--port', '0', '--data', folder, '--json', ...args])
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    stderr += chunk
  })
  const lines = createInterface({ input: child.stdout })
  const first = await Promise.race([once(lines, 'line'), once(child, 'close')])
  if (typeof first[0] !== 'string') throw new Error(`sluice serve ended with ${first[0]}: ${stderr}`)
  return { child, url: JSON.parse(first[0]).url as string, lines, stderr: () => stderr }
}
