/**
 * The Redis behind a journal, and whether it still is the one that it was (redis.ts, invariant 5). Each connection is asked
 * before it is used, and what it says of the journal is compared with what this process has seen before.
 */
import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { SluiceError } from '../../errors.ts'
import type { JournalOptions } from '../contract.ts'
import { type Inspection, inspectServer, type LogFile, readInfo, readLogFile, showVersion } from './checks.ts'
import { type Argument, Broken, type Connection, showUrl } from './connection.ts'
import { FORMAT, type Id, LOOK, MAKE, type Names, parseId } from './layout.ts'

/** The configuration of a server that is in use is looked at again. */
const INSPECT_MS = 30_000
const NO_PROMOTION = /^0*$/

/** What Redis says of the journal. */
export interface Look {
  readonly journalId: string
  readonly epoch: number
  readonly holder: string
  readonly last: Id
  readonly floor: Id
}

/** A grant of this process, as far as it can be held against what Redis says. */
export interface Known {
  readonly epoch: number
  readonly holder: string
  /** Of the last entry that is known to be stored. */
  readonly number: number
}

export class Server {
  readonly #options: JournalOptions
  readonly #names: Names
  #inspection: Inspection | null = null
  #inspectedMs = 0
  #journalId: string | null = null
  #replicationId = ''
  #epoch = 0

  constructor(options: JournalOptions, names: Names) {
    this.#options = options
    this.#names = names
  }

  get journalId(): string {
    return this.#journalId ?? ''
  }

  get inspection(): Inspection | null {
    return this.#inspection
  }

  /**
   * Waits until everything that was answered is written. With `always` it is. Else Redis answers first: while a sync is
   * under way it puts off writing, for up to 2 s, and when its disk is full it says so only to the next; killing it would lose
   * what was answered (docs/decisions/0005-a-journal-in-redis.md).
   */
  async confirm(connection: Connection): Promise<void> {
    if (this.#inspection?.asksForWrite !== true) return
    let wanted: LogFile | null = null
    for (let pauseMs = 0; ; pauseMs = Math.min(50, 2 * pauseMs + 1)) {
      const now = await readLogFile(connection)
      if (now.waitingBytes === 0) return
      // Others keep it from ever being empty: then it is enough that the file has grown by what waited.
      if (wanted === null || wanted.baseBytes !== now.baseBytes) wanted = now
      else if (now.bytes >= wanted.bytes + wanted.waitingBytes) return
      await delay(pauseMs)
    }
  }

  /** An epoch that was granted: there is none below it any more. */
  sawEpoch(epoch: number): void {
    this.#epoch = Math.max(this.#epoch, epoch)
  }

  /** Rejects with Broken where it may become right again, and with a SluiceError where it is not the right one. */
  async check(connection: Connection, known: Known | null): Promise<void> {
    const info = await readInfo(connection)
    if (info.get('loading') === '1' || info.get('async_loading') === '1') throw new Broken('it is loading its data')
    const isFirst = this.#journalId === null
    if (!isFirst && info.get('role') !== 'master') throw new Broken('it is a replica now')
    const replicationId = info.get('master_replid') ?? ''
    // A restarted server has a new id and no past; one that was promoted keeps the id of the primary it followed.
    if (!isFirst && replicationId !== this.#replicationId && !NO_PROMOTION.test(info.get('master_replid2') ?? ''))
      throw this.changed('a replica was promoted')
    await this.#inspect(connection)
    if (isFirst) await this.#make(connection)
    const look = await this.look(connection, known)
    this.#replicationId = replicationId
    this.#journalId = look.journalId
    // What a server that is killed would forget is not held against it.
    const isWritten = this.#inspection?.asksForWrite !== true || (await readLogFile(connection)).waitingBytes === 0
    if (isWritten) this.sawEpoch(look.epoch)
  }

  /** Now and then: somebody may have changed its configuration. */
  async checkAgain(connection: Connection): Promise<void> {
    if (performance.now() - this.#inspectedMs > INSPECT_MS) await this.#inspect(connection)
  }

  async #inspect(connection: Connection): Promise<void> {
    // Replicas that are gone while it is used come back: appends wait for them, and health says so.
    const wanted = this.#journalId === null ? this.#options : { ...this.#options, copies: 1 }
    const inspection = await inspectServer(connection, wanted)
    const refusals = inspection.findings.filter(({ severity }) => severity === 'refuse')
    if (refusals.length > 0) {
      const reasons = refusals.map(({ title, reason, remedy }) => `${title}: ${reason} ${remedy}`)
      throw new SluiceError(
        'UNSUPPORTED',
        `${showVersion(inspection.info)} at ${showUrl(this.#options.url)} cannot keep what was asked. ${reasons.join(' ')}`,
        { findings: refusals },
      )
    }
    this.#inspection = inspection
    this.#inspectedMs = performance.now()
  }

  async #make(connection: Connection): Promise<void> {
    if ((await this.#ask(connection))[0] !== 'none') return
    const { state, entries, lock } = this.#names
    await connection.ask([...runScript(MAKE, state, entries, lock), randomUUID()])
  }

  async #ask(connection: Connection): Promise<string[]> {
    const { state, entries, lock } = this.#names
    return (await connection.ask(runScript(LOOK, state, entries, lock))) as string[]
  }

  /** What it says of the journal. */
  async look(connection: Connection, known: Known | null): Promise<Look> {
    const [status, ...rest] = await this.#ask(connection)
    if (status === 'none') throw this.gone()
    if (status === 'foreign') {
      if (this.#journalId !== null) throw this.changed(`${rest[0]} is ${rest[1]}`)
      throw new SluiceError(
        'FOREIGN_DATA',
        `Redis at ${showUrl(this.#options.url)} has ${rest[0]}, ${rest[1]}, which is not of a journal of Sluice. Give another \`namespace\`, or remove it.`,
      )
    }
    const [format, journalId = '', epoch, holder = '', last = '', floor = ''] = rest
    if (format !== FORMAT)
      throw new SluiceError(
        'FORMAT_NEWER',
        `The journal in Redis has format ${format}, and this version knows ${FORMAT}. Use the version that wrote it, or a newer one.`,
      )
    const look: Look = { journalId, epoch: Number(epoch), holder, last: parseId(last), floor: parseId(floor) }
    this.#compare(look, known)
    return look
  }

  #compare(look: Look, known: Known | null): void {
    if (this.#journalId === null) return
    if (look.journalId !== this.#journalId) throw this.changed('it has another journal of this name')
    if (look.epoch < this.#epoch) throw this.changed(`its last grant is ${look.epoch}, and there was ${this.#epoch}`)
    if (known === null || look.epoch !== known.epoch) return
    if (look.holder !== known.holder) throw this.changed('the grant of this process is another one there')
    if (look.last.epoch !== look.epoch || look.last.number < known.number)
      throw this.changed(
        `its last entry is ${look.last.epoch}-${look.last.number}, and there was ${look.epoch}-${known.number}`,
      )
  }

  gone(): SluiceError {
    return this.changed('the journal is gone')
  }

  changed(what: string): SluiceError {
    return new SluiceError(
      'ENGINE_CHANGED',
      `Redis at ${showUrl(this.#options.url)} is not as it was: ${what}. What was acknowledged may be missing. Check it, then open Sluice again to go on with what is there.`,
    )
  }
}

export function runScript(text: string, ...keys: readonly string[]): Argument[] {
  return ['EVAL', text, String(keys.length), ...keys]
}
