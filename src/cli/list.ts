/** `sluice queues` and `sluice topics`: their figures, as a table. */
import type { Sluice, TopicStats } from '../index.ts'
import type { Command, Input } from './command.ts'
import { PLACE_OPTIONS, withPlace } from './opening.ts'
import { print } from './plain.ts'
import { formatTable } from './table.ts'

export const queues: Command = {
  name: 'queues',
  usage: '',
  about: 'Lists the queues: how deep they are, what workers hold, how fast they drain.',
  examples: ['sluice queues', 'sluice queues --data ./data', "sluice queues --json | jq '.[] | select(.dead > 0)'"],
  options: PLACE_OPTIONS,
  run: (input) => withPlace(input, (sluice) => listQueues(sluice, input)),
}

export const topics: Command = {
  name: 'topics',
  usage: '',
  about: 'Lists the topics, and how far each group is behind.',
  examples: ['sluice topics', 'sluice topics --json'],
  options: PLACE_OPTIONS,
  run: (input) => withPlace(input, (sluice) => listTopics(sluice, input)),
}

async function find(sluice: Sluice, wanted: TopicStats['kind']): Promise<readonly TopicStats[]> {
  const { topics: all } = await sluice.stats()
  return all.filter(({ kind }) => kind === wanted).sort((a, b) => (a.name < b.name ? -1 : 1))
}

async function listQueues(sluice: Sluice, input: Input): Promise<number> {
  // A queue has one group, whose figures stand with its own, as over HTTP.
  const found = (await find(sluice, 'queue')).map(({ kind: _kind, groups, ...queue }) => {
    const { name: _name, depth: _depth, ...jobs } = groups[0] as (typeof groups)[number]
    return { ...queue, ...jobs }
  })
  const text = formatTable(
    ['QUEUE', 'DEPTH', 'LIMIT', 'ACTIVE', 'RETRYING', 'BLOCKED', 'SCHEDULED', 'DEAD', 'REFUSED', 'OUT/S', 'STATE'],
    found.map((queue) => [
      queue.name,
      queue.depth.messages,
      queue.limit.messages,
      queue.leased,
      queue.retrying,
      queue.blocked,
      queue.scheduled,
      queue.dead,
      queue.refused,
      Math.round(queue.drainPerSecond * 10) / 10,
      queue.paused ? 'paused' : 'running',
    ]),
  )
  print(input.isJson, found, found.length === 0 ? 'No queues yet.\n' : text)
  return 0
}

async function listTopics(sluice: Sluice, input: Input): Promise<number> {
  const found = (await find(sluice, 'topic')).map(({ kind: _kind, ...topic }) => topic)
  const text = formatTable(
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
  )
  print(input.isJson, found, found.length === 0 ? 'No topics yet.\n' : text)
  return 0
}
