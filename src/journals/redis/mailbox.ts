/**
 * Letters over the publish and subscribe of Redis, which keeps nothing: a letter costs no sync, one for nobody leaves
 * nothing, and what is under way when a connection breaks is lost (contract, rule 9). On a connection of its own, so that
 * letters do not stand in line behind entries, and so that Redis, which cuts off receivers that are far behind, cuts off only
 * this one. Letters too large for that are put down for a minute, and what is published says where.
 *
 *     0  letter            1  key of the letter
 */
import { randomUUID } from 'node:crypto'
import type { Mailbox } from '../contract.ts'
import { Broken, type Connection, Link, type LinkOptions, Refused } from './connection.ts'
import { type Names, PUT } from './layout.ts'
import { runScript } from './server.ts'

const INLINE = Buffer.of(0)
const PUT_DOWN = Buffer.of(1)
/** Redis's default cuts a receiver off that is behind by 32 MiB. */
const MOST_INLINE_BYTES = 1024 ** 2
const PUT_DOWN_MS = 60_000
/** How long it stays once somebody has read it: one for all has more readers. */
const READ_MS = 5_000

export interface MailboxOptions extends Omit<LinkOptions, 'prepare'> {
  readonly names: Names
  readonly journalId: string
  readonly connectMs: number
  readonly onLetter: (letter: Uint8Array) => void
  /** The lock was given up. */
  readonly onFree: () => void
}

export async function openRedisMailbox(options: MailboxOptions): Promise<RedisMailbox> {
  const box = new RedisMailbox(options)
  await box.open()
  return box
}

export class RedisMailbox implements Mailbox {
  readonly address = randomUUID()
  readonly #options: MailboxOptions
  #link: Link | null = null
  /** The newest connection, also before it is ready, and what it listens to. */
  #listening: { readonly connection: Connection; readonly to: Set<string> } | null = null
  #isOwner = false
  #isClosed = false

  constructor(options: MailboxOptions) {
    this.#options = options
  }

  async open(): Promise<void> {
    const { url, name, connectMs } = this.#options
    this.#link = await Link.open({ url, name, prepare: (connection) => this.#subscribe(connection) }, connectMs)
  }

  get cause(): Error | null {
    return this.#link?.cause ?? null
  }

  async send(to: string, letter: Uint8Array): Promise<void> {
    const connection = this.#link?.current
    if (connection === undefined || connection === null) return
    const channel = this.#channel(to === 'owner' || to === 'all' ? to : `to:${to}`)
    const bytes = Buffer.from(letter.buffer, letter.byteOffset, letter.byteLength)
    try {
      if (bytes.byteLength <= MOST_INLINE_BYTES) {
        await connection.ask(['PUBLISH', channel, Buffer.concat([INLINE, bytes])])
        return
      }
      const key = this.#options.names.letter(randomUUID())
      // Both at once: the letter is there when its receivers hear of it.
      const put = connection.ask([...runScript(PUT, key), bytes, String(PUT_DOWN_MS)])
      const told = connection.ask(['PUBLISH', channel, Buffer.concat([PUT_DOWN, Buffer.from(key)])])
      await Promise.allSettled([put, told])
    } catch (error) {
      if (!(error instanceof Broken || error instanceof Refused)) throw error
    }
  }

  async serveOwner(isOwner: boolean): Promise<void> {
    this.#isOwner = isOwner
    const { connection, to } = this.#listening ?? {}
    if (connection === undefined || to === undefined || connection.isBroken) return
    try {
      if (isOwner) await this.#listen('owner')
      else if (to.delete('owner')) await connection.client.unsubscribe(this.#channel('owner'))
    } catch (error) {
      // The next connection will listen as it should.
      connection.break(error as Error)
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true
    this.#link?.close()
  }

  async #subscribe(connection: Connection): Promise<void> {
    this.#listening = { connection, to: new Set() }
    await Promise.all([
      this.#listen('all'),
      this.#listen(`to:${this.address}`),
      connection.client.subscribe(this.#channel('free'), () => this.#options.onFree(), true),
      ...(this.#isOwner ? [this.#listen('owner')] : []),
    ])
  }

  async #listen(to: string): Promise<void> {
    const { connection, to: heard } = this.#listening ?? {}
    if (connection === undefined || heard === undefined || heard.has(to)) return
    heard.add(to)
    await connection.client.subscribe(this.#channel(to), (piece) => this.#receive(connection, piece), true)
  }

  #receive(connection: Connection, piece: Buffer): void {
    if (this.#isClosed) return
    if (piece[0] === INLINE[0]) this.#options.onLetter(piece.subarray(1))
    else this.#fetch(connection, piece.toString('latin1', 1)).catch(() => {})
  }

  async #fetch(connection: Connection, key: string): Promise<void> {
    const letter = (await connection.askBytes(['GETEX', key, 'PX', String(READ_MS)])) as Buffer | null
    if (letter !== null && !this.#isClosed) this.#options.onLetter(letter)
  }

  #channel(to: string): string {
    return this.#options.names.channel(this.#options.journalId, to)
  }
}
