/** `sluice queues` and `sluice topics`: the figures of a server, as a table. */
import { clientOf, URL_OPTION } from './client.ts'
import type { Command } from './command.ts'
import { formatTable } from './table.ts'

interface Listed {
  readonly name: string
  readonly depth: { readonly messages: number }
  readonly limit: { readonly messages: number }
  readonly earliest: number
  readonly head: number
  readonly refused: number
}

interface QueueFigures extends Listed {
  readonly leased: number
  readonly retrying: number
  readonly scheduled: number
  readonly dead: number
  readonly drainPerSecond: number
  readonly paused: boolean
}

interface TopicFigures extends Listed {
  readonly groups: readonly { readonly name: string; readonly depth: number }[]
}

const PAGE = 1_000

export const queues: Command = {
  name: 'queues',
  usage: '[--url URL]',
  about: 'Lists the queues of a server: how deep they are, what workers hold, how fast they drain.',
  examples: ['sluice queues', "sluice queues --json | jq '.[] | select(.dead > 0)'"],
  options: { url: URL_OPTION },
  run: (input) =>
    list<QueueFigures>(clientOf(input), 'queues', input.isJson, (found) =>
      formatTable(
        ['QUEUE', 'DEPTH', 'LIMIT', 'ACTIVE', 'RETRYING', 'SCHEDULED', 'DEAD', 'REFUSED', 'OUT/S', 'STATE'],
        found.map((queue) => [
          queue.name,
          queue.depth.messages,
          queue.limit.messages,
          queue.leased,
          queue.retrying,
          queue.scheduled,
          queue.dead,
          queue.refused,
          Math.round(queue.drainPerSecond * 10) / 10,
          queue.paused ? 'paused' : 'running',
        ]),
      ),
    ),
}

export const topics: Command = {
  name: 'topics',
  usage: '[--url URL]',
  about: 'Lists the topics of a server, and how far each group is behind.',
  examples: ['sluice topics', 'sluice topics --json'],
  options: { url: URL_OPTION },
  run: (input) =>
    list<TopicFigures>(clientOf(input), 'topics', input.isJson, (found) =>
      formatTable(
        ['TOPIC', 'EARLIEST', 'HEAD', 'DEPTH', 'LIMIT', 'REFUSED', 'GROUPS BEHIND'],
        found.map(({ name, earliest, head, depth, limit, refused, groups }) => [
          name,
          earliest,
          head,
          depth.messages,
          limit.messages,
          refused,
          groups.map((group) => `${group.name}: ${group.depth.toLocaleString('en-US')}`).join(', ') || 'no group',
        ]),
      ),
    ),
}

async function list<T>(
  client: ReturnType<typeof clientOf>,
  what: 'queues' | 'topics',
  isJson: boolean,
  print: (found: readonly T[]) => string,
): Promise<number> {
  const found: T[] = []
  let after: string | null = ''
  while (after !== null) {
    const page = JSON.parse(
      await client.call(`/v1/${what}?limit=${PAGE}&after=${encodeURIComponent(after)}`),
    ) as Record<string, T[]> & { next: string | null }
    found.push(...(page[what] ?? []))
    after = page.next
  }
  if (isJson) process.stdout.write(`${JSON.stringify(found)}\n`)
  else process.stdout.write(found.length === 0 ? `No ${what} yet.\n` : print(found))
  return 0
}
