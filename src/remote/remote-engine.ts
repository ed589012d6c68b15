/**
 * The engine on another machine: the contract over HTTP (server/routes/engine.ts), so that the same nouns work with a
 * `sluice serve` elsewhere.
 *
 * What may be sent again, and what not, when an answer does not come:
 *   not sent, refused as stopping or overloaded   nothing happened: again, until the patience of the call is over
 *   lost, and a second time changes nothing       again: find, watch, read, stats, extend, declare, pause, resume, seek,
 *                                                 remember, recall, an append of which every message has an idempotency
 *                                                 key (P8), a settle (its fence, P5)
 *   lost, and a second time may be another        again, under a number by which the server knows what it answered: any
 *                                                 other append, redrive, discard, forget. A server that was restarted in
 *                                                 between does not know: UNKNOWN (P2)
 *   lost, a lease                                 UNKNOWN: what it was granted is given back by the server, or ends with
 *                                                 its time
 * A settle that was sent twice, and is said to be lost by a server that was restarted, may be what the first one did: that
 * is UNKNOWN, too.
 *
 * Refused as overloaded, or not answered in time, it is asked again when the server says, and at random up to half as
 * long after that; and only as far as the retry budget goes (policy/retry-budget.ts), but for what ends work: without it
 * the work would be done again. A call that waits anyway goes on waiting; any other fails with the refusal.
 *
 * Holds are by token and end by time, so that they survive a restart of either end (P5); the worker extends them, and a
 * thread of its own does while the worker's is blocked (heart/heart.ts).
 *
 * Times that travel (deadlines, due times) are told by the server's clock: the handshake says how far it is ahead.
 *
 * `close` ends waits as if their time were over, lets calls under way finish within a few seconds, and cuts what is left.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { EngineAbilities } from '../engine/abilities.ts'
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
  WatchRequest,
} from '../engine/contract.ts'
import { isKeyed, isRepeatableCommand } from '../engine/repeatable.ts'
import { CALL_HEADER, decodeWire, encodeWire, SENT_TO_HEADER, WIRE_VERSION } from '../engine/wire.ts'
import { SluiceError } from '../errors.ts'
import { measureAheadMs, realHost } from '../host/host.ts'
import type { LeaseHeart } from '../lease-heart.ts'
import { backoffMs } from '../policy/retry.ts'
import { RetryBudget } from '../policy/retry-budget.ts'
import { openRemoteHeart, type RemoteHeart } from './heart.ts'
import { type Sent, Transport } from './transport.ts'

/** How long a call that does not wait is tried. */
const PATIENCE_MS = 10_000
/** How long `close` waits for calls under way. */
const CLOSE_MS = 5_000
/** What a network and a server may take beyond the wait that was asked for. */
const ANSWER_MS = 10_000
const BACKOFF = { baseMs: 20, factor: 2, maxMs: 1_000 }
/** What `open('http://…')` makes a Sluice of. */
export interface RemoteEngine extends Engine {
  /** Keeps what workers hold while their thread is blocked. Closed with the engine. */
  readonly heart: LeaseHeart
  /** How far the clock of the server was ahead of this machine's; 0 where they cannot be told apart. */
  readonly clockAheadMs: number
}

interface Handshake {
  readonly product?: string
  readonly version?: number
  readonly nowMs: number
  readonly abilities: EngineAbilities
  readonly maxWaitMs: number
}

interface Trying {
  readonly waitMs?: number
  readonly signal?: AbortSignal | undefined
  /**
   * What a second time would be: `same` changes nothing; `once` must not happen; `told` changes nothing, and the first
   * answer is worth more; `never` is not asked again.
   */
  readonly again: 'same' | 'once' | 'told' | 'never'
  /** Past the retry budget. */
  readonly isVital?: boolean
}

/** Shakes hands with the server at `url`, showing the key. Rejects with UNSUPPORTED where it is none of this version, else UNKNOWN. */
export async function openRemoteEngine(url: URL, credential?: string): Promise<RemoteEngine> {
  const transport = new Transport(url, credential)
  try {
    const sentAtMs = realHost.now()
    const handshake = await shakeHands(transport, url)
    return new HttpEngine(
      transport,
      handshake,
      openRemoteHeart(url, credential),
      measureAheadMs(handshake.nowMs, sentAtMs, realHost.now()),
    )
  } catch (error) {
    transport.close()
    throw error
  }
}

