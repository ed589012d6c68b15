/**
 * The addresses of a name that a stranger gave.
 *
 * DNS is asked first, by a resolver that holds no thread while it waits (c-ares). What DNS does not know, such as names of the
 * hosts file or of a search domain, the system is asked for (getaddrinfo), a few at a time: each holds one of the few threads
 * that the whole process has. A name whose servers are silent fails before that, so however many there are of them, the
 * others are found.
 */
import { Resolver, lookup as systemLookup } from 'node:dns/promises'

/** How long DNS may be silent at the first try, and how many tries there are; each takes longer than the one before: 5 s in all. */
const DNS = { timeout: 1_500, tries: 2 }
/** Names that the system is asked for at one time. */
const MAX_SYSTEM_LOOKUPS = 2
/** Of DNS: nobody answered, so that the system would wait for the same servers. */
const SILENT: ReadonlySet<string> = new Set(['ETIMEOUT', 'ECANCELLED'])

export interface Address {
  readonly address: string
  readonly family: number
}

/** All addresses of a name; none: it has none. Rejects where it is not known, or nobody can say. */
export type Lookup = (name: string, signal: AbortSignal) => Promise<readonly Address[]>

export interface LookupOptions {
  /** Asked instead of those of the system: addresses, with or without a port. */
  readonly servers?: readonly string[] | undefined
  readonly system?: ((name: string) => Promise<readonly Address[]>) | undefined
}

export function createLookup({ servers, system = askSystem }: LookupOptions = {}): Lookup {
  const resolver = new Resolver(DNS)
  if (servers !== undefined) resolver.setServers(servers)
  const turns = new Turns(MAX_SYSTEM_LOOKUPS)
  return async (name, signal) => {
    const found = isLocal(name) ? [] : await askDns(resolver, name)
    if (found.length > 0) return found
    await turns.take(signal)
    try {
      return await system(name)
    } finally {
      turns.giveBack()
    }
  }
}

/** Loopback by definition (RFC 6761), and no matter for DNS. */
function isLocal(name: string): boolean {
  return /(?:^|\.)localhost\.?$/i.test(name)
}

/** None: DNS does not know it. Rejects where DNS is silent. */
async function askDns(resolver: Resolver, name: string): Promise<Address[]> {
  const answers = await Promise.allSettled([resolver.resolve4(name), resolver.resolve6(name)])
  const found = answers.flatMap((answer, i) =>
    answer.status === 'fulfilled' ? answer.value.map((address) => ({ address, family: i === 0 ? 4 : 6 })) : [],
  )
  const silence = answers.find((answer) => answer.status === 'rejected' && SILENT.has(answer.reason.code))
  if (found.length === 0 && silence?.status === 'rejected') throw silence.reason
  return found
}

function askSystem(name: string): Promise<readonly Address[]> {
  return systemLookup(name, { all: true, verbatim: true })
}

/** First come, first served. */
class Turns {
  #free: number
  readonly #waiting: (() => void)[] = []

  constructor(count: number) {
    this.#free = count
  }

  /** Who gives up while waiting leaves the line, so that it does not grow behind what takes long. */
  async take(signal: AbortSignal): Promise<void> {
    if (this.#free > 0) {
      this.#free--
      return
    }
    await new Promise<void>((resolve, reject) => {
      const leave = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(go), 1)
        reject(signal.reason)
      }
      const go = (): void => {
        signal.removeEventListener('abort', leave)
        resolve()
      }
      if (signal.aborted) return reject(signal.reason)
      this.#waiting.push(go)
      signal.addEventListener('abort', leave, { once: true })
    })
  }

  giveBack(): void {
    const next = this.#waiting.shift()
    if (next === undefined) this.#free++
    else next()
  }
}
