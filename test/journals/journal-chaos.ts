/**
 * A life of a journal with faults: several processes want to own it, each behind a network of its own that is cut and held
 * up, the broker is killed, stopped and restarted, processes close and come again. Then everything that anybody was told is
 * held against a replay. Seed and rounds make the faults; when they meet what is up to the machine.
 *
 * What is checked, for every journal (src/journals/contract.ts):
 *  - what was told to be durable is in the replay, once, and not overlooked: no entry of a later grant stands before it;
 *  - what a new owner found at its claim is the beginning of what is found at the end;
 *  - entries of a grant stand in the order of their appends, and epochs of grants only rise.
 */
import { equal, ok } from 'node:assert/strict'
import { type Broker, waitUntil } from '../../scripts/brokers/broker.ts'
import { isSluiceError } from '../../src/errors.ts'
import { createRandom } from '../../src/host/host.ts'
import type { Grant, Journal } from '../../src/journals/contract.ts'
import { openProxy, type Proxy as TcpProxy } from '../support/tcp-proxy.ts'

export interface ChaosOptions {
  readonly seed: number
  /** How many faults. */
  readonly rounds: number
  readonly url: URL
  /** null: it is not ours to break. */
  readonly broker: Broker | null
  readonly open: (url: URL) => Promise<Journal>
  /** Only these faults. @default all that there are */
  readonly kinds?: readonly string[]
}

export interface ChaosFigures {
  readonly grants: number
  readonly durable: number
  readonly unknown: number
  readonly faults: Readonly<Record<string, number>>
}

interface Told {
  readonly epoch: number
  readonly text: string
}

/** What everybody was told. */
interface History {
  readonly durable: Told[]
  readonly epochs: number[]
  /** What an owner found at its claim, when that was durable. */
  readonly found: { readonly epoch: number; readonly texts: readonly string[] }[]
  unknown: number
}

const PROCESSES = 3
const MOST_ENTRIES = 3

export async function runChaos({
  seed,
  rounds,
  url,
  broker,
  open,
  kinds: wanted,
}: ChaosOptions): Promise<ChaosFigures> {
  const random = createRandom(seed)
  const below = (count: number): number => Math.floor(random() * count)
  const history: History = { durable: [], epochs: [], found: [], unknown: 0 }
  const processes = await Promise.all(Array.from({ length: PROCESSES }, (_, i) => Process.start(i, url, open, history)))
  const faults: Record<string, number> = {}
  /** Mostly the owner: nothing much breaks of the others. */
  const anyone = (): Process =>
    processes.find(({ isOwner }) => isOwner && random() < 0.75) ?? (processes[below(PROCESSES)] as Process)
  const kinds: readonly (readonly [string, () => Promise<void>])[] = [
    ['cut', async () => anyone().proxy.cutAll()],
    ['cut-request', async () => anyone().proxy.next('cut-request')],
    ['cut-answer', async () => anyone().proxy.next('cut-answer')],
    ['cut-within-answer', async () => anyone().proxy.next('cut-within-answer')],
    ['go silent', async () => anyone().proxy.freeze()],
    [
      'hold until another owns it',
      async () => {
        const { proxy } = anyone()
        proxy.hold()
        await progress(2)
        proxy.release()
      },
    ],
    ['close and come again', async () => anyone().reopen()],
  ]
  const ofBroker: typeof kinds = [
    [
      'kill the broker',
      async () => {
        await broker?.kill()
        await broker?.restart()
      },
    ],
    ['restart the broker', async () => broker?.restart()],
  ]
  const possible = broker === null ? kinds : [...kinds, ...ofBroker]
  const all = possible.filter(([name]) => wanted?.includes(name) ?? true)
  /** Something becomes durable, whoever does it. */
  async function progress(count = 5): Promise<void> {
    const { length } = history.durable
    await waitUntil(`${count} more are durable (seed ${seed})`, () => history.durable.length >= length + count, {
      withinMs: 120_000,
      unless: () => processes.find(({ failure }) => failure !== null)?.failure ?? null,
    })
  }
  try {
    await progress()
    for (let round = 0; round < rounds; round++) {
      const [name, strike] = all[below(all.length)] as (typeof all)[number]
      faults[name] = (faults[name] ?? 0) + 1
      await strike()
      await progress(1 + below(10))
    }
  } finally {
    for (const { proxy } of processes) proxy.release()
    await Promise.all(processes.map((one) => one.stop()))
  }
  const judge = await open(url)
  try {
    const grant = await judge.own(AbortSignal.timeout(120_000))
    await judge.append(grant, [Buffer.from(claimOf(grant.epoch, 'judge'))])
    check(history, await readTexts(judge, grant), seed)
  } finally {
    await judge.close()
  }
  return { grants: history.epochs.length, durable: history.durable.length, unknown: history.unknown, faults }
}

/** One that owns the journal whenever it can, and appends as long as it does. */
class Process {
  readonly proxy: TcpProxy
  failure: string | null = null
  isOwner = false
  readonly #name: string
  readonly #open: () => Promise<Journal>
  readonly #history: History
  #journal: Journal
  #isStopping = false
  readonly #running: Promise<void>
  #number = 0

