/** `sluice tail`: reads a topic, or the messages of a queue, apart from any group, and follows it. */
import { BatchView, Message, type ReadFrom, type Sluice, SluiceError } from '../index.ts'
import { type Command, type Input, UsageError } from './command.ts'
import { readFrom } from './groups.ts'
import { findTopic, PLACE_OPTIONS, withPlace } from './opening.ts'
import { plain, show } from './plain.ts'
import { INTERRUPTED, stopOnSignal } from './stopping.ts'

const READ_COUNT = 1_000
const WAIT_MS = 20_000

export const tail: Command = {
  name: 'tail',
  usage: 'TOPIC   or   --queue NAME',
  about:
    'Prints the messages of a topic as they come, and changes nothing: no group is registered. It begins with what is\npublished from now on, or --from a place, and ends with Ctrl-C, at --limit, or with --no-follow at the end of the topic.',
  examples: [
    'sluice tail orders',
    'sluice tail orders --from earliest --no-follow --json | jq .payload',
    'sluice tail orders --from 2026-01-31T08:00:00Z --limit 10',
    'sluice tail --queue email --from 0',
  ],
  options: {
    queue: { type: 'string', value: 'NAME', text: 'The jobs of a queue instead, whether settled or not.' },
    from: {
      type: 'string',
      value: 'PLACE',
      text: 'earliest, latest, an offset, or a time such as 2026-01-31T08:00:00Z. Default: latest',
    },
    limit: { type: 'string', value: 'N', text: 'End after so many messages.' },
    'no-follow': { type: 'boolean', text: 'End where the topic ends now.' },
    ...PLACE_OPTIONS,
  },
  async run(input) {
    const queue = input.value('queue')
    const [topic, ...rest] = input.words
    if ((queue === undefined) === (topic === undefined) || rest.length > 0)
      throw new UsageError('Name one topic, or one queue with --queue NAME.')
    const from = readFrom(input.value('from') ?? 'latest')
    const limit = input.count('limit', 1, Number.MAX_SAFE_INTEGER) ?? Number.POSITIVE_INFINITY
    const kind = queue === undefined ? 'topic' : 'queue'
    const name = queue ?? (topic as string)
    const stop = stopOnSignal()
    try {
      await withPlace(input, async (sluice) => {
        await findTopic(sluice, kind, name)
        await follow(sluice, input, { name, from, limit, signal: stop.signal })
      })
      return stop.by === null ? 0 : INTERRUPTED
    } finally {
      stop.release()
    }
  },
}

interface Wanted {
  readonly name: string
  readonly from: ReadFrom
  readonly limit: number
  readonly signal: AbortSignal
}

async function follow(sluice: Sluice, input: Input, { name, from: start, limit, signal }: Wanted): Promise<void> {
  const isFollowing = !input.has('no-follow')
  let from = start
  let left = limit
  let end = Number.POSITIVE_INFINITY
  while (left > 0 && !signal.aborted) {
    const max = Math.min(left, READ_COUNT)
    const outcome = await sluice.engine.read({ topic: name, from, max, waitMs: isFollowing ? WAIT_MS : 0 }, signal)
    if (outcome.status === 'not-found') throw new SluiceError('TOPIC_NOT_FOUND', `'${name}' is gone.`)
    if (outcome.status !== 'read') {
      const isLost = outcome.status === 'truncated'
      throw new SluiceError(
        isLost ? 'OFFSET_TRUNCATED' : 'OFFSET_OUT_OF_RANGE',
        `Offset ${outcome.offset} of '${name}' ${isLost ? 'is no longer kept' : 'is beyond its end'}: there are ${outcome.earliest} to ${outcome.head}.`,
        { earliest: outcome.earliest, head: outcome.head },
      )
    }
    if (!isFollowing) end = Math.min(end, outcome.head)
    for (const slice of outcome.messages) {
      const view = new BatchView(slice.bytes)
      for (let i = slice.from; i < slice.to; i++) {
        const offset = slice.baseOffset + i
        if (left-- <= 0 || offset >= end || signal.aborted) return
        await say(new Message(name, slice.partition, offset, slice.timestampMs, view, i), input.isJson)
      }
    }
    if (outcome.next >= end) return
    from = outcome.next
  }
}

/** Waits where the reader of the output is slower than the topic. */
async function say(message: Message, isJson: boolean): Promise<void> {
  const shown = message.toJSON()
  const line = isJson ? JSON.stringify(shown) : describe(message, shown)
  if (process.stdout.write(`${line}\n`)) return
  await new Promise<void>((resolve) => process.stdout.once('drain', resolve))
}

function describe({ offset, timestampMs, key }: Message, { payload, payloadBase64 }: Record<string, unknown>): string {
  const what = payloadBase64 === undefined ? show(payload ?? null) : `base64:${payloadBase64}`
  return `${offset}  ${new Date(timestampMs).toISOString()}  ${plain(key ?? '-')}  ${what}`
}
