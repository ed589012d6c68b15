/**
 * A process that owns a journal and appends until it is killed: `node owner-child.ts URL NAMESPACE`. Says `owns EPOCH`, then
 * the text of each entry once that is durable, a line each.
 */
import { SluiceError } from '../../src/errors.ts'
import { openJournal } from '../../src/journals/open.ts'

const [url = '', namespace = ''] = process.argv.slice(2)
const journal = await openJournal({ url: new URL(url), namespace })
const grant = await journal.own(AbortSignal.timeout(60_000))
const say = (text: string): boolean => process.stdout.write(`${text}\n`)
for (let number = 0; ; number++) {
  const text = number === 0 ? 'claim of the child' : `child ${number}`
  const { status } = await journal.append(grant, [Buffer.from(text)])
  if (status !== 'durable') throw new SluiceError('ENGINE_FAILED', `The append was ${status}`)
  say(number === 0 ? `owns ${grant.epoch}` : text)
}