  private constructor(name: string, proxy: TcpProxy, open: () => Promise<Journal>, journal: Journal, history: History) {
    this.#name = name
    this.proxy = proxy
    this.#open = open
    this.#journal = journal
    this.#history = history
    this.#running = this.#run().catch((error: Error) => {
      this.failure = `${name} failed: ${error.stack}`
    })
  }

  static async start(
    number: number,
    url: URL,
    open: (url: URL) => Promise<Journal>,
    history: History,
  ): Promise<Process> {
    const proxy = await openProxy(url)
    const behind = new URL(url)
    behind.hostname = '127.0.0.1'
    behind.port = new URL(proxy.url).port
    const openBehind = (): Promise<Journal> => open(behind)
    return new Process(`p${number}`, proxy, openBehind, await openBehind(), history)
  }

  async reopen(): Promise<void> {
    await this.#journal.close()
  }

  async stop(): Promise<void> {
    this.#isStopping = true
    await this.#journal.close()
    await this.#running
    await this.proxy.close()
    if (this.failure !== null) throw new Error(this.failure)
  }

  async #run(): Promise<void> {
    while (!this.#isStopping) {
      try {
        await this.#ownOnce()
      } catch (error) {
        if (!isSluiceError(error)) throw error
        if (error.code === 'CLOSED' && !this.#isStopping) this.#journal = await this.#openAgain()
        else if (!['CLOSED', 'UNKNOWN', 'UNREACHABLE'].includes(error.code)) throw error
      }
    }
  }

  async #openAgain(): Promise<Journal> {
    for (;;) {
      try {
        const journal = await this.#open()
        if (this.#isStopping) await journal.close()
        return journal
      } catch (error) {
        if (!isSluiceError(error, 'UNREACHABLE')) throw error
      }
    }
  }

  async #ownOnce(): Promise<void> {
    const journal = this.#journal
    const grant = await journal.own(new AbortController().signal)
    this.isOwner = true
    grant.signal.addEventListener('abort', () => (this.isOwner = false))
    this.#history.epochs.push(grant.epoch)
    if (!(await this.#append(journal, grant, [claimOf(grant.epoch, this.#name)]))) return
    this.#history.found.push({ epoch: grant.epoch, texts: await readTexts(journal, grant) })
    for (let last = 0; !grant.signal.aborted && !this.#isStopping; last++) {
      const texts = Array.from(
        { length: 1 + (last % MOST_ENTRIES) },
        () => `${grant.epoch} ${this.#name} ${++this.#number}`,
      )
      if (!(await this.#append(journal, grant, texts))) return
      // Everybody's turn comes, without a fault as well.
      if (last === 200) return
    }
  }

  async #append(journal: Journal, grant: Grant, texts: readonly string[]): Promise<boolean> {
    try {
      const { status } = await journal.append(
        grant,
        texts.map((text) => Buffer.from(text)),
      )
      if (status === 'durable') this.#history.durable.push(...texts.map((text) => ({ epoch: grant.epoch, text })))
      return status === 'durable'
    } catch (error) {
      if (isSluiceError(error, 'UNKNOWN')) this.#history.unknown++
      throw error
    }
  }
}

function claimOf(epoch: number, name: string): string {
  return `${epoch} ${name} claim`
}

async function readTexts(journal: Journal, grant: Grant): Promise<string[]> {
  const texts: string[] = []
  for await (const { bytes } of journal.replay(grant)) texts.push(Buffer.from(bytes).toString())
  return texts
}

/** Without those that are overlooked: of an epoch below one that stands before them. */
function count(texts: readonly string[]): string[] {
  let highest = 0
  return texts.filter((text) => {
    const epoch = Number.parseInt(text, 10)
    highest = Math.max(highest, epoch)
    return epoch === highest
  })
}

function check({ durable, epochs, found }: History, all: readonly string[], seed: number): void {
  const counted = count(all)
  const place = new Map(counted.map((text, i) => [text, i]))
  equal(place.size, counted.length, `an entry is stored twice (seed ${seed})`)
  for (const { text } of durable)
    ok(place.has(text), `'${text}' was durable and is missing or overlooked (seed ${seed})`)
  const places = durable.map(({ epoch, text }) => ({ epoch, at: place.get(text) ?? -1 }))
  const lastOf = new Map<number, number>()
  for (const { epoch, at } of places) {
    ok(at > (lastOf.get(epoch) ?? -1), `entries of grant ${epoch} are out of order (seed ${seed})`)
    lastOf.set(epoch, at)
  }
  equal(new Set(epochs).size, epochs.length, `an epoch was granted twice (seed ${seed})`)
  for (const { epoch, texts } of found) {
    const upToClaim = count(texts).slice(
      0,
      count(texts).findIndex((text) => text.startsWith(`${epoch} `) && text.endsWith('claim')) + 1,
    )
    upToClaim.forEach((text, i) => {
      equal(counted[i], text, `grant ${epoch} found another beginning (seed ${seed})`)
    })
    for (const told of durable) {
      if (told.epoch < epoch)
        ok(upToClaim.includes(told.text), `grant ${epoch} did not find '${told.text}' (seed ${seed})`)
    }
  }
}
