/** A router in this thread, as the link of a local engine. */
import type { Host } from '../../host/host.ts'
import type { Journal } from '../../journals/contract.ts'
import { openReplicatedLog } from '../../logs/replicated.ts'
import { type Link, noFileError, type OnAnswers } from '../link.ts'
import { Router } from './router.ts'

const OPEN_MS = 30_000
const KEEP_ALIVE_MS = 1_000_000

export interface RouterLinkOptions {
  /** See `ReplicatedLogOptions`. */
  readonly sweepBytes?: number
}

export async function openRouterLink(
  journal: Journal,
  host: Host,
  onAnswers: OnAnswers,
  { sweepBytes }: RouterLinkOptions = {},
): Promise<Link> {
  let messages = 0
  let clockAheadMs = 0
  let alive: NodeJS.Timeout | undefined
  const { router, abilities } = await Router.open(
    {
      journal,
      host,
      openLog: (grant, engineId) =>
        openReplicatedLog(journal, grant, {
          stateDir: null,
          engineId,
          ...(sweepBytes === undefined ? {} : { sweepBytes }),
        }),
      emit(answers) {
        const taken = messages
        messages = 0
        if (answers.length > 0 || taken > 0) onAnswers(answers, taken)
      },
      onClock(aheadMs) {
        clockAheadMs = aheadMs
      },
    },
    OPEN_MS,
  )
  return {
    abilities,
    clockAheadMs: () => clockAheadMs,
    send(requests) {
      queueMicrotask(() => {
        messages++
        router.submit(requests)
        if (!router.isOwner) {
          const taken = messages
          messages = 0
          if (taken > 0) onAnswers([], taken)
        }
      })
    },
    health: () => router.health(),
    copy: () => Promise.reject(noFileError()),
    keepAlive(needed) {
      clearInterval(alive)
      if (needed) alive = setInterval(() => {}, KEEP_ALIVE_MS)
    },
    async close() {
      clearInterval(alive)
      alive = setInterval(() => {}, KEEP_ALIVE_MS)
      await router.close()
      clearInterval(alive)
    },
  }
}