/** One whose connection breaks is asked again: a server is there, or was a moment ago. */
async function askHandshake(transport: Transport): Promise<Sent> {
  const untilMs = performance.now() + PATIENCE_MS
  let wasThere = false
  for (let tries = 1; ; tries++) {
    const sent = await transport.call({ method: 'GET', path: '/v1/engine', timeoutMs: ANSWER_MS })
    wasThere ||= sent.status === 'lost' || sent.status === 'refused'
    const isOver = sent.status === 'answered' || sent.status === 'aborted' || !wasThere
    if (isOver || (sent.status === 'refused' && !isBusy(sent.error)) || performance.now() > untilMs) return sent
    await delay(Math.max(BACKOFF.baseMs, backoffMs(BACKOFF, tries, Math.random())))
  }
}

async function shakeHands(transport: Transport, url: URL): Promise<Handshake> {
  const where = url.origin
  const sent = await askHandshake(transport)
  if (sent.status === 'refused') throw sent.error
  if (sent.status !== 'answered')
    throw new SluiceError(
      'UNKNOWN',
      `There is no answer from ${where}: ${'cause' in sent ? String(sent.cause) : sent.status}. Is \`sluice serve\` running there?`,
      { url: where },
      'cause' in sent ? sent.cause : undefined,
    )
  let said: Partial<Handshake> = {}
  try {
    said = JSON.parse(sent.body.toString('utf8')) as Partial<Handshake>
  } catch {
    // Something else answers there.
  }
  if (said.product !== 'sluice' || said.version !== WIRE_VERSION)
    throw new SluiceError(
      'UNSUPPORTED',
      said.product === 'sluice'
        ? `The Sluice at ${where} speaks version ${said.version}, and this one ${WIRE_VERSION}. Use the same release on both ends.`
        : `What answers at ${where} is not a Sluice. Give the address that \`sluice serve\` prints.`,
      { url: where },
    )
  return said as Handshake
}

class HttpEngine implements RemoteEngine {
  readonly abilities: EngineAbilities
  readonly clockAheadMs: number
  readonly #heart: RemoteHeart
  readonly #transport: Transport
  readonly #maxWaitMs: number
  /** Waits end with the first, everything with the second. */
  readonly #closing = new AbortController()
  readonly #closed = new AbortController()
  readonly #underWay = new Set<Promise<unknown>>()
  readonly #budget = new RetryBudget(performance.now())
  /** With the count of calls, the number of one. */
  readonly #id = crypto.randomUUID()
  #calls = 0
  #end: Promise<void> | null = null

  constructor(transport: Transport, { abilities, maxWaitMs }: Handshake, heart: RemoteHeart, clockAheadMs: number) {
    this.#transport = transport
    this.#heart = heart
    this.clockAheadMs = clockAheadMs
    this.abilities = abilities
    this.#maxWaitMs = maxWaitMs
  }

  get heart(): LeaseHeart {
    return this.#heart.heart
  }

  declare(declarations: readonly Declaration[]): Promise<readonly DeclareOutcome[]> {
    return this.#follow(() => this.#ask('declare', declarations, { again: 'same' }))
  }

  append(requests: readonly AppendRequest[]): Promise<readonly AppendOutcome[]> {
    return this.#follow(() => this.#ask('append', requests, { again: requests.every(isKeyed) ? 'same' : 'once' }))
  }

