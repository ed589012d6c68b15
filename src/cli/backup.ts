/** `sluice backup` and `sluice restore`: a copy of everything while the work goes on, and a data folder of one. */
import { existsSync, readdirSync, statSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { restore as restoreBackup } from '../index.ts'
import { type Command, UsageError } from './command.ts'
import { openPlace, PLACE_OPTIONS, placeOf } from './opening.ts'
import { print } from './plain.ts'
import { bytesText, createProgress } from './progress.ts'
import { INTERRUPTED, stopOnSignal } from './stopping.ts'

const LOOK_MS = 100

export const backup: Command = {
  name: 'backup',
  usage: 'FILE',
  about: `Copies everything that a server or a data folder has, as it is at one moment, into a new file; the work goes on
meanwhile. The copy is read back and every checksum in it compared before it gets its name: what is there under that
name is whole. A server needs a key with the scope admin, where it asks for keys.
Brokers are backed up by their own means.`,
  examples: [
    'sluice backup ./sluice-2026-01-31.backup',
    'sluice backup --data ./data ./copy.backup',
    'sluice backup --url https://queue.example.com ./copy.backup --json',
  ],
  options: PLACE_OPTIONS,
  async run(input) {
    const [file, ...rest] = input.words
    if (file === undefined || rest.length > 0) throw new UsageError('Name one new file for the backup.')
    const sluice = await openPlace(input)
    const progress = createProgress()
    const stop = stopOnSignal()
    const total = (await sluice.stats()).log.storedBytes
    const looking = setInterval(() => {
      progress.show(() => `${bytesText(sizeOfUnfinished(file))} of about ${bytesText(total)}`)
    }, LOOK_MS)
    try {
      const ended = new Promise<null>((end) => stop.signal.addEventListener('abort', () => end(null)))
      const info = await Promise.race([sluice.backup(file), ended])
      progress.end()
      if (info === null) {
        process.stderr.write('Interrupted: there is no backup.\n')
        return INTERRUPTED
      }
      print(
        input.isJson,
        info,
        `${info.file}: ${bytesText(info.fileBytes)}, ${info.messages.toLocaleString('en-US')} messages of ${info.topics} topics, commit ${info.commit} of ${placeOf(input)}. Read back and whole.\n`,
      )
      return 0
    } finally {
      clearInterval(looking)
      stop.release()
      await sluice.close()
    }
  },
}

/** The copy has another name until it is whole. */
function sizeOfUnfinished(file: string): number {
  const path = resolve(file)
  try {
    const name = readdirSync(dirname(path)).find(
      (one) => one.startsWith(`${basename(path)}.unfinished-`) && !one.endsWith('-journal'),
    )
    return name === undefined ? 0 : statSync(join(dirname(path), name)).size
  } catch {
    return 0
  }
}

export const restore: Command = {
  name: 'restore',
  usage: 'FILE FOLDER',
  about: `Makes a data folder of a backup. The backup is checked, page by page; the folder must be empty or not there, and gets
its name once all of it is. Nothing is ever overwritten.

What the backup holds goes on from there. What was stored after it is gone: ids of such jobs are not found, and are never
those of other jobs. Leases of before have ended, so their jobs are handed out again; all new fences are higher than any
that may have been given since. Jobs that were done after the backup are done again: handlers must bear that.
Do not run the original beside it on the same outside world.`,
  examples: ['sluice restore ./sluice-2026-01-31.backup ./data', 'sluice serve --data ./data'],
  options: {},
  async run(input) {
    const [file, folder, ...rest] = input.words
    if (file === undefined || folder === undefined || rest.length > 0)
      throw new UsageError('Name the backup and the folder to make of it.')
    if (!existsSync(file)) throw new UsageError(`There is no backup '${file}'.`)
    const restored = await restoreBackup(file, folder)
    print(
      input.isJson,
      restored,
      `${folder} holds what was there at ${new Date(restored.backupAtMs).toISOString()}. \`sluice serve --data ${folder}\` serves it.\n`,
    )
    return 0
  },
}
