/**
 * The local engine: the engine contract over a broker in this process.
 *
 * Calls become numbered requests. All that are made in one turn of the event loop travel as one message, and at most
 * two messages are on their way: while the broker commits one, the next gathers, so that batches grow by themselves and
 * settles ride with the next publish.
 */
import type {
  AppendOutcome,
  AppendRequest,
  Command,
  CommandOutcome,
  Declaration,
  DeclareOutcome,
  Engine,
  EngineStats,
  ExtendOutcome,
  ExtendRequest,
  FindOutcome,
  LeaseOutcome,
  LeaseRequest,
  ReadOutcome,
  ReadRequest,
  SettleOutcome,
  SettleRequest,
  TopicStats,
  WatchRequest,
} from '../engine/contract.ts'
import { SluiceError } from '../errors.ts'
import { Heart } from '../heart/heart.ts'
import { type Host, realHost } from '../host/host.ts'
import type { Journal } from '../journals/contract.ts'
import type { AnswerValue, LedgerAnswer, LedgerRequest } from '../ledger/requests.ts'
import type { Durability, LogHealth } from '../logs/contract.ts'
import { takeBackup } from './backup.ts'
import { unknownOutcome } from './broker.ts'
import { type Link, openMemoryLink, openThreadLink } from './link.ts'
import type { SharedOptions } from './messages.ts'
import { openRouterLink, type RouterLinkOptions } from './shared/link.ts'

const MAX_MESSAGES_UNDER_WAY = 2

export interface LocalEngineOptions {
  /** P1. @default 'disk' for a folder, 'memory' for ':memory:' */
  readonly durability?: Durability | undefined
  readonly host?: Host | undefined
}

interface Call {
  readonly resolve: (value: never) => void
  readonly reject: (error: SluiceError) => void
}

/** Opens the embedded engine over a folder, or over memory for ':memory:'. */
export async function openLocalEngine(folder: string, options: LocalEngineOptions = {}): Promise<Engine> {
  const engine = new LocalEngine()
  const { durability } = options
  if (folder === ':memory:') {
    if (durability !== undefined && durability !== 'memory') {
      throw new SluiceError(
        'UNSUPPORTED',
        `':memory:' keeps nothing over the end of the process, so durability '${durability}' is refused. Open a folder`,
      )
    }
    engine.connect(await openMemoryLink(options.host ?? realHost, engine.onAnswers))
  } else {
    if (durability === 'memory') {
      throw new SluiceError(
        'UNSUPPORTED',
        "A folder is always at least as durable as 'os'. Open ':memory:' for durability 'memory'",
      )
    }
    const entry = { entry: 'thread', options: { folder, durability: durability ?? 'disk' } } as const
    engine.connect(await openThreadLink(entry, engine.onAnswers, engine.onFailure))
  }
  return engine
}

interface Clocked {
  /** How far the clock that the ledger goes by is ahead of this machine's, as far as is known; changes with the owner. */
  readonly clockAheadMs: number
}

/** What `open('redis://…')` and its like make a Sluice of. */
export interface SharedEngine extends Engine, Clocked {
  /** Keeps what workers hold while their thread is blocked. Closed with the engine. */
  readonly heart: Heart
}

/** Opens the engine over a broker that this process shares with others. */
export async function openSharedEngine(options: SharedOptions): Promise<SharedEngine> {
  const engine = new LedgerElsewhere()
  const data = { ...options, seat: engine.heart.seat }
  engine.connect(await openThreadLink({ entry: 'shared/thread', options: data }, engine.onAnswers, engine.onFailure))
  return engine
}

/** The same in this thread, over a journal that is open: for tests, simulations, and journals of one's own. */
export async function openJournalEngine(
  journal: Journal,
  { host = realHost, ...options }: RouterLinkOptions & { readonly host?: Host } = {},
): Promise<Engine & Clocked> {
  const engine = new LocalEngine()
  engine.connect(await openRouterLink(journal, host, engine.onAnswers, options))
  return engine
}

class LocalEngine implements Engine, Clocked {
  #link: Link | null = null
  #nextId = 1
  readonly #calls = new Map<number, Call>()
  #outbox: LedgerRequest[] = []
  #transfer: ArrayBuffer[] = []
  #underWay = 0
  /** What is asked past the ledger (the log's health, a backup) and has no answer yet. */
  #aside = 0
  #flushIsSet = false
  #failure: SluiceError | null = null
  #closed: Promise<void> | null = null