  async read(request: ReadRequest, signal?: AbortSignal): Promise<ReadOutcome> {
    return this.#wait(
      'read',
      request,
      signal,
      (outcome: ReadOutcome) => outcome.status === 'read' && outcome.messages.length === 0,
    )
  }

  async lease(request: LeaseRequest, signal?: AbortSignal): Promise<LeaseOutcome> {
    if (request.holder.kind !== 'token')
      throw new SluiceError(
        'UNSUPPORTED',
        'A hold on another machine is by a token: a process there cannot see this one end.',
      )
    return this.#wait('lease', request, signal, (outcome: LeaseOutcome) => outcome.status === 'empty')
  }

  extend(requests: readonly ExtendRequest[]): Promise<readonly ExtendOutcome[]> {
    return this.#follow(() => this.#ask('extend', requests, { again: 'same', isVital: true }))
  }

  async settle(requests: readonly SettleRequest[]): Promise<readonly SettleOutcome[]> {
    let sentBefore = false
    const outcomes = await this.#follow(() =>
      this.#ask<readonly SettleOutcome[]>('settle', requests, { again: 'told', isVital: true }, () => {
        sentBefore = true
      }),
    )
    const isDoubtful = sentBefore && outcomes.some((outcome) => outcome.status === 'settled' && outcome.lost.length > 0)
    if (isDoubtful)
      throw new SluiceError(
        'UNKNOWN',
        'The answer to a settle was lost, and sent again it found the lease gone: either the first took effect, or the lease had ended.',
      )
    return outcomes
  }

  find(ids: readonly string[]): Promise<readonly FindOutcome[]> {
    return this.#follow(() => this.#ask('find', ids, { again: 'same' }))
  }

  async watch(request: WatchRequest, signal?: AbortSignal): Promise<FindOutcome> {
    return this.#wait(
      'watch',
      request,
      signal,
      (outcome: FindOutcome) => outcome.status === 'found' && !isWanted(request, outcome),
    )
  }

  command(command: Command): Promise<CommandOutcome> {
    if (command.kind === 'backup') return this.#follow(() => this.#backup(command.file))
    return this.#follow(() => this.#ask('command', command, { again: isRepeatableCommand(command) ? 'same' : 'once' }))
  }

  async #backup(file: string): Promise<CommandOutcome> {
    return { status: 'done', value: await this.#transport.download(file, this.#closing.signal) }
  }

  stats(): Promise<EngineStats> {
    return this.#follow(() => this.#ask('stats', null, { again: 'same' }))
  }

  close(): Promise<void> {
    this.#end ??= this.#close()
    return this.#end
  }

  async #close(): Promise<void> {
    this.#closing.abort()
    const cut = new AbortController()
    const last = delay(CLOSE_MS, undefined, { signal: cut.signal }).catch(() => {})
    await Promise.race([Promise.allSettled([...this.#underWay]), last])
    cut.abort()
    this.#closed.abort()
    this.#transport.close()
    await this.#heart.close()
  }

  /** Calls that came before `close` are waited for. */
  async #follow<T>(call: () => Promise<T>): Promise<T> {
    if (this.#closing.signal.aborted) throw new SluiceError('CLOSED')
    const running = call()
    this.#underWay.add(running)
    try {
      return await running
    } finally {
      this.#underWay.delete(running)
    }
  }

  /** Waits in turns that the server grants, until there is something or the time is over. An aborted wait answers as one that ended. */
  async #wait<T extends LeaseOutcome | ReadOutcome | FindOutcome>(
    method: 'lease' | 'read' | 'watch',
    request: { readonly waitMs: number },
    signal: AbortSignal | undefined,
    isNothing: (outcome: T) => boolean,
  ): Promise<T> {
    return this.#follow(() => this.#waitInTurns(method, request, anyOf(signal, this.#closing.signal), isNothing))
  }

  async #waitInTurns<T extends LeaseOutcome | ReadOutcome | FindOutcome>(
    method: 'lease' | 'read' | 'watch',
    request: { readonly waitMs: number },
    signal: AbortSignal,
    isNothing: (outcome: T) => boolean,
  ): Promise<T> {
    const untilMs = performance.now() + request.waitMs
    for (;;) {
      const leftMs = signal.aborted ? 0 : Math.max(0, Math.ceil(untilMs - performance.now()))
      const waitMs = Math.min(leftMs, this.#maxWaitMs)
      try {
        const outcome = await this.#ask<T>(
          method,
          { ...request, waitMs },
          { waitMs, signal, again: method === 'lease' ? 'never' : 'same' },
        )
        if (!isNothing(outcome) || leftMs <= waitMs) return outcome
      } catch (error) {
        if (error !== ABORTED) throw error
        // A lease has nothing to say once nobody waits; of the others the answer is how things are.
        if (method === 'lease') return { status: 'empty' } as T
        return this.#ask<T>(method, { ...request, waitMs: 0 }, { again: 'same' })
      }
    }
  }

  async #ask<T>(method: string, argument: unknown, trying: Trying, onRepeat: () => void = () => {}): Promise<T> {
    const { waitMs = 0, signal, again, isVital = false } = trying
    const body = encodeWire(argument)
    const untilMs = performance.now() + PATIENCE_MS + waitMs
    let headers: Readonly<Record<string, string>> = {}
    if (again === 'once' || again === 'told') headers = { [CALL_HEADER]: `${this.#id}-${++this.#calls}` }
    this.#budget.deposit()
    for (let tries = 1; ; tries++) {
      if (this.#closed.signal.aborted) throw new SluiceError('CLOSED')
      const { serverProcess } = this.#transport
      const sent = await this.#transport.call({
        method: 'POST',
        path: `/v1/engine/${method}`,
        body,
        headers,
        timeoutMs: waitMs + ANSWER_MS,
        signal,
      })
      if (sent.status === 'answered') return decodeWire(sent.body) as T
      if (sent.status === 'aborted') throw ABORTED
      if (this.#closed.signal.aborted && sent.status !== 'refused') throw this.#unknown('this Sluice was closed')
      if (sent.status === 'refused' && !isBusy(sent.error)) throw sent.error
      if (sent.status === 'lost') {
        if (again === 'never') throw this.#unknown(sent.cause)
        if (again === 'once') headers = { [SENT_TO_HEADER]: serverProcess, ...headers }
        onRepeat()
      }
      const failure = sent.status === 'refused' ? notClosed(sent.error) : this.#unknown(sent.cause)
      const isLoad = sent.status === 'refused' || (sent.status === 'lost' && sent.isLate)
      const pauseMs = pauseAfter(sent, tries)
      if (performance.now() + pauseMs > untilMs) throw failure
      if (isLoad && !isVital && waitMs === 0 && !this.#budget.withdraw(performance.now())) throw failure
      await this.#pause(pauseMs, signal)
      while (isLoad && waitMs > 0 && !this.#budget.withdraw(performance.now())) {
        if (performance.now() + BACKOFF.maxMs > untilMs) throw failure
        await this.#pause(BACKOFF.maxMs * (1 + Math.random()), signal)
      }
    }
  }

  /** Ends early where the call is not wanted any more. */
  async #pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
    await delay(ms, undefined, { signal: anyOf(signal, this.#closed.signal) }).catch(() => {})
    if (signal?.aborted === true) throw ABORTED
    if (this.#closed.signal.aborted) throw new SluiceError('CLOSED')
  }

  #unknown(cause: unknown): SluiceError {
    return new SluiceError(
      'UNKNOWN',
      `Whether it took effect is not known: ${cause instanceof Error ? cause.message : String(cause)}. Sent again under the same idempotency key it is stored once.`,
      {},
      cause,
    )
  }
}

/** Thrown within this file only. */
const ABORTED = new Error('aborted')

/** It is stopping, or has too much to do: nothing was done, and it may go better in a moment. */
function isBusy({ code }: SluiceError): boolean {
  return code === 'CLOSED' || code === 'OVERLOADED'
}

/** `CLOSED` says that this Sluice is, for good; a server that stops comes back. */
function notClosed(error: SluiceError): SluiceError {
  return error.code === 'CLOSED' ? new SluiceError('OVERLOADED', error.message, error.details) : error
}

/** As long as the server says, and up to half as long again; where it does not, the usual back-off. */
function pauseAfter(sent: Sent, tries: number): number {
  const named = sent.status === 'refused' ? sent.error.details['retryAfterMs'] : undefined
  if (typeof named === 'number' && named > 0) return named * (1 + Math.random() / 2)
  return Math.max(BACKOFF.baseMs, backoffMs(BACKOFF, tries, Math.random()))
}

function isWanted(request: WatchRequest, { job }: Extract<FindOutcome, { status: 'found' }>): boolean {
  const isOver = ['completed', 'failed', 'cancelled', 'expired'].includes(job.status)
  return isOver || (!request.untilTerminal && job.version > request.version)
}

function anyOf(signal: AbortSignal | undefined, other: AbortSignal): AbortSignal {
  return signal === undefined ? other : AbortSignal.any([signal, other])
}
