/**
 * An engine of few lines, whose answers a test scripts: each method is a function that a test may replace, and each call
 * is written down. As it comes it stores everything in one count of offsets, hands out what `give` was told to, and
 * settles whatever it is asked to.
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
  FullOutcome,
  LeaseOutcome,
  LeaseRequest,
  ReadOutcome,
  ReadRequest,
  SettleOutcome,
  SettleRequest,
  StoreReceipt,
  WatchRequest,
} from '../../src/engine/contract.ts'
import { SluiceError } from '../../src/errors.ts'
import { BatchBuilder, BatchView, type MessageFields } from '../../src/message-batch.ts'

export const RECEIPT: StoreReceipt = { partition: 0, timestampMs: 1_700_000_000_000, durability: 'disk', copies: 1 }
export const FULL: FullOutcome = { status: 'full', reason: 'messages', depth: 10, limit: 10, retryAfterMs: 1_000 }

export class FakeEngine implements Engine {
  readonly declared: Declaration[] = []
  readonly appended: AppendRequest[][] = []
  readonly leased: LeaseRequest[] = []
  readonly extended: ExtendRequest[][] = []
  readonly settledRequests: SettleRequest[][] = []
  readonly commands: Command[] = []
  head = 0
  isClosed = false
  #fence = 0
  #offset = 0
  #waiting: { readonly request: LeaseRequest; readonly answer: (outcome: LeaseOutcome) => void }[] = []

  readonly abilities = {
    durability: 'disk',
    copies: 1,
    persistence: 'native',
    keyOrder: 'native',
    priority: 'native',
    delay: 'native',
    replay: 'native',
    admission: 'native',
    idempotency: 'native',
    atomicOutputs: 'native',
    partitions: 'refused',
  } as const

  // ---- what a test may replace

  onDeclare: (declaration: Declaration) => DeclareOutcome | Promise<DeclareOutcome> = () => ({
    status: 'declared',
    created: true,
    tag: 'abc123',
    settings: {},
  })
  onAppend: (requests: readonly AppendRequest[]) => readonly AppendOutcome[] | Promise<readonly AppendOutcome[]> = (
    requests,
  ) => requests.map((request) => this.store(request))
  onSettle: (requests: readonly SettleRequest[]) => readonly SettleOutcome[] | Promise<readonly SettleOutcome[]> = (
    requests,
  ) => requests.map(() => ({ status: 'settled', lost: [], outputs: [] }))
  onExtend: (request: ExtendRequest) => ExtendOutcome = () => ({ status: 'extended', expiresAtMs: 0, lost: [] })
  onWatch: (request: WatchRequest, signal?: AbortSignal) => FindOutcome | Promise<FindOutcome> = () => ({
    status: 'not-found',
  })
  onFind: (id: string) => FindOutcome = () => ({ status: 'not-found' })
  onCommand: (command: Command) => CommandOutcome | Promise<CommandOutcome> = () => ({ status: 'done' })
  /** null: a lease waits for `give`. */
  onLease: ((request: LeaseRequest) => LeaseOutcome | Promise<LeaseOutcome>) | null = null

  /** Answers the lease that waits for longest with these messages; with as many as it asked for at most. */
  give(...messages: MessageFields[]): { readonly fence: number; readonly offsets: readonly number[] } {
    const next = this.#waiting.shift()
    if (next === undefined) throw new Error('no lease waits')
    if (messages.length > next.request.max) throw new Error(`${messages.length} given, ${next.request.max} asked for`)
    const leased = this.makeLease(messages)
    next.answer(leased)
    return leased
  }

  makeLease(messages: readonly MessageFields[], attempt = 1): Extract<LeaseOutcome, { status: 'leased' }> {
    const builder = new BatchBuilder()
    for (const message of messages) builder.add(message)
    return {
      status: 'leased',
      fence: ++this.#fence,
      expiresAtMs: 0,
      batch: builder.finish(),
      offsets: messages.map(() => this.#offset++),
      attempts: messages.map(() => attempt),
      timestampsMs: messages.map(() => RECEIPT.timestampMs),
    }
  }

  get waitingLeases(): readonly LeaseRequest[] {
    return this.#waiting.map(({ request }) => request)
  }

  store({ batch }: AppendRequest): AppendOutcome {
    const offset = this.head
    this.head += new BatchView(batch).count
    return { status: 'stored', offset, receipt: RECEIPT }
  }

  // ---- the contract

  async declare(declarations: readonly Declaration[]): Promise<readonly DeclareOutcome[]> {
    this.#checkOpen()
    this.declared.push(...declarations)
    return Promise.all(declarations.map((one) => this.onDeclare(one)))
  }

  async append(requests: readonly AppendRequest[]): Promise<readonly AppendOutcome[]> {
    this.#checkOpen()
    this.appended.push([...requests])
    return this.onAppend(requests)
  }

  async read(_request: ReadRequest): Promise<ReadOutcome> {
    this.#checkOpen()
    return { status: 'not-found' }
  }

  async lease(request: LeaseRequest, signal?: AbortSignal): Promise<LeaseOutcome> {
    this.#checkOpen()
    this.leased.push(request)
    if (this.onLease !== null) return this.onLease(request)
    return new Promise((answer) => {
      const waiting = { request, answer }
      this.#waiting.push(waiting)
      signal?.addEventListener('abort', () => {
        this.#waiting = this.#waiting.filter((one) => one !== waiting)
        answer({ status: 'empty' })
      })
    })
  }

  async extend(requests: readonly ExtendRequest[]): Promise<readonly ExtendOutcome[]> {
    this.#checkOpen()
    this.extended.push([...requests])
    return requests.map((request) => this.onExtend(request))
  }

  async settle(requests: readonly SettleRequest[]): Promise<readonly SettleOutcome[]> {
    this.#checkOpen()
    this.settledRequests.push([...requests])
    return this.onSettle(requests)
  }

  async find(ids: readonly string[]): Promise<readonly FindOutcome[]> {
    this.#checkOpen()
    return ids.map((id) => this.onFind(id))
  }

  async watch(request: WatchRequest, signal?: AbortSignal): Promise<FindOutcome> {
    this.#checkOpen()
    return this.onWatch(request, signal)
  }

  async command(command: Command): Promise<CommandOutcome> {
    this.#checkOpen()
    this.commands.push(command)
    return this.onCommand(command)
  }

  async stats(): Promise<EngineStats> {
    throw new Error('not scripted')
  }

  async close(): Promise<void> {
    this.isClosed = true
  }

  #checkOpen(): void {
    if (this.isClosed) throw new SluiceError('CLOSED')
  }
}