  get abilities() {
    return (this.#link as Link).abilities
  }

  get clockAheadMs(): number {
    return this.#link?.clockAheadMs() ?? 0
  }

  connect(link: Link): void {
    this.#link = link
    link.keepAlive(false)
  }

  readonly onAnswers = (answers: readonly LedgerAnswer[], messages: number): void => {
    this.#underWay -= messages
    for (const answer of answers) {
      const call = this.#calls.get(answer.id)
      if (call === undefined) continue
      this.#calls.delete(answer.id)
      if ('value' in answer) call.resolve(answer.value as never)
      else call.reject(new SluiceError(answer.error.code, answer.error.message, { ...answer.error.details }))
    }
    if (this.#outbox.length > 0) this.#flush()
    this.#rest()
  }

  /** Lets the process end while nobody waits for an answer. */
  #rest(): void {
    if (this.#calls.size === 0 && this.#aside === 0 && this.#closed === null) this.#link?.keepAlive(false)
  }

  readonly onFailure = (error: SluiceError): void => {
    this.#failure ??= error
    const unsent = new Set(this.#outbox.map(({ id }) => id))
    const calls = [...this.#calls]
    this.#calls.clear()
    this.#outbox = []
    // What had left may have been kept, and only the answer lost (P2). At `close` everything was answered before.
    const unknown = this.#failure.code === 'CLOSED' ? this.#failure : unknownOutcome(this.#failure)
    for (const [id, call] of calls) call.reject(unsent.has(id) ? this.#failure : unknown)
  }

  declare(declarations: readonly Declaration[]) {
    return this.#call<readonly DeclareOutcome[]>('declare', declarations)
  }

  append(requests: readonly AppendRequest[]) {
    for (const { batch } of requests) this.#transferBatch(batch)
    return this.#call<readonly AppendOutcome[]>('append', requests)
  }

  read(request: ReadRequest, signal?: AbortSignal) {
    return this.#call<ReadOutcome>('read', request, signal)
  }

  async lease(request: LeaseRequest, signal?: AbortSignal): Promise<LeaseOutcome> {
    const outcome = await this.#call<LeaseOutcome>('lease', request, signal)
    if (outcome.status === 'leased' && signal?.aborted === true) {
      const { topic, group } = request
      const token = request.holder.kind === 'token' ? request.holder.token : undefined
      await this.settle([
        { topic, group, fence: outcome.fence, offsets: outcome.offsets, token, outcome: { kind: 'release' } },
      ])
      return { status: 'empty' }
    }
    return outcome
  }

  extend(requests: readonly ExtendRequest[]) {
    return this.#call<readonly ExtendOutcome[]>('extend', requests)
  }

  settle(requests: readonly SettleRequest[]) {
    for (const { outputs } of requests) for (const { batch } of outputs ?? []) this.#transferBatch(batch)
    return this.#call<readonly SettleOutcome[]>('settle', requests)
  }

  find(ids: readonly string[]) {
    return this.#call<readonly FindOutcome[]>('find', ids)
  }

  watch(request: WatchRequest, signal?: AbortSignal) {
    return this.#call<FindOutcome>('watch', request, signal)
  }

  command(command: Command) {
    if (command.kind === 'backup') return this.#backup(command.file)
    return this.#call<CommandOutcome>('command', command)
  }

  async #backup(file: string): Promise<CommandOutcome> {
    if (this.#failure !== null) throw this.#failure
    if (this.#closed !== null) throw new SluiceError('CLOSED')
    const link = this.#link as Link
    this.#aside++
    link.keepAlive(true)
    try {
      return { status: 'done', value: JSON.stringify(await takeBackup(file, (unfinished) => link.copy(unfinished))) }
    } finally {
      this.#aside--
      this.#rest()
    }
  }

  async stats(): Promise<EngineStats> {
    const [topics, health] = await Promise.all([this.#call<readonly TopicStats[]>('stats', null), this.#health()])
    const { status, reasons, counters, storedBytes } = health
    return { topics, log: { status, reasons, ...counters, storedBytes } }
  }

  async #health(): Promise<LogHealth> {
    this.#aside++
    try {
      return await (this.#link as Link).health()
    } finally {
      this.#aside--
      this.#rest()
    }
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    while (this.#outbox.length > 0 && this.#failure === null) await this.#call<readonly FindOutcome[]>('find', [])
    await this.#link?.close()
    this.onFailure(new SluiceError('CLOSED'))
  }

  #transferBatch(batch: Uint8Array): void {
    if (batch.byteOffset === 0 && batch.byteLength === batch.buffer.byteLength)
      this.#transfer.push(batch.buffer as ArrayBuffer)
  }

  #call<T extends AnswerValue>(kind: LedgerRequest['kind'], body: unknown, signal?: AbortSignal): Promise<T> {
    if (this.#failure !== null) return Promise.reject(this.#failure)
    const id = this.#nextId++
    this.#outbox.push({ id, kind, body } as LedgerRequest)
    if (this.#calls.size === 0) this.#link?.keepAlive(true)
    this.#setFlush()
    return new Promise<T>((resolve, reject) => {
      if (signal === undefined) {
        this.#calls.set(id, { resolve: resolve as Call['resolve'], reject })
        return
      }
      const abort = (): void => {
        if (!this.#calls.has(id)) return
        this.#outbox.push({ id: this.#nextId++, kind: 'abort', body: id })
        this.#setFlush()
      }
      const end = (): void => signal.removeEventListener('abort', abort)
      this.#calls.set(id, {
        resolve: (value: never) => {
          end()
          resolve(value)
        },
        reject: (error) => {
          end()
          reject(error)
        },
      })
      if (signal.aborted) abort()
      else signal.addEventListener('abort', abort, { once: true })
    })
  }

  #setFlush(): void {
    if (this.#flushIsSet || this.#underWay >= MAX_MESSAGES_UNDER_WAY) return
    this.#flushIsSet = true
    queueMicrotask(() => {
      this.#flushIsSet = false
      if (this.#outbox.length > 0 && this.#underWay < MAX_MESSAGES_UNDER_WAY) this.#flush()
    })
  }

  #flush(): void {
    const requests = this.#outbox
    const transfer = this.#transfer
    this.#outbox = []
    this.#transfer = []
    this.#underWay++
    this.#link?.send(requests, transfer)
  }
}

/** The ledger may run in another process, where holds end by time. */
class LedgerElsewhere extends LocalEngine implements SharedEngine {
  readonly heart = new Heart()
}
