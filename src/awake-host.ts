/**
 * A host whose timers keep the process alive while they run, as the timers of nouns must: whoever awaits a paced `add`
 * has nothing else under way, and Node would end the process under it. (The engine's own timers do not: an open Sluice
 * that nobody waits for lets the process end.)
 */
import type { Host } from './host/host.ts'

/** Longer than any process lives, within what the platform takes. */
const LONG_MS = 2_147_483_647

export function createAwakeHost(host: Host): Host {
  let count = 0
  let handle: NodeJS.Timeout | null = null
  const release = (): void => {
    count--
    if (count > 0 || handle === null) return
    clearInterval(handle)
    handle = null
  }
  return {
    now: () => host.now(),
    random: () => host.random(),
    setTimer(ms, fire) {
      count++
      handle ??= setInterval(() => {}, LONG_MS)
      let isOver = false
      const end = (): boolean => {
        if (isOver) return false
        isOver = true
        release()
        return true
      }
      const stop = host.setTimer(ms, () => {
        if (end()) fire()
      })
      return () => {
        if (end()) stop()
      }
    },
  }
}
