/** A data folder or a broker that `sluice publish` opens itself. A folder is one process's at a time. */
import { acceptedJob, publishedMessage } from '../server/accepted.ts'
import { Appender } from '../server/appender.ts'
import { Directory } from '../server/directory.ts'
import { readMessageObject } from '../server/incoming.ts'
import { problemOf } from '../server/problem.ts'
import type { Input } from './command.ts'
import { openPlace } from './opening.ts'
import type { LineOutcome, Target } from './target.ts'

const MAX_MESSAGE_BYTES = 268_435_456

/** Opens the place and declares the queue or topic, with the defaults where it is new. */
export async function openEngineTarget(input: Input, kind: 'queue' | 'topic', name: string): Promise<Target> {
  const sluice = await openPlace(input)
  const directory = new Directory(sluice, Number.MAX_SAFE_INTEGER)
  const appender = new Appender(sluice.engine)
  const entry = await directory.use(kind, name).catch(async (error: unknown) => {
    await sluice.close()
    throw error
  })
  async function sendOne(source: string, i: number): Promise<LineOutcome> {
    try {
      const incoming = readMessageObject(
        { source, value: JSON.parse(source), kind, where: `message ${i + 1}` },
        Date.now(),
        MAX_MESSAGE_BYTES,
      )
      const appended = await appender.append(name, incoming, '')
      const receipt = kind === 'queue' ? acceptedJob(entry, appended) : publishedMessage(name, appended)
      return { isStored: true, isDuplicate: receipt.duplicate, receipt: { ...receipt } }
    } catch (error) {
      const { code, detail, retryAfterMs } = problemOf(error)
      return { isStored: false, code, detail, retryAfterMs: typeof retryAfterMs === 'number' ? retryAfterMs : null }
    }
  }
  return { send: (lines) => Promise.all(lines.map(sendOne)), close: () => sluice.close() }
}
