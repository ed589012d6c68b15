/** `sluice groups`: who reads the topics, how far behind, and where they go on. */
import { findNearest, type ReadFrom, type Sluice, SluiceError } from '../index.ts'
import { type Command, type Input, UsageError } from './command.ts'
import { deadTable } from './jobs.ts'
import { findTopic, PLACE_OPTIONS, withPlace } from './opening.ts'
import { print } from './plain.ts'
import { formatTable } from './table.ts'

const MAX_MOVED = 1_000_000

type Act = (sluice: Sluice, input: Input, topic: string, group: string, ids: readonly string[]) => Promise<number>

const ACTS: Readonly<Record<string, Act>> = { seek, forget, pause, resume, dead, redrive, discard }

export const groups: Command = {
  name: 'groups',
  usage: '[list [TOPIC]]   or   seek|forget|pause|resume|dead|redrive|discard TOPIC GROUP',
  about: `list     lists the groups of every topic, or of one, and how far each is behind
seek     moves a group to another place, from which it goes on; what its members hold is lost to them
forget   removes a group for good, with its place and its dead letters; stop its members first
pause    hands nothing out to a group until resume
dead     lists messages that are out of attempts in a group
redrive  tries again what blocks a group
discard  removes dead letters of a group for good: those named, or with --all all of them`,
  examples: [
    'sluice groups',
    'sluice groups list orders --json',
    'sluice groups seek orders billing --from earliest',
    'sluice groups seek orders billing --from 2026-01-31T08:00:00Z',
    'sluice groups forget orders billing',
  ],
  options: {
    ...PLACE_OPTIONS,
    from: {
      type: 'string',
      value: 'PLACE',
      text: 'seek: earliest, latest, an offset, or a time such as 2026-01-31T08:00:00Z.',
    },
    max: {
      type: 'string',
      value: 'N',
      text: 'dead, redrive, discard: at most so many. Default: 100; redrive, discard: 10000',
    },
    all: { type: 'boolean', text: 'discard: without ids, all of them.' },
  },
  async run(input) {
    const [name = 'list', topic, group, ...ids] = input.words
    if (name === 'list') {
      if (group !== undefined) throw new UsageError('sluice groups list takes a topic, or nothing.')
      return withPlace(input, (sluice) => list(sluice, input, topic))
    }
    const act = Object.hasOwn(ACTS, name) ? ACTS[name] : undefined
    if (act === undefined) {
      const nearest = findNearest(name, ['list', ...Object.keys(ACTS)])
      throw new UsageError(
        `'${name}' is not one of list, ${Object.keys(ACTS).join(', ')}.${nearest === null ? '' : ` Did you mean '${nearest}'?`}`,
      )
    }
    if (topic === undefined || group === undefined)
      throw new UsageError(`sluice groups ${name} takes a topic and a group.`)
    if (name === 'seek' && input.value('from') === undefined) throw new UsageError('Say where to: --from PLACE.')
    if (name !== 'seek' && input.value('from') !== undefined)
      throw new UsageError(`--from has no meaning with ${name}.`)
    if (name === 'discard' && ids.length === 0 && !input.has('all'))
      throw new UsageError('Name the dead letters to discard, or all of them with --all: they are gone for good.')
    return withPlace(input, async (sluice) => {
      const found = await findTopic(sluice, 'topic', topic)
      if (!found.groups.some((one) => one.name === group))
        throw new SluiceError('GROUP_NOT_FOUND', `There is no group '${group}' on topic '${topic}'.`, { topic, group })
      return act(sluice, input, topic, group, ids)
    })
  },
}

/** What `--from` says: see `ReadFrom`. */
export function readFrom(given: string): ReadFrom {
  if (given === 'earliest' || given === 'latest') return given
  if (/^\d{1,16}$/.test(given) && Number.isSafeInteger(Number(given))) return Number(given)
  const timeMs = /^\d{4}-\d\d-\d\d/.test(given) ? Date.parse(given) : Number.NaN
  if (Number.isNaN(timeMs))
    throw new UsageError(
      `--from is '${given}'; it must be earliest, latest, an offset, or a time such as 2026-01-31T08:00:00Z.`,
    )
  return { timeMs }
}

