/**
 * The process that owns the store: the real broker and ledger, over a log whose commits take virtual time and can be
 * the last thing that the process does. It dies and comes back; clients notice only that answers do not come.
 *
 * A crash is planned for one of the next commits, or between two. In a commit it is `lost`, `kept` or `torn` (see
 * logs/memory.ts), and in each case nobody hears an answer.
 */
import { Broker } from '../../src/broker/broker.ts'
import type { History } from '../../src/conformance/history.ts'
import { SluiceError } from '../../src/errors.ts'
import { createRandom } from '../../src/host/host.ts'
import type { LedgerAnswer, LedgerRequest } from '../../src/ledger/requests.ts'
import type { Commit, CommitOutcome, Log, Ownership } from '../../src/logs/contract.ts'
import type { CrashKind } from '../../src/logs/memory.ts'
import type { Situations } from './situations.ts'
import type { Store } from './store.ts'
import type { Swarm } from './swarm.ts'
import type { World } from './world.ts'

export type Take = (answer: LedgerAnswer) => void
export type Body<K extends LedgerRequest['kind']> = Extract<LedgerRequest, { kind: K }>['body']

/** Commits between two crashes are about this many, so that a run of 2,000 operations has its five. */
const MEAN_COMMITS_TO_CRASH = 120
const HOUR_MS = 3_600_000

export class SimulatedServer {
  readonly #world: World
  readonly #store: Store
  readonly #history: History
  readonly #swarm: Swarm
  readonly #situations: Situations
  #broker: Broker | null = null
  #log: Log | null = null
  /** Which process it is. What an earlier one still does is nobody's business. */
  life = 0
  #nextId = 1
  #clockOffsetMs = 0
  #highestOffsetMs = 0
  #commitsToCrash = Number.POSITIVE_INFINITY
  #isDiskFull = false
  #slowUntilMs = 0
  #isHealed = false
  crashes = 0
  readonly #waiting = new Map<number, Take>()
  /** Whoever waits for an answer; told when the process dies. */
  readonly connections = new Set<() => void>()
  /** Told when the process died, and when a new one serves. */
  readonly onCrash: (() => void)[] = []
  readonly onOpen: (() => void)[] = []

  constructor(world: World, store: Store, history: History, swarm: Swarm, situations: Situations) {
    this.#world = world
    this.#store = store
    this.#history = history
    this.#swarm = swarm
    this.#situations = situations
  }

