/** Where a command works: a server, a broker by its URL, or a data folder that it opens itself. */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { open, type Sluice, SluiceError, type TopicStats } from '../index.ts'
import { DEFAULT_URL, UnreachableError } from './client.ts'
import { type Input, type Option, UsageError } from './command.ts'
import { credentialFor } from './credential.ts'
import { plain } from './plain.ts'

export const PLACE_OPTIONS: Readonly<Record<string, Option>> = {
  url: { type: 'string', value: 'URL', text: `A server or a broker, as open() takes it. Default: ${DEFAULT_URL}` },
  data: { type: 'string', value: 'DIR', text: 'Open this data folder instead, which nobody else may have open.' },
}

/** What the options name, for messages. */
export function placeOf(input: Input): string {
  return withoutPassword(input.value('data') ?? input.value('url') ?? DEFAULT_URL)
}

/** A location as it may be shown: what stands in a URL before the host is not. */
export function withoutPassword(location: string): string {
  return location.replace(/^([a-z][a-z0-9+.-]*:\/\/)[^/?#]*@/i, '$1')
}

/** Whether a location is a URL, rather than a folder. */
export function isUrl(location: string): boolean {
  return /^[a-z][a-z0-9+.-]*:\/\//i.test(location)
}

/** The data folder that `--data` names, for what lies beside the data: with a broker there is no such place. */
export function folderOf(input: Input, file: string): string {
  const data = input.value('data') ?? './data'
  if (isUrl(data) || data === ':memory:')
    throw new UsageError(
      `--data names no folder. Say where the file is with --${file} FILE, and tell \`sluice serve\` of it.`,
    )
  return resolve(data)
}

/** Opens what the options name. A folder must be there: a typing mistake would make an empty one. */
export async function openPlace(input: Input): Promise<Sluice> {
  const data = input.value('data')
  const url = input.value('url')
  if (data !== undefined && url !== undefined) throw new UsageError('Name one of --url and --data.')
  const onError = (error: unknown) =>
    process.stderr.write(`sluice: ${plain(error instanceof Error ? error.message : String(error))}\n`)
  if (data !== undefined) {
    const folder = resolve(data)
    if (!existsSync(folder))
      throw new UsageError(`--data names '${folder}', which is not there. \`sluice serve --data ${data}\` makes it.`)
    return open(folder, { onError })
  }
  const given = url ?? DEFAULT_URL
  if (!isUrl(given) || !URL.canParse(given))
    throw new UsageError(`--url is '${given}'; it must be such as ${DEFAULT_URL}. A folder is named with --data.`)
  const parsed = new URL(given)
  const credential = /^https?:$/.test(parsed.protocol) ? credentialFor(parsed) : undefined
  try {
    return await open(given.replace(/\/+$/, ''), credential === undefined ? { onError } : { onError, credential })
  } catch (error) {
    if (isRefusedConnection(error)) throw new UnreachableError(given, error)
    throw error
  }
}

/** Nobody listens there: said in the words of who meets it first. */
function isRefusedConnection(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause)
    if ((cause as { code?: unknown }).code === 'ECONNREFUSED') return true
  return false
}

/** Opens, does, closes. */
export async function withPlace<T>(input: Input, act: (sluice: Sluice) => Promise<T>): Promise<T> {
  const sluice = await openPlace(input)
  try {
    return await act(sluice)
  } finally {
    await sluice.close()
  }
}

/** The figures of a queue or topic that is there: reading and operating declare nothing. */
export async function findTopic(sluice: Sluice, kind: 'queue' | 'topic', name: string): Promise<TopicStats> {
  const { topics } = await sluice.stats()
  const found = topics.find((topic) => topic.name === name)
  if (found?.kind === kind) return found
  if (found !== undefined)
    throw new SluiceError('DECLARED_DIFFERENTLY', `'${name}' is a ${found.kind}, not a ${kind}.`, { name })
  throw new SluiceError(
    kind === 'queue' ? 'QUEUE_NOT_FOUND' : 'TOPIC_NOT_FOUND',
    `There is no ${kind} '${name}' here. \`sluice ${kind}s\` lists those that there are.`,
    { [kind]: name },
  )
}
