/** Pages of a topic, as JSON text. */
import { BatchView, type Engine, type ReadFrom, type ReadOutcome } from '../index.ts'
import { offsetError } from '../outcomes.ts'
import { notFound } from './directory.ts'
import { nextHelping } from './paging.ts'
import { formatMessage } from './views.ts'

export interface Page {
  /** Each as JSON text. */
  readonly messages: readonly { readonly offset: number; readonly text: string }[]
  readonly next: number
  readonly earliest: number
  readonly head: number
}

export interface PageWish {
  readonly topic: string
  readonly from: ReadFrom
  readonly limit: number
  /** About how many bytes of messages. */
  readonly budgetBytes: number
  readonly waitMs: number
}

/** `first`: what was read already, by the same wish. */
export async function takePage(
  engine: Engine,
  wish: PageWish,
  signal?: AbortSignal,
  first?: ReadOutcome,
): Promise<Page> {
  const { topic, limit, budgetBytes } = wish
  const messages: Page['messages'][number][] = []
  let page: Page | null = null
  let bytes = 0
  for (;;) {
    const taken = messages.length
    const max = nextHelping({ wanted: limit, budgetBytes, takenCount: taken, takenBytes: bytes })
    if (page !== null && (max === 0 || page.next >= page.head)) return page
    const from: ReadFrom = page?.next ?? wish.from
    const outcome: ReadOutcome =
      page === null && first !== undefined
        ? first
        : await engine.read({ topic, from, max, waitMs: taken === 0 ? wish.waitMs : 0 }, signal)
    if (outcome.status !== 'read') {
      // What was read before is good; the next call hears of the rest.
      if (page !== null) return page
      throw outcome.status === 'not-found' ? notFound('topic', topic) : offsetError(topic, outcome)
    }
    for (const slice of outcome.messages) {
      const view = new BatchView(slice.bytes)
      for (let i = slice.from; i < slice.to; i++) {
        const offset = slice.baseOffset + i
        const text = formatMessage(view, i, { partition: slice.partition, offset, timestampMs: slice.timestampMs })
        messages.push({ offset, text })
        bytes += text.length
      }
    }
    const read: Page = { messages, next: outcome.next, earliest: outcome.earliest, head: outcome.head }
    page = read
    if (messages.length === taken) return read
  }
}