  /** Whole ms since 1970 by the clock of the engine. */
  get nowMs(): number {
    return Math.floor(this.#world.nowMs) + this.#clockOffsetMs
  }

  get isUp(): boolean {
    return this.#broker !== null
  }

  /** A process starts. */
  start(): void {
    this.#world.holdFor(this.#open())
  }

  /** Gives a request to the process. Null: there is none. The number of the request, to end its wait with. */
  submit<K extends LedgerRequest['kind']>(kind: K, body: Body<K>, take: Take): number | null {
    if (this.#broker === null) return null
    const id = this.#nextId++
    this.#waiting.set(id, take)
    this.#broker.submit([{ id, kind, body } as LedgerRequest])
    return id
  }

  /** From now on no crash, no full or slow disk; a clock that was set back is right again, so that what is due comes. */
  heal(): void {
    this.#isHealed = true
    this.#clockOffsetMs = this.#highestOffsetMs
    this.#isDiskFull = false
    this.#slowUntilMs = 0
    this.#commitsToCrash = Number.POSITIVE_INFINITY
  }

  /** Something happens to the machine now and then. */
  trouble(): void {
    const world = this.#world
    if (this.#isHealed) return
    if (world.chance(this.#swarm.share('full-disk', 0.2))) {
      this.#isDiskFull = !this.#isDiskFull
      if (this.#isDiskFull) this.#situations.saw('disk full')
    }
    if (world.chance(this.#swarm.share('slow-disk', 0.2))) {
      this.#slowUntilMs = world.nowMs + world.between(100, 3_000)
      this.#situations.saw('slow disk')
    }
    if (world.chance(this.#swarm.share('clock-jumps', 0.05))) {
      this.#setClock(world.pick([50, 1_000, HOUR_MS]))
      this.#situations.saw('clock set forward while it runs')
    }
    if (this.crashes < this.#swarm.crashes && world.chance(0.02)) this.#die('between')
  }

  async #open(): Promise<void> {
    const life = ++this.life
    const world = this.#world
    const log = this.#store.open()
    this.#log = log
    const random = createRandom(world.below(2 ** 31))
    const host = {
      now: () => this.nowMs,
      random,
      setTimer: (ms: number, fire: () => void) => {
        let isWanted = true
        world.schedule(Math.max(ms, 0), () => {
          if (isWanted && life === this.life) fire()
        })
        return () => {
          isWanted = false
        }
      },
    }
    this.#commitsToCrash =
      this.crashes < this.#swarm.crashes && !this.#isHealed
        ? 1 + Math.floor(-Math.log(1 - world.random()) * MEAN_COMMITS_TO_CRASH)
        : Number.POSITIVE_INFINITY
    try {
      const broker = await Broker.open(this.#simulate(log, life), host, (answers) => {
        if (life === this.life) this.#take(answers)
      })
      if (life !== this.life) return
      this.#broker = broker
    } catch (error) {
      // A process may die while it opens, and nothing else may go wrong with it.
      if (life === this.life) throw error
      return
    }
    this.#history.mark(this.nowMs, 'open')
    for (const listener of this.onOpen) listener()
  }

  #setClock(byMs: number): void {
    this.#clockOffsetMs += byMs
    this.#highestOffsetMs = Math.max(this.#highestOffsetMs, this.#clockOffsetMs)
  }

  #take(answers: readonly LedgerAnswer[]): void {
    for (const answer of answers) {
      const take = this.#waiting.get(answer.id)
      this.#waiting.delete(answer.id)
      take?.(answer)
    }
  }

  #simulate(log: Log, life: number): Log {
    return {
      abilities: { ...log.abilities, durability: 'memory' },
      declare: (topics) => log.declare(topics),
      read: (topic, partition, offset, maxBytes) => log.read(topic, partition, offset, maxBytes),
      own: () => log.own(),
      commit: (ownership, commit) => this.#commit(log, life, ownership, commit),
      changes: (ownership) => log.changes(ownership),
      trim: (topic, partition, offset) => log.trim(topic, partition, offset),
      health: () => log.health(),
      close: () => log.close(),
    }
  }

  #commit(log: Log, life: number, ownership: Ownership, commit: Commit): CommitOutcome | Promise<CommitOutcome> {
    const world = this.#world
    // An engine that opens commits at once, since nobody is served meanwhile.
    if (this.#broker === null) {
      if (--this.#commitsToCrash > 0) return log.commit(ownership, commit)
      this.#situations.saw('crash while it opens')
      this.#dieIn(log, ownership, commit)
      throw new SluiceError('ENGINE_FAILED', 'The process died while it opened')
    }
    if (this.#isDiskFull && commit.outputs.length > 0) {
      world.stir()
      return Promise.resolve({ status: 'full' })
    }
    const isLast = --this.#commitsToCrash <= 0
    if (!isLast && world.nowMs >= this.#slowUntilMs && world.chance(0.5)) return log.commit(ownership, commit)
    const tookMs = world.nowMs < this.#slowUntilMs ? world.between(50, 800) : world.random() * 3
    return new Promise((resolve) => {
      world.schedule(tookMs, () => {
        if (life !== this.life) return
        if (isLast) {
          this.#dieIn(log, ownership, commit)
          return
        }
        world.stir()
        resolve(log.commit(ownership, commit))
      })
    })
  }

  #dieIn(log: Log, ownership: Ownership, commit: Commit): void {
    const kind = this.#world.pick<CrashKind>(['lost', 'kept', 'torn'])
    this.life++
    this.#store.crashIn(kind, log, ownership, commit)
    this.#die(kind)
  }

  #die(how: CrashKind | 'between'): void {
    if (this.#log === null) return
    const world = this.#world
    // Nobody hears of what the old process still does.
    this.life++
    if (how === 'between') this.#store.crash(this.#log)
    this.crashes++
    this.#situations.saw(`crash ${how}`)
    this.#broker = null
    this.#log = null
    this.#waiting.clear()
    this.#history.mark(this.nowMs, 'crash')
    for (const cut of [...this.connections]) cut()
    this.connections.clear()
    if (world.chance(this.#swarm.share('clock-jumps', 0.4))) {
      this.#setClock(world.pick([-HOUR_MS, -700, 700, HOUR_MS]))
      this.#situations.saw('clock set between two processes')
    }
    for (const listener of this.onCrash) listener()
    world.schedule(world.between(1, 1_500), () => this.start())
  }
}
