/** Which journal a URL means. Each is loaded with its first use, as its client library is an optional peer. */
import { SluiceError } from '../errors.ts'
import type { Journal, JournalOptions, OpenJournal } from './contract.ts'

const loadRedis = async () => (await import('./redis.ts')).openRedisJournal
const loadKafka = async () => (await import('./kafka.ts')).openKafkaJournal
const loadRabbitmq = async () => (await import('./rabbitmq.ts')).openRabbitmqJournal

const JOURNALS: Readonly<Record<string, () => Promise<OpenJournal>>> = {
  redis: loadRedis,
  rediss: loadRedis,
  amqp: loadRabbitmq,
  amqps: loadRabbitmq,
  kafka: loadKafka,
  kafkas: loadKafka,
}

export async function openJournal(options: JournalOptions): Promise<Journal> {
  const scheme = options.url.protocol.slice(0, -1)
  const load = JOURNALS[scheme]
  if (load === undefined)
    throw new SluiceError('UNSUPPORTED', `There is no engine for '${scheme}://' in this version.`, { scheme })
  const open = await load()
  return open(options)
}
