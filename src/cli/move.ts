/** `sluice move`: takes the jobs of a queue from one place to another, in order and each once. */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { moveQueue, open, type Sluice } from '../index.ts'
import { type Command, UsageError } from './command.ts'
import { credentialFor } from './credential.ts'
import { isUrl } from './opening.ts'
import { INTERRUPTED, stopOnSignal } from './stopping.ts'

export const move: Command = {
  name: 'move',
  usage: 'FROM TO --queue NAME',
  about:
    'Moves the jobs of a queue that are not settled, from one place to another: a folder, a server or a broker, as open() takes\nthem. The queue at FROM takes nothing new from then on (503) and hands nothing out; what runs ends there; then everything that\nwaits is stored at TO, in its order, and ended at FROM. Broken off, it is done again, and goes on: nothing is stored twice.\nAfterwards start publishers and workers with the new place. Attempts begin anew, ids are others, and idempotency\nkeys do not go along; dead letters and results stay.',
  examples: [
    'sluice move ./data redis://127.0.0.1:6379 --queue email',
    'sluice move http://127.0.0.1:8787 amqp://127.0.0.1 --queue email --drain-ms 300000 --json',
    'sluice move redis://127.0.0.1:6379 ./data --queue email --reopen',
  ],
  options: {
    queue: { type: 'string', value: 'NAME', text: 'Which queue.' },
    reopen: {
      type: 'boolean',
      text: 'The way back: give the queue at TO, which was moved away from there, the limit of the one at FROM, and let it hand out.',
    },
    'drain-ms': {
      type: 'string',
      value: 'MS',
      text: 'How long what runs may take to end, in milliseconds. Default: 60000',
    },
  },
  async run(input) {
    const [from, to, ...rest] = input.words
    const queue = input.value('queue')
    if (from === undefined || to === undefined || rest.length > 0 || queue === undefined)
      throw new UsageError('Name two places, FROM and TO, and a queue with --queue NAME.')
    if (from === to || (!isUrl(from) && !isUrl(to) && resolve(from) === resolve(to)))
      throw new UsageError('FROM and TO are the same place.')
    const drainMs = input.count('drain-ms', 0, 86_400_000) ?? 60_000
    const stop = stopOnSignal()
    const opened: Sluice[] = []
    let isTold = false
    try {
      for (const [place, mustExist] of [
        [from, true],
        [to, false],
      ] as const) {
        if (mustExist && !place.includes('://') && !existsSync(resolve(place)))
          throw new UsageError(`FROM is '${place}', which is not there.`)
        const url = /^https?:\/\//i.test(place) ? URL.parse(place) : null
        const credential = url === null ? undefined : credentialFor(url)
        opened.push(await open(place, credential === undefined ? {} : { credential }))
      }
      const [source, target] = opened as [Sluice, Sluice]
      const outcome = await moveQueue(source, target, {
        queue,
        drainMs,
        reopen: input.has('reopen'),
        signal: stop.signal,
        onFull(reason) {
          if (!isTold && !input.isJson) process.stderr.write(`The queue at TO is full (${reason}); waiting for room.\n`)
          isTold = true
        },
        onProgress(moved, left) {
          if (process.stderr.isTTY && !input.isJson) process.stderr.write(`\r${moved} moved, ${left} left `)
        },
      })
      if (process.stderr.isTTY && !input.isJson) process.stderr.write('\n')
      const { moved, doubled, dead } = outcome
      process.stdout.write(
        input.isJson
          ? `${JSON.stringify({ queue, ...outcome })}\n`
          : `${moved} jobs of '${queue}' were moved${doubled > 0 ? `, of which ${doubled} were there already` : ''}.${dead > 0 ? ` ${dead} dead letters stay where they are.` : ''}\nThe queue at the old place is paused and takes nothing new. Start publishers and workers with the new one.\n`,
      )
      return 0
    } catch (error) {
      if (stop.signal.aborted && (error as Error).name === 'AbortError') {
        process.stderr.write('\nStopped. What was moved is there, the rest is where it was: do it again to go on.\n')
        return INTERRUPTED
      }
      throw error
    } finally {
      await Promise.all(opened.map((sluice) => sluice.close()))
      stop.release()
    }
  },
}