async function list(sluice: Sluice, input: Input, wanted: string | undefined): Promise<number> {
  if (wanted !== undefined) await findTopic(sluice, 'topic', wanted)
  const { topics } = await sluice.stats()
  const found = topics
    .filter(({ kind, name }) => kind === 'topic' && (wanted === undefined || name === wanted))
    .flatMap(({ name, head, groups: of }) => of.map((group) => ({ topic: name, head, ...group })))
    .sort((a, b) => (`${a.topic}\0${a.name}` < `${b.topic}\0${b.name}` ? -1 : 1))
  const text = formatTable(
    ['TOPIC', 'GROUP', 'BEHIND', 'FLOOR', 'HEAD', 'ACTIVE', 'RETRYING', 'BLOCKED', 'DEAD', 'OUT/S', 'STATE'],
    found.map((group) => [
      group.topic,
      group.name,
      group.depth,
      group.floor,
      group.head,
      group.leased,
      group.retrying,
      group.blocked,
      group.dead,
      Math.round(group.drainPerSecond * 10) / 10,
      group.paused ? 'paused' : 'running',
    ]),
  )
  print(input.isJson, found, found.length === 0 ? 'No groups yet.\n' : text)
  return 0
}

async function seek(sluice: Sluice, input: Input, topic: string, group: string): Promise<number> {
  const from = readFrom(input.value('from') as string)
  await sluice.topic(topic).seek(group, from)
  const { groups: of } = await findTopic(sluice, 'topic', topic)
  const floor = of.find(({ name }) => name === group)?.floor
  print(input.isJson, { topic, group, from, floor }, `'${group}' goes on from offset ${floor} of '${topic}'.\n`)
  return 0
}

async function forget(sluice: Sluice, input: Input, topic: string, group: string): Promise<number> {
  await sluice.topic(topic).forget(group)
  print(input.isJson, { topic, group, forgotten: true }, `'${group}' is gone from '${topic}'.\n`)
  return 0
}

async function pause(sluice: Sluice, input: Input, topic: string, group: string): Promise<number> {
  await sluice.topic(topic).pause(group)
  print(input.isJson, { topic, group, paused: true }, `Nothing is handed out to '${group}' until it is resumed.\n`)
  return 0
}

async function resume(sluice: Sluice, input: Input, topic: string, group: string): Promise<number> {
  await sluice.topic(topic).resume(group)
  print(input.isJson, { topic, group, paused: false }, `'${group}' goes on.\n`)
  return 0
}

async function dead(sluice: Sluice, input: Input, topic: string, group: string): Promise<number> {
  const { messages } = await sluice.topic(topic).dead(group, { limit: input.count('max', 1, 1_000) ?? 100 })
  const rows = messages.map(({ id, attempts, error, diedAtMs, message }) => {
    const { key = null, headers, payload, payloadBase64 } = message.toJSON() as Record<string, unknown>
    return { id, attempts, error, diedAtMs, key: key as string | null, headers, payload, payloadBase64 }
  })
  print(input.isJson, rows, rows.length === 0 ? `No dead letters in '${group}'.\n` : deadTable(rows))
  return 0
}

async function redrive(
  sluice: Sluice,
  input: Input,
  topic: string,
  group: string,
  ids: readonly string[],
): Promise<number> {
  const { count } = await sluice.topic(topic).redrive(group, chosen(input, ids))
  print(input.isJson, { topic, group, count }, `${count} are tried again\n`)
  return 0
}

async function discard(
  sluice: Sluice,
  input: Input,
  topic: string,
  group: string,
  ids: readonly string[],
): Promise<number> {
  const { count } = await sluice.topic(topic).discard(group, chosen(input, ids))
  print(input.isJson, { topic, group, count }, `${count} discarded\n`)
  return 0
}

function chosen(input: Input, ids: readonly string[]): { ids?: readonly string[]; max?: number } {
  const max = input.count('max', 1, MAX_MOVED)
  return { ...(ids.length === 0 ? {} : { ids }), ...(max === undefined ? {} : { max }) }
}
