/** Which journal a URL means. Each is loaded with its first use, as its client library is an optional peer. */
import { SluiceError } from '../errors.ts'
import type { Journal, JournalOptions, OpenJournal } from './contract.ts'

interface Listed {
  readonly broker: string
  load(): Promise<OpenJournal>
}

const JOURNALS: Readonly<Record<string, Listed>> = {}

/** Schemes of URLs that mean a broker, without the colon. */
export const BROKER_SCHEMES: readonly string[] = Object.keys(JOURNALS)

export async function openJournal(options: JournalOptions): Promise<Journal> {
  const scheme = options.url.protocol.slice(0, -1)
  const listed = JOURNALS[scheme]
  if (listed === undefined) throw new SluiceError('UNSUPPORTED', `There is no engine for '${scheme}://'.`, { scheme })
  const open = await listed.load()
  return open(options)
}
