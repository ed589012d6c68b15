import { SluiceError } from '../errors.ts'
import type { AnswerError } from '../ledger/requests.ts'
import type { SqliteLog } from '../logs/sqlite.ts'
import { asBackupError } from './backup.ts'
import type { FromBroker } from './messages.ts'

/** Copies of the data that are being made. None is under way when the log is closed. */
export class Copies {
  readonly #log: SqliteLog
  readonly #send: (message: FromBroker) => void
  readonly #stopping = new AbortController()
  readonly #underWay = new Set<Promise<void>>()

  constructor(log: SqliteLog, send: (message: FromBroker) => void) {
    this.#log = log
    this.#send = send
  }

  start({ id, file }: { readonly id: number; readonly file: string }): void {
    const copying = this.#copy(file).then((error) => {
      this.#underWay.delete(copying)
      this.#send({ kind: 'copied', id, error })
    })
    this.#underWay.add(copying)
  }

  async #copy(file: string): Promise<AnswerError | null> {
    try {
      await this.#log.copyTo(file, this.#stopping.signal)
      return null
    } catch (error) {
      const { code, message, details } = this.#stopping.signal.aborted
        ? new SluiceError('CLOSED', 'Sluice was closed before the backup was finished; there is none')
        : asBackupError(error)
      return { code, message, details }
    }
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await Promise.all(this.#underWay)
  }
}
