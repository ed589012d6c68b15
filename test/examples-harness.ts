/** Runs the example of the core as people do, and knows what its page says it prints. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'

const EXAMPLE = fileURLToPath(new URL('../examples/webhook-ingest/', import.meta.url))
const LIMIT_MS = 280_000

export function runExample(args: readonly string[]) {
  const child = spawn(process.execPath, [`${EXAMPLE}main.ts`, ...args], { stdio: 'pipe', timeout: LIMIT_MS })
  const read = Promise.all([once(child, 'close'), text(child.stdout), text(child.stderr)])
  return {
    child,
    ended: read.then(([[status], output, errors]) => ({ status: status as number | null, output, errors })),
  }
}

/**
 * What the page shows, for another number of rounds; figures that differ from run to run are left open. On a broker some
 * lines are others: the page shows those of Redis.
 */
export function expectedOutput(rounds: number, broker: string | null = null): string {
  const page = readFileSync(`${EXAMPLE}README.md`, 'utf8')
  const [inFolder = '', onRedis = ''] = [...page.matchAll(/^```text\n([\s\S]*?)^```$/gm)].map(([, shown]) => shown)
  const [killed = '', kills = ''] = onRedis.replaceAll('Redis', broker ?? '').split('…\n')
  const shown =
    broker === null
      ? inFolder
      : inFolder.replace(/^server .*\n/m, () => killed).replace(/^(?: {2}kill .*\n)+/m, () => kills)
  const [same = '', differing = ''] = shown.split('In this run:')
  const small = same.replaceAll('9870', `${329 * rounds}`).replace('30 times over', `${rounds} times over`)
  return `${small}In this run:${differing.replace(/ *\d[\d.]*/g, '…')}`
}
